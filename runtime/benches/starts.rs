//! What a start costs, beyond a warm request, and what an idle instance takes of memory: one real worker process.
//!
//! `cargo bench -p isolet-runtime --bench starts`. It prints; no figure decides anything.
//!
//! Method: one connection, one request at a time. For each of N functions the first request is timed (cold), then the
//! second (warm). "Pooled": before each cold request the pool has isolates again. "At once": the next function follows
//! without a pause, so that the pool runs empty. Memory: VmRSS of the worker before and after the first request to each of
//! 1,000 functions, over 1,000.
#![allow(clippy::unwrap_used)]

#[path = "../tests/harness/mod.rs"]
mod harness;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use harness::{Function, Worker, eventually, worker};

const FUNCTIONS: usize = 200;
const IDLE_FUNCTIONS: usize = 1000;

const HELLO: &str = "export default {
  fetch(request, env) {
    return new Response(`hello ${env.NAME}`);
  }
}";

#[tokio::main]
async fn main() {
    starts("hello, 4 lines", hello).await;
    let large = large_source();
    starts("100 KB of code", |index| {
        Function::new(&format!("f{index}"), &large)
    })
    .await;
    memory().await;
}

fn hello(index: usize) -> Function {
    Function::new(&format!("f{index}"), HELLO).env("NAME", &format!("f{index}"))
}

/// A module as bundlers make them: many functions, few of which a request needs.
fn large_source() -> String {
    let mut source = String::new();
    for index in 0..1000 {
        source.push_str(&format!(
            "function part{index}(value) {{ const list = [value, {index}]; return list.map((it) => it + {index}).join(','); }}\n"
        ));
    }
    source.push_str(
        "export default { fetch() { return new Response(part1(1) + part500(2) + part999(3)); } }\n",
    );
    source
}

async fn starts(what: &str, function: impl Fn(usize) -> Function) {
    let worker = worker().start().await;
    for index in 0..3 * FUNCTIONS {
        worker.put(&function(index)).await.unwrap();
    }
    let mut connection = TcpStream::connect(worker.address).unwrap();
    connection.set_nodelay(true).unwrap();
    let mut pooled = Vec::new();
    let mut at_once = Vec::new();
    let mut again = Vec::new();
    let mut warm = Vec::new();
    for index in 0..FUNCTIONS {
        pool_is_full(&worker).await;
        pooled.push(request(&mut connection, index));
        warm.push(request(&mut connection, index));
    }
    pool_is_full(&worker).await;
    for index in FUNCTIONS..3 * FUNCTIONS {
        at_once.push(request(&mut connection, index));
    }
    for index in 0..FUNCTIONS {
        again.push(request(&mut connection, index));
    }
    println!("{what}");
    let warm_ms = print("  warm", warm, Duration::ZERO);
    print("  cold, pooled, beyond warm", pooled, warm_ms);
    print("  cold, at once, beyond warm", at_once, warm_ms);
    print("  warm, all in turn", again, Duration::ZERO);
    let metrics = worker.metrics().await;
    let starts = metrics
        .lines()
        .filter(|line| line.starts_with("isolet_starts"));
    starts.for_each(|line| println!("  {line}"));
}

async fn memory() {
    let worker = worker().start().await;
    for index in 0..IDLE_FUNCTIONS {
        worker.put(&hello(index)).await.unwrap();
    }
    pool_is_full(&worker).await;
    eventually("trial instances are gone", async || {
        metric(&worker, "isolet_instances ").await == 0
    })
    .await;
    let before = worker.resident_bytes();
    let mut connection = TcpStream::connect(worker.address).unwrap();
    connection.set_nodelay(true).unwrap();
    for index in 0..IDLE_FUNCTIONS {
        request(&mut connection, index);
    }
    let after = worker.resident_bytes();
    println!(
        "idle instances: {:.3} MB each ({} MB before, {} MB with {IDLE_FUNCTIONS})",
        (after - before) as f64 / 1e6 / IDLE_FUNCTIONS as f64,
        before / 1_000_000,
        after / 1_000_000,
    );
    let mut least = after;
    let patience = Instant::now();
    while patience.elapsed() < Duration::from_secs(20) {
        tokio::time::sleep(Duration::from_millis(500)).await;
        least = least.min(worker.resident_bytes());
    }
    println!(
        "the same after 20 s of quiet: {:.3} MB each",
        (least - before) as f64 / 1e6 / IDLE_FUNCTIONS as f64
    );
    if std::env::var_os("ISOLET_BENCH_HOLD").is_some() {
        println!("worker {}; press enter", worker.pid);
        let _ = std::io::stdin().read(&mut [0]);
    }
}

async fn pool_is_full(worker: &Worker) {
    eventually("the pool is full", async || {
        metric(worker, "isolet_pool_isolates ").await >= 4
    })
    .await;
}

async fn metric(worker: &Worker, name: &str) -> usize {
    let metrics = worker.metrics().await;
    let line = metrics.lines().find(|line| line.starts_with(name)).unwrap();
    line[name.len()..].parse().unwrap()
}

/// Time from the request to the whole answer.
fn request(connection: &mut TcpStream, index: usize) -> Duration {
    let request = format!("GET /fn/default/f{index}/ HTTP/1.1\r\nhost: bench\r\n\r\n");
    let mut answer = [0; 4096];
    let start = Instant::now();
    connection.write_all(request.as_bytes()).unwrap();
    let mut length = 0;
    loop {
        let read = connection.read(&mut answer[length..]).unwrap();
        assert_ne!(read, 0, "the connection ended");
        length += read;
        if is_whole(&answer[..length]) {
            break;
        }
    }
    let took = start.elapsed();
    assert!(
        answer.starts_with(b"HTTP/1.1 200"),
        "{}",
        String::from_utf8_lossy(&answer)
    );
    took
}

fn is_whole(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .unwrap();
    body.len() >= length.parse::<usize>().unwrap()
}

fn print(what: &str, mut times: Vec<Duration>, less: Duration) -> Duration {
    times.sort();
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize].saturating_sub(less);
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    println!(
        "{what}: p50 {:.3} ms, p90 {:.3} ms, p99 {:.3} ms ({} requests)",
        ms(at(0.5)),
        ms(at(0.9)),
        ms(at(0.99)),
        times.len()
    );
    at(0.5)
}
