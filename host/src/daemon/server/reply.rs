//! The form in which answers leave a connection: whole, or as a router made them.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body as AnyBody;
use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

/// An answer's body on its way out, with something that ends with it.
pub(super) struct Reply<T> {
    content: Content,
    _until_sent: T,
}

/// What a body is made of.
pub(super) enum Content {
    /// Written at once; none when it was taken.
    Whole(Option<Bytes>),
    /// Of any kind, a stream perhaps.
    Routed(AnyBody),
}

// === impl Reply ===

impl<T> Reply<T> {
    /// A body that keeps `until_sent` while it is being sent.
    pub(super) fn new(content: Content, until_sent: T) -> Self {
        Self {
            content,
            _until_sent: until_sent,
        }
    }
}

impl<T: Unpin> Body for Reply<T> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        match &mut self.content {
            Content::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Content::Routed(body) => Pin::new(body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Whole(bytes) => bytes.is_none(),
            Content::Routed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Content::Routed(body) => body.size_hint(),
        }
    }
}
