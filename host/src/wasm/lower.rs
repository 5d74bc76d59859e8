//! From the contract as the host speaks it to the contract as generated: what goes into a guest.
//!
//! Nothing is checked here; the host wrote it.

use super::bindings::policy::exports::keyfob::policy::policy as policy_wit;
use super::bindings::provider::exports::keyfob::provider::provider as wit;
use super::bindings::provider::exports::keyfob::types::types;
use crate::model::contract::{
    Call, Cause, Holds, HttpResponse, Query, Reason, Rejection, Reply, Revocation, SealedValue,
};

impl From<&Call> for wit::Call {
    fn from(call: &Call) -> Self {
        Self {
            now: call.now,
            entropy: call.entropy.clone(),
            settings: call.settings.as_ref().to_owned(),
            tenant: call.tenant.clone(),
            subject: call.subject.clone(),
            scopes: call.scopes.clone(),
            audience: call.audience.clone(),
            refresh_token: call.refresh_token.as_ref().map(Into::into),
            held: call
                .held
                .iter()
                .map(|(name, value)| (name.clone(), value.into()))
                .collect(),
            memo: call.memo.clone(),
            cause: call.cause.into(),
        }
    }
}

impl From<Cause> for wit::Cause {
    fn from(cause: Cause) -> Self {
        match cause {
            Cause::First => Self::First,
            Cause::Expiring => Self::Expiring,
            Cause::Rejected => Self::Rejected,
            Cause::Operator => Self::Operator,
        }
    }
}

impl From<&SealedValue> for types::SealedValue {
    fn from(value: &SealedValue) -> Self {
        Self {
            handle: value.handle.clone(),
        }
    }
}

impl From<Holds> for types::Holds {
    fn from(holds: Holds) -> Self {
        match holds {
            Holds::AccessToken => Self::AccessToken,
            Holds::RefreshToken => Self::RefreshToken,
            Holds::IdToken => Self::IdToken,
            Holds::Other => Self::Other,
        }
    }
}

impl From<&Reply> for types::Reply {
    fn from(reply: &Reply) -> Self {
        match reply {
            Reply::Response(response) => Self::Response(response.into()),
            Reply::Signed(value) => Self::Signed(value.into()),
            Reply::Unreached(reason) => Self::Unreached(reason.into()),
        }
    }
}

impl From<&HttpResponse> for types::HttpResponse {
    fn from(response: &HttpResponse) -> Self {
        Self {
            status: response.status,
            headers: response.headers.clone(),
            body: response.body.clone(),
            note: response.note.clone(),
        }
    }
}

impl From<&Reason> for types::Reason {
    fn from(reason: &Reason) -> Self {
        Self {
            code: reason.code.clone(),
            message: reason.message.clone(),
        }
    }
}

impl From<&Revocation> for wit::Revocation {
    fn from(what: &Revocation) -> Self {
        Self {
            call: (&what.call).into(),
            token: (&what.token).into(),
            holds: what.holds.into(),
        }
    }
}

impl From<&Rejection> for wit::Rejection {
    fn from(rejection: &Rejection) -> Self {
        Self {
            status: rejection.status,
            www_authenticate: rejection.www_authenticate.clone(),
            settings: rejection.settings.as_ref().to_owned(),
        }
    }
}

impl From<&Query> for policy_wit::Query {
    fn from(query: &Query) -> Self {
        Self {
            now: query.now,
            tenant: query.tenant.clone(),
            caller: query.caller.clone(),
            attributes: query.attributes.clone(),
            provider: query.provider.clone(),
            subject: query.subject.clone(),
            scopes: query.scopes.clone(),
            audience: query.audience.clone(),
            settings: query.settings.as_ref().to_owned(),
        }
    }
}
