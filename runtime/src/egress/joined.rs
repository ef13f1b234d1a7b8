//! Small pieces of a body, joined while more of it is there.
//!
//! Each piece is a frame, and h2 ends a connection on which too many small ones wait to be read. That is right where a server
//! means harm; one that writes its body byte by byte does not.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

use super::JOINED_BYTES;

/// How often in a row others run first, to bring more, before a piece goes out smaller: a body's pieces come one by one from the
/// task of its connection.
const WAITS: u8 = 3;

/// A body whose pieces that are there at the same time come as one.
pub(super) struct Joined<B: Body<Data = Bytes>> {
    body: B,
    /// What has come and was not given yet.
    joined: Vec<u8>,
    /// What came after that.
    next: Option<Result<Frame<Bytes>, B::Error>>,
    is_over: bool,
    waits: u8,
}

impl<B: Body<Data = Bytes>> Joined<B> {
    pub(super) fn new(body: B) -> Self {
        Self {
            body,
            joined: Vec::new(),
            next: None,
            is_over: false,
            waits: 0,
        }
    }

    fn take_joined(&mut self) -> Option<Result<Frame<Bytes>, B::Error>> {
        self.waits = 0;
        if self.joined.is_empty() {
            return self.next.take();
        }
        Some(Ok(Frame::data(std::mem::take(&mut self.joined).into())))
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
        while this.next.is_none() && !this.is_over {
            match Pin::new(&mut this.body).poll_frame(context) {
                Poll::Ready(Some(frame)) => {
                    let data = frame.as_ref().ok().and_then(Frame::data_ref);
                    match data {
                        Some(data) if this.joined.len() + data.len() <= JOINED_BYTES => {
                            this.joined.extend_from_slice(data);
                            this.waits = 0;
                        }
                        _ => this.next = Some(frame),
                    }
                }
                Poll::Ready(None) => this.is_over = true,
                Poll::Pending if this.joined.is_empty() => return Poll::Pending,
                Poll::Pending if this.waits < WAITS => {
                    this.waits += 1;
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Poll::Pending => break,
            }
        }
        Poll::Ready(this.take_joined())
    }

    fn is_end_stream(&self) -> bool {
        self.joined.is_empty() && self.next.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        // What was taken out of the body and not given yet counts too.
        let waiting = self.next.as_ref().and_then(|next| next.as_ref().ok());
        let waiting = waiting.and_then(Frame::data_ref).map_or(0, Bytes::len);
        let waiting = (waiting + self.joined.len()) as u64;
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
    async fn pieces_that_come_one_by_one_are_joined_too() {
        let frames = stream::unfold(0, async |count: usize| {
            // As from another task: not there at the first look.
            tokio::task::yield_now().await;
            let frame = Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"x")));
            (count < 1000).then_some((frame, count + 1))
        });
        let mut body = Joined::new(StreamBody::new(Box::pin(frames)));
        let frame = body.frame().await.unwrap().unwrap();
        assert_eq!(frame.data_ref().map(Bytes::len), Some(1000));
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
