//! Files of assertions in JavaScript, run inside a handler.

use http::header::{HeaderName, HeaderValue};
use isolet_runtime::web::host::*;

use crate::harness::{Instance, head, map, on_fresh_thread};

const PRELUDE: &str = include_str!("cases/prelude.js");

/// Runs a file of `test(name, function)` calls in one instance and fails with the names and reasons.
pub fn run_cases(file: &'static str, source: &'static str) {
    for bodies_are_there in [false, true] {
        on_fresh_thread(move || run_once(file, source, bodies_are_there));
    }
}

fn run_once(file: &str, source: &str, bodies_are_there: bool) {
    let mut instance = Instance::new(&format!("{PRELUDE}\n{source}"));
    instance.world.borrow_mut().bodies_are_there = bodies_are_there;
    instance.world.borrow_mut().fetch_answer = Some(Box::new(echo));
    let request = instance.begin(
        head(
            "POST",
            "http://tests.default/run?x=1",
            &[("x-one", "1"), ("content-type", "text/plain")],
        ),
        Some(&["he", "llo"]),
    );
    instance.run();
    let answer = instance.answer(request);
    let text = answer.text();
    let (count, failures) = text.split_once('\n').expect("count");
    assert!(failures.is_empty(), "{file}:\n{failures}");
    assert!(
        count.parse::<usize>().expect("count") > 0,
        "{file} has no tests"
    );
    assert_eq!(instance.thrown, vec![], "{file}");
    let world = instance.world.borrow();
    assert!(
        world.ready.is_empty() && world.timers.is_empty(),
        "{file} left something behind"
    );
}

/// The outside world of the cases: answers with what it was asked.
fn echo(request: &OutboundRequest) -> Result<InboundResponse, HostError> {
    if request.url.contains("/refused") {
        return Err(HostError::Type("connection refused".into()));
    }
    let redirect = format!("{:?}", request.redirect);
    let of = format!("{:?}", request.request.map(|id| id.0));
    let mut headers = map(&[
        ("x-method", &request.method),
        ("x-redirect", &redirect),
        ("x-request", &of),
        ("content-type", "text/plain"),
    ]);
    for (name, value) in &request.headers {
        let name = HeaderName::try_from(format!("echo-{name}")).expect("name");
        headers.append(name, value.clone());
    }
    if let OutgoingBody::Full(bytes) = &request.body {
        let body = HeaderValue::from_bytes(bytes).expect("value");
        headers.append("x-body", body);
    }
    Ok(InboundResponse {
        status: if request.url.contains("/404") {
            404
        } else {
            200
        },
        status_text: "Fine".into(),
        headers,
        url: request.url.clone(),
        redirected: false,
        body: None,
    })
}
