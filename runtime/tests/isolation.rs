//! What keeps tenants apart, and the worker from the rest of the node.
#![allow(clippy::unwrap_used)]

mod harness;

use harness::{Function, eventually, worker};
use rustix::process::Signal;

#[tokio::test]
async fn pollution_of_one_function_does_not_reach_another() {
    let worker = worker()
        .function(
            "polluter",
            "Object.prototype.polluted = 'yes';
             Array.prototype.map = () => 'no map';
             Promise.prototype.then = undefined;
             globalThis.Response = class { constructor() { throw new Error('mine') } };
             export default { fetch() { throw 1 } }",
        )
        .function(
            "clean",
            "export default { async fetch() {
               return Response.json([({}).polluted ?? 'clean', [1].map((x) => x + 1)]);
             } }",
        )
        .start()
        .await;
    assert_eq!(worker.get("polluter", "/").await.status, 500);
    assert_eq!(
        worker.get("clean", "/").await.json().await,
        serde_json::json!(["clean", [2]])
    );
}

#[tokio::test]
async fn a_function_finds_no_way_to_natives_clocks_or_shared_memory() {
    let worker = worker()
        .function(
            "probe",
            "export default { async fetch() {
               const before = [Date.now(), performance.now()];
               for (let i = 0; i < 3e7; i++);
               const after = [Date.now(), performance.now()];
               return Response.json({
                 still: String(before) === String(after),
                 names: ['SharedArrayBuffer', 'ops', 'internals', 'primordials', 'process', 'require', 'Deno', 'gc']
                   .filter((name) => name in globalThis),
                 wait: typeof Atomics === 'undefined' ? 'none' : typeof Atomics.wait,
               });
             } }",
        )
        .start()
        .await;
    assert_eq!(
        worker.get("probe", "/").await.json().await,
        serde_json::json!({ "still": true, "names": [], "wait": "none" })
    );
}

#[tokio::test]
async fn every_thread_is_locked_down() {
    let worker = worker()
        .function(
            "f",
            "export default { fetch() { return new Response('x') } }",
        )
        .start()
        .await;
    // A request makes an instance, hence a thread started inside the jail.
    assert_eq!(worker.get("f", "/").await.status, 200);
    let mut threads = 0;
    for task in std::fs::read_dir(format!("/proc/{}/task", worker.pid)).unwrap() {
        let status = std::fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().to_owned()
        };
        assert_eq!(field("Seccomp:"), "2", "{status}");
        assert_eq!(field("NoNewPrivs:"), "1", "{status}");
        threads += 1;
    }
    assert!(threads >= 4, "{threads}");
}

#[tokio::test]
async fn the_breadcrumb_names_what_runs() {
    let code = "export default { fetch(request) {
      if (request.url.endsWith('/ready')) return new Response('yes');
      for (;;) {}
    } }";
    let mut worker = worker()
        .one_instance_each()
        .with(Function::new("hog", code).limits(|limits| limits.cpu_ms = 60_000))
        .start()
        .await;
    // A start is named too, and names nothing between its end and the first request.
    assert_eq!(worker.get("hog", "/ready").await.text().await, "yes");
    eventually("nothing is named", async || worker.breadcrumb().is_empty()).await;
    let hog = tokio::spawn(worker.request("hog", "/").try_send());
    eventually("the hog is named", async || {
        worker.breadcrumb() == ["uid-default-hog"]
    })
    .await;
    // What the agent would read after a crash.
    worker.signal(Signal::KILL);
    worker.ended().await;
    assert_eq!(worker.breadcrumb(), ["uid-default-hog"]);
    hog.abort();
}

#[tokio::test]
async fn told_to_end_the_worker_finishes_what_is_under_way() {
    let mut worker = worker()
        .function(
            "slow",
            "let open;
             export default { async fetch(request) {
               if (request.url.endsWith('/ready')) return new Response(open ? 'yes' : 'no');
               return new Response(new ReadableStream({
                 async start(controller) {
                   open = true;
                   controller.enqueue(new TextEncoder().encode('first '));
                   await new Promise((resolve) => setTimeout(resolve, 300));
                   controller.enqueue(new TextEncoder().encode('last'));
                   controller.close();
                 },
               }));
             } }",
        )
        .start()
        .await;
    let mut answer = worker.get("slow", "/").await;
    assert_eq!(answer.piece().await.unwrap().unwrap(), "first ");
    worker.signal(Signal::TERM);
    worker.log.line("told to end").await;
    assert!(worker.request("slow", "/ready").try_send().await.is_err());
    assert_eq!(answer.bytes().await.unwrap(), b"last");
    assert!(worker.ended().await.success());
}
