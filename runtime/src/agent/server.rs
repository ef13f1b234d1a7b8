//! The agent's own port: probes, metrics, and for the operator what this node serves.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use isolet_crds::report::{MAX_TIMEOUT_SECONDS, PATH};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use super::auth::{Auth, AuthError};
use super::control::{Control, METRICS_TYPE};
use super::metrics::Metrics;
use super::report::ReportLog;

const MAX_CONNECTIONS: usize = 256;
/// Of one address, so that a pod that holds connections cannot keep the kubelet's probes out.
const MAX_CONNECTIONS_OF_ONE: usize = 32;
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// What the endpoints show.
pub struct AgentServer {
    /// For the operator.
    pub report: Arc<ReportLog>,
    /// Who is the operator.
    pub auth: Auth,
    /// The agent's.
    pub metrics: Metrics,
    /// Whether requests should be sent to this pod.
    pub ready: watch::Receiver<bool>,
    /// The worker to ask for its metrics.
    pub worker: watch::Receiver<Option<Control>>,
    /// Set once the pod goes.
    pub stopping: CancellationToken,
}

impl AgentServer {
    /// Serves until `stop`.
    pub async fn run(self: Arc<Self>, listener: TcpListener, stop: CancellationToken) {
        let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let peers = Arc::new(Peers::default());
        loop {
            // It is never closed.
            let Ok(slot) = connections.clone().acquire_owned().await else {
                return;
            };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stop.cancelled() => return,
            };
            let (stream, place) = match accepted {
                Ok((stream, address)) => match peers.admit(address.ip()) {
                    Some(place) => (stream, place),
                    // Dropping the stream closes it.
                    None => continue,
                },
                Err(error) => {
                    tracing::warn!(%error, "failed to accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let (server, stop) = (self.clone(), stop.clone());
            tokio::spawn(async move {
                let _held = (slot, place);
                let service = service_fn(|request| {
                    let server = server.clone();
                    async move { Ok::<_, Infallible>(server.answer(request).await) }
                });
                let mut builder = auto::Builder::new(TokioExecutor::new());
                builder
                    .http1()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEAD_TIMEOUT);
                builder
                    .http2()
                    .timer(TokioTimer::new())
                    .max_concurrent_streams(16);
                tokio::select! {
                    served = builder.serve_connection(TokioIo::new(stream), service) => {
                        if let Err(error) = served {
                            tracing::debug!(%error, "a connection to the agent's port ended");
                        }
                    }
                    () = stop.cancelled() => {}
                }
            });
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        if request.method() != Method::GET {
            return error(
                StatusCode::METHOD_NOT_ALLOWED,
                "MethodNotAllowed",
                "only GET is allowed",
            );
        }
        match request.uri().path() {
            "/healthz" => text(StatusCode::OK, "ok\n"),
            "/readyz" if self.stopping.is_cancelled() => {
                text(StatusCode::SERVICE_UNAVAILABLE, "stopping\n")
            }
            "/readyz" if *self.ready.borrow() => text(StatusCode::OK, "ok\n"),
            "/readyz" => text(StatusCode::SERVICE_UNAVAILABLE, "loading bundles\n"),
            "/metrics" => self.metrics().await,
            PATH => self.functions(&request).await,
            _ => error(
                StatusCode::NOT_FOUND,
                "NotFound",
                "this port has /healthz, /readyz, /metrics and /v1/functions",
            ),
        }
    }

    async fn metrics(&self) -> Response<Full<Bytes>> {
        let worker = self.worker.borrow().clone();
        let worker = match worker {
            Some(worker) => match worker.metrics().await {
                Ok(text) => Some(String::from_utf8_lossy(&text).into_owned()),
                Err(error) => {
                    tracing::warn!(%error, "failed to read the worker's metrics");
                    None
                }
            },
            None => None,
        };
        let mut response = Response::new(Full::from(self.metrics.text(worker.as_deref())));
        let (name, value) = METRICS_TYPE;
        response
            .headers_mut()
            .insert(name, header::HeaderValue::from_static(value));
        response
    }

    async fn functions(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let authorization = request
            .headers()
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok());
        if let Err(refusal) = self.auth.check(authorization).await {
            let (status, reason) = match refusal {
                AuthError::Unauthenticated(_) => (StatusCode::UNAUTHORIZED, "Unauthorized"),
                AuthError::Forbidden { .. } => (StatusCode::FORBIDDEN, "Forbidden"),
                AuthError::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, "Unavailable"),
            };
            return error(status, reason, &refusal.to_string());
        }
        let query = match Query::parse(request.uri().query().unwrap_or("")) {
            Ok(query) => query,
            Err(message) => return error(StatusCode::BAD_REQUEST, "BadRequest", &message),
        };
        let report = self
            .report
            .wait(query.since.as_deref(), query.timeout)
            .await;
        json_response(StatusCode::OK, serde_json::to_vec(&report))
    }
}

/// Open connections by address.
#[derive(Default)]
struct Peers(Mutex<HashMap<IpAddr, usize>>);

struct Place {
    peers: Arc<Peers>,
    address: IpAddr,
}

impl Peers {
    fn admit(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(address).or_default();
        if *count >= MAX_CONNECTIONS_OF_ONE {
            return None;
        }
        *count += 1;
        Some(Place {
            peers: Arc::clone(self),
            address,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.peers.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.address);
            }
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Query {
    since: Option<String>,
    timeout: Duration,
}

impl Query {
    fn parse(query: &str) -> Result<Self, String> {
        let mut parsed = Self {
            since: None,
            timeout: Duration::ZERO,
        };
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "since" => parsed.since = Some(value.into_owned()),
                "timeoutSeconds" => {
                    let seconds: u64 = value.parse().map_err(|_| {
                        format!("timeoutSeconds must be a number of seconds, not {value:?}")
                    })?;
                    parsed.timeout = Duration::from_secs(seconds.min(MAX_TIMEOUT_SECONDS));
                }
                _ => {}
            }
        }
        Ok(parsed)
    }
}

fn text(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    response
}

fn error(status: StatusCode, reason: &str, message: &str) -> Response<Full<Bytes>> {
    let body = json!({ "error": { "reason": reason, "message": message } });
    let mut response = json_response(status, serde_json::to_vec(&body));
    if status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(
            header::WWW_AUTHENTICATE,
            header::HeaderValue::from_static("Bearer"),
        );
    }
    response
}

fn json_response(status: StatusCode, body: serde_json::Result<Vec<u8>>) -> Response<Full<Bytes>> {
    let (status, body) = match body {
        Ok(body) => (status, body),
        Err(error) => {
            tracing::error!(%error, "failed to encode an answer");
            (StatusCode::INTERNAL_SERVER_ERROR, Vec::new())
        }
    };
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("application/json"),
    );
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_cannot_hold_all_connections() {
        let peers = Arc::new(Peers::default());
        let (greedy, other) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let mut held: Vec<_> = (0..MAX_CONNECTIONS_OF_ONE)
            .map(|_| peers.admit(greedy).unwrap())
            .collect();
        assert!(peers.admit(greedy).is_none());
        assert!(peers.admit(other).is_some());
        held.pop();
        held.push(peers.admit(greedy).unwrap());
        held.clear();
        assert!(peers.0.lock().unwrap().is_empty());
    }

    #[test]
    fn queries() {
        let query = |since: Option<&str>, seconds| {
            Ok(Query {
                since: since.map(str::to_owned),
                timeout: Duration::from_secs(seconds),
            })
        };
        assert_eq!(Query::parse(""), query(None, 0));
        assert_eq!(
            Query::parse("since=ab.7&timeoutSeconds=5&x=y"),
            query(Some("ab.7"), 5)
        );
        assert_eq!(Query::parse("timeoutSeconds=99999"), query(None, 60));
        assert!(Query::parse("timeoutSeconds=soon").is_err());
    }
}
