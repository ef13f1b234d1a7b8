//! Starts: from the pool of isolates made in advance, each for one revision, none like another.
#![allow(clippy::unwrap_used)]

mod harness;

use std::collections::HashSet;

use harness::{Function, Worker, eventually, worker};

/// The sum of a metric's lines that begin so.
async fn metric(worker: &Worker, start: &str) -> usize {
    let metrics = worker.metrics().await;
    let lines = metrics.lines().filter(|line| line.starts_with(start));
    lines
        .map(|line| line.rsplit(' ').next().unwrap().parse::<usize>().unwrap())
        .sum()
}

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
