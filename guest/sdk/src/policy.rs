//! What a policy plugin implements, and the adapter that makes the contract's two functions of it.

use std::marker::PhantomData;

use crate::bindings::policy::types::Reason;
use crate::bindings::policy::{Allowance, Description, Guest, Query};
use crate::provider::enter;

/// Who may have which token. Exported with [`export_policy!`](crate::export_policy).
pub trait Policy {
    /// 1 to 64 bytes of `a-z`, `0-9`, `-`.
    const NAME: &'static str;
    /// Semantic version.
    const VERSION: &'static str;
    /// One line.
    const SUMMARY: &'static str;
    /// JSON Schema (2020-12) of one caller's rules.
    const SETTINGS_SCHEMA: &'static str;

    /// Allows or denies one request.
    ///
    /// # Errors
    ///
    /// A denial; [`deny`] makes one. Its message is for operators and names the line to add.
    fn decide(query: &Query) -> Result<Allowance, Reason>;
}

/// A denial: a code out of a closed set, and words for operators.
pub fn deny(code: &str, message: impl Into<String>) -> Reason {
    Reason {
        code: code.into(),
        message: message.into(),
    }
}

/// Exports a [`Policy`] as the component `keyfob:policy/plugin`; does nothing in a native build.
#[macro_export]
macro_rules! export_policy {
    ($plugin:ty) => {
        #[cfg(target_family = "wasm")]
        const _: () = {
            type Plugin = $crate::ExportedPolicy<$plugin>;
    $crate::bindings::policy::export!(Plugin with_types_in $crate::bindings::policy);
        };
    };
}

/// The contract's functions, made of a [`Policy`].
#[derive(Debug)]
pub struct ExportedPolicy<P>(PhantomData<P>);

impl<P: Policy> Guest for ExportedPolicy<P> {
    fn describe() -> Description {
        enter();
        Description {
            name: P::NAME.into(),
            version: P::VERSION.into(),
            summary: P::SUMMARY.into(),
            settings_schema: P::SETTINGS_SCHEMA.into(),
        }
    }

    fn decide(query: Query) -> Result<Allowance, Reason> {
        enter();
        P::decide(&query)
    }
}
