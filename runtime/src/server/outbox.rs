//! Answers that are made one after the other are sent together: what connections write while their thread has other tasks to run
//! waits until it has none, or is about to run what may take long. The client's side is woken once, not for each, and the
//! kernel's code and V8's do not push each other out of the caches.
//!
//! ```text
//! a connection's task: writes a small piece -> its Outgoing -> this thread's round
//! the thread: has run all ready tasks, or is about to run what may take long, or has waited for long enough -> sends the round
//! the monitor: finds the thread inside JavaScript -> sends the round that has waited for long enough
//! ```
//!
//! With few clients an answer sooner is the next request sooner: a round is gathered if the one before it was large. A thread
//! that is no worker of the runtime, or has handed over what it had to do, has no round: its pieces are sent at once.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::io::AsyncWrite;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::time::Instant;

/// A piece, or several before they are sent, of so many bytes are copied: it costs less than to write them one by one.
const SMALL_BYTES: usize = 4 << 10;
/// A connection that waits for its next request keeps no more memory for pieces.
const KEPT_BYTES: usize = 1 << 10;
/// Pieces of a round from which the next one is gathered: with four connections to gather lost a tenth, with eight it won one.
const MANY: usize = 6;
/// Connections of a round.
const ROUND: usize = 32;
/// Time from a round's first piece after which it is sent, at the next look.
const LONGEST: Duration = Duration::from_micros(100);

/// See [`Round::began`].
const NONE_WAITS: u64 = u64::MAX;

thread_local! {
    static THIS: Arc<Round> = Arc::default();
}

/// What connections wrote on one thread and was not sent yet.
#[derive(Debug)]
pub struct Round {
    gathered: Mutex<Gathered>,
    made: Instant,
    /// When the first that waits was written, in nanoseconds from `made`; [`NONE_WAITS`]. Written under the lock, read without
    /// it: a look before each entry into JavaScript costs nothing.
    began: AtomicU64,
}

#[derive(Debug, Default)]
struct Gathered {
    /// The last round was large, so this one is likely to be; and the thread will say when it has nothing more to do.
    is_gathering: bool,
    /// Small pieces written in this one, sent or not.
    pieces: usize,
    /// Those that wait, at most [`ROUND`].
    outgoing: Vec<Arc<Outgoing>>,
}

/// The round of this thread, for another that sends it where this one is held up.
pub fn this_round() -> Arc<Round> {
    THIS.with(Arc::clone)
}

/// Sends this thread's round: what comes next may take long.
pub fn send() {
    THIS.with(|round| round.send());
}

/// Sends this thread's round if it has waited for long enough.
pub fn send_if_due(now: Instant) {
    THIS.with(|round| round.send_if_due(now));
}

/// The thread has run all tasks that were ready, and will say so again: the end of a round, and the begin of the next.
pub fn rest() {
    THIS.with(|round| {
        round.send();
        let mut gathered = round.gathered();
        gathered.is_gathering = gathered.pieces >= MANY;
        gathered.pieces = 0;
    });
}

/// The thread may not come to [`rest`] again: the end of its last round.
pub fn leave() {
    THIS.with(|round| {
        round.gathered().is_gathering = false;
        round.send();
    });
}

impl Default for Round {
    fn default() -> Self {
        Self {
            gathered: Mutex::default(),
            made: Instant::now(),
            began: AtomicU64::new(NONE_WAITS),
        }
    }
}

impl Round {
    /// Sends it if it has waited for long enough.
    pub fn send_if_due(&self, now: Instant) {
        let began = Duration::from_nanos(self.began.load(Ordering::Relaxed));
        if now.saturating_duration_since(self.made) >= began.saturating_add(LONGEST) {
            self.send();
        }
    }

    fn send(&self) {
        let mut gathered = self.gathered();
        if gathered.outgoing.is_empty() {
            return;
        }
        self.began.store(NONE_WAITS, Ordering::Relaxed);
        let mut outgoing = std::mem::take(&mut gathered.outgoing);
        drop(gathered);
        for one in outgoing.drain(..) {
            one.send();
        }
        // Its memory is of use for the next one, unless that has begun.
        let mut gathered = self.gathered();
        if gathered.outgoing.capacity() == 0 {
            gathered.outgoing = outgoing;
        }
    }

    /// A connection's pieces wait, if the thread gathers. None if not, else whether that was the last place.
    fn join(&self, outgoing: &Arc<Outgoing>) -> Option<bool> {
        let mut gathered = self.gathered();
        gathered.pieces += 1;
        if !gathered.is_gathering {
            return None;
        }
        if gathered.outgoing.is_empty() {
            let began = self.made.elapsed().as_nanos() as u64;
            self.began.store(began, Ordering::Relaxed);
        }
        gathered.outgoing.push(Arc::clone(outgoing));
        Some(gathered.outgoing.len() >= ROUND)
    }

    fn gathered(&self) -> MutexGuard<'_, Gathered> {
        self.gathered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's side of the round.
#[derive(Debug)]
pub(super) struct Outgoing {
    pieces: Mutex<Pieces>,
    /// Pieces wait that no round will send: the socket has not taken them. Written under the lock; who sets it for another
    /// thread wakes the connection's task after that, so that a look without the lock misses nothing.
    is_stuck: AtomicBool,
}

#[derive(Debug)]
struct Pieces {
    stream: OwnedWriteHalf,
    /// Written by the connection, not yet taken by the socket. At most [`SMALL_BYTES`].
    waiting: Vec<u8>,
    /// A round will send it.
    is_in_round: bool,
    /// The connection's task.
    waker: Option<Waker>,
}

impl Outgoing {
    pub(super) fn new(stream: OwnedWriteHalf) -> Arc<Self> {
        Arc::new(Self {
            pieces: Mutex::new(Pieces {
                stream,
                waiting: Vec::new(),
                is_in_round: false,
                waker: None,
            }),
            is_stuck: AtomicBool::new(false),
        })
    }

    fn pieces(&self) -> MutexGuard<'_, Pieces> {
        self.pieces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes small pieces whole, and of larger ones what the socket takes.
    pub(super) fn poll_write(
        self: &Arc<Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let bytes: usize = slices.iter().map(|slice| slice.len()).sum();
        if bytes > SMALL_BYTES {
            // It takes long itself, and may be one of many.
            send_if_due(Instant::now());
        }
        let mut pieces = self.pieces();
        if !pieces.is_in_round || pieces.waiting.len() + bytes > SMALL_BYTES {
            ready!(pieces.poll_send(context))?;
        }
        if bytes > SMALL_BYTES {
            return Pin::new(&mut pieces.stream).poll_write_vectored(context, slices);
        }
        for slice in slices {
            pieces.waiting.extend_from_slice(slice);
        }
        if !pieces.is_in_round {
            pieces.is_in_round = true;
            pieces.remember(context);
            drop(pieces);
            self.join_round();
        }
        Poll::Ready(Ok(bytes))
    }

    /// Ready where nothing waits but for the round.
    pub(super) fn poll_flush(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.is_stuck.load(Ordering::Acquire) {
            return Poll::Ready(Ok(()));
        }
        let mut pieces = self.pieces();
        if !pieces.is_in_round {
            ready!(pieces.poll_send(context))?;
        }
        // Under the lock: the round's end may set it again.
        self.is_stuck.store(false, Ordering::Relaxed);
        drop(pieces);
        Poll::Ready(Ok(()))
    }

    pub(super) fn poll_shutdown(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut pieces = self.pieces();
        ready!(pieces.poll_send(context))?;
        Pin::new(&mut pieces.stream).poll_shutdown(context)
    }

    /// Joins this thread's round, if it has one.
    fn join_round(self: &Arc<Self>) {
        match THIS.with(|round| round.join(self)) {
            Some(false) => {}
            Some(true) => send(),
            None => self.send(),
        }
    }

    /// Sends what waits, at the end of its round. What the socket does not take, and its errors, are the connection's.
    fn send(&self) {
        let mut pieces = self.pieces();
        pieces.is_in_round = false;
        if pieces.waiting.is_empty() {
            return;
        }
        if let Ok(sent) = pieces.stream.try_write(&pieces.waiting) {
            pieces.sent(sent);
        }
        if pieces.waiting.is_empty() {
            return;
        }
        self.is_stuck.store(true, Ordering::Release);
        if let Some(waker) = &pieces.waker {
            waker.wake_by_ref();
        }
    }
}

impl Pieces {
    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.waiting.is_empty() {
            let sent = ready!(Pin::new(&mut self.stream).poll_write(context, &self.waiting))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent(sent);
        }
        Poll::Ready(Ok(()))
    }

    fn sent(&mut self, bytes: usize) {
        self.waiting.drain(..bytes);
        if self.waiting.is_empty() && self.waiting.capacity() > KEPT_BYTES {
            self.waiting = Vec::new();
        }
    }

    fn remember(&mut self, context: &Context<'_>) {
        match &mut self.waker {
            Some(waker) => waker.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read};
    use std::net::TcpStream;

    use futures::future::poll_fn;
    use futures::task::noop_waker;
    use tokio::io::Interest;
    use tokio::net::TcpListener;
    use tokio::net::tcp::OwnedReadHalf;

    use super::*;

    /// A connection, what reads its requests, and its client.
    struct Pair {
        outgoing: Arc<Outgoing>,
        _reading: OwnedReadHalf,
        client: TcpStream,
    }

    impl Pair {
        async fn new() -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            client.set_nonblocking(true).unwrap();
            let (stream, _) = listener.accept().await.unwrap();
            // As after a request.
            stream.ready(Interest::WRITABLE).await.unwrap();
            let (reading, writing) = stream.into_split();
            Self {
                outgoing: Outgoing::new(writing),
                _reading: reading,
                client,
            }
        }

        async fn write(&self, bytes: &[u8]) {
            let slices = [IoSlice::new(bytes)];
            let written = poll_fn(|context| self.outgoing.poll_write(context, &slices)).await;
            assert_eq!(written.unwrap(), bytes.len());
        }

        /// What is there now, but for the end; none if nothing is.
        fn read(&mut self) -> Option<Vec<u8>> {
            let mut came = vec![0; 1 << 16];
            match self.client.read(&mut came) {
                Ok(length) => came.truncate(length),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                Err(error) => panic!("{error}"),
            }
            Some(came)
        }

        /// Waits until it comes.
        async fn comes(&mut self, bytes: &[u8]) {
            let mut came = Vec::new();
            while came.len() < bytes.len() {
                came.extend(self.read().unwrap_or_default());
                tokio::task::yield_now().await;
            }
            assert!(came == bytes);
        }

        async fn ends(&mut self) {
            while self.read() != Some(Vec::new()) {
                tokio::task::yield_now().await;
            }
        }
    }

    /// The thread's next round is gathered.
    async fn gather() {
        rest();
        let mut other = Pair::new().await;
        for _ in 0..MANY {
            other.write(b"x").await;
        }
        // Sent at once.
        other.comes(&[b'x'; MANY]).await;
        rest();
    }

    #[tokio::test]
    async fn a_round_is_gathered_after_a_large_one_and_sent_at_its_end() {
        gather().await;
        let (mut one, mut two) = (Pair::new().await, Pair::new().await);
        one.write(b"first ").await;
        two.write(b"second").await;
        one.write(b"third").await;
        assert!(one.read().is_none() && two.read().is_none());
        rest();
        one.comes(b"first third").await;
        two.comes(b"second").await;
        // That was a small one.
        one.write(b"fourth").await;
        one.comes(b"fourth").await;
    }

    #[tokio::test]
    async fn a_round_does_not_wait_for_what_takes_long_nor_longer_than_it_may() {
        gather().await;
        let mut pair = Pair::new().await;
        let now = Instant::now();
        pair.write(b"one").await;
        send_if_due(now);
        assert_eq!(pair.read(), None);
        send_if_due(Instant::now() + LONGEST);
        pair.comes(b"one").await;
        pair.write(b"two").await;
        send();
        pair.comes(b"two").await;
        pair.write(b"three").await;
        leave();
        pair.comes(b"three").await;
        pair.write(b"on no round's thread").await;
        pair.comes(b"on no round's thread").await;
    }

    #[tokio::test]
    async fn another_thread_sends_what_waits_where_this_one_is_held_up() {
        gather().await;
        let mut pair = Pair::new().await;
        pair.write(b"waits").await;
        let (round, soon) = (this_round(), Instant::now() + LONGEST);
        std::thread::spawn(move || round.send_if_due(soon))
            .join()
            .unwrap();
        pair.comes(b"waits").await;
        // It may join again.
        pair.write(b" again").await;
        assert_eq!(pair.read(), None);
        rest();
        pair.comes(b" again").await;
    }

    #[tokio::test]
    async fn a_full_round_is_sent() {
        gather().await;
        let mut pairs = Vec::new();
        for _ in 0..ROUND {
            pairs.push(Pair::new().await);
        }
        for index in 0..ROUND {
            assert_eq!(pairs[0].read(), None);
            pairs[index].write(b"x").await;
        }
        for mut pair in pairs {
            pair.comes(b"x").await;
        }
    }

    #[tokio::test]
    async fn large_pieces_and_the_end_come_after_the_small_ones_before_them() {
        gather().await;
        let mut pair = Pair::new().await;
        pair.write(b"small").await;
        pair.write(&[b'l'; SMALL_BYTES + 1]).await;
        pair.comes(&[&b"small"[..], &[b'l'; SMALL_BYTES + 1]].concat())
            .await;
        pair.write(b"last").await;
        poll_fn(|context| pair.outgoing.poll_shutdown(context))
            .await
            .unwrap();
        pair.comes(b"last").await;
        pair.ends().await;
    }

    #[tokio::test]
    async fn a_connection_that_is_dropped_has_sent_what_it_wrote() {
        gather().await;
        let mut pair = Pair::new().await;
        pair.write(b"last words").await;
        pair.outgoing = Pair::new().await.outgoing;
        rest();
        pair.comes(b"last words").await;
        pair.ends().await;
    }

    #[tokio::test]
    async fn what_a_slow_client_does_not_take_is_held_once_and_comes_whole() {
        gather().await;
        let mut pair = Pair::new().await;
        let waker = noop_waker();
        let mut context = Context::from_waker(&waker);
        // Until neither the kernel nor this takes more.
        let piece = [b'p'; SMALL_BYTES];
        let mut written = 0;
        while let Poll::Ready(more) = pair
            .outgoing
            .poll_write(&mut context, &[IoSlice::new(&piece)])
        {
            written += more.unwrap();
            send();
            assert!(pair.outgoing.pieces().waiting.len() <= SMALL_BYTES);
        }
        assert!(pair.outgoing.poll_flush(&mut context).is_pending());
        let outgoing = Arc::clone(&pair.outgoing);
        let flushed = tokio::spawn(poll_fn(move |context| outgoing.poll_flush(context)));
        pair.comes(&vec![b'p'; written]).await;
        flushed.await.unwrap().unwrap();
        assert_eq!(pair.read(), None);
        // From now on it waits for the end of the round again, not for the client.
        pair.write(b"next").await;
        assert!(pair.outgoing.poll_flush(&mut context).is_ready());
        assert_eq!(pair.read(), None);
        send();
        pair.comes(b"next").await;
    }
}
