//! Connections that wait for the next request of the same Function to the same origin.
//!
//! No connection is ever handed to another Function. One that waits is checked against the rules of the moment before it is
//! used again, by the address it is connected to, as if that had just been resolved.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::client::conn::http1::SendRequest;
use tokio::time::Instant;

const MAX_IDLE_OF_ONE: usize = 8;
const MAX_IDLE: usize = 1024;
/// Short, because the name may resolve to another address by then, and servers close idle connections themselves.
const IDLE_TIME: Duration = Duration::from_secs(15);

/// Whose connections, and where to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// UID of the Function.
    pub uid: String,
    /// Whether it is encrypted.
    pub tls: bool,
    /// Host as the URL names it.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// A connection and the address it goes to.
pub struct Connection<B> {
    /// Takes requests.
    pub sender: SendRequest<B>,
    /// The other side.
    pub peer: IpAddr,
}

/// Idle connections.
///
/// One task ends those whose time is over, however many requests come: with a task for each, those of 15 seconds would wait.
pub struct Pool<B> {
    state: Mutex<State<B>>,
}

struct Idle<B> {
    connection: Connection<B>,
    until: Instant,
}

struct State<B> {
    /// Those of one key in the order in which they became idle.
    idle: HashMap<Key, Vec<Idle<B>>>,
    count: usize,
    /// There is a task that ends them.
    is_swept: bool,
}

impl<B> Default for Pool<B> {
    fn default() -> Self {
        Self {
            state: Mutex::new(State {
                idle: HashMap::new(),
                count: 0,
                is_swept: false,
            }),
        }
    }
}

impl<B: Send + 'static> Pool<B> {
    /// An idle connection whose peer is still allowed.
    pub fn take(&self, key: &Key, allowed: impl Fn(IpAddr) -> bool) -> Option<Connection<B>> {
        let mut state = self.lock();
        loop {
            let connection = state.pop(key)?;
            if connection.sender.is_ready() && allowed(connection.peer) {
                return Some(connection);
            }
        }
    }

    /// Takes a connection back once its response has been read.
    pub fn keep(self: &Arc<Self>, key: Key, mut connection: Connection<B>) {
        let pool = Arc::clone(self);
        tokio::spawn(async move {
            // An error: it was closed, or its response was not read to the end.
            if connection.sender.ready().await.is_err() {
                return;
            }
            let is_first = pool
                .lock()
                .push(key, connection, Instant::now() + IDLE_TIME);
            if is_first {
                pool.sweep().await;
            }
        });
    }

    /// Ends connections when their time is over, until there are none.
    async fn sweep(&self) {
        loop {
            let next = self.lock().expire(Instant::now());
            match next {
                Some(next) => tokio::time::sleep_until(next).await,
                None => return,
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<B>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<B> State<B> {
    /// Keeps a connection if there is room. Says whether the caller must sweep from now on.
    fn push(&mut self, key: Key, connection: Connection<B>, until: Instant) -> bool {
        let of_one = self.idle.get(&key).map_or(0, Vec::len);
        if of_one >= MAX_IDLE_OF_ONE || self.count >= MAX_IDLE {
            return false;
        }
        self.count += 1;
        let idle = Idle { connection, until };
        self.idle.entry(key).or_default().push(idle);
        !std::mem::replace(&mut self.is_swept, true)
    }

    fn pop(&mut self, key: &Key) -> Option<Connection<B>> {
        let connections = self.idle.get_mut(key)?;
        let popped = connections.pop();
        if connections.is_empty() {
            self.idle.remove(key);
        }
        self.count -= usize::from(popped.is_some());
        popped.map(|idle| idle.connection)
    }

    /// Ends those whose time is over, and says when that of another will be. `None`: there are no others, and nobody sweeps.
    fn expire(&mut self, now: Instant) -> Option<Instant> {
        self.idle.retain(|_, connections| {
            connections.retain(|idle| idle.until > now);
            !connections.is_empty()
        });
        self.count = self.idle.values().map(Vec::len).sum();
        self.is_swept = self.count > 0;
        let oldest = self.idle.values().filter_map(|them| them.first());
        oldest.map(|idle| idle.until).min()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::Empty;
    use hyper_util::rt::TokioIo;

    use super::*;

    type Body = Empty<bytes::Bytes>;

    async fn connection() -> Connection<Body> {
        let (ours, _theirs) = tokio::io::duplex(64);
        let (sender, _connection) = hyper::client::conn::http1::handshake(TokioIo::new(ours))
            .await
            .unwrap();
        Connection {
            sender,
            peer: IpAddr::from([127, 0, 0, 1]),
        }
    }

    #[tokio::test]
    async fn connections_end_when_their_time_is_over_and_one_task_looks_after_them_all() {
        let (early, later, other, next) = (
            connection().await,
            connection().await,
            connection().await,
            connection().await,
        );
        let pool = Pool::default();
        let mut state = pool.lock();
        let key = |uid: &str| Key {
            uid: uid.into(),
            tls: false,
            host: "localhost".into(),
            port: 80,
        };
        let soon = Instant::now();
        let late = soon + IDLE_TIME;
        assert!(state.push(key("first"), early, soon));
        assert!(!state.push(key("first"), later, late));
        assert!(!state.push(key("second"), other, soon));
        assert_eq!(state.expire(soon), Some(late));
        assert_eq!(state.count, 1);
        assert!(state.pop(&key("second")).is_none());

        assert!(state.pop(&key("first")).is_some());
        assert_eq!(state.expire(soon), None, "whoever sweeps may end");
        assert!(
            state.push(key("first"), next, late),
            "so the next one must sweep"
        );
    }
}
