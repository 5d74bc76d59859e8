//! A component behind [`ProviderPlugin`]: one fresh store and instance for every call.

use std::fmt;
use std::sync::Arc;

use tokio::sync::Semaphore;
use wasmtime::component::{
    Component, ComponentNamedList, Instance, InstancePre, Lift, Linker, Lower,
};

use super::bindings::provider::exports::keyfob::provider::provider as wit;
use super::bindings::provider::exports::keyfob::types::types;
use super::error::LoadError;
use super::function::{Exports, Function};
use super::inspect::PROVIDER;
use super::limits::{DESCRIBE, Meter, STEP};
use super::runtime::Runtime;
use super::{describe, lift, sandbox};
use crate::model::contract::{
    BoxFuture, Call, Description, Mistake, Needs, PluginFault, ProviderPlugin, Refusal, Rejection,
    Reply, Revocation, RevokeStep, Step, Verdict,
};

/// A provider plugin of contract 0.1.
pub(super) struct Provider {
    runtime: Arc<Runtime>,
    pre: InstancePre<Meter>,
    functions: Functions,
    turns: Semaphore,
    description: Description,
    digest: String,
}

/// What is called once it is open.
struct Functions {
    configure: Function<(&'static str,), Result<wit::Needs, Vec<wit::Mistake>>>,
    refresh:
        Function<(&'static wit::Call, &'static [types::Reply]), Result<wit::Step, wit::Refusal>>,
    revoke: Function<
        (&'static wit::Revocation, &'static [types::Reply]),
        Result<wit::RevokeStep, wit::Refusal>,
    >,
    classify: Function<(&'static wit::Rejection,), wit::Verdict>,
}

type Store = wasmtime::Store<Meter>;

impl Provider {
    /// Checks the types of the exports, which say to be of `version`, and asks the plugin once who it is.
    pub(super) async fn open(
        runtime: &Arc<Runtime>,
        code: &Component,
        version: &str,
        digest: String,
    ) -> Result<Self, LoadError> {
        let pre = Linker::new(runtime.engine())
            .instantiate_pre(code)
            .map_err(|error| PROVIDER.mismatch(version, &error))?;
        let turns = runtime.turns();
        let described = sandbox::run(runtime, &turns, &DESCRIBE, async |store: &mut Store| {
            let instance = pre.instantiate_async(&mut *store).await?;
            let (describe, functions) = match Functions::of(code, version, store, instance) {
                Ok(found) => found,
                Err(error) => return Ok(Err(error)),
            };
            let said = describe.call(store, &instance, ()).await?;
            Ok(Ok((functions, said)))
        });
        let described = described.await.map_err(|fault| describe::failed(&fault))?;
        let (functions, said) = described.map_err(|error| PROVIDER.mismatch(version, &error))?;
        let wit::Description {
            name,
            version,
            summary,
            settings_schema,
        } = said;
        let description = describe::check(Description {
            name,
            version,
            summary,
            settings_schema,
        })?;
        Ok(Self {
            runtime: Arc::clone(runtime),
            pre,
            functions,
            turns,
            description,
            digest,
        })
    }

    /// Calls one function in an instance of its own.
    async fn ask<Params, R>(
        &self,
        function: &Function<Params, R>,
        params: Params,
    ) -> Result<R, PluginFault>
    where
        Params: ComponentNamedList + Lower + Send + Sync,
        R: Send + Sync + 'static,
        (R,): ComponentNamedList + Lift,
    {
        sandbox::run(
            &self.runtime,
            &self.turns,
            &STEP,
            async |store: &mut Store| {
                let instance = self.pre.instantiate_async(&mut *store).await?;
                function.call(store, &instance, params).await
            },
        )
        .await
    }
}

// === impl Functions ===

impl Functions {
    /// Finds them in a component that has an instance; and what tells who it is, which is asked once.
    fn of(
        code: &Component,
        version: &str,
        store: &mut Store,
        instance: Instance,
    ) -> wasmtime::Result<(Function<(), wit::Description>, Self)> {
        let exports = Exports::of(code, &PROVIDER.interface_of(version), instance)?;
        let describe = exports.function(store, "describe")?;
        let functions = Self {
            configure: exports.function(store, "configure")?,
            refresh: exports.function(store, "refresh")?,
            revoke: exports.function(store, "revoke")?,
            classify: exports.function(store, "classify")?,
        };
        Ok((describe, functions))
    }
}

impl ProviderPlugin for Provider {
    fn description(&self) -> &Description {
        &self.description
    }

    fn digest(&self) -> &str {
        &self.digest
    }

    fn configure<'a>(
        &'a self,
        settings: &'a str,
    ) -> BoxFuture<'a, Result<Result<Needs, Vec<Mistake>>, PluginFault>> {
        Box::pin(async move {
            let answer: Result<wit::Needs, Vec<wit::Mistake>> =
                self.ask(&self.functions.configure, (settings,)).await?;
            Ok(match answer {
                Ok(needs) => Ok(lift::needs(needs)?),
                Err(mistakes) => Err(lift::mistakes(mistakes)?),
            })
        })
    }

    fn refresh<'a>(
        &'a self,
        call: &'a Call,
        replies: &'a [Reply],
    ) -> BoxFuture<'a, Result<Result<Step, Refusal>, PluginFault>> {
        Box::pin(async move {
            let call = wit::Call::from(call);
            let replies: Vec<types::Reply> = replies.iter().map(Into::into).collect();
            let params = (&call, replies.as_slice());
            let answer: Result<wit::Step, wit::Refusal> =
                self.ask(&self.functions.refresh, params).await?;
            Ok(match answer {
                Ok(step) => Ok(lift::step(step)?),
                Err(refusal) => Err(lift::refusal(refusal)?),
            })
        })
    }

    fn revoke<'a>(
        &'a self,
        what: &'a Revocation,
        replies: &'a [Reply],
    ) -> BoxFuture<'a, Result<Result<RevokeStep, Refusal>, PluginFault>> {
        Box::pin(async move {
            let what = wit::Revocation::from(what);
            let replies: Vec<types::Reply> = replies.iter().map(Into::into).collect();
            let params = (&what, replies.as_slice());
            let answer: Result<wit::RevokeStep, wit::Refusal> =
                self.ask(&self.functions.revoke, params).await?;
            Ok(match answer {
                Ok(step) => Ok(lift::revoke_step(step)?),
                Err(refusal) => Err(lift::refusal(refusal)?),
            })
        })
    }

    fn classify<'a>(
        &'a self,
        rejection: &'a Rejection,
    ) -> BoxFuture<'a, Result<Verdict, PluginFault>> {
        Box::pin(async move {
            let rejection = wit::Rejection::from(rejection);
            let verdict = self.ask(&self.functions.classify, (&rejection,)).await?;
            Ok(lift::verdict(verdict))
        })
    }
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Provider")
            .field("name", &self.description.name)
            .field("version", &self.description.version)
            .field("digest", &self.digest)
            .finish_non_exhaustive()
    }
}
