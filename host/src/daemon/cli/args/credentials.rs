//! `keyfob credentials …`: which credentials, and what to do with them.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::AdminArgs;
use crate::broker::CREDENTIALS_PAGE_MAX;
use crate::model::credential::CredentialState;

#[derive(Subcommand)]
pub(in crate::daemon::cli) enum CredentialsCommand {
    /// List credentials and how they stand.
    List(ListArgs),
    /// Show how one stands, what happens next, and what can be done.
    Show(OneArgs),
    /// Hand over a refresh token, or many.
    Import(ImportArgs),
    /// End a credential, here and at its issuer.
    Revoke(OneArgs),
    /// Present a grant once more whose last answer was lost: if it was spent, the issuer may take this for theft.
    Probe(OneArgs),
}

/// Which credential.
#[derive(Args)]
pub(in crate::daemon::cli) struct OneArgs {
    /// The provider.
    pub(in crate::daemon::cli) provider: String,
    /// Whose credential; the provider's own account without it.
    #[arg(long)]
    pub(in crate::daemon::cli) subject: Option<String>,
    /// The tenant.
    #[arg(long, default_value = "default")]
    pub(in crate::daemon::cli) tenant: String,
    #[command(flatten)]
    pub(in crate::daemon::cli) admin: AdminArgs,
}

#[derive(Args)]
pub(in crate::daemon::cli) struct ListArgs {
    /// Of this tenant only.
    #[arg(long)]
    pub(in crate::daemon::cli) tenant: Option<String>,
    /// Of this provider only.
    #[arg(long)]
    pub(in crate::daemon::cli) provider: Option<String>,
    /// In this state only.
    #[arg(long, value_parser = CredentialState::LABELS)]
    pub(in crate::daemon::cli) state: Option<String>,
    /// How many at most.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=CREDENTIALS_PAGE_MAX as i64))]
    pub(in crate::daemon::cli) limit: u16,
    /// Go on where another list ended: what it said is `next`.
    #[arg(long, value_name = "NEXT")]
    pub(in crate::daemon::cli) after: Option<String>,
    #[command(flatten)]
    pub(in crate::daemon::cli) admin: AdminArgs,
}

/// A grant is no argument: everybody on the machine can read those.
#[derive(Args)]
pub(in crate::daemon::cli) struct ImportArgs {
    /// The provider.
    #[arg(required_unless_present = "lines", conflicts_with = "lines")]
    pub(in crate::daemon::cli) provider: Option<String>,
    /// Whose grant; the provider's own account without it.
    #[arg(long, conflicts_with = "lines")]
    pub(in crate::daemon::cli) subject: Option<String>,
    /// The tenant; with --lines, of those that name none.
    #[arg(long, default_value = "default")]
    pub(in crate::daemon::cli) tenant: String,
    /// A file that holds the refresh token, or - for standard input.
    #[arg(
        long,
        value_name = "FILE",
        required_unless_present = "lines",
        conflicts_with = "lines"
    )]
    pub(in crate::daemon::cli) grant_file: Option<PathBuf>,
    /// Many: a file, or - for standard input, with one {"provider", "refresh_token", "subject"?, "tenant"?} a line.
    #[arg(long, value_name = "FILE")]
    pub(in crate::daemon::cli) lines: Option<PathBuf>,
    #[command(flatten)]
    pub(in crate::daemon::cli) admin: AdminArgs,
}
