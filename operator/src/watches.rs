//! The watches beside those of the runtime pods: Functions, bundle objects, the runtime DaemonSet, and the file of
//! allowed hosts. Each keeps its index and triggers whom a change concerns.

use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt as _, TryStreamExt as _, pin_mut};
use isolet_crds::labels;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::store::Writer;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt as _, watcher as watch_api};
use kube::{Api, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;

use crate::agents::Changed;
use crate::bundles::Kind;
use crate::context::{Context, Owner};
use crate::hosts::AllowedHosts;
use crate::routes::Guarded;

/// How often the file of allowed hosts is read: a mounted ConfigMap changes by itself.
const HOSTS_INTERVAL: Duration = Duration::from_secs(2);

/// Functions, as the queue takes them; the index is always ahead of the queue.
pub(crate) fn functions(
    context: Arc<Context>,
    writer: Writer<Guarded>,
) -> impl Stream<Item = Result<Guarded, watcher::Error>> {
    let api: Api<Guarded> = Api::all(context.client.clone());
    watch_api(api, watcher::Config::default())
        .default_backoff()
        .modify(|object| {
            object.managed_fields_mut().clear();
        })
        .inspect_ok(move |event| observe(&context, event))
        .reflect(writer)
        .applied_objects()
}

fn observe(context: &Context, event: &Event<Guarded>) {
    match event {
        Event::Init => context.functions.listing(),
        Event::Apply(object) | Event::InitApply(object) => {
            context.functions_touched(context.functions.applied(object));
        }
        Event::Delete(object) => context.functions_touched(context.functions.deleted(object)),
        Event::InitDone => {
            context.functions_touched(context.functions.listed());
            context.look_for_orphans();
        }
    }
}

/// Follows bundle objects until dropped.
pub(crate) async fn bundles(context: Arc<Context>) {
    tokio::join!(
        bundle_objects::<ConfigMap>(&context, Kind::ConfigMap),
        bundle_objects::<Secret>(&context, Kind::Secret),
    );
}

async fn bundle_objects<K>(context: &Context, kind: Kind)
where
    K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug
        + Send
        + Sync
        + 'static,
{
    let api: Api<PartialObjectMeta<K>> =
        Api::namespaced(context.client.clone(), &context.config.system_namespace);
    let config = watcher::Config::default().labels(&labels::bundle_selector());
    let events = watch_api(api, config).default_backoff();
    pin_mut!(events);
    while let Some(event) = events.next().await {
        let changed = match event {
            Ok(Event::Init) => {
                context.bundles.listing(kind);
                None
            }
            Ok(Event::InitApply(object) | Event::Apply(object)) => {
                context.bundles.applied(kind, &object.metadata)
            }
            Ok(Event::Delete(object)) => context.bundles.deleted(kind, &object.metadata),
            Ok(Event::InitDone) => {
                let lost = context.bundles.listed(kind);
                lost.into_iter().for_each(|uid| context.bundle_changed(uid));
                context.look_for_orphans();
                None
            }
            Err(error) => {
                tracing::warn!(%error, ?kind, "failed to watch bundle objects");
                None
            }
        };
        if let Some(uid) = changed {
            context.bundle_changed(uid);
        }
    }
}

/// Follows the runtime DaemonSet until dropped: a new one of the same name is another owner, and an owner that is gone
/// would have the bundles collected at once.
pub(crate) async fn owner(context: Arc<Context>) {
    let Some(name) = context.config.runtime_daemonset.clone() else {
        return std::future::pending().await;
    };
    let api: Api<PartialObjectMeta<DaemonSet>> =
        Api::namespaced(context.client.clone(), &context.config.system_namespace);
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let events = watch_api(api, config).default_backoff();
    pin_mut!(events);
    let mut listed = None;
    while let Some(event) = events.next().await {
        let owner = match event {
            Ok(Event::Init) => {
                listed = None;
                continue;
            }
            Ok(Event::InitApply(object)) => {
                listed = owner_of(&object);
                continue;
            }
            Ok(Event::InitDone) => listed.take(),
            Ok(Event::Apply(object)) => owner_of(&object),
            Ok(Event::Delete(_)) => None,
            Err(error) => {
                tracing::warn!(%error, name, "failed to watch the runtime DaemonSet");
                continue;
            }
        };
        let owner = owner.map_or(Owner::Absent, Owner::Found);
        if owner == Owner::Absent {
            tracing::warn!(
                name,
                "there is no such DaemonSet: no bundle is written until there is"
            );
        }
        let changed = context.owner.send_if_modified(|current| {
            let changed = *current != owner;
            *current = owner;
            changed
        });
        if changed {
            context.agents_changed(Changed::All);
        }
    }
}

fn owner_of(object: &PartialObjectMeta<DaemonSet>) -> Option<OwnerReference> {
    if object.metadata.deletion_timestamp.is_some() {
        return None;
    }
    Some(OwnerReference {
        api_version: DaemonSet::api_version(&()).into_owned(),
        kind: DaemonSet::kind(&()).into_owned(),
        name: object.name_any(),
        uid: object.uid()?,
        controller: None,
        block_owner_deletion: None,
    })
}

/// Follows the file of allowed hosts until dropped. A file that does not parse leaves the policy as it was.
pub(crate) async fn hosts(context: Arc<Context>, mut text: String) {
    let Some(path) = &context.config.allowed_hosts_file else {
        return std::future::pending().await;
    };
    loop {
        tokio::time::sleep(HOSTS_INTERVAL).await;
        let read = match tokio::fs::read_to_string(path).await {
            Ok(read) if read == text => continue,
            Ok(read) => read,
            Err(error) => {
                tracing::warn!(%error, path = %path.display(), "failed to read the allowed hosts");
                continue;
            }
        };
        text = read;
        match AllowedHosts::parse(&text, &context.config.domain) {
            Ok(hosts) => {
                if context.functions.replace_hosts(hosts) {
                    tracing::info!("the allowed hosts have changed");
                    context.agents_changed(Changed::All);
                }
            }
            Err(error) => tracing::warn!(%error, "the allowed hosts stay as they were"),
        }
    }
}
