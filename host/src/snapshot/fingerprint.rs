//! Whether two settings of a provider are the same to an issuer: a hash of what reaches the wire, the plugin left out.
//!
//! Tokens obtained under another fingerprint are absent, so what does not reach the wire (when to renew, who may read what)
//! does not belong here.

use crate::model::credential::{Fingerprint, fingerprint_all};
use crate::model::secret::Secret;
use crate::secrets::SecretReader;
use crate::settings::{ProviderSettings, ProxySettings, SecretSettings, SecretSource};
use crate::snapshot::SetupMistake;

/// What a value is, and the value. What is not set is left out, which no empty value is.
type Part = (&'static str, Secret<String>);

/// Hashes what of a provider reaches the wire: the plugin's settings, secrets with their names and how they sign, the
/// content of certificate files, and the kind of way out. Which proxy it is makes no other client of it.
///
/// A certificate file that cannot be read is left out here: the transport, which needs it, reports it.
///
/// # Errors
///
/// A mistake for each secret that cannot be read.
///
/// # Cancel safety
///
/// Safe: reads only.
pub async fn fingerprint_of(
    settings: &ProviderSettings,
    reader: &SecretReader,
    key: &Secret<[u8; 32]>,
) -> Result<Fingerprint, Vec<SetupMistake>> {
    let mut parts = vec![part("settings", &settings.settings.to_string())];
    let mut mistakes = Vec::new();
    // In an order of their own: to write them in another one changes nothing.
    let mut secrets: Vec<_> = settings.secrets.iter().collect();
    secrets.sort_by(|a, b| a.name.cmp(&b.name));
    for secret in secrets {
        match reader.read(&secret.source).await {
            Ok(value) => parts.extend(of_secret(secret, value)),
            Err(fault) => mistakes.push(SetupMistake {
                provider: Some(settings.name.as_str().to_owned()),
                message: format!("the secret \"{}\": {fault}", secret.name),
                fix: "set the variable or write the file, readable by this process".into(),
                widens: false,
            }),
        }
    }
    if !mistakes.is_empty() {
        return Err(mistakes);
    }
    if let Some(tls) = &settings.tls {
        let file = |path: &Option<_>| path.clone().map(SecretSource::File);
        for (what, source) in [
            ("tls.ca", file(&tls.ca)),
            ("tls.cert", file(&tls.cert)),
            ("tls.key", tls.key.clone()),
        ] {
            let Some(source) = source else { continue };
            if let Ok(content) = reader.read(&source).await {
                parts.push((what, content));
            }
        }
    }
    parts.extend(settings.proxy.as_ref().map(|proxy| match proxy {
        ProxySettings::Environment => part("proxy", "environment"),
        ProxySettings::Url(_) => part("proxy", "url"),
    }));
    let values = parts
        .iter()
        .flat_map(|(what, value)| [*what, value.expose().as_str()]);
    Ok(Fingerprint(fingerprint_all(key, values)))
}

fn of_secret(secret: &SecretSettings, value: Secret<String>) -> impl Iterator<Item = Part> {
    let alg = secret.alg.as_deref().map(|alg| part("alg", alg));
    let key_id = secret.key_id.as_deref().map(|id| part("key_id", id));
    [part("secret", &secret.name), ("value", value)]
        .into_iter()
        .chain(alg)
        .chain(key_id)
}

fn part(what: &'static str, value: &str) -> Part {
    (what, Secret::from(value))
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::model::key::ProviderName;
    use crate::settings::{ClientTls, PluginSource};

    fn acme() -> ProviderSettings {
        let name = ProviderName::parse("acme").unwrap();
        ProviderSettings::new(name, PluginSource::Builtin("oauth2".to_owned()))
    }

    fn secret(name: &str, value: &str) -> SecretSettings {
        SecretSettings::new(name, SecretSource::Value(value.into()))
    }

    async fn of(settings: &ProviderSettings) -> Fingerprint {
        let reader = SecretReader::new(Arc::new(|_| None));
        let made = fingerprint_of(settings, &reader, &Secret::new([7; 32])).await;
        made.unwrap_or_else(|mistakes| panic!("{}", mistakes[0]))
    }

    async fn changed(change: impl FnOnce(&mut ProviderSettings)) -> Fingerprint {
        let mut settings = acme();
        change(&mut settings);
        of(&settings).await
    }

    #[tokio::test]
    async fn whatever_reaches_the_wire_makes_another_client() {
        let signing = |change: fn(&mut SecretSettings)| {
            let mut secret = secret("a", "b");
            change(&mut secret);
            move |p: &mut ProviderSettings| p.secrets = vec![secret]
        };
        let all = [
            of(&acme()).await,
            changed(|p| p.settings["client_id"] = "x".into()).await,
            changed(signing(|_| {})).await,
            changed(signing(|s| s.name = "c".to_owned())).await,
            changed(signing(|s| s.source = SecretSource::Value("d".into()))).await,
            changed(signing(|s| s.alg = Some("ES256".to_owned()))).await,
            changed(signing(|s| s.alg = Some("EdDSA".to_owned()))).await,
            changed(signing(|s| s.key_id = Some("ES256".to_owned()))).await,
            changed(|p| p.proxy = Some(ProxySettings::Environment)).await,
            changed(|p| p.proxy = Some(ProxySettings::Url("http://p".into()))).await,
        ];
        let different: std::collections::HashSet<_> = all.iter().collect();
        assert_eq!(different.len(), all.len());
        let renewed_earlier = changed(|p| p.refresh.ahead = 0.5).await;
        assert!(renewed_earlier == all[0]);
    }

    #[tokio::test]
    async fn a_secret_cannot_pass_for_two() {
        let two = changed(|p| p.secrets = vec![secret("a", "1"), secret("b", "2")]).await;
        let turned = changed(|p| p.secrets = vec![secret("b", "2"), secret("a", "1")]).await;
        assert!(two == turned);
        for one in ["1\nb=2", "1b2", "1secretbvalue2"] {
            assert!(changed(|p| p.secrets = vec![secret("a", one)]).await != two);
        }
    }

    #[tokio::test]
    async fn a_renewed_certificate_makes_another_client() {
        let dir = tempfile::tempdir().unwrap();
        let place = |name: &str| dir.path().join(name);
        let with_tls = |settings: &mut ProviderSettings| {
            settings.tls = Some(ClientTls {
                ca: Some(place("ca")),
                cert: Some(place("cert")),
                key: Some(SecretSource::File(place("key"))),
            });
        };
        let write = |path: &Path, content: &str| std::fs::write(path, content).unwrap();
        // What is missing is for the transport to report.
        let mut before = changed(with_tls).await;
        for name in ["ca", "cert", "key"] {
            for content in ["one", "two"] {
                write(&place(name), content);
                let now = changed(with_tls).await;
                assert!(now != before, "{name} {content}");
                before = now;
            }
        }
    }
}
