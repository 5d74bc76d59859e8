//! Plugins for tests: a hostile one built from source, and components put together by hand that no toolchain would make.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};

use wasm_encoder::{
    CodeSection, Component, ComponentExportKind, ComponentExportSection, ComponentImportSection,
    ComponentInstanceSection, ComponentTypeRef, ComponentTypeSection, EntityType, ExportKind,
    ExportSection, Function, FunctionSection, ImportSection, InstanceType, Module, TypeSection,
    ValType,
};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// The mark in the hostile guest behind which its word for life before settings stands, and the room for that word.
const BIRTH_MARK: &[u8; 16] = b"HOSTILE-AT-BIRTH";
const BIRTH_WORD_BYTES: usize = 16;

/// The hostile guest as cargo builds it: a core module that carries its WIT. Built once per process.
pub fn hostile_module() -> &'static [u8] {
    static MODULE: OnceLock<Vec<u8>> = OnceLock::new();
    MODULE.get_or_init(|| build("keyfob-hostile-guest"))
}

/// The hostile guest as a component.
pub fn hostile() -> Arc<[u8]> {
    static COMPONENT: OnceLock<Arc<[u8]>> = OnceLock::new();
    Arc::clone(COMPONENT.get_or_init(|| componentize(hostile_module())))
}

/// The hostile guest with a word that decides what it does before it has settings: `endless-start`, `lie-name` …
pub fn hostile_at_birth(word: &str) -> Arc<[u8]> {
    assert!(word.len() <= BIRTH_WORD_BYTES, "{word} does not fit");
    let mut module = hostile_module().to_vec();
    let mark = module
        .windows(BIRTH_MARK.len())
        .position(|window| window == BIRTH_MARK)
        .expect("the hostile guest keeps its mark in a data segment");
    let room = &mut module[mark + BIRTH_MARK.len()..][..BIRTH_WORD_BYTES];
    room.fill(b' ');
    room[..word.len()].copy_from_slice(word.as_bytes());
    componentize(&module)
}

/// A component that imports an empty instance called `name` and exports nothing.
pub fn importing(name: &str) -> Arc<[u8]> {
    let mut types = ComponentTypeSection::new();
    types.instance(&InstanceType::new());
    let mut imports = ComponentImportSection::new();
    imports.import(name, ComponentTypeRef::Instance(0));
    let mut component = Component::new();
    component.section(&types).section(&imports);
    component.finish().into()
}

/// A component that exports empty instances called `names`.
pub fn exporting(names: &[&str]) -> Arc<[u8]> {
    let mut instances = ComponentInstanceSection::new();
    let mut exports = ComponentExportSection::new();
    for (index, name) in (0..).zip(names) {
        instances.export_items(std::iter::empty::<(&str, ComponentExportKind, u32)>());
        exports.export(*name, ComponentExportKind::Instance, index, None);
    }
    let mut component = Component::new();
    component.section(&instances).section(&exports);
    component.finish().into()
}

/// A core module that imports the function `name` of `module` and carries WIT for it.
pub fn core_importing(module: &str, name: &str) -> Arc<[u8]> {
    let mut types = TypeSection::new();
    types.ty().function([], []);
    let mut imports = ImportSection::new();
    imports.import(module, name, EntityType::Function(0));
    let mut core = Module::new();
    core.section(&types).section(&imports);
    let mut bytes = core.finish();

    embed(
        &mut bytes,
        "package t:t; interface clock { now: func(); } world w { import clock; }",
    );
    bytes.into()
}

/// A core module whose `keyfob:provider@0.1.3` has the right functions, each of the wrong type: all answer a number.
pub fn provider_of_numbers() -> Arc<[u8]> {
    const FUNCTIONS: [&str; 5] = ["describe", "configure", "refresh", "revoke", "classify"];
    let mut types = TypeSection::new();
    types.ty().function([], [ValType::I32]);
    let mut functions = FunctionSection::new();
    let mut exports = ExportSection::new();
    let mut code = CodeSection::new();
    let mut wit = "package keyfob:provider@0.1.3;
        package keyfob:types@0.1.0 { interface types { type timestamp = u32; } }
        world w { export keyfob:types/types@0.1.0; export provider; }
        interface provider {"
        .to_owned();
    for (index, name) in (0..).zip(FUNCTIONS) {
        functions.function(0);
        let path = format!("keyfob:provider/provider@0.1.3#{name}");
        exports.export(&path, ExportKind::Func, index);
        let mut body = Function::new([]);
        body.instructions().i32_const(7).end();
        code.function(&body);
        wit.push_str(&format!("{name}: func() -> u32;"));
    }
    wit.push('}');
    let mut core = Module::new();
    core.section(&types)
        .section(&functions)
        .section(&exports)
        .section(&code);
    let mut bytes = core.finish();
    embed(&mut bytes, &wit);
    bytes.into()
}

/// Adds the world `w` of a WIT text to a core module.
fn embed(module: &mut Vec<u8>, wit: &str) {
    let mut resolve = Resolve::default();
    let package = resolve
        .push_str("test.wit", wit)
        .expect("WIT written in this file parses");
    let world = resolve
        .select_world(&[package], Some("w"))
        .expect("it has a world w");
    embed_component_metadata(module, &resolve, world, StringEncoding::UTF8)
        .expect("any world can be embedded");
}

/// A core module made a component, as a build script would.
pub fn componentize(module: &[u8]) -> Arc<[u8]> {
    ComponentEncoder::default()
        .validate(true)
        .module(module)
        .and_then(|mut encoder| encoder.encode())
        .expect("a guest that cargo built fits its own WIT")
        .into()
}

/// Builds a guest of the workspace for the sandbox, in a target directory of its own: the outer cargo holds the lock
/// of the usual one.
fn build(package: &str) -> Vec<u8> {
    let target = target_dir().join("guests");
    let status = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--locked", "--profile", "guest"])
        .args([
            "--target",
            "wasm32-unknown-unknown",
            "--package",
            package,
            "--target-dir",
        ])
        .arg(&target)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        // Flags meant for the machine's own code, such as coverage, do not fit the sandbox.
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .status()
        .expect("cargo runs: it has just built this test");
    assert!(
        status.success(),
        "building {package} failed; is the target installed? `rustup target add wasm32-unknown-unknown`"
    );
    let file = format!("{}.wasm", package.replace('-', "_"));
    let path = target.join("wasm32-unknown-unknown/guest").join(file);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The target directory this test was built in.
fn target_dir() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows where it is");
    // <target>/<profile>/deps/<test>
    test.ancestors()
        .nth(3)
        .map(Path::to_owned)
        .expect("cargo puts tests three levels deep")
}
