//! What operators do to plugins: swap, roll back, inspect. A swap compiles off the hot path, checks, configures, and is one
//! pointer store; the old plugin serves until then, and for good where anything is wrong.

use std::sync::Arc;

use super::status::{Inspection, SwapError, Swapped};
use super::{Broker, SetupMistake};
use crate::core::Core;
use crate::model::contract::ProviderPlugin;
use crate::model::event::Event;
use crate::model::key::ProviderName;
use crate::snapshot::Provider;
use crate::wasm::{Catalog, LoadError, Runtime};

/// The bytes of a plugin that ships with this build: `oauth2`, `github-app`, `allowlist`.
pub fn builtin(name: &str) -> Option<&'static [u8]> {
    crate::wasm::builtin(name)
}

/// Loads a plugin as the host would and asks it about itself.
///
/// # Errors
///
/// [`SwapError`] when the host would not load it, or it fails to answer.
pub async fn inspect(
    component: Arc<[u8]>,
    settings: Option<&str>,
) -> Result<Inspection, SwapError> {
    let runtime = Runtime::new().map_err(|fault| refused_load(&fault))?;
    let loaded = Catalog::new(runtime)
        .load(component)
        .await
        .map_err(|fault| refused_load(&fault))?;
    let (mut needs, mut mistakes) = (None, Vec::new());
    let description = match (&loaded.provider, &loaded.policy) {
        (Some(provider), _) => {
            if let Some(settings) = settings {
                match provider.configure(settings).await {
                    Ok(Ok(found)) => needs = Some(found),
                    Ok(Err(found)) => mistakes = found,
                    Err(fault) => return Err(SwapError::new("configure", fault.to_string())),
                }
            }
            provider.description().clone()
        }
        (None, Some(policy)) => policy.description().clone(),
        (None, None) => {
            return Err(SwapError::new(
                "no_world",
                "it exports no world of Keyfob's",
            ));
        }
    };
    Ok(Inspection {
        description,
        digest: loaded.digest,
        needs,
        mistakes,
    })
}

// === impl Broker ===

impl Broker {
    /// Puts another plugin in a provider's place. Flights in progress finish with the one they began with.
    ///
    /// # Errors
    ///
    /// [`SwapError`] naming what is wrong; the old plugin keeps serving.
    ///
    /// # Cancel safety
    ///
    /// Safe: it is put in force in one step at the end.
    pub async fn swap_provider(
        &self,
        name: &str,
        component: Arc<[u8]>,
        by: &str,
    ) -> Result<Swapped, SwapError> {
        let result = self.try_swap_provider(name, component).await;
        self.swapped(name, &result, by);
        result
    }

    async fn try_swap_provider(
        &self,
        name: &str,
        component: Arc<[u8]>,
    ) -> Result<Swapped, SwapError> {
        let core = &self.0;
        let mut previous = core.changing.lock().await;
        let old = provider(core, name)?;
        let loaded = core
            .catalog
            .load(component)
            .await
            .map_err(|fault| refused_load(&fault))?;
        let plugin = loaded.provider.ok_or_else(|| {
            SwapError::new("no_world", "it does not export keyfob:provider/provider")
        })?;
        let swapped = place(core, &old, plugin).await?;
        let instead_of = format!("{:?}", old.settings.plugin);
        keep(core, &format!("provider:{name}"), instead_of, loaded.component).await;
        previous.providers.insert(old.settings.name.clone(), old);
        Ok(swapped)
    }

    /// Puts the plugin before back, at once.
    ///
    /// # Errors
    ///
    /// [`SwapError`] when there is none, or it no longer fits what is granted.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn rollback_provider(&self, name: &str, by: &str) -> Result<Swapped, SwapError> {
        let result = self.try_rollback_provider(name).await;
        self.swapped(name, &result, by);
        result
    }

    async fn try_rollback_provider(&self, name: &str) -> Result<Swapped, SwapError> {
        let core = &self.0;
        let mut previous = core.changing.lock().await;
        let old = provider(core, name)?;
        let before = previous
            .providers
            .get(&old.settings.name)
            .cloned()
            .ok_or_else(|| {
                SwapError::new("no_previous", "no plugin was in force before this one")
            })?;
        let swapped = place(core, &old, before.plugin.clone()).await?;
        previous.providers.insert(old.settings.name.clone(), old);
        Ok(swapped)
    }

    /// Puts another policy in force; every remembered decision is taken again.
    ///
    /// # Errors
    ///
    /// [`SwapError`] naming what is wrong; the old policy stays.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn swap_policy(&self, component: Arc<[u8]>, by: &str) -> Result<Swapped, SwapError> {
        let core = &self.0;
        let mut previous = core.changing.lock().await;
        let result = match core.catalog.load(component).await {
            Ok(loaded) => loaded.policy.ok_or_else(|| {
                SwapError::new("no_world", "it does not export keyfob:policy/policy")
            }),
            Err(fault) => Err(refused_load(&fault)),
        };
        let result = result.map(|policy| {
            let mut next = (*core.snapshot()).clone();
            next.revision += 1;
            let before = std::mem::replace(&mut next.policy, policy);
            previous.policy = Some(before);
            let swapped = Swapped {
                revision: next.revision,
                digest: next.policy.digest().to_owned(),
            };
            core.put(next);
            core.forget_decisions();
            swapped
        });
        self.swapped("policy", &result, by);
        result
    }

    /// Puts the policy before back, at once.
    ///
    /// # Errors
    ///
    /// [`SwapError`] when there is none.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn rollback_policy(&self, by: &str) -> Result<Swapped, SwapError> {
        let core = &self.0;
        let mut previous = core.changing.lock().await;
        let result = match previous.policy.take() {
            None => Err(SwapError::new(
                "no_previous",
                "no policy was in force before this one",
            )),
            Some(before) => {
                let mut next = (*core.snapshot()).clone();
                next.revision += 1;
                previous.policy = Some(std::mem::replace(&mut next.policy, before));
                let swapped = Swapped {
                    revision: next.revision,
                    digest: next.policy.digest().to_owned(),
                };
                core.put(next);
                core.forget_decisions();
                Ok(swapped)
            }
        };
        self.swapped("policy", &result, by);
        result
    }

    fn swapped(&self, what: &str, result: &Result<Swapped, SwapError>, by: &str) {
        let (revision, digest, refused) = match result {
            Ok(swapped) => (swapped.revision, swapped.digest.clone(), None),
            Err(error) => (
                self.0.snapshot().revision,
                String::new(),
                Some(error.to_string()),
            ),
        };
        self.0.emit(&Event::PluginSwapped {
            provider: what.to_owned(),
            revision,
            digest,
            refused,
            by: by.to_owned(),
        });
    }
}

fn provider(core: &Core, name: &str) -> Result<Arc<Provider>, SwapError> {
    ProviderName::parse(name)
        .ok()
        .and_then(|name| core.provider(&name))
        .ok_or_else(|| {
            SwapError::new(
                "unknown_provider",
                format!("there is no provider \"{name}\""),
            )
        })
}

/// Checks a plugin under the provider's settings and puts it in force.
async fn place(
    core: &Core,
    old: &Provider,
    plugin: Arc<dyn ProviderPlugin>,
) -> Result<Swapped, SwapError> {
    let (needs, rules) = Provider::check(&old.settings, plugin.as_ref())
        .await
        .map_err(|mistakes| {
            let widened = mistakes.iter().all(|mistake| mistake.widens);
            let (code, message) = if widened {
                ("grants_widened", "the plugin asks for more than is granted")
            } else {
                (
                    "configure",
                    "the plugin does not take this provider's settings",
                )
            };
            SwapError {
                code,
                message: message.to_owned(),
                mistakes,
            }
        })?;
    let mut next = (*core.snapshot()).clone();
    next.revision += 1;
    let swapped = Swapped {
        revision: next.revision,
        digest: plugin.digest().to_owned(),
    };
    let provider = old.with_plugin(plugin, needs, rules, next.revision);
    next.providers
        .insert(old.settings.name.clone(), Arc::new(provider));
    core.put(next);
    Ok(swapped)
}

fn refused_load(fault: &LoadError) -> SwapError {
    SwapError::new(fault.label(), fault.to_string())
}

// === impl SwapError ===

impl SwapError {
    fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            mistakes: Vec::<SetupMistake>::new(),
        }
    }
}

impl std::fmt::Display for SwapError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.code, self.message)?;
        self.mistakes
            .iter()
            .try_for_each(|mistake| write!(f, "; {mistake}"))
    }
}

impl std::error::Error for SwapError {}
