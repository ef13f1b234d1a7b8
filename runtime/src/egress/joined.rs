//! Small pieces of a body, joined while more of it is there or will soon be.
//!
//! Each piece is a frame, and h2 ends a connection on which too many small ones wait to be read. That is right where a server
//! means harm; one that writes its body byte by byte does not. How many wait, this side cannot know: so they come no faster
//! than a reader needs them.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

use super::{JOINED_BYTES, SMALL_BYTES};

/// From one small piece to the next, if the body goes on. The first one after such a pause does not wait.
const PAUSE: Duration = Duration::from_millis(5);

/// A body whose small pieces that come at about the same time come as one.
pub(super) struct Joined<B: Body<Data = Bytes>> {
    body: B,
    /// What has come and was not given yet.
    joined: Vec<u8>,
    /// What came after that.
    next: Option<Result<Frame<Bytes>, B::Error>>,
    is_over: bool,
    /// When the next small piece may go.
    ready_at: Option<Instant>,
    /// Until then, where something waits for it.
    pause: Option<Pin<Box<Sleep>>>,
}

impl<B: Body<Data = Bytes>> Joined<B> {
    pub(super) fn new(body: B) -> Self {
        Self {
            body,
            joined: Vec::new(),
            next: None,
            is_over: false,
            ready_at: None,
            pause: None,
        }
    }

    fn take_joined(&mut self) -> Option<Result<Frame<Bytes>, B::Error>> {
        if self.joined.is_empty() {
            return self.next.take();
        }
        if self.joined.len() < SMALL_BYTES {
            self.ready_at = Some(Instant::now() + PAUSE);
            self.pause = None;
        }
        Some(Ok(Frame::data(std::mem::take(&mut self.joined).into())))
    }

    /// Whether what is joined so far is small, and the last small piece went just now.
    fn is_pausing(&mut self, context: &mut Context<'_>) -> bool {
        let Some(ready_at) = self.ready_at else {
            return false;
        };
        if self.joined.len() >= SMALL_BYTES || ready_at <= Instant::now() {
            return false;
        }
        let pause = || Box::pin(sleep_until(ready_at));
        let pause = self.pause.get_or_insert_with(pause);
        pause.as_mut().poll(context).is_pending()
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
                        }
                        _ => this.next = Some(frame),
                    }
                }
                Poll::Ready(None) => this.is_over = true,
                Poll::Pending if this.joined.is_empty() || this.is_pausing(context) => {
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
        const PIECES: usize = 1000;
        let frames = stream::unfold(0, async |count: usize| {
            // As from another task: not there at the first look.
            tokio::task::yield_now().await;
            let frame = Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"x")));
            (count < PIECES).then_some((frame, count + 1))
        });
        let began = Instant::now();
        let mut body = Joined::new(StreamBody::new(Box::pin(frames)));
        let mut lengths = Vec::new();
        while let Some(frame) = body.frame().await {
            lengths.push(frame.unwrap().into_data().unwrap().len());
        }
        assert_eq!(lengths.iter().sum::<usize>(), PIECES);
        // The first one and the last one did not wait.
        let small = lengths.iter().filter(|length| **length < SMALL_BYTES);
        let pauses = began.elapsed().as_nanos() / PAUSE.as_nanos();
        assert!(small.count() as u128 <= 2 + pauses, "{lengths:?}");
    }

    #[tokio::test]
    async fn a_small_piece_of_a_body_that_goes_on_comes_before_its_end() {
        let (sender, pieces) = futures::channel::mpsc::unbounded();
        let mut body = Joined::new(StreamBody::new(pieces));
        for piece in ["a", "b", "c"] {
            let frame = Ok::<_, Infallible>(Frame::data(Bytes::from_static(piece.as_bytes())));
            sender.unbounded_send(frame).unwrap();
            let frame = body.frame().await.unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap(), piece);
        }
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
