//! Requests from dispatch to answer.

use isolet_runtime::web::StartError;
use isolet_runtime::web::host::{Completion, HostError, RequestId, WriterId};

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
        assert_eq!(
            answer.header("content-type"),
            Some("text/plain;charset=UTF-8")
        );
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
            "export default { fetch(request) { return new Response(request.body) } }",
        );
        let request = instance.begin(head("POST", "http://h/", &[]), Some(&["a", "b", "c"]));
        instance.run();
        let answer = instance.answer(request);
        assert_eq!(
            (answer.text().as_str(), answer.pieces, answer.done),
            ("abc", 3, true)
        );
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
        assert!(
            failure.stack.contains("at Object.fetch (main.ts:3:11)"),
            "{}",
            failure.stack
        );
        assert!(!failure.stack.contains("isolet:"), "{}", failure.stack);
    });
}

#[test]
fn what_is_not_a_handler() {
    on_fresh_thread(|| {
        for (source, part) in [
            ("export const a = 1", "no default export"),
            ("export default 5", "a number"),
            ("export default null", "null"),
            ("export default {}", "no fetch() method"),
            ("export default { fetch: 5 }", "a number, not a function"),
            ("export default function f() {}", "a function or a class"),
            (
                "export default class { fetch() {} }",
                "a function or a class",
            ),
        ] {
            match Instance::try_new(source, &[]) {
                Err(StartError::NoHandler(text)) => assert!(text.contains(part), "{text}"),
                other => panic!("{source}: {:?}", other.err()),
            }
        }
        let thrown = Instance::try_new(
            "export default { get fetch() { throw new RangeError('no') } }",
            &[],
        );
        assert!(
            matches!(thrown, Err(StartError::Thrown(exception)) if exception.message == "RangeError: no")
        );
    });
}

#[test]
fn what_is_not_a_response() {
    on_fresh_thread(|| {
        for (result, part) in [
            ("undefined", "returned undefined, not a Response"),
            ("null", "returned null"),
            ("'text'", "returned a string"),
            ("{}", "an object of another kind"),
            ("Promise.resolve(5)", "returned a number"),
            (
                "Promise.reject(new RangeError('later'))",
                "RangeError: later",
            ),
            (
                "{ then(r) { throw new Error('thenable') } }",
                "Error: thenable",
            ),
            ("Promise.reject('bare')", "bare"),
            ("Promise.reject()", "undefined"),
            ("Response.error()", "cannot be sent"),
            ("new Response('x').text().then(() => used)", "read already"),
            (
                "(() => { throw new DOMException('m', 'AbortError') })()",
                "AbortError: m",
            ),
            (
                "Object.create(Response.prototype)",
                "an object of another kind",
            ),
        ] {
            let mut instance = Instance::new(&format!(
                "const used = new Response('x'); await used.text();
                 export default {{ fetch() {{ return {result} }} }}"
            ));
            let request = instance.begin(head("GET", "http://h/", &[]), None);
            instance.run();
            let failure = instance.failure(request);
            assert!(
                failure.message.contains(part),
                "{result}: {}",
                failure.message
            );
            assert_eq!(instance.under_way(), (0, 0), "{result}");
        }
    });
}

#[test]
fn this_env_and_ctx() {
    on_fresh_thread(|| {
        let mut instance = Instance::try_new(
            "export default { name: 'me', fetch(request, env, ctx) {
               'use strict';
               let frozen = false; try { env.A = 'x' } catch { frozen = true }
               ctx.passThroughOnException();
               return Response.json([this.name, env, frozen, arguments.length, Object.keys(env)]) } }",
            &[("A", "1"), ("__proto__", "p"), ("", "empty")],
        )
        .unwrap();
        assert_eq!(
            instance.get("http://h/").text(),
            r#"["me",{"A":"1","__proto__":"p","":"empty"},true,3,["A","__proto__",""]]"#
        );
    });
}

#[test]
fn null_bodies_and_statuses() {
    on_fresh_thread(|| {
        let mut instance = Instance::new(
            "export default { fetch(request) { return new Response(null, { status: Number(new URL(request.url).pathname.slice(1)), headers: [['Set-Cookie', 'a=1'], ['set-cookie', 'b=2'], ['connection', 'close'], ['content-length', '99']] }) } }",
        );
        for status in [200, 204, 304, 404, 500, 599] {
            let answer = instance.get(&format!("http://h/{status}"));
            assert_eq!(
                (answer.status, answer.body.len(), answer.done),
                (status, 0, true)
            );
            assert_eq!(
                answer.headers,
                [
                    ("set-cookie".to_string(), "a=1".to_string()),
                    ("set-cookie".to_string(), "b=2".to_string()),
                    ("content-length".to_string(), "99".to_string())
                ]
            );
        }
    });
}

const COUNTING: &str = "
    export let cancelled;
    export default { fetch(request) {
      let n = 0;
      return new Response(new ReadableStream({
        pull(controller) { if (++n > 5) controller.close(); else controller.enqueue(new TextEncoder().encode(`${n} `)); },
        cancel(reason) { console.log('cancelled', n, String(reason)); },
      }, { highWaterMark: 0 }));
    } }";

#[test]
fn streams_with_back_pressure() {
    on_fresh_thread(|| {
        let mut instance = Instance::new(COUNTING);
        instance.world.borrow_mut().slow_writes = true;
        let request = instance.begin(head("GET", "http://h/", &[]), None);
        for piece in 1..=5 {
            instance.run();
            let waiting = std::mem::take(&mut instance.world.borrow_mut().waiting_writes);
            assert_eq!(waiting.len(), 1, "one write at a time");
            assert_eq!(instance.world.borrow().answers[&request.0].pieces, piece);
            instance.complete(waiting[0], Completion::Done);
        }
        instance.run();
        let answer = instance.answer(request);
        assert_eq!(
            (answer.text().as_str(), answer.done, answer.broken),
            ("1 2 3 4 5 ", true, None)
        );
        assert_eq!(instance.under_way(), (0, 0));
    });
}

#[test]
fn a_client_that_goes_cancels_the_stream() {
    on_fresh_thread(|| {
        // Noticed by a write that fails.
        let mut instance = Instance::new(COUNTING);
        instance.world.borrow_mut().slow_writes = true;
        let request = instance.begin(head("GET", "http://h/", &[]), None);
        instance.run();
        let waiting = std::mem::take(&mut instance.world.borrow_mut().waiting_writes);
        let writer = *instance.world.borrow().writers.keys().next().unwrap();
        instance.world.borrow_mut().gone.push(WriterId(writer));
        instance.complete(waiting[0], Completion::Done);
        instance.run();
        assert_eq!(
            instance.console(),
            ["cancelled 2 AbortError: the other side has gone"]
        );
        assert_eq!(instance.under_way(), (0, 0));
        // Noticed while a write waits.
        let request2 = instance.begin(head("GET", "http://h/", &[]), None);
        instance.run();
        let waiting = std::mem::take(&mut instance.world.borrow_mut().waiting_writes);
        instance.complete(
            waiting[0],
            Completion::Failed(HostError::Abort("reset".into())),
        );
        instance.run();
        assert_eq!(instance.console(), ["cancelled 1 AbortError: reset"]);
        // Told by the host while nothing moves.
        let request3 = instance.begin(head("GET", "http://h/", &[]), None);
        instance.run();
        instance.abort(request3, "the client has gone");
        assert_eq!(
            instance.console(),
            ["cancelled 1 AbortError: the client has gone"]
        );
        // The write that waits is forgotten.
        instance.run();
        assert_eq!(instance.under_way(), (0, 0));
        assert!(request.0 < request2.0);
        assert_eq!(instance.unhandled(), vec![]);
    });
}

#[test]
fn a_body_that_breaks_off() {
    on_fresh_thread(|| {
        let mut instance = Instance::new(
            "export default { fetch(request) {
               const kind = new URL(request.url).pathname;
               return new Response(new ReadableStream({ pull(controller) {
                 if (kind === '/text') controller.enqueue('text');
                 if (kind === '/error') controller.error(new RangeError('broken'));
                 if (kind === '/throw') throw new SyntaxError('thrown');
               } }));
             } }",
        );
        for (path, part) in [
            ("text", "no Uint8Array"),
            ("error", "RangeError: broken"),
            ("throw", "SyntaxError: thrown"),
        ] {
            let answer = instance.get(&format!("http://h/{path}"));
            assert!(
                answer.done && answer.broken.as_deref().unwrap().contains(part),
                "{:?}",
                answer.broken
            );
        }
        assert_eq!(instance.under_way(), (0, 0));
        assert_eq!(instance.unhandled(), vec![]);
    });
}

#[test]
fn a_request_body_that_fails() {
    on_fresh_thread(|| {
        let mut instance = Instance::new(
            "export default { async fetch(request) { try { await request.text() } catch (error) { return new Response(`${error.name}: ${error.message}`) } } }",
        );
        for (error, text) in [
            (HostError::Type("reset".into()), "TypeError: reset"),
            (
                HostError::Range("over the limit".into()),
                "RangeError: over the limit",
            ),
            (HostError::Abort("gone".into()), "AbortError: gone"),
        ] {
            let request = instance.begin(head("POST", "http://h/", &[]), Some(&["a"]));
            // The first piece is under way; the second fails.
            let stream = *instance.world.borrow().streams.keys().next_back().unwrap();
            instance
                .world
                .borrow_mut()
                .streams
                .get_mut(&stream)
                .unwrap()
                .push_back(Err(error));
            instance.run();
            assert_eq!(instance.answer(request).text(), text);
        }
    });
}

#[test]
fn the_signal_of_a_request() {
    on_fresh_thread(|| {
        let mut instance = Instance::new(
            "export default { fetch(request) { return new Promise((resolve, reject) => {
               request.signal.onabort = () => { console.log('aborted', request.signal.reason.name, request.signal.reason.message); reject(request.signal.reason) } }) } }",
        );
        let first = instance.begin(head("GET", "http://h/", &[]), None);
        let second = instance.begin(head("GET", "http://h/", &[]), None);
        instance.abort(first, "the client has gone");
        assert_eq!(
            instance.console(),
            ["aborted AbortError the client has gone"]
        );
        assert_eq!(instance.under_way().0, 1);
        instance.abort(second, "time is over");
        instance.abort(second, "again");
        instance.abort(RequestId(999), "unknown");
        assert_eq!(instance.console(), ["aborted AbortError time is over"]);
        assert_eq!(instance.under_way(), (0, 0));
    });
}

#[test]
fn requests_interleave() {
    on_fresh_thread(|| {
        let mut instance = Instance::new(
            "let inside = 0, most = 0;
             export default { async fetch(request) {
               most = Math.max(most, ++inside);
               const name = new URL(request.url).searchParams.get('n');
               await new Promise((resolve) => setTimeout(resolve, 100 - name));
               const body = await request.text();
               inside--;
               return new Response(`${name} ${body} ${most}`);
             } }",
        );
        let requests: Vec<_> = (0..50)
            .map(|n| {
                let body = format!("body{n}");
                instance.begin(
                    head("POST", &format!("http://h/?n={n}"), &[]),
                    Some(&[&body]),
                )
            })
            .collect();
        instance.run();
        for (n, request) in requests.into_iter().enumerate() {
            assert_eq!(instance.answer(request).text(), format!("{n} body{n} 50"));
        }
        assert_eq!(instance.under_way(), (0, 0));
    });
}

#[test]
fn wait_until() {
    on_fresh_thread(|| {
        let mut instance = Instance::new(
            "export default { fetch(request, env, ctx) {
               ctx.waitUntil(new Promise((resolve) => setTimeout(() => { console.log('later'); resolve() }, 5)));
               ctx.waitUntil(Promise.reject(new RangeError('lost')));
               ctx.waitUntil(5);
               return new Response('now');
             } }",
        );
        let request = instance.begin(head("GET", "http://h/", &[]), None);
        assert!(instance.world.borrow().answers[&request.0].done);
        assert_eq!(instance.world.borrow().holds[&request.0], 1);
        instance.run();
        assert_eq!(instance.world.borrow().holds[&request.0], 0);
        let console = instance.console();
        assert!(
            console[0].contains("waitUntil")
                && console[0].contains("RangeError: lost")
                && console[0].contains("main.ts:3"),
            "{console:?}"
        );
        assert_eq!(console[1], "later");
        assert_eq!(instance.unhandled(), vec![]);
    });
}

#[test]
fn exceptions_outside_a_handler() {
    on_fresh_thread(|| {
        let mut instance = Instance::new(
            "export default { fetch() {
               setTimeout(() => { throw new RangeError('timer') }, 1);
               queueMicrotask(() => { throw new SyntaxError('micro') });
               const target = new EventTarget();
               target.addEventListener('x', () => { throw new TypeError('listener') });
               target.dispatchEvent(new Event('x'));
               return new Response('fine');
             } }",
        );
        assert_eq!(instance.get("http://h/").text(), "fine");
        assert_eq!(instance.thrown.len(), 1);
        assert_eq!(instance.thrown[0].message, "RangeError: timer");
        let messages: Vec<_> = instance
            .unhandled()
            .into_iter()
            .map(|e| (e.message, e.line))
            .collect();
        assert_eq!(
            messages,
            [
                ("TypeError: listener".to_string(), Some(5)),
                ("SyntaxError: micro".to_string(), Some(3))
            ]
        );
    });
}

#[test]
fn errors_are_bounded() {
    on_fresh_thread(|| {
        for thrown in [
            "new Error('x'.repeat(1e6))",
            "Object.assign(new Error('m'), { stack: 'y'.repeat(1e6) })",
            "{ get message() { throw 1 }, get stack() { throw 2 } }",
            "new Proxy({}, { get() { throw 3 } })",
            "{ toString() { throw 4 } }",
            "Symbol('s')",
            "Object.create(null)",
            "'z'.repeat(1e6)",
            "'z'.repeat(2 ** 29 - 24)",
            "{ name: 'n'.repeat(2 ** 29 - 24), message: 'm'.repeat(2 ** 29 - 24) }",
            "10n",
        ] {
            let mut instance = Instance::new(&format!(
                "export default {{ fetch() {{ throw {thrown} }} }}"
            ));
            let request = instance.begin(head("GET", "http://h/", &[]), None);
            let failure = instance.failure(request);
            assert!(
                !failure.message.is_empty() && failure.message.len() < 5000,
                "{thrown}"
            );
            assert!(failure.stack.len() < 9000, "{thrown}");
        }
    });
}

#[test]
fn a_poisoned_promise_constructor_fails_its_own_requests_only() {
    on_fresh_thread(|| {
        let mut instance = Instance::new(
            "const original = Promise.prototype.constructor;
             export default { fetch(request, env, ctx) {
               if (request.url.endsWith('bad')) {
                 const promise = Promise.resolve(new Response('x'));
                 Object.defineProperty(promise, 'constructor', { get() { throw new RangeError('poison') } });
                 return promise;
               }
               if (request.url.endsWith('species')) {
                 const promise = Promise.resolve(new Response('species'));
                 promise.constructor = { [Symbol.species]: class { constructor(executor) { executor(() => {}, () => {}) } } };
                 return promise;
               }
               if (request.url.endsWith('wait')) {
                 const promise = Promise.resolve(1);
                 Object.defineProperty(promise, 'constructor', { get() { throw new RangeError('poison') } });
                 try { ctx.waitUntil(promise) } catch (error) { return new Response(error.message) }
               }
               return new Response('good') } }",
        );
        let bad = instance.begin(head("GET", "http://h/bad", &[]), None);
        instance.run();
        assert_eq!(instance.failure(bad).message, "RangeError: poison");
        assert_eq!(instance.get("http://h/good").text(), "good");
        assert_eq!(instance.get("http://h/species").text(), "species");
        let wait = instance.begin(head("GET", "http://h/wait", &[]), None);
        instance.run();
        assert_eq!(instance.answer(wait).text(), "poison");
        assert_eq!(instance.world.borrow().holds[&wait.0], 0);
        assert_eq!(instance.under_way(), (0, 0));
    });
}

#[test]
fn a_client_that_goes_while_a_body_is_passed_through() {
    on_fresh_thread(|| {
        let mut instance = Instance::new(
            "export default { fetch(request) { return new Response(request.url.endsWith('stream') ? request.body.pipeThrough(new TransformStream()) : request.url.endsWith('wrapped') ? (request.body, request.body) : request.body) } }",
        );
        for path in ["direct", "stream", "wrapped"] {
            instance.world.borrow_mut().slow_writes = true;
            let request = instance.begin(
                head("POST", &format!("http://h/{path}"), &[]),
                Some(&["a", "b", "c", "d"]),
            );
            // While a read is under way.
            instance.abort(request, "gone");
            instance.world.borrow_mut().ready.clear();
            instance.run();
            assert_eq!(instance.under_way(), (0, 0), "{path}");
            let request = instance.begin(
                head("POST", &format!("http://h/{path}"), &[]),
                Some(&["a", "b", "c", "d"]),
            );
            // While a write waits.
            instance.run();
            instance.abort(request, "gone");
            instance.world.borrow_mut().ready.clear();
            instance.world.borrow_mut().waiting_writes.clear();
            instance.run();
            assert_eq!(instance.under_way(), (0, 0), "{path}");
            assert_eq!(instance.world.borrow().cancelled_reads.len(), 2, "{path}");
            instance.world.borrow_mut().cancelled_reads.clear();
            assert_eq!(instance.unhandled(), vec![]);
        }
    });
}

#[test]
fn reading_a_body_ends_with_its_client() {
    on_fresh_thread(|| {
        let mut instance = Instance::new(
            "export default { async fetch(request) {
               try { await request.text() } catch (error) { console.log(error.name, error === request.signal.reason) }
               try { await request.clone().text() } catch (error) { console.log(error.name) }
             } }",
        );
        let request = instance.begin(head("POST", "http://h/", &[]), Some(&["a"]));
        instance.abort(request, "gone");
        assert_eq!(instance.console(), ["AbortError true", "TypeError"]);
        instance.run();
        assert_eq!(instance.under_way(), (0, 0));
    });
}
