//! Removes bundle objects whose Function is gone. There are no finalizers: nothing ever waits for the operator.
//!
//! A UID is suspected when the watch of Functions says it went, when a bundle object of an unknown Function appears (a
//! reconcile that was under way as its Function went), and in a look at everything at the start and every
//! [`INTERVAL`], which covers what happened while no operator ran, such as a namespace's end. A suspicion needs complete
//! lists of both, and is checked by a live GET before anything is deleted.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use isolet_crds::Function;
use kube::{Api, ResourceExt as _};

use crate::apply::{self, ApplyError};
use crate::bundles::Revision;
use crate::context::Context;

/// How often everything is looked at.
pub(crate) const INTERVAL: Duration = Duration::from_secs(180);
const DELETES_AT_ONCE: usize = 8;

#[derive(Debug, thiserror::Error)]
enum SweepError {
    #[error("failed to read Function {0}: {1}")]
    Function(String, #[source] Box<kube::Error>),
    #[error(transparent)]
    Apply(#[from] ApplyError),
}

/// Sweeps suspects until dropped.
pub(crate) async fn run(context: Arc<Context>) {
    let suspects = context.orphans.clone().stream();
    let sweeping =
        suspects.for_each_concurrent(DELETES_AT_ONCE, |uid| sweep_suspect(context.clone(), uid));
    let looking = async {
        loop {
            tokio::time::sleep(INTERVAL).await;
            context.look_for_orphans();
        }
    };
    tokio::join!(sweeping, looking);
}

async fn sweep_suspect(context: Arc<Context>, uid: String) {
    match sweep(&context, &uid).await {
        Ok(0) => {}
        Ok(objects) => tracing::info!(
            uid,
            objects,
            "removed the bundles of a Function that is gone"
        ),
        Err(error) => {
            // The next look at everything finds it again.
            context.metrics.failed("Sweep");
            tracing::warn!(uid, %error, "failed to remove the bundles of a Function that is gone");
        }
    }
}

/// Deletes the objects of a UID if no live Function has it; yields how many.
async fn sweep(context: &Context, uid: &str) -> Result<usize, SweepError> {
    let objects = context.bundles.objects(uid);
    let Some((namespace, name)) = objects
        .values()
        .next()
        .map(|object| object.function.clone())
    else {
        return Ok(0);
    };
    let functions: Api<kube::core::PartialObjectMeta<Function>> =
        Api::namespaced(context.client.clone(), &namespace);
    let live = functions
        .get_opt(&name)
        .await
        .map_err(|error| SweepError::Function(format!("{namespace}/{name}"), Box::new(error)))?;
    if live.is_some_and(|live| live.uid().as_deref() == Some(uid)) {
        return Ok(0);
    }
    for (key, object) in &objects {
        apply::delete(context, uid, key, object).await?;
    }
    Ok(objects.len())
}

/// Deletes old revisions of a live Function.
pub(crate) async fn remove_revisions(
    context: &Context,
    uid: &str,
    revisions: Vec<Revision>,
) -> Result<(), ApplyError> {
    for revision in revisions {
        for (key, object) in &revision.objects {
            apply::delete(context, uid, key, object).await?;
        }
    }
    Ok(())
}
