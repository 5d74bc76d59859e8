//! What is in force: providers, policy and callers behind one pointer, loaded once per request and carried by each
//! flight. Checks here that what a plugin needs is what the operator granted.

mod fingerprint;

use std::collections::HashMap;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

pub use fingerprint::fingerprint_of;

use crate::model::contract::{Needs, PolicyPlugin, ProviderPlugin, Rotation};
use crate::model::credential::Fingerprint;
use crate::model::key::ProviderName;
use crate::model::seal::Rules;
use crate::model::transport::Upstream;
use crate::settings::ProviderSettings;

/// What is in force. Immutable: a change makes another one.
#[derive(Clone)]
pub struct Snapshot {
    /// Grows with every change, for identical content too.
    pub revision: u64,
    /// Providers by name.
    pub providers: HashMap<ProviderName, Arc<Provider>>,
    /// Decides who may have what.
    pub policy: Placed<dyn PolicyPlugin>,
    /// Each caller's rules as JSON, for the policy.
    pub callers: HashMap<String, Arc<str>>,
}

/// A plugin under an operator's settings, checked and ready.
pub struct Provider {
    /// What the operator wrote.
    pub settings: ProviderSettings,
    /// The plugin's settings as JSON text.
    pub plugin_settings: Arc<str>,
    /// The plugin.
    pub plugin: Placed<dyn ProviderPlugin>,
    /// What it said it needs.
    pub needs: Needs,
    /// What may go where.
    pub rules: Arc<Rules>,
    /// The way out.
    pub upstream: Arc<dyn Upstream>,
    /// Of everything that reaches the wire but the plugin.
    pub fingerprint: Fingerprint,
}

/// A plugin in its place.
pub struct Placed<P: ?Sized> {
    /// The plugin.
    pub plugin: Arc<P>,
    /// Its component, to be kept or put back.
    pub component: Arc<[u8]>,
    /// What the configuration named, with the digest of a file: another name means that the operator decided anew.
    pub configured: Arc<str>,
    /// When it came into force here.
    pub revision: u64,
}

/// One thing wrong with what an operator wrote, or with what a plugin asks for.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct SetupMistake {
    /// Of which provider; none is the policy or the whole.
    pub provider: Option<String>,
    /// What is wrong.
    pub message: String,
    /// What to write.
    pub fix: String,
    /// Whether the plugin asks for more than is granted.
    pub widens: bool,
}

// === impl Provider ===

impl Provider {
    /// Asks `plugin` what it needs under these settings and checks that it was granted.
    ///
    /// # Errors
    ///
    /// Every mistake at once.
    pub async fn check(
        settings: &ProviderSettings,
        plugin: &dyn ProviderPlugin,
    ) -> Result<(Needs, Rules), Vec<SetupMistake>> {
        let name = settings.name.as_str();
        let mistake = |message: String, fix: String| SetupMistake {
            provider: Some(name.to_owned()),
            message,
            fix,
            widens: false,
        };
        let json = settings.settings.to_string();
        let configured = plugin.configure(&json).await.map_err(|fault| {
            vec![mistake(
                fault.to_string(),
                "use another version of the plugin".into(),
            )]
        })?;
        let needs = configured.map_err(|mistakes| {
            mistakes
                .into_iter()
                .map(|m| mistake(format!("settings{}: {}", m.at, m.message), m.fix))
                .collect::<Vec<_>>()
        })?;
        let rules = Rules::new(settings).map_err(|faults| {
            faults
                .into_iter()
                .map(|f| mistake(f.message, f.fix))
                .collect::<Vec<_>>()
        })?;
        let lacking = lacking(settings, &needs, &rules);
        if lacking.is_empty() {
            Ok((needs, rules))
        } else {
            Err(lacking)
        }
    }

    /// What is known of this provider's refresh tokens: the operator's word, else the plugin's.
    pub fn rotation(&self) -> (Rotation, std::time::Duration) {
        match self.settings.refresh.rotation {
            Rotation::Unknown => (self.needs.rotation, self.needs.grace.unwrap_or_default()),
            declared => (declared, self.settings.refresh.grace),
        }
    }

    /// The same provider with another plugin in it.
    #[must_use]
    pub fn with_plugin(
        &self,
        plugin: Placed<dyn ProviderPlugin>,
        needs: Needs,
        rules: Rules,
    ) -> Self {
        Self {
            settings: self.settings.clone(),
            plugin_settings: self.plugin_settings.clone(),
            plugin,
            needs,
            rules: Arc::new(rules),
            upstream: self.upstream.clone(),
            fingerprint: self.fingerprint,
        }
    }
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Provider")
            .field("name", &self.settings.name)
            .field("plugin", &self.plugin.description().name)
            .field("revision", &self.plugin.revision)
            .finish_non_exhaustive()
    }
}

/// Everything the plugin needs that was not granted, each with the line to write.
fn lacking(settings: &ProviderSettings, needs: &Needs, rules: &Rules) -> Vec<SetupMistake> {
    let name = settings.name.as_str();
    let section = format!("[providers.{name}]");
    let mut all = Vec::new();
    let mut lack = |message: String, line: String| {
        all.push(SetupMistake {
            provider: Some(name.to_owned()),
            message,
            fix: format!("in {section}: {line}"),
            widens: true,
        });
    };
    for secret in &needs.secrets {
        if !settings.secrets.iter().any(|s| s.name == *secret) {
            lack(
                format!("the plugin needs the secret \"{secret}\""),
                format!("secrets = {{ {secret} = {{ env = \"…\" }} }}"),
            );
        }
    }
    for destination in &needs.destinations {
        if let Err(violation) = rules.allow.check(destination) {
            lack(
                format!("the plugin needs to reach \"{destination}\": {violation}"),
                format!("allow = [\"{destination}\"]"),
            );
        }
    }
    for member in &needs.readable {
        if !settings.readable.contains(member) {
            lack(
                format!("the plugin needs to read the member \"{member}\" of answers"),
                format!("readable = [\"{member}\"]"),
            );
        }
    }
    for member in &needs.exposes {
        if !settings.expose.contains(member) {
            lack(
                format!("the plugin hands the member \"{member}\" to callers"),
                format!("expose = [\"{member}\"]"),
            );
        }
    }
    all
}

// === impl Placed ===

impl<P: ?Sized> Clone for Placed<P> {
    fn clone(&self) -> Self {
        Self {
            plugin: self.plugin.clone(),
            component: self.component.clone(),
            configured: self.configured.clone(),
            revision: self.revision,
        }
    }
}

impl<P: ?Sized> Deref for Placed<P> {
    type Target = P;

    fn deref(&self) -> &P {
        &self.plugin
    }
}

// === impl SetupMistake ===

impl fmt::Display for SetupMistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(provider) = &self.provider {
            write!(f, "provider \"{provider}\": ")?;
        }
        write!(f, "{}; to fix it: {}", self.message, self.fix)
    }
}
