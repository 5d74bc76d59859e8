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

    /// Seals an answer. A refused one stays readable, tokens excepted. `readable` are members at the
    /// top, or JSON pointers.
    pub fn seal_answer(&mut self, success: bool, body: &mut Value, readable: &[String]) {
        let mut open: Vec<String> = readable.iter().map(|one| pointer(one)).collect();
        if let Value::Object(members) = &*body {
            let known = |name: &str| READABLE.contains(&name) || name.starts_with("error");
            open.extend(
                members
                    .keys()
                    .filter(|name| known(name))
                    .map(|name| pointer(name)),
            );
        }
        if !success {
            open.push(String::new());
        }
        self.seal_below("", body, &open, false);
    }

    fn seal_below(&mut self, path: &str, value: &mut Value, open: &[String], plain: bool) {
        let plain = plain || open.iter().any(|one| one == path);
        match value {
            Value::String(text) if !plain && !text.is_empty() => *text = self.seal(text).handle,
            Value::Array(items) => {
                for (at, item) in items.iter_mut().enumerate() {
                    self.seal_below(&format!("{path}/{at}"), item, open, plain);
                }
            }
            Value::Object(members) => {
                for (name, member) in members {
                    let path = format!("{path}{}", pointer(name));
                    let (open, plain) = if TOKENS.contains(&name.as_str()) {
                        (&[][..], false)
                    } else {
                        (open, plain)
                    };
                    self.seal_below(&path, member, open, plain);
                }
            }
            Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
}

fn pointer(name: &str) -> String {
    if name.starts_with('/') {
        name.to_owned()
    } else {
        format!("/{name}")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn sealed(success: bool, mut body: Value, readable: &[&str]) -> Value {
        let readable: Vec<String> = readable.iter().map(|name| (*name).to_owned()).collect();
        Vault::default().seal_answer(success, &mut body, &readable);
        body
    }

    #[test]
    fn a_successful_answer_shows_what_is_granted_and_nothing_else() {
        let body = json!({"access_token": "t", "scope": ["a"], "plan": "gold", "empty": "", "expires_in": 7,
                          "data": {"plan": "gold", "name": "x"}, "list": ["y"]});
        let shown = sealed(true, body, &["/data/plan", "access_token"]);
        assert_eq!(shown["scope"], json!(["a"]));
        assert_eq!(shown["data"]["plan"], "gold");
        assert_eq!(
            (&shown["empty"], &shown["expires_in"]),
            (&json!(""), &json!(7))
        );
        for hidden in [
            &shown["access_token"],
            &shown["plan"],
            &shown["data"]["name"],
            &shown["list"][0],
        ] {
            assert!(
                hidden
                    .as_str()
                    .is_some_and(|text| text.starts_with("sealed:")),
                "{hidden}"
            );
        }
    }

    #[test]
    fn a_refused_answer_shows_all_but_tokens() {
        let shown = sealed(
            false,
            json!({"message": "no", "access_token": "t", "a": {"id_token": "i"}}),
            &[],
        );
        assert_eq!(shown["message"], "no");
        for hidden in [&shown["access_token"], &shown["a"]["id_token"]] {
            assert!(
                hidden
                    .as_str()
                    .is_some_and(|text| text.starts_with("sealed:")),
                "{hidden}"
            );
        }
    }
}
