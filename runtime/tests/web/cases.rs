//! Files of assertions in JavaScript, run inside a handler.

use isolet_runtime::web::host::*;

use crate::harness::{Instance, head, on_fresh_thread};

const PRELUDE: &str = include_str!("cases/prelude.js");

/// Runs a file of `test(name, function)` calls in one instance and fails with the names and reasons.
pub fn run_cases(file: &'static str, source: &'static str) {
    on_fresh_thread(move || {
        let mut instance = Instance::new(&format!("{PRELUDE}\n{source}"));
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
    });
}

/// The outside world of the cases: answers with what it was asked.
fn echo(request: &OutboundRequest) -> Result<InboundResponse, HostError> {
    if request.url.contains("/refused") {
        return Err(HostError::Type("connection refused".into()));
    }
    let mut headers = vec![
        ("x-method".to_string(), request.method.clone()),
        ("x-redirect".to_string(), format!("{:?}", request.redirect)),
        (
            "x-request".to_string(),
            format!("{:?}", request.request.map(|id| id.0)),
        ),
        ("content-type".to_string(), "text/plain".to_string()),
    ];
    headers.extend(
        request
            .headers
            .iter()
            .map(|(n, v)| (format!("echo-{n}"), v.clone())),
    );
    if let OutgoingBody::Full(bytes) = &request.body {
        headers.push(("x-body".into(), String::from_utf8_lossy(bytes).into_owned()));
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
