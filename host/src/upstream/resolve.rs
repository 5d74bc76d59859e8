//! From a name to the addresses that may be connected to: looked up once, checked, and the checked ones are dialled. So
//! a name cannot resolve to one address for the check and to another for the connection.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::address::{AddressClass, AddressRules};
use crate::model::contract::BoxFuture;

/// Looks names up. The system's resolver in production; tests name addresses of their own.
pub trait Lookup: Send + Sync + 'static {
    /// Every address of a name.
    fn lookup(&self, name: &str) -> BoxFuture<'static, io::Result<Vec<IpAddr>>>;
}

/// The system's resolver (`getaddrinfo`, on tokio's blocking threads).
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemLookup;

/// Looks up, then lets through what the rules allow.
pub(super) struct CheckedResolver {
    pub(super) lookup: Arc<dyn Lookup>,
    pub(super) rules: AddressRules,
    /// The proxy an operator configured: naming it is meaning it, wherever it is.
    pub(super) exempt: Option<String>,
}

/// A name all of whose addresses are refused.
#[derive(Debug)]
pub(super) struct AddressRefused {
    /// One of them.
    pub(super) address: IpAddr,
    /// What it is.
    pub(super) class: AddressClass,
}

// === impl SystemLookup ===

impl Lookup for SystemLookup {
    fn lookup(&self, name: &str) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        let name = name.to_owned();
        Box::pin(async move {
            Ok(tokio::net::lookup_host((name.as_str(), 0))
                .await?
                .map(|found| found.ip())
                .collect())
        })
    }
}

// === impl CheckedResolver ===

impl Resolve for CheckedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let looking = self.lookup.lookup(name.as_str());
        let exempt = self
            .exempt
            .as_deref()
            .is_some_and(|host| host.eq_ignore_ascii_case(name.as_str()));
        let local = is_localhost(name.as_str());
        let rules = self.rules.clone();
        Box::pin(async move {
            let mut allowed = Vec::new();
            let mut refused = None;
            for address in looking.await? {
                // RFC 6761, section 6.3: whatever a resolver says, `localhost` is this machine.
                let elsewhere = local && !address.to_canonical().is_loopback();
                match rules.check(address) {
                    _ if exempt => allowed.push(SocketAddr::new(address, 0)),
                    _ if elsewhere => {
                        refused = Some(AddressRefused {
                            address,
                            class: AddressClass::Reserved,
                        });
                    }
                    Ok(()) => allowed.push(SocketAddr::new(address, 0)),
                    Err(class) => refused = Some(AddressRefused { address, class }),
                }
            }
            match refused {
                Some(refused) if allowed.is_empty() => Err(refused.into()),
                _ if allowed.is_empty() => Err(io::Error::from(io::ErrorKind::NotFound).into()),
                _ => Ok(Box::new(allowed.into_iter()) as Addrs),
            }
        })
    }
}

/// `localhost` and everything under it (RFC 6761).
pub(super) fn is_localhost(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    let start = name.len().saturating_sub("localhost".len());
    name.get(start..)
        .is_some_and(|tail| tail.eq_ignore_ascii_case("localhost"))
        && (start == 0 || name.as_bytes()[start - 1] == b'.')
}

// === impl AddressRefused ===

impl fmt::Display for AddressRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, class } = self;
        write!(
            f,
            "the name resolves to {address}, a {} address; if that is meant, add \"{address}\" to the provider's \
             allow_addresses",
            class.label()
        )
    }
}

impl std::error::Error for AddressRefused {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_localhost_is_localhost() {
        for good in ["localhost", "LOCALHOST", "localhost.", "a.localhost"] {
            assert!(is_localhost(good), "{good}");
        }
        for bad in ["", "notlocalhost", "localhost.example", "ö"] {
            assert!(!is_localhost(bad), "{bad}");
        }
    }
}
