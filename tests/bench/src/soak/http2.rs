//! HTTP/2 with prior knowledge: several requests at once on one connection.

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::sync::{Arc, OnceLock};

use anyhow::Context;
use bytes::Bytes;
use futures::stream;
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::body::Frame;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper::{Request, Response, body::Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::PATIENCE;
use super::asks::{Answer, Ask, Payload};
use super::http1::target;

type Body = BoxBody<Bytes, Infallible>;

/// A connection; closed when dropped.
pub(crate) struct Connection {
    sender: SendRequest<Body>,
    task: JoinHandle<()>,
    /// Why it ended, if it did with an error.
    end: Arc<OnceLock<String>>,
}

impl Connection {
    pub(crate) async fn open(port: u16) -> anyhow::Result<Self> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        let end = Arc::new(OnceLock::new());
        let told = Arc::clone(&end);
        let task = tokio::spawn(async move {
            if let Err(error) = connection.await {
                let _ = told.set(format!("{:#}", anyhow::Error::from(error)));
            }
        });
        Ok(Self { sender, task, end })
    }

    /// Asks; dropping the future resets the stream.
    pub(crate) async fn exchange(&self, ask: &Ask<'_>) -> anyhow::Result<Answer> {
        let body = match &ask.body {
            Payload::None => Full::default().boxed(),
            Payload::Sized(bytes) => Full::new(bytes.clone().into()).boxed(),
            Payload::Chunked(pieces) => {
                let frames: Vec<_> = pieces
                    .iter()
                    .map(|piece| Ok(Frame::data(Bytes::from(piece.clone()))))
                    .collect();
                BodyExt::boxed(StreamBody::new(stream::iter(frames)))
            }
        };
        let response = self.send(ask, body).await;
        // A body that breaks off resets its stream, which may overtake the head.
        if let Err(error) = &response
            && format!("{error:#}").contains("stream error received")
        {
            return Ok(Answer {
                was_reset: true,
                ..Answer::default()
            });
        }
        let response = response.with_context(|| match self.end.get() {
            Some(end) => format!("the connection ended: {end}"),
            None => "the connection goes on".into(),
        })?;
        read(response).await
    }

    /// Sends a request with a body of the caller's; the head of its answer.
    pub(crate) async fn send(
        &self,
        ask: &Ask<'_>,
        body: Body,
    ) -> anyhow::Result<Response<Incoming>> {
        let (host, path) = target(ask);
        let request = Request::builder()
            .method(ask.method)
            .uri(format!("http://{host}{path}"))
            .header("x-nonce", &ask.nonce)
            .body(body)?;
        let mut sender = self.sender.clone();
        tokio::time::timeout(PATIENCE, async {
            sender.ready().await?;
            sender.send_request(request).await
        })
        .await
        .context("no head in time")?
        .context("no head")
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Reads an answer to its end.
pub(crate) async fn read(response: Response<Incoming>) -> anyhow::Result<Answer> {
    let (parts, mut body) = response.into_parts();
    let header = |name| parts.headers.get(name);
    let mut answer = Answer {
        status: parts.status.as_u16(),
        proof: header("x-proof").and_then(|proof| Some(proof.to_str().ok()?.to_owned())),
        retry_after: header("retry-after").is_some(),
        is_whole: true,
        ..Answer::default()
    };
    let whole = async {
        while let Some(frame) = body.frame().await {
            match frame {
                Ok(frame) => answer.body.extend(frame.into_data().unwrap_or_default()),
                Err(_) => {
                    answer.is_whole = false;
                    return;
                }
            }
        }
    };
    tokio::time::timeout(PATIENCE, whole)
        .await
        .context("no end of the body in time")?;
    Ok(answer)
}
