//! The one door to the process environment, and secrets that the daemon itself needs, with what to do when one is missing.

use std::sync::Arc;

use crate::model::secret::Secret;
pub use crate::secrets::Environment;
use crate::secrets::read_blocking;
use crate::settings::SecretSource;

/// The environment of this process.
pub fn process() -> Environment {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the environment"
    )]
    Arc::new(|name| std::env::var(name).ok())
}

/// Fetches a secret.
///
/// # Errors
///
/// What is wrong and what to do, for an operator; neither holds a byte of the secret.
pub fn fetch(
    source: &SecretSource,
    environment: &Environment,
) -> Result<Secret<String>, (String, String)> {
    read_blocking(source, environment).map_err(|fault| {
        let fix = match source {
            SecretSource::Env(name) => format!("export {name}=…, or name another variable"),
            SecretSource::File(_) => {
                "the file must be a regular one with text that the daemon's user can read"
                    .to_owned()
            }
            SecretSource::Value(_) => "a secret has at least one byte".to_owned(),
        };
        (fault.to_string(), fix)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_that_is_missing_comes_with_what_to_do() {
        let nothing: Environment = Arc::new(|_| None);
        for (source, what, fix) in [
            (
                SecretSource::Env("NOT_SET".to_owned()),
                "NOT_SET is not set",
                "export NOT_SET=",
            ),
            (
                SecretSource::File("/nonexistent/x".into()),
                "/nonexistent/x cannot be read",
                "the file",
            ),
            (SecretSource::Value("".into()), "empty", "one byte"),
        ] {
            let told = fetch(&source, &nothing).unwrap_err();
            assert!(told.0.contains(what) && told.1.contains(fix), "{told:?}");
        }
    }
}
