//! `crash`: kills Keyfob with `kill -9` as often as it is told, and says whether a rotation was lost or a grant presented
//! twice. Exit code 0 when all was well, 1 when it was not, 2 when the run could not be made.

use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use keyfob_tests::crash::{self, Kind, Plan};

/// Between two lines that say how far it is.
const TELL_EVERY: usize = 25;

/// Kills the real binary again and again while its grants rotate. Set KEYFOB_BIN to the binary under test; without it one
/// is built for debugging.
#[derive(Parser)]
struct Arguments {
    /// How often.
    #[arg(long, default_value_t = 500)]
    kills: usize,
    /// Draws when. Without it, one is taken from the clock and printed.
    #[arg(long)]
    seed: Option<u64>,
    /// Credentials of each provider.
    #[arg(long, default_value_t = 8)]
    credentials: usize,
    /// The authorization server.
    #[arg(long, value_enum, default_value_t = Server::Strict)]
    issuer: Server,
    /// Search the memory of the last process too.
    #[arg(long)]
    memory: bool,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Server {
    /// The kit's: single-use, grace and unknown.
    Strict,
    /// npm's: single-use and unknown.
    OidcProvider,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let plan = Plan {
        kills: arguments.kills,
        seed: arguments.seed.unwrap_or_else(crash::seed),
        credentials: arguments.credentials,
        issuer: match arguments.issuer {
            Server::Strict => Kind::Strict,
            Server::OidcProvider => Kind::OidcProvider,
        },
        memory: arguments.memory,
    };
    eprintln!("seed {}", plan.seed);
    let mut told = 0;
    let done = crash::run(plan, |report| {
        if report.killed() >= told + TELL_EVERY {
            told = report.killed();
            eprintln!("{told} kills");
        }
    });
    match done.await {
        Ok(report) => {
            if arguments.json {
                println!("{}", serde_json::json!(report));
            } else {
                print!("{report}");
            }
            ExitCode::from(u8::from(!report.is_clean()))
        }
        Err(error) => {
            eprintln!("crash: {error:#}");
            ExitCode::from(2)
        }
    }
}
