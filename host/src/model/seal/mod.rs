//! Sealing: between a plugin that writes only the shape of a request and the values it must never see.
//!
//! [`Rules`] are what an operator granted. A [`Vault`] holds the values of one flow: it writes requests with every
//! value in its place (`write`), replaces what came back by handles (`read`, `json`, `form`), signs (`sign`), and
//! turns a plugin's last word into a token (`settle`). Whatever it refuses is a [`Violation`].
//!
//! Pure: nothing here sends, waits or asks the time. What to do about an answer or a violation is the flow's.

pub mod allow;
mod echo;
mod form;
mod json;
mod read;
pub mod rules;
mod settle;
mod sign;
mod spot;
pub mod vault;
mod violation;
mod write;
mod writing;

pub use allow::AllowList;
pub use read::{Completeness, Opened};
pub use rules::{Place, Rules, SecretRule};
pub use settle::Settled;
pub use vault::Vault;
pub use violation::Violation;

/// The largest request once written, in bytes: token requests are a few KiB, a certificate chain in a JWT tens.
pub const REQUEST_MAX_BYTES: usize = 64 * 1024;
/// The most query parameters, headers or form members of one request.
pub const FIELDS_MAX: usize = 64;
/// The longest name of one of them, in bytes.
pub const FIELD_NAME_MAX_BYTES: usize = 128;
/// The most segments of one value.
pub const SEGMENTS_MAX: usize = 64;
/// The most members that one request captures from its answer.
pub const CAPTURES_MAX: usize = 32;
/// The longest place of a capture, in bytes.
pub const CAPTURE_MAX_BYTES: usize = 256;
/// The most handles of one flow: eight answers of five hundred strings; a discovery document has about a hundred.
pub const HANDLES_MAX: usize = 4096;
/// How deep an answer is sealed; token answers are two or three deep.
pub const ANSWER_MAX_DEPTH: usize = 32;

#[cfg(test)]
mod tests;
