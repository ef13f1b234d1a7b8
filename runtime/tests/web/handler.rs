//! Requests from dispatch to answer.

use crate::harness::{Instance, head, on_fresh_thread};

#[test]
fn hello() {
    on_fresh_thread(|| {
        let mut instance = Instance::try_new(
            "export default { fetch(request, env, ctx) { return new Response(`hello ${env.NAME} ${request.method} ${request.url}`) } }",
            &[("NAME", "world")],
        )
        .unwrap();
        let answer = instance.get("http://hello.default/a?b");
        assert_eq!(answer.text(), "hello world GET http://hello.default/a?b");
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-type"), Some("text/plain;charset=UTF-8"));
    });
}

#[test]
fn echoes_a_body() {
    on_fresh_thread(|| {
        let mut instance = Instance::new(
            "export default { async fetch(request) { const text = await request.text(); return new Response(text + '!', { status: 201, headers: { 'x-a': request.headers.get('x-b') } }) } }",
        );
        let request = instance.begin(
            head("POST", "http://h/", &[("x-b", "c")]),
            Some(&["hé", "llo"]),
        );
        instance.run();
        let answer = instance.answer(request);
        assert_eq!((answer.status, answer.text().as_str()), (201, "héllo!"));
        assert_eq!(answer.header("x-a"), Some("c"));
    });
}

#[test]
fn streams_through() {
    on_fresh_thread(|| {
        let mut instance = Instance::new(
            "export default { fetch(request) { return new Response(new URL === 1 ? null : request.body) } }".replace("new URL === 1 ? null : ", "").as_str(),
        );
        let request = instance.begin(head("POST", "http://h/", &[]), Some(&["a", "b", "c"]));
        instance.run();
        let answer = instance.answer(request);
        assert_eq!((answer.text().as_str(), answer.pieces, answer.done), ("abc", 3, true));
    });
}

#[test]
fn failures_name_file_and_line() {
    on_fresh_thread(|| {
        let mut instance = Instance::new(
            "export default {\n  fetch() {\n    throw new TypeError('boom');\n  }\n}",
        );
        let request = instance.begin(head("GET", "http://h/", &[]), None);
        let failure = instance.failure(request);
        assert_eq!(failure.message, "TypeError: boom");
        assert_eq!(failure.file.as_deref(), Some("main.ts"));
        assert_eq!((failure.line, failure.column), (Some(3), Some(11)));
        assert!(failure.stack.contains("at Object.fetch (main.ts:3:11)"), "{}", failure.stack);
        assert!(!failure.stack.contains("isolet:"), "{}", failure.stack);
    });
}
