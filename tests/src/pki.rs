//! A throw-away certificate authority in a directory: one for every test that needs TLS, trusted by nobody else.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};

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
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name = common_name("Keyfob test authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate()?;
        let ca = write(dir, "ca.pem", &params.self_signed(&key)?.pem())?;
        let authority = Issuer::new(params, key);
        let leaf = |name: &str, names: &[&str], usage| -> anyhow::Result<(PathBuf, PathBuf)> {
            let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
            let mut params = CertificateParams::new(names)?;
            params.distinguished_name = common_name(name);
            params.extended_key_usages = vec![usage];
            params.use_authority_key_identifier_extension = true;
            let key = KeyPair::generate()?;
            let cert = params.signed_by(&key, &authority)?;
            let cert = write(dir, &format!("{name}.pem"), &cert.pem())?;
            Ok((
                cert,
                write(dir, &format!("{name}.key.pem"), &key.serialize_pem())?,
            ))
        };
        let (server_cert, server_key) = leaf(
            "server",
            &["localhost", "127.0.0.1"],
            ExtendedKeyUsagePurpose::ServerAuth,
        )?;
        let (client_cert, client_key) = leaf(
            "client",
            &[CLIENT_NAME],
            ExtendedKeyUsagePurpose::ClientAuth,
        )?;
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
