//! Through which proxy requests leave: none unless an operator says so, whatever the environment says.
//!
//! Only https goes through a proxy, as a tunnel: the proxy sees a host name and nothing else. Plain http is for this
//! machine and stays on it. Behind a proxy names are resolved by the proxy, so its rules decide about their addresses;
//! address literals are still checked here.

use std::fmt;

use crate::model::secret::Secret;
use crate::settings::ProxySettings;

/// The way requests take.
#[derive(Clone, Default)]
pub enum ProxyRoute {
    /// Straight to the destination.
    #[default]
    Direct,
    /// Through a proxy.
    Via {
        /// `http://host:port`, credentials allowed.
        url: Secret<String>,
        /// Hosts that are reached directly, as `NO_PROXY` writes them.
        except: Option<String>,
    },
}

// === impl ProxyRoute ===

impl ProxyRoute {
    /// Turns a setting into a route. `variable` reads the environment: `daemon/` owns that door.
    pub fn resolve(
        settings: Option<&ProxySettings>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Self {
        let first = |names: [&str; 2]| {
            names
                .into_iter()
                .find_map(&variable)
                .filter(|v| !v.is_empty())
        };
        match settings {
            None => Self::Direct,
            Some(ProxySettings::Url(url)) => Self::Via {
                url: url.clone(),
                except: None,
            },
            Some(ProxySettings::Environment) => {
                let url = first(["https_proxy", "HTTPS_PROXY"])
                    .or_else(|| first(["all_proxy", "ALL_PROXY"]));
                match url {
                    None => Self::Direct,
                    Some(url) => Self::Via {
                        url: url.into(),
                        except: first(["no_proxy", "NO_PROXY"]),
                    },
                }
            }
        }
    }

    /// The proxy as the client takes it, and the host it is at.
    pub(super) fn build(&self) -> Result<Option<(reqwest::Proxy, String)>, &'static str> {
        let Self::Via { url, except } = self else {
            return Ok(None);
        };
        const FIX: &str = "proxy: write it as http://host:port or https://host:port";
        // curl's habit: a bare `host:port` means http.
        let text = url.expose();
        let parsed = match text.contains("://") {
            true => url::Url::parse(text),
            false => url::Url::parse(&format!("http://{text}")),
        };
        let parsed = parsed.map_err(|_| FIX)?;
        let host = parsed.host_str().ok_or(FIX)?.to_owned();
        if !matches!(parsed.scheme(), "http" | "https") {
            return Err(FIX);
        }
        let proxy = reqwest::Proxy::https(parsed).map_err(|_| FIX)?;
        let except = except.as_deref().and_then(reqwest::NoProxy::from_string);
        Ok(Some((proxy.no_proxy(except), host)))
    }
}

impl fmt::Debug for ProxyRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Direct => f.write_str("direct"),
            Self::Via { .. } => f.write_str("via [redacted]"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_names_a_proxy_only_when_asked() {
        let variable = |name: &str| (name == "HTTPS_PROXY").then(|| "http://p:1".to_owned());
        assert!(matches!(
            ProxyRoute::resolve(None, variable),
            ProxyRoute::Direct
        ));
        assert!(matches!(
            ProxyRoute::resolve(Some(&ProxySettings::Environment), variable),
            ProxyRoute::Via { .. }
        ));
        assert!(matches!(
            ProxyRoute::resolve(Some(&ProxySettings::Environment), |_| None),
            ProxyRoute::Direct
        ));
    }

    #[test]
    fn a_bad_proxy_is_named_without_being_printed() {
        let route = ProxyRoute::Via {
            url: "socks5://user:hunter2@p:1".into(),
            except: None,
        };
        let error = route.build().unwrap_err();
        assert!(!error.contains("hunter2") && !format!("{route:?}").contains("hunter2"));
    }
}
