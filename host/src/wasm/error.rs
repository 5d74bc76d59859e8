//! Why a plugin was not accepted: a closed code for labels and machines, and words that say what to change.
//!
//! The words are for operators and authors. Whatever in them came out of the plugin has been through
//! [`super::panic_text::printable`].

use std::fmt;

/// Why bytes did not become a plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadError {
    code: LoadCode,
    what: String,
    fix: String,
}

/// The closed set of reasons, each a stable label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LoadCode {
    /// More bytes than a plugin may have.
    TooLarge,
    /// Not WebAssembly at all.
    NotWasm,
    /// WebAssembly, but damaged, or with features that are turned off.
    Invalid,
    /// A core module without a description of its interface.
    NoWit,
    /// It imports something; plugins import nothing.
    UnknownImport,
    /// It exports none of the worlds the host knows.
    NoWorld,
    /// It exports a known world in a version that the host does not speak.
    WrongVersion,
    /// It exports a known world, but a function is missing or has another type.
    WrongType,
    /// The compiler refused it, failed, or took too long.
    Compile,
    /// `describe` trapped, hit a limit, or answered what the contract forbids.
    Describe,
    /// The host could not do its part.
    Host,
}

impl LoadError {
    pub(super) fn new(code: LoadCode, what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            code,
            what: what.into(),
            fix: fix.into(),
        }
    }

    /// Which reason of the closed set.
    pub fn code(&self) -> LoadCode {
        self.code
    }

    /// The reason as a stable label: `unknown_import`, `wrong_type` …
    pub fn label(&self) -> &'static str {
        self.code.label()
    }

    /// What is wrong.
    pub fn what(&self) -> &str {
        &self.what
    }

    /// What to change.
    pub fn fix(&self) -> &str {
        &self.fix
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.what, self.fix)
    }
}

impl std::error::Error for LoadError {}

// === impl LoadCode ===

impl LoadCode {
    /// The stable label.
    pub fn label(self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::NotWasm => "not_wasm",
            Self::Invalid => "invalid",
            Self::NoWit => "no_wit",
            Self::UnknownImport => "unknown_import",
            Self::NoWorld => "no_world",
            Self::WrongVersion => "wrong_version",
            Self::WrongType => "wrong_type",
            Self::Compile => "compile",
            Self::Describe => "describe",
            Self::Host => "host",
        }
    }
}
