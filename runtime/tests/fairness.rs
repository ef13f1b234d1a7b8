//! Functions that compute for long: the others do not notice, each gets its share, limits still end them.
#![allow(clippy::unwrap_used)]

mod harness;

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use harness::{Answer, Exchange, Function, Worker, eventually, worker};
use tokio::task::JoinHandle;

const QUIET: &str = "export default { async fetch() {
  await new Promise((resolve) => setTimeout(resolve, 1));
  return new Response('quiet');
} }";

const LOOP: &str = "export default { fetch(request) {
  if (request.url.endsWith('/ok')) return new Response('ok');
  for (;;) {}
} }";

/// A Function that loops for so long, of CPU time and of wall time.
fn looping(name: &str, cpu_ms: u64, timeout_ms: u64) -> Function {
    Function::new(name, LOOP).limits(|limits| {
        limits.cpu_ms = cpu_ms;
        limits.timeout_ms = timeout_ms;
    })
}

fn start(worker: &Worker, name: &str) -> JoinHandle<Answer> {
    let exchange = Exchange::new(worker.address, format!("/fn/default/{name}/"));
    tokio::spawn(exchange.send())
}

async fn until_running(worker: &mut Worker, uids: &[String]) {
    eventually("all of them compute", async || {
        let running = worker.breadcrumb();
        uids.iter().all(|uid| running.contains(uid))
    })
    .await;
}

#[tokio::test]
async fn more_loops_than_threads_do_not_stop_a_quiet_function() {
    let names = ["a", "b", "c", "d", "e", "f"];
    let mut builder = worker().argument("--threads=2").function("quiet", QUIET);
    for name in names {
        builder = builder.with(looping(name, 100_000, 100_000));
    }
    let mut worker = builder.start().await;
    let loops: Vec<_> = names.iter().map(|name| start(&worker, name)).collect();
    let uids = names.map(|name| format!("uid-default-{name}"));
    until_running(&mut worker, &uids).await;
    for _ in 0..100 {
        assert_eq!(worker.get("quiet", "/").await.text().await, "quiet");
    }
    assert!(loops.iter().all(|hog| !hog.is_finished()));
    until_running(&mut worker, &uids).await;
}

#[tokio::test]
async fn who_comes_later_with_less_to_compute_is_done_before_the_loops() {
    let names = ["a", "b", "c"];
    let mut builder = worker()
        .argument("--threads=2")
        .with(looping("late", 200, 100_000));
    for name in names {
        builder = builder.with(looping(name, 100_000, 100_000));
    }
    let mut worker = builder.start().await;
    let loops: Vec<_> = names.iter().map(|name| start(&worker, name)).collect();
    until_running(
        &mut worker,
        &names.map(|name| format!("uid-default-{name}")),
    )
    .await;
    for _ in 0..3 {
        let late = worker.get("late", "/").await;
        assert_eq!(late.error().await, (503, "CPULimitExceeded".into()));
    }
    assert!(loops.iter().all(|hog| !hog.is_finished()));
}

#[tokio::test]
async fn one_request_gets_as_much_as_a_crowd_of_another_function() {
    let worker = worker()
        .argument("--threads=2")
        .with(looping("crowd", 200, 100_000))
        .with(looping("other", 200, 100_000))
        .with(looping("single", 200, 100_000))
        .start()
        .await;
    let crowd: Vec<_> = (0..20)
        .flat_map(|_| [start(&worker, "crowd"), start(&worker, "other")])
        .collect();
    eventually("the crowd is at work", async || {
        crowd.iter().any(|one| one.is_finished())
    })
    .await;
    let single = worker.get("single", "/").await;
    assert_eq!(single.error().await, (503, "CPULimitExceeded".into()));
    let done = crowd.iter().filter(|one| one.is_finished()).count();
    assert!(done < 20, "{done} of 40 were done first");
}

#[tokio::test]
async fn what_computes_for_long_gives_its_answer() {
    // Longer than a slice, in pieces between which it waits.
    let source = |name: &str| {
        format!(
            "export default {{ async fetch(request) {{
               let sum = 0;
               for (let piece = 0; piece < 3; piece++) {{
                 for (let i = 0; i < 3e7; i++) sum = (sum + i) % 1000003;
                 await new Promise((resolve) => setTimeout(resolve, 1));
               }}
               return new Response(`{name} ${{sum}} ${{await request.text()}}`);
             }} }}"
        )
    };
    let names = ["a", "b", "c", "d", "e"];
    let mut builder = worker().argument("--threads=2");
    for name in names {
        let function = Function::new(name, &source(name)).limits(|limits| limits.cpu_ms = 60_000);
        builder = builder.with(function);
    }
    let worker = builder.start().await;
    let ask = |name: &str, number: usize| {
        let exchange = Exchange::new(worker.address, format!("/fn/default/{name}/"))
            .method("POST")
            .body(format!("{number}"));
        tokio::spawn(async move { exchange.send().await.text().await })
    };
    let answers: Vec<_> = (0..10)
        .map(|number| (number, ask(names[number % 5], number)))
        .collect();
    let mut sums = std::collections::BTreeSet::new();
    for (number, answer) in answers {
        let answer = answer.await.unwrap();
        let parts: Vec<_> = answer.split(' ').collect();
        assert_eq!(parts[0], names[number % 5]);
        assert_eq!(parts[2], number.to_string());
        sums.insert(parts[1].to_owned());
    }
    assert_eq!(sums.len(), 1, "all computed the same: {sums:?}");
}

#[tokio::test]
async fn the_timeout_ends_those_that_compute_and_those_that_wait_for_their_turn() {
    let names = ["a", "b", "c", "d", "e", "f"];
    let mut builder = worker().argument("--threads=2").function("quiet", QUIET);
    for name in names {
        builder = builder.with(looping(name, 100_000, 1500));
    }
    let mut worker = builder.start().await;
    let loops: Vec<_> = names.iter().map(|name| start(&worker, name)).collect();
    for hog in loops {
        let answer = hog.await.unwrap();
        assert_eq!(answer.error().await, (504, "Timeout".into()));
    }
    for name in names {
        assert_eq!(worker.get(name, "/ok").await.text().await, "ok");
    }
    assert_eq!(worker.get("quiet", "/").await.text().await, "quiet");
    assert!(worker.is_alive());
    let metrics = worker.metrics().await;
    for name in names {
        let errors = format!("function=\"{name}\",reason=\"Timeout\"}} 1\n");
        assert!(metrics.contains(&errors), "{metrics}");
    }
}

#[tokio::test]
async fn loops_do_not_outlive_the_drain() {
    let names = ["a", "b", "c", "d"];
    let mut builder = worker()
        .argument("--threads=2")
        .argument("--drain-seconds=1");
    for name in names {
        builder = builder.with(looping(name, 100_000, 100_000));
    }
    let mut worker = builder.start().await;
    for name in names {
        let exchange = Exchange::new(worker.address, format!("/fn/default/{name}/"));
        tokio::spawn(exchange.try_send());
    }
    until_running(
        &mut worker,
        &names.map(|name| format!("uid-default-{name}")),
    )
    .await;
    worker.signal(rustix::process::Signal::TERM);
    let status = worker.ended().await;
    assert_eq!((status.code(), status.signal()), (Some(0), None));
}

#[tokio::test]
async fn a_function_that_computes_answers_others_meanwhile_on_another_instance() {
    let function = looping("busy", 100_000, 100_000);
    let mut worker = worker()
        .argument("--threads=2")
        .with(function)
        .start()
        .await;
    let hog = start(&worker, "busy");
    until_running(&mut worker, &["uid-default-busy".into()]).await;
    // One that comes in the loop's first millisecond waits behind it.
    eventually("another instance answers", async || {
        let answer = worker.get("busy", "/ok");
        let answer = tokio::time::timeout(Duration::from_millis(500), answer).await;
        answer.is_ok()
    })
    .await;
    for _ in 0..20 {
        assert_eq!(worker.get("busy", "/ok").await.text().await, "ok");
    }
    assert!(!hog.is_finished());
    assert!(worker.metrics().await.contains("isolet_instances 2\n"));
    eventually(
        "the further instance goes when nobody uses it",
        async || worker.metrics().await.contains("isolet_instances 1\n"),
    )
    .await;
    assert!(!hog.is_finished());
}

/// V8 does not look for interrupts inside a search of this kind, which would take minutes.
const STUCK: &str = "export default { fetch(request) {
  if (request.url.endsWith('/ok')) return new Response('ok');
  return new Response(String('a'.repeat(1 << 24).lastIndexOf('a'.repeat(1 << 16) + 'b')));
} }";

#[tokio::test]
async fn a_worker_that_cannot_end_a_function_ends_itself_and_names_it() {
    let mut worker = worker()
        .argument("--threads=2")
        .function("quiet", QUIET)
        .with(Function::new("stuck", STUCK).limits(|limits| limits.cpu_ms = 50))
        .start()
        .await;
    let exchange = Exchange::new(worker.address, "/fn/default/stuck/".into());
    tokio::spawn(exchange.try_send());
    let line = worker.log.json("does not end on request").await;
    assert_eq!(line["function"], "stuck");
    assert_eq!(line["namespace"], "default");
    let uids = worker.breadcrumb();
    assert_eq!(
        uids.iter()
            .filter(|uid| *uid == "uid-default-stuck")
            .count(),
        2
    );
    let status = worker.ended().await;
    assert_eq!(status.code(), Some(70));
    assert!(worker.breadcrumb().contains(&"uid-default-stuck".into()));
}
