//! Bundles from the API server: two watches, one store.
//!
//! Until both first lists are whole, what the disk cache had is what there is; after that, what the API server says. A watch
//! that fails is tried again, at most every few seconds apart, for ever.

use std::time::Duration;

use futures::{Stream, StreamExt, stream};
use isolet_crds::labels;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::Api;
use kube::runtime::utils::Backoff;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, ResourceExt};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::metrics::Metrics;
use crate::bundle::SourceEvent;
use crate::bundle::cache::Cache;
use crate::bundle::object::{BundleObject, ObjectError, ObjectKey};
use crate::bundle::store::{Kind, Store};

const FIRST_DELAY: Duration = Duration::from_millis(200);
const LONGEST_DELAY: Duration = Duration::from_secs(5);
const FORGOTTEN_AFTER: Duration = Duration::from_secs(15);
/// Bundles are large: a page of them is a few dozen MiB at worst.
const PAGE: u32 = 50;
/// So long a start waits for the API server before it is content with the disk cache.
const CACHE_GRACE: Duration = Duration::from_secs(3);

/// Reads the cache, then watches, until the receiver is gone.
pub async fn run(
    client: Client,
    namespace: String,
    cache: Option<Cache>,
    metrics: Metrics,
    events: mpsc::Sender<SourceEvent>,
) {
    let mut source = ApiSource {
        store: Store::default(),
        events,
        synced: false,
    };
    if source.restore(cache).await.is_err() {
        return;
    }
    // An object that arrives first may wait for its Secret: two watches tell in any order.
    let mut notes = stream::select(
        watch::<ConfigMap>(client.clone(), &namespace, metrics.clone(), config_map),
        watch::<Secret>(client, &namespace, metrics, secret),
    )
    .boxed();
    let grace = tokio::time::sleep(CACHE_GRACE);
    tokio::pin!(grace);
    loop {
        let told = tokio::select! {
            Some(note) = notes.next() => source.note(note).await,
            () = &mut grace, if !source.synced && !grace.is_elapsed() => source.content_with_cache().await,
            else => return,
        };
        if told.is_err() {
            return;
        }
    }
}

struct ApiSource {
    store: Store,
    events: mpsc::Sender<SourceEvent>,
    synced: bool,
}

/// The loader is gone.
struct Closed;

enum Note {
    Begin(Kind),
    Apply(ObjectKey, Box<Result<BundleObject, ObjectError>>),
    Delete(ObjectKey),
    End(Kind),
}

impl ApiSource {
    async fn restore(&mut self, cache: Option<Cache>) -> Result<(), Closed> {
        let Some(cache) = cache else { return Ok(()) };
        let revisions = tokio::task::spawn_blocking(move || cache.load())
            .await
            .unwrap_or_default();
        tracing::info!(functions = revisions.len(), "read the bundle cache");
        for revision in revisions {
            self.store.restore(revision);
        }
        self.tell(self.store.restored()).await
    }

    async fn note(&mut self, note: Note) -> Result<(), Closed> {
        let dirty = match note {
            Note::Begin(kind) => {
                self.store.begin_list(kind);
                return Ok(());
            }
            Note::Apply(key, object) => {
                if let Err(error) = object.as_ref() {
                    tracing::warn!(%error, "ignored an object");
                }
                self.store.apply(*object, key)
            }
            Note::Delete(key) => self.store.remove(&key),
            Note::End(kind) => self.store.end_list(kind),
        };
        if !self.store.synced() {
            return Ok(());
        }
        self.tell(dirty).await?;
        if !self.synced {
            tracing::info!("listed all bundles");
            self.sync().await?;
        }
        Ok(())
    }

    async fn content_with_cache(&mut self) -> Result<(), Closed> {
        if self.store.restored().is_empty() {
            tracing::warn!(
                "the API server has not answered yet and the bundle cache is empty: nothing to serve so far"
            );
            return Ok(());
        }
        tracing::warn!("the API server has not answered yet: serving what the bundle cache has");
        self.sync().await
    }

    async fn sync(&mut self) -> Result<(), Closed> {
        self.synced = true;
        self.events
            .send(SourceEvent::Synced)
            .await
            .map_err(|_| Closed)
    }

    async fn tell(&mut self, uids: Vec<String>) -> Result<(), Closed> {
        for uid in uids {
            let change = self.store.change(&uid);
            if let Some(broken) = &change.broken {
                tracing::warn!(
                    uid,
                    revision = broken.revision,
                    reason = broken.message,
                    "a bundle cannot be read"
                );
            }
            self.events
                .send(SourceEvent::Changed(change))
                .await
                .map_err(|_| Closed)?;
        }
        Ok(())
    }
}

fn watch<K>(
    client: Client,
    namespace: &str,
    metrics: Metrics,
    read: fn(&K) -> (ObjectKey, Result<BundleObject, ObjectError>),
) -> impl Stream<Item = Note> + Send
where
    K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned
        + Send
        + Sync
        + 'static,
{
    let kind = if K::kind(&()) == "Secret" {
        Kind::Secret
    } else {
        Kind::ConfigMap
    };
    let config = watcher::Config::default()
        .labels(&labels::bundle_selector())
        .page_size(PAGE);
    watcher(Api::<K>::namespaced(client, namespace), config)
        .backoff(Delays::default())
        .filter_map(move |event| {
            let note = match event {
                Ok(watcher::Event::Init) => Some(Note::Begin(kind)),
                Ok(watcher::Event::InitDone) => Some(Note::End(kind)),
                Ok(watcher::Event::InitApply(object) | watcher::Event::Apply(object)) => {
                    let (key, object) = read(&object);
                    Some(Note::Apply(key, Box::new(object)))
                }
                Ok(watcher::Event::Delete(object)) => Some(Note::Delete(read(&object).0)),
                Err(error) => {
                    metrics.watch_errors.inc();
                    tracing::warn!(kind = %K::kind(&()), error = &error as &dyn std::error::Error, "the watch of bundles failed; trying again");
                    None
                }
            };
            async move { note }
        })
}

fn config_map(object: &ConfigMap) -> (ObjectKey, Result<BundleObject, ObjectError>) {
    (
        ObjectKey::ConfigMap(object.name_any()),
        BundleObject::from_config_map(object),
    )
}

fn secret(object: &Secret) -> (ObjectKey, Result<BundleObject, ObjectError>) {
    (
        ObjectKey::Secret(object.name_any()),
        BundleObject::from_secret(object),
    )
}

/// Doubling, up to a few seconds, each with up to a quarter more at random so that nodes do not ask in step.
#[derive(Default)]
struct Delays {
    failures: u32,
    last: Option<Instant>,
}

impl Iterator for Delays {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let delay = (FIRST_DELAY * 2u32.saturating_pow(self.failures)).min(LONGEST_DELAY);
        self.failures = self.failures.saturating_add(1);
        self.last = Some(Instant::now());
        let jitter = getrandom::u32().unwrap_or(0) % 256;
        Some(delay + delay * jitter / 1024)
    }
}

impl Backoff for Delays {
    /// Called for every event, also for the one with which a list begins that then fails: so a failure is forgotten only
    /// after a while.
    fn reset(&mut self) {
        if self
            .last
            .is_some_and(|last| last.elapsed() > FORGOTTEN_AFTER)
        {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_a_bound_and_begin_anew_after_a_while() {
        let mut delays = Delays::default();
        let first = delays.next().unwrap();
        assert!((200..=250).contains(&first.as_millis()), "{first:?}");
        let last = delays.by_ref().take(50).last().unwrap();
        assert!((5000..=6250).contains(&last.as_millis()), "{last:?}");
        delays.reset();
        assert!(
            delays.next().unwrap().as_millis() >= 5000,
            "the failure is too fresh"
        );
        let long_ago = Instant::now().checked_sub(FORGOTTEN_AFTER + Duration::from_secs(1));
        delays.last = Some(long_ago.unwrap());
        delays.reset();
        assert!(delays.next().unwrap().as_millis() <= 250);
    }
}
