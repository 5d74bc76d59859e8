//! A plugin that misbehaves on request: provider and policy in one component, against the raw contract.
//!
//! What a call does is the word in its `settings`, alone or as the member `do` of an object, with further members beside
//! it. What happens before there are settings (at start, in `describe`) is
//! a word in the binary itself, which the test kit overwrites: one build serves for every kind of liar.

// For the sandbox only: on the machine itself the crate is empty.
#![cfg(target_arch = "wasm32")]

use std::cell::Cell;
use std::hint::black_box;

#[expect(
    unsafe_code,
    reason = "generated: the calling convention of components is raw pointers"
)]
mod contract {
    wit_bindgen::generate!({
        inline: "
            package keyfob:hostile;
            world plugin {
                export keyfob:types/types@0.1.0;
                export keyfob:provider/provider@0.1.0;
                export keyfob:policy/policy@0.1.0;
            }
        ",
        path: ["../../../wit/types", "../../../wit/provider", "../../../wit/policy"],
        world: "keyfob:hostile/plugin",
        generate_all,
    });
    export!(Hostile with_types_in self);
    use super::Hostile;
}

use contract::exports::keyfob::policy::policy;
use contract::exports::keyfob::provider::provider;
use contract::exports::keyfob::types::types;

/// Where the kit writes what to do before there are settings: 16 bytes of mark, 16 of word, padded with spaces.
#[used]
static BIRTH: [u8; 32] = *b"HOSTILE-AT-BIRTHhonest          ";

/// What the host looks for after a trap: the mark, the length, the text.
const PANIC_MARK: &[u8; 16] = b"KEYFOB-PANIC-V1\0";

thread_local! {
    /// Never beyond one where every call meets a fresh instance.
    static CALLS: Cell<u32> = const { Cell::new(0) };
}

struct Hostile;

/// Runs before any export, as part of instantiation.
#[expect(unsafe_code, reason = "the name is what makes the host call it")]
#[unsafe(no_mangle)]
extern "C" fn _initialize() {
    if birth() == "endless-start" {
        spin();
    }
}

fn birth() -> &'static str {
    let word = &black_box(&BIRTH)[16..];
    std::str::from_utf8(word).map_or("", str::trim_end)
}

/// Does what is asked, and leaves the rest to the caller.
fn misbehave(word: &str) {
    std::panic::set_hook(Box::new(last_words));
    CALLS.set(CALLS.get() + 1);
    match word {
        "loop" => spin(),
        "panic" => panic!("told to\r\n\u{1b}[31mpanic"),
        "panic-at-length" => panic!("{}", "long ".repeat(1000)),
        "allocate" | "hog" => hoard(),
        "recurse" => {
            black_box(descend(black_box(1)));
        }
        "trap" => core::arch::wasm32::unreachable(),
        _ => {}
    }
}

#[expect(clippy::empty_loop, reason = "that is what it is for")]
fn spin() -> ! {
    loop {}
}

fn hoard() {
    let mut kept = Vec::new();
    loop {
        kept.push(vec![black_box(1_u8); 1 << 20]);
    }
}

fn descend(depth: u64) -> u64 {
    if black_box(depth) == 0 {
        0
    } else {
        descend(depth + 1) + black_box(1)
    }
}

/// Writes the panic where the host finds it. Leaked on purpose: the instance ends here.
fn last_words(info: &std::panic::PanicHookInfo<'_>) {
    let text = info.to_string();
    let text = text.get(..1000).unwrap_or(&text);
    let mut buffer = PANIC_MARK.to_vec();
    buffer.extend((text.len() as u32).to_le_bytes());
    buffer.extend(text.as_bytes());
    black_box(Box::leak(buffer.into_boxed_slice()));
}

/// A member of a JSON object whose value is a plain string. Good enough for what the kit writes and the host answers.
fn member<'j>(json: &'j str, name: &str) -> Option<&'j str> {
    let (_, rest) = json.split_once(&format!("\"{name}\""))?;
    let rest = rest.trim_start().strip_prefix(':')?.trim_start();
    Some(rest.strip_prefix('"')?.split_once('"')?.0)
}

/// What to do: the member `do`, or the settings themselves.
fn word(settings: &str) -> &str {
    member(settings, "do").unwrap_or(settings)
}

/// Where the token endpoint is, by the settings.
fn token_url(settings: &str) -> &str {
    member(settings, "token_url").unwrap_or("https://login.example/token")
}

fn literal(text: &str) -> Vec<types::Segment> {
    vec![types::Segment::Literal(text.into())]
}

fn secret(name: &str) -> Vec<types::Segment> {
    vec![types::Segment::Secret(types::SecretRef {
        name: name.into(),
    })]
}

fn field(name: &str, value: Vec<types::Segment>) -> types::Field {
    types::Field {
        name: name.into(),
        value,
    }
}

fn sealed(handle: &str) -> types::SealedValue {
    types::SealedValue {
        handle: handle.into(),
    }
}

fn reason(code: &str, message: &str) -> types::Reason {
    types::Reason {
        code: code.into(),
        message: message.into(),
    }
}

/// The answer to `describe` in four parts, true or not.
fn description() -> [String; 4] {
    let mut parts = [
        "hostile",
        "1.2.3",
        "Misbehaves on request",
        r#"{"type":"object"}"#,
    ]
    .map(String::from);
    match birth() {
        "lie-name" => parts[0] = "Hostile; DROP".into(),
        "lie-version" => parts[1] = "latest".into(),
        "lie-summary" => parts[2] = "line\nbreak".into(),
        "lie-schema" => parts[3] = "no JSON".into(),
        "huge-describe" => parts[2] = "s".repeat(4 << 20),
        word => misbehave(word),
    }
    parts
}

fn request(settings: &str) -> types::HttpRequest {
    types::HttpRequest {
        method: "POST".into(),
        url: token_url(settings).into(),
        query: Vec::new(),
        headers: Vec::new(),
        auth: Some(types::Auth::Basic(types::Basic {
            user: literal(member(settings, "client_id").unwrap_or("me")),
            password: secret("client_secret"),
            encoding: types::BasicEncoding::Form,
        })),
        body: types::Body::Form(vec![field("grant_type", literal("client_credentials"))]),
        answer: types::Answer::Json,
        captures: vec![types::Capture {
            at: "/id".into(),
            holds: types::Holds::IdToken,
        }],
    }
}

fn tokens(handle: &str) -> provider::TokenSet {
    provider::TokenSet {
        access_token: sealed(handle),
        token_type: "Bearer".into(),
        expires: provider::Expiry::FromAnswer(60),
        scopes: Some(vec!["a".into()]),
        refresh_token: None,
        extra: vec![(
            "instance_url".into(),
            provider::ExtraValue::Text("x".into()),
        )],
        held: Vec::new(),
        memo: vec![("calls".into(), CALLS.get().to_string())],
    }
}

/// What a plugin that means harm tries at a real issuer.
fn scheme(
    call: &provider::Call,
    word: &str,
    mut request: types::HttpRequest,
    replies: &[types::Reply],
) -> Result<provider::Step, provider::Refusal> {
    if birth() == "refresh-traps" && !replies.is_empty() {
        misbehave("trap");
    }
    request.captures.clear();
    let body = match replies.last() {
        Some(types::Reply::Response(response)) => std::str::from_utf8(&response.body).unwrap_or(""),
        _ => "",
    };
    let echo = || {
        vec![types::Segment::Sealed(sealed(
            member(body, "echo").unwrap_or(""),
        ))]
    };
    match (word, replies.len()) {
        ("header-value", 0) => request.headers = vec![field("x-a", literal("b\r\nx-evil: 1"))],
        ("header-name", 0) => request.headers = vec![field("x-a\r\nx-evil", literal("1"))],
        ("target", 0) => request.url = member(&call.settings, "target").unwrap_or("").into(),
        ("other-secret", 0) => request.headers = vec![field("x-a", secret("another_secret"))],
        ("secret-in-header", 0) => request.headers = vec![field("x-a", secret("client_secret"))],
        ("secret-in-query", 0) => request.query = vec![field("a", secret("client_secret"))],
        ("secret-twice", 0) => {
            let mut form = vec![field("grant_type", literal("client_credentials"))];
            form.push(field("copy", secret("client_secret")));
            request.body = types::Body::Form(form);
        }
        ("foreign-handle", 0) => {
            let made_up = types::Segment::Sealed(sealed("sealed:00000000000000000000000000000000"));
            request.headers = vec![field("x-a", vec![made_up])];
        }
        ("kept-handle", 0) => {
            if let Some((_, handle)) = call.memo.first() {
                let kept = types::Segment::Sealed(sealed(handle));
                request.headers = vec![field("x-a", vec![kept])];
            }
        }
        ("early", 0) => return Ok(provider::Step::Done(tokens("sealed:early"))),
        ("echo-refusal", 1) => {
            return Err(provider::Refusal::Other(reason("echo", body)));
        }
        ("echo-next", 1) => request.headers = vec![field("x-a", literal(body))],
        ("echo-handle-query", 1) => request.query = vec![field("a", echo())],
        ("echo-handle-form", 1) => {
            request.body = types::Body::Form(vec![field("a", echo())]);
        }
        ("endless", _) => {}
        (_, 0) => {}
        _ => {
            let mut set = tokens(member(body, "access_token").unwrap_or("sealed:none"));
            set.scopes = None;
            set.extra = match word {
                "echo-extra" => {
                    let value = sealed(member(body, "echo").unwrap_or(""));
                    vec![("echo".into(), provider::ExtraValue::Sealed(value))]
                }
                "echo-text" => vec![("echo".into(), provider::ExtraValue::Text(body.into()))],
                "extra" => vec![("surplus".into(), provider::ExtraValue::Text("x".into()))],
                _ => Vec::new(),
            };
            set.memo = match word {
                "kept-handle" => {
                    let handle = member(body, "access_token").unwrap_or("");
                    vec![("handle".into(), handle.into())]
                }
                _ => Vec::new(),
            };
            if word == "echo-token" {
                set.access_token = sealed(member(body, "echo").unwrap_or(""));
            }
            return Ok(provider::Step::Done(set));
        }
    }
    Ok(provider::Step::Send(request))
}

impl provider::Guest for Hostile {
    fn describe() -> provider::Description {
        let [name, version, summary, settings_schema] = description();
        provider::Description {
            name,
            version,
            summary,
            settings_schema,
        }
    }

    fn configure(settings: String) -> Result<provider::Needs, Vec<provider::Mistake>> {
        let at_birth = birth();
        misbehave(
            at_birth
                .strip_prefix("configure-")
                .unwrap_or(word(&settings)),
        );
        let mistake = provider::Mistake {
            at: "/token_url".into(),
            message: "missing".into(),
            fix: "token_url = \"https://…\"".into(),
        };
        if settings == "mistakes" || at_birth == "mistaken" {
            return Err(vec![mistake]);
        }
        if settings == "refuse-silently" {
            return Err(Vec::new());
        }
        let mut needs = provider::Needs {
            secrets: vec!["client_secret".into()],
            destinations: vec![token_url(&settings).into()],
            readable: Vec::new(),
            exposes: Vec::new(),
            rotation: provider::Rotation::Grace,
            grace_seconds: Some(CALLS.get()),
        };
        match at_birth {
            "widen-to" => needs.destinations.push("https://evil.example/token".into()),
            "widen-secrets" => needs.secrets.push("another_secret".into()),
            "widen-readable" => needs.readable.push("email".into()),
            "widen-exposes" => needs.exposes.push("instance_url".into()),
            _ => {}
        }
        if !settings.starts_with('{') || settings == "{}" {
            needs.readable.push("error".into());
            needs.exposes.push("instance_url".into());
        }
        Ok(needs)
    }

    fn refresh(
        call: provider::Call,
        replies: Vec<types::Reply>,
    ) -> Result<provider::Step, provider::Refusal> {
        let word = word(&call.settings);
        if let Some(word) = word.strip_prefix("then-") {
            // Only once there is an answer to lose.
            if !replies.is_empty() {
                misbehave(word);
            }
        }
        misbehave(word);
        let mut request = request(&call.settings);
        if call.settings.starts_with('{') && word != "{}" {
            return scheme(&call, word, request, &replies);
        }
        match (word, replies.last()) {
            ("huge-answer", _) => request.url = "u".repeat(8 << 20),
            ("huge-list", _) => {
                request.captures = vec![
                    types::Capture {
                        at: String::new(),
                        holds: types::Holds::Other
                    };
                    1 << 16
                ]
            }
            ("many-headers", _) => {
                request.headers = vec![
                    types::Field {
                        name: "x".into(),
                        value: Vec::new()
                    };
                    65
                ]
            }
            ("refuse", _) => {
                let reason = reason("outage", "later\r\nperhaps");
                let later = provider::Later {
                    reason,
                    after_seconds: Some(7),
                };
                return Err(provider::Refusal::Transient(later));
            }
            (_, Some(types::Reply::Response(response))) => {
                let handle = std::str::from_utf8(&response.body).unwrap_or("not UTF-8");
                return Ok(provider::Step::Done(tokens(handle)));
            }
            (_, Some(types::Reply::Signed(value))) => {
                return Ok(provider::Step::Done(tokens(&value.handle)));
            }
            _ => {}
        }
        Ok(provider::Step::Send(request))
    }

    fn revoke(
        what: provider::Revocation,
        _replies: Vec<types::Reply>,
    ) -> Result<provider::RevokeStep, provider::Refusal> {
        misbehave(word(&what.call.settings));
        Ok(provider::RevokeStep::Unsupported)
    }

    fn classify(rejection: provider::Rejection) -> provider::Verdict {
        misbehave(word(&rejection.settings));
        match rejection.status {
            401 => provider::Verdict::TokenDead,
            403 => provider::Verdict::ScopeMissing,
            _ => provider::Verdict::Unrelated,
        }
    }
}

impl policy::Guest for Hostile {
    fn describe() -> policy::Description {
        let [name, version, summary, settings_schema] = description();
        policy::Description {
            name,
            version,
            summary,
            settings_schema,
        }
    }

    fn decide(query: policy::Query) -> Result<policy::Allowance, types::Reason> {
        misbehave(word(&query.settings));
        match query.settings.as_str() {
            _ if birth() == "deny" => Err(reason("closed", "nobody gets anything")),
            "deny" => Err(reason("not_listed", "no rule names this caller")),
            _ => Ok(policy::Allowance {
                scopes: query.scopes,
                partial: false,
                max_lifetime_seconds: Some(30),
                remember_for_seconds: None,
            }),
        }
    }
}
