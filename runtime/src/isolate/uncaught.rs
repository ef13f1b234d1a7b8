//! What JavaScript throws and nothing catches: the reasons of rejected promises without a handler, and exceptions of callbacks
//! that V8 itself calls (those of a `FinalizationRegistry`).

use crate::web::{self, host::Exception};

/// Of one entry, how many are kept.
const MAX_KEPT: usize = 16;

/// In the isolate's slot.
#[derive(Default)]
pub(super) struct Thrown(Vec<(Option<v8::Global<v8::Promise>>, v8::Global<v8::Value>)>);

/// An exception that nothing caught.
#[derive(Debug)]
pub struct Uncaught {
    /// What was thrown.
    pub exception: Exception,
    /// A promise was rejected with it.
    pub in_promise: bool,
}

impl Thrown {
    fn keep(&mut self, promise: Option<v8::Global<v8::Promise>>, value: v8::Global<v8::Value>) {
        if self.0.len() < MAX_KEPT {
            self.0.push((promise, value));
        }
    }
}

/// Has V8 tell what nothing catches. Without a listener it would write to the standard output of the process.
pub(super) fn listen(isolate: &mut v8::Isolate) {
    isolate.set_slot(Thrown::default());
    isolate.set_promise_reject_callback(on_reject);
    isolate.add_message_listener(on_message);
}

/// What was thrown since the last call. May run the tenant's code: inside the section whose CPU time is metered.
pub(super) fn take(isolate: &mut v8::Isolate, context: &v8::Global<v8::Context>) -> Vec<Uncaught> {
    let thrown = take_values(isolate).0;
    if thrown.is_empty() {
        return Vec::new();
    }
    v8::scope_with_context!(scope, isolate, context);
    thrown
        .into_iter()
        .map(|(promise, value)| {
            let value = v8::Local::new(scope, value);
            Uncaught {
                exception: web::exception_from(scope, value),
                in_promise: promise.is_some(),
            }
        })
        .collect()
}

/// Forgets what was thrown since the last call.
pub(super) fn forget(isolate: &mut v8::Isolate) {
    take_values(isolate);
}

fn take_values(isolate: &mut v8::Isolate) -> Thrown {
    let thrown = isolate.get_slot_mut::<Thrown>();
    thrown.map(std::mem::take).unwrap_or_default()
}

/// V8 calls this inside an entry, when a promise is rejected without a handler and when it gets one after that.
extern "C" fn on_reject(message: v8::PromiseRejectMessage<'_>) {
    v8::callback_scope!(unsafe scope, &message);
    let promise = v8::Global::new(scope, message.get_promise());
    let reason = message
        .get_value()
        .map(|reason| v8::Global::new(scope, reason));
    let Some(thrown) = scope.get_slot_mut::<Thrown>() else {
        return;
    };
    match (message.get_event(), reason) {
        (v8::PromiseRejectEvent::PromiseRejectWithNoHandler, Some(reason)) => {
            thrown.keep(Some(promise), reason);
        }
        (v8::PromiseRejectEvent::PromiseHandlerAddedAfterReject, _) => {
            let is_another = |rejected: &Option<_>| rejected.as_ref() != Some(&promise);
            thrown.0.retain(|(rejected, _)| is_another(rejected));
        }
        _ => {}
    }
}

/// V8 calls this inside an entry, when an exception reaches the end of a callback that it called itself.
extern "C" fn on_message(message: v8::Local<'_, v8::Message>, thrown: v8::Local<'_, v8::Value>) {
    v8::callback_scope!(unsafe scope, message);
    let value = v8::Global::new(scope, thrown);
    if let Some(thrown) = scope.get_slot_mut::<Thrown>() {
        thrown.keep(None, value);
    }
}
