//! Generated bindings of world `keyfob:policy/plugin`; reached as `keyfob_guest::bindings::policy`.
//!
//! A crate of its own for one reason: export macros live at the root of their crate, and both worlds bring one for
//! `keyfob:types`. Nothing else belongs here.

#![expect(
    missing_docs,
    reason = "generated: what WIT documents, `wit/` documents"
)]

wit_bindgen::generate!({
    // Renamed, so that the macro and the section carry a name of their own: both worlds are called `plugin`.
    inline: "package keyfob:guest; world policy-plugin { include keyfob:policy/plugin@0.1.0; }",
    path: ["../../../wit/types", "../../../wit/policy"],
    world: "keyfob:guest/policy-plugin",
    pub_export_macro: true,
    default_bindings_module: "keyfob_guest::bindings::policy",
    additional_derives: [PartialEq, Eq],
    generate_unused_types: true,
});

pub use exports::keyfob::policy::policy::*;
pub use exports::keyfob::types::types;
