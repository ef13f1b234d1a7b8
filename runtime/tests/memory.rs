//! Memory of the process: cold instances go and come back, and no number of greedy ones brings the process down.
#![allow(clippy::unwrap_used)]

mod harness;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use harness::{Exchange, Function, Worker, eventually, worker};

const COUNTER: &str =
    "let count = 0; export default { fetch() { return new Response(`${++count}`) } }";

/// The answer, asked for again while there is no room.
async fn answer(worker: &Worker, name: &str) -> String {
    let mut text = String::new();
    eventually("there is room", async || {
        let answer = worker.get(name, "/").await;
        if answer.status == 200 {
            text = answer.text().await;
            return true;
        }
        assert_eq!(answer.headers["retry-after"], "1");
        assert_eq!(answer.error().await, (503, "Overloaded".into()));
        false
    })
    .await;
    text
}

async fn instances(worker: &Worker) -> usize {
    let metrics = worker.metrics().await;
    let line = metrics
        .lines()
        .find(|line| line.starts_with("isolet_instances "));
    line.unwrap().rsplit(' ').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn cold_instances_go_and_come_back() {
    let worker = worker().argument("--max-instances=32").start().await;
    for index in 0..100 {
        let function = Function::new(&format!("f{index}"), COUNTER);
        worker.put(&function).await.unwrap();
    }
    for index in 0..100 {
        assert_eq!(answer(&worker, &format!("f{index}")).await, "1");
    }
    eventually("the coldest are gone", async || {
        instances(&worker).await <= 28
    })
    .await;
    // The last one is still there, the first one begins anew.
    assert_eq!(answer(&worker, "f99").await, "2");
    assert_eq!(answer(&worker, "f0").await, "1");
}

#[tokio::test]
async fn instances_with_requests_under_way_stay() {
    let source = "let count = 0; export default { async fetch(request) {
        count++;
        if (request.url.endsWith('/wait')) await new Promise((resolve) => { request.signal.onabort = resolve; });
        return new Response(`${count}`);
    } }";
    let worker = worker()
        .argument("--max-instances=32")
        .function("waiting", source)
        .start()
        .await;
    let exchange = Exchange::new(worker.address, "/fn/default/waiting/wait".into());
    let waiting = tokio::spawn(async move { exchange.try_send().await.is_err() });
    eventually("the request is under way", async || {
        answer(&worker, "waiting").await != "1"
    })
    .await;
    // Its number is the count of requests so far, the first one among them.
    let before: usize = answer(&worker, "waiting").await.parse().unwrap();
    for index in 0..100 {
        let name = format!("f{index}");
        worker.put(&Function::new(&name, COUNTER)).await.unwrap();
        assert_eq!(answer(&worker, &name).await, "1");
    }
    let after: usize = answer(&worker, "waiting").await.parse().unwrap();
    assert_eq!(after, before + 1);
    waiting.abort();
}

/// Each keeps 100 MiB of V8's heap alive, within its limit; all together would need half as much again as V8's cage has.
#[tokio::test]
async fn greedy_functions_cannot_use_up_the_memory_of_the_process() {
    const BOMBS: usize = 60;
    let source = "const kept = [];
        export default { async fetch(request) {
          while (kept.length < 100) kept.push(new Array(1 << 18).fill(kept.length + 0.5));
          if (request.url.endsWith('/hold')) await fetch('http://hold.test/');
          return new Response('kept');
        } }";
    let waiting = Arc::new(AtomicUsize::new(0));
    let (release, released) = tokio::sync::watch::channel(false);
    let held = Arc::clone(&waiting);
    let mut worker = worker()
        .function("small", COUNTER)
        .egress(move |_| {
            held.fetch_add(1, Ordering::SeqCst);
            let mut released = released.clone();
            async move {
                released.wait_for(|released| *released).await.unwrap();
                http::Response::new(harness::full(""))
            }
        })
        .start()
        .await;
    for index in 0..BOMBS {
        let function = Function::new(&format!("bomb{index}"), source).limits(|limits| {
            limits.memory_bytes = 256 << 20;
            limits.cpu_ms = 120_000;
            limits.timeout_ms = 120_000;
        });
        worker.put(&function).await.unwrap();
    }
    // One after the other: idle ones make room.
    for index in 0..BOMBS {
        let answer = worker.get(&format!("bomb{index}"), "/").await;
        assert!([200, 503].contains(&answer.status), "{}", answer.status);
    }
    // All at once, all of them busy with what they hold.
    let address = worker.address;
    let held: Vec<_> = (0..BOMBS)
        .map(|index| {
            tokio::spawn(async move {
                let path = format!("/fn/default/bomb{index}/hold");
                Exchange::new(address, path).send().await.status
            })
        })
        .collect();
    // Some wait, the others have been refused or ended.
    eventually("each waits or is answered", async || {
        let answered = held.iter().filter(|held| held.is_finished()).count();
        waiting.load(Ordering::SeqCst) + answered >= BOMBS
    })
    .await;
    release.send(true).unwrap();
    let mut statuses = Vec::new();
    for held in held {
        statuses.push(held.await.unwrap());
    }
    assert!(worker.is_alive());
    assert!(statuses.contains(&200), "{statuses:?}");
    assert!(statuses.contains(&503), "{statuses:?}");
    assert!(
        statuses.iter().all(|status| [200, 503].contains(status)),
        "{statuses:?}"
    );
    eventually("there is room again", async || {
        worker.get("small", "/").await.status == 200
    })
    .await;
    assert!(
        worker.resident_bytes() < 4 << 30,
        "{}",
        worker.resident_bytes()
    );
}

#[tokio::test]
async fn an_idle_instance_gives_back_what_it_used() {
    let source = "export default { fetch() {
        const list = [];
        while (list.length < 40) list.push(new Array(1 << 18).fill(list.length + 0.5));
        return new Response(`${list.length}`);
    } }";
    let worker = worker().function("large", source).start().await;
    assert_eq!(worker.get("large", "/").await.text().await, "40");
    eventually("the instance has given memory back", async || {
        worker.resident_bytes() < 100 << 20
    })
    .await;
    assert_eq!(instances(&worker).await, 1);
}
