//! How input is read: bodies with a bound in bytes and in time, queries without a parameter nobody asked for.
//!
//! What a body says is read in `json`.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header};
use http_body_util::BodyExt;
use hyper::body::Body;

use super::json::{bad_member, shown};
use super::problem::{Problem, Slug};
use crate::model::key::BadName;

/// The most of an unwanted body that is read before it is refused: twice what the largest call of callers may have. Answering earlier
/// makes HTTP/2 reset the stream and HTTP/1.1 close the connection under a client that still writes, and some clients then
/// show that and not the answer.
const DISCARD_MAX_BYTES: usize = 2 * 1024 * 1024;
/// How long that may take.
const DISCARD_WITHIN: Duration = Duration::from_secs(1);

/// The whole body of a call, which must say that it is JSON.
///
/// # Errors
///
/// A [`Problem`] when it says something else, and as [`read`].
pub(super) async fn json<B>(
    headers: &HeaderMap,
    body: B,
    max_bytes: usize,
    within: Duration,
) -> Result<Bytes, Problem>
where
    B: Body<Data = Bytes> + Unpin,
{
    if is_json(headers) {
        return read(headers, body, max_bytes, within).await;
    }
    discard(body).await;
    let detail = "send `Content-Type: application/json`";
    Err(Problem::new(Slug::UnsupportedMediaType, detail))
}

/// The whole body.
///
/// # Errors
///
/// A [`Problem`] when it is larger than `max_bytes`, takes longer than `within`, or breaks off.
pub(super) async fn read<B>(
    headers: &HeaderMap,
    mut body: B,
    max_bytes: usize,
    within: Duration,
) -> Result<Bytes, Problem>
where
    B: Body<Data = Bytes> + Unpin,
{
    let announced = headers.get(header::CONTENT_LENGTH);
    let announced = announced.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    let collected = {
        let mut collect = pin!(collect(&mut body, announced, max_bytes));
        // A body that came together with its head needs no timer.
        match poll_fn(|context| Poll::Ready(collect.as_mut().poll(context))).await {
            Poll::Ready(collected) => Ok(collected),
            Poll::Pending => tokio::time::timeout(within, collect).await,
        }
    };
    match collected {
        Ok(Ok(Some(bytes))) => Ok(bytes),
        Ok(Ok(None)) => {
            discard(body).await;
            Err(Problem::new(
                Slug::TooLarge,
                format!("the body may have {max_bytes} bytes"),
            ))
        }
        Ok(Err(_)) => Err(Problem::invalid("the body broke off")),
        Err(_) => Err(Problem::invalid(format!(
            "the body took longer than {within:?}"
        ))),
    }
}

/// The body's bytes, copied only where they came in pieces; `None` when there are too many.
async fn collect<B>(
    body: &mut B,
    announced: Option<usize>,
    max_bytes: usize,
) -> Result<Option<Bytes>, B::Error>
where
    B: Body<Data = Bytes> + Unpin,
{
    if announced.is_some_and(|length| length > max_bytes) {
        return Ok(None);
    }
    let (mut piece, mut joined) = (Bytes::new(), BytesMut::new());
    while !body.is_end_stream() {
        let Some(frame) = body.frame().await else {
            break;
        };
        let Ok(data) = frame?.into_data() else {
            continue;
        };
        if piece.len() + joined.len() + data.len() > max_bytes {
            return Ok(None);
        }
        if piece.is_empty() && joined.is_empty() {
            piece = data;
            continue;
        }
        if joined.is_empty() {
            joined.reserve(announced.unwrap_or(piece.len() + data.len()));
            joined.extend_from_slice(&std::mem::take(&mut piece));
        }
        joined.extend_from_slice(&data);
    }
    Ok(Some(match joined.is_empty() {
        true => piece,
        false => joined.freeze(),
    }))
}

/// Reads an unwanted body, within bounds, and forgets it.
pub(super) async fn discard<B>(mut body: B)
where
    B: Body<Data = Bytes> + Unpin,
{
    let read = async {
        let mut left = DISCARD_MAX_BYTES;
        while let Some(Ok(frame)) = body.frame().await {
            let length = frame.data_ref().map_or(0, Bytes::len);
            let Some(rest) = left.checked_sub(length) else {
                return;
            };
            left = rest;
        }
    };
    // However far it came, the answer is the same.
    let _ = tokio::time::timeout(DISCARD_WITHIN, read).await;
}

/// Whether the body says that it is JSON.
pub(super) fn is_json(headers: &HeaderMap) -> bool {
    let Some(kind) = headers.get(header::CONTENT_TYPE) else {
        return false;
    };
    // As nearly all write it.
    if kind.as_bytes() == b"application/json" {
        return true;
    }
    let kind = kind.to_str().unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default();
    kind.trim().eq_ignore_ascii_case("application/json")
}

/// The parameters of a query, one by one.
pub(super) struct Parameters(Vec<(String, String)>);

// === impl Parameters ===

impl Parameters {
    /// Reads a query.
    ///
    /// # Errors
    ///
    /// A [`Problem`] that names a parameter that is not `known` or comes twice.
    pub(super) fn of(query: Option<&str>, known: &[&str]) -> Result<Self, Problem> {
        let mut all: Vec<(String, String)> = Vec::new();
        for (name, value) in url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            if !known.contains(&&*name) {
                return Err(Problem::invalid(format!(
                    "unknown parameter {}",
                    shown(&name)
                )));
            }
            if all.iter().any(|(seen, _)| *seen == name) {
                return Err(Problem::invalid(format!(
                    "parameter {} comes twice",
                    shown(&name)
                )));
            }
            all.push((name.into_owned(), value.into_owned()));
        }
        Ok(Self(all))
    }

    /// The parameter of this name, as it came.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    /// The parameter of this name, parsed.
    pub(super) fn named<T>(
        &self,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, BadName>,
    ) -> Result<Option<T>, Problem> {
        self.text(name)
            .map(parse)
            .transpose()
            .map_err(|bad| bad_member(name, bad.fix))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_known_and_come_once() {
        let known = ["tenant", "scope"];
        let parameters = Parameters::of(Some("scope=a%20b&tenant=x+y"), &known).unwrap();
        assert_eq!(parameters.text("scope"), Some("a b"));
        assert_eq!(parameters.text("tenant"), Some("x y"));
        assert!(Parameters::of(Some("scope=a&scope=b"), &known).is_err());
        assert!(Parameters::of(Some("scop=a"), &known).is_err());
        assert!(
            Parameters::of(None, &known)
                .unwrap()
                .text("scope")
                .is_none()
        );
    }

    #[test]
    fn only_json_is_json() {
        let says = |kind: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, kind.parse().unwrap());
            is_json(&headers)
        };
        assert!(says("application/json") && says("Application/JSON; charset=utf-8"));
        assert!(!says("text/plain") && !says("application/x-www-form-urlencoded"));
        assert!(!is_json(&HeaderMap::new()));
    }
}
