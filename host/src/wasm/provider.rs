//! A component behind [`ProviderPlugin`]: one fresh store and instance for every call.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use tokio::sync::Semaphore;
use wasmtime::component::{
    Component, ComponentExportIndex, ComponentNamedList, Instance, InstancePre, Lift, Linker,
    Lower, TypedFunc,
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

/// Its functions. The generated bindings look all of them up in every instance and compare their types, each of which is a
/// tree of records. A step calls one.
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

/// Where a function is, whose type was compared when the plugin was opened: the types of a component never change.
struct Function<Params, R> {
    index: ComponentExportIndex,
    /// Covariant, so that a call may lend what lives no longer than it.
    of: PhantomData<(Params, R)>,
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
        let turns = runtime.turns();
        let described = sandbox::run(runtime, &turns, &DESCRIBE, async |store: &mut Store| {
            let instance = pre.instance_pre().instantiate_async(&mut *store).await?;
            // Types are compared here; once they are found to fit, the same bytes fit for ever.
            let found = PluginIndices::new(pre.instance_pre())?
                .load(&mut *store, &instance)
                .and_then(|plugin| {
                    let functions = Functions::of(code, version, store, &instance)?;
                    Ok((plugin, functions))
                });
            let (plugin, functions) = match found {
                Ok(found) => found,
                Err(error) => return Ok(Err(error)),
            };
            let provider = plugin.keyfob_provider_provider();
            let said = provider.call_describe(store).await?;
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
                let function = function.in_instance(store, &instance)?;
                let (answer,) = function.call_async(store, params).await?;
                Ok(answer)
            },
        )
        .await
    }
}

// === impl Functions ===

impl Functions {
    /// Finds them and compares their types with ours, in an instance of this component.
    fn of(
        code: &Component,
        version: &str,
        store: &mut Store,
        instance: &Instance,
    ) -> wasmtime::Result<Self> {
        let interface = PROVIDER.interface_of(version);
        let missing = |what: &str| wasmtime::format_err!("no export `{what}`");
        let exports = code.get_export_index(None, &interface);
        let exports = exports.ok_or_else(|| missing(&interface))?;
        let index = |name: &str| {
            let index = code.get_export_index(Some(&exports), name);
            index.ok_or_else(|| missing(name))
        };
        Ok(Self {
            configure: Function::of(index("configure")?, store, instance)?,
            refresh: Function::of(index("refresh")?, store, instance)?,
            revoke: Function::of(index("revoke")?, store, instance)?,
            classify: Function::of(index("classify")?, store, instance)?,
        })
    }
}

// === impl Function ===

impl<Params, R> Function<Params, R>
where
    Params: ComponentNamedList + Lower,
    (R,): ComponentNamedList + Lift,
{
    /// The function at `index`, if it takes and returns what is said here.
    fn of(
        index: ComponentExportIndex,
        store: &mut Store,
        instance: &Instance,
    ) -> wasmtime::Result<Self> {
        instance.get_typed_func::<Params, (R,)>(&mut *store, &index)?;
        Ok(Self {
            index,
            of: PhantomData,
        })
    }

    /// The same function in another instance of the component that it was found in.
    fn in_instance(
        &self,
        store: &mut Store,
        instance: &Instance,
    ) -> wasmtime::Result<TypedFunc<Params, (R,)>> {
        let function = instance.get_func(&mut *store, self.index);
        let function = function.ok_or_else(|| wasmtime::format_err!("the export is gone"))?;
        // SAFETY: `Function::of`, which alone makes a `Function`, compared its type with these parameters and this result, but for
        // how long what they borrow lives. Both instances are of one component: a `Provider` keeps its functions and
        // what its instances are made of together.
        #[expect(
            unsafe_code,
            reason = "comparing the types again took a thirtieth of a refresh"
        )]
        Ok(unsafe { TypedFunc::new_unchecked(function) })
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
