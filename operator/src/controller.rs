//! The reconcile of one Function, as a whole: dereference, validate, build, apply, status.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{FutureExt as _, StreamExt as _, stream};
use isolet_bundler::{Built, Sources};
use isolet_crds::Function;
use k8s_openapi::jiff::Timestamp;
use kube::runtime::controller::{
    Action, Config as QueueConfig, Error as QueueError, applier, trigger_self,
};
use kube::runtime::reflector;
use kube::{Resource as _, ResourceExt as _};
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument as _;

use crate::agents::jitter;
use crate::apply::{self, ApplyError, Plan};
use crate::build::{Summary, build};
use crate::context::{Context, Inputs, Owner};
use crate::dereference::{self, DereferenceError, Dereferenced, dereference};
use crate::routes::{Granted, Guarded};
use crate::status::{self, Facts, StatusError, Verdict};
use crate::validate::{Rejected, validate};
use crate::{events, sweep, watches};

/// Changes of one Function that come closer together are reconciled once.
const DEBOUNCE: Duration = Duration::from_millis(5);
const FIRST_RETRY: Duration = Duration::from_millis(200);
const LAST_RETRY: Duration = Duration::from_secs(60);
/// A missing reference is looked for again soon: it often comes with the same `kubectl apply`.
const FIRST_REFERENCE_RETRY: Duration = Duration::from_secs(1);
const LAST_REFERENCE_RETRY: Duration = Duration::from_secs(15);
/// How long a start waits for the pods and bundles to be known before it goes on without.
const SETTLE_LIMIT: Duration = Duration::from_secs(15);
const SETTLE_STEP: Duration = Duration::from_millis(20);

/// Why a reconcile is to be tried again. What is wrong with a Function is no error but its status.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReconcileError {
    /// A referenced object could not be read.
    #[error(transparent)]
    Dereference(DereferenceError),
    /// A bundle object could not be written.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// The status could not be written.
    #[error(transparent)]
    Status(#[from] StatusError),
    /// The bundles are of a later generation than the Function at hand.
    #[error("the watch of Functions lags behind")]
    Stale,
    /// Secret values could not be packed.
    #[error("failed to pack the Secret values: {0}")]
    Secrets(#[from] isolet_crds::bundle::BundleError),
    /// A defect of the operator.
    #[error("the reconcile ended early: {0}")]
    Crashed(#[from] tokio::task::JoinError),
}

impl ReconcileError {
    fn label(&self) -> &'static str {
        match self {
            Self::Dereference(_) => "Dereference",
            Self::Apply(_) => "Apply",
            Self::Status(StatusError::Conflict) => "Conflict",
            Self::Status(StatusError::Api(_)) => "Status",
            Self::Stale => "Stale",
            Self::Secrets(_) => "Secrets",
            Self::Crashed(_) => "Crashed",
        }
    }

    /// What resolves itself when the watch catches up.
    fn is_race(&self) -> bool {
        matches!(self, Self::Stale | Self::Status(StatusError::Conflict))
    }
}

/// Reconciles until `stop` resolves, then finishes what is under way.
pub(crate) async fn run(context: Arc<Context>, stop: impl Future<Output = ()> + Send + 'static) {
    let (store, writer) = reflector::store();
    let watched = trigger_self(watches::functions(context.clone(), writer), ());
    let triggered = context
        .triggers
        .clone()
        .stream()
        .map(|function| Ok(function.into()));
    let queue = stream::select(watched, triggered).take_until(stop);
    let config = QueueConfig::default()
        .debounce(DEBOUNCE)
        .concurrency(context.config.concurrency);
    applier(in_a_task, retry, context, store, queue.boxed(), config)
        .for_each(|outcome| async {
            if let Err(QueueError::QueueError(error)) = outcome {
                tracing::warn!(%error, "failed to watch Functions");
            }
        })
        .await;
}

/// Runs a reconcile in a task of its own: in parallel to others, and a panic ends only it.
fn in_a_task(
    object: Arc<Guarded>,
    context: Arc<Context>,
) -> impl Future<Output = Result<Action, ReconcileError>> + Unpin {
    let span = tracing::info_span!(
        "reconcile",
        namespace = object.namespace(),
        function = object.name_any(),
        revision = tracing::field::Empty
    );
    let task = tokio::spawn(
        async move {
            let started = Instant::now();
            let outcome = reconcile(&object, &context).await;
            context.metrics.reconciled(started.elapsed());
            outcome
        }
        .instrument(span),
    );
    AbortOnDropHandle::new(task)
        .map(|joined| joined.map_err(ReconcileError::from).flatten())
        .boxed()
}

fn retry(object: Arc<Guarded>, error: &ReconcileError, context: Arc<Context>) -> Action {
    context.metrics.failed(error.label());
    let uid = object.uid().unwrap_or_default();
    let wait = context.attempts.failed(&uid, FIRST_RETRY, LAST_RETRY);
    let (namespace, function) = (object.namespace(), object.name_any());
    if error.is_race() {
        tracing::debug!(%error, namespace, function, "reconciling again");
    } else {
        tracing::warn!(%error, namespace, function, ?wait, "failed to reconcile");
    }
    Action::requeue(wait)
}

async fn reconcile(object: &Guarded, context: &Context) -> Result<Action, ReconcileError> {
    settled(context).await;
    let Ok(watched) = &object.0 else {
        report_undecodable(object, context).await;
        return Ok(Action::await_change());
    };
    let function = context.written.newest(watched);
    if function.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let verdict = judge_and_apply(&function, context).await?;
    let programmed = report(&function, &verdict, context).await?;
    remove_old_revisions(&function, programmed, context).await?;
    Ok(next_look(&function, &verdict, context))
}

/// The first three steps, and the fourth where there is something to apply.
async fn judge_and_apply(
    function: &Arc<Function>,
    context: &Context,
) -> Result<Verdict, ReconcileError> {
    let found = match dereference(&context.client, &context.config, function).await {
        Ok(found) => found,
        Err(DereferenceError::Unresolved(unresolved)) => {
            return Ok(Verdict::Unresolved(unresolved));
        }
        Err(error) => return Err(ReconcileError::Dereference(error)),
    };
    let granted = context.functions.grant(function);
    let judged = judge(function, found, &granted, context).await?;
    let (summary, bundle) = match judged {
        Ok(judged) => judged,
        Err(rejected) => return Ok(Verdict::Rejected(rejected)),
    };
    tracing::Span::current().record("revision", &summary.revision);
    converge(function, &summary, bundle, &granted, context).await?;
    Ok(Verdict::Good {
        summary,
        lost: granted.denied,
    })
}

/// A bundle in hand, or the sources to make it again.
enum Bundle {
    Built(Box<Built>),
    Sources(Sources),
}

/// Validates and builds, unless the same was judged before.
async fn judge(
    function: &Arc<Function>,
    found: Dereferenced,
    granted: &Granted,
    context: &Context,
) -> Result<Result<(Summary, Bundle), Rejected>, ReconcileError> {
    let uid = function.uid().unwrap_or_default();
    let inputs = Inputs {
        generation: function.metadata.generation,
        versions: found.versions,
        granted: granted.clone(),
    };
    if let Some(known) = context.memory.recall(&uid, &inputs) {
        return Ok(known.map(|summary| (summary, Bundle::Sources(found.sources))));
    }
    let built = compile(function.clone(), granted.clone(), found.sources).await?;
    let summary = built.as_ref().map(Summary::of).map_err(Clone::clone);
    context.memory.keep(&uid, inputs, summary.clone());
    Ok(built.and_then(|built| Ok((summary?, Bundle::Built(Box::new(built))))))
}

/// Compiles on a thread where it may take its time. A crash of the compiler is the code's, and ends nothing else.
async fn compile(
    function: Arc<Function>,
    granted: Granted,
    sources: Sources,
) -> Result<Result<Built, Rejected>, ReconcileError> {
    let compiling = tokio::task::spawn_blocking(move || {
        validate(&function, &granted, sources).and_then(|validated| build(&validated))
    });
    match compiling.await {
        Ok(built) => Ok(built),
        Err(crash) if crash.is_panic() => Ok(Err(Rejected {
            reason: isolet_crds::condition::reason::INVALID_SPEC,
            message: "the compiler crashed on this code: please report it, with the code, to the project; a change of the \
                      code may avoid it"
                .into(),
        })),
        Err(cancelled) => Err(cancelled.into()),
    }
}

/// Makes the API server hold the bundle with the highest sequence; writes nothing where it does.
async fn converge(
    function: &Arc<Function>,
    summary: &Summary,
    bundle: Bundle,
    granted: &Granted,
    context: &Context,
) -> Result<(), ReconcileError> {
    let owner = match context.owner.borrow().clone() {
        // Nothing that would be collected at once is written; the DaemonSet's coming triggers all.
        Owner::Absent => return Ok(()),
        Owner::Unwanted => None,
        Owner::Found(owner) => Some(owner),
    };
    let revisions = context
        .bundles
        .revisions(&function.uid().unwrap_or_default());
    let generation = function.metadata.generation.unwrap_or_default();
    match apply::plan(&revisions, summary, generation, owner.as_ref()) {
        Plan::Nothing => Ok(()),
        Plan::Stale => Err(ReconcileError::Stale),
        Plan::Raise(sequence) => {
            let revision = revisions
                .get(&summary.revision)
                .cloned()
                .unwrap_or_default();
            Ok(apply::raise(context, &revision, owner.as_ref(), sequence).await?)
        }
        Plan::Write(sequence) => {
            let built = match bundle {
                Bundle::Built(built) => *built,
                Bundle::Sources(sources) => {
                    match compile(function.clone(), granted.clone(), sources).await? {
                        Ok(built) => built,
                        // The same inputs gave a bundle before.
                        Err(_) => return Err(ReconcileError::Stale),
                    }
                }
            };
            let secrets = built
                .secrets
                .as_ref()
                .map(|secrets| secrets.encode())
                .transpose()?;
            apply::write(context, function, &built, secrets, owner.as_ref(), sequence).await?;
            tracing::info!(
                size = summary.size,
                chunks = summary.chunks,
                "wrote a revision"
            );
            Ok(())
        }
    }
}

/// The last step; yields whether the revision told serves everywhere.
async fn report(
    function: &Arc<Function>,
    verdict: &Verdict,
    context: &Context,
) -> Result<bool, ReconcileError> {
    let uid = function.uid().unwrap_or_default();
    let revisions = context.bundles.revisions(&uid);
    let told = apply::told(&revisions);
    let pods = context.agents.observe(&uid, told.unwrap_or_default());
    let facts = Facts {
        verdict,
        told,
        pods: &pods,
    };
    let status = status::compute(function, &context.config, &facts, Timestamp::now());
    context.metrics.has_status(&uid, &status);
    if let Some(written) = status::write(context, function, &status).await? {
        context.written.keep(written);
        events::publish(&context.recorder, function, &status).await;
    }
    Ok(pods.is_programmed())
}

async fn remove_old_revisions(
    function: &Function,
    programmed: bool,
    context: &Context,
) -> Result<(), ReconcileError> {
    let uid = function.uid().unwrap_or_default();
    let mut revisions = context.bundles.revisions(&uid);
    let served = context.agents.observe(&uid, "").served;
    let limit = function.spec.revision_history_limit.unwrap_or(3) as usize;
    let surplus = apply::surplus(&revisions, &served, programmed, limit);
    let surplus = surplus
        .iter()
        .filter_map(|name| revisions.remove(name))
        .collect();
    Ok(sweep::remove_revisions(context, &uid, surplus).await?)
}

fn next_look(function: &Function, verdict: &Verdict, context: &Context) -> Action {
    let uid = function.uid().unwrap_or_default();
    if let Verdict::Unresolved(_) = verdict {
        return Action::requeue(context.attempts.failed(
            &uid,
            FIRST_REFERENCE_RETRY,
            LAST_REFERENCE_RETRY,
        ));
    }
    context.attempts.succeeded(&uid);
    if dereference::has_references(function) {
        let refresh = Duration::from_secs(context.config.reference_refresh_seconds);
        Action::requeue(refresh.mul_f64(jitter()))
    } else {
        Action::await_change()
    }
}

async fn report_undecodable(object: &Guarded, context: &Context) {
    let Err(invalid) = &object.0 else { return };
    let uid = object.uid().unwrap_or_default();
    let news = {
        let mut known = context
            .undecodable
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        known.insert(uid, invalid.error.clone()).as_ref() != Some(&invalid.error)
    };
    if news {
        context.metrics.failed("Undecodable");
        let (namespace, function) = (object.namespace(), object.name_any());
        tracing::warn!(
            error = invalid.error,
            namespace,
            function,
            "cannot decode a Function"
        );
        events::publish_undecodable(&context.recorder, &object.object_ref(&()), &invalid.error)
            .await;
    }
}

/// Waits, at the start, until bundles and pods are known: a status from half of that would be wrong for a moment.
async fn settled(context: &Context) {
    if context.settled.initialized() {
        return;
    }
    context
        .settled
        .get_or_init(|| async {
            let deadline = Instant::now() + SETTLE_LIMIT;
            while !context.is_settled() && Instant::now() < deadline {
                tokio::time::sleep(SETTLE_STEP).await;
            }
        })
        .await;
}
