//! Revisions: how they load, why they are refused, how one takes the place of another.
#![allow(clippy::unwrap_used)]

mod harness;

use harness::{Function, eventually, worker};
use isolet_runtime::control::LoadError;

fn says(text: &str) -> Function {
    Function::new(
        "f",
        &format!("export default {{ fetch() {{ return new Response('{text}') }} }}"),
    )
}

fn place(error: &LoadError) -> (Option<&str>, Option<u32>, Option<u32>) {
    (error.file.as_deref(), error.line, error.column)
}

#[tokio::test]
async fn a_refused_revision_says_why_and_leaves_the_one_before() {
    let worker = worker().with(says("first")).start().await;
    let handler = "\nexport default { fetch() { return new Response('x') } }";
    for (source, file, line, column, message) in [
        ("export default { fetch( }", "main.js", 1, 25, "SyntaxError"),
        (
            "\n  import x from './missing.js';",
            "main.js",
            2,
            17,
            "cannot import \"./missing.js\"",
        ),
        ("import x from 'lodash';", "main.js", 1, 15, "no packages"),
        (
            "import { gone } from './util.js';",
            "main.js",
            1,
            10,
            "does not provide an export named 'gone'",
        ),
        (
            "\n\n throw new Error('boom');",
            "main.js",
            3,
            8,
            "Error: boom",
        ),
        ("null.x;", "main.js", 1, 6, "TypeError"),
        (
            "await new Promise(() => {});",
            "main.js",
            1,
            1,
            "never settles",
        ),
    ] {
        let bad = Function::new("f", &format!("{source}{handler}"))
            .module("util.js", "export const x = 1");
        let error = worker.put(&bad).await.unwrap_err();
        assert_eq!(
            place(&error),
            (Some(file), Some(line), Some(column)),
            "{source}: {error:?}"
        );
        assert!(error.message.contains(message), "{source}: {error:?}");
        assert!(
            error
                .message
                .starts_with(&format!("{file}:{line}:{column}: ")),
            "{error:?}"
        );
        assert_eq!(worker.get("f", "/").await.text().await, "first");
    }
}

#[tokio::test]
async fn a_main_module_without_a_handler_is_refused() {
    let worker = worker().start().await;
    for (source, message) in [
        ("export const x = 1;", "has no default export"),
        ("export default 1;", "not an object with a fetch() method"),
        ("export default {};", "no fetch() method"),
        ("export default { fetch: 1 };", "not a function"),
        (
            "setTimeout(() => {}, 1); export default { fetch() {} }",
            "top level",
        ),
        ("for (;;) {}", "CPU time"),
        (
            "const kept = []; for (;;) kept.push('x'.repeat(1000) + kept.length);",
            "limits.memory",
        ),
    ] {
        let function = Function::new("f", source).limits(|limits| limits.memory_bytes = 16 << 20);
        let error = worker.put(&function).await.unwrap_err();
        assert!(error.message.contains(message), "{source}: {error:?}");
        assert_eq!(
            worker.get("f", "/").await.error().await,
            (404, "NotFound".into())
        );
    }
    assert!(worker.put(&says("now")).await.is_ok());
    assert_eq!(worker.get("f", "/").await.text().await, "now");
}

#[tokio::test]
async fn modules_of_every_kind_load() {
    // (module (func (export "add") (param i32 i32) (result i32) local.get 0 local.get 1 i32.add))
    let wasm: &[u8] = &[
        0, 0x61, 0x73, 0x6d, 1, 0, 0, 0, 1, 7, 1, 0x60, 2, 0x7f, 0x7f, 1, 0x7f, 3, 2, 1, 0, 7, 7,
        1, 3, b'a', b'd', b'd', 0, 0, 10, 9, 1, 7, 0, 0x20, 0, 0x20, 1, 0x6a, 0x0b,
    ];
    let function = Function::new(
        "kinds",
        "import add from './lib/add.wasm';
         import config from './config.json';
         import text from './greeting.txt';
         import { twice } from './lib/twice.js';
         const ready = await Promise.resolve('ready');
         export default { async fetch() {
           const { exports } = await WebAssembly.instantiate(add);
           const late = await import('./late.js');
           const missing = await import('./missing.js').catch((error) => error.name);
           let compiled;
           try { new WebAssembly.Module(new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0])); compiled = true; } catch (e) { compiled = e.name; }
           let evaluated;
           try { evaluated = (0, eval)('1'); } catch (e) { evaluated = e.name; }
           return Response.json({ sum: exports.add(2, 3), config, text, twice: twice(21), late: late.default, missing,
             ready, url: import.meta.url, compiled, evaluated });
         } }",
    )
    .module("lib/add.wasm", wasm)
    .module("config.json", "{\"a\":[1]}")
    .module("greeting.txt", "grüße\n")
    .module("lib/twice.js", "import { two } from '../two.js'; export const twice = (n) => n * two;")
    .module("two.js", "export const two = 2;")
    .module("late.js", "export default await Promise.resolve('came late');");
    let worker = worker().with(function).start().await;
    for _ in 0..2 {
        assert_eq!(
            worker.get("kinds", "/").await.json().await,
            serde_json::json!({
                "sum": 5, "config": { "a": [1] }, "text": "grüße\n", "twice": 42, "late": "came late",
                "missing": "TypeError", "ready": "ready", "url": "file:///main.js",
                "compiled": "CompileError", "evaluated": "EvalError",
            })
        );
    }
}

#[tokio::test]
async fn a_handler_that_throws_is_a_500_and_its_stack_is_in_the_log() {
    let worker = worker()
        .with(
            // As if line 1 were line 11 of what the user wrote.
            Function::new(
                "throws",
                "export default { fetch(request) {\nif (request.url.endsWith('/value')) throw 'a value';\nthrow new RangeError('secret detail') } }",
            )
            .mappings("AAUA;AACA;AACA"),
        )
        .start()
        .await;
    let answer = worker.get("throws", "/").await;
    assert_eq!(answer.status, 500);
    let text = answer.text().await;
    assert!(
        text.contains("HandlerError") && !text.contains("secret"),
        "{text}"
    );
    let line = worker.log.json("secret detail").await;
    assert_eq!(line["reason"], "HandlerError");
    assert_eq!(line["function"], "throws");
    assert_eq!(line["exception"], "RangeError: secret detail");
    let stack = line["stack"].as_str().unwrap();
    assert!(stack.contains("main.js:13:"), "{stack}");
    assert!(!stack.contains("isolet:"), "{stack}");
    assert_eq!(worker.get("throws", "/value").await.status, 500);
    worker.log.line("a value").await;
}

#[tokio::test]
async fn what_is_not_a_response_is_a_500() {
    let worker = worker()
        .function("wrong", "export default { fetch() { return 'text' } }")
        .start()
        .await;
    assert_eq!(
        worker.get("wrong", "/").await.error().await,
        (500, "HandlerError".into())
    );
    worker
        .log
        .line("the handler returned a string, not a Response")
        .await;
}

#[tokio::test]
async fn an_unhandled_rejection_is_logged_and_nothing_else() {
    let worker = worker()
        .function(
            "reject",
            "let count = 0;
             export default { fetch() {
               Promise.reject(new Error('nobody cares'));
               Promise.reject(new Error('handled')).catch(() => {});
               setTimeout(() => { throw new Error('from a timer'); }, 0);
               return new Promise((resolve) => setTimeout(() => resolve(new Response(String(++count))), 5));
             } }",
        )
        // On one instance, which counts.
        .one_instance_each()
        .start()
        .await;
    assert_eq!(worker.get("reject", "/").await.text().await, "1");
    let line = worker.log.json("nobody cares").await;
    assert_eq!(line["target"], "console");
    assert_eq!(line["function"], "reject");
    worker.log.line("from a timer").await;
    assert_eq!(worker.get("reject", "/").await.text().await, "2");
    assert!(
        !worker
            .log
            .lines()
            .iter()
            .any(|line| line.contains("handled\""))
    );
}

#[tokio::test]
async fn swapping_under_load_loses_no_request() {
    let worker = std::sync::Arc::new(worker().with(says("v0")).start().await);
    let done = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let worker = std::sync::Arc::clone(&worker);
            let done = std::sync::Arc::clone(&done);
            tokio::spawn(async move {
                let mut seen = 0;
                let mut count = 0;
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    let answer = worker.get("f", "/").await;
                    assert_eq!(answer.status, 200);
                    let version: u32 = answer.text().await[1..].parse().unwrap();
                    assert!(version >= seen, "went back from v{seen} to v{version}");
                    seen = version;
                    count += 1;
                }
                count
            })
        })
        .collect();
    for version in 1..=20 {
        worker.put(&says(&format!("v{version}"))).await.unwrap();
        assert_eq!(
            worker.get("f", "/").await.text().await,
            format!("v{version}")
        );
    }
    done.store(true, std::sync::atomic::Ordering::Relaxed);
    let mut total = 0;
    for client in clients {
        total += client.await.unwrap();
    }
    assert!(total > 20, "{total}");
}

#[tokio::test]
async fn requests_under_way_finish_on_the_old_revision() {
    let slow = "export default { fetch(request) {
       return new Response(new ReadableStream({
         async start(controller) {
           controller.enqueue(new TextEncoder().encode('begun on the '));
           await request.text();
           controller.enqueue(new TextEncoder().encode('old'));
           controller.close();
         },
       }));
     } }";
    let worker = worker().with(Function::new("f", slow)).start().await;
    let (request, body) = worker.request("f", "/").method("POST").pieces();
    let mut answer = request.send().await;
    assert_eq!(answer.piece().await.unwrap().unwrap(), "begun on the ");

    worker.put(&says("new")).await.unwrap();
    assert_eq!(worker.get("f", "/").await.text().await, "new");
    eventually("both revisions have an instance", async || {
        worker.metrics().await.contains("isolet_instances 2\n")
    })
    .await;
    drop(body);
    assert_eq!(answer.text().await, "old");
    eventually("the old instance is gone", async || {
        worker.metrics().await.contains("isolet_instances 1\n")
    })
    .await;
}

#[tokio::test]
async fn a_deleted_function_is_not_found_and_may_come_back() {
    let worker = worker().with(says("here")).start().await;
    assert_eq!(worker.get("f", "/").await.text().await, "here");
    worker.delete(&says("here").uid()).await;
    assert_eq!(
        worker.get("f", "/").await.error().await,
        (404, "NotFound".into())
    );
    assert!(worker.metrics().await.contains("isolet_functions 0"));
    worker.delete(&says("here").uid()).await;
    worker.put(&says("again")).await.unwrap();
    assert_eq!(worker.get("f", "/").await.text().await, "again");
}

#[tokio::test]
async fn a_suspended_function_answers_503_until_it_is_resumed() {
    let worker = worker().with(says("x").suspend()).start().await;
    assert_eq!(
        worker.get("f", "/").await.error().await,
        (503, "Suspended".into())
    );
    worker.put(&says("x")).await.unwrap();
    assert_eq!(worker.get("f", "/").await.text().await, "x");
}

#[tokio::test]
async fn damaged_and_foreign_bundles_are_refused() {
    let worker = worker().start().await;
    let error = worker
        .put(&says("x").module("bad.js", b"\xff".to_vec()))
        .await
        .unwrap_err();
    assert!(
        error
            .message
            .contains("bad.js:1:1: the module is not UTF-8"),
        "{error:?}"
    );
    let error = worker
        .put(&says("x").module("bad.json", "{"))
        .await
        .unwrap_err();
    assert!(
        error.message.contains("bad.json:1:1: SyntaxError"),
        "{error:?}"
    );
    let error = worker
        .put(&says("x").module("bad.wasm", "no"))
        .await
        .unwrap_err();
    assert!(error.message.contains("bad.wasm:1:1: "), "{error:?}");
}

#[tokio::test]
async fn a_start_that_fails_later_is_a_503_and_not_tried_at_once_again() {
    // Loads when it is sent; the first request comes when it no longer does.
    let worker = worker().start().await;
    let soon = std::time::SystemTime::now() + std::time::Duration::from_millis(1500);
    let soon = soon
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_millis();
    let function = Function::new(
        "f",
        &format!(
            "if (Date.now() > {soon}) {{ console.log('tried'); throw new Error('too late'); }}
             export default {{ fetch() {{ return new Response('x') }} }}"
        ),
    );
    worker.put(&function).await.unwrap();
    eventually("time passes", async || {
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_millis()
            > soon + 1
    })
    .await;
    for _ in 0..20 {
        let error = worker.get("f", "/").await.error().await;
        assert_eq!(error, (503, "StartFailed".into()));
    }
    worker.log.line("main.js:1:").await;
    let tried = worker
        .log
        .lines()
        .iter()
        .filter(|line| line.contains("\"tried\""))
        .count();
    assert!((1..=3).contains(&tried), "{tried} starts for 20 requests");
}
