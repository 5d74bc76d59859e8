//! Calls against the planes: first through the router alone, then over real sockets.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use http::{HeaderMap, HeaderValue, Method, Request};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tower::ServiceExt;

use super::*;
use crate::daemon::config::{self, Listen};
use crate::daemon::environment::Environment;
use crate::model::time::SystemClock;

const CALLER: &str = "Bearer billing-key-0123456789";
const ADMIN: &str = "Bearer admin-key-0123456789";
const READER: &str = "Bearer reader-key-0123456789";

const CONFIG: &str = r#"
server = { admin_key = { env = "ADMIN" } }
[callers.billing]
key = { env = "BILLING" }
allow = []
[admins.reader]
key = { env = "READER" }
role = "read"
"#;

/// Keeps every line that operators would see.
#[derive(Default)]
struct Heard(Mutex<Vec<String>>);

impl Observer for Heard {
    fn observe(&self, event: &Event) {
        self.0.lock().unwrap().push(format!("{event:?}"));
    }
}

struct Kit {
    front: Arc<Front>,
    heard: Arc<Heard>,
}

async fn kit() -> Kit {
    let environment: Environment =
        Arc::new(|name| Some(format!("{}-key-0123456789", name.to_lowercase())));
    let config = config::parse(Path::new("k.toml"), CONFIG).unwrap().config;
    let (directory, _) = Directory::load(&config, &environment).unwrap();
    let broker = Broker::builder()
        .settings(config.broker.clone())
        .build()
        .await
        .unwrap();
    let heard = Arc::new(Heard::default());
    let live = Live::new(&config, directory, None);
    let front = Front::new(broker, Arc::new(SystemClock), heard.clone(), live);
    Kit { front, heard }
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Value,
}

async fn ask(plane: Served, request: Request<Body>) -> Answer {
    let (Served::Data(_, router) | Served::Routed(router)) = plane;
    let response = router.oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
    Answer {
        status: parts.status.as_u16(),
        headers: parts.headers,
        body,
    }
}

fn call(method: Method, path: &str, key: &str, body: &'static str) -> Request<Body> {
    Request::builder()
        .method(method)
        .uri(path)
        .header(header::AUTHORIZATION, key)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from(body))
        .unwrap()
}

fn post_token(body: &'static str) -> Request<Body> {
    call(Method::POST, "/v1/token", CALLER, body)
}

#[track_caller]
fn assert_problem(answer: &Answer, status: u16, slug: &str) {
    assert_eq!(answer.status, status, "{}", answer.body);
    assert_eq!(
        answer.headers[header::CONTENT_TYPE],
        "application/problem+json"
    );
    assert_eq!(answer.headers[header::CACHE_CONTROL], "no-store");
    assert_eq!(answer.body["type"], format!("urn:keyfob:problem:{slug}"));
    assert_eq!(answer.body["status"], status);
    assert!(answer.body["title"].is_string() && answer.body["detail"].is_string());
    assert_eq!(answer.body["correlation_id"].as_str().unwrap().len(), 16);
}

#[tokio::test]
async fn odd_input_is_answered_with_a_problem_that_names_it() {
    let Kit { front, .. } = kit().await;
    let plane = || data_plane(front.clone());
    let bodies: &[(&str, &str)] = &[
        ("", "too early"),
        ("[]", "one JSON object"),
        ("{", "too early"),
        ("nope", "not JSON"),
        ("{}", "`provider` is missing"),
        (
            "{\"providr\":\"a\"}",
            "`provider` is missing; did you mean it by \"providr\"?",
        ),
        ("{\"provider\":1}", "`provider` must be: a string"),
        ("{\"provider\":\"\"}", "`provider` must be"),
        (
            "{\"provider\":\"a\",\"colour\":1}",
            "unknown member \"colour\"",
        ),
        (
            "{\"provider\":\"a\",\"scopes\":\"x\"}",
            "`scopes` must be: a list",
        ),
        (
            "{\"provider\":\"a\",\"scopes\":[\"a b\"]}",
            "`scopes` must be",
        ),
        ("{\"provider\":\"a\",\"subject\":\"\"}", "`subject` must be"),
        (
            "{\"provider\":\"a\",\"audience\":\"\\n\"}",
            "`audience` must be",
        ),
        (
            "{\"provider\":\"a\",\"min_validity_seconds\":-1}",
            "`min_validity_seconds`",
        ),
        (
            "{\"provider\":\"a\",\"generation\":1}",
            "unknown member \"generation\"",
        ),
    ];
    for (body, words) in bodies {
        let answer = ask(plane(), post_token(body)).await;
        assert_problem(&answer, 400, "invalid_request");
        let detail = answer.body["detail"].as_str().unwrap();
        assert!(detail.contains(words), "{body}: {detail}");
    }
    let rejects: &[(&str, &str)] = &[
        ("{\"provider\":\"a\"}", "`generation` is missing"),
        (
            "{\"provider\":\"a\",\"generation\":0}",
            "`generation` must be",
        ),
        (
            "{\"provider\":\"a\",\"generation\":9007199254740992}",
            "`generation` must be",
        ),
        (
            "{\"provider\":\"a\",\"generation\":1,\"status\":99}",
            "`status` must be",
        ),
        (
            "{\"provider\":\"a\",\"generation\":1,\"outcome\":\"x\"}",
            "unknown member",
        ),
    ];
    for (body, words) in rejects {
        let answer = ask(
            plane(),
            call(Method::POST, "/v1/token/reject", CALLER, body),
        )
        .await;
        assert_problem(&answer, 400, "invalid_request");
        assert!(
            answer.body["detail"].as_str().unwrap().contains(words),
            "{body}"
        );
    }
}

#[tokio::test]
async fn types_sizes_methods_and_paths_have_their_own_answers() {
    let Kit { front, .. } = kit().await;
    let plane = || data_plane(front.clone());
    let mut form = post_token("provider=acme");
    form.headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    assert_problem(&ask(plane(), form).await, 415, "invalid_request");

    let announced = call(Method::POST, "/v1/token", CALLER, "{}");
    let (mut parts, body) = announced.into_parts();
    parts
        .headers
        .insert(header::CONTENT_LENGTH, HeaderValue::from_static("65537"));
    let announced = Request::from_parts(parts, body);
    assert_problem(&ask(plane(), announced).await, 413, "invalid_request");
    let huge = Request::from_parts(
        post_token("").into_parts().0,
        Body::from_stream(futures_util::stream::iter(
            (0..65).map(|_| Ok::<_, Infallible>(vec![b' '; 1024])),
        )),
    );
    assert_problem(&ask(plane(), huge).await, 413, "invalid_request");

    let get = ask(plane(), call(Method::GET, "/v1/token", CALLER, "")).await;
    assert_problem(&get, 405, "method_not_allowed");
    assert_eq!(get.headers[header::ALLOW], "POST");
    for path in [
        "/",
        "/v1",
        "/v1/token/",
        "/v2/token",
        "/admin/v1/providers",
        "/metrics",
        "/%ff",
    ] {
        assert_problem(
            &ask(plane(), call(Method::GET, path, ADMIN, "")).await,
            404,
            "not_found",
        );
    }
}

#[tokio::test]
async fn a_refused_body_is_read_to_its_end_so_that_the_answer_arrives() {
    let Kit { front, .. } = kit().await;
    for (path, key, status) in [
        ("/v1/token", "Bearer x", 401),
        ("/v1/token", CALLER, 413),
        ("/nowhere", CALLER, 404),
    ] {
        let read = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let count = read.clone();
        let chunks = futures_util::stream::iter((0..100).map(move |_| {
            count.fetch_add(1, Ordering::Relaxed);
            Ok::<_, Infallible>(vec![b' '; 1024])
        }));
        let parts = call(Method::POST, path, key, "").into_parts().0;
        let request = Request::from_parts(parts, Body::from_stream(chunks));
        assert_eq!(ask(data_plane(front.clone()), request).await.status, status);
        assert_eq!(read.load(Ordering::Relaxed), 100, "{path} {status}");
    }
}

#[tokio::test]
async fn a_body_that_drips_is_given_up() {
    tokio::time::pause();
    let Kit { front, .. } = kit().await;
    let stuck = Body::from_stream(futures_util::stream::pending::<Result<Vec<u8>, Infallible>>());
    let request = Request::from_parts(post_token("").into_parts().0, stuck);
    assert_problem(
        &ask(data_plane(front), request).await,
        400,
        "invalid_request",
    );
}

#[tokio::test]
async fn who_is_not_known_is_challenged_before_the_body_is_looked_at() {
    let Kit { front, heard } = kit().await;
    let plane = || data_plane(front.clone());
    let mut anonymous = post_token("not json");
    anonymous.headers_mut().remove(header::AUTHORIZATION);
    let answer = ask(plane(), anonymous).await;
    assert_problem(&answer, 401, "unauthenticated");
    assert_eq!(answer.headers[header::WWW_AUTHENTICATE], "Bearer");
    let wrong = ask(
        plane(),
        call(Method::POST, "/v1/token", "Bearer hunter2", "not json"),
    )
    .await;
    assert_problem(&wrong, 401, "unauthenticated");
    assert_eq!(
        wrong.headers[header::WWW_AUTHENTICATE],
        "Bearer error=\"invalid_token\""
    );

    let lines = heard.0.lock().unwrap().concat();
    assert!(
        lines.contains(wrong.body["correlation_id"].as_str().unwrap()),
        "{lines}"
    );
    assert!(!lines.contains("hunter2"));
}

#[tokio::test]
async fn a_flood_of_refusals_does_not_flood_the_log() {
    let Kit { front, heard } = kit().await;
    for _ in 0..1000 {
        ask(
            data_plane(front.clone()),
            call(Method::POST, "/v1/token", "Bearer x", ""),
        )
        .await;
    }
    // The flood may touch a handful of seconds on a slow machine.
    assert!(heard.0.lock().unwrap().len() < 500);
}

#[tokio::test]
async fn an_unknown_provider_is_denied_like_any_other() {
    let Kit { front, .. } = kit().await;
    let answer = ask(data_plane(front), post_token("{\"provider\":\"nowhere\"}")).await;
    assert_problem(&answer, 403, "denied");
}

#[tokio::test]
async fn each_admin_call_takes_an_operator_with_its_role() {
    let Kit { front, .. } = kit().await;
    let plane = || admin_plane(front.clone());
    let calls = [
        (Method::GET, "/admin/v1/providers", true),
        (Method::GET, "/admin/v1/providers/acme", true),
        (Method::GET, "/admin/v1/credentials/acme", true),
        (
            Method::GET,
            "/admin/v1/credentials/acme/u%2Fser?tenant=eu",
            true,
        ),
        (
            Method::GET,
            "/admin/v1/explain/acme?scope=a%20b&subject=u",
            true,
        ),
        (Method::GET, "/metrics", true),
        (Method::PUT, "/admin/v1/providers/acme/plugin", false),
        (Method::POST, "/admin/v1/providers/acme/rollback", false),
        (Method::PUT, "/admin/v1/policy/plugin", false),
        (Method::POST, "/admin/v1/policy/rollback", false),
        (Method::PUT, "/admin/v1/credentials/acme", false),
        (Method::DELETE, "/admin/v1/credentials/acme/user", false),
    ];
    for (method, path, reading) in calls {
        let of = |key| call(method.clone(), path, key, "{}");
        let caller = ask(plane(), of(CALLER)).await;
        assert_problem(&caller, 401, "unauthenticated");
        let reader = ask(plane(), of(READER)).await;
        assert_eq!(
            reader.status == 403,
            !reading,
            "{method} {path}: {}",
            reader.body
        );
        let admin = ask(plane(), of(ADMIN)).await;
        assert!(
            !matches!(admin.status, 401 | 405 | 500),
            "{method} {path}: {}",
            admin.body
        );
    }
    assert_problem(
        &ask(
            plane(),
            call(Method::GET, "/admin/v1/providers/no", ADMIN, ""),
        )
        .await,
        404,
        "unknown_provider",
    );
    let odd = ask(
        plane(),
        call(Method::GET, "/admin/v1/explain/a?colour=red", ADMIN, ""),
    )
    .await;
    assert_problem(&odd, 400, "invalid_request");
    let bytes = ask(
        plane(),
        call(Method::GET, "/admin/v1/credentials/%ff", ADMIN, ""),
    )
    .await;
    assert_problem(&bytes, 400, "invalid_request");
}

#[tokio::test]
async fn a_component_is_named_only_inside_its_directory() {
    let Kit { front, .. } = kit().await;
    let path = "/admin/v1/policy/plugin";
    let none = ask(
        admin_plane(front.clone()),
        call(Method::PUT, path, ADMIN, "{\"name\":\"a\"}"),
    )
    .await;
    assert!(
        none.body["detail"]
            .as_str()
            .unwrap()
            .contains("plugins_dir")
    );

    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("secret"), "x").unwrap();
    let plugins = dir.path().join("plugins");
    std::fs::create_dir(&plugins).unwrap();
    let environment: Environment =
        Arc::new(|name| Some(format!("{}-key-0123456789", name.to_lowercase())));
    let config = config::parse(Path::new("k.toml"), CONFIG).unwrap().config;
    let (directory, _) = Directory::load(&config, &environment).unwrap();
    front.replace(Live {
        directory,
        plugins_dir: Some(plugins),
        ..Live::default()
    });
    for body in [
        "{\"name\":\"../secret\"}",
        "{\"name\":\"/etc/passwd\"}",
        "{\"name\":\"..\"}",
        "{\"name\":\".hidden\"}",
        "{\"name\":\"a\\\\b\"}",
        "{\"name\":\"\"}",
        "{\"name\":\"none.wasm\"}",
        "{}",
    ] {
        let answer = ask(
            admin_plane(front.clone()),
            call(Method::PUT, path, ADMIN, body),
        )
        .await;
        assert_problem(&answer, 400, "invalid_request");
    }
}

#[tokio::test]
async fn health_needs_no_key_and_draining_is_not_ready() {
    let Kit { front, .. } = kit().await;
    let get = |path: &str| Request::get(path).body(Body::empty()).unwrap();
    for plane in [data_plane(front.clone()), admin_plane(front.clone())] {
        assert_eq!(ask(plane.clone(), get("/healthz")).await.status, 200);
        assert_eq!(ask(plane, get("/readyz")).await.body["status"], "ready");
    }
    front.start_draining();
    let ready = ask(data_plane(front.clone()), get("/readyz")).await;
    assert_eq!(
        (ready.status, &ready.body["status"]),
        (503, &Value::from("draining"))
    );
    assert_eq!(ask(data_plane(front), get("/healthz")).await.status, 200);
}

// === over sockets ===

/// A plane that answers `/slow` when it is told to.
async fn slow_plane(go: Arc<tokio::sync::Notify>) -> (Plane, std::net::SocketAddr) {
    let any = Listen::Tcp("127.0.0.1:0".parse().unwrap());
    let listener = Listener::bind(&any).await.unwrap();
    let Ok(Listen::Tcp(address)) = listener.address() else {
        panic!("bound to TCP")
    };
    let slow = move || {
        let go = go.clone();
        async move {
            go.notified().await;
            "done"
        }
    };
    let router = Router::new()
        .route("/slow", get(slow))
        .route("/fast", get(async || "fast"));
    (
        Plane {
            name: "data",
            listener,
            served: Served::Routed(router),
        },
        address,
    )
}

async fn send(address: std::net::SocketAddr, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

async fn to_end(mut stream: impl tokio::io::AsyncRead + Unpin) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

#[tokio::test]
async fn draining_answers_what_is_in_flight_and_what_still_comes() {
    let Kit { front, .. } = kit().await;
    let go = Arc::new(tokio::sync::Notify::new());
    let (plane, address) = slow_plane(go.clone()).await;
    let connections = Connections::default();
    let accepting = connections.accept(&plane, &front);
    let clients = async {
        let mut idle = send(address, "/fast").await;
        let mut first = [0; 1];
        idle.read_exact(&mut first).await.unwrap();
        let slow = send(address, "/slow").await;
        // The answer to a later request says that the slow one has been accepted.
        let mut later = send(address, "/fast").await;
        later.read_exact(&mut first).await.unwrap();
        // Polled first, so that the rest happens while draining.
        let ending = connections.finish(Duration::from_secs(60));
        let during = async {
            assert!(
                to_end(idle).await.ends_with("fast"),
                "an idle connection is closed"
            );
            let late = to_end(send(address, "/fast").await).await;
            assert!(
                late.contains("connection: close") && late.ends_with("fast"),
                "{late}"
            );
            go.notify_one();
            assert!(
                to_end(slow).await.ends_with("done"),
                "what was in flight is answered"
            );
        };
        let (finished, ()) = tokio::join!(ending, during);
        assert!(finished);
    };
    tokio::join!(accepting, clients);
    drop(plane);
    assert!(
        TcpStream::connect(address).await.is_err(),
        "nobody listens any more"
    );
}

#[tokio::test]
async fn draining_does_not_wait_for_ever() {
    let Kit { front, .. } = kit().await;
    let (plane, address) = slow_plane(Arc::default()).await;
    let connections = Connections::default();
    let clients = async {
        let _slow = send(address, "/slow").await;
        let mut first = [0; 1];
        send(address, "/fast")
            .await
            .read_exact(&mut first)
            .await
            .unwrap();
        tokio::time::pause();
        assert!(!connections.finish(Duration::from_secs(20)).await);
    };
    tokio::join!(connections.accept(&plane, &front), clients);
}

#[tokio::test]
async fn a_silent_connection_is_closed() {
    let Kit { front, .. } = kit().await;
    let (plane, address) = slow_plane(Arc::default()).await;
    let connections = Connections::default();
    let clients = async {
        for said in ["", "P", "PRI * HT"] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(said.as_bytes()).await.unwrap();
            tokio::time::pause();
            let closed = tokio::time::timeout(Duration::from_secs(60), to_end(stream)).await;
            assert_eq!(closed.as_deref(), Ok(""), "{said:?}");
            tokio::time::resume();
        }
        connections.finish(Duration::from_secs(60)).await;
    };
    tokio::join!(connections.accept(&plane, &front), clients);
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_one_that_waits_for_its_answer_is_not() {
    let Kit { front, .. } = kit().await;
    let go = Arc::new(tokio::sync::Notify::new());
    let (plane, address) = slow_plane(go.clone()).await;
    let connections = Connections::default();
    let clients = async {
        for said in ["", "GET /fast HT"] {
            let mut idle = send(address, "/fast").await;
            let mut first = [0; 1];
            idle.read_exact(&mut first).await.unwrap();
            // Half a head is no sign of life.
            idle.write_all(said.as_bytes()).await.unwrap();
            tokio::time::pause();
            let began = tokio::time::Instant::now();
            assert!(to_end(idle).await.ends_with("fast"), "{said:?}");
            let idled = began.elapsed().as_secs();
            assert!((30..=41).contains(&idled), "closed after {idled} s");
            tokio::time::resume();
        }
        let slow = send(address, "/slow").await;
        // The answer to a later request says that the slow one has been accepted.
        let mut first = [0; 1];
        let mut later = send(address, "/fast").await;
        later.read_exact(&mut first).await.unwrap();
        tokio::time::pause();
        tokio::time::sleep(Duration::from_secs(300)).await;
        tokio::time::resume();
        go.notify_one();
        let ending = connections.finish(Duration::from_secs(60));
        let (_, answer) = tokio::join!(ending, to_end(slow));
        assert!(answer.ends_with("done"), "{answer}");
    };
    tokio::join!(connections.accept(&plane, &front), clients);
}

#[tokio::test]
async fn a_unix_peer_is_known_by_its_user() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("k.sock");
    let uid = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(dir.path()).unwrap());
    let text = format!(
        "server = {{ listen = \"unix:{}\" }}\n[callers.me]\nuid = {uid}\nallow = []",
        path.display()
    );
    let config = config::parse(&dir.path().join("k.toml"), &text)
        .unwrap()
        .config;
    let nothing: Environment = Arc::new(|_| None);
    let (directory, _) = Directory::load(&config, &nothing).unwrap();
    let Kit { front, .. } = kit().await;
    front.replace(Live::new(&config, directory, None));
    let listener = Listener::bind(&config.server.listen).await.unwrap();
    let plane = Plane {
        name: "data",
        listener,
        served: data_plane(front.clone()),
    };
    let connections = Connections::default();
    let clients = async {
        let mut stream = UnixStream::connect(&path).await.unwrap();
        let body = "{\"provider\":\"x\"}";
        let request = format!(
            "POST /v1/token HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let answer = to_end(stream).await;
        assert!(
            answer.starts_with("HTTP/1.1 403"),
            "known, and denied: {answer}"
        );
        connections.finish(Duration::from_secs(60)).await;
    };
    tokio::join!(connections.accept(&plane, &front), clients);
}
