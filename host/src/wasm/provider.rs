//! A component behind [`ProviderPlugin`]: one fresh store and instance for every call.

use std::fmt;
use std::sync::Arc;

use tokio::sync::Semaphore;
use wasmtime::component::{Component, Linker};

use super::bindings::provider::exports::keyfob::provider::provider as wit;
use super::bindings::provider::exports::keyfob::types::types;
use super::bindings::provider::{Plugin, PluginIndices, PluginPre};
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
    pre: PluginPre<Meter>,
    turns: Semaphore,
    description: Description,
    digest: String,
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
            pre,
            turns,
            description,
            digest,
        })
    }

    /// Runs one call in an instance of its own.
    async fn ask<R>(
        &self,
        call: impl AsyncFnOnce(&mut Store, &Plugin) -> wasmtime::Result<R>,
    ) -> Result<R, PluginFault> {
        sandbox::run(
            &self.runtime,
            &self.turns,
            &STEP,
            async |store: &mut Store| {
                let plugin = self.pre.instantiate_async(&mut *store).await?;
                call(store, &plugin).await
            },
        )
        .await
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
            let answer = self.ask(async |store: &mut Store, plugin: &Plugin| {
                plugin
                    .keyfob_provider_provider()
                    .call_configure(store, settings)
                    .await
            });
            Ok(match answer.await? {
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
            let answer = self.ask(async |store: &mut Store, plugin: &Plugin| {
                plugin
                    .keyfob_provider_provider()
                    .call_refresh(store, &call, &replies)
                    .await
            });
            Ok(match answer.await? {
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
            let answer = self.ask(async |store: &mut Store, plugin: &Plugin| {
                plugin
                    .keyfob_provider_provider()
                    .call_revoke(store, &what, &replies)
                    .await
            });
            Ok(match answer.await? {
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
            let answer = self.ask(async |store: &mut Store, plugin: &Plugin| {
                plugin
                    .keyfob_provider_provider()
                    .call_classify(store, &rejection)
                    .await
            });
            Ok(lift::verdict(answer.await?))
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
