//! The only way out of the process: one [`HttpUpstream`] per provider, with its trust, certificates, addresses and proxy.
//!
//! It sends a finished request once and says how far it got: *not sent* only where that is provable, *answered* only
//! when every byte came, *lost* for everything between. It follows no redirect, tries nothing twice and reads no more
//! than it must. Which URLs may be asked at all is `seal`'s business, what an answer means the flow's.

mod address;
mod fault;
mod proxy;
mod resolve;

use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, CONTENT_LENGTH, HeaderValue};
use tokio::time::Instant;
use url::{Host, Url};

pub use address::{AddressClass, AddressRules, classify};
pub use proxy::ProxyRoute;
pub use resolve::{Lookup, SystemLookup};

use crate::model::contract::BoxFuture;
use crate::model::secret::Secret;
use crate::model::time::{Clock, UnixTime};
use crate::model::transport::{
    ANSWER_MAX_BYTES, Answer, Delivery, FaultKind, OutgoingRequest, TransportFault, Upstream,
};
use crate::settings::AddressBlock;
use resolve::CheckedResolver;

/// For name, address, connection and TLS together: three SYN retransmissions fit (1 + 2 + 4 s would not be worth more).
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two reads of an answer; slow issuers think for seconds before the first byte.
pub const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// An idle connection is given up before the usual 60 s of load balancers: a close that crosses a request costs an answer.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(45);
/// Idle connections kept for each host; refreshes come in waves as wide as a provider's concurrency.
pub const IDLE_MAX_PER_HOST: usize = 16;
/// Header lines of an answer; token endpoints send ten to thirty.
const ANSWER_MAX_HEADERS: usize = 100;
/// First allocation for a body of unknown length; most token answers fit.
const BODY_GUESS_BYTES: usize = 4 * 1024;
/// Some APIs refuse requests without one.
const USER_AGENT: &str = concat!("keyfob/", env!("CARGO_PKG_VERSION"));

/// How one provider's requests travel. Files are read already.
#[derive(Clone, Debug, Default)]
pub struct TransportSettings {
    /// Addresses that are no public ones and meant.
    pub allow_addresses: Vec<AddressBlock>,
    /// Plain http, to this machine only; it may then also be reached by https without being listed.
    pub insecure_http: bool,
    /// PEM of the certificate authorities to trust instead of the system's.
    pub ca: Option<Vec<u8>>,
    /// PEM of the client certificate chain (RFC 8705).
    pub cert: Option<Vec<u8>>,
    /// PEM of its private key.
    pub key: Option<Secret<String>>,
    /// Through which proxy.
    pub proxy: ProxyRoute,
}

/// Why a provider's transport cannot be set up: what is wrong and what to write, for operators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamSetupError {
    /// Which setting: `tls.ca`, `tls.cert`, `tls.key`, `proxy`.
    pub setting: &'static str,
    /// What is wrong with it.
    pub message: String,
}

/// [`Upstream`] over HTTP/1.1 and HTTP/2 with rustls.
pub struct HttpUpstream {
    /// Keeps connections; for requests that may be sent again.
    pooled: reqwest::Client,
    /// Keeps none: each request that carries a grant gets a fresh connection, so that a keep-alive the server closed a
    /// moment ago cannot look like a lost answer. Made when first needed: each client reads and parses the system's
    /// authorities anew, which is most of what a provider's start costs, and many providers never present a grant.
    single: OnceLock<reqwest::Client>,
    settings: TransportSettings,
    rules: AddressRules,
    lookup: Arc<dyn Lookup>,
    clock: Arc<dyn Clock>,
}

// === impl HttpUpstream ===

impl HttpUpstream {
    /// The transport of one provider, with names looked up by the system.
    ///
    /// # Errors
    ///
    /// [`UpstreamSetupError`] for PEM that does not parse, a certificate without its key, or a proxy that is none.
    pub fn new(
        settings: &TransportSettings,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, UpstreamSetupError> {
        Self::with_lookup(settings, clock, Arc::new(SystemLookup))
    }

    /// The same with names looked up by `lookup`; its answers are checked like anyone's.
    ///
    /// # Errors
    ///
    /// As [`HttpUpstream::new`].
    pub fn with_lookup(
        settings: &TransportSettings,
        clock: Arc<dyn Clock>,
        lookup: Arc<dyn Lookup>,
    ) -> Result<Self, UpstreamSetupError> {
        let rules = AddressRules {
            listed: settings.allow_addresses.clone(),
            loopback: settings.insecure_http,
        };
        let pooled = client(settings, &rules, &lookup)?
            .pool_max_idle_per_host(IDLE_MAX_PER_HOST)
            .build()
            .map_err(|_| UpstreamSetupError {
                setting: "tls",
                message: "the certificates and the key do not make a TLS client; check that they belong together"
                    .to_owned(),
            })?;
        Ok(Self {
            pooled,
            single: OnceLock::new(),
            settings: settings.clone(),
            rules,
            lookup,
            clock,
        })
    }

    /// The client for requests that carry a grant. Its settings made a client before, so that only the system's
    /// authorities can be missing; they may be back for the next request.
    fn single(&self) -> Result<&reqwest::Client, TransportFault> {
        if let Some(single) = self.single.get() {
            return Ok(single);
        }
        let made = client(&self.settings, &self.rules, &self.lookup)
            .map(|builder| builder.pool_max_idle_per_host(0).http1_only().build());
        match made {
            Ok(Ok(made)) => Ok(self.single.get_or_init(|| made)),
            Ok(Err(_)) | Err(_) => Err(TransportFault {
                kind: FaultKind::Tls,
                detail:
                    "no TLS client can be made: are the system's certificate authorities readable?"
                        .to_owned(),
            }),
        }
    }

    /// What can be refused by looking at the URL: its scheme, and addresses that need no lookup.
    fn check(&self, url: &Url) -> Result<(), TransportFault> {
        let refuse = |detail: String| {
            Err(TransportFault {
                kind: FaultKind::Address,
                detail,
            })
        };
        let literal = match url.host() {
            Some(Host::Ipv4(v4)) => Some(IpAddr::V4(v4)),
            Some(Host::Ipv6(v6)) => Some(IpAddr::V6(v6)),
            Some(Host::Domain(_)) => None,
            None => return refuse("the URL names no host".to_owned()),
        };
        let this_machine = match literal {
            Some(address) => address.to_canonical().is_loopback(),
            None => url.host_str().is_some_and(resolve::is_localhost),
        };
        match url.scheme() {
            "https" => {}
            "http" if self.settings.insecure_http && this_machine => {}
            "http" if this_machine => {
                return refuse("plain http needs insecure_http = true for the provider".to_owned());
            }
            "http" => return refuse("plain http is for this machine only; use https".to_owned()),
            _ => return refuse("only https leaves".to_owned()),
        }
        match literal.map(|address| (address, self.rules.check(address))) {
            Some((address, Err(class))) => refuse(format!(
                "{address} is a {} address; if that is meant, add \"{address}\" to the provider's allow_addresses",
                class.label()
            )),
            _ => Ok(()),
        }
    }

    /// Sends and reads, without a deadline of its own.
    async fn exchange(
        &self,
        request: OutgoingRequest,
        handed_over: Arc<AtomicBool>,
        sent_at: UnixTime,
        started: Instant,
    ) -> Delivery {
        let client = match request.carries_grant {
            false => &self.pooled,
            true => match self.single() {
                Ok(client) => client,
                Err(fault) => return Delivery::NotSent(fault),
            },
        };
        let response = match client.execute(assemble(request, &handed_over)).await {
            Ok(response) => response,
            Err(error) => return failed(&error, &handed_over),
        };
        let (status, headers) = (response.status(), response.headers().clone());
        match read(response).await {
            Ok(body) => Delivery::Answered(Answer {
                status,
                headers,
                body,
                sent_at,
                took: started.elapsed(),
            }),
            Err(fault) => Delivery::Lost(fault),
        }
    }
}

impl Upstream for HttpUpstream {
    /// # Cancel safety
    ///
    /// Dropping the future closes the connection; whether the request arrived is then unknown.
    fn send(&self, request: OutgoingRequest, timeout: Duration) -> BoxFuture<'_, Delivery> {
        Box::pin(async move {
            if let Err(fault) = self.check(&request.url) {
                return Delivery::NotSent(fault);
            }
            // Without a body there is no telling when the last byte left: it may have from the start.
            let handed_over = Arc::new(AtomicBool::new(request.body.expose().is_empty()));
            let started = Instant::now();
            let exchange = self.exchange(request, handed_over.clone(), self.clock.now(), started);
            match tokio::time::timeout(timeout, exchange).await {
                Ok(delivery) => delivery,
                Err(_) => {
                    let fault = TransportFault {
                        kind: FaultKind::Timeout,
                        detail: format!("no complete answer within {timeout:?}"),
                    };
                    settle(fault, handed_over.load(Ordering::Acquire))
                }
            }
        })
    }
}

impl fmt::Debug for HttpUpstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpUpstream")
            .field("rules", &self.rules)
            .field("insecure_http", &self.settings.insecure_http)
            .finish_non_exhaustive()
    }
}

/// What both clients have in common.
fn client(
    settings: &TransportSettings,
    rules: &AddressRules,
    lookup: &Arc<dyn Lookup>,
) -> Result<reqwest::ClientBuilder, UpstreamSetupError> {
    let wrong = |setting, message: &str| UpstreamSetupError {
        setting,
        message: message.to_owned(),
    };
    // `no_proxy` first: it also keeps the client from asking the environment.
    let mut builder = reqwest::Client::builder().no_proxy();
    let mut exempt = None;
    if let Some((proxy, host)) = settings
        .proxy
        .build()
        .map_err(|message| wrong("proxy", message))?
    {
        builder = builder.proxy(proxy);
        exempt = Some(host);
    }
    if let Some(pem) = &settings.ca {
        let authorities = reqwest::Certificate::from_pem_bundle(pem)
            .ok()
            .filter(|found| !found.is_empty())
            .ok_or_else(|| wrong("tls.ca", "no certificate in it; PEM is expected"))?;
        builder = builder.tls_certs_only(authorities);
    }
    match (&settings.cert, &settings.key) {
        (Some(cert), Some(key)) => {
            let mut both = zeroize::Zeroizing::new(key.expose().clone().into_bytes());
            both.push(b'\n');
            both.extend_from_slice(cert);
            let identity = reqwest::Identity::from_pem(&both).map_err(|_| {
                wrong(
                    "tls.cert",
                    "no certificate chain with its private key; PEM is expected",
                )
            })?;
            builder = builder.identity(identity);
        }
        (Some(_), None) => {
            return Err(wrong(
                "tls.key",
                "a client certificate needs its private key",
            ));
        }
        (None, Some(_)) => return Err(wrong("tls.cert", "a private key needs its certificate")),
        (None, None) => {}
    }
    Ok(builder
        .dns_resolver(CheckedResolver {
            lookup: lookup.clone(),
            rules: rules.clone(),
            exempt,
        })
        .https_only(!settings.insecure_http)
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(READ_TIMEOUT)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .http1_max_headers(ANSWER_MAX_HEADERS)
        .user_agent(USER_AGENT))
}

/// The request as the client takes it. `handed_over` turns true when the client asks for the body, which it does only
/// once a connection stands: until then no byte of it can have left.
fn assemble(request: OutgoingRequest, handed_over: &Arc<AtomicBool>) -> reqwest::Request {
    struct Body(Secret<Vec<u8>>);
    impl AsRef<[u8]> for Body {
        fn as_ref(&self) -> &[u8] {
            self.0.expose()
        }
    }

    let OutgoingRequest {
        method,
        url,
        headers,
        body,
        ..
    } = request;
    let length = body.expose().len();
    let mut outgoing = reqwest::Request::new(method, url);
    *outgoing.headers_mut() = headers;
    // Ours, not the client's `*/*`: some token endpoints answer that with a form.
    outgoing
        .headers_mut()
        .entry(ACCEPT)
        .or_insert(HeaderValue::from_static("application/json"));
    if length > 0 {
        outgoing
            .headers_mut()
            .insert(CONTENT_LENGTH, HeaderValue::from(length));
        let handed_over = handed_over.clone();
        let bytes = Bytes::from_owner(Body(body));
        let stream = futures_util::stream::once(async move {
            handed_over.store(true, Ordering::Release);
            Ok::<_, std::convert::Infallible>(bytes)
        });
        *outgoing.body_mut() = Some(reqwest::Body::wrap_stream(stream));
    }
    outgoing
}

/// Reads an answer to its end.
async fn read(mut response: reqwest::Response) -> Result<Bytes, TransportFault> {
    let too_large = || TransportFault {
        kind: FaultKind::TooLarge,
        detail: format!("the answer is larger than {ANSWER_MAX_BYTES} bytes"),
    };
    let announced = response
        .content_length()
        .and_then(|length| usize::try_from(length).ok());
    if announced.is_some_and(|length| length > ANSWER_MAX_BYTES) {
        return Err(too_large());
    }
    let mut body = BytesMut::with_capacity(announced.unwrap_or(BODY_GUESS_BYTES));
    while let Some(chunk) = response
        .chunk()
        .await
        .map_err(|error| fault::diagnose(&error).fault)?
    {
        if body.len() + chunk.len() > ANSWER_MAX_BYTES {
            return Err(too_large());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

/// Before an answer began: whether anything can have left decides.
fn failed(error: &reqwest::Error, handed_over: &AtomicBool) -> Delivery {
    let diagnosis = fault::diagnose(error);
    let unsent = error.is_connect() || diagnosis.handshake_refused;
    settle(
        diagnosis.fault,
        !unsent && handed_over.load(Ordering::Acquire),
    )
}

fn settle(fault: TransportFault, may_have_left: bool) -> Delivery {
    if may_have_left {
        Delivery::Lost(fault)
    } else {
        Delivery::NotSent(fault)
    }
}

// === impl UpstreamSetupError ===

impl fmt::Display for UpstreamSetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.setting, self.message)
    }
}

impl std::error::Error for UpstreamSetupError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::time::SystemClock;

    #[test]
    fn a_provider_that_never_presents_a_grant_loads_the_authorities_once() {
        let upstream = HttpUpstream::new(&TransportSettings::default(), Arc::new(SystemClock));
        let upstream = upstream.expect("this machine has certificate authorities");
        assert!(upstream.single.get().is_none());
        let made: *const _ = upstream.single().expect("as above");
        assert!(std::ptr::eq(made, upstream.single().expect("as above")));
    }
}
