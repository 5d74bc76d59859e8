//! The sandbox: the only room that names wasmtime.
//!
//! Bytes go in, plugins behind the traits of [`crate::model::contract`] come out. What belongs here: the engine and its
//! clock of epochs, every bound on what a guest may use, the check and compilation of components, and the translation
//! between the contract as generated from WIT and as the host speaks it. What does not: sealing, the writing of
//! requests, allow-lists, signing, the network. A plugin runs, answers, and is forgotten; what its answer may cause is
//! decided elsewhere.
//!
//! The argument that a plugin is harmless is short. It imports nothing, so it can reach nothing (`inspect` refuses
//! the rest before a byte is compiled). It gets a fresh instance for every step, so it remembers nothing. And each
//! thing it could use up, from bytes to time, has a number in [`limits`].

mod bindings;
mod builtin;
mod cache;
mod catalog;
mod describe;
mod error;
mod function;
mod inspect;
mod lift;
pub mod limits;
mod lower;
mod panic_text;
mod policy;
mod provider;
mod runtime;
mod sandbox;
mod ticker;

pub(crate) use builtin::{builtin, builtin_names};
pub use catalog::{Catalog, LoadedPlugin};
pub use error::{LoadCode, LoadError};
pub use runtime::Runtime;
