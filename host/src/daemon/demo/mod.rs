//! `keyfob demo`: the main job on one screen, with nothing else installed. A strict little issuer, the real broker, the
//! real plugins in the real sandbox, simulated callers; five acts, each with a promise that is measured.

mod acts;
mod stage;
mod swarm;
mod view;

use std::io;
use std::time::Duration;

use serde::Serialize;

use stage::Stage;
use view::View;

/// What one act promised and what was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    /// The act's name.
    pub act: &'static str,
    /// What it promises.
    pub promise: &'static str,
    /// What was measured.
    pub measured: String,
    /// Whether the promise held.
    pub held: bool,
}

/// How long the end waits for refreshes that are under way.
const DRAIN: Duration = Duration::from_secs(5);

/// Runs the demo; true when every promise held.
///
/// # Errors
///
/// When the terminal cannot be written to, or the stage cannot be built.
///
/// # Cancel safety
///
/// Safe: everything it started ends with it.
pub async fn run(json: bool) -> io::Result<bool> {
    let stage = Stage::build().await?;
    let mut view = View::new(json);
    view.opening(&stage)?;
    let mut verdicts = Vec::new();
    verdicts.push(acts::stampede(&stage, &mut view).await?);
    verdicts.push(acts::ahead(&stage, &mut view).await?);
    verdicts.push(acts::failing(&stage, &mut view).await?);
    verdicts.push(acts::rejected(&stage, &mut view).await?);
    verdicts.push(acts::swap(&stage, &mut view).await?);
    verdicts.push(stage.leaks().await);
    stage.broker.shutdown(DRAIN).await;
    view.closing(&verdicts, stage.issuer.ledger().count())?;
    Ok(verdicts.iter().all(|verdict| verdict.held))
}
