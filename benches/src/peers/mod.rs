//! The token libraries and caches that a team would use instead, each set up as its documentation has it, all with tokens from the same
//! issuer. What they share with us is the job; how they are asked stands in the suites.
//!
//! Whoever lets the fetch be chosen gets the cheapest there is, [`Fetch`](crate::issuer::Fetch); the others make their
//! requests themselves. Ours opens a connection for each refresh.

pub mod aws;
pub mod azure;
pub mod caches;
pub mod go;
pub mod google;
pub mod huskarl;
pub mod ours;

/// The crates among them, and the caches beside them.
const CRATES: [&str; 8] = [
    "huskarl",
    "google-cloud-auth",
    "aws-smithy-runtime",
    "azure_core",
    "moka",
    "quick_cache",
    "dashmap",
    "papaya",
];

/// Each crate's name and version, as the lock file has them; several versions where several are locked.
pub fn versions() -> Vec<String> {
    let lock = include_str!("../../../Cargo.lock");
    let mut found = Vec::new();
    for name in CRATES {
        let marker = format!("name = \"{name}\"\nversion = \"");
        for (at, _) in lock.match_indices(&marker) {
            let version = &lock[at + marker.len()..];
            let version = version.split('"').next().unwrap_or_default();
            found.push(format!("{name} {version}"));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_peer_has_a_version() {
        let versions = versions();
        for name in CRATES {
            let known = versions.iter().any(|version| {
                let number = version
                    .strip_prefix(name)
                    .and_then(|rest| rest.strip_prefix(' '));
                number.is_some_and(|number| number.contains('.'))
            });
            assert!(known, "{name}");
        }
    }
}
