//! What a failed request means, in the host's own words: nothing of the request, the answer or the URL is in them.

use std::error::Error as StdError;
use std::io;

use rustls::AlertDescription;

use super::resolve::AddressRefused;
use crate::model::transport::{FaultKind, TransportFault};

/// What the errors behind a failed request say.
pub(super) struct Diagnosis {
    /// The fault, to be told.
    pub(super) fault: TransportFault,
    /// The peer ended the handshake: no request was read, whatever was written already.
    pub(super) handshake_refused: bool,
}

/// Reads a client error and everything behind it, most telling first.
pub(super) fn diagnose(error: &reqwest::Error) -> Diagnosis {
    if let Some(refused) = find::<AddressRefused>(error) {
        return Diagnosis::new(FaultKind::Address, refused.to_string());
    }
    if let Some(tls) = find::<rustls::Error>(error) {
        return Diagnosis {
            handshake_refused: refuses_certificate(tls),
            ..Diagnosis::new(FaultKind::Tls, format!("TLS failed: {}", tls_words(tls)))
        };
    }
    if error.is_dns() {
        return Diagnosis::new(FaultKind::Name, "the name did not resolve".to_owned());
    }
    if error.is_timeout() {
        let waiting = if error.is_connect() {
            "connection"
        } else {
            "byte of the answer"
        };
        return Diagnosis::new(FaultKind::Timeout, format!("no {waiting} within its limit"));
    }
    let why = find::<io::Error>(error).map_or("closed early", |io| io_words(io.kind()));
    if error.is_connect() {
        return Diagnosis::new(FaultKind::Connect, format!("no connection: {why}"));
    }
    Diagnosis::new(FaultKind::Broken, format!("the connection broke: {why}"))
}

impl Diagnosis {
    fn new(kind: FaultKind, detail: String) -> Self {
        Self {
            fault: TransportFault { kind, detail },
            handshake_refused: false,
        }
    }
}

/// The first error of a type in a chain. An `io::Error` hides its inner error from `source`, so it is opened.
fn find<'a, E: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<E>() {
            return Some(found);
        }
        let inner = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref);
        if let Some(found) = inner.and_then(|inner| find::<E>(inner)) {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// A server that rejects our certificate says so after our side of a TLS 1.3 handshake is done, when the request may be
/// on its way already. It never read it: application data of an unfinished handshake is not delivered.
fn refuses_certificate(error: &rustls::Error) -> bool {
    use AlertDescription as A;
    matches!(
        error,
        rustls::Error::AlertReceived(
            A::BadCertificate
                | A::UnsupportedCertificate
                | A::CertificateRevoked
                | A::CertificateExpired
                | A::CertificateUnknown
                | A::CertificateRequired
                | A::UnknownCA
        )
    )
}

/// TLS errors hold names and numbers of certificates, never application data; those an operator meets have better words.
fn tls_words(error: &rustls::Error) -> String {
    use rustls::CertificateError as C;
    match error {
        rustls::Error::InvalidCertificate(C::UnknownIssuer) => {
            "the server's certificate is of an unknown authority; name it under tls.ca".to_owned()
        }
        rustls::Error::InvalidCertificate(
            C::NotValidForName | C::NotValidForNameContext { .. },
        ) => "the server's certificate is for another name".to_owned(),
        rustls::Error::InvalidCertificate(C::Expired | C::ExpiredContext { .. }) => {
            "the server's certificate has expired".to_owned()
        }
        rustls::Error::AlertReceived(AlertDescription::CertificateRequired) => {
            "the server wants a client certificate; name one under tls.cert and tls.key".to_owned()
        }
        rustls::Error::AlertReceived(alert) => format!("the server refused with {alert:?}"),
        rustls::Error::InvalidCertificate(_) => "the server's certificate is not valid".to_owned(),
        _ => "the peer does not speak it as expected".to_owned(),
    }
}

fn io_words(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::ConnectionRefused => "refused",
        io::ErrorKind::ConnectionReset => "reset by the peer",
        io::ErrorKind::ConnectionAborted => "aborted",
        io::ErrorKind::HostUnreachable => "host unreachable",
        io::ErrorKind::NetworkUnreachable => "network unreachable",
        io::ErrorKind::TimedOut => "timed out",
        io::ErrorKind::AddrNotAvailable => "no local address",
        io::ErrorKind::UnexpectedEof => "ended inside the answer",
        io::ErrorKind::BrokenPipe => "closed by the peer",
        _ => "closed early",
    }
}
