//! Connections to the agent, one for each Function that makes requests.
//!
//! HTTP/2 has windows and counters for a whole connection, and its library ends one that was used in a way it takes for an
//! attack. So no two Functions share one: what a tenant does there meets only his own requests.
//!
//! ```text
//! fetch -> the Function's connection, while it takes requests
//!            none: asked for (handover) -> HTTP/2 -> stays while it is used, and some seconds after that
//!            a body was given up on it: requests under way go on there, later ones get a new one (few at once)
//! ```

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::UnixStream;
use tokio::sync::{OnceCell, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::lock;
use crate::egress::{CONNECTION_WINDOW_BYTES, STREAM_WINDOW_BYTES, handover};
use crate::server::body::Body;

/// A connection that was idle for so long, twice at most, is closed.
const IDLE: Duration = Duration::from_secs(5);
/// Connections of one Function at once: it may hold a body on each while it gives up others.
const MAX_OF_ONE: usize = 4;
/// Requests for a connection that wait to be sent to the agent.
const ASKS: usize = 64;

/// There is no connection: the agent has gone, or has no descriptors left.
#[derive(Debug)]
pub(super) struct NoConnection;

/// All of them.
#[derive(Debug)]
pub(super) struct Connections {
    by_uid: Mutex<HashMap<String, OfFunction>>,
    asks: mpsc::Sender<oneshot::Sender<UnixStream>>,
}

#[derive(Debug, Default)]
struct OfFunction {
    latest: Arc<Connection>,
    /// Each of its connections has one too.
    counted: Arc<()>,
    /// Since idle ones were last looked for.
    was_used: bool,
}

#[derive(Debug, Default)]
struct Connection {
    sender: OnceCell<SendRequest<Body>>,
    /// Later requests go elsewhere: what is still on its way for a body that was given up stays counted against it.
    is_spent: AtomicBool,
    _counted: Arc<()>,
}

/// A request's hold on its connection.
#[derive(Debug)]
pub(super) struct Hold {
    connection: Arc<Connection>,
    is_over: bool,
}

impl Connections {
    /// Over the egress socket. `lost` is cancelled when its other end has closed.
    pub(super) fn new(socket: UnixStream, lost: CancellationToken) -> Arc<Self> {
        let (asks, asked) = mpsc::channel(ASKS);
        tokio::spawn(async move {
            let error = receive_all(socket, asked).await;
            tracing::error!(%error, "the egress socket to the agent closed");
            lost.cancel();
        });
        let all = Arc::new(Self {
            by_uid: Mutex::default(),
            asks,
        });
        tokio::spawn(close_idle(Arc::downgrade(&all)));
        all
    }

    /// The Function's connection, for one request. Given up unless [`Hold::over`] is called, or its body read to the end.
    pub(super) async fn hold(&self, uid: &str) -> Result<(SendRequest<Body>, Hold), NoConnection> {
        let hold = Hold {
            connection: self.of(uid),
            is_over: false,
        };
        let sender = hold.connection.sender.get_or_try_init(|| self.open());
        Ok((sender.await?.clone(), hold))
    }

    fn of(&self, uid: &str) -> Arc<Connection> {
        let mut by_uid = lock(&self.by_uid);
        if let Some(function) = by_uid.get_mut(uid) {
            return function.connection();
        }
        by_uid.entry(uid.to_owned()).or_default().renew()
    }

    /// Closes those that were idle all the time since the last call.
    fn sweep(&self) {
        lock(&self.by_uid)
            .retain(|_, function| std::mem::take(&mut function.was_used) || !function.is_idle());
    }

    async fn open(&self) -> Result<SendRequest<Body>, NoConnection> {
        let (answer, socket) = oneshot::channel();
        self.asks.send(answer).await.map_err(|_| NoConnection)?;
        let socket = socket.await.map_err(|_| NoConnection)?;
        let handshake = Builder::new(TokioExecutor::new())
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            // None before the agent's SETTINGS: a body that began with the larger window of before them could fill the smaller
            // one, and h2 then gives no more (its issue 630), so that the rest of the body would wait for ever.
            .initial_max_send_streams(0)
            // Requests that are given up are no attack.
            .max_local_error_reset_streams(None)
            .handshake(TokioIo::new(socket));
        let (sender, connection) = handshake.await.map_err(|_| NoConnection)?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::debug!(%error, cause, "a connection to the agent ended");
            }
        });
        Ok(sender)
    }
}

impl OfFunction {
    fn connection(&mut self) -> Arc<Connection> {
        self.was_used = true;
        let latest = &self.latest;
        let is_closed = latest.sender.get().is_some_and(SendRequest::is_closed);
        let is_spent = latest.is_spent.load(Ordering::Relaxed);
        if is_closed || is_spent && self.count() < MAX_OF_ONE {
            return self.renew();
        }
        Arc::clone(latest)
    }

    fn renew(&mut self) -> Arc<Connection> {
        self.was_used = true;
        self.latest = Arc::new(Connection {
            _counted: Arc::clone(&self.counted),
            ..Connection::default()
        });
        Arc::clone(&self.latest)
    }

    fn count(&self) -> usize {
        Arc::strong_count(&self.counted) - 1
    }

    /// No request is under way on any of its connections.
    fn is_idle(&self) -> bool {
        self.count() == 1 && Arc::strong_count(&self.latest) == 1
    }
}

impl Hold {
    /// All of the response has come.
    fn over(&mut self) {
        self.is_over = true;
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if !self.is_over {
            self.connection.is_spent.store(true, Ordering::Relaxed);
        }
    }
}

/// Body of a response, with its hold on the connection.
#[derive(Debug)]
pub(super) struct HeldBody {
    body: Incoming,
    hold: Hold,
}

impl HeldBody {
    pub(super) fn new(body: Incoming, mut hold: Hold) -> Self {
        if body.is_end_stream() {
            hold.over();
        }
        Self { body, hold }
    }
}

impl hyper::body::Body for HeldBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if frame.is_none() {
            self.hold.over();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

async fn close_idle(all: Weak<Connections>) {
    loop {
        tokio::time::sleep(IDLE).await;
        match all.upgrade() {
            Some(all) => all.sweep(),
            None => return,
        }
    }
}

/// Asks the agent for what is wanted and hands out what comes, until the agent has gone.
async fn receive_all(
    mut socket: UnixStream,
    mut asked: mpsc::Receiver<oneshot::Sender<UnixStream>>,
) -> std::io::Error {
    let mut waiting = VecDeque::new();
    loop {
        let received = tokio::select! {
            Some(answer) = asked.recv() => {
                waiting.push_back(answer);
                handover::ask(&mut socket).await.map(|()| None)
            }
            received = handover::receive(&socket) => received.map(|socket| waiting.pop_front().zip(socket)),
        };
        match received {
            // A request that does not wait any more lets its connection close.
            Ok(answer) => drop(answer.map(|(answer, socket)| answer.send(socket))),
            Err(error) => return error,
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use hyper::server::conn::http2 as server;
    use hyper::service::service_fn;
    use hyper_util::rt::TokioTimer;
    use tokio::sync::Notify;

    use super::*;
    use crate::limits::heap::HeapBudget;
    use crate::scheduler::pipe::{PipeEvents, Written, pipe};
    use crate::web::host::CompletionId;

    struct Unheard;

    impl PipeEvents for Unheard {
        fn room(&self, _: CompletionId) {}
        fn gone(&self) {}
    }

    fn none() -> Connections {
        Connections {
            by_uid: Mutex::default(),
            asks: mpsc::channel(1).0,
        }
    }

    #[tokio::test]
    async fn a_body_that_begins_before_the_agent_says_its_window_comes_whole() {
        // More than a stream's window, and less than a third of the first one that HTTP/2 has, from where the agent's h2 would
        // give more before it knows that its own window holds.
        let first = Bytes::from(vec![b'a'; STREAM_WINDOW_BYTES as usize + 200]);
        let rest = Bytes::from_static(b"rest");
        let length = first.len() + rest.len();
        let (worker, mut agent) = UnixStream::pair().unwrap();
        let all = Connections::new(worker, CancellationToken::new());
        let (held, connection) = tokio::join!(all.hold("one"), async {
            assert!(handover::asked(&mut agent).await);
            handover::give(&agent).await.unwrap().unwrap()
        });
        let (mut sender, _hold) = held.unwrap();

        let (writer, reader) = pipe(Arc::new(HeapBudget::new(1 << 20)), Box::new(Unheard));
        let request = http::Request::post("http://a/").body(Body::pipe(reader));
        let answer = tokio::spawn(sender.send_request(request.unwrap()));
        let written = writer.write(first.clone(), CompletionId(1));
        assert_eq!(written, Written::Accepted);
        // The worker's tasks share this thread: they do all they can before the agent says a word.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }

        let has_read = Arc::new(Notify::new());
        let service = service_fn({
            let (has_read, first) = (Arc::clone(&has_read), first.len());
            move |mut request: http::Request<Incoming>| {
                let has_read = Arc::clone(&has_read);
                async move {
                    let body = request.body_mut();
                    let mut read = 0;
                    while let Some(frame) = body.frame().await {
                        read += frame?.data_ref().map_or(0, Bytes::len);
                        if read >= first {
                            has_read.notify_one();
                        }
                    }
                    Ok::<_, hyper::Error>(http::Response::new(read.to_string()))
                }
            }
        });
        let serving = server::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .serve_connection(TokioIo::new(connection), service);
        tokio::spawn(serving);
        has_read.notified().await;
        writer.write(rest, CompletionId(2));
        writer.close(None);
        let answer = tokio::time::timeout(Duration::from_secs(20), answer).await;
        let answer = answer.expect("the rest of the body came").unwrap().unwrap();
        let read = answer.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(read, length.to_string());
    }

    #[test]
    fn a_connection_is_shared_until_a_body_is_given_up_on_it() {
        let all = none();
        let first = all.of("one");
        assert!(Arc::ptr_eq(&first, &all.of("one")));
        assert!(!Arc::ptr_eq(&first, &all.of("two")));
        drop(Hold {
            connection: Arc::clone(&first),
            is_over: true,
        });
        assert!(Arc::ptr_eq(&first, &all.of("one")));
        drop(Hold {
            connection: Arc::clone(&first),
            is_over: false,
        });
        assert!(!Arc::ptr_eq(&first, &all.of("one")));
    }

    #[test]
    fn a_function_has_few_connections_however_many_bodies_it_gives_up_and_holds() {
        let all = none();
        let mut held = Vec::new();
        for _ in 0..100 {
            let connection = all.of("one");
            connection.is_spent.store(true, Ordering::Relaxed);
            held.push(connection);
        }
        held.dedup_by(|one, other| Arc::ptr_eq(one, other));
        assert_eq!(held.len(), MAX_OF_ONE);
        let last = held.pop().unwrap();
        held.clear();
        assert!(!Arc::ptr_eq(&last, &all.of("one")));
    }

    #[test]
    fn idle_connections_go_and_used_ones_stay() {
        let all = none();
        let used = all.of("used");
        let idle = Arc::downgrade(&all.of("idle"));
        let late = Arc::downgrade(&all.of("late"));
        all.sweep();
        all.of("late");
        assert!(idle.upgrade().is_some());
        all.sweep();
        assert!(idle.upgrade().is_none());
        assert!(late.upgrade().is_some());
        assert!(Arc::ptr_eq(&used, &all.of("used")));
    }
}
