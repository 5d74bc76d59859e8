//! TLS for both planes: a certificate chain and its key from PEM, and client certificates where an authority is named.

use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::daemon::config::{Config, Mistake, ServerTls};
use crate::daemon::environment::{self, Environment};

/// What is wrong, and what to do.
type Wrong = (String, String);

/// Loads what `server.tls` names; `None` when it is not written.
///
/// # Errors
///
/// A mistake at its line; it shows no byte of a key.
pub fn server_config(
    config: &Config,
    environment: &Environment,
) -> Result<Option<Arc<rustls::ServerConfig>>, Mistake> {
    let Some(tls) = &config.server.tls else {
        return Ok(None);
    };
    match load(tls, environment) {
        Ok(loaded) => Ok(Some(Arc::new(loaded))),
        Err((what, fix)) => Err(config.mistake_at(tls.line, format!("server.tls: {what}"), fix)),
    }
}

fn load(tls: &ServerTls, environment: &Environment) -> Result<rustls::ServerConfig, Wrong> {
    let provider = Arc::new(default_provider());
    let chain = certificates(&tls.cert)?;
    let pem = environment::fetch(&tls.key, environment)?;
    let key = PrivateKeyDer::from_pem_slice(pem.expose().as_bytes()).map_err(|_| {
        (
            format!("{:?} holds no private key", tls.key),
            "PEM: PKCS#8, PKCS#1 or SEC1".to_owned(),
        )
    })?;
    let builder = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| (error.to_string(), String::new()))?;
    let builder = match &tls.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            let (taken, _) = roots.add_parsable_certificates(certificates(path)?);
            if taken == 0 {
                let fix = "PEM certificates of the authorities that sign client certificates";
                return Err((
                    format!("{} holds no usable authority", path.display()),
                    fix.to_owned(),
                ));
            }
            // Callers with keys come without a certificate; one that does come is verified.
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .allow_unauthenticated()
                .build();
            let verifier = verifier.map_err(|error| (error.to_string(), String::new()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut loaded = builder.with_single_cert(chain, key).map_err(|error| {
        (
            error.to_string(),
            "`key` must be the key of the first certificate in `cert`".to_owned(),
        )
    })?;
    loaded.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(loaded)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Wrong> {
    let wrong = |what: &str| {
        let fix = "a PEM file with one or more certificates".to_owned();
        (format!("{} {what}", path.display()), fix)
    };
    let pem = std::fs::read(path).map_err(|error| wrong(&format!("cannot be read: {error}")))?;
    let all = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        _ => Err(wrong("holds no certificate")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::SecretSource;

    #[test]
    fn what_is_wrong_with_tls_is_said_without_the_key() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let other = rcgen::KeyPair::generate().unwrap();
        let cert = write("cert.pem", &made.cert.pem());
        let key = write("key.pem", &made.signing_key.serialize_pem());
        let stranger = write("other.pem", &other.serialize_pem());
        let none: Environment = Arc::new(|_| None);
        let tls = |cert: &Path, key: &Path, client_ca: Option<&Path>| {
            let key = SecretSource::File(key.to_owned());
            let client_ca = client_ca.map(Path::to_owned);
            load(
                &ServerTls {
                    cert: cert.to_owned(),
                    key,
                    client_ca,
                    line: 1,
                },
                &none,
            )
        };
        assert!(tls(&cert, &key, Some(&cert)).is_ok());
        for (loaded, words) in [
            (tls(&key, &key, None), "no certificate"),
            (tls(&cert, &cert, None), "no private key"),
            (tls(&dir.path().join("no"), &key, None), "cannot be read"),
            (tls(&cert, &key, Some(&key)), "no certificate"),
            (tls(&cert, &stranger, None), ""),
        ] {
            let (what, _) = loaded.expect_err("refused");
            assert!(what.contains(words) && !what.contains("PRIVATE"), "{what}");
        }
    }
}
