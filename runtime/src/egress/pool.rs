//! Connections that wait for the next request of the same Function to the same origin.
//!
//! No connection is ever handed to another Function. One that waits is checked against the rules of the moment before it is
//! used again, by the address it is connected to, as if that had just been resolved.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::client::conn::http1::SendRequest;

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
pub struct Pool<B> {
    state: Mutex<State<B>>,
}

struct State<B> {
    idle: HashMap<Key, Vec<(u64, Connection<B>)>>,
    count: usize,
    next: u64,
}

impl<B> Default for Pool<B> {
    fn default() -> Self {
        Self {
            state: Mutex::new(State {
                idle: HashMap::new(),
                count: 0,
                next: 0,
            }),
        }
    }
}

impl<B: Send + 'static> Pool<B> {
    /// An idle connection whose peer is still allowed.
    pub fn take(&self, key: &Key, allowed: impl Fn(IpAddr) -> bool) -> Option<Connection<B>> {
        let mut state = self.lock();
        loop {
            let (_, connection) = state.pop(key)?;
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
            let Some(id) = pool.lock().push(key.clone(), connection) else {
                return;
            };
            tokio::time::sleep(IDLE_TIME).await;
            pool.lock().remove(&key, id);
        });
    }

    fn lock(&self) -> MutexGuard<'_, State<B>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<B> State<B> {
    fn push(&mut self, key: Key, connection: Connection<B>) -> Option<u64> {
        let of_one = self.idle.get(&key).map_or(0, Vec::len);
        if of_one >= MAX_IDLE_OF_ONE || self.count >= MAX_IDLE {
            return None;
        }
        self.next += 1;
        self.count += 1;
        let id = self.next;
        self.idle.entry(key).or_default().push((id, connection));
        Some(id)
    }

    fn pop(&mut self, key: &Key) -> Option<(u64, Connection<B>)> {
        let connections = self.idle.get_mut(key)?;
        let popped = connections.pop();
        if connections.is_empty() {
            self.idle.remove(key);
        }
        self.count -= usize::from(popped.is_some());
        popped
    }

    fn remove(&mut self, key: &Key, id: u64) {
        let Some(connections) = self.idle.get_mut(key) else {
            return;
        };
        let before = connections.len();
        connections.retain(|(other, _)| *other != id);
        self.count -= before - connections.len();
        if connections.is_empty() {
            self.idle.remove(key);
        }
    }
}
