//! A component behind [`ProviderPlugin`]: one fresh store and instance for every call.

use std::fmt;
use std::sync::Arc;

use tokio::sync::Semaphore;
use wasmtime::component::{
    Component, ComponentExportIndex, ComponentNamedList, InstancePre, Lift, Linker, Lower,
};

use super::bindings::provider::exports::keyfob::provider::provider as wit;
use super::bindings::provider::exports::keyfob::types::types;
use super::bindings::provider::{PluginIndices, PluginPre};
use super::error::LoadError;
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

/// Where its functions are. The generated bindings look all of them up in every instance and compare their types, each of
/// which is a tree of records. A step calls one.
struct Functions {
    configure: ComponentExportIndex,
    refresh: ComponentExportIndex,
    revoke: ComponentExportIndex,
    classify: ComponentExportIndex,
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
            .and_then(PluginPre::new)
            .map_err(|error| PROVIDER.mismatch(version, &error))?;
        let functions =
            Functions::of(code, version).map_err(|error| PROVIDER.mismatch(version, &error))?;
        let turns = runtime.turns();
        let described = sandbox::run(runtime, &turns, &DESCRIBE, async |store: &mut Store| {
            let instance = pre.instance_pre().instantiate_async(&mut *store).await?;
            // Types are compared here; once they are found to fit, the same bytes fit for ever.
            match PluginIndices::new(pre.instance_pre())?.load(&mut *store, &instance) {
                Ok(plugin) => plugin
                    .keyfob_provider_provider()
                    .call_describe(store)
                    .await
                    .map(Ok),
                Err(error) => Ok(Err(error)),
            }
        });
        let described = described.await.map_err(|fault| describe::failed(&fault))?;
        let wit::Description {
            name,
            version,
            summary,
            settings_schema,
        } = described.map_err(|error| PROVIDER.mismatch(version, &error))?;
        let description = describe::check(Description {
            name,
            version,
            summary,
            settings_schema,
        })?;
        Ok(Self {
            runtime: Arc::clone(runtime),
            pre: pre.instance_pre().clone(),
            functions,
            turns,
            description,
            digest,
        })
    }

    /// Calls one function in an instance of its own.
    async fn ask<Params, R>(
        &self,
        function: &ComponentExportIndex,
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
                let function = instance.get_typed_func::<Params, (R,)>(&mut *store, function)?;
                let (answer,) = function.call_async(store, params).await?;
                Ok(answer)
            },
        )
        .await
    }
}

// === impl Functions ===

impl Functions {
    fn of(code: &Component, version: &str) -> wasmtime::Result<Self> {
        let interface = PROVIDER.interface_of(version);
        let missing = |what: &str| wasmtime::format_err!("no export `{what}`");
        let instance = code.get_export_index(None, &interface);
        let instance = instance.ok_or_else(|| missing(&interface))?;
        let function = |name: &str| {
            let index = code.get_export_index(Some(&instance), name);
            index.ok_or_else(|| missing(name))
        };
        Ok(Self {
            configure: function("configure")?,
            refresh: function("refresh")?,
            revoke: function("revoke")?,
            classify: function("classify")?,
        })
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
