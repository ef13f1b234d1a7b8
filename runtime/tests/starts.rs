//! Starts: from the pool of isolates made in advance, each for one revision, none like another.
#![allow(clippy::unwrap_used)]

mod harness;

use std::collections::HashSet;
use std::process::Command;

use harness::{Function, Worker, compile, eventually, metric, worker};
use isolet_runtime::control::{Loaded, SentCode, Start, Starts};

async fn pool_is_filled(worker: &Worker) {
    eventually("the pool is filled", async || {
        metric(worker, "isolet_pool_isolates ").await >= 4
    })
    .await;
}

#[tokio::test]
async fn a_first_request_gets_an_isolate_of_the_pool_which_is_then_filled_again() {
    let worker = worker()
        .function(
            "hello",
            "export default { fetch() { return new Response('hello') } }",
        )
        .one_instance_each()
        .start()
        .await;
    pool_is_filled(&worker).await;
    let pooled = "isolet_starts_total{source=\"pool\"}";
    assert_eq!(metric(&worker, pooled).await, 0);
    assert_eq!(worker.get("hello", "/").await.text().await, "hello");
    assert_eq!(metric(&worker, pooled).await, 1);
    assert_eq!(worker.get("hello", "/").await.text().await, "hello");
    assert_eq!(metric(&worker, pooled).await, 1);
    for index in 0..100 {
        let name = format!("hello{index}");
        let function = Function::new(
            &name,
            &format!("export default {{ fetch() {{ return new Response('{name}') }} }}"),
        );
        worker.put(&function).await.unwrap();
        pool_is_filled(&worker).await;
        assert_eq!(worker.get(&name, "/").await.text().await, name);
    }
    assert_eq!(metric(&worker, pooled).await, 101);
}

#[tokio::test]
async fn isolates_of_the_pool_draw_different_random_numbers_and_see_only_their_own_revision() {
    let worker = worker().start().await;
    let mut drawn = HashSet::new();
    for index in 0..30 {
        let name = format!("f{index}");
        let source = "
            const found = globalThis.left ?? Array.prototype.left ?? 'nothing';
            globalThis.left = Array.prototype.left = 'something';
            Response.prototype.text = null;
            export default { fetch(request, env) {
              return Response.json([found, Object.keys(env).join(), Math.random(), crypto.randomUUID()]);
            } }";
        let function = Function::new(&name, source).env(&name, "1");
        worker.put(&function).await.unwrap();
        pool_is_filled(&worker).await;
        let answer = worker.get(&name, "/").await.json().await;
        assert_eq!(answer[0], "nothing");
        assert_eq!(answer[1], name.as_str());
        assert!(drawn.insert(answer[2].to_string()), "{answer}");
        assert!(drawn.insert(answer[3].to_string()), "{answer}");
    }
    assert_eq!(
        metric(&worker, "isolet_starts_total{source=\"pool\"}").await,
        30
    );
}

#[tokio::test]
async fn an_isolate_of_the_pool_has_the_memory_limit_of_its_function() {
    let worker = worker().start().await;
    for (memory_mib, fits_mib) in [(32u64, 16), (128, 100), (512, 300)] {
        let name = format!("f{memory_mib}");
        let source = "export default { fetch(request) {
            globalThis.kept = new Uint8Array(Number(new URL(request.url).searchParams.get('mib')) << 20);
            return new Response('fits');
        } }";
        let function =
            Function::new(&name, source).limits(|limits| limits.memory_bytes = memory_mib << 20);
        worker.put(&function).await.unwrap();
        pool_is_filled(&worker).await;
        let fits = worker.get(&name, &format!("/?mib={fits_mib}")).await;
        assert_eq!(fits.text().await, "fits");
        let too_large = worker.get(&name, &format!("/?mib={memory_mib}")).await;
        assert_ne!(too_large.status, 200, "{memory_mib}");
    }
    // The pool's isolates suit any.
    assert_eq!(
        metric(&worker, "isolet_starts_total{source=\"pool\"}").await,
        3
    );
}

#[tokio::test]
async fn code_compiled_once_is_used_again_and_changes_nothing() {
    let mut source = String::new();
    for index in 0..400 {
        source.push_str(&format!(
            "function part{index}(list) {{ return list.map((value) => value + {index}); }}\n"
        ));
    }
    source.push_str(
        "export default { fetch(request) {
           if (request.url.endsWith('/throw')) part7(null);
           return new Response(part3([1]) + ',' + part399([1]) + ',' + fact);
         } }
         import { fact } from './fact.js';\n",
    );
    let fact = format!(
        "export const fact = 'known'; // {}",
        "padding ".repeat(1000)
    );
    let function = Function::new("large", &source).module("fact.js", fact);
    let worker = worker().with(function).start().await;
    // The trial instance leaves its code when it goes.
    eventually("the trial instance is gone", async || {
        metric(&worker, "isolet_instances ").await == 0
    })
    .await;
    assert_eq!(worker.get("large", "/").await.text().await, "4,400,known");
    let accepted = "isolet_code_cache_modules_total{outcome=\"accepted\"}";
    assert_eq!(metric(&worker, accepted).await, 2);
    assert_eq!(
        metric(
            &worker,
            "isolet_code_cache_modules_total{outcome=\"refused\"}"
        )
        .await,
        0
    );
    assert_eq!(worker.get("large", "/throw").await.status, 500);
    let line = worker.log.json("HandlerError").await;
    let stack = line["stack"].as_str().unwrap();
    assert!(stack.contains("part7 (main.js:8:"), "{stack}");
}

#[tokio::test]
async fn the_first_request_to_a_small_function_finds_its_code_compiled() {
    let source = "const twice = (value) => value * 2;
        export default { fetch: () => new Response(String(twice(21))) }";
    let worker = worker().function("small", source).start().await;
    eventually("the trial instance is gone", async || {
        metric(&worker, "isolet_instances ").await == 0
    })
    .await;
    assert_eq!(worker.get("small", "/").await.text().await, "42");
    assert_eq!(metric(&worker, ACCEPTED).await, 1);
    assert_eq!(metric(&worker, REFUSED).await, 0);
}

const ACCEPTED: &str = "isolet_code_cache_modules_total{outcome=\"accepted\"}";
const REFUSED: &str = "isolet_code_cache_modules_total{outcome=\"refused\"}";

/// More than 4 KiB; answers `name`, or with `?twice` runs something that the first request did not.
fn large(name: &str) -> Function {
    let parts: String = (0..200)
        .map(|index| format!("function part{index}(value) {{ return value + {index}; }}\n"))
        .collect();
    let source = format!(
        "{parts}export default {{ fetch(request) {{
           const twice = request.url.endsWith('?twice');
           return new Response('{name}' + (twice ? part199(part7(0)) : part3(0)));
         }} }}"
    );
    Function::new(name, &source)
}

fn compiled(function: &Function) -> Vec<u8> {
    let output = compile(&function.encode().0);
    let problem = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{problem}");
    output.stdout
}

fn start(function: &Function, code: SentCode, loaded: &Loaded) -> Starts {
    Starts(vec![Start {
        uid: function.uid(),
        revision: loaded.revision.clone(),
        code,
    }])
}

#[tokio::test]
async fn code_that_the_agent_kept_is_used_at_the_first_start() {
    let worker = worker().start().await;
    let function = large("kept").module("fact.js", format!("// {}", "padding ".repeat(1000)));
    let code = compiled(&function);
    let loaded = worker.put_again(&function, &code).await.unwrap();
    assert_eq!(metric(&worker, "isolet_starts_total").await, 0);
    assert_eq!(worker.get("kept", "/").await.text().await, "kept3");
    assert_eq!(metric(&worker, ACCEPTED).await, 2);
    assert_eq!(metric(&worker, REFUSED).await, 0);
    assert_eq!(worker.get("kept", "/?twice").await.text().await, "kept206");
    let starts = worker.starts().await;
    assert_eq!(starts, start(&function, SentCode::Good, &loaded));

    // Each is told once; small ones never.
    let other = large("other");
    let tiny = "export default { fetch() { return new Response('tiny') } }";
    worker.put(&Function::new("tiny", tiny)).await.unwrap();
    let loaded = worker.put(&other).await.unwrap();
    for name in ["kept", "tiny", "other", "other"] {
        assert_eq!(worker.get(name, "/").await.status, 200);
    }
    let starts = worker.starts().await;
    assert_eq!(starts, start(&other, SentCode::Missing, &loaded));
}

#[tokio::test]
async fn code_that_does_not_fit_is_refused_and_the_function_compiled_as_usual() {
    let worker = worker().start().await;
    let code = compiled(&large("f"));
    // The tag, the lengths, the path; then V8's own header.
    let header = 4 + 4 + "main.js".len() + 4;
    let changed = |at: usize| {
        let mut code = code.clone();
        code[at] ^= 1;
        code
    };
    let cases = [
        ("empty", Vec::new()),
        ("of another V8", changed(0)),
        ("of another V8, which only V8 notices", changed(header + 4)),
        ("with other flags", changed(header + 12)),
        ("of another snapshot", changed(header + 16)),
        ("of other sources", compiled(&large("longer"))),
        ("cut off", code[..code.len() / 2].to_vec()),
        ("cut off in V8's header", code[..header + 10].to_vec()),
        ("something else", b"not code at all".to_vec()),
    ];
    for (index, (what, code)) in cases.iter().enumerate() {
        let name = format!("f{index}");
        let refused = metric(&worker, REFUSED).await;
        let function = large(&name[..1]).rename(&name);
        let loaded = worker.put_again(&function, code).await.unwrap();
        assert_eq!(worker.get(&name, "/").await.text().await, "f3", "{what}");
        let answer = worker.get(&name, "/?twice").await;
        assert_eq!(answer.text().await, "f206", "{what}");
        assert_eq!(metric(&worker, REFUSED).await, refused + 1, "{what}");
        let starts = worker.starts().await;
        assert_eq!(starts, start(&function, SentCode::Refused, &loaded));
    }
    assert_eq!(metric(&worker, ACCEPTED).await, 0);
}

#[tokio::test]
async fn where_there_is_much_code_only_what_v8_compiles_by_itself_is_kept() {
    let list = |count: usize| {
        let parts = "function (a) { return [a, 1].map((x) => x + a * 2).join(','); },\n";
        let handler = "export default { fetch() { return new Response(list[1](3)); } }";
        let source = format!("const list = [{}];\n{handler}", parts.repeat(count));
        Function::new("list", &source)
    };
    let each = |count: usize| compiled(&list(count)).len() / count;
    let (few, many) = (each(500), each(5000));
    assert!(many < few / 2, "{few} and {many} bytes a function");
    let worker = worker().start().await;
    let function = list(5000);
    let code = compiled(&function);
    worker.put_again(&function, &code).await.unwrap();
    assert_eq!(worker.get("list", "/").await.text().await, "9,7");
    assert_eq!(metric(&worker, ACCEPTED).await, 1);
}

#[tokio::test]
async fn what_is_compiled_to_be_kept_never_runs_and_bad_bundles_are_refused() {
    let padding = format!("// {}", "padding ".repeat(1000));
    let endless = Function::new("endless", &format!("{padding}\nfor (;;) globalThis.x = 1;"));
    assert!(!compiled(&endless).is_empty());
    let (bundle, _) = large("whole").encode();
    let (tiny, _) = Function::new("tiny", "export default {}").encode();
    let (broken, _) = Function::new("broken", &format!("{padding}\n}}")).encode();
    for (bundle, problem) in [
        (&tiny[..], "nothing to keep"),
        (&broken, "nothing to keep"),
        (&bundle[..bundle.len() / 2], ""),
        (b"", ""),
    ] {
        let output = compile(bundle);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(output.stdout.is_empty() && text.contains(problem), "{text}");
    }
}

#[test]
fn a_snapshot_follows_from_its_seed() {
    let made = |seed: u64| {
        let made = Command::new(env!("CARGO_BIN_EXE_isolet"))
            .args(["snapshot", &format!("--seed={seed}")])
            .output()
            .unwrap();
        assert!(made.status.success(), "{seed}");
        assert_eq!(String::from_utf8_lossy(&made.stderr), "", "{seed}");
        made.stdout
    };
    // V8 has its own idea of the largest number.
    for seed in [0, 7, 1 << 63, u64::MAX] {
        assert!(made(seed) == made(seed), "{seed}");
    }
    assert!(made(7) != made(u64::MAX));
}
