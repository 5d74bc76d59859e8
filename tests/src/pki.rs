//! Throw-away certificates: an authority for one test, trusted by nobody else, and its files where programs want files.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
};

/// An authority of its own: two of them do not trust each other.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate with its key, in PEM.
pub struct Leaf {
    /// The certificate.
    pub cert: String,
    /// Its private key.
    pub key: String,
}

impl Authority {
    /// A fresh one.
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name("Test authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().expect("a P-256 key");
        Self(CertifiedIssuer::self_signed(params, key).expect("a certificate of an authority"))
    }

    /// Its certificate, to be trusted.
    pub fn pem(&self) -> Vec<u8> {
        self.0.pem().into_bytes()
    }

    /// A certificate for servers at these names and addresses.
    pub fn server(&self, names: &[&str]) -> Leaf {
        self.leaf(names, ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// A certificate for a client.
    pub fn client(&self, name: &str) -> Leaf {
        self.leaf(&[name], ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn leaf(&self, names: &[&str], usage: ExtendedKeyUsagePurpose) -> Leaf {
        let subject = names.first().copied().unwrap_or("nameless");
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names and addresses");
        params.distinguished_name = common_name(subject);
        params.extended_key_usages = vec![usage];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().expect("a P-256 key");
        let cert = params.signed_by(&key, &self.0).expect("a certificate");
        Leaf {
            cert: cert.pem(),
            key: key.serialize_pem(),
        }
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

/// The name in client certificates.
pub const CLIENT_NAME: &str = "client.example";

/// An authority with one server certificate, for `localhost` and `127.0.0.1`, and one client certificate, for
/// [`CLIENT_NAME`]. PEM files.
#[derive(Clone, Debug)]
pub struct Pki {
    /// The authority's certificate.
    pub ca: PathBuf,
    /// The server's certificate.
    pub server_cert: PathBuf,
    /// Its private key.
    pub server_key: PathBuf,
    /// The client's certificate.
    pub client_cert: PathBuf,
    /// Its private key.
    pub client_key: PathBuf,
}

// === impl Pki ===

impl Pki {
    /// Makes the authority and both certificates and writes them into `dir`.
    ///
    /// # Errors
    ///
    /// When a file cannot be written.
    pub fn create(dir: &Path) -> anyhow::Result<Self> {
        let authority = Authority::new();
        let ca = write(dir, "ca.pem", &String::from_utf8(authority.pem())?)?;
        let files = |name: &str, leaf: Leaf| -> anyhow::Result<(PathBuf, PathBuf)> {
            let cert = write(dir, &format!("{name}.pem"), &leaf.cert)?;
            Ok((cert, write(dir, &format!("{name}.key.pem"), &leaf.key)?))
        };
        let (server_cert, server_key) =
            files("server", authority.server(&["localhost", "127.0.0.1"]))?;
        let (client_cert, client_key) = files("client", authority.client(CLIENT_NAME))?;
        Ok(Self {
            ca,
            server_cert,
            server_key,
            client_cert,
            client_key,
        })
    }

    /// A builder of HTTP clients that trust this authority only.
    ///
    /// # Errors
    ///
    /// When the authority's file is gone.
    pub fn trusting(&self) -> anyhow::Result<reqwest::ClientBuilder> {
        let pem =
            std::fs::read(&self.ca).with_context(|| format!("reading {}", self.ca.display()))?;
        let ca = reqwest::Certificate::from_pem(&pem)?;
        Ok(reqwest::Client::builder().no_proxy().tls_certs_only([ca]))
    }
}

/// A name of its own for each certificate: OpenSSL takes one that is named like its authority for self-signed.
fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

/// Writes a file into a directory and returns its path.
pub(crate) fn write(dir: &Path, name: &str, text: &str) -> anyhow::Result<PathBuf> {
    let path = dir.join(name);
    std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    Ok(path)
}
