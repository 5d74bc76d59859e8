//! What operators do to plugins: swap, roll back, inspect. A swap compiles off the hot path, checks, configures, and is one
//! pointer store; the old plugin serves until then, and for good where anything is wrong.

use std::sync::Arc;

use super::assemble::{POLICY_PLACE, place_of};
use super::status::{Inspection, SwapError, Swapped};
use super::{Broker, SetupMistake};
use crate::core::Core;
use crate::model::contract::{PolicyPlugin, ProviderPlugin};
use crate::model::event::Event;
use crate::model::key::ProviderName;
use crate::snapshot::{Placed, Provider, Snapshot};
use crate::store::KeptPlugin;
use crate::wasm::{Catalog, LoadError, LoadedPlugin, Runtime};

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
    /// Safe: it goes on without its caller.
    pub async fn swap_provider(
        &self,
        name: &str,
        component: Arc<[u8]>,
        by: &str,
    ) -> Result<Swapped, SwapError> {
        let (broker, name, by) = (self.clone(), name.to_owned(), by.to_owned());
        self.finish(async move {
            let result = broker.try_swap_provider(&name, component).await;
            broker.swapped(&name, false, &result, &by);
            result
        })
        .await
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
        let swapped = place(core, &old, plugin, loaded.component).await?;
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
    /// Safe: it goes on without its caller.
    pub async fn rollback_provider(&self, name: &str, by: &str) -> Result<Swapped, SwapError> {
        let (broker, name, by) = (self.clone(), name.to_owned(), by.to_owned());
        self.finish(async move {
            let result = broker.try_rollback_provider(&name).await;
            broker.swapped(&name, true, &result, &by);
            result
        })
        .await
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
        let before = &before.plugin;
        let swapped = place(core, &old, before.plugin.clone(), before.component.clone()).await?;
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
    /// Safe: it goes on without its caller.
    pub async fn swap_policy(&self, component: Arc<[u8]>, by: &str) -> Result<Swapped, SwapError> {
        let (broker, by) = (self.clone(), by.to_owned());
        self.finish(async move { broker.try_swap_policy(component, &by).await })
            .await
    }

    async fn try_swap_policy(&self, component: Arc<[u8]>, by: &str) -> Result<Swapped, SwapError> {
        let core = &self.0;
        let mut previous = core.changing.lock().await;
        let result = match core.catalog.load(component).await {
            Ok(LoadedPlugin {
                policy: Some(plugin),
                component,
                ..
            }) => {
                let (next, before) = with_policy(core, plugin, component);
                previous.policy = Some(before);
                Ok(put_policy(core, next).await)
            }
            Ok(_) => Err(SwapError::new(
                "no_world",
                "it does not export keyfob:policy/policy",
            )),
            Err(fault) => Err(refused_load(&fault)),
        };
        self.swapped("policy", false, &result, by);
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
    /// Safe: it goes on without its caller.
    pub async fn rollback_policy(&self, by: &str) -> Result<Swapped, SwapError> {
        let (broker, by) = (self.clone(), by.to_owned());
        self.finish(async move { broker.try_rollback_policy(&by).await })
            .await
    }

    async fn try_rollback_policy(&self, by: &str) -> Result<Swapped, SwapError> {
        let core = &self.0;
        let mut previous = core.changing.lock().await;
        let result = match previous.policy.take() {
            None => Err(SwapError::new(
                "no_previous",
                "no policy was in force before this one",
            )),
            Some(policy) => {
                let (next, before) = with_policy(core, policy.plugin, policy.component);
                previous.policy = Some(before);
                Ok(put_policy(core, next).await)
            }
        };
        self.swapped("policy", true, &result, by);
        result
    }

    /// Runs an order to its end, whether or not whoever gave it still listens: half of a swap would be none's intent.
    async fn finish(
        &self,
        order: impl Future<Output = Result<Swapped, SwapError>> + Send + 'static,
    ) -> Result<Swapped, SwapError> {
        let done = self.0.spawn(order).await;
        done.unwrap_or_else(|_| Err(SwapError::new("host", "the process is ending")))
    }

    fn swapped(&self, what: &str, rollback: bool, result: &Result<Swapped, SwapError>, by: &str) {
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
            rollback,
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
    component: Arc<[u8]>,
) -> Result<Swapped, SwapError> {
    let checked = Provider::check(&old.settings, plugin.as_ref()).await;
    let (needs, rules) = checked.map_err(|mistakes| {
        let (code, message) = if mistakes.iter().all(|mistake| mistake.widens) {
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
    let configured = old.plugin.configured.clone();
    let placed = Placed {
        plugin,
        component,
        configured,
        revision: next.revision,
    };
    let (swapped, kept) = (Swapped::of(placed.digest(), &placed), kept(&placed));
    let provider = old.with_plugin(placed, needs, rules);
    next.providers
        .insert(old.settings.name.clone(), Arc::new(provider));
    core.put(next);
    core.forgive(old);
    keep(core, &place_of(old.settings.name.as_str()), kept).await;
    Ok(swapped)
}

/// The snapshot with another policy, and the policy it replaces.
fn with_policy(
    core: &Core,
    plugin: Arc<dyn PolicyPlugin>,
    component: Arc<[u8]>,
) -> (Snapshot, Placed<dyn PolicyPlugin>) {
    let mut next = (*core.snapshot()).clone();
    next.revision += 1;
    let (configured, revision) = (next.policy.configured.clone(), next.revision);
    let placed = Placed {
        plugin,
        component,
        configured,
        revision,
    };
    let before = std::mem::replace(&mut next.policy, placed);
    (next, before)
}

async fn put_policy(core: &Core, next: Snapshot) -> Swapped {
    let (digest, kept) = (next.policy.digest().to_owned(), kept(&next.policy));
    let swapped = Swapped::of(&digest, &next.policy);
    core.put(next);
    core.forget_decisions();
    keep(core, POLICY_PLACE, kept).await;
    swapped
}

fn kept<P: ?Sized>(placed: &Placed<P>) -> KeptPlugin {
    KeptPlugin {
        instead_of: placed.configured.to_string(),
        component: placed.component.clone(),
    }
}

/// Has the store keep what is in force. It is in force whether or not that succeeds; an operator is told.
async fn keep(core: &Core, place: &str, plugin: KeptPlugin) {
    if let Err(fault) = core.store.keep_plugin(place, Some(plugin)).await {
        core.emit(&Event::Notice {
            code: "swap_not_kept",
            detail: format!(
                "the plugin of {place} is in force until the next start: {}",
                fault.0
            ),
        });
    }
}

fn refused_load(fault: &LoadError) -> SwapError {
    SwapError::new(fault.label(), fault.to_string())
}

// === impl Swapped ===

impl Swapped {
    fn of<P: ?Sized>(digest: &str, placed: &Placed<P>) -> Self {
        Self {
            revision: placed.revision,
            digest: digest.to_owned(),
        }
    }
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
