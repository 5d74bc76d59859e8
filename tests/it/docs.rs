//! The documentation against the code: what it tells a reader to write works, what it lists is complete, and its links
//! lead somewhere.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use keyfob::daemon::config::Mistake;
use keyfob::daemon::environment::Environment;
use keyfob::daemon::serve;

/// How a configuration in the documentation begins.
const CONFIGURATION: &str = "[server]";

/// A page.
struct Page {
    path: PathBuf,
    text: String,
}

// === impl Page ===

impl Page {
    fn read(path: PathBuf) -> anyhow::Result<Self> {
        let text = fs::read_to_string(&path)?;
        Ok(Self { path, text })
    }

    /// The blocks of code in this language, each with the number of its first line.
    fn blocks(&self, language: &str) -> Vec<(usize, String)> {
        let mut blocks = Vec::new();
        let mut block: Option<(usize, String)> = None;
        let fence = format!("```{language}");
        for (at, line) in self.text.lines().enumerate() {
            match &mut block {
                None if line == fence => block = Some((at + 2, String::new())),
                None => {}
                Some(_) if line == "```" => blocks.extend(block.take()),
                Some((_, text)) => {
                    text.push_str(line);
                    text.push('\n');
                }
            }
        }
        blocks
    }

    /// What its links point to, in this repository.
    fn links(&self) -> impl Iterator<Item = &str> {
        let ends = self.text.match_indices("](");
        let targets = ends.filter_map(|(at, _)| self.text[at + 2..].split(')').next());
        targets.filter(|target| !target.contains("://") && !target.starts_with('#'))
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The README, the change log, and all of `docs` and `wit`.
fn pages() -> anyhow::Result<Vec<Page>> {
    let mut paths = vec![root().join("README.md"), root().join("CHANGELOG.md")];
    for folder in ["docs", "wit"] {
        for entry in fs::read_dir(root().join(folder))? {
            paths.push(entry?.path());
        }
    }
    paths.retain(|path| path.extension().is_some_and(|ending| ending == "md"));
    paths.into_iter().map(Page::read).collect()
}

/// Every variable is set, each to something else, as keys must be.
fn stubs() -> Environment {
    Arc::new(|name| Some(format!("stub-of-{name}-0123456789abcdef0123456789abcdef")))
}

/// Reads a configuration and has its plugins read their settings, as `keyfob check` does.
async fn mistakes(text: &str) -> anyhow::Result<Vec<Mistake>> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("keyfob.toml");
    fs::write(&file, text)?;
    let checked = serve::check(&file, &stubs()).await;
    Ok(checked.map_or_else(|mistakes| mistakes, |loaded| loaded.warnings))
}

#[tokio::test]
async fn every_configuration_in_the_documentation_is_one_without_mistakes() -> anyhow::Result<()> {
    let mut checked = 0;
    for page in pages()? {
        for (line, text) in page.blocks("toml") {
            if text.starts_with(CONFIGURATION) {
                let found = mistakes(&text).await?;
                assert!(
                    found.is_empty(),
                    "{} line {line}: {found:#?}",
                    page.path.display()
                );
                checked += 1;
            }
        }
    }
    assert!(checked > 0, "the README shows at least one");
    Ok(())
}

#[tokio::test]
async fn the_example_configuration_has_no_mistakes() -> anyhow::Result<()> {
    let text = fs::read_to_string(root().join("docs/examples/keyfob.toml"))?;
    let found = mistakes(&text).await?;
    assert!(found.is_empty(), "{found:#?}");
    Ok(())
}

#[test]
fn the_readme_embeds_the_library_as_its_compiled_example_does() -> anyhow::Result<()> {
    let source = fs::read_to_string(root().join("host/src/lib.rs"))?;
    let docs = source.lines().filter_map(|line| line.strip_prefix("//!"));
    let docs = docs.map(|line| line.strip_prefix(' ').unwrap_or(line));
    let example: Vec<&str> = docs
        .skip_while(|line| !line.starts_with("```no_run"))
        .skip(1)
        .take_while(|line| *line != "```")
        .filter(|line| !line.starts_with("# "))
        .collect();
    let readme = Page::read(root().join("README.md"))?;
    let blocks = readme.blocks("rust");
    assert!(!example.is_empty());
    assert!(
        blocks
            .iter()
            .any(|(_, block)| block.lines().eq(example.iter().copied())),
        "the README's example differs from the one in lib.rs, which is compiled"
    );
    Ok(())
}

/// `cargo run` without a name takes the one program that a manifest names, however many there are.
#[test]
fn the_first_command_of_the_readme_means_one_program() -> anyhow::Result<()> {
    let readme = fs::read_to_string(root().join("README.md"))?;
    assert!(readme.contains("$ cargo run --release -- demo"));
    let told = std::process::Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--no-deps",
            "--offline",
            "--format-version",
            "1",
        ])
        .current_dir(root())
        .output()?;
    assert!(told.status.success(), "{told:?}");
    let told: serde_json::Value = serde_json::from_slice(&told.stdout)?;
    let packages = told["packages"].as_array().into_iter().flatten();
    let named: Vec<_> = packages
        .filter_map(|package| package["default_run"].as_str())
        .collect();
    assert_eq!(named, ["keyfob"]);
    Ok(())
}

#[test]
fn every_metric_is_explained_to_operators() -> anyhow::Result<()> {
    let source = fs::read_to_string(root().join("host/src/observe/metrics.rs"))?;
    let operations = fs::read_to_string(root().join("docs/operations.md"))?;
    let registered = source.split("registry.register").skip(1);
    let names: Vec<&str> = registered
        .filter_map(|rest| rest.split('"').nth(1))
        .collect();
    assert!(
        names.len() > 10,
        "the metrics were not found in their source"
    );
    for name in names {
        assert!(
            operations.contains(&format!("`keyfob_{name}")),
            "docs/operations.md lacks {name}"
        );
    }
    Ok(())
}

#[test]
fn every_link_leads_somewhere() -> anyhow::Result<()> {
    for page in pages()? {
        let folder = page.path.parent().unwrap_or(Path::new("."));
        for target in page.links() {
            let file = target.split('#').next().unwrap_or_default();
            assert!(
                folder.join(file).exists(),
                "{}: {target}",
                page.path.display()
            );
        }
    }
    Ok(())
}
