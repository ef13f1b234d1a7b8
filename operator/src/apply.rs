//! Fourth step: makes the API server hold the wanted revision, with the highest sequence, and removes old ones.
//!
//! Runtime pods serve the complete revision with the highest sequence. A sequence is `generation << 20 | n`: a later
//! generation of the Function always outranks an earlier one, so an operator that still sees the spec of yesterday
//! notices (the bundles are from a later generation than its Function) and leaves them alone. That is what makes two
//! operators at once harmless.

use std::collections::{BTreeMap, BTreeSet};

use isolet_bundler::Built;
use isolet_crds::{Function, labels};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::core::NamespaceResourceScope;
use kube::{Api, Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::FIELD_MANAGER;
use crate::build::{Placement, Summary, objects};
use crate::bundles::{BundleObject, Kind, ObjectKey, Revision};
use crate::context::Context;

const GENERATION_SHIFT: u32 = 20;
/// Revisions kept beyond the limit while the newest does not serve everywhere.
const KEPT_MEANWHILE: usize = 5;

/// The API server did not take or give an object.
#[derive(Debug, thiserror::Error)]
#[error("failed to {verb} {kind:?} {name}: {source}")]
pub(crate) struct ApplyError {
    verb: &'static str,
    kind: Kind,
    name: String,
    source: Box<kube::Error>,
}

/// What is to be done for a revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    /// It is there and ranks highest.
    Nothing,
    /// The bundles are of a later generation than the Function at hand.
    Stale,
    /// It is there, and is to rank highest (a return to an earlier state) or to have another owner.
    Raise(u64),
    /// It is not there, or not wholly.
    Write(u64),
}

/// Compares what there is with what is wanted. Pure.
pub(crate) fn plan(
    revisions: &BTreeMap<String, Revision>,
    wanted: &Summary,
    generation: i64,
    owner: Option<&OwnerReference>,
) -> Plan {
    let generation = u64::try_from(generation).unwrap_or(0);
    let others = revisions
        .iter()
        .filter(|(name, _)| **name != wanted.revision)
        .map(|(_, revision)| revision.sequence())
        .max()
        .unwrap_or(0);
    let mine = revisions.get(&wanted.revision);
    let highest = others.max(mine.map_or(0, Revision::sequence));
    if highest >> GENERATION_SHIFT > generation {
        return Plan::Stale;
    }
    let sequence = match mine.map(Revision::sequence) {
        Some(sequence) if sequence > others => sequence,
        _ => (generation << GENERATION_SHIFT).max(highest + 1),
    };
    match mine {
        Some(mine) if mine.is_complete(wanted.has_secret) => {
            if mine
                .objects
                .values()
                .all(|object| is_marked(object, sequence, owner))
            {
                Plan::Nothing
            } else {
                Plan::Raise(sequence)
            }
        }
        _ => Plan::Write(sequence),
    }
}

fn is_marked(object: &BundleObject, sequence: u64, owner: Option<&OwnerReference>) -> bool {
    object.sequence == sequence
        && owner.is_none_or(|owner| object.owner.as_ref() == Some(&owner.uid))
}

/// The revision that runtime pods are told to serve: complete, with the highest sequence.
pub(crate) fn told(revisions: &BTreeMap<String, Revision>) -> Option<&str> {
    revisions
        .iter()
        // Whether a Secret is needed only the manifest says; it is written first, so it is there.
        .filter(|(_, revision)| revision.is_complete(false))
        .max_by_key(|(_, revision)| revision.sequence())
        .map(|(name, _)| name.as_str())
}

/// Old revisions to delete: never the one told, nor one that a pod serves; of the others the newest are kept, `limit` of
/// them once the one told serves everywhere. Pure.
pub(crate) fn surplus(
    revisions: &BTreeMap<String, Revision>,
    served: &BTreeSet<String>,
    programmed: bool,
    limit: usize,
) -> Vec<String> {
    let told = told(revisions);
    let mut old: Vec<(&String, u64)> = revisions
        .iter()
        .filter(|(name, _)| Some(name.as_str()) != told && !served.contains(*name))
        .map(|(name, revision)| (name, revision.sequence()))
        .collect();
    old.sort_unstable_by_key(|(_, sequence)| std::cmp::Reverse(*sequence));
    let keep = if programmed {
        limit
    } else {
        limit + KEPT_MEANWHILE
    };
    old.into_iter()
        .skip(keep)
        .map(|(name, _)| name.clone())
        .collect()
}

/// Writes all objects of a revision: Secret first, first chunk last.
pub(crate) async fn write(
    context: &Context,
    function: &Function,
    built: &Built,
    secrets: Option<Vec<u8>>,
    owner: Option<&OwnerReference>,
    sequence: u64,
) -> Result<(), ApplyError> {
    let placement = Placement {
        namespace: &context.config.system_namespace,
        owner,
        sequence,
    };
    let objects = objects(function, built, secrets, &placement);
    if let Some(secret) = objects.secret {
        put(context, Kind::Secret, &secret).await?;
    }
    for chunk in objects.config_maps.iter().rev() {
        put(context, Kind::ConfigMap, chunk).await?;
    }
    Ok(())
}

/// Gives all objects of a revision that sequence and owner: Secret first, first chunk last. Their data cannot change.
pub(crate) async fn raise(
    context: &Context,
    revision: &Revision,
    owner: Option<&OwnerReference>,
    sequence: u64,
) -> Result<(), ApplyError> {
    let mut patch = json!({"metadata": {"annotations": {labels::SEQUENCE: sequence.to_string()}}});
    if let Some(owner) = owner {
        patch["metadata"]["ownerReferences"] = json!([owner]);
    }
    for ((kind, name), object) in revision.objects.iter().rev() {
        if is_marked(object, sequence, owner) {
            continue;
        }
        match kind {
            Kind::Secret => annotate::<Secret>(context, *kind, name, &patch).await?,
            Kind::ConfigMap => annotate::<ConfigMap>(context, *kind, name, &patch).await?,
        }
    }
    Ok(())
}

/// Deletes one object, if it is still the same one.
pub(crate) async fn delete(
    context: &Context,
    function_uid: &str,
    key: &ObjectKey,
    object: &BundleObject,
) -> Result<(), ApplyError> {
    let (kind, name) = key;
    let params = DeleteParams {
        preconditions: Some(Preconditions {
            uid: Some(object.uid.clone()),
            resource_version: None,
        }),
        ..DeleteParams::default()
    };
    let outcome = match kind {
        Kind::Secret => api::<Secret>(context).delete(name, &params).await.map(drop),
        Kind::ConfigMap => api::<ConfigMap>(context)
            .delete(name, &params)
            .await
            .map(drop),
    };
    match outcome {
        Ok(()) => {}
        // Gone, or made again by another: in both cases not this object any more.
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => {}
        Err(error) => return Err(failed("delete", *kind, name, error)),
    }
    context.bundles.forget(function_uid, key);
    Ok(())
}

async fn put<K>(context: &Context, kind: Kind, object: &K) -> Result<(), ApplyError>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Serialize
        + DeserializeOwned
        + std::fmt::Debug,
{
    let name = object.name_any();
    let params = PatchParams::apply(FIELD_MANAGER).force();
    let written = api::<K>(context)
        .patch(&name, &params, &Patch::Apply(object))
        .await;
    match written {
        Ok(written) => {
            context.bundles.applied(kind, written.meta());
            Ok(())
        }
        Err(error) => {
            // An immutable object of this name with other bytes: cut short by another version of the operator, whose
            // compression differs. Nobody serves an incomplete revision, so it makes way for the next attempt.
            if matches!(&error, kube::Error::Api(status) if status.code == 422) {
                let gone = api::<K>(context)
                    .delete(&name, &DeleteParams::default())
                    .await;
                tracing::warn!(
                    name,
                    deleted = gone.is_ok(),
                    "a bundle object is in the way"
                );
            }
            Err(failed("write", kind, &name, error))
        }
    }
}

async fn annotate<K>(
    context: &Context,
    kind: Kind,
    name: &str,
    patch: &serde_json::Value,
) -> Result<(), ApplyError>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug,
{
    let params = PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    let written = api::<K>(context)
        .patch_metadata(name, &params, &Patch::Merge(patch))
        .await
        .map_err(|error| failed("raise", kind, name, error))?;
    context.bundles.applied(kind, &written.metadata);
    Ok(())
}

fn api<K>(context: &Context) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    Api::namespaced(context.client.clone(), &context.config.system_namespace)
}

fn failed(verb: &'static str, kind: Kind, name: &str, error: kube::Error) -> ApplyError {
    ApplyError {
        verb,
        kind,
        name: name.to_owned(),
        source: Box::new(error),
    }
}

#[cfg(test)]
#[path = "tests/apply.rs"]
mod tests;
