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
        .function(
            "meet",
            "const waiting = [];
             export default { async fetch(request) {
               // Each answers only once the other is there.
               await new Promise((resolve) => {
                 waiting.push(resolve);
                 if (waiting.length === 2) setTimeout(() => waiting.forEach((go) => go()), 5);
               });
               return new Response(new URL(request.url).pathname);
             } }",
        )
        .start()
        .await;
    let (one, two) = tokio::join!(worker.get("meet", "/one"), worker.get("meet", "/two"));
    assert_eq!(one.text().await, "/one");
    assert_eq!(two.text().await, "/two");
}

#[tokio::test]
async fn a_client_that_hangs_up_aborts_the_signal() {
    let worker = worker()
        .function(
            "signal",
            "let aborted = 'no';
             export default { async fetch(request) {
               const { pathname } = new URL(request.url);
               if (pathname === '/state') return new Response(aborted);
               request.signal.addEventListener('abort', () => {
                 aborted = `${pathname} ${request.signal.reason.name}`;
               });
               if (pathname === '/head') await new Promise(() => {});
               return new Response(new ReadableStream({
                 start(controller) { controller.enqueue(new TextEncoder().encode('first')); },
               }));
             } }",
        )
        .start()
        .await;
    let state = async || worker.get("signal", "/state").await.text().await;
    assert_eq!(state().await, "no");

    let hanging = worker.request("signal", "/head");
    let hanging = tokio::spawn(hanging.try_send());
    eventually("the request is under way", async || {
        worker.metrics().await.contains("isolet_instances 1")
    })
    .await;
    // The worker must have read the request before the client goes.
    worker.get("signal", "/state").await;
    hanging.abort();
    eventually("the signal of a request without an answer", async || {
        state().await != "no"
    })
    .await;
    assert_eq!(state().await, "/head AbortError");

    let mut streaming = worker.get("signal", "/body").await;
    assert_eq!(streaming.piece().await.unwrap().unwrap(), "first");
    drop(streaming);
    eventually("the signal of a streamed answer", async || {
        state().await == "/body AbortError"
    })
    .await;
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
