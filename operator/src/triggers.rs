//! A queue that holds every item at most once: bounded by the number of Functions, however often they are triggered.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use futures::Stream;
use tokio::sync::Notify;

/// Items that wait to be taken, each once. There is one consumer.
pub(crate) struct Triggers<T> {
    pending: Mutex<HashSet<T>>,
    notify: Notify,
}

impl<T> Default for Triggers<T> {
    fn default() -> Self {
        Self {
            pending: Mutex::default(),
            notify: Notify::new(),
        }
    }
}

impl<T: Hash + Eq + Clone> Triggers<T> {
    /// Adds items that are not waiting already.
    pub(crate) fn extend(&self, items: impl IntoIterator<Item = T>) {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        pending.extend(items);
        if !pending.is_empty() {
            self.notify.notify_one();
        }
    }

    /// Adds one item.
    pub(crate) fn push(&self, item: T) {
        self.extend([item]);
    }

    /// Waits for an item and takes it.
    pub(crate) async fn next(&self) -> T {
        loop {
            if let Some(item) = self.pop() {
                return item;
            }
            self.notify.notified().await;
        }
    }

    /// Everything that comes, without an end.
    pub(crate) fn stream(self: Arc<Self>) -> impl Stream<Item = T> {
        futures::stream::unfold(self, |triggers| async {
            let item = triggers.next().await;
            Some((item, triggers))
        })
    }

    fn pop(&self) -> Option<T> {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        let item = pending.iter().next().cloned()?;
        pending.take(&item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_item_waits_once() {
        let triggers = Triggers::default();
        triggers.extend(["a", "b", "a"]);
        triggers.push("b");
        let mut taken = [triggers.next().await, triggers.next().await];
        taken.sort_unstable();
        assert_eq!(taken, ["a", "b"]);
        assert_eq!(triggers.pop(), None);
    }
}
