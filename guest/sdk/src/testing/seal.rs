//! Replaces strings of answers by handles, as the host does.

use serde_json::Value;

use crate::bindings::provider::types::SealedValue;

/// Members that stay readable in a successful answer; so do those that start with `error`.
const READABLE: [&str; 3] = ["token_type", "scope", "expires_in"];

/// Members that are sealed in any answer (RFC 6749, section 5.1).
const TOKENS: [&str; 3] = ["access_token", "refresh_token", "id_token"];

/// The values behind the handles of one flow.
#[derive(Clone, Debug, Default)]
pub struct Vault(Vec<String>);

impl Vault {
    /// A handle for `value`; the same value has the same handle.
    pub fn seal(&mut self, value: &str) -> SealedValue {
        let at = self
            .0
            .iter()
            .position(|kept| kept == value)
            .unwrap_or_else(|| {
                self.0.push(value.to_owned());
                self.0.len() - 1
            });
        SealedValue {
            handle: format!("sealed:{at:032x}"),
        }
    }

    /// The value behind a handle.
    ///
    /// # Panics
    ///
    /// Where the handle was made up.
    pub fn open(&self, sealed: &SealedValue) -> &str {
        let at = sealed
            .handle
            .strip_prefix("sealed:")
            .and_then(|digits| usize::from_str_radix(digits, 16).ok());
        match at.and_then(|at| self.0.get(at)) {
            Some(value) => value,
            None => panic!("the plugin made up the handle {:?}", sealed.handle),
        }
    }

    /// Seals an answer. A refused one stays readable, tokens excepted.
    pub fn seal_answer(&mut self, success: bool, body: &mut Value, readable: &[String]) {
        let Value::Object(members) = body else {
            if success {
                self.seal_all(body);
            }
            return;
        };
        for (name, value) in members {
            let name = name.as_str();
            let open = READABLE.contains(&name)
                || name.starts_with("error")
                || readable.iter().any(|open| open == name);
            if TOKENS.contains(&name) || (success && !open) {
                self.seal_all(value);
            }
        }
    }

    fn seal_all(&mut self, value: &mut Value) {
        match value {
            Value::String(text) => *text = self.seal(text).handle,
            Value::Array(items) => items.iter_mut().for_each(|item| self.seal_all(item)),
            Value::Object(members) => members
                .values_mut()
                .for_each(|member| self.seal_all(member)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
}
