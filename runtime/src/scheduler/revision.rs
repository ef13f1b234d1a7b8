//! One revision of a Function: its code, its configuration, and the instance that serves it.
//!
//! The instance is made by the first request, by one of them if several come at once. A start that failed is not tried
//! again before a pause that doubles each time.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use isolet_crds::ResolvedLimits;
use isolet_crds::bundle::FunctionIdentity;

use super::cell::Cell;
use super::console::Console;
use super::state::Failure;
use super::{Services, lock};
use crate::control::LoadError;
use crate::isolate::Blueprint;
use crate::server::error::RequestError;
use crate::web::host::Exception;

const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// One revision of a Function.
#[derive(Debug)]
pub(super) struct Revision {
    pub(super) name: String,
    pub(super) blueprint: Arc<Blueprint>,
    pub(super) console: Console,
    pub(super) services: Arc<Services>,
    current: Mutex<Current>,
    /// Held by the request that makes the instance.
    starting: tokio::sync::Mutex<Option<FailedStart>>,
}

#[derive(Debug, Default)]
struct Current {
    cell: Option<Arc<Cell>>,
    /// When it was last asked for.
    used: Option<Instant>,
    /// Another revision serves: no new instance is kept.
    closed: bool,
}

#[derive(Debug)]
struct FailedStart {
    error: LoadError,
    again: Instant,
    pause: Duration,
}

impl Revision {
    pub(super) fn new(name: String, blueprint: Blueprint, services: Arc<Services>) -> Self {
        let identity = &blueprint.bundle.manifest.function;
        Self {
            console: Console::new(&identity.namespace, &identity.name, &name),
            name,
            blueprint: Arc::new(blueprint),
            services,
            current: Mutex::default(),
            starting: tokio::sync::Mutex::new(None),
        }
    }

    pub(super) fn identity(&self) -> &FunctionIdentity {
        &self.blueprint.bundle.manifest.function
    }

    pub(super) fn limits(&self) -> ResolvedLimits {
        self.blueprint.bundle.manifest.limits
    }

    /// The instance, made now if there is none.
    pub(super) async fn cell(self: &Arc<Self>) -> Result<Arc<Cell>, Failure> {
        if let Some(cell) = self.use_running() {
            return Ok(cell);
        }
        let mut failed = self.starting.lock().await;
        if let Some(cell) = self.running() {
            return Ok(cell);
        }
        let now = Instant::now();
        if let Some(failed) = failed.as_ref().filter(|failed| failed.again > now) {
            return Err(start_failed(&failed.error));
        }
        match self.start().await {
            Ok(cell) => {
                *failed = None;
                self.adopt(&cell);
                Ok(cell)
            }
            Err(error) => {
                let pause = failed
                    .as_ref()
                    .map_or(FIRST_PAUSE, |before| (before.pause * 2).min(LONGEST_PAUSE));
                let failure = start_failed(&error);
                *failed = Some(FailedStart {
                    error,
                    again: now + pause,
                    pause,
                });
                Err(failure)
            }
        }
    }

    /// Makes an instance, where it may block.
    pub(super) async fn start(self: &Arc<Self>) -> Result<Arc<Cell>, LoadError> {
        let ended = |_| LoadError {
            message: "the worker is ending".into(),
            file: None,
            line: None,
            column: None,
        };
        let permit = self.services.starts.acquire().await;
        let revision = Arc::clone(self);
        let cell = self
            .services
            .runtime
            .spawn_blocking(move || Cell::start(&revision))
            .await
            .map_err(ended)?;
        drop(permit);
        cell
    }

    /// Has an instance serve this revision, unless another revision serves by now.
    pub(super) fn adopt(&self, cell: &Arc<Cell>) {
        let mut current = lock(&self.current);
        if !current.closed {
            current.cell = Some(Arc::clone(cell));
            current.used = Some(Instant::now());
        }
    }

    fn use_running(&self) -> Option<Arc<Cell>> {
        let mut current = lock(&self.current);
        current.used = Some(Instant::now());
        current.cell.clone()
    }

    /// The instance and the time since it was last asked for.
    pub(super) fn unused(&self) -> Option<(Arc<Cell>, Duration)> {
        let current = lock(&self.current);
        Some((current.cell.clone()?, current.used?.elapsed()))
    }

    pub(super) fn running(&self) -> Option<Arc<Cell>> {
        lock(&self.current).cell.clone()
    }

    /// Gives an instance no new requests; those under way keep it alive.
    pub(super) fn retire(&self, cell: &Arc<Cell>) {
        let mut current = lock(&self.current);
        if current
            .cell
            .as_ref()
            .is_some_and(|it| Arc::ptr_eq(it, cell))
        {
            current.cell = None;
        }
    }

    /// Another revision serves now, or none.
    pub(super) fn close(&self) {
        let cell = {
            let mut current = lock(&self.current);
            current.closed = true;
            current.cell.take()
        };
        drop(cell);
    }

    /// The log line of a request that failed.
    pub(super) fn report(&self, failure: &Failure) {
        let identity = self.identity();
        let none = Exception::default();
        let exception = failure.exception.as_ref().unwrap_or(&none);
        tracing::warn!(
            namespace = identity.namespace,
            function = identity.name,
            revision = self.name,
            reason = failure.error.reason(),
            exception = exception.message,
            stack = exception.stack,
            "request failed: {}",
            failure.error
        );
    }
}

fn start_failed(error: &LoadError) -> Failure {
    Failure {
        error: RequestError::StartFailed,
        exception: Some(Exception {
            message: error.message.clone(),
            file: error.file.clone(),
            line: error.line,
            column: error.column,
            ..Exception::default()
        }),
    }
}
