//! JavaScript that is stopped from outside.

use std::sync::mpsc;

use isolet_runtime::web::EntryError;
use isolet_runtime::web::host::{Completion, RequestId};

use crate::harness::{Instance, head, on_fresh_thread};

/// Enters an instance whose code does not end, and stops it from another thread.
fn stopped(source: &str, enter: impl FnOnce(&mut Instance) -> Result<(), EntryError>) {
    let mut instance = Instance::new(source);
    let handle = instance.handle();
    let (reached, wait) = mpsc::channel();
    instance.world.borrow_mut().on_console = Some(reached);
    let stopper = std::thread::spawn(move || {
        wait.recv().unwrap();
        handle.terminate_execution();
    });
    let result = enter(&mut instance);
    stopper.join().unwrap();
    assert!(
        matches!(result, Err(EntryError::Terminated)),
        "{source}: {result:?}"
    );
    // The isolate can be entered again, as in-flight requests need it.
    instance.handle().cancel_terminate_execution();
    assert_eq!(instance.get("http://h/fine").text(), "fine");
}

#[test]
fn every_place_that_runs_user_code() {
    on_fresh_thread(|| {
        for hog in [
            "for (console.log('here');;) ;",
            "throw { get message() { for (console.log('here');;) ; } }",
            "throw { get stack() { for (console.log('here');;) ; } }",
            "Error.prepareStackTrace = () => { for (console.log('here');;) ; }; throw new Error('x')",
            "return { get then() { for (console.log('here');;) ; } }",
            "structuredClone({ get x() { for (console.log('here');;) ; } })",
            "new Headers({ get x() { for (console.log('here');;) ; } })",
            "new URL({ toString() { for (console.log('here');;) ; } })",
            "Array.prototype[Symbol.iterator] = () => { for (console.log('here');;) ; }; new Uint8Array([1])",
            "new EventTarget().addEventListener('x', null, { get signal() { for (console.log('here');;) ; } })",
            "const t = new EventTarget(); t.addEventListener('x', () => { for (console.log('here');;) ; }); t.dispatchEvent(new Event('x'))",
            "console.log('here'); /(a+)+$/.test('a'.repeat(40) + 'b')",
        ] {
            let source = format!(
                "export default {{ fetch(request) {{ if (request.url.endsWith('fine')) return new Response('fine'); {hog} }} }}"
            );
            stopped(&source, |instance| {
                instance.try_begin(head("GET", "http://h/", &[])).1
            });
        }
    });
}

#[test]
fn timers_and_aborts() {
    on_fresh_thread(|| {
        let source = "export default { fetch(request) {
            if (request.url.endsWith('fine')) return new Response('fine');
            setTimeout(() => { for (console.log('here');;) ; }, 5);
            request.signal.onabort = () => { for (console.log('here');;) ; };
            return new Promise(() => {}) } }";
        stopped(source, |instance| {
            instance.try_begin(head("GET", "http://h/", &[])).1.unwrap();
            let (_, timer) = instance.world.borrow_mut().timers.remove(0);
            instance.enter(|entry, scope| entry.complete(scope, timer, Completion::Done))
        });
        stopped(source, |instance| {
            let (request, result) = instance.try_begin(head("GET", "http://h/", &[]));
            result.unwrap();
            instance.world.borrow_mut().timers.clear();
            instance.enter(|entry, scope| entry.abort(scope, RequestId(request.0), "gone"))
        });
    });
}
