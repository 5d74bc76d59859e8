//! A component behind [`PolicyPlugin`]: one fresh store and instance for every decision.

use std::fmt;
use std::sync::Arc;

use tokio::sync::Semaphore;
use wasmtime::component::{Component, Instance, InstancePre, Linker};

use super::bindings::policy::exports::keyfob::policy::policy as wit;
use super::bindings::policy::exports::keyfob::types::types;
use super::error::LoadError;
use super::function::{Exports, Function};
use super::inspect::POLICY;
use super::limits::{DESCRIBE, Meter, STEP};
use super::runtime::Runtime;
use super::{describe, lift, sandbox};
use crate::model::contract::{
    Allowance, BoxFuture, Description, PluginFault, PolicyPlugin, Query, Reason,
};

/// A policy plugin of contract 0.1.
pub(super) struct Policy {
    runtime: Arc<Runtime>,
    pre: InstancePre<Meter>,
    decide: Decide,
    turns: Semaphore,
    description: Description,
    digest: String,
}

/// What is called once it is open.
type Decide = Function<(&'static wit::Query,), Result<wit::Allowance, types::Reason>>;
type Store = wasmtime::Store<Meter>;

impl Policy {
    /// Checks the types of the exports, which say to be of `version`, and asks the plugin once who it is.
    pub(super) async fn open(
        runtime: &Arc<Runtime>,
        code: &Component,
        version: &str,
        digest: String,
    ) -> Result<Self, LoadError> {
        let pre = Linker::new(runtime.engine())
            .instantiate_pre(code)
            .map_err(|error| POLICY.mismatch(version, &error))?;
        let turns = runtime.turns();
        let described = sandbox::run(runtime, &turns, &DESCRIBE, async |store: &mut Store| {
            let instance = pre.instantiate_async(&mut *store).await?;
            let (describe, decide) = match functions(code, version, store, instance) {
                Ok(found) => found,
                Err(error) => return Ok(Err(error)),
            };
            let said = describe.call(store, &instance, ()).await?;
            Ok(Ok((decide, said)))
        });
        let described = described.await.map_err(|fault| describe::failed(&fault))?;
        let (decide, said) = described.map_err(|error| POLICY.mismatch(version, &error))?;
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
            decide,
            turns,
            description,
            digest,
        })
    }
}

/// Finds its functions in a component that has an instance; the first is asked once.
fn functions(
    code: &Component,
    version: &str,
    store: &mut Store,
    instance: Instance,
) -> wasmtime::Result<(Function<(), wit::Description>, Decide)> {
    let exports = Exports::of(code, &POLICY.interface_of(version), instance)?;
    let describe = exports.function(store, "describe")?;
    Ok((describe, exports.function(store, "decide")?))
}

impl PolicyPlugin for Policy {
    fn description(&self) -> &Description {
        &self.description
    }

    fn digest(&self) -> &str {
        &self.digest
    }

    fn decide<'a>(
        &'a self,
        query: &'a Query,
    ) -> BoxFuture<'a, Result<Result<Allowance, Reason>, PluginFault>> {
        Box::pin(async move {
            let query = wit::Query::from(query);
            let answer = sandbox::run(
                &self.runtime,
                &self.turns,
                &STEP,
                async |store: &mut Store| {
                    let instance = self.pre.instantiate_async(&mut *store).await?;
                    self.decide.call(store, &instance, (&query,)).await
                },
            );
            Ok(match answer.await? {
                Ok(allowance) => Ok(lift::allowance(allowance)?),
                Err(why) => Err(lift::denial(why)?),
            })
        })
    }
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Policy")
            .field("name", &self.description.name)
            .field("version", &self.description.version)
            .field("digest", &self.digest)
            .finish_non_exhaustive()
    }
}
