//! `/metrics`, `/healthz` and `/readyz`. Healthy is a process that answers; ready is one that leads or stands by.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// What the server shows.
pub(crate) trait Shown: Send + Sync + 'static {
    /// Prometheus' text.
    fn metrics(&self) -> String;
    /// Whether the operator is able to work.
    fn is_ready(&self) -> bool;
}

const CONNECTIONS: usize = 64;
const IDLE: Duration = Duration::from_secs(10);

/// Serves until dropped.
pub(crate) async fn serve(listener: TcpListener, shown: Arc<dyn Shown>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let accepted = listener.accept().await;
        let (Ok((socket, _)), Ok(place)) = (accepted, places.clone().try_acquire_owned()) else {
            // Out of descriptors or of places: let some close.
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let shown = shown.clone();
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let response = answer(&*shown, &request);
                async { Ok::<_, Infallible>(response) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(IDLE)
                .serve_connection(TokioIo::new(socket), service);
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to the metrics port failed");
            }
            drop(place);
        });
    }
}

fn answer(shown: &dyn Shown, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let (status, kind, body) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/metrics") => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            (StatusCode::OK, kind, shown.metrics())
        }
        (&Method::GET, "/healthz") => (StatusCode::OK, "text/plain", "ok\n".into()),
        (&Method::GET, "/readyz") if shown.is_ready() => {
            (StatusCode::OK, "text/plain", "ok\n".into())
        }
        (&Method::GET, "/readyz") => (
            StatusCode::SERVICE_UNAVAILABLE,
            "text/plain",
            "starting\n".into(),
        ),
        _ => (
            StatusCode::NOT_FOUND,
            "text/plain",
            "GET /metrics, /healthz or /readyz\n".into(),
        ),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    if let Ok(kind) = kind.parse() {
        response
            .headers_mut()
            .insert(http::header::CONTENT_TYPE, kind);
    }
    response
}
