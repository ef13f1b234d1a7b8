//! All Functions share one connection to the agent for their outbound requests: what one of them does there must not keep
//! the others from it.
#![allow(clippy::unwrap_used)]

mod harness;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, stream};
use harness::{Function, full, worker};
use http::{Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};
use isolet_crds::bundle::{Digest, FunctionIdentity};
use isolet_runtime::agent::metrics::Metrics;
use isolet_runtime::bundle::Revision;
use isolet_runtime::egress::connect::Connector;
use isolet_runtime::egress::policy::PlatformPolicy;
use isolet_runtime::egress::server::EgressServer;
use isolet_runtime::egress::table::EgressTable;
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixStream};
use tokio::task::JoinSet;

/// What may be on its way in one body without being read, in pieces of a byte.
const PIECES: usize = 16_000;

const NEIGHBOUR: &str = "export default { async fetch() {
  return new Response(await (await fetch('http://up.test/ok')).text());
} }";

#[tokio::test]
async fn a_worker_that_cannot_reach_the_agent_ends_and_is_not_blamed_on_a_function() {
    let mut worker = worker().function("neighbour", NEIGHBOUR).start().await;
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
                   return new Response(new ReadableStream({
                     start(controller) { controller.enqueue(new TextEncoder().encode('held')); },
                   }));
                 } }",
            )
            .limits(|limits| {
                limits.subrequests = 100;
                limits.timeout_ms = 600_000;
            }),
        )
        .function("neighbour", NEIGHBOUR)
        .egress(|request| async move {
            match request.uri().path() {
                "/ok" => Response::new(full("fine")),
                _ => Response::new(full(vec![b'x'; 1 << 20])),
            }
        })
        .start()
        .await;
    let mut holds = worker.get("holds", "/").await;
    assert_eq!(holds.piece().await.unwrap().unwrap(), "held");
    assert_eq!(worker.get("neighbour", "/").await.text().await, "fine");
}

#[tokio::test]
async fn many_tiny_pieces_that_nobody_reads_leave_the_connection_be() {
    let (sent, mut all_sent) = tokio::sync::mpsc::channel(1);
    let worker = worker()
        .with(
            Function::new(
                "holds",
                "export default { async fetch() {
                   const held = await fetch('http://up.test/tiny');
                   return new Response(new ReadableStream({
                     start(controller) { controller.enqueue(new TextEncoder().encode(`held ${held.status}`)); },
                   }));
                 } }",
            )
            .limits(|limits| limits.timeout_ms = 600_000),
        )
        .function("neighbour", NEIGHBOUR)
        .egress(move |request| {
            let sent = sent.clone();
            async move {
                if request.uri().path() == "/ok" {
                    return Response::new(full("fine"));
                }
                let pieces = stream::iter(0..=PIECES).then(move |index| {
                    let sent = sent.clone();
                    async move {
                        if index == PIECES {
                            sent.send(()).await.unwrap();
                            std::future::pending::<()>().await;
                        }
                        // A frame for each.
                        tokio::task::yield_now().await;
                        Ok(Frame::data(Bytes::from_static(b"x")))
                    }
                });
                Response::new(BodyExt::boxed(StreamBody::new(pieces)))
            }
        })
        .start()
        .await;
    let mut holds = worker.get("holds", "/").await;
    assert_eq!(holds.piece().await.unwrap().unwrap(), "held 200");
    let sent = tokio::time::timeout(harness::PATIENCE, all_sent.recv()).await;
    assert_eq!(sent, Ok(Some(())));
    assert_eq!(worker.get("neighbour", "/").await.text().await, "fine");
}

/// The agent's end. Where the upload goes nobody accepts connections, so that all of it waits.
#[tokio::test]
async fn many_tiny_pieces_of_an_upload_leave_the_connection_be() {
    let (listener, _full) = listener_that_is_full().await;
    let target = listener.local_addr().unwrap();
    let (theirs, ours) = UnixStream::pair().unwrap();
    tokio::spawn(agent(&format!("{target}")).serve(theirs));
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(ours))
            .await
            .unwrap();
    tokio::spawn(connection);
    let (taken, mut all_taken) = tokio::sync::mpsc::channel(4);
    let pieces = || {
        let taken = taken.clone();
        stream::iter(0..=PIECES).then(move |index| {
            let taken = taken.clone();
            async move {
                if index == PIECES {
                    taken.send(()).await.unwrap();
                    std::future::pending::<()>().await;
                }
                // A frame for each.
                tokio::task::yield_now().await;
                Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"x")))
            }
        })
    };
    let request = |uri: String, body| {
        Request::post(uri)
            .header("isolet-function", UID)
            .body(body)
            .unwrap()
    };
    let mut uploads = JoinSet::new();
    for _ in 0..4 {
        let body = BodyExt::boxed(StreamBody::new(pieces()));
        uploads.spawn(sender.send_request(request(format!("http://{target}/"), body)));
    }
    for _ in 0..4 {
        tokio::select! {
            taken = all_taken.recv() => assert_eq!(taken, Some(())),
            end = uploads.join_next() => panic!("an upload ended: {end:?}"),
        }
    }
    // Another request is answered: the policy refuses it.
    let other = request("http://denied.test/".into(), full(""));
    let answer = sender.send_request(other).await.unwrap();
    assert_eq!(answer.status(), 502);
    assert!(answer.headers().contains_key("isolet-egress-error"));
}

const UID: &str = "uid";

/// Where one Function may send requests to one target.
fn agent(allowed: &str) -> Arc<EgressServer> {
    let identity = FunctionIdentity {
        namespace: "default".into(),
        name: "uploads".into(),
        uid: UID.into(),
    };
    let table = Arc::new(EgressTable::default());
    let revision = Revision {
        identity: identity.clone(),
        digest: Digest::parse(&format!("sha256:{}", "0".repeat(64))).unwrap(),
        sequence: 1,
        bundle: Bytes::new(),
        secrets: None,
        egress: vec![allowed.into()],
    };
    table.set(&identity, [&Arc::new(revision)]);
    let policy = PlatformPolicy {
        loopback_by_rule: true,
        ..PlatformPolicy::default()
    };
    let connector = Connector::new(policy).unwrap();
    Arc::new(EgressServer::new(connector, table, Metrics::default()))
}

/// A listener in whose backlog there is no place, and the connections that wait there.
async fn listener_that_is_full() -> (TcpListener, Vec<TcpStream>) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut waiting = Vec::new();
    let moment = Duration::from_millis(300);
    while let Ok(stream) = tokio::time::timeout(moment, TcpStream::connect(address)).await {
        waiting.push(stream.unwrap());
    }
    (listener, waiting)
}
