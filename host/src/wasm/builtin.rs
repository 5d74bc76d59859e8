//! The plugins that ship inside the binary, named `builtin:NAME` in a configuration.
//!
//! `build.rs` makes them: components that import nothing. Without the feature `builtin-plugins` there are none.

#[cfg(feature = "builtin-plugins")]
include!(concat!(env!("OUT_DIR"), "/builtin.rs"));

#[cfg(not(feature = "builtin-plugins"))]
static BUILTINS: &[(&str, &[u8])] = &[];

/// The component that ships under `name`.
pub(crate) fn builtin(name: &str) -> Option<&'static [u8]> {
    let (_, component) = BUILTINS.iter().find(|(known, _)| *known == name)?;
    Some(component)
}

/// What ships, for the message that says so.
pub(crate) fn builtin_names() -> impl Iterator<Item = &'static str> {
    BUILTINS.iter().map(|(name, _)| *name)
}

#[cfg(all(test, feature = "builtin-plugins"))]
mod tests {
    use super::*;

    /// What one plugin may add to the binary. They are between 80 and 200 KB; growth beyond this is a dependency
    /// that nobody meant.
    const COMPONENT_MAX_BYTES: usize = 220 * 1024;

    #[test]
    fn every_shipped_plugin_is_found_small_and_a_component() {
        let names: Vec<_> = builtin_names().collect();
        assert_eq!(names, ["oauth2", "github-app", "allowlist"]);
        for name in names {
            let component = builtin(name).expect("a listed name is found");
            // The preamble of a component: magic, version 13, layer 1.
            assert_eq!(component[..8], *b"\0asm\x0d\0\x01\0", "{name}");
            assert!(
                component.len() <= COMPONENT_MAX_BYTES,
                "{name} has {} bytes",
                component.len()
            );
        }
    }

    #[test]
    fn other_names_are_not_found() {
        for name in ["", "oauth", "builtin:oauth2", "../oauth2"] {
            assert!(builtin(name).is_none(), "{name}");
        }
    }
}
