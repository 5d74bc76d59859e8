//! The refresh protocol under a model checker: what it promises holds in every order of events within the bounds, and each
//! of its rules is needed, for without it the checker finds the order that breaks a promise. The full size is
//! `cargo run --release -p keyfob-tests --example protocol`; `docs/protocol.md` explains all of it.

mod check;
mod fails;
mod holds;
mod model;
