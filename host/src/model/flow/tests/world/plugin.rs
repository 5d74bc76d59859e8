//! The plugin of a world, by script: presents the grant, and says what the answer means.

use std::time::Duration;

use super::Fate;
use crate::model::contract::{
    AnswerFormat, Body, Expiry, Field, HttpRequest, Limited, PluginFault, Reason, Refusal, Reply,
    SealedValue, Segment, SignRequest, Step, TokenSet,
};
use crate::model::flow::Flow;

/// What it is asked for, and what it says.
pub(super) type Said = Result<Result<Step, Refusal>, PluginFault>;

pub(super) fn consult(flow: &Flow, fate: &Fate, limited: Option<Limited>, token_url: &str) -> Said {
    let Some(Reply::Response(response)) = flow.replies().last() else {
        return Ok(Ok(Step::Send(present(flow, token_url))));
    };
    if fate.plugin_traps_after_answer {
        return Err(PluginFault::Trap("a bug".into()));
    }
    if fate.plugin_never_ends {
        return Ok(Ok(Step::Sign(SignRequest::Jwt {
            key: "none".to_owned(),
            header: String::new(),
            claims: String::new(),
        })));
    }
    let after = Some(Duration::from_secs(60));
    match (response.status, limited) {
        (200, _) => {}
        (429, Some(scope)) => return Ok(Err(Refusal::RateLimited { after, scope })),
        (400, _) => return Ok(Err(Refusal::Reauthorize(reason("invalid_grant")))),
        _ => {
            return Ok(Err(Refusal::Transient {
                reason: reason("server"),
                after: None,
            }));
        }
    }
    let Ok(body) = serde_json::from_slice::<serde_json::Value>(&response.body) else {
        return Ok(Err(Refusal::InDoubt(reason("unreadable"))));
    };
    let handle = |name: &str| {
        body[name].as_str().map(|handle| SealedValue {
            handle: handle.into(),
        })
    };
    Ok(Ok(Step::Done(TokenSet {
        access_token: handle("access_token").unwrap(),
        token_type: "Bearer".into(),
        expires: Expiry::FromAnswer(60),
        scopes: None,
        refresh_token: handle("refresh_token"),
        extra: Vec::new(),
        held: Vec::new(),
        memo: Vec::new(),
    })))
}

fn present(flow: &Flow, token_url: &str) -> HttpRequest {
    let grant = flow.call().refresh_token.clone();
    HttpRequest {
        method: "POST".into(),
        url: token_url.into(),
        query: Vec::new(),
        headers: Vec::new(),
        auth: None,
        body: Body::Form(vec![Field {
            name: "refresh_token".into(),
            value: vec![Segment::Sealed(grant.expect("the flow sealed the grant"))],
        }]),
        answer: AnswerFormat::Json,
        captures: Vec::new(),
    }
}

fn reason(code: &str) -> Reason {
    Reason {
        code: code.into(),
        message: String::new(),
    }
}
