//! The calls from Rust into JavaScript.

use http::{HeaderMap, Method};

use super::bootstrap::ENTRY_NAMES;
use super::exception::exception_from;
use super::fields;
use super::host::{Completion, CompletionId, Exception, HostError, RequestId, StreamId};
use super::op::{string, uint8_array};

/// What of a request is known before its body.
#[derive(Clone, Debug)]
pub struct RequestHead {
    /// Method, as received.
    pub method: Method,
    /// Absolute URL.
    pub url: String,
    /// Header fields.
    pub headers: HeaderMap,
}

/// Why an instance cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The default export cannot handle requests; says what is wrong and how it should be.
    #[error("{0}")]
    NoHandler(String),
    /// The default export is an object whose properties throw.
    #[error("{}", .0.message)]
    Thrown(Exception),
    /// JavaScript was terminated.
    #[error("JavaScript was terminated")]
    Terminated,
}

/// How a call into JavaScript failed.
#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    /// JavaScript was terminated.
    #[error("JavaScript was terminated")]
    Terminated,
    /// A timer's or event's own callback threw: to be logged; nothing else is wrong.
    #[error("{}", .0.message)]
    Exception(Exception),
}

/// The entry points of one context. Dropped with the isolate, or before it.
pub struct Entrypoints {
    start: v8::Global<v8::Function>,
    dispatch: v8::Global<v8::Function>,
    complete: v8::Global<v8::Function>,
    abort: v8::Global<v8::Function>,
    under_way: v8::Global<v8::Function>,
    warm: v8::Global<v8::Function>,
}

impl Entrypoints {
    /// Finds the entry points in the current context, once a context.
    ///
    /// # Errors
    ///
    /// The context does not come from this build's snapshot, or this was called before.
    pub fn load(scope: &mut v8::PinScope<'_, '_>) -> Result<Self, Exception> {
        let take = |scope: &mut v8::PinScope<'_, '_>, index: usize| {
            scope
                .get_context_data_from_snapshot_once::<v8::Function>(index)
                .map(|function| v8::Global::new(scope, function))
                .map_err(|error| Exception {
                    message: format!(
                        "the snapshot has no entry point {}: {error}",
                        ENTRY_NAMES[index]
                    ),
                    ..Exception::default()
                })
        };
        let load = take(scope, 0)?;
        let entrypoints = Self {
            start: take(scope, 1)?,
            dispatch: take(scope, 2)?,
            complete: take(scope, 3)?,
            abort: take(scope, 4)?,
            under_way: take(scope, 5)?,
            warm: take(scope, 6)?,
        };
        let global = scope.get_current_context().global(scope).into();
        match call(scope, &load, &[global], |_, _| {}) {
            Ok(()) => Ok(entrypoints),
            Err(EntryError::Exception(exception)) => Err(exception),
            Err(EntryError::Terminated) => Err(Exception {
                message: "terminated while it was prepared".to_owned(),
                ..Exception::default()
            }),
        }
    }

    /// Serves a request of nobody, before [`Self::start`], so that the first one is faster. Nothing of it stays that JavaScript
    /// could see, and there need be no host.
    ///
    /// # Errors
    ///
    /// What the Web API layer threw: a defect of it.
    pub fn warm_up(&self, scope: &mut v8::PinScope<'_, '_>) -> Result<(), EntryError> {
        v8::scope!(let scope, scope);
        call(scope, &self.warm, &[], |_, _| {})
    }

    /// Keeps the main module's default export and the environment. Called once, after the module was evaluated.
    ///
    /// # Errors
    ///
    /// See [`StartError`].
    pub fn start(
        &self,
        scope: &mut v8::PinScope<'_, '_>,
        namespace: v8::Local<'_, v8::Value>,
        env: &[(&str, &str)],
    ) -> Result<(), StartError> {
        v8::scope!(let scope, scope);
        let pairs: Vec<v8::Local<'_, v8::Value>> = env
            .iter()
            .flat_map(|(name, value)| [*name, *value])
            .map(|text| string(scope, text).into())
            .collect();
        let pairs = v8::Array::new_with_elements(scope, &pairs);
        let mut problem = None;
        call(
            scope,
            &self.start,
            &[namespace, pairs.into()],
            |scope, result| {
                if result.is_string() {
                    problem = Some(result.to_rust_string_lossy(scope));
                }
            },
        )
        .map_err(|error| match error {
            EntryError::Terminated => StartError::Terminated,
            EntryError::Exception(exception) => StartError::Thrown(exception),
        })?;
        match problem {
            Some(problem) => Err(StartError::NoHandler(problem)),
            None => Ok(()),
        }
    }

    /// Calls the handler. What becomes of the request comes through [`super::host::Host`], during this call or later.
    ///
    /// # Errors
    ///
    /// [`EntryError::Terminated`]; a handler that throws is the host's matter (`Host::fail`).
    pub fn dispatch(
        &self,
        scope: &mut v8::PinScope<'_, '_>,
        request: RequestId,
        head: &RequestHead,
        body: Option<StreamId>,
    ) -> Result<(), EntryError> {
        v8::scope!(let scope, scope);
        let id = v8::Integer::new_from_unsigned(scope, request.0);
        let method = string(scope, head.method.as_str());
        let url = string(scope, &head.url);
        let fields = fields::string(scope, &head.headers);
        let body = v8::Integer::new_from_unsigned(scope, body.map_or(0, |stream| stream.0));
        let arguments = [
            id.into(),
            method.into(),
            url.into(),
            fields.into(),
            body.into(),
        ];
        call(scope, &self.dispatch, &arguments, |_, _| {})
    }

    /// Hands over what JavaScript waited for. A completion that nobody waits for any more is ignored.
    ///
    /// # Errors
    ///
    /// See [`EntryError`].
    pub fn complete(
        &self,
        scope: &mut v8::PinScope<'_, '_>,
        id: CompletionId,
        completion: Completion,
    ) -> Result<(), EntryError> {
        v8::scope!(let scope, scope);
        let id = v8::Integer::new_from_unsigned(scope, id.0).into();
        let (kind, value, error_kind) = completion_arguments(scope, completion);
        let kind = v8::Integer::new(scope, kind).into();
        let error_kind = v8::Integer::new(scope, error_kind).into();
        call(
            scope,
            &self.complete,
            &[id, kind, value, error_kind],
            |_, _| {},
        )
    }

    /// Tells a request's handler that nobody waits for the answer: `request.signal` is aborted, a response under way is
    /// cancelled. A request that has ended is ignored.
    ///
    /// # Errors
    ///
    /// See [`EntryError`].
    pub fn abort(
        &self,
        scope: &mut v8::PinScope<'_, '_>,
        request: RequestId,
        reason: &str,
    ) -> Result<(), EntryError> {
        v8::scope!(let scope, scope);
        let id = v8::Integer::new_from_unsigned(scope, request.0);
        let reason = string(scope, reason);
        call(scope, &self.abort, &[id.into(), reason.into()], |_, _| {})
    }

    /// How many requests and how many completions JavaScript keeps: both are 0 once nothing is under way.
    pub fn under_way(&self, scope: &mut v8::PinScope<'_, '_>) -> (u32, u32) {
        v8::scope!(let scope, scope);
        let mut counts = (0, 0);
        // Nothing of the tenant's runs in it: it cannot fail but by termination.
        let _ = call(scope, &self.under_way, &[], |scope, result| {
            if let Ok(list) = v8::Local::<v8::Array>::try_from(result) {
                let at = |index| {
                    list.get_index(scope, index)
                        .and_then(|count| count.uint32_value(scope))
                        .unwrap_or(0)
                };
                counts = (at(0), at(1));
            }
        });
        counts
    }
}

/// Numbers of host errors in `internals.hostError`.
fn error_number(error: &HostError) -> i32 {
    match error {
        HostError::Type(_) => 0,
        HostError::Range(_) => 1,
        HostError::Abort(_) => 2,
    }
}

fn completion_arguments<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    completion: Completion,
) -> (i32, v8::Local<'s, v8::Value>, i32) {
    match completion {
        Completion::Done => (0, v8::undefined(scope).into(), 0),
        Completion::Chunk(None) => (0, v8::null(scope).into(), 0),
        Completion::Chunk(Some(bytes)) => match uint8_array(scope, Vec::from(bytes)) {
            Ok(array) => (0, array.into(), 0),
            Err(_) => (
                1,
                string(scope, "a piece of the body is too large").into(),
                1,
            ),
        },
        Completion::Response(response) => {
            let values: [v8::Local<'_, v8::Value>; 6] = [
                v8::Integer::new_from_unsigned(scope, u32::from(response.status)).into(),
                string(scope, &response.status_text).into(),
                fields::string(scope, &response.headers).into(),
                v8::Integer::new_from_unsigned(scope, response.body.map_or(0, |body| body.0))
                    .into(),
                string(scope, &response.url).into(),
                v8::Boolean::new(scope, response.redirected).into(),
            ];
            (0, v8::Array::new_with_elements(scope, &values).into(), 0)
        }
        Completion::Failed(error) => {
            let number = error_number(&error);
            (1, string(scope, &error.to_string()).into(), number)
        }
    }
}

fn call(
    scope: &mut v8::PinScope<'_, '_>,
    function: &v8::Global<v8::Function>,
    arguments: &[v8::Local<'_, v8::Value>],
    with: impl FnOnce(&mut v8::PinScope<'_, '_>, v8::Local<'_, v8::Value>),
) -> Result<(), EntryError> {
    v8::tc_scope!(let scope, scope);
    let function = v8::Local::new(scope, function);
    let receiver = v8::undefined(scope).into();
    if let Some(result) = function.call(scope, receiver, arguments) {
        with(scope, result);
        return Ok(());
    }
    if scope.has_terminated() || !scope.can_continue() {
        return Err(EntryError::Terminated);
    }
    match scope.exception() {
        Some(exception) => Err(EntryError::Exception(exception_from(scope, exception))),
        None => Err(EntryError::Terminated),
    }
}
