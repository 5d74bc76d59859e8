//! What an event counts as.

use super::{
    AnswerLabels, CodeLabels, KindLabels, Metrics, OrderLabels, OutcomeLabels, ProviderLabels,
    RefreshLabels, ResultLabels, StateLabels, WhyLabels,
};
use crate::model::credential::{CredentialState, EndCause};
use crate::model::event::{Event, Observer};
use crate::observe::labels;

impl Observer for Metrics {
    fn observe(&self, event: &Event) {
        let provider = |name: &str| self.providers.value(name);
        let accepted = |refused: &Option<String>| {
            if refused.is_none() {
                "accepted"
            } else {
                "refused"
            }
        };
        match event {
            Event::RefreshStarted { .. } => {}
            Event::RefreshFinished {
                key,
                cause,
                outcome,
                took,
            } => {
                let provider = provider(key.credential.provider.as_str());
                let (outcome, cause) = (labels::outcome(outcome), labels::cause(*cause));
                self.refresh_seconds
                    .get_or_create(&OutcomeLabels {
                        provider: provider.clone(),
                        outcome,
                    })
                    .observe(took.as_secs_f64());
                self.refreshes
                    .get_or_create(&RefreshLabels {
                        provider,
                        outcome,
                        cause,
                    })
                    .inc();
            }
            Event::TokenAdopted { key, .. } => {
                let labels = ProviderLabels {
                    provider: provider(key.credential.provider.as_str()),
                };
                self.adopted.get_or_create(&labels).inc();
            }
            Event::UpstreamAnswered {
                provider: name,
                result,
                took,
                ..
            } => {
                let provider = provider(name.as_str());
                self.answer_seconds
                    .get_or_create(&ProviderLabels {
                        provider: provider.clone(),
                    })
                    .observe(took.as_secs_f64());
                let status = labels::answer(result);
                self.answers
                    .get_or_create(&AnswerLabels { provider, status })
                    .inc();
            }
            Event::PluginFailed {
                provider: name,
                label,
                ..
            } => {
                let labels = KindLabels {
                    provider: provider(name),
                    kind: label,
                };
                self.plugin_failures.get_or_create(&labels).inc();
            }
            Event::TokenRejected { key, outcome, .. } => {
                let provider = provider(key.credential.provider.as_str());
                self.rejects
                    .get_or_create(&OutcomeLabels { provider, outcome })
                    .inc();
            }
            // Without the provider: a caller makes its name up.
            Event::Denied { code, .. } => {
                self.denials
                    .get_or_create(&CodeLabels {
                        code: self.codes.value(code),
                    })
                    .inc();
            }
            Event::RequestFailed { key, kind, .. } => {
                let provider = provider(key.credential.provider.as_str());
                self.failures
                    .get_or_create(&KindLabels {
                        provider,
                        kind: kind.label(),
                    })
                    .inc();
            }
            Event::CredentialChanged {
                key, was, state, ..
            } => {
                let provider = provider(key.provider.as_str());
                let fate = match fate_of(*was, *state) {
                    Some(Fate::Lost) => Some(&self.rotations_lost),
                    Some(Fate::Replayed) => Some(&self.rotations_replayed),
                    None => None,
                };
                if let Some(counter) = fate {
                    let provider = provider.clone();
                    counter.get_or_create(&ProviderLabels { provider }).inc();
                }
                let state = state.label();
                self.credential_changes
                    .get_or_create(&StateLabels { provider, state })
                    .inc();
            }
            Event::GrantRotated { key, .. } => {
                let labels = ProviderLabels {
                    provider: provider(key.provider.as_str()),
                };
                self.rotations.get_or_create(&labels).inc();
            }
            Event::PluginSwapped {
                provider: name,
                refused,
                ..
            } => {
                let labels = OutcomeLabels {
                    provider: provider(name),
                    outcome: accepted(refused),
                };
                self.swaps.get_or_create(&labels).inc();
            }
            Event::ConfigReloaded { refused } => {
                self.reloads
                    .get_or_create(&ResultLabels {
                        outcome: accepted(refused),
                    })
                    .inc();
            }
            Event::StoreKept { what, refused, .. } => {
                let outcome = match refused {
                    None => "done",
                    Some(_) => "failed",
                };
                self.store_orders
                    .get_or_create(&OrderLabels { what, outcome })
                    .inc();
            }
            Event::KeyEvicted { key, why } => {
                let labels = WhyLabels {
                    provider: provider(key.credential.provider.as_str()),
                    why,
                };
                self.evictions.get_or_create(&labels).inc();
            }
            Event::Notice { code, .. } => {
                self.notices
                    .get_or_create(&CodeLabels {
                        code: (*code).to_owned(),
                    })
                    .inc();
            }
        }
    }
}

/// What a change says about a grant that was presented.
enum Fate {
    /// Its answer was lost, and it may be spent.
    Lost,
    /// It was presented again after its answer was lost, and the issuer refused it: most likely it had been spent.
    Replayed,
}

/// Counts each lost answer once: a credential that is in doubt already, and whose probe is lost too, was counted before.
fn fate_of(was: CredentialState, is: CredentialState) -> Option<Fate> {
    let doubted = matches!(was, CredentialState::Uncertain { .. });
    match is {
        CredentialState::Uncertain { .. } if !doubted && was.is_usable() => Some(Fate::Lost),
        CredentialState::ReauthorizationRequired { cause, .. } => match cause {
            EndCause::LostAnswer => (!doubted).then_some(Fate::Lost),
            EndCause::Refused => doubted.then_some(Fate::Replayed),
        },
        _ => None,
    }
}
