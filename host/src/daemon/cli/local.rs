//! Commands that need no daemon: they look at files with the daemon's own eyes.

use std::path::Path;

use serde_json::{Value, json};

use super::args::{PluginCheckArgs, PluginExportArgs};
use super::exit::{Exit, Failure};
use super::output::{Output, leaf, table};
use crate::broker::{self, Inspection};
use crate::daemon::environment::Environment;
use crate::daemon::serve;
use crate::model::contract::{Description, Needs, Rotation};

/// Checks a configuration as `serve` would, and says everything that is wrong.
pub(super) async fn check(
    config: &Path,
    output: &Output,
    environment: &Environment,
) -> Result<(), Failure> {
    let checked = serve::check(config, environment).await;
    let loaded = checked.map_err(Failure::mistakes)?;
    for warning in &loaded.warnings {
        output.remark(&format!("warning: {warning}"));
    }
    let providers = loaded.config.broker.providers.len();
    let callers = loaded.config.callers.len();
    let answer = json!({ "ok": true, "providers": providers, "callers": callers, "warnings": loaded.warnings });
    output.answer(&answer, || {
        format!(
            "{} is fine: providers: {providers}, callers: {callers}",
            config.display()
        )
    })
}

/// Loads a plugin and prints what it is, what it needs, and the lines that grant it.
pub(super) async fn plugin_check(args: PluginCheckArgs, output: &Output) -> Result<(), Failure> {
    let component = component(&args.file)?;
    let settings = args.settings.as_deref().map(settings).transpose()?;
    let inspected = broker::inspect(component.into(), settings.as_deref()).await;
    let inspected = inspected.map_err(|error| {
        let details =
            json!({ "code": error.code, "error": error.message, "mistakes": error.mistakes });
        let message = format!("{}: {}", args.file.display(), error.message);
        Failure {
            exit: Exit::Refused,
            message,
            details,
        }
    })?;
    let answer = described(&inspected);
    if !inspected.mistakes.is_empty() {
        let lines = inspected.mistakes.iter().map(|mistake| {
            format!(
                "settings{}: {}\n    fix: {}",
                mistake.at, mistake.message, mistake.fix
            )
        });
        let message = lines.collect::<Vec<_>>().join("\n");
        return Err(Failure {
            exit: Exit::Refused,
            message,
            details: answer,
        });
    }
    output.answer(&answer, || {
        let who = &inspected.description;
        let mut text = format!(
            "{} {}\n{}\nsha256 {}",
            who.name, who.version, who.summary, inspected.digest
        );
        match &inspected.needs {
            Some(needs) => {
                text.push_str("\n\nWhat to grant, in [providers.NAME]:\n");
                text.push_str(&grants(needs));
            }
            None => text.push_str(&format!("\n\nSettings\n{}", described_settings(who))),
        }
        text
    })
}

fn described(inspected: &Inspection) -> Value {
    let mut answer = json!({
        "description": inspected.description,
        "digest": inspected.digest,
        "mistakes": inspected.mistakes,
    });
    if let Some(needs) = &inspected.needs {
        answer["needs"] = json!({
            "secrets": needs.secrets,
            "destinations": needs.destinations,
            "readable": needs.readable,
            "exposes": needs.exposes,
            "rotation": needs.rotation,
            "grace_seconds": needs.grace.map(|grace| grace.as_secs()),
        });
        answer["grants"] = grants(needs).into();
    }
    answer
}

/// What a plugin can be set to, by its JSON Schema: the schema itself where it is no flat list of settings.
fn described_settings(who: &Description) -> String {
    let schema = serde_json::from_str::<Value>(&who.settings_schema).unwrap_or_default();
    let Some(settings) = schema["properties"].as_object() else {
        return who.settings_schema.clone();
    };
    let required = |name: &str| {
        let all = schema["required"].as_array();
        all.is_some_and(|all| all.iter().any(|required| required == name))
    };
    let rows = settings.iter().map(|(name, setting)| {
        let choices = match leaf(&setting["enum"]).as_str() {
            "-" => String::new(),
            choices => format!(" ({choices})"),
        };
        let about = setting["description"].as_str().unwrap_or_default();
        let must = if required(name) { "required" } else { "" };
        vec![name.clone(), must.to_owned(), format!("{about}{choices}")]
    });
    table(&["name", "", "meaning"], rows)
}

/// The lines of a provider's table that give a plugin what it needs.
fn grants(needs: &Needs) -> String {
    let list = |items: &[String]| {
        let items: Vec<String> = items.iter().map(|item| toml_string(item)).collect();
        format!("[{}]", items.join(", "))
    };
    let mut lines = vec![format!("allow = {}", list(&needs.destinations))];
    if !needs.secrets.is_empty() {
        let secret = |name: &String| format!("{name} = {{ env = \"{}\" }}", name.to_uppercase());
        let secrets: Vec<_> = needs.secrets.iter().map(secret).collect();
        lines.push(format!("secrets = {{ {} }}", secrets.join(", ")));
    }
    if !needs.readable.is_empty() {
        lines.push(format!("readable = {}", list(&needs.readable)));
    }
    if !needs.exposes.is_empty() {
        lines.push(format!("expose = {}", list(&needs.exposes)));
    }
    let rotation = match needs.rotation {
        Rotation::Unknown => None,
        Rotation::Never => Some("rotation = \"never\"".to_owned()),
        Rotation::SingleUse => Some("rotation = \"single_use\"".to_owned()),
        Rotation::Grace => {
            let grace = needs.grace.unwrap_or_default().as_secs();
            Some(format!("rotation = \"grace\", grace = \"{grace}s\""))
        }
    };
    lines.extend(rotation.map(|rotation| format!("refresh = {{ {rotation} }}")));
    lines.join("\n")
}

/// A basic TOML string; JSON's escapes are TOML's for everything that JSON escapes.
fn toml_string(text: &str) -> String {
    Value::from(text).to_string()
}

/// Writes a shipped plugin to a file.
pub(super) fn plugin_export(args: &PluginExportArgs, output: &Output) -> Result<(), Failure> {
    let name = args.plugin.strip_prefix("builtin:").unwrap_or(&args.plugin);
    let component = shipped(name)?;
    std::fs::write(&args.output, component).map_err(|error| {
        Failure::new(Exit::Failed, format!("{}: {error}", args.output.display()))
    })?;
    let answer = json!({ "file": args.output, "bytes": component.len() });
    output.answer(&answer, || {
        format!("{}: {} bytes", args.output.display(), component.len())
    })
}

/// Settings as JSON text: a TOML file by its ending, else JSON.
fn settings(path: &Path) -> Result<String, Failure> {
    let usage = |what: String| Failure::new(Exit::Usage, format!("{}: {what}", path.display()));
    let text = String::from_utf8(read(path)?).map_err(|_| usage("is not UTF-8".to_owned()))?;
    let value = if path.extension().is_some_and(|ending| ending == "toml") {
        toml::from_str::<Value>(&text).map_err(|error| usage(error.message().to_owned()))?
    } else {
        serde_json::from_str::<Value>(&text).map_err(|error| usage(error.to_string()))?
    };
    Ok(value.to_string())
}

/// A shipped plugin by its name, or what a file holds.
fn component(file: &Path) -> Result<Vec<u8>, Failure> {
    match file.to_str().and_then(|name| name.strip_prefix("builtin:")) {
        Some(name) => shipped(name).map(<[u8]>::to_vec),
        None => read(file),
    }
}

fn shipped(name: &str) -> Result<&'static [u8], Failure> {
    broker::builtin(name).ok_or_else(|| {
        let message = format!("no plugin builtin:{name} is in this build");
        Failure::new(Exit::Usage, message)
    })
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path)
        .map_err(|error| Failure::new(Exit::Usage, format!("{}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_lines_to_grant_are_lines_of_a_configuration() {
        let needs = Needs {
            secrets: vec!["client_secret".to_owned()],
            destinations: vec!["https://a.example/token".to_owned()],
            readable: vec!["team".to_owned()],
            exposes: vec!["instance_url".to_owned()],
            rotation: Rotation::Grace,
            grace: Some(Duration::from_secs(30)),
        };
        let text = format!(
            "[providers.a]\nplugin = \"builtin:oauth2\"\n{}",
            grants(&needs)
        );
        let config = crate::daemon::config::parse(Path::new("k.toml"), &text)
            .unwrap()
            .config;
        let provider = &config.broker.providers[0];
        assert_eq!(provider.allow, needs.destinations);
        assert_eq!(provider.secrets[0].name, "client_secret");
        assert_eq!(provider.refresh.grace, Duration::from_secs(30));
    }

    #[test]
    fn the_settings_of_a_plugin_are_listed_with_what_is_required() {
        let schema = json!({
            "properties": {
                "grant": { "description": "The grant", "enum": ["a", "b"] },
                "token_url": { "description": "Where" },
            },
            "required": ["token_url"],
        });
        let mut who = Description {
            name: "acme".to_owned(),
            version: "1".to_owned(),
            summary: String::new(),
            settings_schema: schema.to_string(),
        };
        let listed = described_settings(&who);
        let lines: Vec<Vec<&str>> = listed
            .lines()
            .map(|line| line.split_ascii_whitespace().collect())
            .collect();
        assert_eq!(lines[1], ["grant", "The", "grant", "(a,", "b)"]);
        assert_eq!(lines[2], ["token_url", "required", "Where"]);
        who.settings_schema = "true".to_owned();
        assert_eq!(described_settings(&who), "true");
    }

    #[test]
    fn settings_are_json_or_toml() {
        let dir = tempfile::tempdir().unwrap();
        let toml = dir.path().join("s.toml");
        std::fs::write(&toml, "a = 1\n[b]\nc = \"x\"").unwrap();
        let json = dir.path().join("s.json");
        std::fs::write(&json, "{\"a\": 1, \"b\": {\"c\": \"x\"}}").unwrap();
        assert_eq!(settings(&toml).unwrap(), settings(&json).unwrap());
        std::fs::write(&json, "{").unwrap();
        assert_eq!(settings(&json).unwrap_err().exit, Exit::Usage);
    }
}
