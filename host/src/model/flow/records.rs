//! What is committed, and what becomes of it when the store does not answer or somebody else was first.

use super::failure::Failure;
use super::{
    Advanced, Change, Core, Effect, Flow, Landing, Marked, RECORD_TRIES, Record, State, Then,
};
use crate::model::credential::{
    CommitFault, Credential, CredentialState, Stored, Unreachable, Version,
};
use crate::model::secret::Secret;

// === impl Core ===

impl Core {
    pub(super) fn persist(self, change: Change, then: Then) -> Advanced {
        self.persist_again(change, 0, then)
    }

    fn persist_again(self, change: Change, tries: u32, then: Then) -> Advanced {
        let record = self.record_of(change, tries);
        let state = State::Recording {
            change,
            tries,
            then,
        };
        (Flow { core: self, state }, Effect::Persist(record))
    }

    /// Commits the intent; nothing leaves before that.
    pub(super) fn mark(self, marked: Marked) -> Advanced {
        let record = self.record_of(Change::Intent, marked.tries);
        let state = State::Marking(Box::new(marked));
        (Flow { core: self, state }, Effect::Mark(record))
    }

    pub(super) fn marked(self, it: Marked, result: Result<Version, CommitFault>) -> Advanced {
        match result {
            Ok(version) => self.at(version).send(it.request, it.outgoing),
            Err(CommitFault::Conflict) => {
                let state = State::Remarking(Box::new(it));
                (Flow { core: self, state }, Effect::Reload)
            }
            Err(CommitFault::Unreachable(_)) if it.tries + 1 < RECORD_TRIES => self.mark(Marked {
                tries: it.tries + 1,
                ..it
            }),
            Err(CommitFault::Unreachable(detail)) => self.not_marked(&detail),
        }
    }

    /// Somebody committed before this flow knew of its mark. One that was made all the same is still to be used, or it
    /// would stand there with nobody behind it.
    pub(super) fn remarked(mut self, it: Marked, theirs: Result<Stored, Unreachable>) -> Advanced {
        let theirs = match theirs {
            Ok(theirs) => theirs,
            Err(Unreachable(detail)) => return self.not_marked(&detail),
        };
        let revoked = matches!(theirs.credential.state, CredentialState::Revoked { .. });
        let intent = theirs.credential.intent;
        let ours = intent.is_some_and(|intent| intent.owner == self.plan.owner);
        if revoked || !ours || !same(&theirs.credential.refresh_token, &self.base) {
            return self.superseded(revoked);
        }
        self.stored = theirs;
        self.send(it.request, it.outgoing)
    }

    fn not_marked(mut self, detail: &str) -> Advanced {
        // The mark may have been made all the same: what is to be recorded is that nothing left.
        self.stored.credential.intent = None;
        let failure = Failure::unavailable(
            "store",
            format!("a grant that may be single-use is not presented without a store: {detail}"),
        );
        self.strand(Change::Intent, Then::Land(Landing::Failed(failure)))
    }

    pub(super) fn not_recorded(
        self,
        change: Change,
        tries: u32,
        then: Then,
        fault: &CommitFault,
    ) -> Advanced {
        match fault {
            CommitFault::Conflict => {
                let state = State::Rebasing {
                    change,
                    tries,
                    then,
                };
                (Flow { core: self, state }, Effect::Reload)
            }
            CommitFault::Unreachable(_) if tries + 1 < RECORD_TRIES => {
                self.persist_again(change, tries + 1, then)
            }
            CommitFault::Unreachable(_) => self.strand(change, then),
        }
    }

    /// Somebody committed while this flow ran. A grant that nobody replaced is still ours to write about; a revoked or
    /// replaced one is not.
    pub(super) fn rebase(
        mut self,
        theirs: Stored,
        change: Change,
        tries: u32,
        then: Then,
    ) -> Advanced {
        let revoked = matches!(theirs.credential.state, CredentialState::Revoked { .. });
        let ours = &self.stored.credential.refresh_token;
        let grant = &theirs.credential.refresh_token;
        let untouched = same(grant, &self.base) || same(grant, ours);
        if revoked || !untouched {
            return self.superseded(revoked);
        }
        let rebased = self.record_of(change, tries).onto(&theirs.credential);
        let done = rebased == theirs.credential;
        self.stored = Stored {
            version: theirs.version,
            credential: rebased,
        };
        if done {
            return self.resume(then);
        }
        if tries + 1 >= RECORD_TRIES {
            return self.strand(change, then);
        }
        self.persist_again(change, tries + 1, then)
    }

    pub(super) fn strand(self, change: Change, then: Then) -> Advanced {
        let record = self.record_of(change, 0);
        (
            Flow {
                core: self,
                state: State::Stranding { then },
            },
            Effect::Strand(record),
        )
    }

    /// Somebody revoked or replaced the credential: theirs stands.
    fn superseded(mut self, revoked: bool) -> Advanced {
        let orphan = if self.rotated_here {
            self.stored.credential.refresh_token.take()
        } else {
            None
        };
        self.land(Landing::Superseded { orphan, revoked })
    }

    fn record_of(&self, change: Change, tries: u32) -> Record {
        Record {
            expected: self.stored.version,
            owner: self.plan.owner,
            base: self.base.clone(),
            credential: self.stored.credential.clone(),
            change,
            was: self.was,
            tries,
        }
    }
}

// === impl Record ===

impl Record {
    /// What it changes, on top of a row that others have written since. The row itself, where nothing is left to change.
    #[must_use]
    pub fn onto(&self, row: &Credential) -> Credential {
        let ours = &self.credential;
        let another = row.intent.is_some_and(|intent| intent.owner != self.owner);
        let mut row = row.clone();
        match self.change {
            // It was recorded unheard, and somebody went on from there: written again, it would wipe out their intent.
            Change::Rotated if same(&row.refresh_token, &ours.refresh_token) => {
                if !another {
                    row.held.clone_from(&ours.held);
                    row.memo.clone_from(&ours.memo);
                }
            }
            // Somebody presents the grant since: what becomes of that decides.
            Change::State if another => {}
            Change::Rotated | Change::State => {
                // What an operator withdrew meanwhile stays withdrawn.
                return Credential {
                    withdrawn: ours.withdrawn.max(row.withdrawn),
                    ..ours.clone()
                };
            }
            Change::Intent => {
                if row.intent.is_some_and(|intent| intent.owner == self.owner) {
                    row.intent = ours.intent;
                }
                row.seen.stayed |= ours.seen.stayed;
            }
            Change::Kept => {
                row.held.clone_from(&ours.held);
                row.memo.clone_from(&ours.memo);
            }
        }
        row
    }

    /// The version that this record has, where the row is this record: a commit that was not answered, or was delivered
    /// twice, may have been made all the same.
    pub fn is_made(&self, row: &Stored) -> Option<Version> {
        row.is_made_of(self.expected, &self.credential)
            .then_some(row.version)
    }

    /// Whether a row that was read later still is the one this was decided on, as far as its grant goes, and was not
    /// revoked.
    pub fn still_fits(&self, row: &Stored) -> bool {
        let revoked = matches!(row.credential.state, CredentialState::Revoked { .. });
        let grant = &row.credential.refresh_token;
        !revoked && (same(grant, &self.base) || same(grant, &self.credential.refresh_token))
    }
}

fn same(one: &Option<Secret<String>>, other: &Option<Secret<String>>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => one.same_as(other),
        (None, None) => true,
        _ => false,
    }
}
