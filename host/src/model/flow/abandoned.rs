//! What becomes of a credential whose attempt ended with the process that made it.

use std::time::Duration;

use super::admission::Knowledge;
use crate::model::contract::Rotation;
use crate::model::credential::{Credential, CredentialState};

/// The credential once its attempt is over, where one is noted: the grant may have been spent and nobody knows, or, where
/// that is harmless, it is as it was. What is admitted afterwards is the same as if a flow had found the intent.
pub fn abandoned(
    credential: &Credential,
    declared: Rotation,
    grace: Duration,
) -> Option<Credential> {
    let intent = credential.intent?;
    let state = match credential.state {
        // The mark on top of the doubt says that the attempt to end it had no end either: it stays.
        CredentialState::Uncertain { .. } => return None,
        CredentialState::Live | CredentialState::Suspended { .. }
            if Knowledge::of(declared, grace, credential.seen) != Knowledge::Reusable =>
        {
            CredentialState::Uncertain { since: intent.at }
        }
        state => state,
    };
    Some(Credential {
        state,
        intent: None,
        ..credential.clone()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::credential::{EndCause, Intent, Seen};
    use crate::model::time::UnixTime;

    const AT: UnixTime = UnixTime::from_secs(7);

    fn attempted(state: CredentialState, seen: Seen) -> Credential {
        Credential {
            refresh_token: Some("grant".into()),
            state,
            seen,
            intent: Some(Intent {
                owner: [1; 16],
                at: AT,
                over_at: UnixTime::from_secs(20),
            }),
            ..Credential::default()
        }
    }

    #[test]
    fn an_attempt_without_an_end_leaves_doubt_unless_another_one_is_harmless() {
        let stayed = Seen {
            stayed: true,
            rotated: false,
        };
        let doubt = CredentialState::Uncertain { since: AT };
        // declared, seen, state → state
        let table = [
            (
                Rotation::SingleUse,
                Seen::default(),
                CredentialState::Live,
                doubt,
            ),
            (
                Rotation::Unknown,
                Seen::default(),
                CredentialState::Live,
                doubt,
            ),
            (
                Rotation::Grace,
                Seen::default(),
                CredentialState::Live,
                doubt,
            ),
            (
                Rotation::Unknown,
                stayed,
                CredentialState::Live,
                CredentialState::Live,
            ),
            (
                Rotation::Never,
                Seen::default(),
                CredentialState::Live,
                CredentialState::Live,
            ),
            (
                Rotation::SingleUse,
                Seen::default(),
                CredentialState::Suspended { until: AT },
                doubt,
            ),
        ];
        for (declared, seen, state, expected) in table {
            let after = abandoned(&attempted(state, seen), declared, Duration::from_secs(60));
            let after = after.unwrap();
            assert_eq!(
                (after.state, after.intent),
                (expected, None),
                "{declared:?}"
            );
            assert_eq!(after.refresh_token.unwrap().expose(), "grant");
        }
    }

    #[test]
    fn a_probe_that_died_stays_noted() {
        let doubted = attempted(CredentialState::Uncertain { since: AT }, Seen::default());
        assert!(abandoned(&doubted, Rotation::Unknown, Duration::ZERO).is_none());
    }

    #[test]
    fn what_ended_otherwise_stays_ended() {
        let ended = CredentialState::ReauthorizationRequired {
            since: AT,
            cause: EndCause::Refused,
        };
        for state in [ended, CredentialState::Revoked { at: AT }] {
            let after = abandoned(
                &attempted(state, Seen::default()),
                Rotation::SingleUse,
                Duration::ZERO,
            );
            assert_eq!(after.unwrap().state, state);
        }
        let none = abandoned(&Credential::default(), Rotation::SingleUse, Duration::ZERO);
        assert!(none.is_none());
    }
}
