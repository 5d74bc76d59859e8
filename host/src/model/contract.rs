//! The plugin contract as the host speaks it: the types of `wit/`, and the two traits behind which every version of it
//! sits.
//!
//! The names are the contract's. A new version of a package gets an adapter that implements these traits; nothing else
//! in the host knows that versions exist. Limits are checked where a value is used (`seal`, `flow`), not here.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// A boxed future, as object-safe traits need it.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Stands for a value held back; means something in one flow only.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SealedValue {
    /// Opaque text.
    pub handle: String,
}

/// Why something was refused: `code` from the plugin's closed set, `message` for operators only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// A metric label.
    pub code: String,
    /// For operators.
    pub message: String,
}

/// A piece of a value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Segment {
    /// The plugin's own text.
    Literal(String),
    /// A secret of the provider, by name.
    Secret(String),
    /// A value of this flow, by handle.
    Sealed(SealedValue),
}

/// A query parameter, header or form member.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// Its value, piece by piece.
    pub value: Vec<Segment>,
}

/// How the parts of HTTP Basic are encoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BasicEncoding {
    /// RFC 6749, section 2.3.1.
    Form,
    /// Bytes as they are.
    Raw,
}

/// What goes into `Authorization`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Auth {
    /// RFC 7617.
    Basic {
        /// User part.
        user: Vec<Segment>,
        /// Password part.
        password: Vec<Segment>,
        /// How both are encoded.
        encoding: BasicEncoding,
    },
    /// RFC 6750, section 2.1.
    Bearer(Vec<Segment>),
}

/// A request body.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Body {
    /// No body.
    None,
    /// `application/x-www-form-urlencoded`.
    Form(Vec<Field>),
    /// JSON source with values between.
    Json(Vec<Segment>),
    /// Plain text.
    Text(Vec<Segment>),
}

/// What a captured member is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Holds {
    /// An access token.
    AccessToken,
    /// A refresh token.
    RefreshToken,
    /// An ID token.
    IdToken,
    /// Something else.
    Other,
}

/// A member of the answer to be captured.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Capture {
    /// JSON pointer or form member.
    pub at: String,
    /// What it is.
    pub holds: Holds,
}

/// How the answer is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AnswerFormat {
    /// RFC 8259.
    Json,
    /// Form encoding.
    Form,
    /// Not at all.
    Withheld,
}

/// The shape of a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HttpRequest {
    /// HTTP method.
    pub method: String,
    /// Absolute URL without user, query or fragment.
    pub url: String,
    /// Query parameters.
    pub query: Vec<Field>,
    /// Headers.
    pub headers: Vec<Field>,
    /// The `Authorization` header.
    pub auth: Option<Auth>,
    /// The body.
    pub body: Body,
    /// How the answer is read.
    pub answer: AnswerFormat,
    /// What to capture from it.
    pub captures: Vec<Capture>,
}

/// An answer after sealing.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpResponse {
    /// HTTP status.
    pub status: u16,
    /// Headers on the host's list, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The sealed body.
    pub body: Vec<u8>,
    /// Why the body is missing.
    pub note: Option<String>,
}

/// How signature bytes become text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BytesEncoding {
    /// Lower-case hexadecimal.
    Hex,
    /// RFC 4648, section 4, padded.
    Base64,
    /// RFC 4648, section 5, no padding.
    Base64Url,
}

/// What to sign.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SignRequest {
    /// A JWT (RFC 7519).
    Jwt {
        /// The secret that is the key.
        key: String,
        /// JSON object of header parameters.
        header: String,
        /// JSON object of claims.
        claims: String,
    },
    /// Bytes.
    Bytes {
        /// The secret that is the key.
        key: String,
        /// What is signed.
        payload: Vec<Segment>,
        /// How the signature is written.
        encoding: BytesEncoding,
    },
}

/// What a step led to.
#[derive(Clone, PartialEq, Eq)]
pub enum Reply {
    /// An answer.
    Response(HttpResponse),
    /// A signature.
    Signed(SealedValue),
    /// Provably not sent.
    Unreached(Reason),
}

/// Why a flow runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Cause {
    /// No token is held.
    First,
    /// The one held ends soon.
    Expiring,
    /// A resource refused it.
    Rejected,
    /// An operator asked.
    Operator,
}

/// What is to be obtained; the same in every call of a flow.
#[derive(Clone)]
pub struct Call {
    /// Unix seconds.
    pub now: u32,
    /// 32 random bytes.
    pub entropy: Vec<u8>,
    /// Settings as a JSON object.
    pub settings: Arc<str>,
    /// Tenant.
    pub tenant: String,
    /// Subject; none is the own account.
    pub subject: Option<String>,
    /// Sorted scopes.
    pub scopes: Vec<String>,
    /// Audience or resource.
    pub audience: Option<String>,
    /// The grant held.
    pub refresh_token: Option<SealedValue>,
    /// Sealed values kept.
    pub held: Vec<(String, SealedValue)>,
    /// Plain values kept.
    pub memo: Vec<(String, String)>,
    /// Why.
    pub cause: Cause,
}

/// When the access token ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expiry {
    /// Seconds of life.
    FromAnswer(u32),
    /// Unix seconds.
    At(u32),
    /// Not stated.
    Unknown,
}

/// A further member for callers.
#[derive(Clone, PartialEq, Eq)]
pub enum ExtraValue {
    /// Plain text.
    Text(String),
    /// A value of an answer.
    Sealed(SealedValue),
}

/// What a flow obtained, by handle.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenSet {
    /// The access token.
    pub access_token: SealedValue,
    /// RFC 6749, section 7.1.
    pub token_type: String,
    /// When it ends.
    pub expires: Expiry,
    /// Granted scopes, if said.
    pub scopes: Option<Vec<String>>,
    /// New grant, if any.
    pub refresh_token: Option<SealedValue>,
    /// Further members for callers.
    pub extra: Vec<(String, ExtraValue)>,
    /// Sealed values to keep.
    pub held: Vec<(String, SealedValue)>,
    /// Plain values to keep.
    pub memo: Vec<(String, String)>,
}

/// What a plugin wants next.
#[derive(Clone, PartialEq, Eq)]
pub enum Step {
    /// Send this.
    Send(HttpRequest),
    /// Sign this.
    Sign(SignRequest),
    /// Finished.
    Done(TokenSet),
}

/// What a plugin wants next when revoking.
#[derive(Clone, PartialEq, Eq)]
pub enum RevokeStep {
    /// Send this.
    Send(HttpRequest),
    /// Sign this.
    Sign(SignRequest),
    /// Finished.
    Done,
    /// This upstream cannot revoke.
    Unsupported,
}

/// What a rate limit covers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Limited {
    /// One user's grant.
    Grant,
    /// The whole client.
    Client,
}

/// Why there is no token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The grant is dead.
    Reauthorize(Reason),
    /// An operator must act.
    Misconfigured(Reason),
    /// Later may succeed.
    Transient {
        /// Why.
        reason: Reason,
        /// When, if the server said.
        after: Option<Duration>,
    },
    /// Too many requests.
    RateLimited {
        /// When, if the server said.
        after: Option<Duration>,
        /// What is limited.
        scope: Limited,
    },
    /// The grant may have been spent.
    InDoubt(Reason),
    /// None of these.
    Other(Reason),
}

/// What is known of a server's refresh tokens.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rotation {
    /// Nothing.
    #[default]
    Unknown,
    /// They stay.
    Never,
    /// Each is good once.
    SingleUse,
    /// The old one stays good for a while.
    Grace,
}

/// Who a plugin says it is.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Description {
    /// `a-z`, `0-9`, `-`.
    pub name: String,
    /// Semantic version.
    pub version: String,
    /// One line.
    pub summary: String,
    /// JSON Schema of the settings.
    pub settings_schema: String,
}

/// What a plugin needs under its settings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Secret names.
    pub secrets: Vec<String>,
    /// Origins with paths.
    pub destinations: Vec<String>,
    /// Answer members to read.
    pub readable: Vec<String>,
    /// Members callers may get.
    pub exposes: Vec<String>,
    /// What is known of refresh tokens.
    pub rotation: Rotation,
    /// With [`Rotation::Grace`].
    pub grace: Option<Duration>,
}

/// One thing wrong with settings.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Mistake {
    /// JSON pointer.
    pub at: String,
    /// What is wrong.
    pub message: String,
    /// What to write.
    pub fix: String,
}

/// What to revoke.
#[derive(Clone)]
pub struct Revocation {
    /// As for a refresh.
    pub call: Call,
    /// The token.
    pub token: SealedValue,
    /// What it is.
    pub holds: Holds,
}

/// How a resource refused a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// HTTP status.
    pub status: u16,
    /// The header, if any.
    pub www_authenticate: Option<String>,
    /// Settings as a JSON object.
    pub settings: Arc<str>,
}

/// What a refusal by a resource means.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Verdict {
    /// Another token is needed.
    TokenDead,
    /// Another would not help.
    ScopeMissing,
    /// Not about the token.
    Unrelated,
}

/// What a policy is asked.
#[derive(Clone, Debug)]
pub struct Query {
    /// Unix seconds.
    pub now: u32,
    /// Tenant.
    pub tenant: String,
    /// The caller's name.
    pub caller: String,
    /// What authentication learned.
    pub attributes: Vec<(String, String)>,
    /// Provider.
    pub provider: String,
    /// Subject; none is the own account.
    pub subject: Option<String>,
    /// Sorted scopes.
    pub scopes: Vec<String>,
    /// Audience.
    pub audience: Option<String>,
    /// This caller's rules as JSON.
    pub settings: Arc<str>,
}

/// What a policy allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// A subset of those asked for.
    pub scopes: Vec<String>,
    /// Fewer than asked for are meant.
    pub partial: bool,
    /// Hand out no longer than this.
    pub max_lifetime: Option<Duration>,
    /// How long the decision holds.
    pub remember_for: Option<Duration>,
}

/// How a plugin failed to answer. The words are operators' only and hold no secret: a plugin never had one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PluginFault {
    /// It trapped: panic text or trap reason.
    Trap(String),
    /// It used up its CPU budget or wall time.
    Deadline(&'static str),
    /// It hit a limit: `memory`, `table`, `answer` …
    Limit(&'static str),
    /// It answered something the contract forbids.
    Broken(String),
    /// The host could not run it.
    Host(String),
}

/// A provider plugin, whatever version of the contract it speaks. Every method meets a fresh instance.
pub trait ProviderPlugin: Send + Sync + fmt::Debug {
    /// Who it said it is when it was loaded, checked against the bounds of the contract.
    fn description(&self) -> &Description;

    /// SHA-256 of its bytes, lower-case hexadecimal.
    fn digest(&self) -> &str;

    /// Reads settings.
    fn configure<'a>(
        &'a self,
        settings: &'a str,
    ) -> BoxFuture<'a, Result<Result<Needs, Vec<Mistake>>, PluginFault>>;

    /// Given the call and every reply so far, what next?
    fn refresh<'a>(
        &'a self,
        call: &'a Call,
        replies: &'a [Reply],
    ) -> BoxFuture<'a, Result<Result<Step, Refusal>, PluginFault>>;

    /// The same for a revocation.
    fn revoke<'a>(
        &'a self,
        what: &'a Revocation,
        replies: &'a [Reply],
    ) -> BoxFuture<'a, Result<Result<RevokeStep, Refusal>, PluginFault>>;

    /// What a refusal by a resource means.
    fn classify<'a>(
        &'a self,
        rejection: &'a Rejection,
    ) -> BoxFuture<'a, Result<Verdict, PluginFault>>;
}

/// A policy plugin, whatever version of the contract it speaks.
pub trait PolicyPlugin: Send + Sync + fmt::Debug {
    /// Who it said it is when it was loaded.
    fn description(&self) -> &Description;

    /// SHA-256 of its bytes, lower-case hexadecimal.
    fn digest(&self) -> &str;

    /// Decides one request.
    fn decide<'a>(
        &'a self,
        query: &'a Query,
    ) -> BoxFuture<'a, Result<Result<Allowance, Reason>, PluginFault>>;
}

// === impl PluginFault ===

impl PluginFault {
    /// A closed label: `trap`, `deadline`, `limit`, `broken`, `host`.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Trap(_) => "trap",
            Self::Deadline(_) => "deadline",
            Self::Limit(_) => "limit",
            Self::Broken(_) => "broken",
            Self::Host(_) => "host",
        }
    }
}

impl fmt::Display for PluginFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Trap(text) => write!(f, "the plugin trapped: {text}"),
            Self::Deadline(which) => write!(f, "the plugin used up its {which}"),
            Self::Limit(which) => write!(f, "the plugin went over its {which} limit"),
            Self::Broken(text) => write!(f, "the plugin broke the contract: {text}"),
            Self::Host(text) => write!(f, "the plugin could not be run: {text}"),
        }
    }
}

impl std::error::Error for PluginFault {}

// === impl SealedValue ===

impl fmt::Debug for SealedValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sealed")
    }
}
