//! What can be said about a plugin before anything of it is compiled or run: whether it is WebAssembly, whole, imports
//! nothing, and exports a world the host knows. A core module that carries its WIT becomes a component here, so that an
//! author needs nothing but a compiler.
//!
//! Everything is read with the validating parser first: what comes after may then trust the shape of the bytes.

use std::sync::Arc;

use wasmparser::{Parser, Payload, Validator, WasmFeatures};
use wit_component::ComponentEncoder;

use super::error::{LoadCode, LoadError};
use super::limits::COMPONENT_MAX_BYTES;
use super::panic_text::printable;

/// The version of the contract that the host speaks. Components of 0.1.x fit.
const HOST_VERSION: &str = "0.1.0";

/// How many imports or exports an error lists.
const NAMES_MAX: usize = 5;

/// How much of a name or reason that came out of the bytes an error shows.
const SHOWN_MAX_BYTES: usize = 300;

/// A world a plugin may export.
#[derive(Clone, Copy, Debug)]
pub(super) struct World {
    /// The interface that tells it from others, without version.
    interface: &'static str,
    name: &'static str,
}

/// What authorization servers are spoken to with.
pub(super) const PROVIDER: World = World {
    interface: "keyfob:provider/provider",
    name: "keyfob:provider/plugin",
};

/// What decides who gets what.
pub(super) const POLICY: World = World {
    interface: "keyfob:policy/policy",
    name: "keyfob:policy/plugin",
};

/// A component that is whole, imports nothing and exports at least one world.
#[derive(Debug)]
pub(super) struct Inspected {
    /// The component; the bytes given unless they were a core module.
    pub component: Arc<[u8]>,
    /// The version of the provider world it exports, if it does.
    pub provider: Option<String>,
    /// The version of the policy world it exports, if it does.
    pub policy: Option<String>,
}

/// Checks `bytes` as far as that goes without compiling them.
pub(super) fn inspect(bytes: &Arc<[u8]>, features: WasmFeatures) -> Result<Inspected, LoadError> {
    let component = if Parser::is_component(bytes) {
        validate(bytes, features)?;
        Arc::clone(bytes)
    } else if Parser::is_core_wasm(bytes) {
        validate(bytes, features)?;
        let component = componentize(bytes)?;
        validate(&component, features)?;
        component
    } else {
        return Err(LoadError::new(
            LoadCode::NotWasm,
            format!("{} bytes that are not WebAssembly", bytes.len()),
            "give the .wasm file that your build made, neither its text form nor an archive",
        ));
    };
    let Surface { imports, exports } = surface(&component).map_err(|error| invalid(&error))?;
    if !imports.is_empty() {
        return Err(imports_something(&imports));
    }
    let provider = PROVIDER.exported_in(&exports);
    let policy = POLICY.exported_in(&exports);
    let worlds = match (provider, policy) {
        (Offer::None, Offer::None) => return Err(exports_nothing(&exports)),
        // A second world in another version is left alone as long as one fits.
        (Offer::Other(version), Offer::None | Offer::Other(_)) => {
            return Err(PROVIDER.other_version(&version));
        }
        (Offer::None, Offer::Other(version)) => return Err(POLICY.other_version(&version)),
        (provider, policy) => (provider.fitting(), policy.fitting()),
    };
    Ok(Inspected {
        component,
        provider: worlds.0,
        policy: worlds.1,
    })
}

/// An error and its causes on one line.
pub(super) fn chain(error: &wasmtime::Error) -> String {
    error
        .chain()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

fn validate(bytes: &[u8], features: WasmFeatures) -> Result<(), LoadError> {
    match Validator::new_with_features(features).validate_all(bytes) {
        Ok(_) => Ok(()),
        Err(error) => Err(invalid(&error)),
    }
}

fn invalid(error: &wasmparser::BinaryReaderError) -> LoadError {
    LoadError::new(
        LoadCode::Invalid,
        format!(
            "not valid WebAssembly: {}",
            printable(&error.to_string(), SHOWN_MAX_BYTES)
        ),
        "copy the file again; if it is whole, build it without experimental features of WebAssembly",
    )
}

// === core modules ===

fn componentize(module: &[u8]) -> Result<Arc<[u8]>, LoadError> {
    let (imports, carries_wit) = core_surface(module).map_err(|error| invalid(&error))?;
    // Asked first: the encoder would name a missing function of a world that must not have any.
    if !imports.is_empty() {
        return Err(imports_something(&imports));
    }
    if !carries_wit {
        return Err(LoadError::new(
            LoadCode::NoWit,
            "a core module that does not say which interface it has",
            "build it with the crate keyfob-guest or another generator for WIT, and keep its \
             custom sections when stripping",
        ));
    }
    let encoded = ComponentEncoder::default()
        .module(module)
        .and_then(|encoder| encoder.validate(false).encode())
        .map_err(|error| {
            LoadError::new(
                LoadCode::Invalid,
                format!(
                    "the core module does not fit the interface it carries: {}",
                    printable(&format!("{error:#}"), SHOWN_MAX_BYTES)
                ),
                "build it with the generator version that matches its crates, from a clean tree",
            )
        })?;
    if encoded.len() > COMPONENT_MAX_BYTES {
        return Err(LoadError::new(
            LoadCode::TooLarge,
            format!(
                "{} bytes as a component, at most {COMPONENT_MAX_BYTES}",
                encoded.len()
            ),
            "build it optimised for size and without debug information",
        ));
    }
    Ok(encoded.into())
}

/// The imports of a core module, and whether it carries WIT.
fn core_surface(module: &[u8]) -> wasmparser::Result<(Vec<String>, bool)> {
    let mut imports = Vec::new();
    let mut carries_wit = false;
    for payload in Parser::new(0).parse_all(module) {
        match payload? {
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    let import = import?;
                    imports.push(format!("{}#{}", import.module, import.name));
                }
            }
            Payload::CustomSection(section) => {
                carries_wit |= section.name().starts_with("component-type");
            }
            _ => {}
        }
    }
    Ok((imports, carries_wit))
}

// === components ===

/// The names a component imports and exports.
#[derive(Default)]
struct Surface {
    imports: Vec<String>,
    exports: Vec<String>,
}

fn surface(component: &[u8]) -> wasmparser::Result<Surface> {
    let mut surface = Surface::default();
    // Modules and components within have imports of their own, which are met by what surrounds them.
    let mut depth = 0_usize;
    for payload in Parser::new(0).parse_all(component) {
        match payload? {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section {
                    surface.imports.push(import?.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                for export in section {
                    surface.exports.push(export?.name.name.to_owned());
                }
            }
            _ => {}
        }
    }
    Ok(surface)
}

fn imports_something(imports: &[String]) -> LoadError {
    let first = imports.first().map_or("", String::as_str);
    let fix = if first.starts_with("keyfob:types/") {
        "add `export keyfob:types/types@0.1.0;` to its world, so that the types come with it"
    } else if first.starts_with("wasi") {
        "build for wasm32-unknown-unknown; time and randomness come with every call as `now` and \
         `entropy`, and there are no files, sockets or output"
    } else if first.starts_with("keyfob:") {
        "export that interface instead of importing it: the host calls plugins, never the other \
         way round"
    } else {
        "remove what needs it: everything a plugin works with comes as an argument"
    };
    LoadError::new(
        LoadCode::UnknownImport,
        format!("it imports {}; plugins import nothing", names(imports)),
        fix,
    )
}

fn exports_nothing(exports: &[String]) -> LoadError {
    let found = match exports {
        [] => "nothing".to_owned(),
        _ => names(exports),
    };
    LoadError::new(
        LoadCode::NoWorld,
        format!("it exports {found}, which makes it no plugin of Keyfob"),
        format!(
            "export the world {}@{HOST_VERSION} or {}@{HOST_VERSION}",
            PROVIDER.name, POLICY.name
        ),
    )
}

/// The first few names, fit for a terminal.
fn names(names: &[String]) -> String {
    let mut shown: Vec<_> = names
        .iter()
        .take(NAMES_MAX)
        .map(|name| format!("`{}`", printable(name, 100)))
        .collect();
    if let Some(more) = names.len().checked_sub(NAMES_MAX).filter(|more| *more > 0) {
        shown.push(format!("{more} more"));
    }
    shown.join(", ")
}

// === impl World ===

/// What a component has of a world.
enum Offer {
    None,
    /// In this version, which fits.
    Fits(String),
    /// In this version, which does not.
    Other(String),
}

impl World {
    /// The name that its interface is exported under in one version.
    pub(super) fn interface_of(&self, version: &str) -> String {
        format!("{}@{version}", self.interface)
    }

    fn exported_in(&self, exports: &[String]) -> Offer {
        let versions = exports.iter().filter_map(|export| {
            export
                .strip_prefix(self.interface)?
                .strip_prefix('@')
                .map(str::to_owned)
        });
        let mut offer = Offer::None;
        for version in versions {
            if fits(&version) {
                return Offer::Fits(version);
            }
            offer = Offer::Other(version);
        }
        offer
    }

    fn other_version(&self, found: &str) -> LoadError {
        LoadError::new(
            LoadCode::WrongVersion,
            format!(
                "it speaks {}@{}; this host speaks {HOST_VERSION}",
                self.name,
                printable(found, 60)
            ),
            "build it against the contract of this host, or run a host that speaks its version",
        )
    }

    /// What is said when the exports of a world have other types than the host's.
    pub(super) fn mismatch(&self, found: &str, error: &wasmtime::Error) -> LoadError {
        LoadError::new(
            LoadCode::WrongType,
            format!(
                "its {}@{} does not fit this host's {HOST_VERSION}: {}",
                self.name,
                printable(found, 60),
                printable(&chain(error), SHOWN_MAX_BYTES)
            ),
            "build it against the published WIT files, unchanged",
        )
    }
}

/// Whether a component with this version of the contract can be called: the linker takes any patch of one minor
/// version below 1.0, and no pre-release.
fn fits(version: &str) -> bool {
    let patch = version
        .strip_prefix("0.1.")
        .map(|patch| patch.split('+').next().unwrap_or(patch));
    patch.is_some_and(|patch| !patch.is_empty() && patch.bytes().all(|b| b.is_ascii_digit()))
}

// === impl Offer ===

impl Offer {
    fn fitting(self) -> Option<String> {
        match self {
            Self::Fits(version) => Some(version),
            Self::None | Self::Other(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(bytes: &[u8]) -> LoadError {
        inspect(&bytes.into(), WasmFeatures::default()).unwrap_err()
    }

    #[test]
    fn what_is_no_webassembly_is_called_so() {
        for bytes in [&b""[..], b"\0as", b"(module)", b"PK\x03\x04", &[0xff; 4096]] {
            assert_eq!(refused(bytes).code(), LoadCode::NotWasm);
        }
    }

    #[test]
    fn a_header_with_garbage_behind_it_is_invalid() {
        for header in [b"\0asm\x01\0\0\0", b"\0asm\x0d\0\x01\0"] {
            let bytes = [&header[..], &[0x3f; 64]].concat();
            assert_eq!(refused(&bytes).code(), LoadCode::Invalid);
        }
    }

    #[test]
    fn an_empty_core_module_is_asked_for_its_interface() {
        let error = refused(b"\0asm\x01\0\0\0");
        assert_eq!(error.code(), LoadCode::NoWit);
        assert!(error.fix().contains("keyfob-guest"));
    }

    #[test]
    fn an_empty_component_is_told_which_worlds_there_are() {
        let error = refused(b"\0asm\x0d\0\x01\0");
        assert_eq!(error.code(), LoadCode::NoWorld);
        assert!(error.fix().contains("keyfob:provider/plugin@0.1.0"));
        assert!(error.fix().contains("keyfob:policy/plugin@0.1.0"));
    }

    #[test]
    fn patches_of_the_contract_fit_and_nothing_else_does() {
        for version in ["0.1.0", "0.1.7", "0.1.12+build"] {
            assert!(fits(version), "{version}");
        }
        for version in ["0.1", "0.1.", "0.10.0", "0.2.0", "1.0.0", "0.1.0-draft", ""] {
            assert!(!fits(version), "{version}");
        }
    }

    #[test]
    fn each_kind_of_import_gets_its_own_advice() {
        let advice = |import: &str| imports_something(&[import.to_owned()]).fix().to_owned();
        assert!(advice("wasi:cli/environment@0.2.6").contains("wasm32-unknown-unknown"));
        assert!(advice("wasi_snapshot_preview1#fd_write").contains("wasm32-unknown-unknown"));
        assert!(advice("keyfob:types/types@0.1.0").contains("export keyfob:types/types"));
        assert!(advice("keyfob:provider/provider@0.1.0").contains("instead of importing"));
        assert!(advice("env#now").contains("argument"));
    }

    #[test]
    fn long_lists_of_names_are_shortened() {
        let many: Vec<String> = (0..40).map(|n| format!("wasi:x/y{n}\u{1b}[2J")).collect();
        let error = imports_something(&many);
        assert!(error.what().contains("35 more"));
        assert!(!error.what().contains('\u{1b}'));
    }
}
