//! What a request and its answer look like, through the real worker.
#![allow(clippy::unwrap_used)]

mod harness;

use harness::{Function, eventually, full, worker};
use http::Response;
use http_body_util::BodyExt;

const ECHO: &str = "export default {
  async fetch(request) {
    return Response.json({
      method: request.method,
      url: request.url,
      headers: Object.fromEntries(request.headers),
      body: await request.text(),
    }, { status: 201, headers: { 'x-answer': 'é' } });
  },
}";

#[tokio::test]
async fn hello() {
    let worker = worker()
        .function(
            "hello",
            "export default { fetch() { return new Response('hello') } }",
        )
        .start()
        .await;
    let answer = worker.get("hello", "/").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers["content-length"], "5");
    assert_eq!(answer.headers["content-type"], "text/plain;charset=UTF-8");
    assert_eq!(answer.text().await, "hello");
}

#[tokio::test]
async fn method_url_headers_and_body_reach_the_function() {
    let worker = worker().function("echo", ECHO).start().await;
    let answer = worker
        .request("echo", "/a%20b?q=1&q=2")
        .method("POST")
        .host("example.com:8080")
        .header("x-one", "1")
        .header("x-many", "a")
        .header("x-many", "b")
        .header("connection", "x-one")
        .header("te", "trailers")
        .body("some text")
        .send()
        .await;
    assert_eq!(answer.status, 201);
    assert_eq!(answer.headers["x-answer"].as_bytes(), b"\xe9");
    let seen = answer.json().await;
    assert_eq!(seen["method"], "POST");
    assert_eq!(seen["url"], "http://example.com:8080/a%20b?q=1&q=2");
    assert_eq!(seen["headers"]["x-one"], "1");
    assert_eq!(seen["headers"]["x-many"], "a, b");
    assert_eq!(seen["headers"].get("te"), None);
    assert_eq!(seen["headers"].get("connection"), None);
    assert_eq!(seen["body"], "some text");
}

#[tokio::test]
async fn every_built_in_host_and_explicit_routes_serve() {
    let worker = worker()
        .with(
            Function::new(
                "who",
                "export default { fetch(r) { return new Response(new URL(r.url).pathname) } }",
            )
            .route("api.example.com", "/v1")
            .route("*.example.org", "/"),
        )
        .argument("--domain=fn.test")
        .start()
        .await;
    for (host, path, expected) in [
        ("who.default", "/x", Some("/x")),
        ("WHO.default.svc:80", "/", Some("/")),
        ("who.default.svc.cluster.local.", "/y", Some("/y")),
        ("who.default.fn.test", "/", Some("/")),
        ("127.0.0.1", "/fn/default/who/a/b", Some("/a/b")),
        ("127.0.0.1", "/fn/default/who", Some("/")),
        ("api.example.com", "/v1/x", Some("/v1/x")),
        ("api.example.com", "/v10", None),
        ("www.example.org", "/", Some("/")),
        ("who.other", "/", None),
    ] {
        let answer = worker.request("", "").host(host).path(path).send().await;
        match expected {
            Some(expected) => assert_eq!(answer.text().await, expected, "{host}{path}"),
            None => assert_eq!(
                answer.error().await,
                (404, "NotFound".into()),
                "{host}{path}"
            ),
        }
    }
}

#[tokio::test]
async fn env_and_secrets_reach_the_handler() {
    let worker = worker()
        .with(
            Function::new(
                "env",
                "export default { fetch(request, env) { return Response.json(env) } }",
            )
            .env("PLAIN", "value")
            .secret("TOKEN", "s3cret"),
        )
        .start()
        .await;
    let seen = worker.get("env", "/").await.json().await;
    assert_eq!(
        seen,
        serde_json::json!({ "PLAIN": "value", "TOKEN": "s3cret" })
    );
}

#[tokio::test]
async fn head_and_null_body_statuses_have_no_body() {
    let worker = worker()
        .function(
            "bodies",
            "export default { fetch(request) {
               const status = Number(new URL(request.url).pathname.slice(1));
               return status === 200 ? new Response('four') : new Response(null, { status });
             } }",
        )
        .start()
        .await;
    let head = worker.request("bodies", "/200").method("HEAD").send().await;
    assert_eq!(head.headers["content-length"], "4");
    assert_eq!(head.text().await, "");
    for status in [204, 304] {
        let answer = worker.get("bodies", &format!("/{status}")).await;
        assert_eq!(answer.status, status);
        assert_eq!(answer.text().await, "");
    }
}

#[tokio::test]
async fn a_streamed_response_arrives_in_pieces() {
    let worker = worker()
        .function(
            "stream",
            "let next;
             export default {
               fetch(request) {
                 if (request.url.endsWith('/next')) { next(); return new Response('ok'); }
                 const encoder = new TextEncoder();
                 let piece = 0;
                 return new Response(new ReadableStream({
                   async pull(controller) {
                     if (piece === 3) { controller.close(); return; }
                     await new Promise((resolve) => { next = resolve; });
                     controller.enqueue(encoder.encode(`piece ${piece++}`));
                   },
                 }, { highWaterMark: 0 }));
               },
             }",
        )
        .start()
        .await;
    let mut answer = worker.get("stream", "/").await;
    assert_eq!(answer.headers.get("content-length"), None);
    // Each piece comes only after it was asked for, so none can have waited for another.
    for expected in ["piece 0", "piece 1", "piece 2"] {
        assert_eq!(worker.get("stream", "/next").await.text().await, "ok");
        assert_eq!(answer.piece().await.unwrap().unwrap(), expected);
    }
    assert!(answer.piece().await.is_none());
}

#[tokio::test]
async fn a_streamed_request_body_is_read_as_it_arrives() {
    let worker = worker()
        .function(
            "upload",
            "const decoder = new TextDecoder();
             export default { fetch(request) {
               return new Response(request.body.pipeThrough(new TransformStream({
                 transform(chunk, controller) { controller.enqueue(chunk.map((byte) => byte ^ 32)); },
               })));
             } }",
        )
        .start()
        .await;
    let (request, body) = worker.request("upload", "/").method("POST").pieces();
    body.send("ab");
    let mut answer = request.send().await;
    assert_eq!(answer.piece().await.unwrap().unwrap(), "AB");
    body.send("cd");
    assert_eq!(answer.piece().await.unwrap().unwrap(), "CD");
    drop(body);
    assert!(answer.piece().await.is_none());
}

#[tokio::test]
async fn a_slow_reader_holds_the_writer_back() {
    let worker = worker()
        .function(
            "flood",
            "let written = 0;
             const piece = new Uint8Array(64 * 1024);
             export default { fetch(request) {
               if (request.url.endsWith('/written')) return new Response(String(written));
               return new Response(new ReadableStream({
                 pull(controller) {
                   if (written >= 256 * piece.length) { controller.close(); return; }
                   written += piece.length;
                   controller.enqueue(piece.slice());
                 },
               }, { highWaterMark: 0 }));
             } }",
        )
        .start()
        .await;
    let answer = worker.get("flood", "/").await;
    let written = async || -> usize {
        worker
            .get("flood", "/written")
            .await
            .text()
            .await
            .parse()
            .unwrap()
    };
    // Until kernel and pipe are full and nothing moves any more.
    let mut last = 0;
    let mut still = 0;
    eventually("the writer stops", async || {
        let now = written().await;
        still = if now == last { still + 1 } else { 0 };
        last = now;
        still > 50
    })
    .await;
    assert!(last < 16 << 20, "written without a reader: {last}");
    assert_eq!(answer.bytes().await.unwrap().len(), 16 << 20);
}

#[tokio::test]
async fn requests_that_wait_interleave() {
    let worker = worker()
        .one_instance_each()
        .with(Function::meeting("meet", 2))
        .start()
        .await;
    let ask = |text: &'static str| worker.request("meet", "/").method("POST").body(text).send();
    let (one, two) = tokio::join!(ask("one"), ask("two"));
    assert_eq!(one.text().await, "one");
    assert_eq!(two.text().await, "two");
}

#[tokio::test]
async fn a_client_that_hangs_up_aborts_the_signal() {
    let worker = worker()
        .function(
            "signal",
            "let state = 'new';
             export default { async fetch(request) {
               const { pathname } = new URL(request.url);
               if (pathname === '/state') return new Response(state);
               state = `${pathname} waits`;
               request.signal.addEventListener('abort', () => {
                 state = `${pathname} ${request.signal.reason.name}`;
               });
               if (pathname !== '/body') await new Promise(() => {});
               return new Response(new ReadableStream({
                 start(controller) { controller.enqueue(new TextEncoder().encode('first')); },
               }));
             } }",
        )
        // On one instance, which knows what it did.
        .one_instance_each()
        .start()
        .await;
    let becomes = async |wanted: &str| {
        eventually(wanted, async || {
            worker.get("signal", "/state").await.text().await == wanted
        })
        .await;
    };
    // A request without an answer.
    let hanging = tokio::spawn(worker.request("signal", "/head").try_send());
    becomes("/head waits").await;
    hanging.abort();
    becomes("/head AbortError").await;

    // The same, with a body that nobody reads.
    let (hanging, body) = worker.request("signal", "/unread").method("POST").pieces();
    body.send("piece");
    let hanging = tokio::spawn(hanging.try_send());
    becomes("/unread waits").await;
    hanging.abort();
    becomes("/unread AbortError").await;

    // A streamed answer.
    let mut streaming = worker.get("signal", "/body").await;
    assert_eq!(streaming.piece().await.unwrap().unwrap(), "first");
    drop(streaming);
    becomes("/body AbortError").await;
}

#[tokio::test]
async fn work_goes_on_after_the_response_with_wait_until() {
    let worker = worker()
        .function(
            "later",
            "let done = 'no', open;
             export default { fetch(request, env, ctx) {
               const { pathname } = new URL(request.url);
               if (pathname === '/state') return new Response(done);
               if (pathname === '/open') { open(); return new Response('opened'); }
               ctx.waitUntil((async () => {
                 await new Promise((resolve) => { open = resolve; });
                 await new Promise((resolve) => setTimeout(resolve, 1));
                 done = 'yes';
               })());
               return new Response('answered');
             } }",
        )
        .argument("--threads=1")
        .start()
        .await;
    assert_eq!(worker.get("later", "/").await.text().await, "answered");
    assert_eq!(worker.get("later", "/state").await.text().await, "no");
    assert_eq!(worker.get("later", "/open").await.text().await, "opened");
    eventually("the promise is kept", async || {
        worker.get("later", "/state").await.text().await == "yes"
    })
    .await;
}

#[tokio::test]
async fn outbound_requests_go_through_the_agent_both_ways() {
    let worker = worker()
        .function(
            "out",
            "export default { async fetch(request) {
               const { pathname } = new URL(request.url);
               if (pathname === '/denied') {
                 try { await fetch('http://denied.test/'); } catch (error) {
                   return new Response(`${error.name}: ${error.message}`);
                 }
               }
               const answer = await fetch('https://example.test/x?y', {
                 method: 'POST', body: request.body, duplex: 'half',
                 headers: { 'x-h': 'v', 'isolet-function': 'forged' },
               });
               return new Response(answer.body, { status: answer.status, headers: { 'x-url': answer.url } });
             } }",
        )
        .egress(|request| async move {
            if request.uri().host() == Some("denied.test") {
                return Response::builder()
                    .status(502)
                    .header("isolet-egress-error", "not%20allowed")
                    .body(full(""))
                    .unwrap();
            }
            assert_eq!(request.uri(), "https://example.test/x?y");
            assert_eq!(request.headers()["isolet-function"], "uid-default-out");
            assert_eq!(request.headers()["isolet-redirect"], "follow");
            assert_eq!(request.headers()["x-h"], "v");
            let body = request.into_body().collect().await.unwrap().to_bytes();
            Response::builder()
                .status(203)
                .body(full([b"got ", &body[..]].concat()))
                .unwrap()
        })
        .start()
        .await;
    let answer = worker
        .request("out", "/")
        .method("POST")
        .body("payload")
        .send()
        .await;
    assert_eq!(answer.status, 203);
    assert_eq!(answer.headers["x-url"], "https://example.test/x?y");
    assert_eq!(answer.text().await, "got payload");
    assert_eq!(
        worker.get("out", "/denied").await.text().await,
        "TypeError: not allowed"
    );
}

#[tokio::test]
async fn cpu_time_is_counted_and_waiting_is_free() {
    let source = "export default { async fetch(request) {
      if (request.url.endsWith('/loop')) for (;;) {}
      await new Promise((resolve) => setTimeout(resolve, 300));
      for (let i = 0, x = 0; i < 1e7; i++) x += Math.sqrt(i);
      return new Response('done');
    } }";
    let function = Function::new("metered", source).limits(|limits| limits.cpu_ms = 250);
    let worker = worker()
        .with(function)
        .argument("--threads=2")
        .log_filter("info,isolet_runtime::server=debug")
        .start()
        .await;
    assert_eq!(worker.get("metered", "/").await.text().await, "done");
    let line = worker.log.json("\"message\":\"request\"").await;
    let cpu_ms = line["cpu_ms"].as_f64().unwrap();
    assert!(cpu_ms > 1.0 && cpu_ms < 250.0, "{line}");
    let failed = worker.get("metered", "/loop").await;
    assert_eq!(failed.error().await, (503, "CPULimitExceeded".into()));
    let line = worker.log.json("\"reason\":\"CPULimitExceeded\"").await;
    assert!(line["cpu_ms"].as_f64().unwrap() >= 250.0, "{line}");
    let metrics = worker.metrics().await;
    let value = |name: &str| -> f64 {
        let line = metrics.lines().find(|line| line.starts_with(name));
        let text = line.and_then(|line| line.rsplit(' ').next());
        text.unwrap_or_else(|| panic!("no {name} in {metrics}"))
            .parse()
            .unwrap()
    };
    assert_eq!(value("isolet_request_cpu_seconds_count"), 2.0);
    let sum = value("isolet_request_cpu_seconds_sum");
    assert!(sum >= 0.25, "{sum}");
    let total = value("isolet_cpu_seconds_total{namespace=\"default\",function=\"metered\"}");
    assert!((total - sum).abs() < 1e-6, "{total} {sum}");
}

#[tokio::test]
async fn a_developer_sees_the_cpu_time_of_an_answer_and_others_do_not() {
    let source = "export default { fetch() {
      return new Response('', { headers: { 'server-timing': 'mine' } });
    } }";
    for (argument, count) in [("--server-timing", 2), ("--threads=2", 1)] {
        let worker = worker()
            .argument(argument)
            .function("timed", source)
            .start()
            .await;
        let answer = worker.get("timed", "/").await;
        let timings: Vec<_> = answer
            .headers
            .get_all("server-timing")
            .into_iter()
            .map(|value| value.to_str().unwrap())
            .collect();
        assert_eq!(timings.len(), count, "{timings:?}");
        assert_eq!(timings[0], "mine");
        if let Some(ours) = timings.get(1) {
            let ms = ours.strip_prefix("cpu;dur=").unwrap();
            assert!(ms.parse::<f64>().unwrap() > 0.0, "{ms}");
        }
    }
}

#[tokio::test]
async fn connections_past_the_bound_wait_for_a_place() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let worker = worker()
        .argument("--max-connections=2")
        .function(
            "hello",
            "export default { fetch() { return new Response('hello') } }",
        )
        .start()
        .await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut stream = tokio::net::TcpStream::connect(worker.address)
            .await
            .unwrap();
        let request = b"GET /fn/default/hello/ HTTP/1.1\r\nhost: x\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut head = [0; 15];
        stream.read_exact(&mut head).await.unwrap();
        assert_eq!(&head, b"HTTP/1.1 200 OK");
        held.push(stream);
    }
    let mut third = std::pin::pin!(worker.get("hello", "/"));
    let early = std::time::Duration::from_millis(200);
    assert!(tokio::time::timeout(early, &mut third).await.is_err());
    held.pop();
    assert_eq!(third.await.text().await, "hello");
}
