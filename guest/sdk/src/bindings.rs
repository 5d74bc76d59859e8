//! The generated side of the contract: one module per world, exactly as `wit/` says.
//!
//! Plugins use the friendlier items at the root of this crate. What is here is for code that must speak the raw
//! interface: the export macros, and tests that misbehave on purpose. Each module holds the generated `Guest` trait,
//! the records, and an `export!` macro:
//!
//! ```ignore
//! use keyfob_guest::bindings::provider;
//! impl provider::Guest for Mine { /* five functions */ }
//! provider::export!(Mine with_types_in keyfob_guest::bindings::provider);
//! ```

/// World `keyfob:provider/plugin`.
#[expect(
    missing_docs,
    reason = "generated: what WIT documents, `wit/` documents"
)]
pub mod provider {
    wit_bindgen::generate!({
        // Renamed, so that the macro and the section carry a name of their own: both worlds are called `plugin`.
        inline: "package keyfob:guest; world provider-plugin { include keyfob:provider/plugin@0.1.0; }",
        path: ["../../wit/types", "../../wit/provider"],
        world: "keyfob:guest/provider-plugin",
        pub_export_macro: true,
        default_bindings_module: "keyfob_guest::bindings::provider",
        additional_derives: [PartialEq, Eq],
        generate_unused_types: true,
    });

    pub use exports::keyfob::provider::provider::*;
    pub use exports::keyfob::types::types;
}

/// World `keyfob:policy/plugin`.
pub mod policy {
    pub use keyfob_guest_policy::*;
}
