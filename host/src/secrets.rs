//! Reads secrets where an operator put them: anew for each flow, so that a rotated file or variable takes effect by
//! itself; [`read_blocking`] for those that a daemon needs once. Their values live in [`Secret`]s from the first byte.

use std::collections::HashMap;
use std::fmt;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use crate::model::secret::Secret;
use crate::settings::SecretSource;

/// The largest secret file read: an RSA-4096 key in PEM is 3 KiB; chains of certificates are longer.
const SECRET_MAX_BYTES: usize = 64 * 1024;

/// How the host looks up environment variables; the daemon supplies it, so that only it reads the environment.
pub type Environment = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// How many threads read one file at once: a read takes microseconds, unless the file system hangs.
const READING_MAX: usize = 4;

/// Reads secrets.
#[derive(Clone)]
pub struct SecretReader {
    environment: Environment,
    /// Turns at each file. A thread that reads gives its turn back when it is done, not when its caller gives up: a file
    /// system that hangs keeps that many threads and no more. Held for one look; grows with the files ever configured.
    turns: Arc<Mutex<HashMap<PathBuf, Arc<Semaphore>>>>,
}

/// Why a secret could not be read. Holds its place, never its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretFault(String);

// === impl SecretReader ===

impl SecretReader {
    /// Looks variables up with `environment`.
    pub fn new(environment: Environment) -> Self {
        Self {
            environment,
            turns: Arc::default(),
        }
    }

    /// A variable that is no secret: where a proxy is.
    pub fn variable(&self, name: &str) -> Option<String> {
        (self.environment)(name)
    }

    /// The value in force now.
    ///
    /// # Errors
    ///
    /// [`SecretFault`] when the variable is not set, the file cannot be read, is no regular file, is larger than 64 KiB,
    /// is no UTF-8, or either is empty.
    ///
    /// # Cancel safety
    ///
    /// Safe: reads only.
    pub async fn read(&self, source: &SecretSource) -> Result<Secret<String>, SecretFault> {
        let SecretSource::File(path) = source else {
            return read_blocking(source, &self.environment);
        };
        let ending = || SecretFault("the process is ending".to_owned());
        let turn = self
            .turns(path)
            .acquire_owned()
            .await
            .map_err(|_| ending())?;
        let (source, environment) = (source.clone(), self.environment.clone());
        let read = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            read_blocking(&source, &environment)
        });
        read.await.unwrap_or_else(|_| Err(ending()))
    }

    fn turns(&self, path: &Path) -> Arc<Semaphore> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = || Arc::new(Semaphore::new(READING_MAX));
        turns.entry(path.to_owned()).or_insert_with(fresh).clone()
    }
}

/// The value in force now, read on this thread.
///
/// # Errors
///
/// As [`SecretReader::read`].
pub fn read_blocking(
    source: &SecretSource,
    environment: &Environment,
) -> Result<Secret<String>, SecretFault> {
    let value = match source {
        SecretSource::Value(value) => value.clone(),
        SecretSource::Env(name) => environment(name).map(Secret::new).ok_or_else(|| {
            SecretFault(format!(
                "the environment variable {name} is not set, or is not UTF-8"
            ))
        })?,
        SecretSource::File(path) => read_file(path)
            .map_err(|what| SecretFault(format!("file {} {what}", path.display())))?,
    };
    if value.is_empty() {
        return Err(SecretFault(format!("{source:?} is empty")));
    }
    Ok(value)
}

/// Reads a whole file; one trailing newline is not part of the secret.
fn read_file(path: &Path) -> Result<Secret<String>, String> {
    let unreadable = |error: io::Error| format!("cannot be read: {error}");
    let regular = |found: io::Result<Metadata>| {
        match found.map_err(unreadable)?.is_file() {
        true => Ok(()),
        false => Err(
            "is no regular file: a secret is read again and again, which pipes and devices do not allow"
                .to_owned(),
        ),
    }
    };
    // Before it is opened, for opening a pipe waits for its writer; and after, for what is read is what was opened.
    regular(fs::metadata(path))?;
    let file = File::open(path).map_err(unreadable)?;
    regular(file.metadata())?;
    // Room for one byte too many, from the start: growing would leave copies behind that nobody wipes.
    let mut bytes = Zeroizing::new(Vec::with_capacity(SECRET_MAX_BYTES + 1));
    file.take(SECRET_MAX_BYTES as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() > SECRET_MAX_BYTES {
        return Err(format!("is larger than {SECRET_MAX_BYTES} bytes"));
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| "is not UTF-8".to_owned())?;
    let text = text.strip_suffix('\n').unwrap_or(text);
    Ok(Secret::from(text.strip_suffix('\r').unwrap_or(text)))
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
    async fn a_file_that_hangs_keeps_a_few_threads_and_leaves_the_others_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (hung, good) = (dir.path().join("hung"), dir.path().join("good"));
        std::fs::write(&hung, "a").unwrap();
        std::fs::write(&good, "b").unwrap();
        let reader = reader();
        // As if so many threads were reading it and did not come back.
        let turns = reader.turns(&hung);
        let _reading = turns.acquire_many(READING_MAX as u32).await.unwrap();
        let source = SecretSource::File(hung);
        let one_more = tokio::time::timeout(std::time::Duration::ZERO, reader.read(&source)).await;
        assert!(one_more.is_err(), "no further thread is spent on it");
        assert_eq!(
            reader
                .read(&SecretSource::File(good))
                .await
                .unwrap()
                .expose(),
            "b"
        );
    }

    #[tokio::test]
    async fn one_trailing_newline_is_not_part_of_a_secret() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        for (written, meant) in [("abc \r\n", "abc "), ("abc\n", "abc"), ("a\n\n", "a\n")] {
            std::fs::write(&path, written).unwrap();
            let source = SecretSource::File(path.clone());
            assert_eq!(reader().read(&source).await.unwrap().expose(), meant);
        }
    }

    #[tokio::test]
    async fn what_has_no_end_is_no_secret() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(
            made.is_ok_and(|status| status.success()),
            "every Unix has mkfifo"
        );
        for path in ["/dev/zero".into(), pipe, dir.path().to_owned()] {
            let fault = reader().read(&SecretSource::File(path)).await.unwrap_err();
            assert!(fault.to_string().contains("no regular file"), "{fault}");
        }
    }

    #[tokio::test]
    async fn a_file_that_does_not_tell_its_size_is_read_to_the_limit_at_most() {
        // Files of the Linux kernel say that they are empty.
        let source = SecretSource::File("/proc/self/status".into());
        assert!(reader().read(&source).await.is_ok());
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        for (size, fits) in [(SECRET_MAX_BYTES, true), (SECRET_MAX_BYTES + 1, false)] {
            std::fs::write(&path, vec![b'x'; size]).unwrap();
            let read = reader().read(&SecretSource::File(path.clone())).await;
            assert_eq!(read.is_ok(), fits, "{size}");
        }
    }

    #[test]
    fn a_secret_that_is_not_there_says_where_it_was_looked_for() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, content: &[u8]| {
            let path = dir.path().join(name);
            std::fs::write(&path, content).unwrap();
            SecretSource::File(path)
        };
        let cases = [
            (SecretSource::Env("UNSET".to_owned()), "UNSET is not set"),
            (
                SecretSource::File(dir.path().join("no")),
                "/no cannot be read",
            ),
            (
                file("huge", &[b'x'; SECRET_MAX_BYTES + 1]),
                "/huge is larger than",
            ),
            (file("binary", b"hunter2\xff"), "/binary is not UTF-8"),
            (file("empty", b"\n"), "/empty is empty"),
            (SecretSource::Value("".into()), "empty"),
        ];
        for (source, words) in cases {
            let fault = read_blocking(&source, &reader().environment).unwrap_err();
            let fault = fault.to_string();
            assert!(
                fault.contains(words) && !fault.contains("hunter2"),
                "{fault}"
            );
        }
        let set = SecretSource::Env("SET".to_owned());
        assert!(read_blocking(&set, &reader().environment).is_ok());
    }
}
