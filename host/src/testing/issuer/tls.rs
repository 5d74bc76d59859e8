//! TLS of the issuer, from PEM.

use std::fmt;
use std::io;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

/// Certificates of the issuer.
#[derive(Clone)]
pub struct IssuerTls {
    /// PEM of its chain, for 127.0.0.1.
    pub cert: Vec<u8>,
    /// PEM of its private key.
    pub key: Vec<u8>,
    /// PEM of the authority of client certificates; with it, clients are asked for one.
    pub client_ca: Option<Vec<u8>>,
    /// Whether the handshake fails without one.
    pub client_cert_required: bool,
}

// === impl IssuerTls ===

impl IssuerTls {
    pub(super) fn acceptor(&self) -> io::Result<TlsAcceptor> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?;
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(pem) => {
                let mut roots = RootCertStore::empty();
                for authority in chain(pem)? {
                    roots.add(authority).map_err(io::Error::other)?;
                }
                let mut verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                if !self.client_cert_required {
                    verifier = verifier.allow_unauthenticated();
                }
                builder.with_client_cert_verifier(verifier.build().map_err(io::Error::other)?)
            }
        };
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(io::Error::other)?;
        let config = builder
            .with_single_cert(chain(&self.cert)?, key)
            .map_err(io::Error::other)?;
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

fn chain(pem: &[u8]) -> io::Result<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(io::Error::other)
}

impl fmt::Debug for IssuerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IssuerTls [redacted]")
    }
}
