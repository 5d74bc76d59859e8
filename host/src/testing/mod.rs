//! What tests need, ours and an embedder's: a strict issuer, a clock that follows tokio's, a recorder of events, and the
//! canary that finds leaked secrets. Behind the feature `testing`; nothing here runs in a production path.

pub mod canary;
pub mod clock;
pub mod issuer;
pub mod recorder;

pub use canary::Canary;
pub use clock::TestClock;
pub use issuer::Issuer;
pub use recorder::Recorder;
