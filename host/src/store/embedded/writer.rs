//! The one thread that writes. It takes what is waiting and commits it together, so that under load many commits share one
//! flush of the disk, and none waits for a timer.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::{mpsc, oneshot};

use super::journal::Noted;
use super::live::Live;
use super::rows::Rows;
use super::tables::Fault;
use crate::model::credential::{CommitFault, Credential, Unreachable, Version};
use crate::model::key::{CredentialKey, TokenKey};
use crate::model::time::UnixTime;
use crate::model::token::TokenRecord;
use crate::store::KeptPlugin;

/// How many may wait. A full queue holds callers back, each under its own deadline.
pub(super) const WAITING_MAX: usize = 1024;
/// How many share a transaction. More would gain little: a flush is then shared by 256, and the first of them waits for
/// the sealing of the last.
const TOGETHER_MAX: usize = 256;

/// Something to write, and whom to answer once it is on disk.
pub(super) struct Request {
    /// What to write.
    pub(super) work: Work,
    /// Where the answer goes; whoever asked may have left.
    pub(super) answer: oneshot::Sender<Answer>,
    /// Its entry in the journal, until it is answered.
    pub(super) noted: Option<Noted>,
}

/// What was written: a version, or how many.
pub(super) type Answer = Result<Version, CommitFault>;

/// Something to write.
pub(super) enum Work {
    /// A credential, if it still has a version.
    Commit(CredentialKey, Version, Box<Credential>),
    /// A plugin at its place; none forgets it.
    KeepPlugin(String, Option<KeptPlugin>),
    /// A token in place of the one before.
    KeepToken(Box<(TokenKey, TokenRecord)>),
    /// Tokens that were over before a time, at most so many.
    ForgetTokens(UnixTime, usize),
}

/// Starts the thread. It ends when every sender is gone and what was waiting is written.
pub(super) fn start(live: Arc<Live>) -> io::Result<(mpsc::Sender<Request>, JoinHandle<()>)> {
    let (requests, mut waiting) = mpsc::channel(WAITING_MAX);
    let thread = std::thread::Builder::new()
        .name("keyfob-store".into())
        .spawn(move || {
            let mut together = Vec::with_capacity(TOGETHER_MAX);
            while waiting.blocking_recv_many(&mut together, TOGETHER_MAX) > 0 {
                let answers = live.write(|rows| perform(&together, rows));
                answer(
                    together.drain(..),
                    answers.map_err(|fault| live.unreachable(fault)),
                );
            }
        })?;
    Ok((requests, thread))
}

fn perform(together: &[Request], rows: &mut Rows<'_>) -> Result<Vec<Answer>, Fault> {
    together
        .iter()
        .map(|request| match one(&request.work, rows) {
            // What is wrong with one tenant's keys or rows fails nobody else.
            Err(fault @ (Fault::Unsealed(..) | Fault::KeyMissing)) => {
                Ok(Err(CommitFault::Unreachable(fault.to_string())))
            }
            done => done,
        })
        .collect()
}

fn one(work: &Work, rows: &mut Rows<'_>) -> Result<Answer, Fault> {
    match work {
        Work::Commit(key, expected, credential) => rows.commit(key, *expected, credential),
        Work::KeepPlugin(place, plugin) => rows.keep_plugin(place, plugin.as_ref()).map(Ok),
        Work::KeepToken(kept) => {
            let (key, record) = &**kept;
            rows.keep_token(key, record)
                .map(|()| Ok(Version::default()))
        }
        Work::ForgetTokens(before, limit) => {
            let forgotten = rows.forget_tokens(*before, *limit)?;
            Ok(Ok(Version(forgotten as u64)))
        }
    }
}

/// One that left without its answer is no fault: a commit belongs to the store, not to who asked.
fn answer(together: impl Iterator<Item = Request>, answers: Result<Vec<Answer>, Unreachable>) {
    match answers {
        Ok(answers) => {
            for (request, answer) in together.zip(answers) {
                if let Some(noted) = request.noted
                    && !matches!(answer, Err(CommitFault::Unreachable(_)))
                {
                    noted.settled();
                }
                drop(request.answer.send(answer));
            }
        }
        Err(fault) => {
            let fault = CommitFault::from(fault);
            together.for_each(|request| drop(request.answer.send(Err(fault.clone()))));
        }
    }
}
