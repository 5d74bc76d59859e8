//! What can be asked for, as clap reads it. The first line of each comment is the help that people see.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

mod credentials;
mod store;

pub(super) use self::credentials::{CredentialsCommand, ImportArgs, ListArgs, OneArgs};
pub(super) use self::store::{StoreArgs, StoreCommand};
use super::exit;
use crate::observe::audit::Hash;

/// Owns the lifecycle of OAuth access tokens so that no other service has to.
#[derive(Parser)]
#[command(name = "keyfob", version, about, after_help = exit::HELP, after_long_help = exit::HELP)]
#[command(propagate_version = true, disable_help_subcommand = true)]
pub(super) struct Arguments {
    /// The configuration file.
    #[arg(
        long,
        global = true,
        env = "KEYFOB_CONFIG",
        default_value = "keyfob.toml",
        value_name = "FILE"
    )]
    pub(super) config: PathBuf,
    /// Print JSON, for machines.
    #[arg(long, global = true)]
    pub(super) json: bool,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Subcommand)]
pub(super) enum Command {
    /// Run the daemon; SIGHUP reloads, SIGTERM ends it after what is in flight.
    Serve,
    /// Watch it work against an issuer inside this process; needs nothing else.
    Demo,
    /// Check the configuration and everything it names, and print every mistake.
    Check,
    /// Get a token from a running daemon and print it.
    Token(TokenArgs),
    /// Tell the story of one token: who asked, what was refreshed, what comes next.
    Explain(ExplainArgs),
    /// End a credential, here and at its issuer.
    Revoke(OneArgs),
    /// Hand grants over, look at them, end them.
    Credentials {
        #[command(subcommand)]
        command: CredentialsCommand,
    },
    /// Tend the store as a whole.
    Store {
        #[command(subcommand)]
        command: StoreCommand,
    },
    /// List the providers of a running daemon.
    Providers(AdminArgs),
    /// Work with plugins.
    Plugin {
        #[command(subcommand)]
        command: PluginCommand,
    },
    /// Work with the audit log.
    Audit {
        #[command(subcommand)]
        command: AuditCommand,
    },
    /// Print completions for a shell.
    Completions {
        /// Which shell.
        shell: Shell,
    },
}

#[derive(Subcommand)]
pub(super) enum PluginCommand {
    /// Load a plugin as the host would and print what it is and needs.
    Check(PluginCheckArgs),
    /// Write a shipped plugin to a file.
    Export(PluginExportArgs),
    /// Put a plugin in force in a running daemon.
    Swap(PluginSwapArgs),
    /// Go back to the plugin before.
    Rollback(PluginRollbackArgs),
}

#[derive(Subcommand)]
pub(super) enum AuditCommand {
    /// Check that no entry was changed, removed, reordered or brought in; exit code 9 if one was.
    Verify(AuditVerifyArgs),
}

/// How to reach the data plane.
#[derive(Args)]
pub(super) struct DataArgs {
    /// The data plane: http://…, https://… or unix:/path.
    #[arg(
        long,
        env = "KEYFOB_SERVER",
        default_value = "http://127.0.0.1:8470",
        value_name = "URL"
    )]
    pub(super) server: String,
    #[command(flatten)]
    pub(super) key: KeyArgs,
}

/// How to reach the admin plane.
#[derive(Args)]
pub(super) struct AdminArgs {
    /// The admin plane: http://…, https://… or unix:/path.
    #[arg(
        long,
        env = "KEYFOB_ADMIN",
        default_value = "http://127.0.0.1:8471",
        value_name = "URL"
    )]
    pub(super) admin: String,
    #[command(flatten)]
    pub(super) key: KeyArgs,
}

/// Who is asking. Keys are no arguments: everybody on the machine can read those.
#[derive(Args)]
pub(super) struct KeyArgs {
    /// The variable that holds the key [default: KEYFOB_KEY, or KEYFOB_ADMIN_KEY for the admin plane].
    #[arg(long, value_name = "NAME", conflicts_with = "key_file")]
    pub(super) key_env: Option<String>,
    /// A file that holds the key.
    #[arg(long, value_name = "FILE")]
    pub(super) key_file: Option<PathBuf>,
    /// Certificate authorities to trust instead of the system's, PEM.
    #[arg(long, value_name = "FILE")]
    pub(super) ca: Option<PathBuf>,
}

/// Which token.
#[derive(Args)]
pub(super) struct KeyOfToken {
    /// The provider.
    pub(super) provider: String,
    /// Whose token; the provider's own account without it.
    #[arg(long)]
    pub(super) subject: Option<String>,
    /// A scope; once for each, or several in one, separated by spaces.
    #[arg(long, value_name = "SCOPE")]
    pub(super) scope: Vec<String>,
    /// The resource or audience that the token is for.
    #[arg(long)]
    pub(super) audience: Option<String>,
}

#[derive(Args)]
pub(super) struct TokenArgs {
    #[command(flatten)]
    pub(super) key: KeyOfToken,
    /// Seconds of life that the token must have left.
    #[arg(long, value_name = "SECONDS")]
    pub(super) min_validity: Option<u64>,
    /// Print a whole header line, for `curl -H @-`.
    #[arg(long)]
    pub(super) header: bool,
    #[command(flatten)]
    pub(super) data: DataArgs,
}

#[derive(Args)]
pub(super) struct ExplainArgs {
    #[command(flatten)]
    pub(super) key: KeyOfToken,
    /// The tenant.
    #[arg(long, default_value = "default")]
    pub(super) tenant: String,
    #[command(flatten)]
    pub(super) admin: AdminArgs,
}

#[derive(Args)]
pub(super) struct AuditVerifyArgs {
    /// The log, or one closed file of it [default: `path` of [audit] in the configuration].
    pub(super) file: Option<PathBuf>,
    /// A head that was noted elsewhere and must be in the log; once for each.
    #[arg(long, value_name = "HASH", value_parser = hash)]
    pub(super) expect: Vec<Hash>,
}

fn hash(text: &str) -> Result<Hash, &'static str> {
    Hash::parse(text).ok_or("a hash is 64 of 0-9 and a-f, as a notice of the log tells it")
}

#[derive(Args)]
pub(super) struct PluginCheckArgs {
    /// A component, a core module that carries its WIT, or a shipped plugin such as builtin:oauth2.
    pub(super) file: PathBuf,
    /// Settings to configure it with: a JSON or TOML file.
    #[arg(long, value_name = "FILE")]
    pub(super) settings: Option<PathBuf>,
}

#[derive(Args)]
pub(super) struct PluginExportArgs {
    /// A shipped plugin, such as builtin:oauth2.
    pub(super) plugin: String,
    /// Where to write it.
    #[arg(long, short, value_name = "FILE")]
    pub(super) output: PathBuf,
}

/// Whose plugin.
#[derive(Args)]
#[group(required = true, multiple = false)]
pub(super) struct Target {
    /// That of this provider.
    #[arg(long, value_name = "NAME")]
    pub(super) provider: Option<String>,
    /// The policy.
    #[arg(long)]
    pub(super) policy: bool,
}

#[derive(Args)]
pub(super) struct PluginSwapArgs {
    /// The component to put in force.
    pub(super) file: PathBuf,
    #[command(flatten)]
    pub(super) target: Target,
    #[command(flatten)]
    pub(super) admin: AdminArgs,
}

#[derive(Args)]
pub(super) struct PluginRollbackArgs {
    #[command(flatten)]
    pub(super) target: Target,
    #[command(flatten)]
    pub(super) admin: AdminArgs,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_do_not_contradict_each_other() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_secret_has_no_place_on_the_command_line() {
        for line in [
            &["keyfob", "token", "acme", "--key", "hunter2"][..],
            &[
                "keyfob",
                "credentials",
                "import",
                "acme",
                "--grant",
                "hunter2",
            ],
            &["keyfob", "credentials", "import", "acme", "hunter2"],
            &["keyfob", "credentials", "import", "acme"],
            &["keyfob", "credentials", "import", "acme", "--lines", "-"],
            &["keyfob", "store", "rotate-key", "hunter2"],
            &["keyfob", "plugin", "swap", "f.wasm"],
            &[
                "keyfob",
                "plugin",
                "swap",
                "f.wasm",
                "--policy",
                "--provider",
                "a",
            ],
            &[
                "keyfob",
                "token",
                "acme",
                "--key-env",
                "A",
                "--key-file",
                "b",
            ],
        ] {
            assert!(Arguments::try_parse_from(line).is_err(), "{line:?}");
        }
        assert!(Arguments::try_parse_from(["keyfob", "plugin", "rollback", "--policy"]).is_ok());
    }
}
