//! What one Function does with its outbound requests must not keep others from theirs.
#![allow(clippy::unwrap_used)]

mod harness;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, stream};
use harness::{Answer, Function, Worker, full, worker};
use http::{Request, Response};
use http_body_util::{BodyExt, StreamBody, combinators::BoxBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use isolet_crds::bundle::{Digest, FunctionIdentity};
use isolet_runtime::agent::metrics::Metrics;
use isolet_runtime::bundle::Revision;
use isolet_runtime::egress::connect::Connector;
use isolet_runtime::egress::policy::PlatformPolicy;
use isolet_runtime::egress::server::EgressServer;
use isolet_runtime::egress::table::EgressTable;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// Pieces of a byte that may wait in one body without being read.
const WINDOW: usize = 16 << 10;

#[tokio::test]
async fn a_worker_that_cannot_reach_the_agent_ends_and_is_not_blamed_on_a_function() {
    let mut worker = worker()
        .function("hello", "export default { fetch() {} }")
        .start()
        .await;
    worker.cut_egress();
    assert_eq!(worker.ended().await.code(), Some(1));
}

#[tokio::test]
async fn responses_that_nobody_reads_hold_up_nobody() {
    let worker = worker()
        .with(
            Function::new(
                "holds",
                "const held = [];
                 export default { async fetch(request) {
                   for (let i = 0; i < 100; i++) held.push(await fetch('http://up.test/large'));
                   const own = await (await fetch('http://up.test/ok')).text();
                   return new Response(new ReadableStream({
                     start(controller) { controller.enqueue(new TextEncoder().encode(own)); },
                   }));
                 } }",
            )
            .limits(|limits| {
                limits.subrequests = 101;
                limits.timeout_ms = 600_000;
            }),
        )
        .function(
            "neighbour",
            "export default { fetch: () => fetch('http://up.test/ok') }",
        )
        .egress(|request| async move {
            match request.uri().path() {
                "/ok" => Response::new(full("fine")),
                _ => Response::new(full(vec![b'x'; 1 << 20])),
            }
        })
        .start()
        .await;
    let mut holds = worker.get("holds", "/").await;
    assert_eq!(holds.piece().await.unwrap().unwrap(), "fine");
    assert_eq!(worker.get("neighbour", "/").await.text().await, "fine");
}

#[tokio::test]
async fn bodies_in_pieces_of_a_byte_that_are_given_up_by_the_thousand_harm_nobody() {
    let (upstream, told) = upstream().await;
    let gives_up = format!(
        "export default {{ async fetch() {{
           for (let round = 0; round < 8; round++) {{
             await Promise.all(Array.from({{ length: 20 }}, async (_, i) => {{
               if (i % 5 == 4) {{
                 // An upload that nobody reads; its answer, or the end of its connection, comes amid it.
                 const pieces = new ReadableStream({{ pull(c) {{ c.enqueue(new Uint8Array(1)); }} }});
                 return fetch('http://{upstream}/ok', {{ method: 'POST', body: pieces }}).catch(() => {{}});
               }}
               const answer = await fetch(`http://{upstream}/${{i % 2 ? 'bytes' : 'slow'}}`);
               if (i % 3 == 0) await answer.body.getReader().read();
               else await answer.body.cancel();
             }}));
           }}
           return new Response('gave up');
         }} }}"
    );
    let gives_up = Function::new("gives-up", &gives_up).limits(|limits| {
        limits.subrequests = 1000;
        limits.cpu_ms = 60_000;
        limits.timeout_ms = 600_000;
    });
    let mut worker = through_the_agent(upstream, gives_up).await;
    let mut neighbour = Neighbour::begin(&worker, &upstream.to_string(), &told).await;
    for _ in 0..8 {
        let gave_up = worker.get("gives-up", "/").await;
        neighbour.goes_on().await;
        assert_eq!(gave_up.text().await, "gave up");
        neighbour.goes_on().await;
    }
    neighbour.end().await;
    assert!(worker.is_alive());
}

/// The agent joins pieces, unless a server knows how to prevent it: here nobody does.
#[tokio::test]
async fn a_connection_ended_for_too_many_tiny_pieces_was_its_functions_own() {
    let told = Told::default();
    let said = Arc::clone(&told);
    let mut worker = worker()
        .with(
            Function::new(
                "holds",
                "const held = [];
                 export default { async fetch(request) {
                   if (request.url.endsWith('/again')) return fetch('http://up.test/ok');
                   // The connection may end before the last has begun.
                   for (let i = 0; i < 4; i++) held.push(await fetch('http://up.test/bytes').catch(() => {}));
                   return new Response(new ReadableStream({
                     start(controller) { controller.enqueue(new TextEncoder().encode('held')); },
                   }));
                 } }",
            )
            .limits(|limits| limits.timeout_ms = 600_000),
        )
        .with(Neighbour::function())
        .egress(move |request| {
            let body = body(request.uri().path(), &said);
            async move { Response::new(body) }
        })
        .log_filter("info,isolet_runtime::scheduler::connections=debug")
        .start()
        .await;
    let mut neighbour = Neighbour::begin(&worker, "up.test", &told).await;
    let mut held = worker.get("holds", "/").await;
    assert_eq!(held.piece().await.unwrap().unwrap(), "held");
    worker.log.line("too_many_data_frames").await;
    neighbour.goes_on().await;
    assert_eq!(worker.get("holds", "/again").await.text().await, "fine");
    neighbour.end().await;
    assert!(worker.is_alive());
}

/// Passes on what its fetch brings, for as long as the test likes.
struct Neighbour {
    answer: Answer,
    told: mpsc::UnboundedSender<Bytes>,
    pieces: usize,
}

impl Neighbour {
    const SOURCE: &str = "export default { async fetch(request) {
      const answer = await fetch(request.headers.get('up'));
      return new Response(answer.body);
    } }";

    fn function() -> Function {
        Function::new("neighbour", Self::SOURCE).limits(|limits| limits.timeout_ms = 600_000)
    }

    async fn begin(worker: &Worker, upstream: &str, told: &Told) -> Self {
        let (sender, pieces) = mpsc::unbounded_channel();
        *told.lock().unwrap() = Some(pieces);
        let up = format!("http://{upstream}/told");
        let request = worker.request("neighbour", "/").header("up", &up);
        let mut neighbour = Self {
            answer: request.send().await,
            told: sender,
            pieces: 0,
        };
        neighbour.goes_on().await;
        neighbour
    }

    /// What is sent now arrives, and nothing else.
    async fn goes_on(&mut self) {
        self.pieces += 1;
        let sent = Bytes::from(format!("{:>8}", self.pieces).repeat(1000));
        self.told.send(sent.clone()).unwrap();
        let mut arrived = Vec::new();
        while arrived.len() < sent.len() {
            arrived.extend_from_slice(&self.answer.piece().await.unwrap().unwrap());
        }
        assert_eq!(arrived, sent);
    }

    async fn end(mut self) {
        drop(self.told);
        assert!(self.answer.piece().await.is_none());
    }
}

/// A worker whose requests go through the agent's own server, with this Function and the neighbour.
async fn through_the_agent(upstream: SocketAddr, function: Function) -> Worker {
    let neighbour =
        Function::new("neighbour", Neighbour::SOURCE).limits(|limits| limits.timeout_ms = 600_000);
    let table = Arc::new(EgressTable::default());
    for uid in [function.uid(), neighbour.uid()] {
        let identity = FunctionIdentity {
            namespace: "default".into(),
            name: uid.clone(),
            uid,
        };
        let revision = Revision {
            identity: identity.clone(),
            digest: Digest::parse(&format!("sha256:{}", "0".repeat(64))).unwrap(),
            sequence: 1,
            bundle: Bytes::new(),
            secrets: None,
            egress: vec![upstream.to_string()],
        };
        table.set(&identity, [&Arc::new(revision)]);
    }
    let policy = PlatformPolicy {
        loopback_by_rule: true,
        ..PlatformPolicy::default()
    };
    let connector = Connector::new(policy).unwrap();
    let agent = EgressServer::new(connector, table, Metrics::default());
    worker()
        .with(function)
        .with(neighbour)
        .agent(Arc::new(agent))
        .start()
        .await
}

/// What a test says to who asks for `/told`.
type Told = Arc<Mutex<Option<mpsc::UnboundedReceiver<Bytes>>>>;

/// A server that answers with [`body`].
async fn upstream() -> (SocketAddr, Told) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let told = Told::default();
    let said = Arc::clone(&told);
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let said = Arc::clone(&said);
            let service = service_fn(move |request: Request<Incoming>| {
                let body = body(request.uri().path(), &said);
                async move { Ok::<_, Infallible>(Response::new(body)) }
            });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(socket), service));
        }
    });
    (address, told)
}

/// `/bytes` and `/slow` never end, the one byte after byte, the other with moments between; `/ok` does not read what it is
/// sent.
fn body(path: &str, told: &Told) -> BoxBody<Bytes, Infallible> {
    let byte = || Ok(Frame::data(Bytes::from_static(b"x")));
    match path {
        "/bytes" => {
            let bytes = stream::repeat_with(byte).take(WINDOW);
            BodyExt::boxed(StreamBody::new(bytes.chain(stream::pending())))
        }
        "/slow" => {
            let bytes = stream::repeat(()).then(move |()| async move {
                tokio::time::sleep(Duration::from_millis(1)).await;
                byte()
            });
            BodyExt::boxed(StreamBody::new(bytes))
        }
        "/told" => {
            let mut pieces = told.lock().unwrap().take().unwrap();
            let pieces = stream::poll_fn(move |context| pieces.poll_recv(context));
            BodyExt::boxed(StreamBody::new(pieces.map(|piece| Ok(Frame::data(piece)))))
        }
        _ => full("fine"),
    }
}
