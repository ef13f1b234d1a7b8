//! Small pieces of a body, joined while more of it is there.
//!
//! Each piece is a frame on the connection that all Functions share, and h2 counts small frames: those that come for a body
//! which was given up stay counted for as long as the connection lives, and too many end it.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

/// Pieces are joined up to this size, in bytes.
const JOINED_BYTES: usize = 8 << 10;

/// A body whose pieces that are there at the same time come as one.
pub(super) struct Joined<B: Body<Data = Bytes>> {
    body: B,
    /// What came after the piece that was given last.
    next: Option<Result<Frame<Bytes>, B::Error>>,
}

impl<B: Body<Data = Bytes> + Unpin> Joined<B> {
    pub(super) fn new(body: B) -> Self {
        Self { body, next: None }
    }

    fn poll_next(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        match self.next.take() {
            Some(next) => Poll::Ready(Some(next)),
            None => Pin::new(&mut self.body).poll_frame(context),
        }
    }
}

impl<B> Body for Joined<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Unpin,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = &mut *self;
        let first = match ready!(this.poll_next(context)) {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => data,
                Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
            },
            other => return Poll::Ready(other),
        };
        let mut joined = Vec::new();
        while let Poll::Ready(Some(next)) = Pin::new(&mut this.body).poll_frame(context) {
            let length = if joined.is_empty() {
                first.len()
            } else {
                joined.len()
            };
            match next.as_ref().ok().and_then(Frame::data_ref) {
                Some(data) if length + data.len() <= JOINED_BYTES => {
                    if joined.is_empty() {
                        joined.extend_from_slice(&first);
                    }
                    joined.extend_from_slice(data);
                }
                _ => {
                    this.next = Some(next);
                    break;
                }
            }
        }
        let piece = if joined.is_empty() {
            first
        } else {
            joined.into()
        };
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.next.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        // What was taken out of the body and not given yet counts too.
        let waiting = self.next.as_ref().and_then(|next| next.as_ref().ok());
        let waiting = waiting.and_then(Frame::data_ref).map_or(0, Bytes::len) as u64;
        let hint = self.body.size_hint();
        let mut sum = SizeHint::new();
        if let Some(upper) = hint.upper() {
            sum.set_upper(upper + waiting);
        }
        sum.set_lower(hint.lower() + waiting);
        sum
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures::stream;
    use http_body_util::{BodyExt, StreamBody};

    use super::*;

    #[tokio::test]
    async fn pieces_that_are_there_come_as_one_and_nothing_is_lost() {
        let pieces = [1, 2, JOINED_BYTES - 3, 1, JOINED_BYTES, 5].map(|size| vec![b'x'; size]);
        let frames = pieces.map(|piece| Ok::<_, Infallible>(Frame::data(Bytes::from(piece))));
        let mut body = Joined::new(StreamBody::new(stream::iter(frames)));
        for size in [JOINED_BYTES, 1, JOINED_BYTES, 5] {
            let frame = body.frame().await.unwrap().unwrap();
            assert_eq!(frame.data_ref().map(Bytes::len), Some(size));
        }
        assert!(body.frame().await.is_none());
    }

    #[tokio::test]
    async fn an_error_comes_after_what_came_before_it() {
        let frames = [Ok(Frame::data(Bytes::from_static(b"a"))), Err("broken")];
        let mut body = Joined::new(StreamBody::new(stream::iter(frames)));
        let frame = body.frame().await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), "a");
        assert_eq!(body.frame().await.unwrap().unwrap_err(), "broken");
    }
}
