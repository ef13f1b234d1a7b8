//! Limits of a request and of an instance: each ends in a clear error, the neighbours go on, the worker lives.
#![allow(clippy::unwrap_used)]

mod harness;

use std::time::Instant;

use harness::{Exchange, Function, Worker, eventually, metric, worker};

const NEIGHBOUR: &str = "export default { fetch() { return new Response('fine') } }";

/// The neighbour answers, the process is the same, and the function itself answers again.
async fn all_is_well(worker: &mut Worker, name: &str) {
    assert_eq!(worker.get("neighbour", "/").await.text().await, "fine");
    let answer = worker.get(name, "/ok").await;
    assert_eq!(answer.text().await, "ok");
    assert!(worker.is_alive());
}

/// A Function that runs `harm` unless it is asked for `/ok`.
fn hostile(harm: &str) -> Function {
    Function::new(
        "hostile",
        &format!(
            "export default {{ async fetch(request) {{
               if (request.url.endsWith('/ok')) return new Response('ok');
               {harm}
               return new Response('survived');
             }} }}"
        ),
    )
}

#[tokio::test]
async fn endless_work_ends_at_the_cpu_limit() {
    for harm in [
        "for (;;) {}",
        "let kept; for (;;) kept = new Array(1000).fill(1);",
        "const numbers = new Array(100_000).fill(1); for (;;) numbers.fill(2);",
        "await null; for (;;) {}",
        "const again = () => Promise.resolve().then(again); await again(); await new Promise(() => {});",
        "const again = () => queueMicrotask(again); again();",
        "/^(a+)+$/.test('a'.repeat(64) + 'b');",
        "await new Promise((resolve) => setTimeout(resolve, 1)); for (;;) {}",
        "const { f } = { get f() { for (;;) {} } };",
        "try { for (;;) {} } catch {} finally { for (;;) {} }",
        "return new Response(new ReadableStream({ pull() { for (;;) {} } }));",
        "let s = ''; for (;;) s = JSON.stringify({ s: s.slice(0, 1000) });",
        // V8 calls what was registered once the request itself was ended.
        "globalThis.kept = Array.from({ length: 100 }, () => new FinalizationRegistry(() => { for (;;) {} }));
         for (const registry of kept) registry.register({}, 0);
         for (let garbage; ; ) garbage = new Array(1 << 18).fill(1);",
    ] {
        let mut worker = worker()
            .function("neighbour", NEIGHBOUR)
            .with(hostile(harm).limits(|limits| limits.cpu_ms = 50))
            .start()
            .await;
        let answer = worker.get("hostile", "/").await;
        if answer.status == 200 {
            // The head was sent before: the body breaks off, unless it was whole.
            let body = answer.bytes().await;
            assert!(body.is_err() || body == Ok(b"survived".into()), "{harm}");
        } else {
            assert_eq!(
                answer.error().await,
                (503, "CPULimitExceeded".into()),
                "{harm}"
            );
        }
        worker.log.line("CPULimitExceeded").await;
        all_is_well(&mut worker, "hostile").await;
    }
}

/// An instance in which a request was ended may be in the middle of something. But a Function that has all its requests
/// ended may not have each of them start an instance.
#[tokio::test]
async fn an_instance_in_which_a_request_was_ended_is_replaced_once_a_second_at_most() {
    let source = "let isSpoilt = false;
        export default { fetch(request) {
          if (request.url.endsWith('/state')) return new Response(`spoilt: ${isSpoilt}`);
          isSpoilt = true;
          for (;;) {}
        } }";
    let worker = worker()
        .with(Function::new("hog", source).limits(|limits| limits.cpu_ms = 5))
        .one_instance_each()
        .start()
        .await;
    let loops = async || worker.get("hog", "/").await.error().await;
    let state = async || worker.get("hog", "/state").await.text().await;
    let ended = (503, "CPULimitExceeded".into());
    assert_eq!(loops().await, ended);
    assert_eq!(state().await, "spoilt: false");

    let starts = metric(&worker, "isolet_starts_total").await;
    assert!(starts >= 2, "the first one and the one that replaced it");
    let begun = Instant::now();
    for _ in 0..20 {
        assert_eq!(loops().await, ended);
    }
    let starts = metric(&worker, "isolet_starts_total").await - starts;
    let seconds = begun.elapsed().as_secs_f64();
    assert!(
        starts as f64 <= 2.0 + seconds,
        "{starts} starts in {seconds} s"
    );
    eventually("the last one is replaced", async || {
        state().await == "spoilt: false"
    })
    .await;
}

/// What V8 has compiled for one loop the next request may run as well.
#[tokio::test]
async fn a_loop_ends_in_code_of_each_tier() {
    let loops = "await null; for (let kept; ; ) kept = new Array(1000).fill(kept?.length);";
    let mut worker = worker()
        .function("neighbour", NEIGHBOUR)
        .with(hostile(loops).limits(|limits| limits.cpu_ms = 50))
        .one_instance_each()
        .start()
        .await;
    for _ in 0..40 {
        let error = worker.get("hostile", "/").await.error().await;
        assert_eq!(error, (503, "CPULimitExceeded".into()));
    }
    all_is_well(&mut worker, "hostile").await;
}

#[tokio::test]
async fn what_runs_while_no_request_is_under_way_is_limited_too() {
    let mut worker = worker()
        .function("neighbour", NEIGHBOUR)
        .with(hostile(
            "const kind = new URL(request.url).pathname;
             globalThis.registry ??= new FinalizationRegistry((kind) => {
               if (kind.endsWith('throws')) throw new Error('of a callback');
               for (;;) {}
             });
             registry.register({}, kind);
             // Enough to be collected in the first pause.
             globalThis.kept = new Array(1 << 20).fill(1);",
        ))
        .start()
        .await;
    for path in ["/throws", "/loops"] {
        assert_eq!(worker.get("hostile", "/ok").await.text().await, "ok");
        let answer = worker.get("hostile", path).await;
        assert_eq!(answer.text().await, "survived");
        let said = match path {
            "/throws" => "Uncaught Error: of a callback",
            _ => "Callbacks of a FinalizationRegistry were ended",
        };
        worker.log.line(said).await;
        all_is_well(&mut worker, "hostile").await;
    }
    // Nothing but the log's own lines, with a text of the tenant's.
    assert!(worker.log.lines().iter().all(|line| line.starts_with('{')));
}

/// The instance goes, not the next request.
#[tokio::test]
async fn what_uses_too_much_memory_while_no_request_is_under_way_fails_none() {
    let source = "let count = 0;
        const kept = [];
        const registry = new FinalizationRegistry(() => {
          console.log('callback runs');
          kept.push(new Array(1 << 22), new Array(1 << 22));
        });
        export default { fetch() {
          registry.register({}, 0);
          // Enough to be collected in the first pause.
          globalThis.kept = new Array(1 << 20).fill(1);
          return new Response(`${++count}`);
        } }";
    let worker = worker()
        .with(Function::new("hoarder", source).limits(|limits| limits.memory_bytes = 16 << 20))
        .one_instance_each()
        .start()
        .await;
    assert_eq!(worker.get("hoarder", "/").await.text().await, "1");
    worker.log.line("callback runs").await;
    eventually("the instance is gone", async || {
        metric(&worker, "isolet_instances ").await == 0
    })
    .await;
    assert_eq!(worker.get("hoarder", "/").await.text().await, "1");
}

#[tokio::test]
async fn cpu_time_adds_up_over_the_entries_of_a_request() {
    let mut worker = worker()
        .function("neighbour", NEIGHBOUR)
        .with(
            hostile(
                "for (;;) {
                   const until = performance.now();
                   for (let i = 0; i < 1e6; i++) Math.sqrt(i);
                   await new Promise((resolve) => setTimeout(resolve, 0));
                 }",
            )
            .limits(|limits| limits.cpu_ms = 50),
        )
        .start()
        .await;
    assert_eq!(
        worker.get("hostile", "/").await.error().await,
        (503, "CPULimitExceeded".into())
    );
    all_is_well(&mut worker, "hostile").await;
}

#[tokio::test]
async fn neighbours_answer_while_a_function_hogs_its_thread() {
    let worker = worker()
        .function("neighbour", NEIGHBOUR)
        .with(hostile("for (;;) {}").limits(|limits| limits.cpu_ms = 2000))
        .start()
        .await;
    let mut hog = Box::pin(worker.get("hostile", "/"));
    let mut answered = 0;
    let hog = loop {
        tokio::select! {
            biased;
            hog = &mut hog => break hog,
            answer = worker.get("neighbour", "/") => {
                assert_eq!(answer.text().await, "fine");
                answered += 1;
            }
        }
    };
    assert_eq!(hog.error().await, (503, "CPULimitExceeded".into()));
    assert!(answered > 20, "only {answered} answers beside a hog of 2 s");
}

#[tokio::test]
async fn bombs_end_at_the_memory_limit() {
    for harm in [
        "const kept = []; for (let i = 0; ; i++) kept.push('x'.repeat(1000) + i);",
        "const kept = []; for (;;) kept.push(new Array(10000).fill(1.5));",
        "const kept = []; for (;;) kept.push({ a: [], b: {} });",
        "const kept = new Map(); for (let i = 0; ; i++) kept.set(i, [i]);",
        "const kept = []; for (;;) kept.push(new Array(2 ** 25).fill(kept));",
        "let s = 'x'.repeat(1000); for (;;) { s = [s, s].join(''); }",
        "let a = [1]; for (;;) a = a.concat(a);",
        "const deep = (n) => [n, ...Array.from({ length: 10000 }, (_, i) => i)]; const kept = []; for (;;) kept.push(deep(kept.length));",
        "await null; const kept = []; for (;;) kept.push(Symbol('x'.repeat(100) + kept.length));",
        "const kept = []; for (;;) kept.push((() => { const big = new Array(1000).fill(kept.length); return () => big; })());",
        "const kept = []; for (;;) kept.push(JSON.parse('[' + '[],'.repeat(100000) + '[]]'));",
        "let n = 2n; for (;;) n = n * n;",
    ] {
        let mut worker = worker()
            .function("neighbour", NEIGHBOUR)
            .with(hostile(harm).limits(|limits| {
                limits.memory_bytes = 64 << 20;
                limits.cpu_ms = 120_000;
                limits.timeout_ms = 120_000;
            }))
            .start()
            .await;
        let answer = worker.request("hostile", "/").try_send().await;
        let error = answer
            .unwrap_or_else(|error| panic!("{harm}: {error}"))
            .error()
            .await;
        // What V8 refuses by itself (a string or a BigInt too long) is an exception of the handler.
        assert!(
            error == (503, "MemoryLimitExceeded".into()) || error == (500, "HandlerError".into()),
            "{harm}: {error:?}"
        );
        all_is_well(&mut worker, "hostile").await;
        let resident = worker.resident_bytes();
        eventually("memory is given back", async || {
            worker.resident_bytes() < 400 << 20
        })
        .await;
        assert!(resident < 1 << 30, "{harm}: {resident} bytes");
    }
}

#[tokio::test]
async fn typed_arrays_and_wasm_memory_count_as_memory() {
    // (module (memory (export "m") 1) (func (export "grow") (param i32) (result i32) local.get 0 memory.grow)
    //         (func (export "fill") (param i32) i32.const 0 i32.const 1 local.get 0 memory.fill))
    let wasm: &[u8] = &[
        0, 0x61, 0x73, 0x6d, 1, 0, 0, 0, 1, 10, 2, 0x60, 1, 0x7f, 1, 0x7f, 0x60, 1, 0x7f, 0, 3, 3,
        2, 0, 1, 5, 3, 1, 0, 1, 7, 19, 3, 1, b'm', 2, 0, 4, b'g', b'r', b'o', b'w', 0, 0, 4, b'f',
        b'i', b'l', b'l', 0, 1, 10, 20, 2, 6, 0, 0x20, 0, 0x40, 0, 0x0b, 11, 0, 0x41, 0, 0x41, 1,
        0x20, 0, 0xfc, 0x0b, 0, 0x0b,
    ];
    for harm in [
        "const kept = []; for (;;) kept.push(new Uint8Array(1 << 20).fill(1));",
        "new Uint8Array(1 << 30).fill(1);",
        "const kept = []; for (;;) kept.push(new WebAssembly.Memory({ initial: 1, maximum: 1 }));",
        "const kept = []; for (;;) { const memory = new WebAssembly.Memory({ initial: 160 }); new Uint8Array(memory.buffer).fill(1); kept.push(memory); }",
        "const kept = []; for (;;) { const { exports } = await WebAssembly.instantiate(wasm); exports.grow(160); exports.fill(160 << 16); kept.push(exports); }",
        "new WebAssembly.Memory({ initial: 1025 });",
        "const { exports } = new WebAssembly.Instance(wasm); for (;;) { const before = exports.grow(16); if (before < 0) throw new Error('refused'); exports.fill(before << 16); }",
    ] {
        let mut function = Function::new(
            "hostile",
            &format!(
                "import wasm from './bomb.wasm';
                 export default {{ async fetch(request) {{
                   if (request.url.endsWith('/ok')) return new Response('ok');
                   {harm}
                   return new Response('survived');
                 }} }}"
            ),
        )
        .module("bomb.wasm", wasm);
        function = function.limits(|limits| {
            limits.memory_bytes = 64 << 20;
            limits.cpu_ms = 120_000;
            limits.timeout_ms = 120_000;
        });
        let mut worker = worker()
            .function("neighbour", NEIGHBOUR)
            .with(function)
            .start()
            .await;
        let answer = worker.request("hostile", "/").try_send().await;
        let answer = answer.unwrap_or_else(|error| panic!("{harm}: {error}"));
        assert_ne!(answer.status, 200, "{harm}");
        let error = answer.error().await;
        assert!(
            error == (503, "MemoryLimitExceeded".into()) || error == (500, "HandlerError".into()),
            "{harm}: {error:?}"
        );
        all_is_well(&mut worker, "hostile").await;
        assert!(
            worker.resident_bytes() < 500 << 20,
            "{harm}: {} bytes",
            worker.resident_bytes()
        );
    }
}

#[tokio::test]
async fn deep_recursion_is_an_exception_of_the_handler() {
    for harm in [
        "const f = () => f() + 1; f();",
        "let s = '['.repeat(1e6); JSON.parse(s);",
        "let o = {}; for (let i = 0; i < 1e5; i++) o = { o }; structuredClone(o);",
        "'x'.repeat(2 ** 30);",
    ] {
        let mut worker = worker()
            .function("neighbour", NEIGHBOUR)
            .with(hostile(harm))
            .start()
            .await;
        assert_eq!(
            worker.get("hostile", "/").await.error().await,
            (500, "HandlerError".into()),
            "{harm}"
        );
        all_is_well(&mut worker, "hostile").await;
    }
}

#[tokio::test]
async fn a_promise_that_never_settles_ends_at_the_timeout() {
    let mut worker = worker()
        .function("neighbour", NEIGHBOUR)
        .with(hostile("await new Promise(() => {});").limits(|limits| limits.timeout_ms = 100))
        .start()
        .await;
    assert_eq!(
        worker.get("hostile", "/").await.error().await,
        (504, "Timeout".into())
    );
    let line = worker.log.json("\"Timeout\"").await;
    assert_eq!(line["function"], "hostile");
    assert_eq!(line["namespace"], "default");
    all_is_well(&mut worker, "hostile").await;
    assert!(worker.metrics().await.contains(
        "isolet_request_errors_total{namespace=\"default\",function=\"hostile\",reason=\"Timeout\"} 1"
    ));
}

#[tokio::test]
async fn a_response_that_never_ends_is_cut_at_the_timeout() {
    let mut worker = worker()
        .function("neighbour", NEIGHBOUR)
        .with(
            hostile(
                "return new Response(new ReadableStream({ start(c) { c.enqueue(new Uint8Array(1)); } }));",
            )
            .limits(|limits| limits.timeout_ms = 200),
        )
        .start()
        .await;
    let mut answer = worker.get("hostile", "/").await;
    assert_eq!(answer.piece().await.unwrap().unwrap().len(), 1);
    assert!(answer.piece().await.unwrap().is_err());
    all_is_well(&mut worker, "hostile").await;
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_declared_or_not() {
    let worker = worker()
        .with(
            Function::new(
                "sink",
                "export default { async fetch(r) { return new Response((await r.arrayBuffer()).byteLength) } }",
            )
            .limits(|limits| limits.body_bytes = 1000),
        )
        .start()
        .await;
    let post = |bytes: usize| {
        worker
            .request("sink", "/")
            .method("POST")
            .body(vec![0; bytes])
    };
    assert_eq!(post(1000).send().await.text().await, "1000");
    assert_eq!(
        post(1001).send().await.error().await,
        (413, "BodyTooLarge".into())
    );
    let (request, body) = worker.request("sink", "/").method("POST").pieces();
    body.send(vec![0; 900]);
    body.send(vec![0; 101]);
    assert_eq!(
        request.send().await.error().await,
        (413, "BodyTooLarge".into())
    );
    assert_eq!(post(0).send().await.text().await, "0");
}

#[tokio::test]
async fn more_requests_than_the_concurrency_are_refused() {
    let worker = worker()
        .with(
            Function::new(
                "busy",
                "export default { async fetch(request) {
                   if (request.url.endsWith('/quick')) return new Response('quick');
                   await new Promise((resolve) => { request.signal.onabort = resolve; });
                   return new Response('aborted');
                 } }",
            )
            .limits(|limits| limits.concurrency = 3),
        )
        .start()
        .await;
    let waiting: Vec<_> = (0..3)
        .map(|_| {
            let address = worker.address;
            tokio::spawn(async move {
                // The question whether all places are taken may have taken one.
                while let Ok(answer) = Exchange::new(address, "/fn/default/busy/".into())
                    .try_send()
                    .await
                {
                    assert_eq!(answer.status, 503);
                }
            })
        })
        .collect();
    eventually("all places are taken", async || {
        let answer = worker.get("busy", "/quick").await;
        answer.status == 503
            && answer.headers["retry-after"] == "1"
            && answer.error().await.1 == "ConcurrencyLimitExceeded"
    })
    .await;
    waiting[0].abort();
    eventually("a place is free", async || {
        worker.get("busy", "/quick").await.status == 200
    })
    .await;
}

#[tokio::test]
async fn subrequests_are_counted() {
    let worker = worker()
        .with(
            Function::new(
                "many",
                "export default { async fetch() {
                   let made = 0;
                   try { for (;;) { await fetch('http://x.test/'); made++; } }
                   catch (error) { return new Response(`${made} ${error.name}`); }
                 } }",
            )
            .limits(|limits| limits.subrequests = 3),
        )
        .egress(|_| async { http::Response::new(harness::full("")) })
        .start()
        .await;
    assert_eq!(worker.get("many", "/").await.text().await, "3 RangeError");
    assert_eq!(worker.get("many", "/").await.text().await, "3 RangeError");
}
