//! From settings to a snapshot: plugins loaded, asked what they need, and checked against what was granted. All of it or
//! none, with every mistake at once.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::future::join_all;

use super::status::{BrokerSettings, StartError};
use super::{SetupMistake, transport};
use crate::model::contract::{PolicyPlugin, ProviderPlugin};
use crate::model::secret::Secret;
use crate::model::time::Clock;
use crate::model::transport::Upstream;
use crate::secrets::SecretReader;
use crate::settings::{PluginSource, ProviderSettings, Wasi};
use crate::snapshot::{Placed, Provider, Snapshot, fingerprint_of};
use crate::store::KeptPlugin;
use crate::wasm::{Catalog, LoadedPlugin, builtin_names};

/// What assembling needs.
pub(super) struct Parts {
    pub(super) catalog: Arc<Catalog>,
    pub(super) secrets: SecretReader,
    pub(super) fingerprints: Secret<[u8; 32]>,
    pub(super) clock: Arc<dyn Clock>,
    /// In place of each provider's own way out.
    pub(super) upstream: Option<Arc<dyn Upstream>>,
}

/// What may stand in place of what the configuration names, as long as it names the same.
pub(super) enum Standing<'a> {
    /// Plugins swapped in before the last restart.
    Starting(HashMap<String, KeptPlugin>),
    /// Plugins in force.
    Running(&'a Snapshot),
}

/// A plugin as the configuration names it.
struct Named {
    loaded: LoadedPlugin,
    configured: Arc<str>,
}

/// What is wrong, and what to write.
type Wrong = (String, String);

/// The place of the policy among kept plugins.
pub(super) const POLICY_PLACE: &str = "policy";

/// The place of a provider among kept plugins.
pub(super) fn place_of(provider: &str) -> String {
    format!("provider:{provider}")
}

// === impl Parts ===

impl Parts {
    pub(super) async fn assemble(
        &self,
        settings: &BrokerSettings,
        revision: u64,
        standing: &Standing<'_>,
    ) -> Result<Snapshot, StartError> {
        let (policy, providers) = tokio::join!(
            self.policy(&settings.policy.plugin, revision, standing),
            join_all(
                settings
                    .providers
                    .iter()
                    .map(|p| self.provider(p, revision, standing))
            )
        );
        let mut mistakes = Vec::new();
        let mut by_name = HashMap::new();
        for result in providers {
            match result {
                Ok(provider) => {
                    by_name.insert(provider.settings.name.clone(), Arc::new(provider));
                }
                Err(more) => mistakes.extend(more),
            }
        }
        let callers = settings
            .callers
            .iter()
            .map(|c| (c.name.clone(), c.rules.to_string().into()))
            .collect();
        match policy {
            Ok(policy) if mistakes.is_empty() => Ok(Snapshot {
                revision,
                providers: by_name,
                policy,
                callers,
            }),
            policy => {
                mistakes.extend(policy.err());
                Err(StartError { mistakes })
            }
        }
    }

    async fn provider(
        &self,
        settings: &ProviderSettings,
        revision: u64,
        standing: &Standing<'_>,
    ) -> Result<Provider, Vec<SetupMistake>> {
        let mistake = |(message, fix)| SetupMistake {
            provider: Some(settings.name.as_str().to_owned()),
            message,
            fix,
            widens: false,
        };
        if settings.wasi == Wasi::Empty {
            let fix = "build the plugin for wasm32-unknown-unknown and leave `wasi` out".to_owned();
            return Err(vec![mistake((
                "this build has no WASI for plugins".to_owned(),
                fix,
            ))]);
        }
        let plugin = match self.provider_plugin(settings, revision, standing).await {
            Ok(plugin) => plugin,
            Err((message, fix)) => {
                return Err(vec![mistake((
                    format!("plugin {:?}: {message}", settings.plugin),
                    fix,
                ))]);
            }
        };
        let checked = Provider::check(settings, &*plugin).await;
        let fingerprint = fingerprint_of(settings, &self.secrets, &self.fingerprints).await;
        let upstream = match &self.upstream {
            Some(given) => Ok(given.clone()),
            None => transport::upstream(settings, &self.secrets, self.clock.clone()).await,
        };
        match (checked, fingerprint, upstream) {
            (Ok((needs, rules)), Ok(fingerprint), Ok(upstream)) => Ok(Provider {
                settings: settings.clone(),
                plugin_settings: settings.settings.to_string().into(),
                plugin,
                needs,
                rules: Arc::new(rules),
                upstream,
                fingerprint,
            }),
            (checked, fingerprint, upstream) => {
                let mut mistakes = checked.err().unwrap_or_default();
                mistakes.extend(fingerprint.err().unwrap_or_default());
                mistakes.extend(upstream.err().unwrap_or_default());
                Err(mistakes)
            }
        }
    }

    async fn provider_plugin(
        &self,
        settings: &ProviderSettings,
        revision: u64,
        standing: &Standing<'_>,
    ) -> Result<Placed<dyn ProviderPlugin>, Wrong> {
        let named = self.named(&settings.plugin).await?;
        let place = |loaded: LoadedPlugin| {
            let plugin = loaded.provider.ok_or_else(|| {
                let fix = "export keyfob:provider/provider".to_owned();
                ("it is no provider plugin".to_owned(), fix)
            })?;
            let (component, configured) = (loaded.component, named.configured.clone());
            Ok(Placed {
                plugin,
                component,
                configured,
                revision,
            })
        };
        match standing {
            Standing::Running(old) => match old.providers.get(&settings.name) {
                Some(old) if old.plugin.configured == named.configured => Ok(old.plugin.clone()),
                _ => place(named.loaded),
            },
            Standing::Starting(kept) => {
                let kept = kept.get(&place_of(settings.name.as_str()));
                place(
                    self.kept(kept, &named.configured)
                        .await
                        .unwrap_or(named.loaded),
                )
            }
        }
    }

    async fn policy(
        &self,
        source: &PluginSource,
        revision: u64,
        standing: &Standing<'_>,
    ) -> Result<Placed<dyn PolicyPlugin>, SetupMistake> {
        self.policy_plugin(source, revision, standing)
            .await
            .map_err(|(message, fix)| SetupMistake {
                provider: None,
                message: format!("[policy] plugin {source:?}: {message}"),
                fix,
                widens: false,
            })
    }

    async fn policy_plugin(
        &self,
        source: &PluginSource,
        revision: u64,
        standing: &Standing<'_>,
    ) -> Result<Placed<dyn PolicyPlugin>, Wrong> {
        let named = self.named(source).await?;
        let loaded = match standing {
            Standing::Running(old) if old.policy.configured == named.configured => {
                return Ok(old.policy.clone());
            }
            Standing::Running(_) => named.loaded,
            Standing::Starting(kept) => {
                let kept = self.kept(kept.get(POLICY_PLACE), &named.configured).await;
                kept.unwrap_or(named.loaded)
            }
        };
        let plugin = loaded.policy.ok_or_else(|| {
            (
                "it is no policy plugin".to_owned(),
                "export keyfob:policy/policy".to_owned(),
            )
        })?;
        let (component, configured) = (loaded.component, named.configured);
        Ok(Placed {
            plugin,
            component,
            configured,
            revision,
        })
    }

    /// The plugin that was swapped in, if the configuration still names what it took the place of and this build still
    /// loads it.
    async fn kept(&self, kept: Option<&KeptPlugin>, configured: &str) -> Option<LoadedPlugin> {
        let kept = kept.filter(|kept| kept.instead_of == configured)?;
        self.catalog.load(kept.component.clone()).await.ok()
    }

    /// Loads what the configuration names. A file is named with its digest: another file under the same path is another
    /// plugin. A shipped plugin is named without one: an upgrade of the host is not an operator's decision against a swap.
    async fn named(&self, source: &PluginSource) -> Result<Named, Wrong> {
        let bytes: Arc<[u8]> = match source {
            PluginSource::Bytes(bytes) => bytes.clone(),
            PluginSource::Builtin(name) => super::builtin(name)
                .ok_or_else(|| {
                    let shipped: Vec<_> = builtin_names()
                        .map(|name| format!("builtin:{name}"))
                        .collect();
                    let fix = format!("use {}, or a file", shipped.join(", "));
                    ("no such plugin ships with this build".to_owned(), fix)
                })?
                .into(),
            PluginSource::File(path) => tokio::fs::read(path)
                .await
                .map_err(|fault| {
                    let fix = "name a component file that this process may read".to_owned();
                    (fault.kind().to_string(), fix)
                })?
                .into(),
        };
        let loaded = self.catalog.load(bytes).await;
        let loaded = loaded.map_err(|fault| (fault.what().to_owned(), fault.fix().to_owned()))?;
        let configured = match source {
            PluginSource::Builtin(_) => format!("{source:?}"),
            PluginSource::File(_) | PluginSource::Bytes(_) => {
                format!("{source:?} {}", loaded.digest)
            }
        };
        Ok(Named {
            loaded,
            configured: configured.into(),
        })
    }
}
