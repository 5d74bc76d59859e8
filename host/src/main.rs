//! The life of the process: a runtime, one command, an exit code.

use keyfob::daemon::cli::{self, Exit};

#[tokio::main]
async fn main() -> Exit {
    cli::main().await
}
