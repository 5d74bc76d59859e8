//! Reads secrets where an operator put them: anew for each flow, so that a rotated file or variable takes effect by
//! itself. Their values live in [`Secret`]s from the first byte.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use crate::model::secret::Secret;
use crate::settings::SecretSource;

/// The largest secret file read: an RSA-4096 key in PEM is 3 KiB; chains of certificates are longer.
const SECRET_MAX_BYTES: u64 = 64 * 1024;

/// How the host looks up environment variables; the daemon supplies it, so that only it reads the environment.
pub type Environment = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// Reads secrets.
#[derive(Clone)]
pub struct SecretReader {
    environment: Environment,
}

/// Why a secret could not be read. Holds its place, never its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretFault(String);

// === impl SecretReader ===

impl SecretReader {
    /// Looks variables up with `environment`.
    pub fn new(environment: Environment) -> Self {
        Self { environment }
    }

    /// A variable that is no secret: where a proxy is.
    pub fn variable(&self, name: &str) -> Option<String> {
        (self.environment)(name)
    }

    /// The value in force now.
    ///
    /// # Errors
    ///
    /// [`SecretFault`] when the variable is not set, the file cannot be read, is larger than 64 KiB, is no UTF-8, or
    /// either is empty.
    ///
    /// # Cancel safety
    ///
    /// Safe: reads only.
    pub async fn read(&self, source: &SecretSource) -> Result<Secret<String>, SecretFault> {
        let value = match source {
            SecretSource::Value(value) => value.clone(),
            SecretSource::Env(name) => {
                (self.environment)(name).map(Secret::new).ok_or_else(|| {
                    SecretFault(format!("the environment variable {name} is not set"))
                })?
            }
            SecretSource::File(path) => read_file(path).await?,
        };
        if value.is_empty() {
            return Err(SecretFault(format!("{source:?} is empty")));
        }
        Ok(value)
    }
}

async fn read_file(path: &Path) -> Result<Secret<String>, SecretFault> {
    let fault = |what: String| SecretFault(format!("file {}: {what}", path.display()));
    let size = tokio::fs::metadata(path)
        .await
        .map_err(|e| fault(e.kind().to_string()))?
        .len();
    if size > SECRET_MAX_BYTES {
        return Err(fault(format!("larger than {SECRET_MAX_BYTES} bytes")));
    }
    let bytes = tokio::fs::read(path)
        .await
        .map_err(|e| fault(e.kind().to_string()))?;
    let mut text = String::from_utf8(bytes).map_err(|_| fault("not UTF-8".into()))?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(Secret::new(text))
}

impl fmt::Debug for SecretReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretReader")
    }
}

// === impl SecretFault ===

impl fmt::Display for SecretFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader() -> SecretReader {
        SecretReader::new(Arc::new(|name| (name == "SET").then(|| "value".to_owned())))
    }

    #[tokio::test]
    async fn one_trailing_newline_is_not_part_of_a_secret() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        std::fs::write(&path, "abc \r\n").unwrap();
        let value = reader().read(&SecretSource::File(path)).await.unwrap();
        assert_eq!(value.expose(), "abc ");
    }

    #[tokio::test]
    async fn what_is_missing_is_named() {
        let fault = reader()
            .read(&SecretSource::Env("UNSET".into()))
            .await
            .unwrap_err();
        assert!(fault.to_string().contains("UNSET"));
        assert!(
            reader()
                .read(&SecretSource::Env("SET".into()))
                .await
                .is_ok()
        );
        let fault = reader()
            .read(&SecretSource::File("/nonexistent/x".into()))
            .await
            .unwrap_err();
        assert!(fault.to_string().contains("/nonexistent/x"));
    }
}
