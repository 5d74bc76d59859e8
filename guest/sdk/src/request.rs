//! Shapes of requests: segments, and builder methods on the contract's own record.
//!
//! Nothing here encodes anything: the host percent-encodes, quotes and writes headers, because only it knows the
//! values.

use crate::bindings::provider::types::{
    Answer, Auth, Basic, BasicEncoding, Body, Capture, Field, Holds, HttpRequest, SealedValue,
    SecretRef, Segment,
};

/// Names a secret of the provider's `secrets` table.
pub fn secret(name: impl Into<String>) -> Segment {
    Segment::Secret(SecretRef { name: name.into() })
}

/// A value made of segments, written one after the other: `["token ".into(), sealed.into()]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Value(Vec<Segment>);

// === impl Segment ===

impl From<&str> for Segment {
    fn from(text: &str) -> Self {
        Self::Literal(text.to_owned())
    }
}

impl From<String> for Segment {
    fn from(text: String) -> Self {
        Self::Literal(text)
    }
}

impl From<SealedValue> for Segment {
    fn from(sealed: SealedValue) -> Self {
        Self::Sealed(sealed)
    }
}

impl From<&SealedValue> for Segment {
    fn from(sealed: &SealedValue) -> Self {
        Self::Sealed(sealed.clone())
    }
}

// === impl Value ===

impl<S: Into<Segment>> From<S> for Value {
    fn from(segment: S) -> Self {
        Self(vec![segment.into()])
    }
}

impl From<&String> for Value {
    fn from(text: &String) -> Self {
        text.as_str().into()
    }
}

impl<const N: usize> From<[Segment; N]> for Value {
    fn from(segments: [Segment; N]) -> Self {
        Self(segments.into())
    }
}

impl From<Vec<Segment>> for Value {
    fn from(segments: Vec<Segment>) -> Self {
        Self(segments)
    }
}

// === impl HttpRequest ===

impl HttpRequest {
    /// A `GET` of `url`, which has no query: see [`query`](Self::query).
    pub fn get(url: impl Into<String>) -> Self {
        Self::new("GET", url)
    }

    /// A `POST` to `url`.
    pub fn post(url: impl Into<String>) -> Self {
        Self::new("POST", url)
    }

    /// A `DELETE` of `url`.
    pub fn delete(url: impl Into<String>) -> Self {
        Self::new("DELETE", url)
    }

    /// A request without body whose answer is read as JSON.
    pub fn new(method: impl Into<String>, url: impl Into<String>) -> Self {
        Self {
            method: method.into(),
            url: url.into(),
            query: Vec::new(),
            headers: Vec::new(),
            auth: None,
            body: Body::None,
            answer: Answer::Json,
            captures: Vec::new(),
        }
    }

    /// Adds a query parameter; secrets and sealed values are refused there.
    pub fn query(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.query.push(field(name, value.into()));
        self
    }

    /// Adds a header.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.headers.push(field(name, value));
        self
    }

    /// Authenticates with HTTP Basic, both parts form-encoded as RFC 6749, section 2.3.1, orders.
    pub fn basic(self, user: impl Into<Value>, password: impl Into<Value>) -> Self {
        self.basic_as(BasicEncoding::Form, user, password)
    }

    /// Authenticates with HTTP Basic, bytes as they are, which many servers expect in spite of the RFC.
    pub fn basic_raw(self, user: impl Into<Value>, password: impl Into<Value>) -> Self {
        self.basic_as(BasicEncoding::Raw, user, password)
    }

    fn basic_as(
        mut self,
        encoding: BasicEncoding,
        user: impl Into<Value>,
        password: impl Into<Value>,
    ) -> Self {
        let (user, password) = (user.into().0, password.into().0);
        self.auth = Some(Auth::Basic(Basic {
            user,
            password,
            encoding,
        }));
        self
    }

    /// Authenticates with a bearer token (RFC 6750, section 2.1).
    pub fn bearer(mut self, token: impl Into<Value>) -> Self {
        self.auth = Some(Auth::Bearer(token.into().0));
        self
    }

    /// Adds a form member; the body becomes a form.
    pub fn form(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        let member = field(name, value);
        match &mut self.body {
            Body::Form(members) => members.push(member),
            other => *other = Body::Form(vec![member]),
        }
        self
    }

    /// Adds a form member where there is a value for it.
    pub fn form_if(self, name: impl Into<String>, value: Option<impl Into<Value>>) -> Self {
        match value {
            Some(value) => self.form(name, value),
            None => self,
        }
    }

    /// Sends JSON: literals are JSON source, a secret or sealed segment becomes one quoted string.
    pub fn json(mut self, source: impl Into<Value>) -> Self {
        self.body = Body::Json(source.into().0);
        self
    }

    /// Sends plain text.
    pub fn text(mut self, text: impl Into<Value>) -> Self {
        self.body = Body::Text(text.into().0);
        self
    }

    /// Asks for JSON, and reads the answer as JSON.
    pub fn accept_json(mut self) -> Self {
        self.answer = Answer::Json;
        self.header("accept", "application/json")
    }

    /// Reads the answer as a form, as a few early OAuth servers send it.
    pub fn answered_by_form(mut self) -> Self {
        self.answer = Answer::Form;
        self
    }

    /// Reads status and headers of the answer only.
    pub fn answered_by_status(mut self) -> Self {
        self.answer = Answer::Withheld;
        self
    }

    /// Says what a member of the answer holds. The members of RFC 6749, section 5.1, need no such line.
    pub fn capture(mut self, at: impl Into<String>, holds: Holds) -> Self {
        self.captures.push(Capture {
            at: at.into(),
            holds,
        });
        self
    }

    /// Whether `sealed` would leave the host with this request.
    pub(crate) fn carries(&self, sealed: &SealedValue) -> bool {
        self.segments()
            .any(|segment| matches!(segment, Segment::Sealed(value) if value == sealed))
    }

    /// Every segment, wherever it stands.
    pub(crate) fn segments(&self) -> impl Iterator<Item = &Segment> {
        let (user, password): (&[Segment], &[Segment]) = match &self.auth {
            Some(Auth::Basic(basic)) => (&basic.user, &basic.password),
            Some(Auth::Bearer(token)) => (token, &[]),
            None => (&[], &[]),
        };
        let (members, source): (&[Field], &[Segment]) = match &self.body {
            Body::None => (&[], &[]),
            Body::Form(members) => (members, &[]),
            Body::Json(source) | Body::Text(source) => (&[], source),
        };
        let fields = self.query.iter().chain(&self.headers).chain(members);
        fields
            .flat_map(|field| &field.value)
            .chain(user)
            .chain(password)
            .chain(source)
    }
}

fn field(name: impl Into<String>, value: impl Into<Value>) -> Field {
    Field {
        name: name.into(),
        value: value.into().0,
    }
}
