//! What Keyfob decides with, and nothing it does.
//!
//! Every type and function below is pure: no `async`, no input or output, no clock. `now` is an argument. Whatever
//! touches the world lives in a room beside this one and speaks these types at its door.

pub mod contract;
pub mod credential;
pub mod error;
pub mod event;

pub mod key;
pub mod policy;
pub mod secret;
pub mod time;
pub mod token;
pub mod transport;
