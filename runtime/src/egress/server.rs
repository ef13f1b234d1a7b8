//! The agent's end of the egress socket: an HTTP/2 server that the worker sends outbound requests to, with a connection for
//! each Function.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::client::{Client, Fetched, RedirectMode, strip};
use super::connect::Connector;
use super::joined::Joined;
use super::table::{EgressTable, MAX_AT_ONCE};
use super::{CONNECTION_WINDOW_BYTES, EgressError, STREAM_WINDOW_BYTES, handover};
use crate::agent::metrics::Metrics;
use crate::control::{EGRESS_ERROR_HEADER, FINAL_URL_HEADER, FUNCTION_HEADER, REDIRECT_HEADER};

/// Outbound requests of all Functions at once; each holds one or two descriptors.
const MAX_AT_ONCE_IN_ALL: usize = 8192;
/// Connections of one worker: one for each Function that has requests under way, and a few that are idle.
const MAX_CONNECTIONS: usize = MAX_AT_ONCE_IN_ALL + 1024;
/// Largest head of a request, as HTTP/2 measures it.
const MAX_REQUEST_HEAD_BYTES: usize = 64 << 10;
/// Largest head of a response: what the worker's HTTP/2 client takes, less the fields added here. A larger one would break
/// the connection, and with it the requests of every other Function.
const MAX_RESPONSE_HEAD_BYTES: usize = 12 << 10;
/// Heads up to here get an answer that says so; beyond, the connection breaks. Workers keep well below.
const MAX_READABLE_HEAD_BYTES: u32 = 1 << 20;

type Body = BoxBody<Bytes, hyper::Error>;

/// Decides and carries out outbound requests.
pub struct EgressServer {
    client: Client,
    table: Arc<EgressTable>,
    metrics: Metrics,
    slots: Arc<Semaphore>,
}

impl EgressServer {
    /// Under the connector's policy and the table's rules.
    pub fn new(connector: Connector, table: Arc<EgressTable>, metrics: Metrics) -> Self {
        Self {
            client: Client::new(connector),
            table,
            metrics,
            slots: Arc::new(Semaphore::new(MAX_AT_ONCE_IN_ALL)),
        }
    }

    /// Gives one worker connections, and serves them, until its end of the egress socket closes.
    pub async fn serve(self: Arc<Self>, mut socket: UnixStream) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                asked = handover::asked(&mut socket), if connections.len() < MAX_CONNECTIONS => {
                    if !asked {
                        return;
                    }
                }
                Some(_) = connections.join_next() => continue,
            }
            match handover::give(&socket).await {
                Ok(Some(connection)) => {
                    connections.spawn(self.clone().serve_connection(connection));
                }
                Ok(None) => {}
                Err(_) => return,
            }
        }
    }

    async fn serve_connection(self: Arc<Self>, socket: UnixStream) {
        let service = service_fn(move |request| {
            let server = self.clone();
            async move { Ok::<_, std::convert::Infallible>(server.answer(request).await) }
        });
        let served = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_AT_ONCE_IN_ALL as u32)
            .max_header_list_size(MAX_READABLE_HEAD_BYTES)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            // A Function may give up as many requests as it likes: hyper's bounds are for clients that are not our own.
            .max_local_error_reset_streams(None)
            .max_pending_accept_reset_streams(MAX_AT_ONCE_IN_ALL)
            .serve_connection(TokioIo::new(socket), service)
            .await;
        if let Err(error) = served {
            tracing::debug!(%error, "egress connection ended");
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        match self.send(request).await {
            Ok(response) => {
                self.metrics.egress_requests.inc();
                response
            }
            Err(error) => {
                match error {
                    EgressError::Refused(_) | EgressError::Unsendable(_) => {
                        self.metrics.egress_refused.inc()
                    }
                    EgressError::Failed(_) => self.metrics.egress_failed.inc(),
                };
                tracing::debug!(%error, "an outbound request failed");
                failure(&error)
            }
        }
    }

    async fn send(&self, request: Request<Incoming>) -> Result<Response<Body>, EgressError> {
        let headers = request.headers();
        if head_bytes(headers) > MAX_REQUEST_HEAD_BYTES {
            return Err(EgressError::Unsendable(format!(
                "the request's headers are larger than {} KiB",
                MAX_REQUEST_HEAD_BYTES >> 10
            )));
        }
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let function = text(FUNCTION_HEADER)
            .and_then(|uid| self.table.get(uid))
            .ok_or_else(|| EgressError::Unsendable("the function is not served any more".into()))?;
        let mode = match text(REDIRECT_HEADER) {
            None | Some("follow") => RedirectMode::Follow,
            Some("error") => RedirectMode::Error,
            Some("manual") => RedirectMode::Manual,
            Some(_) => {
                return Err(EgressError::Unsendable(
                    "redirect must be follow, error or manual".into(),
                ));
            }
        };
        let slot = function.slots.clone().try_acquire_owned().map_err(|_| {
            EgressError::Unsendable(format!(
                "the function has {MAX_AT_ONCE} outbound requests under way, which is the most: await some before the next"
            ))
        })?;
        let slot_in_all = self.slots.clone().try_acquire_owned().map_err(|_| {
            EgressError::Unsendable(
                "this node has too many outbound requests under way: try again later".into(),
            )
        })?;
        let Fetched { response, url } = self.client.fetch(&function, request, mode).await?;
        let (mut parts, body) = response.into_parts();
        strip(&mut parts.headers);
        parts.version = http::Version::HTTP_2;
        if head_bytes(&parts.headers) + url.as_str().len() > MAX_RESPONSE_HEAD_BYTES {
            return Err(EgressError::Failed(format!(
                "the headers of the response of {} are larger than {} KiB",
                url.origin().ascii_serialization(),
                MAX_RESPONSE_HEAD_BYTES >> 10
            )));
        }
        if let Ok(url) = HeaderValue::from_str(url.as_str()) {
            parts.headers.insert(FINAL_URL_HEADER, url);
        }
        // The slots are free again when the body has been read or dropped.
        let body = Joined::new(body).map_frame(move |frame| {
            let _held = (&slot, &slot_in_all);
            frame
        });
        Ok(Response::from_parts(parts, body.boxed()))
    }
}

/// RFC 9113, section 6.5.2: name, value and 32 bytes a field.
fn head_bytes(headers: &HeaderMap) -> usize {
    headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + 32)
        .sum()
}

fn failure(error: &EgressError) -> Response<Body> {
    let mut response = Response::new(Empty::new().map_err(|never| match never {}).boxed());
    *response.status_mut() = StatusCode::BAD_GATEWAY;
    let mut text = error.to_string();
    // A long host name is in the text; the head of this answer has a bound too.
    text.truncate(text.floor_char_boundary(2048));
    if let Ok(text) = HeaderValue::from_str(&percent_encode(&text)) {
        response.headers_mut().insert(EGRESS_ERROR_HEADER, text);
    }
    response
}

/// All but letters, digits, spaces and plain punctuation.
fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b" -_.,:;/()[]\"'".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests;
