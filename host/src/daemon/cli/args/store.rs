//! `keyfob store …`: what to do with the store as a whole.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::AdminArgs;

#[derive(Subcommand)]
pub(in crate::daemon::cli) enum StoreCommand {
    /// Read all of it and compare it with what was written last.
    Verify(StoreArgs),
    /// Write it anew, so that nothing is left in the file of what was replaced.
    Compact(StoreArgs),
    /// Write a copy as of now, on the daemon's machine.
    Backup(BackupArgs),
    /// Seal it with `next_sealing_key` of the configuration instead of `sealing_key`.
    RotateKey(StoreArgs),
    /// Forget everything of a tenant, for good.
    Shred(ShredArgs),
}

/// Whose hands do it.
#[derive(Args)]
pub(in crate::daemon::cli) struct StoreArgs {
    /// Open the file that the configuration names, while no daemon runs, instead of asking one.
    #[arg(long)]
    pub(in crate::daemon::cli) offline: bool,
    #[command(flatten)]
    pub(in crate::daemon::cli) admin: AdminArgs,
}

#[derive(Args)]
pub(in crate::daemon::cli) struct BackupArgs {
    /// Where there is nothing yet: absolute, or relative to the folder of the configuration.
    pub(in crate::daemon::cli) to: PathBuf,
    #[command(flatten)]
    pub(in crate::daemon::cli) store: StoreArgs,
}

#[derive(Args)]
pub(in crate::daemon::cli) struct ShredArgs {
    /// The tenant.
    pub(in crate::daemon::cli) tenant: String,
    /// Yes, this cannot be undone.
    #[arg(long)]
    pub(in crate::daemon::cli) yes: bool,
    #[command(flatten)]
    pub(in crate::daemon::cli) store: StoreArgs,
}
