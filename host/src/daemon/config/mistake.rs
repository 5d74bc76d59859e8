//! One thing wrong with a configuration: where, what, and what to write instead.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;
use strsim::osa_distance;

/// One thing wrong, or worth a warning. Holds no value of a secret: it is made from names, types and positions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mistake {
    /// In which file.
    pub file: PathBuf,
    /// On which line, from 1; none concerns the file as a whole.
    pub line: Option<usize>,
    /// What is wrong.
    pub what: String,
    /// What to write instead.
    pub fix: String,
}

/// The one of `known` that was probably meant, if any is close.
pub(in crate::daemon) fn did_you_mean<'a>(
    written: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    known
        .into_iter()
        .map(|candidate| (osa_distance(written, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= candidate.chars().count().div_ceil(3))
        .min()
        .map(|(_, candidate)| candidate)
}

// === impl Mistake ===

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        write!(f, ": {}", self.what)?;
        if !self.fix.is_empty() {
            write!(f, "\n    fix: {}", self.fix)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typo_finds_its_word_and_a_stranger_finds_none() {
        let known = ["allow", "allow_addresses", "plugin", "secrets", "settings"];
        assert_eq!(did_you_mean("alow", known), Some("allow"));
        assert_eq!(did_you_mean("plguin", known), Some("plugin"));
        assert_eq!(did_you_mean("secret", known), Some("secrets"));
        assert_eq!(did_you_mean("zebra", known), None);
        assert_eq!(did_you_mean("", known), None);
    }

    #[test]
    fn a_mistake_reads_like_a_compilers() {
        let mistake = Mistake {
            file: "keyfob.toml".into(),
            line: Some(7),
            what: "unknown key `alow`".to_owned(),
            fix: "did you mean `allow`?".to_owned(),
        };
        assert_eq!(
            mistake.to_string(),
            "keyfob.toml:7: unknown key `alow`\n    fix: did you mean `allow`?"
        );
    }
}
