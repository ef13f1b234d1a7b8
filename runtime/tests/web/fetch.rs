//! `fetch` with streams, aborts and attribution.

use bytes::Bytes;
use isolet_runtime::web::host::*;

use crate::harness::{Instance, head, list, map, on_fresh_thread};

fn response(body: Option<StreamId>) -> InboundResponse {
    InboundResponse {
        status: 200,
        status_text: String::new(),
        headers: map(&[("x", "y")]),
        url: "http://final/".into(),
        redirected: true,
        body,
    }
}

fn stream(instance: &Instance, chunks: &[&'static str]) -> StreamId {
    let mut world = instance.world.borrow_mut();
    world.next += 1;
    let id = world.next;
    let chunks = chunks.iter().map(|chunk| Ok(Bytes::from(*chunk))).collect();
    world.streams.insert(id, chunks);
    StreamId(id)
}

#[test]
fn a_response_is_streamed_through() {
    on_fresh_thread(|| {
        let mut instance = Instance::new(
            "export default { async fetch() { const r = await fetch('http://up/'); console.log(r.redirected, r.url, r.body === null); return new Response(r.body, r) } }",
        );
        let body = stream(&instance, &["a", "", "b", "c"]);
        instance.world.borrow_mut().fetch_answer =
            Some(Box::new(move |_| Ok(response(Some(body)))));
        let answer = instance.get("http://h/");
        assert_eq!(
            (answer.text().as_str(), answer.pieces, answer.streamed),
            ("abc", 3, true)
        );
        assert_eq!(answer.header("x"), Some("y"));
        assert_eq!(instance.console(), ["true http://final/ false"]);
        assert_eq!(instance.under_way(), (0, 0));
        let fetches = &instance.world.borrow().fetches;
        assert_eq!(fetches[0].request, Some(RequestId(2)));
    });
}

#[test]
fn the_response_itself_is_passed_on() {
    on_fresh_thread(|| {
        let mut instance =
            Instance::new("export default { fetch(request) { return fetch(request) } }");
        let body = stream(&instance, &["one", "two"]);
        instance.world.borrow_mut().fetch_answer =
            Some(Box::new(move |_| Ok(response(Some(body)))));
        let request = instance.begin(
            head("POST", "http://h/path", &[("x-h", "v")]),
            Some(&["up", "load"]),
        );
        instance.run();
        let answer = instance.answer(request);
        assert_eq!(answer.text(), "onetwo");
        let world = instance.world.borrow();
        let upload = world.uploads.values().next().unwrap();
        assert_eq!(
            (upload.body.as_slice(), upload.done, &upload.broken),
            (b"upload".as_slice(), true, &None)
        );
        let sent = &world.fetches[0];
        assert_eq!(
            (sent.method.as_str(), sent.url.as_str()),
            ("POST", "http://h/path")
        );
        assert_eq!(list(&sent.headers), [("x-h".to_string(), "v".to_string())]);
        assert_eq!(sent.redirect, Redirect::Manual);
    });
}

#[test]
fn an_upload_from_a_stream() {
    on_fresh_thread(|| {
        let mut instance = Instance::new(
            "export default { async fetch(request) {
               const fail = request.url.endsWith('fail');
               let n = 0;
               const body = new ReadableStream({ pull(c) { if (++n > 3) { if (fail) c.error(new RangeError('broke')); else c.close(); } else c.enqueue(new Uint8Array([64 + n])) } });
               const response = await fetch('http://up/', { method: 'PUT', body, duplex: 'half' });
               return new Response(response.status);
             } }",
        );
        instance.world.borrow_mut().fetch_answer = Some(Box::new(|_| Ok(response(None))));
        assert_eq!(instance.get("http://h/").text(), "200");
        assert_eq!(instance.get("http://h/fail").text(), "200");
        let world = instance.world.borrow();
        let uploads: Vec<_> = world
            .uploads
            .values()
            .map(|u| (u.body.clone(), u.broken.clone()))
            .collect();
        assert_eq!(
            uploads,
            [
                (b"ABC".to_vec(), None),
                (b"ABC".to_vec(), Some("RangeError: broke".into()))
            ]
        );
    });
}

#[test]
fn an_abort_before_the_response() {
    on_fresh_thread(|| {
        let mut instance = Instance::new(
            "export default { async fetch(request) { try { await fetch('http://up/', { signal: request.signal }) } catch (error) { console.log(error.name, error.message) } return new Response() } }",
        );
        instance.world.borrow_mut().hold_fetches = true;
        let request = instance.begin(head("GET", "http://h/", &[]), None);
        instance.run();
        let held = instance.world.borrow().held_fetches.clone();
        assert_eq!(held.len(), 1);
        instance.abort(request, "gone");
        assert_eq!(instance.console(), ["AbortError gone"]);
        assert_eq!(instance.world.borrow().aborted_fetches, held);
        // A completion that comes all the same is ignored.
        instance.complete(held[0], Completion::Response(response(None)));
        assert_eq!(instance.under_way(), (0, 0));
    });
}

#[test]
fn an_abort_while_the_body_arrives() {
    on_fresh_thread(|| {
        let mut instance = Instance::new(
            "export default { async fetch() {
               const controller = new AbortController();
               const response = await fetch('http://up/', { signal: controller.signal });
               const reader = response.body.getReader();
               await reader.read();
               controller.abort(new SyntaxError('stop'));
               try { await reader.read(); } catch (error) { return new Response(error.name + error.message) }
             } }",
        );
        let body = stream(&instance, &["a", "b", "c"]);
        instance.world.borrow_mut().fetch_answer =
            Some(Box::new(move |_| Ok(response(Some(body)))));
        assert_eq!(instance.get("http://h/").text(), "SyntaxErrorstop");
        assert_eq!(instance.world.borrow().cancelled_reads, [body]);
        assert_eq!(instance.under_way(), (0, 0));
    });
}

#[test]
fn cancelling_a_fetched_body() {
    on_fresh_thread(|| {
        let mut instance = Instance::new(
            "export default { async fetch() { const r = await fetch('http://up/'); await r.body.cancel('enough'); return new Response('x') } }",
        );
        let body = stream(&instance, &["a"]);
        instance.world.borrow_mut().fetch_answer =
            Some(Box::new(move |_| Ok(response(Some(body)))));
        assert_eq!(instance.get("http://h/").text(), "x");
        assert_eq!(instance.world.borrow().cancelled_reads, [body]);
    });
}

#[test]
fn fetch_at_the_top_level_names_no_request() {
    on_fresh_thread(|| {
        let mut instance = Instance::new(
            "const early = fetch('http://up/').catch((error) => error.message);
             export default { async fetch() { return new Response(await early) } }",
        );
        assert_eq!(instance.get("http://h/").text(), "network unreachable");
        assert_eq!(instance.world.borrow().fetches[0].request, None);
    });
}

#[test]
fn fetch_names_the_request_that_asks() {
    on_fresh_thread(|| {
        let mut instance = Instance::new(
            "let release;
             const gate = new Promise((resolve) => { release = resolve });
             export default { async fetch(request) {
               if (request.url.endsWith('waits')) await gate; else release();
               const response = await fetch('http://up/');
               return new Response(response.status);
             } }",
        );
        instance.world.borrow_mut().hold_fetches = true;
        let waits = instance.begin(head("GET", "http://h/waits", &[]), None);
        let releases = instance.begin(head("GET", "http://h/releases", &[]), None);
        let mut names: Vec<_> = {
            let world = instance.world.borrow();
            world.fetches.iter().map(|f| f.request).collect()
        };
        names.sort();
        assert_eq!(names, [Some(waits), Some(releases)]);
        for id in instance.world.borrow().held_fetches.clone() {
            assert!(instance.world.borrow().waiters.contains_key(&id.0));
        }
    });
}
