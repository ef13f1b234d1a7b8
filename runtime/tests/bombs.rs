//! What JavaScript can do to V8's limits: each ends in an answer, with the worker and its neighbours alive.
//!
//! One worker for all of a table, so that what one leaves behind would show at the next.
#![allow(clippy::unwrap_used)]

mod harness;

use std::net::SocketAddr;
use std::sync::Arc;

use harness::{Exchange, Function, Worker, eventually, worker};
use isolet_crds::ResolvedLimits;

/// What a request may end in.
const ENDS: [(u16, &str); 3] = [
    (503, "MemoryLimitExceeded"),
    (503, "CPULimitExceeded"),
    (500, "HandlerError"),
];

fn limits(limits: &mut ResolvedLimits) {
    limits.memory_bytes = 32 << 20;
    limits.cpu_ms = 2_000;
    limits.timeout_ms = 60_000;
}

fn patient(limits: &mut ResolvedLimits) {
    limits.cpu_ms = 60_000;
    limits.timeout_ms = 60_000;
}

/// Each runs inside a handler; what it answers is not asked.
const HANDLERS: &[&str] = &[
    // Strings.
    "'x'.repeat(2 ** 29 - 25).length;",
    "const s = 'x'.repeat(2 ** 29 - 25); s.charCodeAt(5); return new Response(s.slice(0, 1));",
    "const s = '\\u4e00'.repeat(2 ** 29 - 25); s.charCodeAt(5); return new Response(s.slice(0, 1));",
    "''.padEnd(2 ** 21, 'ab').replaceAll('a', 'b'.repeat(100));",
    "new Array(2 ** 23).join('x'.repeat(60));",
    "const kept = []; for (let i = 0; ; i++) kept.push(Symbol.for('key' + i));",
    "const kept = {}; for (let i = 0; ; i++) kept['key' + i] = i;",
    "let s = 'x'; for (;;) s = `${s}${s}`;",
    "let s = 'ab'.repeat(1 << 20); for (let i = 0; i < 30; i++) s = s.split('').reverse().join('') + s;",
    "new TextDecoder().decode(new Uint8Array(60 << 20));",
    "new TextEncoder().encode('\\u4e00'.repeat(1 << 25));",
    "encodeURIComponent('\\u4e00'.repeat(1 << 24));",
    "escape('\\u4e00'.repeat(1 << 24));",
    "'\\u1e9b\\u0323'.repeat(1 << 21).normalize('NFKD');",
    "btoa('x'.repeat(1 << 25));",
    "atob('QUFB'.repeat(1 << 24));",
    // Arrays and tables.
    "const a = []; a[2 ** 32 - 2] = 1; a.concat(a, a); a.flat();",
    "Array.from({ length: 2 ** 53 - 1 });",
    "[].concat(...new Array(1e5).fill(new Array(1e4).fill(1)));",
    "let a = []; for (let i = 0; i < 1e7; i++) a = [a]; return Response.json(a);",
    "Math.max(...new Array(1e7).fill(1));",
    "(function () { return arguments.length })(...new Array(6e7));",
    "String.fromCharCode.apply(null, new Uint16Array(2e7));",
    "const m = new Map(); for (let i = 0; ; i++) m.set(i, i);",
    "const s = new Set(); for (let i = 0; ; i++) s.add({});",
    "const m = new WeakMap(); const kept = []; for (;;) { const k = {}; kept.push(k); m.set(k, kept); }",
    "const kept = []; const r = new FinalizationRegistry(() => {}); for (;;) { const k = {}; kept.push(k, new WeakRef(k)); r.register(k, kept); }",
    "const o = {}; for (let i = 0; ; i++) Object.defineProperty(o, i, { get() { return i } });",
    "let o = {}; for (let i = 0; i < 1e6; i++) o = Object.create(o); return new Response(`${o.missing}`);",
    "let p = {}; for (let i = 0; i < 1e6; i++) p = new Proxy(p, {}); return new Response(`${p.missing}`);",
    "let p = []; p = new Proxy(p, { getPrototypeOf: () => p }); return new Response(`${p instanceof Array}`);",
    "let f = () => 1; for (let i = 0; i < 1e6; i++) f = f.bind(null, i); return new Response(`${f()}`);",
    "const kept = []; for (;;) kept.push(function* () { yield kept }());",
    "function* g() { yield* g() } [...g()];",
    "async function f() { await f() } await f();",
    "const kept = []; for (;;) kept.push(new Promise(() => {}).then(() => kept));",
    // Numbers.
    "let n = 1n << (2n ** 30n - 1n); return new Response(`${n * n}`);",
    "return new Response((1n << 2n ** 21n).toString(3));",
    "BigInt('9'.repeat(1e6));",
    "2n ** (2n ** 40n);",
    "BigInt.asUintN(2 ** 53 - 1, -1n);",
    "(1.5).toFixed(100).repeat(1e6);",
    // Typed arrays and buffers.
    "new Uint8Array(2 ** 53 - 1);",
    "new Float64Array(2 ** 32);",
    "const kept = []; for (;;) kept.push(new ArrayBuffer(1, { maxByteLength: 2 ** 32 }));",
    "const kept = []; for (;;) kept.push(new ArrayBuffer(100));",
    "const b = new ArrayBuffer(30 << 20); const kept = []; for (;;) kept.push(b.slice());",
    "let b = new ArrayBuffer(1 << 20); for (;;) b = b.transfer(b.byteLength * 2);",
    "const b = new Uint8Array(60 << 20); structuredClone([b, b.slice(), b.slice()]);",
    "const b = new Uint8Array(30 << 20); new Blob([b, b, b, b]);",
    "new Float64Array(8e6).fill(1).toSorted();",
    // JSON, clones, regular expressions, errors.
    "JSON.parse('[' + '1,'.repeat(5e6) + '1]');",
    "JSON.parse('{\"a\":'.repeat(1e6) + '1' + '}'.repeat(1e6));",
    "JSON.parse('{' + Array.from({ length: 1e6 }, (_, i) => `\"k${i}\":1`).join() + '}');",
    "JSON.stringify(new Array(2e6).fill('\\u0000'));",
    "const o = {}; o.toJSON = () => ({ o }); JSON.stringify(o);",
    "const a = []; for (let i = 0; i < 24; i++) a.push([...a]); JSON.stringify([a, a, a, a]);",
    "structuredClone(Array.from({ length: 1e6 }, () => ({ a: [] })));",
    "const m = new Map(); let k = m; for (let i = 0; i < 1e5; i++) { const n = new Map(); k.set(n, n); k = n; } structuredClone(m);",
    "new RegExp('a{1,1000}{1,1000}{1,1000}').test('aaa');",
    "new RegExp('(?:a|b)'.repeat(1e5)).test('ab');",
    "new RegExp('('.repeat(1e5) + ')'.repeat(1e5)).test('');",
    "new RegExp('(?<=' .repeat(5e4) + ')'.repeat(5e4)).test('');",
    "new RegExp('[' + Array.from({ length: 5e4 }, (_, i) => String.fromCharCode(i)).join('') + ']', 'iv').test('x');",
    "'a'.repeat(4e6).match(/a/g);",
    "'a'.repeat(4e6).replace(/a/g, 'aaaaaaaaaaaa');",
    "[...'ab'.repeat(1e6).matchAll(/(a)(b)/g)];",
    "'a'.repeat(1e6).split(/(?:)/).map((x) => new RegExp(x + Math.random()));",
    "Error.stackTraceLimit = 2 ** 31; const f = () => f(); try { f() } catch (error) { return new Response(`${error.stack}`.slice(0, 9)) }",
    "Error.stackTraceLimit = Infinity; const kept = []; const f = (n) => n ? f(n - 1) : kept.push(new Error()); for (;;) f(1000);",
    "let error; for (let i = 0; i < 1e6; i++) error = new Error('x', { cause: error }); throw error;",
    "let error; for (let i = 0; i < 1e5; i++) error = new AggregateError([error]); throw error;",
    "Error.prepareStackTrace = () => { throw new Error() }; throw new Error();",
    "throw { get stack() { throw this }, toString() { throw this } };",
    "throw new Proxy({}, { get() { for (;;); } });",
    // What the platform gives.
    "const h = new Headers(); for (let i = 0; ; i++) h.append('n' + i, 'v'.repeat(1e4));",
    "return new Response('x', { headers: { a: 'v'.repeat(1e8) } });",
    "const u = new URLSearchParams(); for (let i = 0; ; i++) u.append('k' + i, 'v');",
    "new URL('http://h/' + '%20'.repeat(1e6)).searchParams.append('a', 'b'.repeat(1e7));",
    "const s = new ReadableStream({ pull(c) { c.enqueue(new Uint8Array(1 << 20)) } }, { highWaterMark: 1e9 }); await new Promise(() => s);",
    "const s = new ReadableStream({ start(c) { for (;;) c.enqueue(new Uint8Array(1000)) } }); return new Response(s);",
    "let s = new ReadableStream({ start(c) { c.enqueue('x'); c.close() } }); for (let i = 0; i < 1e5; i++) s = s.tee()[0]; return new Response(s);",
    "let s = new ReadableStream({ start(c) { c.close() } }); for (let i = 0; i < 1e4; i++) s = s.pipeThrough(new TransformStream()); return new Response(s);",
    "const { writable } = new TransformStream(undefined, { highWaterMark: 1e9 }); const w = writable.getWriter(); for (;;) w.write('x'.repeat(1000));",
    "for (;;) setTimeout(() => {}, 1e6);",
    "for (;;) queueMicrotask(() => new Array(1000));",
    "const c = new AbortController(); for (;;) c.signal.addEventListener('abort', () => {});",
    "const signals = []; for (let s = AbortSignal.timeout(1e6); ; s = AbortSignal.any([s, s])) signals.push(s);",
    "for (;;) console.log('x'.repeat(1e6));",
    "crypto.getRandomValues(new Uint8Array(1e9));",
];

/// Each is a native of V8 that looks for no interrupt in a long time: the worker is replaced in order.
const STUCK: &[&str] = &[
    "'\\u0130'.repeat(1 << 27).toLowerCase();",
    "new Array(2 ** 32 - 1).fill(0);",
    "const a = []; a.length = 2 ** 32 - 1; a.sort(); a.reverse();",
    "Array.from({ length: 2 ** 32 - 1 });",
];

/// Each is a whole module.
const MODULES: &[fn() -> String] = &[
    || format!("const a = {}1{};", "[".repeat(200_000), "]".repeat(200_000)),
    || format!("const a = {}1{};", "(".repeat(200_000), ")".repeat(200_000)),
    || format!("{}{}", "{".repeat(200_000), "}".repeat(200_000)),
    || format!("const a = 1{};", "+1".repeat(1_000_000)),
    || format!("const a = x => 1{};", "?.a".repeat(300_000)),
    || format!("const a = {}1;", "x=>".repeat(100_000)),
    || format!("const a = {}1;", "!".repeat(500_000)),
    || {
        format!(
            "const a = `{}{}`;",
            "${`".repeat(50_000),
            "`}".repeat(50_000)
        )
    },
    || format!("const a = `{}`;", "x".repeat(7_000_000)),
    || format!("const a = [{}];", "[],".repeat(1_000_000)),
    || {
        format!(
            "const a = {{{}}};",
            (0..300_000)
                .map(|i| format!("k{i}:{i},"))
                .collect::<String>()
        )
    },
    || {
        (0..200_000)
            .map(|i| format!("function f{i}(){{return {i}}}\n"))
            .collect()
    },
    || {
        (0..200_000)
            .map(|i| format!("const f{i}=()=>f{i};\n"))
            .collect()
    },
    || {
        (0..60_000)
            .map(|i| format!("class C{i}{{a=1;#b=2;static c=3;get d(){{return this.#b}}}}\n"))
            .collect()
    },
    || {
        (0..100_000)
            .map(|i| format!("l{i}:"))
            .chain([";".into()])
            .collect()
    },
    || {
        (0..30_000)
            .map(|i| format!("l{i}:{{"))
            .chain(["}".repeat(30_000)])
            .collect()
    },
    || {
        format!(
            "const a = /{}{}/;",
            "(".repeat(100_000),
            ")".repeat(100_000)
        )
    },
    || {
        format!(
            "switch (1) {{{}}}",
            (0..200_000)
                .map(|i| format!("case {i}:"))
                .collect::<String>()
        )
    },
    || format!("{}1", "if(0);else ".repeat(100_000)),
    || format!("const a = {};", "9".repeat(5_000_000)),
    || format!("const a = {}n;", "9".repeat(1_000_000)),
    || {
        format!(
            "var {};",
            (0..400_000)
                .map(|i| format!("v{i}"))
                .collect::<Vec<_>>()
                .join(",")
        )
    },
    || {
        format!(
            "function f({}){{}}",
            (0..70_000)
                .map(|i| format!("p{i}"))
                .collect::<Vec<_>>()
                .join(",")
        )
    },
    || format!("/*{}*/", "*".repeat(7_000_000)),
    || "const kept = []; for (;;) kept.push(new Array(1000).fill(1.5));".into(),
    || "const kept = []; for (;;) kept.push(new Uint8Array(1 << 20).fill(1));".into(),
    || "'\\u4e00'.repeat(2 ** 29 - 25).charCodeAt(5);".into(),
];

const NEIGHBOUR: &str = "export default { fetch() { return new Response('fine') } }";

async fn start() -> Worker {
    worker().function("neighbour", NEIGHBOUR).start().await
}

async fn status(address: SocketAddr, path: String) -> Result<u16, String> {
    Ok(Exchange::new(address, path).try_send().await?.status)
}

async fn all_is_well(worker: &mut Worker, after: &str) {
    let answer = worker.get("neighbour", "/").await.text().await;
    assert_eq!(answer, "fine", "{after}");
    assert!(worker.is_alive(), "{after}");
}

fn short(text: &str) -> &str {
    text.get(..100).unwrap_or(text)
}

#[tokio::test]
async fn nothing_that_a_handler_does_ends_the_worker() {
    let mut worker = start().await;
    let mut ended = Vec::new();
    for (number, harm) in HANDLERS.iter().enumerate() {
        let source = format!(
            "export default {{ async fetch(request) {{ {harm}\n return new Response('survived') }} }}"
        );
        let name = format!("bomb{number}");
        let function = Function::new(&name, &source).limits(limits);
        worker.put(&function).await.unwrap();
        let Ok(answer) = worker.request(&name, "/").try_send().await else {
            ended.push((*harm, worker.ended().await));
            worker = start().await;
            continue;
        };
        if answer.status == 200 {
            // Whole or broken off, but not for ever.
            let _ = answer.bytes().await;
        } else {
            let error = answer.error().await;
            let is_expected = ENDS.contains(&(error.0, error.1.as_str()));
            assert!(is_expected, "{harm}: {error:?}");
        }
        all_is_well(&mut worker, harm).await;
        worker.delete(&format!("uid-default-{name}")).await;
    }
    assert!(ended.is_empty(), "{ended:#?}");
}

#[tokio::test]
async fn a_native_that_does_not_end_ends_the_worker_in_order() {
    for harm in STUCK {
        let source = format!("export default {{ fetch() {{ {harm} }} }}");
        let function = Function::new("stuck", &source).limits(|limits| limits.cpu_ms = 20);
        let mut worker = worker().with(function).start().await;
        if let Ok(answer) = worker.request("stuck", "/").try_send().await {
            // It was quick enough this time.
            assert_ne!(answer.status, 200, "{harm}");
            continue;
        }
        assert_eq!(worker.ended().await.code(), Some(70), "{harm}");
    }
}

#[tokio::test]
async fn no_module_breaks_the_worker() {
    let mut worker = start().await;
    for (number, module) in MODULES.iter().enumerate() {
        let module = module();
        let source =
            format!("{module}\nexport default {{ fetch() {{ return new Response('survived') }} }}");
        let name = format!("bomb{number}");
        let function = Function::new(&name, &source).limits(limits);
        let Ok(loaded) = worker.try_put(&function).await else {
            // V8's parser hears of no limit: on a slow machine the worker is replaced, in order.
            assert_eq!(worker.ended().await.code(), Some(70), "{}", short(&module));
            worker = start().await;
            continue;
        };
        if loaded.is_ok() {
            let answer = worker.get(&name, "/").await;
            if answer.status == 200 {
                assert_eq!(answer.text().await, "survived", "{}", short(&module));
            } else {
                // What took most of the second that a start has takes longer on a busy machine.
                assert_eq!(
                    answer.error().await,
                    (503, "StartFailed".into()),
                    "{}",
                    short(&module)
                );
            }
            worker.delete(&format!("uid-default-{name}")).await;
        }
        all_is_well(&mut worker, short(&module)).await;
    }
}

/// Many that are small, and then grow all at once.
#[tokio::test]
async fn many_that_grow_at_the_same_time_do_not_end_the_worker() {
    const FUNCTIONS: usize = 600;
    let source = "const kept = []; export default { async fetch(request) {
        const { pathname } = new URL(request.url);
        if (pathname === '/heap') while (kept.length < 20) kept.push(new Array(1 << 17).fill(kept.length + 0.5));
        if (pathname === '/objects') for (let i = 0; i < 2e5; i++) kept.push({ a: [i], b: { i } });
        if (pathname === '/outside') while (kept.length < 20) kept.push(new Uint8Array(1 << 20).fill(1));
        if (pathname === '/text') while (kept.length < 10) { const s = '\\u4e00x'.repeat(1 << 19); s.charCodeAt(1); kept.push(s) }
        return new Response(`${kept.length}`);
    } }";
    let mut worker = start().await;
    for index in 0..FUNCTIONS {
        let function = Function::new(&format!("f{index}"), source).limits(patient);
        worker.put_checked(&function).await;
        assert_eq!(
            worker.get(&format!("f{index}"), "/").await.text().await,
            "0"
        );
    }
    let address = worker.address;
    for what in ["heap", "objects", "outside", "text"] {
        let together = Arc::new(tokio::sync::Semaphore::new(100));
        let all: Vec<_> = (0..FUNCTIONS)
            .map(|index| {
                let together = Arc::clone(&together);
                tokio::spawn(async move {
                    let _place = together.acquire().await.unwrap();
                    status(address, format!("/fn/default/f{index}/{what}")).await
                })
            })
            .collect();
        let mut served = 0;
        for one in all {
            let status = one
                .await
                .unwrap()
                .unwrap_or_else(|error| panic!("{what}: {error}"));
            assert!([200, 500, 503].contains(&status), "{what}: {status}");
            served += usize::from(status == 200);
        }
        assert!(served > 0, "{what}");
        all_is_well(&mut worker, what).await;
    }
    eventually("there is room again", async || {
        worker.get("f0", "/").await.status == 200
    })
    .await;
}

/// Machine code lies in a range of 512 MiB for all isolates, 256 KiB at least for each that has some.
#[tokio::test]
async fn machine_code_of_many_functions_does_not_end_the_worker() {
    const FUNCTIONS: usize = 2_200;
    let source = "export default { fetch() {
        let found = 0;
        for (let i = 0; i < 20; i++) found += /a(b|c)+d/.test(`xxabcbcd${i}`);
        return new Response(`${found}`);
    } }";
    let mut worker = worker().start().await;
    for index in 0..FUNCTIONS {
        let name = format!("f{index}");
        worker.put_checked(&Function::new(&name, source)).await;
        let answer = worker.get(&name, "/").await;
        assert_eq!(answer.status, 200, "{index}");
    }
    assert!(worker.is_alive());
    let metrics = worker.metrics().await;
    assert!(
        metrics.contains("isolet_evictions_total{reason=\"code_bytes\"}"),
        "{metrics}"
    );
}

/// Each makes an object of 1 GiB in one step of V8: four of them at once would be the whole cage.
#[tokio::test]
async fn the_largest_objects_are_made_one_after_the_other() {
    const FUNCTIONS: usize = 12;
    let source = "export default { fetch() {
        const text = '\\u4e00'.repeat(2 ** 29 - 25);
        return new Response(`${text.charCodeAt(5)}`);
    } }";
    let mut worker = start().await;
    for index in 0..FUNCTIONS {
        let function = Function::new(&format!("f{index}"), source).limits(patient);
        worker.put_checked(&function).await;
    }
    let address = worker.address;
    let all: Vec<_> = (0..FUNCTIONS)
        .map(|index| tokio::spawn(status(address, format!("/fn/default/f{index}/"))))
        .collect();
    for one in all {
        let Ok(status) = one.await.unwrap() else {
            // No room for one in a cage in pieces: the worker is replaced, in order.
            assert_eq!(worker.ended().await.code(), Some(70));
            return;
        };
        assert!([200, 503].contains(&status), "{status}");
    }
    all_is_well(&mut worker, "the largest strings").await;
}

/// Fills its memory, then has V8 collect garbage for most of the time: each collection takes a second.
const LARGE: &str = "const live = [];
export default { fetch(request) {
  if (request.url.endsWith('/ok')) return new Response('ok');
  while (live.length < 8e6) live.push({ a: live.length, b: { c: live.length } });
  for (let garbage = []; ; ) {
    garbage.push(new Array(1 << 14).fill(1));
    if (garbage.length <= 100) continue;
    garbage = [];
    for (let i = 0; i < 1e4; i++) live[Math.floor(Math.random() * live.length)] = { a: i, b: { c: garbage } };
  }
} }";

#[tokio::test]
async fn a_long_collection_is_not_taken_for_code_that_does_not_end() {
    let mut worker = worker()
        .with(Function::new("large", LARGE).limits(|limits| {
            limits.memory_bytes = 1 << 30;
            limits.cpu_ms = 8_000;
            limits.timeout_ms = 120_000;
        }))
        .start()
        .await;
    for _ in 0..2 {
        let error = worker.get("large", "/").await.error().await;
        assert_eq!(error, (503, "CPULimitExceeded".into()));
    }
    assert_eq!(worker.get("large", "/ok").await.text().await, "ok");
    assert!(worker.is_alive());
}
