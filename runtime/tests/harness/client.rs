//! One HTTP/1.1 exchange on a connection of its own, with the bodies in pieces where a test wants them so.

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use futures::StreamExt;
use futures::channel::mpsc;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Empty, Full, StreamBody, combinators::BoxBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_util::task::AbortOnDropHandle;

use super::PATIENCE;

/// A request to be sent.
pub struct Exchange {
    address: SocketAddr,
    method: &'static str,
    path: String,
    host: String,
    headers: Vec<(String, String)>,
    body: BoxBody<Bytes, Infallible>,
}

/// An answer whose body may still arrive. Dropping it closes the connection.
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    body: Incoming,
    _connection: AbortOnDropHandle<()>,
}

/// Sends pieces of a request's body; ends it when dropped.
pub struct Outgoing(mpsc::UnboundedSender<Bytes>);

impl Exchange {
    pub fn new(address: SocketAddr, path: String) -> Self {
        Self {
            address,
            method: "GET",
            path,
            host: address.to_string(),
            headers: Vec::new(),
            body: Empty::new().boxed(),
        }
    }

    pub fn method(mut self, method: &'static str) -> Self {
        self.method = method;
        self
    }

    /// Another path than `/fn/…`.
    pub fn path(mut self, path: &str) -> Self {
        self.path = path.into();
        self
    }

    pub fn host(mut self, host: &str) -> Self {
        self.host = host.into();
        self
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = Full::new(body.into()).boxed();
        self
    }

    /// A chunked body in pieces.
    pub fn pieces(mut self) -> (Self, Outgoing) {
        let (sender, pieces) = mpsc::unbounded();
        self.body = BodyExt::boxed(StreamBody::new(pieces.map(|piece| Ok(Frame::data(piece)))));
        (self, Outgoing(sender))
    }

    pub async fn send(self) -> Answer {
        self.try_send().await.expect("an answer")
    }

    pub async fn try_send(self) -> Result<Answer, String> {
        let exchange = async {
            let text = |error: hyper::Error| error.to_string();
            let stream = TcpStream::connect(self.address)
                .await
                .map_err(|error| error.to_string())?;
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream))
                    .await
                    .map_err(text)?;
            let connection = AbortOnDropHandle::new(tokio::spawn(async move {
                let _ = connection.await;
            }));
            let mut request = Request::builder()
                .method(self.method)
                .uri(self.path)
                .header("host", self.host);
            for (name, value) in self.headers {
                request = request.header(name, value);
            }
            let response = sender
                .send_request(request.body(self.body).unwrap())
                .await
                .map_err(text)?;
            let (parts, body) = response.into_parts();
            Ok(Answer {
                status: parts.status.as_u16(),
                headers: parts.headers,
                body,
                _connection: connection,
            })
        };
        tokio::time::timeout(PATIENCE, exchange)
            .await
            .map_err(|_| "no answer in time".to_owned())?
    }
}

impl Answer {
    /// The next piece of the body as it arrives.
    pub async fn piece(&mut self) -> Option<Result<Bytes, String>> {
        let frame = tokio::time::timeout(PATIENCE, self.body.frame())
            .await
            .expect("a piece in time")?;
        Some(
            frame
                .map(|frame| frame.into_data().unwrap_or_default())
                .map_err(|error| error.to_string()),
        )
    }

    /// The whole body.
    pub async fn bytes(mut self) -> Result<Vec<u8>, String> {
        let mut whole = Vec::new();
        while let Some(piece) = self.piece().await {
            whole.extend_from_slice(&piece?);
        }
        Ok(whole)
    }

    pub async fn text(self) -> String {
        String::from_utf8(self.bytes().await.unwrap()).unwrap()
    }

    pub async fn json(self) -> serde_json::Value {
        serde_json::from_str(&self.text().await).unwrap()
    }

    /// Status and reason of one of our own errors.
    pub async fn error(self) -> (u16, String) {
        let status = self.status;
        let text = self.text().await;
        let error: serde_json::Value =
            serde_json::from_str(&text).unwrap_or_else(|_| panic!("no error but: {text}"));
        (
            status,
            error["error"]["reason"].as_str().unwrap().to_owned(),
        )
    }
}

impl Outgoing {
    pub fn send(&self, piece: impl Into<Bytes>) {
        self.0.unbounded_send(piece.into()).unwrap();
    }
}
