//! The command line: what is asked for becomes a call of the daemon, of the library, or over HTTP of a daemon that runs.
//!
//! Secrets never stand on it: arguments are everybody's to read. Keys come from variables and files.

mod args;
mod audit;
mod client;
mod credentials;
mod exit;
mod import;
mod local;
mod output;
mod remote;
mod store;
mod story;

use clap::{CommandFactory, Parser};

use self::args::{Arguments, AuditCommand, Command, CredentialsCommand, PluginCommand};
pub use self::exit::Exit;
use self::exit::Failure;
use self::output::Output;
use super::demo;
use super::environment::{self, Environment};
use super::serve::{self, ServeError};

/// Does what the arguments of this process ask for.
///
/// # Cancel safety
///
/// Not meant to be dropped: `serve` would leave its connections behind.
pub async fn main() -> Exit {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version come this way too, on standard output and with success.
            let _ = error.print();
            return if error.use_stderr() {
                Exit::Usage
            } else {
                Exit::Ok
            };
        }
    };
    let output = Output::new(arguments.json);
    match run(arguments, &output, &environment::process()).await {
        Ok(()) => Exit::Ok,
        Err(failure) => {
            output.failure(&failure);
            failure.exit
        }
    }
}

async fn run(
    arguments: Arguments,
    output: &Output,
    environment: &Environment,
) -> Result<(), Failure> {
    let config = &arguments.config;
    match arguments.command {
        Command::Serve => serve::serve(config, environment)
            .await
            .map_err(|error| match error {
                ServeError::Mistakes(mistakes) => Failure::mistakes(mistakes),
                ServeError::Failed(message) => Failure::new(Exit::Failed, message),
            }),
        Command::Demo => match demo::run(arguments.json).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Failure::new(
                Exit::Failed,
                "a promise was broken: see above",
            )),
            Err(error) => Err(Failure::new(Exit::Failed, error.to_string())),
        },
        Command::Check => local::check(config, output, environment).await,
        Command::Token(token) => remote::token(token, output, environment).await,
        Command::Explain(explain) => remote::explain(explain, output, environment).await,
        Command::Revoke(revoke) => credentials::revoke(revoke, output, environment).await,
        Command::Credentials { command } => match command {
            CredentialsCommand::List(list) => credentials::list(list, output, environment).await,
            CredentialsCommand::Show(one) => credentials::show(one, output, environment).await,
            CredentialsCommand::Import(import) => import::import(import, output, environment).await,
            CredentialsCommand::Revoke(one) => credentials::revoke(one, output, environment).await,
            CredentialsCommand::Probe(one) => credentials::probe(one, output, environment).await,
        },
        Command::Store { command } => store::run(command, config, output, environment).await,
        Command::Providers(providers) => remote::providers(providers, output, environment).await,
        Command::Plugin { command } => match command {
            PluginCommand::Check(check) => local::plugin_check(check, output).await,
            PluginCommand::Export(export) => local::plugin_export(&export, output),
            PluginCommand::Swap(swap) => remote::plugin_swap(swap, output, environment).await,
            PluginCommand::Rollback(back) => {
                remote::plugin_rollback(back, output, environment).await
            }
        },
        Command::Audit {
            command: AuditCommand::Verify(verify),
        } => audit::verify(&verify, config, output),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "keyfob", &mut script);
            output.bytes(&script)
        }
    }
}
