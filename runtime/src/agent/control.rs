//! The agent's end of the control socket: HTTP/2 client of one worker process.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Limited, StreamBody, combinators::BoxBody};
use hyper::body::Frame;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use isolet_crds::report::Refused;
use tokio::net::UnixStream;

use crate::bundle::Revision;
use crate::control::{
    BUNDLE_BYTES_HEADER, CHECKED_HEADER, CODE_BYTES_HEADER, LoadError, OPEN_PATH, STARTS_PATH,
    Starts,
};

/// Loading parses and compiles: no revision needs this long.
const LOAD_TIMEOUT: Duration = Duration::from_secs(30);
const METRICS_TIMEOUT: Duration = Duration::from_secs(2);
const MAX_ANSWER_BYTES: usize = 64 << 10;
const MAX_METRICS_BYTES: usize = 64 << 20;
/// A tenant may have written parts of a message.
const MAX_MESSAGE_BYTES: usize = 4 << 10;

/// A connection to one worker; clones share it.
#[derive(Clone)]
pub struct Control {
    sender: http2::SendRequest<BoxBody<Bytes, Infallible>>,
}

/// Why an order was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The worker says no.
    #[error("the worker refused the revision: {}", .0.message)]
    Refused(Refused),
    /// The worker is gone, or going.
    #[error("failed to reach the worker: {0}")]
    Lost(String),
}

impl Control {
    /// Speaks HTTP/2 on the socket.
    pub async fn connect(socket: UnixStream) -> Result<Self, hyper::Error> {
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(8 << 20)
            .handshake(TokioIo::new(socket))
            .await?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "control connection ended");
            }
        });
        Ok(Self { sender })
    }

    /// Makes the worker serve the revision. `checked`: it has loaded in an earlier worker. `code`: what was compiled of it.
    pub async fn put(
        &self,
        revision: &Revision,
        checked: bool,
        code: Option<Bytes>,
    ) -> Result<(), ControlError> {
        let code_bytes = code.as_ref().map(Bytes::len);
        let pieces = [
            Some(revision.bundle.clone()),
            revision.secrets.clone(),
            code,
        ];
        let frames = pieces
            .into_iter()
            .flatten()
            .map(|piece| Ok(Frame::data(piece)));
        let mut request = Request::builder()
            .method(Method::PUT)
            .uri(uri(&revision.identity.uid))
            .header(BUNDLE_BYTES_HEADER, revision.bundle.len());
        if checked {
            request = request.header(CHECKED_HEADER, "true");
        }
        if let Some(bytes) = code_bytes {
            request = request.header(CODE_BYTES_HEADER, bytes);
        }
        let request = request.body(BodyExt::boxed(StreamBody::new(stream::iter(frames))));
        let refused = |message: String| {
            ControlError::Refused(Refused {
                revision: revision.name().to_owned(),
                message,
                ..Default::default()
            })
        };
        let answer = tokio::time::timeout(LOAD_TIMEOUT, self.send(request, MAX_ANSWER_BYTES)).await;
        let (status, body) = answer.map_err(|_| {
            ControlError::Lost(format!("no answer within {} s", LOAD_TIMEOUT.as_secs()))
        })??;
        match status {
            StatusCode::OK => Ok(()),
            StatusCode::UNPROCESSABLE_ENTITY => match serde_json::from_slice::<LoadError>(&body) {
                Ok(error) => Err(ControlError::Refused(Refused {
                    revision: revision.name().to_owned(),
                    message: bounded(error.message),
                    file: error.file.map(bounded),
                    line: error.line,
                    column: error.column,
                })),
                Err(_) => Err(refused(
                    "the worker refused the revision without a reason".into(),
                )),
            },
            other => Err(refused(format!(
                "the worker answered {other}: {}",
                bounded(String::from_utf8_lossy(&body).into_owned())
            ))),
        }
    }

    /// Makes the worker serve nothing under this UID.
    pub async fn delete(&self, uid: &str) -> Result<(), ControlError> {
        let request = Request::builder()
            .method(Method::DELETE)
            .uri(uri(uid))
            .body(empty());
        match tokio::time::timeout(LOAD_TIMEOUT, self.send(request, MAX_ANSWER_BYTES)).await {
            Ok(Ok((status, _))) if status.is_success() || status == StatusCode::NOT_FOUND => Ok(()),
            Ok(Ok((status, _))) => Err(ControlError::Lost(format!(
                "it answered {status} to a DELETE"
            ))),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(ControlError::Lost("no answer to a DELETE".into())),
        }
    }

    /// Revisions that have started for a request since the last answer. Waits until there are any, or the worker is gone.
    pub async fn starts(&self) -> Result<Starts, ControlError> {
        let request = Request::builder()
            .uri(format!("http://worker{STARTS_PATH}"))
            .body(empty());
        let (_, body) = self.send(request, MAX_ANSWER_BYTES).await?;
        serde_json::from_slice(&body).map_err(|error| ControlError::Lost(error.to_string()))
    }

    /// Lets the worker accept tenants' connections.
    pub async fn open(&self) -> Result<(), ControlError> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("http://worker{OPEN_PATH}"))
            .body(empty());
        self.send(request, MAX_ANSWER_BYTES).await.map(drop)
    }

    /// The worker's metrics, as Prometheus text.
    pub async fn metrics(&self) -> Result<Bytes, ControlError> {
        let request = Request::builder()
            .uri("http://worker/metrics")
            .body(empty());
        match tokio::time::timeout(METRICS_TIMEOUT, self.send(request, MAX_METRICS_BYTES)).await {
            Ok(Ok((StatusCode::OK, body))) => Ok(body),
            Ok(Ok((status, _))) => Err(ControlError::Lost(format!("it answered {status}"))),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(ControlError::Lost("no answer in time".into())),
        }
    }

    async fn send(
        &self,
        request: http::Result<Request<BoxBody<Bytes, Infallible>>>,
        max_bytes: usize,
    ) -> Result<(StatusCode, Bytes), ControlError> {
        let lost = |error: &dyn std::fmt::Display| ControlError::Lost(error.to_string());
        let request = request.map_err(|error| lost(&error))?;
        let mut sender = self.sender.clone();
        sender.ready().await.map_err(|error| lost(&error))?;
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| lost(&error))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), max_bytes)
            .collect()
            .await
            .map_err(|error| lost(&error))?
            .to_bytes();
        Ok((status, body))
    }
}

/// Content type of [`Control::metrics`] and of the agent's own.
pub const METRICS_TYPE: (header::HeaderName, &str) = (
    header::CONTENT_TYPE,
    "application/openmetrics-text; version=1.0.0; charset=utf-8",
);

fn uri(uid: &str) -> String {
    format!("http://worker/functions/{uid}")
}

fn empty() -> BoxBody<Bytes, Infallible> {
    http_body_util::Empty::new().boxed()
}

fn bounded(mut text: String) -> String {
    if text.len() > MAX_MESSAGE_BYTES {
        text.truncate(text.floor_char_boundary(MAX_MESSAGE_BYTES));
        text.push('…');
    }
    text
}
