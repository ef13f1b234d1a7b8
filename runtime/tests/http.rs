//! HTTP as it stands on the wire, through the real worker: what clients may do, and what they may not.
#![allow(clippy::unwrap_used)]

mod harness;

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use harness::raw::{Raw, head};
use harness::{Function, PATIENCE, eventually, full, worker};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const HELLO: &str = "export default { fetch() { return new Response('hello') } }";

/// Tells path, trailing headers if there are any, and body.
const ECHO: &str = "export default { async fetch(request) {
  const { pathname } = new URL(request.url);
  return new Response(`${pathname} ${request.headers.get('x-trailer')} ${await request.text()}`);
} }";

#[tokio::test]
async fn requests_on_one_connection_are_answered_in_order() {
    let worker = worker().function("echo", ECHO).start().await;
    let mut raw = Raw::connect(&worker).await;
    let chunked = "transfer-encoding: chunked\r\ntrailer: x-trailer\r\n";
    let requests = [
        head("POST", "echo", "/sized", "content-length: 3\r\n") + "one",
        head("POST", "echo", "/chunked", chunked)
            + "2;name=\"value\"\r\ntw\r\n1\r\no\r\n0\r\nx-trailer: passed over\r\n\r\n",
        head("GET", "echo", "/none", ""),
    ];
    raw.send(requests.concat()).await;
    for body in ["/sized null one", "/chunked null two", "/none null "] {
        assert_eq!(raw.answer().await.body, body);
    }
    // The connection stays open for the next one.
    raw.send(&requests[0]).await;
    assert_eq!(raw.answer().await.body, "/sized null one");
    raw.send(head("GET", "echo", "/last", "connection: close\r\n"))
        .await;
    assert!(raw.answer().await.headers.contains("connection: close"));
    assert_eq!(raw.end().await, b"");
}

#[tokio::test]
async fn an_old_client_gets_an_end_instead_of_chunks() {
    let worker = worker()
        .function(
            "stream",
            "export default { fetch() { return new Response(new ReadableStream({
               start(controller) { controller.enqueue(new TextEncoder().encode('old')); controller.close(); },
             })) } }",
        )
        .start()
        .await;
    let mut raw = Raw::connect(&worker).await;
    raw.send("GET /fn/default/stream/ HTTP/1.0\r\n\r\n").await;
    let answer = String::from_utf8(raw.end().await).unwrap();
    assert!(answer.starts_with("HTTP/1.0 200 OK\r\n"), "{answer}");
    assert!(!answer.contains("chunked"), "{answer}");
    assert!(answer.ends_with("\r\n\r\nold"), "{answer}");
}

#[tokio::test]
async fn http2_with_prior_knowledge_has_many_requests_under_way() {
    let worker = worker()
        .with(Function::meeting("meet", 100))
        // On one instance: a second one would have some of them wait for ever.
        .one_instance_each()
        .start()
        .await;
    let stream = TcpStream::connect(worker.address).await.unwrap();
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    tokio::spawn(connection);
    let requests = (0..100).map(|index| {
        let mut sender = sender.clone();
        async move {
            let body = Full::new(Bytes::from(index.to_string()));
            let request = Request::post("http://test/fn/default/meet/")
                .body(body)
                .unwrap();
            let answer = sender.send_request(request).await.unwrap();
            answer.into_body().collect().await.unwrap().to_bytes()
        }
    });
    let answers = tokio::time::timeout(PATIENCE, join_all(requests))
        .await
        .unwrap();
    for (index, answer) in answers.iter().enumerate() {
        assert_eq!(*answer, index.to_string());
    }
}

#[tokio::test]
async fn a_body_is_asked_for_only_when_the_function_reads_it() {
    let worker = worker()
        .with(
            Function::new(
                "some",
                "export default { async fetch(request) {
                   const body = request.url.endsWith('/read') ? await request.text() : 'unread';
                   return new Response(body);
                 } }",
            )
            .limits(|limits| limits.body_bytes = 10),
        )
        .start()
        .await;
    let expecting = |path: &str, length: usize| {
        let headers = format!("content-length: {length}\r\nexpect: 100-continue\r\n");
        head("POST", "some", path, &headers)
    };
    let mut raw = Raw::connect(&worker).await;
    raw.send(expecting("/read", 4)).await;
    assert_eq!(raw.answer().await.status, 100);
    raw.send("body").await;
    assert_eq!(raw.answer().await.body, "body");

    raw.send(expecting("/unread", 4)).await;
    let answer = raw.answer().await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "unread"));

    let mut raw = Raw::connect(&worker).await;
    raw.send(expecting("/read", 11)).await;
    let answer = raw.answer().await;
    assert_eq!(answer.status, 413);
    assert!(answer.body.contains("BodyTooLarge"), "{answer:?}");
}

#[tokio::test]
async fn an_upload_that_nobody_reads_is_held_back() {
    const BODY: usize = 256 << 20;
    let worker = worker()
        .with(
            Function::new(
                "later",
                "let open; const gate = new Promise((resolve) => { open = resolve; });
                 export default { async fetch(request) {
                   if (request.url.endsWith('/open')) { open(); return new Response('opened'); }
                   await gate;
                   let count = 0;
                   for await (const piece of request.body) count += piece.length;
                   return new Response(String(count));
                 } }",
            )
            .limits(|limits| {
                limits.body_bytes = 1 << 30;
                limits.timeout_ms = 600_000;
                limits.cpu_ms = 600_000;
            }),
        )
        // On one instance, which has the gate.
        .one_instance_each()
        .start()
        .await;
    let mut raw = Raw::connect(&worker).await;
    let headers = format!("content-length: {BODY}\r\n");
    raw.send(head("POST", "later", "/", &headers)).await;
    // Until the kernel's buffers are full and nothing moves any more.
    let piece = vec![b'x'; 1 << 20];
    let mut sent = 0;
    let moment = Duration::from_millis(500);
    while let Ok(written) = tokio::time::timeout(
        moment,
        raw.0
            .get_mut()
            .write(&piece[..piece.len().min(BODY - sent)]),
    )
    .await
    {
        sent += written.unwrap();
        assert!(sent < BODY, "all was taken although nobody reads");
    }
    assert!(sent < 64 << 20, "taken without a reader: {sent}");
    assert_eq!(worker.get("later", "/open").await.text().await, "opened");
    while sent < BODY {
        let length = piece.len().min(BODY - sent);
        raw.send(&piece[..length]).await;
        sent += length;
    }
    assert_eq!(raw.answer().await.body, BODY.to_string());
}

#[tokio::test]
async fn a_body_that_does_not_come_ends_at_the_timeout() {
    let worker = worker()
        .with(Function::new("echo", ECHO).limits(|limits| limits.timeout_ms = 300))
        .start()
        .await;
    for (headers, start) in [
        ("content-length: 5\r\n", "ab"),
        ("transfer-encoding: chunked\r\n", "2\r\nab\r\n"),
    ] {
        let mut raw = Raw::connect(&worker).await;
        raw.send(head("POST", "echo", "/", headers) + start).await;
        let answer = raw.answer().await;
        assert_eq!(answer.status, 504, "{answer:?}");
        assert!(answer.body.contains("Timeout"), "{answer:?}");
        // What is left of the body is not read as the next request.
        assert_eq!(raw.end().await, b"");
    }
}

#[tokio::test]
async fn what_is_no_request_is_refused_and_the_connection_closed() {
    let worker = worker().function("hello", HELLO).start().await;
    let request = |headers: &str| head("POST", "hello", "/", headers) + "0\r\n\r\n";
    let many = "a: b\r\n".repeat(200);
    let long = format!("a: {}\r\n", "b".repeat(100 << 10));
    let path = format!("/{}", "a".repeat(100 << 10));
    for (status, text) in [
        (400, "hello\r\n\r\n".into()),
        (400, "GET / HTTP/3.0\r\nhost: a\r\n\r\n".into()),
        (400, request("bad name: x\r\n")),
        (400, request("space : x\r\n")),
        (400, request("no-colon\r\n")),
        (400, request("folded: a\r\n b\r\n")),
        (400, request("nul: \0\r\n")),
        (400, request("return: a\rb\r\n")),
        (400, request("content-length: -1\r\n")),
        (400, request("content-length: +5\r\n")),
        (400, request("content-length: 5, 5\r\n")),
        (400, request("content-length: 5\r\ncontent-length: 6\r\n")),
        (400, request("transfer-encoding: gzip\r\n")),
        (400, request("transfer-encoding: chunked, gzip\r\n")),
        (400, request("transfer-encoding: xchunked\r\n")),
        (400, request("host: other\r\n")),
        (400, "GET /fn/default/hello/ HTTP/1.1\r\n\r\n".into()),
        (
            400,
            "GET /fn/default/hello/ HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n".into(),
        ),
        (431, request(&many)),
        (431, request(&long)),
        (431, head("GET", "hello", &path, "")),
    ] {
        let shown = &text[..text.len().min(120)];
        let mut raw = Raw::connect(&worker).await;
        // The server need not read all of it.
        let _ = raw.0.get_mut().write_all(text.as_bytes()).await;
        let answer = String::from_utf8(raw.end().await).unwrap();
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} "))
                || answer.starts_with(&format!("HTTP/1.0 {status} ")),
            "{shown:?}: {answer:?}"
        );
        assert_eq!(
            answer.matches("HTTP/1.").count(),
            1,
            "{shown:?}: {answer:?}"
        );
    }
    assert_eq!(worker.get("hello", "/").await.text().await, "hello");
}

#[tokio::test]
async fn chunks_that_are_none_break_the_body_off() {
    let worker = worker().function("echo", ECHO).start().await;
    for chunks in [
        "x\r\n",
        "-1\r\na\r\n0\r\n\r\n",
        "fffffffffffffffff\r\na\r\n0\r\n\r\n",
        "1\r\nabc\r\n0\r\n\r\n",
        "1 1\r\na\r\n0\r\n\r\n",
    ] {
        let mut raw = Raw::connect(&worker).await;
        let headers = "transfer-encoding: chunked\r\n";
        raw.send(head("POST", "echo", "/", headers) + chunks).await;
        let answer = String::from_utf8(raw.end().await).unwrap();
        assert!(!answer.contains(" 200 "), "{chunks:?}: {answer}");
        assert!(
            answer.matches("HTTP/1.1").count() <= 1,
            "{chunks:?}: {answer}"
        );
    }
}

#[tokio::test]
async fn of_two_framings_of_a_body_the_chunks_count() {
    let worker = worker().function("echo", ECHO).start().await;
    for headers in [
        "content-length: 4\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 4\r\n",
    ] {
        let mut raw = Raw::connect(&worker).await;
        let smuggled = head("GET", "echo", "/smuggled", "");
        let chunks = format!("{:x}\r\n{smuggled}\r\n0\r\n\r\n", smuggled.len());
        raw.send(head("POST", "echo", "/", headers) + &chunks).await;
        let answer = raw.answer().await;
        assert_eq!(answer.body, format!("/ null {smuggled}"));
        drop(raw.0.get_mut().shutdown().await);
        assert_eq!(raw.end().await, b"", "nothing in it was a request");
    }
}

#[tokio::test]
async fn clients_that_keep_the_server_waiting_are_let_go() {
    let worker = worker()
        .function("hello", HELLO)
        .argument("--head-timeout-seconds=1")
        .start()
        .await;
    // Nothing at all, a part of HTTP/2's first bytes, a part of a head, and nothing after an answer.
    for start in ["", "PRI * HTTP/2.0\r\n", "GET / HTTP/1.1\r\nhost: "] {
        let mut raw = Raw::connect(&worker).await;
        raw.send(start).await;
        assert_eq!(raw.end().await, b"", "{start:?}");
    }
    let mut raw = Raw::connect(&worker).await;
    raw.send(head("GET", "hello", "/", "")).await;
    assert_eq!(raw.answer().await.body, "hello");
    assert_eq!(raw.end().await, b"");
}

/// Pings keep an HTTP/2 connection alive, not its place; and a request that comes at that moment is not lost, because the
/// client is told first.
#[tokio::test]
async fn an_http2_client_without_requests_is_let_go() {
    let worker = worker()
        .function("hello", HELLO)
        .argument("--head-timeout-seconds=1")
        .start()
        .await;
    let stream = TcpStream::connect(worker.address).await.unwrap();
    let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(Duration::from_millis(100))
        .keep_alive_while_idle(true);
    let (mut sender, connection) = builder
        .handshake::<_, Full<Bytes>>(TokioIo::new(stream))
        .await
        .unwrap();
    let connection = tokio::spawn(connection);
    let request = Request::get("http://test/fn/default/hello/").body(Full::default());
    let answer = sender.send_request(request.unwrap()).await.unwrap();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, "hello");
    let ended = tokio::time::timeout(PATIENCE, connection).await;
    ended
        .expect("the server ends it")
        .unwrap()
        .expect("it ends in order");

    // One that says nothing after its first bytes, not even that it knows.
    let mut raw = Raw::connect(&worker).await;
    raw.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .await;
    let told = raw.end().await;
    // A frame of type 7 (RFC 9113, 6.8) with 8 bytes, on stream 0.
    let goaway = b"\0\0\x08\x07\0\0\0\0\0";
    assert!(
        told.windows(goaway.len()).any(|bytes| bytes == goaway),
        "{told:?}"
    );
}

/// The limit is for heads: neither a handler that takes longer counts, nor a pause in what it writes.
#[tokio::test]
async fn a_slow_answer_is_not_a_slow_client() {
    let worker = worker()
        .function(
            "slow",
            "const pause = () => new Promise((resolve) => setTimeout(resolve, 1500));
             export default { async fetch() {
               await pause();
               return new Response(new ReadableStream({
                 async pull(controller) {
                   controller.enqueue(new TextEncoder().encode('begun'));
                   await pause();
                   controller.enqueue(new TextEncoder().encode(' and done'));
                   controller.close();
                 },
               }));
             } }",
        )
        .argument("--head-timeout-seconds=1")
        .start()
        .await;
    let mut raw = Raw::connect(&worker).await;
    for _ in 0..2 {
        raw.send(head("GET", "slow", "/", "")).await;
        assert_eq!(raw.answer().await.body, "begun and done");
    }
    assert_eq!(raw.end().await, b"");
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_let_go() {
    let worker = worker()
        .with(
            Function::new(
                "large",
                "const whole = new Uint8Array(32 << 20);
                 export default { fetch(request) {
                   if (request.url.endsWith('/whole')) return new Response(whole);
                   return new Response(new ReadableStream({
                     pull(controller) { controller.enqueue(new Uint8Array(65536)); },
                   }, { highWaterMark: 0 }));
                 } }",
            )
            .limits(|limits| limits.timeout_ms = 600_000),
        )
        .argument("--stall-timeout-seconds=1")
        .start()
        .await;
    let descriptors = || -> HashSet<PathBuf> {
        let links = std::fs::read_dir(format!("/proc/{}/fd", worker.pid)).unwrap();
        links
            .filter_map(|link| std::fs::read_link(link.unwrap().path()).ok())
            .collect()
    };
    let before = descriptors();
    for path in ["/whole", "/stream"] {
        let mut raw = Raw::connect(&worker).await;
        raw.send(head("GET", "large", path, "")).await;
        let mut start = [0; 15];
        raw.0.read_exact(&mut start).await.unwrap();
        assert_eq!(&start, b"HTTP/1.1 200 OK");
        let its_own = &descriptors() - &before;
        eventually("the connection is closed", async || {
            descriptors().is_disjoint(&its_own)
        })
        .await;
        assert!(raw.end().await.len() < 32 << 20);
    }
}

#[tokio::test]
async fn a_client_that_hangs_up_amid_an_answer_gives_back_its_place() {
    let worker = worker()
        .with(
            Function::new(
                "one",
                "export default { fetch(request) {
                   const { pathname } = new URL(request.url);
                   if (pathname === '/echo') return new Response(request.body);
                   return new Response(new ReadableStream({
                     async pull(controller) {
                       controller.enqueue(new TextEncoder().encode('piece'));
                       if (pathname === '/stalls') await new Promise(() => {});
                     },
                   }, { highWaterMark: 0 }));
                 } }",
            )
            .limits(|limits| {
                limits.concurrency = 1;
                limits.timeout_ms = 600_000;
            }),
        )
        .start()
        .await;
    for path in ["/floods", "/stalls", "/echo"] {
        let mut placed = None;
        eventually("there is a place", async || {
            // A body that is not over: hyper reads no further while nobody takes it.
            let (request, body) = worker.request("one", path).method("POST").pieces();
            body.send("piece");
            let answer = request.send().await;
            let is_placed = answer.status == 200;
            placed = Some((answer, body));
            is_placed
        })
        .await;
        let (mut answer, _body) = placed.unwrap();
        let piece = answer.piece().await.unwrap().unwrap();
        assert!(piece.starts_with(b"piece"), "{path}");
        drop(answer);
    }
    eventually("there is a place after the last", async || {
        worker.get("one", "/stalls").await.status == 200
    })
    .await;
}

#[tokio::test]
async fn what_was_written_before_a_body_broke_off_arrives() {
    let worker = worker()
        .function(
            "breaks",
            "export default { fetch() { return new Response(new ReadableStream({
               start(controller) { controller.enqueue(new TextEncoder().encode('begun')); },
               pull(controller) { controller.error(new Error('broken')); },
             }, { highWaterMark: 0 })) } }",
        )
        .start()
        .await;
    for _ in 0..20 {
        let mut raw = Raw::connect(&worker).await;
        raw.send(head("GET", "breaks", "/", "")).await;
        let answer = String::from_utf8(raw.end().await).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer:?}");
        assert!(answer.ends_with("\r\n\r\n5\r\nbegun\r\n"), "{answer:?}");
    }
}

/// Told to end while clients use their connections: each request is answered, or was never run.
#[tokio::test]
async fn told_to_end_no_request_is_lost() {
    let (ran, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let mut worker = worker()
        .function(
            "counted",
            "export default { async fetch(request) {
               const { pathname } = new URL(request.url);
               await (await fetch('http://counter.test' + pathname)).text();
               return new Response(pathname);
             } }",
        )
        .egress(move |request| {
            ran.send(request.uri().path().to_owned()).unwrap();
            async { Response::new(full("")) }
        })
        .start()
        .await;
    let mut clients = tokio::task::JoinSet::new();
    let (answered, mut progress) = tokio::sync::mpsc::unbounded_channel();
    for client in 0..8 {
        let mut raw = Raw::connect(&worker).await;
        let answered = answered.clone();
        clients.spawn(async move {
            for number in 0.. {
                let path = format!("/{client}-{number}");
                let request = head("GET", "counted", &path, "");
                // It may have closed the connection since its last answer.
                let _ = raw.0.get_mut().write_all(request.as_bytes()).await;
                let Some(answer) = raw.try_answer().await else {
                    return Some(path);
                };
                assert_eq!((answer.status, &answer.body), (200, &path));
                let _ = answered.send(());
                if answer.headers.contains("connection: close") {
                    assert_eq!(raw.end().await, b"");
                    return None;
                }
            }
            None
        });
    }
    // One whose first head has come in part only.
    let mut half = Raw::connect(&worker).await;
    let request = head("GET", "counted", "/half", "");
    half.send(&request[..20]).await;
    for _ in 0..200 {
        progress.recv().await.unwrap();
    }
    worker.signal(Signal::TERM);
    worker.log.line("told to end").await;
    half.send(&request[20..]).await;
    let answer = half.answer().await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "/half"));
    assert!(answer.headers.contains("connection: close"), "{answer:?}");

    let mut unanswered = Vec::new();
    while let Some(client) = clients.join_next().await {
        unanswered.extend(client.unwrap());
    }
    assert!(worker.ended().await.success());
    seen.close();
    while let Some(path) = seen.recv().await {
        assert!(!unanswered.contains(&path), "{path} ran without an answer");
    }
}
