//! The daemon: a configuration file, two HTTP planes and a command line around the [broker](crate::broker).
//!
//! The only room that names axum and clap, and the only one that reads the environment. What a token is and when it is
//! renewed is decided elsewhere; here requests become [`Principal`](crate::model::policy::Principal)s and
//! [`TokenRequest`](crate::model::policy::TokenRequest)s, and answers become JSON.

pub mod authn;
pub mod cli;
pub mod config;
pub mod demo;
pub mod environment;
pub mod logging;
pub mod serve;
pub mod server;
