//! The contract as generated from `wit/`: one module per world. What uses it is `lift` and `lower`.

/// `keyfob:provider/plugin`.
pub(super) mod provider {
    wasmtime::component::bindgen!({
        path: ["../wit/types", "../wit/provider"],
        world: "keyfob:provider/plugin",
        exports: { default: async },
    });
}

/// `keyfob:policy/plugin`.
pub(super) mod policy {
    wasmtime::component::bindgen!({
        path: ["../wit/types", "../wit/policy"],
        world: "keyfob:policy/plugin",
        exports: { default: async },
    });
}
