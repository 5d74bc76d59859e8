//! Who is asking: a bearer key, a client certificate or the user at the other end of a Unix socket becomes a
//! [`Principal`]; an operator's key becomes an [`Operator`].
//!
//! Keys are kept and compared as SHA-256 digests, each against all, in a time that does not depend on which one matches
//! or how far. Whoever sends a key is judged by it alone: a wrong key is not saved by a good certificate.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use http::{HeaderMap, header};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::config::{Config, KeyAt, Mistake, Role};
use super::environment::{self, Environment};
use crate::model::policy::Principal;

/// The longest `Authorization` value that is looked at: hashing is cheap, but not free.
const AUTHORIZATION_MAX_BYTES: usize = 1024;
/// Shorter keys are warned about: 16 characters of base64 are 96 bits, which nobody guesses.
const KEY_WEAK_BELOW_BYTES: usize = 16;
/// Names of one certificate that are looked at; a certificate with more is odd, not more trusted.
const NAMES_MAX: usize = 64;

/// Everybody who is known.
#[derive(Default)]
pub struct Directory {
    callers: Keys<Principal>,
    sans: BTreeMap<San, Principal>,
    uids: BTreeMap<u32, Principal>,
    operators: Keys<Operator>,
}

/// An operator who gave a good key.
#[derive(Clone, Debug)]
pub struct Operator {
    /// As audit lines show it.
    pub name: Arc<str>,
    /// What the operator may do.
    pub role: Role,
}

/// What the connection itself says about who is at its other end.
#[derive(Clone, Debug, Default)]
pub struct Peer {
    /// The user at the other end of a Unix socket.
    pub uid: Option<u32>,
    /// Names of a client certificate that TLS has verified.
    pub names: Arc<[San]>,
}

/// A subject alternative name. Kinds do not mix: a DNS name never equals a URI of the same text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum San {
    /// A host name, in lower case.
    Dns(String),
    /// A URI, such as a SPIFFE id.
    Uri(String),
    /// A mail address.
    Email(String),
}

/// Why somebody is not known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// Nothing was presented.
    Missing,
    /// What was presented belongs to nobody.
    Wrong,
}

/// Owners by the digest of their key.
struct Keys<T>(Vec<([u8; SHA256_OUTPUT_LEN], T)>);

// === impl Directory ===

impl Directory {
    /// Fetches every key; warnings come along.
    ///
    /// # Errors
    ///
    /// Every key that cannot be fetched, or that two share.
    pub fn load(
        config: &Config,
        environment: &Environment,
    ) -> Result<(Self, Vec<Mistake>), Vec<Mistake>> {
        let mut directory = Self::default();
        let (mut mistakes, mut warnings) = (Vec::new(), Vec::new());
        let mut fetch = |key: &KeyAt| match environment::fetch(&key.source, environment) {
            Ok(secret) if secret.expose().len() < KEY_WEAK_BELOW_BYTES => {
                let fix = "use 32 random bytes: openssl rand -base64 32";
                warnings.push(config.mistake_at(key.line, "the key is short enough to guess", fix));
                Ok(secret)
            }
            Ok(secret) => Ok(secret),
            Err((what, fix)) => Err(config.mistake_at(key.line, what, fix)),
        };
        for caller in &config.callers {
            let principal = |attributes: &[(&str, &str)]| {
                let owned = attributes
                    .iter()
                    .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
                Principal::new(&caller.name, caller.tenant.clone(), owned.collect())
            };
            if let Some(key) = &caller.key {
                let known = fetch(key).and_then(|secret| {
                    let taken = directory
                        .callers
                        .insert(secret.expose(), principal(&[("via", "key")]));
                    taken.map_err(|()| shared_key(config, key))
                });
                mistakes.extend(known.err());
            }
            if let Some(san) = &caller.san {
                let who = principal(&[("via", "certificate"), ("san", san)]);
                directory.sans.insert(San::parse(san), who);
            }
            if let Some(uid) = caller.uid {
                let who = principal(&[("via", "unix"), ("uid", &uid.to_string())]);
                directory.uids.insert(uid, who);
            }
        }
        let admin_key = config
            .server
            .admin_key
            .iter()
            .map(|key| ("admin_key", key, Role::All));
        let admins = config
            .admins
            .iter()
            .map(|admin| (&*admin.name, &admin.key, admin.role));
        for (name, key, role) in admin_key.chain(admins) {
            let known = fetch(key).and_then(|secret| {
                let operator = Operator {
                    name: name.into(),
                    role,
                };
                let taken = directory.operators.insert(secret.expose(), operator);
                taken.map_err(|()| shared_key(config, key))
            });
            mistakes.extend(known.err());
        }
        if mistakes.is_empty() {
            Ok((directory, warnings))
        } else {
            Err(mistakes)
        }
    }

    /// The caller who sent this.
    ///
    /// # Errors
    ///
    /// [`Refused`] when nobody is recognised.
    pub fn caller(&self, headers: &HeaderMap, peer: &Peer) -> Result<Principal, Refused> {
        if let Some(key) = bearer(headers)? {
            return self.callers.find(key).cloned().ok_or(Refused::Wrong);
        }
        if let Some(caller) = peer.names.iter().find_map(|name| self.sans.get(name)) {
            return Ok(caller.clone());
        }
        if let Some(caller) = peer.uid.and_then(|uid| self.uids.get(&uid)) {
            return Ok(caller.clone());
        }
        let presented = !peer.names.is_empty() || peer.uid.is_some();
        Err(if presented {
            Refused::Wrong
        } else {
            Refused::Missing
        })
    }

    /// The operator who sent this: by key only.
    ///
    /// # Errors
    ///
    /// [`Refused`] when nobody is recognised.
    pub fn operator(&self, headers: &HeaderMap) -> Result<Operator, Refused> {
        let key = bearer(headers)?.ok_or(Refused::Missing)?;
        self.operators.find(key).cloned().ok_or(Refused::Wrong)
    }

    /// Whether anybody could use the admin plane.
    pub fn has_operators(&self) -> bool {
        !self.operators.0.is_empty()
    }
}

impl fmt::Debug for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Directory")
            .field("caller_keys", &self.callers.0.len())
            .field("certificates", &self.sans.len())
            .field("users", &self.uids.len())
            .field("operators", &self.operators.0.len())
            .finish()
    }
}

fn shared_key(config: &Config, key: &KeyAt) -> Mistake {
    config.mistake_at(
        key.line,
        "this key is somebody else's too",
        "give everybody a key of their own",
    )
}

/// The key of `Authorization: Bearer KEY`; `None` without the header.
fn bearer(headers: &HeaderMap) -> Result<Option<&[u8]>, Refused> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() || value.len() > AUTHORIZATION_MAX_BYTES {
        return Err(Refused::Wrong);
    }
    let (scheme, key) = value
        .as_bytes()
        .split_at_checked("Bearer ".len())
        .ok_or(Refused::Wrong)?;
    if !scheme.eq_ignore_ascii_case(b"Bearer ") {
        return Err(Refused::Wrong);
    }
    Ok(Some(key.trim_ascii()))
}

// === impl Keys ===

impl<T> Keys<T> {
    /// The owner of this key. Looks at every entry, whatever matches.
    fn find(&self, key: &[u8]) -> Option<&T> {
        let presented = digest(&SHA256, key);
        let mut found = None;
        for (known, owner) in &self.0 {
            if verify_slices_are_equal(known, presented.as_ref()).is_ok() {
                found = Some(owner);
            }
        }
        found
    }

    fn insert(&mut self, key: &str, owner: T) -> Result<(), ()> {
        if self.find(key.as_bytes()).is_some() {
            return Err(());
        }
        let mut hash = [0; SHA256_OUTPUT_LEN];
        hash.copy_from_slice(digest(&SHA256, key.as_bytes()).as_ref());
        self.0.push((hash, owner));
        Ok(())
    }
}

impl<T> Default for Keys<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

// === impl San ===

impl San {
    /// A configured name: a URI has a scheme, a mail address an `@`, anything else is a host name.
    pub fn parse(text: &str) -> Self {
        if text.contains("://") {
            Self::Uri(text.to_owned())
        } else if text.contains('@') {
            Self::Email(text.to_owned())
        } else {
            Self::Dns(text.to_ascii_lowercase())
        }
    }

    /// The names in a certificate, which must have been verified; none when it cannot be read.
    pub fn all_of(certificate: &[u8]) -> Arc<[Self]> {
        let Ok((_, certificate)) = X509Certificate::from_der(certificate) else {
            return Arc::default();
        };
        let Ok(Some(names)) = certificate.subject_alternative_name() else {
            return Arc::default();
        };
        let name = |name: &GeneralName<'_>| match name {
            GeneralName::DNSName(name) => Some(Self::Dns(name.to_ascii_lowercase())),
            GeneralName::URI(uri) => Some(Self::Uri((*uri).to_owned())),
            GeneralName::RFC822Name(mail) => Some(Self::Email((*mail).to_owned())),
            _ => None,
        };
        names
            .value
            .general_names
            .iter()
            .take(NAMES_MAX)
            .filter_map(name)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::daemon::config;

    const CONFIG: &str = r#"
[server]
listen = "unix:/run/k.sock"
admin_key = { env = "ADMIN" }
tls = { cert = "c", key = { env = "K" }, client_ca = "ca" }
[callers.billing]
key = { env = "BILLING" }
tenant = "eu"
san = "billing.internal"
uid = 1000
allow = []
[callers.search]
key = { env = "SEARCH" }
allow = []
[admins.ops]
key = { env = "OPS" }
role = "operate"
"#;

    fn environment() -> Environment {
        Arc::new(|name| match name {
            "ADMIN" => Some("admin-key-0123456789".to_owned()),
            "BILLING" => Some("billing-key-0123456789".to_owned()),
            "SEARCH" => Some("search-key-0123456789".to_owned()),
            "OPS" => Some("ops".to_owned()),
            _ => None,
        })
    }

    fn directory() -> Directory {
        let config = config::parse(Path::new("k.toml"), CONFIG).unwrap().config;
        Directory::load(&config, &environment()).unwrap().0
    }

    fn headers(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::AUTHORIZATION, value.parse().unwrap());
        }
        headers
    }

    fn peer(uid: Option<u32>, names: &[San]) -> Peer {
        Peer {
            uid,
            names: names.into(),
        }
    }

    #[test]
    fn a_caller_is_its_key_its_certificate_or_its_user() {
        let directory = directory();
        let none = Peer::default();
        let by_key = directory
            .caller(&headers(&["bEARER  billing-key-0123456789"]), &none)
            .unwrap();
        assert_eq!((by_key.name(), by_key.tenant().as_str()), ("billing", "eu"));
        assert_eq!(by_key.attributes(), [("via".to_owned(), "key".to_owned())]);

        let name = San::Dns("billing.internal".to_owned());
        let by_name = directory
            .caller(&headers(&[]), &peer(None, &[name]))
            .unwrap();
        assert_eq!(
            by_name.attributes()[1],
            ("san".to_owned(), "billing.internal".to_owned())
        );
        let by_user = directory
            .caller(&headers(&[]), &peer(Some(1000), &[]))
            .unwrap();
        assert_eq!(
            by_user.attributes()[1],
            ("uid".to_owned(), "1000".to_owned())
        );
    }

    #[test]
    fn a_wrong_key_is_not_saved_by_a_good_certificate_or_user() {
        let directory = directory();
        let good = peer(Some(1000), &[San::Dns("billing.internal".to_owned())]);
        let long = format!("Bearer {}", "x".repeat(AUTHORIZATION_MAX_BYTES));
        for bad in [
            &["Bearer nope"][..],
            &["Bearer "],
            &["Bearer"],
            &["Basic YmlsbGluZzp4"],
            &["billing-key-0123456789"],
            &["Bearer billing-key-0123456789x"],
            &["Bearer billing-key-012345678"],
            &["Bearer ops"],
            &[
                "Bearer billing-key-0123456789",
                "Bearer billing-key-0123456789",
            ],
            &[&long],
        ] {
            assert_eq!(
                directory.caller(&headers(bad), &good).unwrap_err(),
                Refused::Wrong,
                "{bad:?}"
            );
        }
    }

    #[test]
    fn nobody_is_nobody() {
        let directory = directory();
        let missing = directory.caller(&headers(&[]), &Peer::default());
        assert_eq!(missing.unwrap_err(), Refused::Missing);
        let stranger = directory.caller(&headers(&[]), &peer(Some(1001), &[]));
        assert_eq!(stranger.unwrap_err(), Refused::Wrong);
        let uri = peer(None, &[San::Uri("billing.internal".to_owned())]);
        assert!(
            directory.caller(&headers(&[]), &uri).is_err(),
            "a URI is no host name"
        );
    }

    #[test]
    fn callers_are_no_operators_and_operators_are_no_callers() {
        let directory = directory();
        let ops = directory.operator(&headers(&["Bearer ops"])).unwrap();
        assert_eq!((&*ops.name, ops.role), ("ops", Role::Operate));
        let admin = directory
            .operator(&headers(&["Bearer admin-key-0123456789"]))
            .unwrap();
        assert_eq!(admin.role, Role::All);
        assert!(
            directory
                .operator(&headers(&["Bearer billing-key-0123456789"]))
                .is_err()
        );
        assert_eq!(
            directory.operator(&headers(&[])).unwrap_err(),
            Refused::Missing
        );
    }

    #[test]
    fn keys_that_are_missing_short_or_shared_are_told_with_their_line() {
        let config = config::parse(Path::new("k.toml"), CONFIG).unwrap().config;
        let (_, warnings) = Directory::load(&config, &environment()).unwrap();
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert_eq!(warnings[0].line, Some(16));

        let none: Environment = Arc::new(|_| None);
        let mistakes = Directory::load(&config, &none).unwrap_err();
        assert_eq!(mistakes.len(), 4);
        assert_eq!(mistakes[0].line, Some(7));

        let same: Environment = Arc::new(|_| Some("one-key-for-everybody".to_owned()));
        let mistakes = Directory::load(&config, &same).unwrap_err();
        assert_eq!(mistakes.len(), 2, "one caller and one operator too many");
        assert!(!format!("{mistakes:?}").contains("one-key"));
    }

    #[test]
    fn names_are_read_from_a_certificate() {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params =
            rcgen::CertificateParams::new(vec!["Billing.Internal".to_owned()]).unwrap();
        let spiffe = "spiffe://prod/billing".try_into().unwrap();
        params.subject_alt_names.push(rcgen::SanType::URI(spiffe));
        let certificate = params.self_signed(&key).unwrap();
        let names = San::all_of(certificate.der());
        let dns = San::Dns("billing.internal".to_owned());
        assert_eq!(&*names, [dns, San::Uri("spiffe://prod/billing".to_owned())]);
        assert!(San::all_of(b"garbage").is_empty());
        assert_eq!(San::parse("spiffe://prod/billing"), names[1]);
    }
}
