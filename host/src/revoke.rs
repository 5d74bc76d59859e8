//! Tells an issuer that a token is to be dead (RFC 7009), through the plugin. Best effort: what is revoked here is dead
//! here, whatever the issuer says.

use std::sync::Arc;

use crate::core::Core;
use crate::model::contract::{
    Call, Cause, Holds, HttpRequest, Reason, Reply, Revocation, RevokeStep,
};
use crate::model::credential::CredentialState;
use crate::model::event::Event;
use crate::model::flow::STEPS_MAX;
use crate::model::key::{CredentialKey, ScopeSet};
use crate::model::seal::Vault;
use crate::model::secret::Secret;
use crate::model::time::UnixTime;
use crate::model::transport::Delivery;
use crate::refresh;
use crate::snapshot::Provider;

/// A grant came back after its credential had been revoked or replaced. After a revoke the issuer is told to revoke it
/// too; after a replacement it is dropped: revoking it might end the one that replaced it.
pub(crate) async fn orphan(
    core: &Arc<Core>,
    provider: &Arc<Provider>,
    credential: &CredentialKey,
    grant: Secret<String>,
    now: CredentialState,
) {
    let what = if matches!(now, CredentialState::Revoked { .. }) {
        match upstream(core, provider, credential, &grant, Holds::RefreshToken).await {
            true => "after it was revoked; the issuer was told to revoke it",
            false => "after it was revoked; the issuer could not be told",
        }
    } else {
        "after it was replaced; it was dropped"
    };
    core.emit(&Event::Notice {
        code: "orphan_grant",
        detail: format!("a grant came back for {credential:?} {what}"),
    });
}

/// Tells the issuer; true when it was told and did not object.
pub(crate) async fn upstream(
    core: &Arc<Core>,
    provider: &Arc<Provider>,
    credential: &CredentialKey,
    token: &Secret<String>,
    holds: Holds,
) -> bool {
    match revoke(core, provider, credential, token, holds).await {
        Ok(told) => told,
        Err(detail) => {
            core.emit(&Event::Notice {
                code: "revoke_failed",
                detail: format!("{credential:?}: {detail}"),
            });
            false
        }
    }
}

async fn revoke(
    core: &Arc<Core>,
    provider: &Arc<Provider>,
    credential: &CredentialKey,
    token: &Secret<String>,
    holds: Holds,
) -> Result<bool, String> {
    let now = core.now();
    let deadline = now.plus(provider.settings.refresh.timeout);
    // A file system can hang, and whoever waits for this must not.
    let left = deadline.since(core.now());
    let read = tokio::time::timeout(left, refresh::secrets_of(core, provider)).await;
    let secrets = read
        .map_err(|_| "the secrets could not be read in time".to_owned())?
        .map_err(|failure| failure.detail)?;
    let seed = refresh::random().map_err(|failure| failure.detail)?;
    let entropy: [u8; 32] = refresh::random().map_err(|failure| failure.detail)?;
    let mut vault = Vault::new(provider.rules.clone(), secrets, Secret::new(seed));
    let what = Revocation {
        call: call(provider, credential, entropy, now),
        token: match holds {
            Holds::RefreshToken => vault.seal_grant(token),
            Holds::AccessToken | Holds::IdToken | Holds::Other => vault.seal_held(token),
        },
        holds,
    };
    let mut replies = Vec::new();
    while replies.len() <= STEPS_MAX {
        let step = provider
            .plugin
            .revoke(&what, &replies)
            .await
            .map_err(|fault| fault.to_string())?
            .map_err(|refusal| {
                format!(
                    "the plugin refused: {}",
                    vault.filter(&format!("{refusal:?}"), 512)
                )
            })?;
        let reply = match step {
            RevokeStep::Done => return Ok(true),
            RevokeStep::Unsupported => return Ok(false),
            RevokeStep::Sign(_) | RevokeStep::Send(_) if replies.len() == STEPS_MAX => break,
            RevokeStep::Sign(request) => Reply::Signed(
                vault
                    .sign(&request, now)
                    .map_err(|violation| violation.to_string())?,
            ),
            RevokeStep::Send(request) => {
                exchange(core, provider, &mut vault, &request, deadline).await?
            }
        };
        replies.push(reply);
    }
    Err(format!(
        "the plugin did not finish within {STEPS_MAX} steps"
    ))
}

async fn exchange(
    core: &Core,
    provider: &Provider,
    vault: &mut Vault,
    request: &HttpRequest,
    deadline: UnixTime,
) -> Result<Reply, String> {
    let outgoing = vault
        .write(request)
        .map_err(|violation| violation.to_string())?;
    match refresh::send(core, provider, outgoing, deadline).await {
        Delivery::Answered(answer) => vault
            .read(request, &answer)
            .map(|opened| Reply::Response(opened.response))
            .map_err(|violation| violation.to_string()),
        Delivery::NotSent(fault) => Ok(Reply::Unreached(Reason {
            code: fault.kind.label().into(),
            message: fault.detail,
        })),
        Delivery::Lost(fault) => Err(fault.detail),
    }
}

fn call(provider: &Provider, credential: &CredentialKey, entropy: [u8; 32], now: UnixTime) -> Call {
    Call {
        now: u32::try_from(now.as_secs()).unwrap_or(u32::MAX),
        entropy: entropy.to_vec(),
        settings: provider.plugin_settings.clone(),
        tenant: credential.tenant.as_str().to_owned(),
        subject: credential.subject.as_ref().map(|s| s.as_str().to_owned()),
        scopes: ScopeSet::default().iter().map(str::to_owned).collect(),
        audience: None,
        refresh_token: None,
        held: Vec::new(),
        memo: Vec::new(),
        cause: Cause::Operator,
    }
}
