//! The test kit: what black-box tests need that the library's own `testing` room does not have. Real programs as child
//! processes, a throw-away PKI, the daemon as its users have it, the leak check that every test ends with, and guests that
//! mean harm.
//!
//! Behaviours are tested in `it/`; servers that nobody here wrote are in `fixtures/`.

#![expect(
    clippy::disallowed_methods,
    reason = "callers of a test are tasks, and tasks of a test end with its runtime"
)]

pub mod crash;
pub mod daemon;
pub mod guests;
pub mod hand;
pub mod leak;
pub mod logs;
pub mod oidc;
pub mod pki;
pub mod process;
pub mod raw;
pub mod shaky;
pub mod stage;
