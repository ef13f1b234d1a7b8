//! Bare hyper: what HTTP costs without JavaScript. It is this program's own `hyper` command, one thread.

use std::convert::Infallible;
use std::net::Ipv4Addr;

use anyhow::Context;
use bytes::Bytes;
use futures::stream;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;

use crate::contestants::{Serving, Workload, start};
use crate::plan::Plan;

type Body = BoxBody<Bytes, Infallible>;

static CHUNK: [u8; 16384] = [b'a'; 16384];

/// The version in Cargo.lock.
pub(crate) fn version() -> anyhow::Result<String> {
    let lock = std::fs::read_to_string("Cargo.lock")?;
    lock.split("[[package]]")
        .find_map(|package| {
            package
                .split_once("name = \"hyper\"\nversion = \"")?
                .1
                .split('"')
                .next()
        })
        .map(str::to_owned)
        .context("Cargo.lock has no hyper")
}

pub(crate) fn serve(plan: &Plan, workload: Workload) -> anyhow::Result<Serving> {
    let this = std::env::current_exe()?.display().to_string();
    start(plan, "hyper.log", &[&this, "hyper"], workload)
}

/// Serves one workload until it is killed.
pub(crate) fn run(port: u16, workload: &str) -> anyhow::Result<()> {
    let workload = [Workload::Hello, Workload::Echo, Workload::Stream]
        .into_iter()
        .find(|it| it.name() == workload)
        .context("the workloads are hello, echo and stream")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let service = service_fn(move |request| answer(request, workload));
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new());
            tokio::spawn(builder.serve_connection(TokioIo::new(stream), service));
        }
    })
}

async fn answer(
    request: Request<Incoming>,
    workload: Workload,
) -> Result<Response<Body>, anyhow::Error> {
    let (body, kind): (Body, _) = match workload {
        Workload::Hello => (
            Full::new(Bytes::from_static(b"hello world")).boxed(),
            "text/plain;charset=UTF-8",
        ),
        Workload::Echo => {
            let text = request.into_body().collect().await?.to_bytes();
            let value: serde_json::Value = serde_json::from_slice(&text)?;
            let text = serde_json::to_vec(&value)?;
            (Full::new(text.into()).boxed(), "application/json")
        }
        Workload::Stream => {
            let frames = (0..4).map(|_| Ok(Frame::data(Bytes::from_static(&CHUNK))));
            (
                BodyExt::boxed(StreamBody::new(stream::iter(frames))),
                "application/octet-stream",
            )
        }
    };
    let mut response = Response::new(body);
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    Ok(response)
}
