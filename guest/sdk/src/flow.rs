//! Replay: straight-line plugin code over a host that asks again after every step.
//!
//! The host calls `refresh` with the replies so far. Code runs from the top each time; a step whose reply is there
//! returns it, the first one without leaves the function through `?`. Nothing is remembered in between.

use crate::bindings::provider::types::{HttpRequest, Reason, Reply, SealedValue, SignRequest};
use crate::bindings::provider::{Call, Refusal};
use crate::jwt::Assertion;
use crate::response::Response;

/// What plugin functions return. The error is either a refusal or simply the next step; `?` handles both.
pub type Result<T> = std::result::Result<T, Leave>;

/// A way out of a plugin function: the next step, or a [`Refusal`] made with `?` or `.into()`.
#[derive(Debug)]
pub struct Leave(Box<Exit>);

#[derive(Debug)]
pub(crate) enum Exit {
    Send(HttpRequest),
    Sign(SignRequest),
    Refused(Refusal),
}

/// The steps of one flow and the replies they have led to.
#[derive(Debug)]
pub struct Flow {
    now: u32,
    entropy: Vec<u8>,
    /// The call's refresh token: a request that carries it presents the grant.
    grant: Option<SealedValue>,
    replies: std::vec::IntoIter<Reply>,
    taken: usize,
}

// === impl Flow ===

impl Flow {
    pub(crate) fn new(call: &Call, replies: Vec<Reply>) -> Self {
        Self {
            now: call.now,
            entropy: call.entropy.clone(),
            grant: call.refresh_token.clone(),
            replies: replies.into_iter(),
            taken: 0,
        }
    }

    /// Sends a request and returns what came back, whatever its status.
    ///
    /// # Errors
    ///
    /// Leaves while there is no reply yet; refuses as transient where the server could not be reached.
    pub fn send(&mut self, request: HttpRequest) -> Result<Response> {
        self.try_send(request)?
            .map_err(|reason| Refusal::later(reason, None).into())
    }

    /// Like [`send`](Self::send), but hands over an address that could not be reached, so that another may be tried.
    ///
    /// # Errors
    ///
    /// Leaves while there is no reply yet.
    pub fn try_send(
        &mut self,
        request: HttpRequest,
    ) -> Result<std::result::Result<Response, Reason>> {
        let presents_grant = self
            .grant
            .as_ref()
            .is_some_and(|grant| request.carries(grant));
        match self.next() {
            None => Err(Leave::with(Exit::Send(request))),
            Some(Reply::Response(raw)) => Ok(Ok(Response::new(
                raw,
                request.answer,
                presents_grant,
                self.now,
            ))),
            Some(Reply::Unreached(reason)) => Ok(Err(reason)),
            Some(Reply::Signed(_)) => Err(diverged("a request was answered by a signature")),
        }
    }

    /// Has the host sign, and returns the signature as a sealed value.
    ///
    /// # Errors
    ///
    /// Leaves while there is no reply yet.
    pub fn sign(&mut self, what: impl Into<SignRequest>) -> Result<SealedValue> {
        match self.next() {
            None => Err(Leave::with(Exit::Sign(what.into()))),
            Some(Reply::Signed(signature)) => Ok(signature),
            Some(Reply::Response(_) | Reply::Unreached(_)) => {
                Err(diverged("a signature was answered by a response"))
            }
        }
    }

    /// Begins a JWT signed with the secret `key`: issued now, good for five minutes, with an unguessable `jti`.
    pub fn assertion(&self, key: impl Into<String>) -> Assertion {
        Assertion::new(key.into(), self.now, &self.entropy, self.taken)
    }

    fn next(&mut self) -> Option<Reply> {
        let reply = self.replies.next()?;
        self.taken += 1;
        Some(reply)
    }
}

// === impl Leave ===

impl From<Refusal> for Leave {
    fn from(refusal: Refusal) -> Self {
        Self::with(Exit::Refused(refusal))
    }
}

impl Leave {
    /// Boxed, so that a result stays small.
    fn with(exit: Exit) -> Self {
        Self(Box::new(exit))
    }

    pub(crate) fn into_exit(self) -> Exit {
        *self.0
    }
}

/// Replies do not fit the steps taken: the plugin is not a pure function of its arguments.
fn diverged(message: &str) -> Leave {
    Refusal::Other(Reason::new("replay_diverged", message)).into()
}
