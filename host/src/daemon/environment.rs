//! The one door to the process environment, and where secrets that the daemon itself needs come from.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::model::secret::Secret;
use crate::settings::SecretSource;

/// Reads one environment variable.
pub type Environment = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// The largest secret that is read from a file: an RSA key of 16384 bits in PEM is an eighth of this.
const SECRET_MAX_BYTES: usize = 64 * 1024;

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
    let secret = match source {
        SecretSource::Env(name) => environment(name).map(Secret::new).ok_or_else(|| {
            let fix = format!("export {name}=…, or name another variable");
            (
                format!("the variable {name} is not set, or is not UTF-8"),
                fix,
            )
        })?,
        SecretSource::File(path) => read_secret(path)?,
        SecretSource::Value(value) => value.clone(),
    };
    if secret.is_empty() {
        let fix = "a secret has at least one byte".to_owned();
        return Err((format!("{source:?} is empty"), fix));
    }
    Ok(secret)
}

/// Reads a whole file; one trailing newline is not part of the secret.
fn read_secret(path: &Path) -> Result<Secret<String>, (String, String)> {
    let wrong = |what: String| {
        let fix = "the file must be text that the daemon's user can read".to_owned();
        (format!("{} {what}", path.display()), fix)
    };
    // Room for one byte too many, from the start: growing would leave copies behind that nobody wipes.
    let mut bytes = Zeroizing::new(Vec::with_capacity(SECRET_MAX_BYTES + 1));
    let most = u64::try_from(SECRET_MAX_BYTES)
        .unwrap_or(u64::MAX)
        .saturating_add(1);
    File::open(path)
        .and_then(|file| file.take(most).read_to_end(&mut bytes))
        .map_err(|error| wrong(format!("cannot be read: {error}")))?;
    if bytes.len() > SECRET_MAX_BYTES {
        return Err(wrong(format!("is larger than {SECRET_MAX_BYTES} bytes")));
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| wrong("is not UTF-8".to_owned()))?;
    let text = text.strip_suffix('\n').unwrap_or(text);
    Ok(Secret::from(text.strip_suffix('\r').unwrap_or(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nothing() -> Environment {
        Arc::new(|_| None)
    }

    #[test]
    fn one_trailing_newline_is_not_part_of_a_secret() {
        let dir = tempfile::tempdir().unwrap();
        for (written, meant) in [
            ("s3cret\n", "s3cret"),
            ("s3cret\r\n", "s3cret"),
            ("a\n\n", "a\n"),
        ] {
            let path = dir.path().join("secret");
            std::fs::write(&path, written).unwrap();
            let secret = fetch(&SecretSource::File(path), &nothing()).unwrap();
            assert_eq!(secret.expose(), meant);
        }
    }

    #[test]
    fn a_secret_that_is_not_there_says_where_it_was_looked_for() {
        let dir = tempfile::tempdir().unwrap();
        let huge = dir.path().join("huge");
        std::fs::write(&huge, vec![b'x'; SECRET_MAX_BYTES + 1]).unwrap();
        let binary = dir.path().join("binary");
        std::fs::write(&binary, b"hunter2\xff").unwrap();
        let empty = dir.path().join("empty");
        std::fs::write(&empty, "\n").unwrap();
        let cases = [
            (
                SecretSource::Env("NOT_SET".to_owned()),
                "NOT_SET is not set",
            ),
            (SecretSource::File(dir.path().join("no")), "cannot be read"),
            (SecretSource::File(huge), "larger than"),
            (SecretSource::File(binary), "not UTF-8"),
            (SecretSource::File(empty), "empty"),
            (SecretSource::Value("".into()), "empty"),
        ];
        for (source, words) in cases {
            let (what, _) = fetch(&source, &nothing()).unwrap_err();
            assert!(what.contains(words) && !what.contains("hunter2"), "{what}");
        }
    }
}
