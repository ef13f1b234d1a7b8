//! Memory of the process: cold instances go and come back, and no number of greedy ones brings the process down.
#![allow(clippy::unwrap_used)]

mod harness;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use harness::{Exchange, Function, Worker, eventually, metric, worker};
use tokio::task::JoinHandle;

const COUNTER: &str =
    "let count = 0; export default { fetch() { return new Response(`${++count}`) } }";

/// The text of an answer that must come.
async fn answer(worker: &Worker, name: &str) -> String {
    let answer = worker.get(name, "/").await;
    let status = answer.status;
    let text = answer.text().await;
    assert_eq!(status, 200, "{name}: {text}");
    text
}

async fn instances(worker: &Worker) -> usize {
    metric(worker, "isolet_instances ").await
}

/// What the worker says where V8 found no room, which ends it.
fn no_memory_left(worker: &Worker) -> Option<String> {
    let mut log = worker.log.lines().into_iter();
    log.find(|line| line.contains("no memory left\""))
}

/// Of these requests, where `waiting` counts those that wait.
async fn each_waits_or_is_answered<T>(held: &[JoinHandle<T>], waiting: &AtomicUsize) {
    eventually("each waits or is answered", async || {
        let answered = held.iter().filter(|held| held.is_finished()).count();
        waiting.load(Ordering::SeqCst) + answered >= held.len()
    })
    .await;
}

/// Answers with its count of requests, the last one when the test says so.
const HELD: &str = "let count = 0; export default { async fetch(request) {
    count++;
    if (request.url.endsWith('/hold')) await fetch('http://hold.test/');
    return new Response(`${count}`);
} }";

/// A worker whose functions wait in `fetch` until the sender says so, and how many wait.
fn holding(
    builder: harness::Builder,
) -> (
    harness::Builder,
    tokio::sync::watch::Sender<bool>,
    Arc<AtomicUsize>,
) {
    let waiting = Arc::new(AtomicUsize::new(0));
    let (release, released) = tokio::sync::watch::channel(false);
    let held = Arc::clone(&waiting);
    let builder = builder.egress(move |_| {
        held.fetch_add(1, Ordering::SeqCst);
        let mut released = released.clone();
        async move {
            released.wait_for(|released| *released).await.unwrap();
            http::Response::new(harness::full(""))
        }
    });
    (builder, release, waiting)
}

#[tokio::test]
async fn a_start_without_room_waits_until_the_coldest_have_gone() {
    let worker = worker()
        .argument("--max-instances=32")
        .one_instance_each()
        .start()
        .await;
    for index in 0..100 {
        let function = Function::new(&format!("f{index}"), COUNTER);
        worker.put(&function).await.unwrap();
    }
    for index in 0..100 {
        // Not one is refused.
        assert_eq!(answer(&worker, &format!("f{index}")).await, "1");
        assert!(instances(&worker).await <= 32);
    }
    // The last one is still there, the first one begins anew.
    assert_eq!(answer(&worker, "f99").await, "2");
    assert_eq!(answer(&worker, "f0").await, "1");
    let gone = metric(&worker, "isolet_evictions_total{reason=\"instances\"}").await;
    assert!(gone >= 100 - 32, "{gone}");
}

/// Requests of 16 clients go over 600 functions, of which the memory holds far less.
#[tokio::test]
async fn nobody_is_refused_while_idle_instances_fill_the_memory() {
    const MEMORY: usize = 208 << 20;
    let mut worker = worker()
        .argument(&format!("--memory-bytes={MEMORY}"))
        .start()
        .await;
    for index in 0..600 {
        let function = Function::new(&format!("f{index}"), COUNTER);
        worker.put_checked(&function).await;
    }
    let address = worker.address;
    let clients: Vec<_> = (0..16)
        .map(|client| {
            tokio::spawn(async move {
                for step in 0..100 {
                    // Half of the requests go to sixteen functions.
                    let number = client * 100 + step;
                    let index = if step % 2 == 0 { number % 600 } else { client };
                    let path = format!("/fn/default/f{index}/");
                    let answer = Exchange::new(address, path).send().await;
                    let status = answer.status;
                    assert_eq!(status, 200, "{}", answer.text().await);
                }
            })
        })
        .collect();
    for client in clients {
        client.await.unwrap();
    }
    assert!(worker.is_alive());
    let gone = metric(&worker, "isolet_evictions_total{reason=\"resident_bytes\"}").await;
    assert!(gone > 100, "{gone}");
    assert!(
        worker.resident_bytes() < MEMORY,
        "{}",
        worker.resident_bytes()
    );
}

#[tokio::test]
async fn a_start_is_refused_only_where_nothing_is_idle() {
    let (builder, release, waiting) = holding(worker().argument("--max-instances=4"));
    let worker = builder.start().await;
    for index in 0..5 {
        let function = Function::new(&format!("f{index}"), HELD);
        worker.put(&function).await.unwrap();
    }
    let address = worker.address;
    let held: Vec<_> = (0..4)
        .map(|index| {
            tokio::spawn(async move {
                let path = format!("/fn/default/f{index}/hold");
                Exchange::new(address, path).send().await.text().await
            })
        })
        .collect();
    eventually("all places are taken", async || {
        waiting.load(Ordering::SeqCst) == 4
    })
    .await;
    let refused = worker.get("f4", "/").await;
    assert_eq!(refused.headers["retry-after"], "1");
    assert_eq!(refused.error().await, (503, "Overloaded".into()));
    release.send(true).unwrap();
    for held in held {
        assert_eq!(held.await.unwrap(), "1");
    }
    assert_eq!(answer(&worker, "f4").await, "1");
}

#[tokio::test]
async fn a_start_that_fails_gives_back_its_place() {
    let worker = worker().argument("--max-instances=4").start().await;
    for index in 0..20 {
        let source = "throw new Error('no'); export default { fetch() {} }";
        let function = Function::new(&format!("bad{index}"), source);
        worker.put_checked(&function).await;
        worker.put(&function.namespaced("tried")).await.unwrap_err();
        let name = format!("bad{index}");
        assert_eq!(
            worker.get(&name, "/").await.error().await,
            (503, "StartFailed".into())
        );
    }
    for index in 0..4 {
        let name = format!("f{index}");
        worker.put(&Function::new(&name, COUNTER)).await.unwrap();
    }
    eventually("what was made to try them is gone", async || {
        instances(&worker).await == 0
    })
    .await;
    for index in 0..4 {
        assert_eq!(answer(&worker, &format!("f{index}")).await, "1");
    }
    // None had to go for another.
    for index in 0..4 {
        assert_eq!(answer(&worker, &format!("f{index}")).await, "2");
    }
    assert_eq!(metric(&worker, "isolet_evictions_total{").await, 0);
    assert_eq!(instances(&worker).await, 4);
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
        .one_instance_each()
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
    let (builder, release, waiting) = holding(worker().function("small", COUNTER));
    let mut worker = builder.start().await;
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
    each_waits_or_is_answered(&held, &waiting).await;
    release.send(true).unwrap();
    let mut statuses = Vec::new();
    for held in held {
        statuses.push(held.await.unwrap());
    }
    assert!(worker.is_alive());
    let count = |status| statuses.iter().filter(|it| **it == status).count();
    let (kept, refused) = (count(200), count(503));
    assert!(refused > 0 && kept + refused == BOMBS, "{statuses:?}");
    // There are 2.8 GiB for them. Where some end, the others are left.
    assert!(kept >= 3, "{statuses:?}");
    let log = worker.log.lines();
    let stalled = log.iter().find(|line| line.contains("took too long"));
    assert_eq!(stalled, None, "one that waits holds up the one that grows");
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

/// Requests that wait hold what V8's cage has, as far as they may; then one makes the largest object that there is. V8 would end
/// the process if it did not fit.
#[tokio::test]
async fn the_largest_object_fits_whatever_those_that_wait_hold() {
    const HOLDERS: usize = 8;
    let holder = "const kept = [];
        export default { async fetch(request) {
          while (kept.length < 50_000) kept.push(new Array(1000).fill(kept.length + 0.5));
          await fetch('http://hold.test/');
          return new Response('kept');
        } }";
    let large = "export default { fetch() {
        const text = '\\u2014'.repeat((1 << 29) - 24);
        return new Response(`${text.charCodeAt(1 << 28)}`);
    } }";
    let (builder, release, waiting) = holding(worker().function("small", COUNTER));
    let mut worker = builder.start().await;
    let generous = |name: &str, source: &str| {
        Function::new(name, source).limits(|limits| {
            limits.memory_bytes = 2 << 30;
            limits.cpu_ms = 60_000;
            limits.timeout_ms = 120_000;
        })
    };
    worker.put(&generous("large", large)).await.unwrap();
    let mut held = Vec::new();
    for index in 0..HOLDERS {
        let name = format!("holder{index}");
        worker.put(&generous(&name, holder)).await.unwrap();
        let exchange = worker.request(&name, "/");
        let before = waiting.load(Ordering::SeqCst);
        held.push(tokio::spawn(async move { exchange.send().await.status }));
        eventually("it holds its memory, or was ended", async || {
            waiting.load(Ordering::SeqCst) > before || held[index].is_finished()
        })
        .await;
    }
    let answer = worker.get("large", "/").await;
    match answer.status {
        200 => assert_eq!(answer.text().await, "8212"),
        // It may live in the reserve only, which the next one needs.
        _ => assert_eq!(answer.error().await, (503, "MemoryPressure".into())),
    }
    assert_eq!(worker.get("small", "/").await.status, 200);
    release.send(true).unwrap();
    let mut statuses = Vec::new();
    for held in held {
        statuses.push(held.await.unwrap());
    }
    assert!(
        statuses.iter().all(|status| [200, 503].contains(status)),
        "{statuses:?}"
    );
    assert!(statuses.contains(&200), "{statuses:?}");
    assert!(worker.is_alive());
    assert_eq!(no_memory_left(&worker), None);
}

/// Each takes a piece of V8's cage that it need not ask for, and then, all at once and without a pause in which it could be ended, the
/// largest object that there is. Between the pieces is no room for it.
#[tokio::test]
async fn the_largest_object_fits_whatever_pieces_the_rest_lies_in() {
    const FUNCTIONS: usize = 48;
    let source = "export default { fetch() {
        const piece = new Array(7_000_000).fill(0.5);
        const text = '\\u2014'.repeat((1 << 29) - 24);
        return new Response(`${text.charCodeAt(1 << 28)} ${piece.length}`);
    } }";
    let mut worker = worker().function("small", COUNTER).start().await;
    let mut asked = Vec::new();
    for index in 0..FUNCTIONS {
        let name = format!("f{index}");
        let function = Function::new(&name, source).limits(|limits| {
            limits.cpu_ms = 120_000;
            limits.timeout_ms = 300_000;
        });
        worker.put_checked(&function).await;
        asked.push(worker.request(&name, "/"));
    }
    let asked: Vec<_> = asked
        .into_iter()
        .map(|exchange| tokio::spawn(async move { exchange.send().await.error().await }))
        .collect();
    for asked in asked {
        let (status, reason) = asked.await.unwrap();
        let is_ended =
            status == 503 && ["MemoryPressure", "MemoryLimitExceeded"].contains(&&*reason);
        assert!(is_ended, "{status} {reason}");
    }
    assert_eq!(worker.get("small", "/").await.status, 200);
    assert!(worker.is_alive());
    assert_eq!(no_memory_left(&worker), None);
}

/// Each is so small that it would not be ended for the others' sake; all together use up V8's cage.
#[tokio::test]
async fn many_small_ones_that_wait_cannot_use_up_the_memory_of_the_process() {
    const HOLDERS: usize = 1000;
    let holder = "let kept; export default { async fetch(request) {
        kept = [0, 1].map((index) => new Array(220_000).fill(index + 0.5));
        await fetch('http://hold.test/');
        return new Response('kept');
    } }";
    let (builder, release, waiting) = holding(worker().function("small", COUNTER));
    let mut worker = builder.start().await;
    let mut asked = Vec::new();
    for index in 0..HOLDERS {
        let name = format!("holder{index}");
        let function = Function::new(&name, holder).limits(|limits| limits.timeout_ms = 300_000);
        worker.put_checked(&function).await;
        asked.push(worker.request(&name, "/"));
    }
    let held: Vec<_> = asked
        .into_iter()
        .map(|exchange| tokio::spawn(async move { exchange.send().await.status }))
        .collect();
    each_waits_or_is_answered(&held, &waiting).await;
    release.send(true).unwrap();
    let mut kept = 0;
    for held in held {
        let status = held.await.unwrap();
        assert!([200, 503].contains(&status), "{status}");
        kept += usize::from(status == 200);
    }
    assert!(kept >= HOLDERS / 3, "{kept}");
    assert_eq!(worker.get("small", "/").await.status, 200);
    assert!(worker.is_alive());
    assert_eq!(no_memory_left(&worker), None);
}

#[tokio::test]
async fn an_idle_instance_gives_back_what_it_used() {
    let source = "export default { fetch() {
        const list = [];
        while (list.length < 40) list.push(new Array(1 << 18).fill(list.length + 0.5));
        return new Response(`${list.length}`);
    } }";
    let worker = worker()
        .function("large", source)
        .one_instance_each()
        .start()
        .await;
    assert_eq!(worker.get("large", "/").await.text().await, "40");
    eventually("the instance has given memory back", async || {
        worker.resident_bytes() < 100 << 20
    })
    .await;
    assert_eq!(instances(&worker).await, 1);
}

#[tokio::test]
async fn an_instance_that_has_grown_gives_it_back_in_its_first_pause() {
    const FUNCTIONS: usize = 10;
    /// The most of the 3 MiB that an answer leaves behind in each of them.
    const GARBAGE_BYTES: usize = FUNCTIONS * (11 << 18);
    let source = "export default { async fetch() {
        for (let i = 0; i < 3; i++) new Array(1 << 17).fill(i + 0.5);
        await fetch('http://hold.test/');
        return new Response('ok');
    } }";
    let (builder, release, waiting) = holding(worker().one_instance_each());
    let worker = builder.start().await;
    let names: Vec<String> = (0..FUNCTIONS).map(|index| format!("f{index}")).collect();
    for name in &names {
        worker.put(&Function::new(name, source)).await.unwrap();
    }
    let cage = async || metric(&worker, "isolet_used{resource=\"cage_bytes\"}").await;
    // Once collected, an instance is so again only after a minute, unless it grows.
    for time in ["first", "second"] {
        let before = cage().await;
        let held: Vec<_> = names
            .iter()
            .map(|name| worker.request(name, "/"))
            .map(|exchange| tokio::spawn(async move { exchange.send().await.text().await }))
            .collect();
        // None has a pause before all have grown.
        each_waits_or_is_answered(&held, &waiting).await;
        let grown = cage().await;
        assert!(
            grown > before + GARBAGE_BYTES,
            "{time}: {before} to {grown}"
        );
        waiting.store(0, Ordering::SeqCst);
        release.send_replace(true);
        for held in held {
            assert_eq!(held.await.unwrap(), "ok", "{time}");
        }
        release.send_replace(false);
        eventually("what was garbage is given back", async || {
            cage().await < grown - GARBAGE_BYTES
        })
        .await;
    }
    assert_eq!(instances(&worker).await, FUNCTIONS);
}

/// An isolate of V8 takes 0.84 MB and more when nothing of it is given back.
#[tokio::test]
async fn idle_instances_take_little_memory() {
    const MORE: usize = 100;
    const MOST_BYTES: usize = 720_000;
    /// A page of a heap.
    const PAGE_BYTES: usize = 256 << 10;
    /// Of what all isolates share.
    const SHARED_PAGES: usize = 64;
    const SOME_PAGES: usize = 50;
    /// What the worker counts for each.
    const MOST_MAPPINGS: usize = 6;
    let worker = worker().one_instance_each().start().await;
    for index in 0..=MORE {
        let function = Function::new(&format!("f{index}"), COUNTER);
        worker.put(&function).await.unwrap();
    }
    assert_eq!(answer(&worker, "f0").await, "1");
    let (one, mappings) = (worker.resident_bytes(), worker.mappings());
    for index in 1..=MORE {
        let name = format!("f{index}");
        assert_eq!(answer(&worker, &name).await, "1");
        assert_eq!(answer(&worker, &name).await, "2");
    }
    assert!(worker.mappings() < mappings + MORE * MOST_MAPPINGS);
    // A collection gives the young generation's pages back; the tables must not have come back with it.
    eventually("idle instances give memory back", async || {
        let pages = metric(&worker, "isolet_used{resource=\"cage_bytes\"}").await / PAGE_BYTES;
        let ready = metric(&worker, "isolet_pool_isolates ").await;
        // V8 keeps none that are free, not even of those isolates that tried the revisions.
        pages <= SHARED_PAGES + 3 * ready + 2 * (MORE + 1) + SOME_PAGES
            && pages < SHARED_PAGES + 3 * MORE
            && worker.resident_bytes() < one + MORE * MOST_BYTES
    })
    .await;
    assert_eq!(instances(&worker).await, MORE + 1);
    for index in 1..=MORE {
        assert_eq!(answer(&worker, &format!("f{index}")).await, "3");
    }
}

#[tokio::test]
async fn functions_with_the_same_code_share_its_text() {
    const FUNCTIONS: usize = 60;
    let source = format!("{COUNTER} // {}", "x".repeat(1 << 20));
    let worker = worker().start().await;
    worker.put(&Function::new("first", &source)).await.unwrap();
    assert_eq!(answer(&worker, "first").await, "1");
    let before = worker.resident_bytes();
    for index in 0..FUNCTIONS {
        let function = Function::new(&format!("f{index}"), &source);
        worker.put(&function).await.unwrap();
    }
    eventually("the texts are one", async || {
        worker.resident_bytes() < before + (FUNCTIONS << 20) / 2
    })
    .await;
    assert_eq!(answer(&worker, "f0").await, "1");
}
