//! The server that tenants fetch from. It knows them, and notes who asks with whose secret.

use std::collections::HashMap;
use std::io;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::{StreamExt, stream};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::random::{fnv, generated};
use super::tenants::Tenants;

type Body = BoxBody<Bytes, io::Error>;

/// Pieces in which bytes leave.
const PIECE: usize = 10_000;

/// The server's books.
pub(crate) struct Upstream {
    tenants: Arc<Tenants>,
    /// How often each nonce was left as a note.
    notes: Mutex<HashMap<String, u32>>,
    /// Requests that did not carry one tenant's name and secret.
    wrong: Mutex<Vec<String>>,
}

impl Upstream {
    pub(crate) fn new(tenants: Arc<Tenants>) -> Arc<Self> {
        Arc::new(Self {
            tenants,
            notes: Mutex::default(),
            wrong: Mutex::default(),
        })
    }

    /// Serves until dropped.
    pub(crate) async fn serve(self: Arc<Self>, listener: TcpListener) {
        let mut connections = JoinSet::new();
        loop {
            let stream = tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        self.is_wrong(format!("the upstream cannot accept: {error}"));
                        return;
                    }
                },
                Some(_) = connections.join_next() => continue,
            };
            let upstream = Arc::clone(&self);
            connections.spawn(async move {
                let service = service_fn(move |request| {
                    let upstream = Arc::clone(&upstream);
                    async move { Ok::<_, io::Error>(upstream.answer(request).await) }
                });
                // Tenants may hang up on it.
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    }

    pub(crate) async fn listen() -> io::Result<(TcpListener, u16)> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        Ok((listener, port))
    }

    /// Takes the notes so far.
    pub(crate) fn notes(&self) -> HashMap<String, u32> {
        self.notes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn wrong(&self) -> Vec<String> {
        self.wrong
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn is_wrong(&self, text: String) {
        let mut wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        wrong.push(text);
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let header = |name: &str| {
            let value = request.headers().get(name);
            value
                .and_then(|value| value.to_str().ok())
                .unwrap_or_default()
                .to_owned()
        };
        let (tenant, secret, nonce) = (header("x-tenant"), header("x-secret"), header("x-nonce"));
        let is_known = self
            .tenants
            .named(&tenant)
            .is_some_and(|tenant| tenant.owns(&secret));
        // Nonces name the tenant that was asked.
        if !is_known || !nonce.starts_with(&format!("{tenant}:")) {
            self.is_wrong(format!("{tenant:?} fetched with {secret:?} for {nonce:?}"));
            return answer(500, full("mixed up"));
        }
        let size = request
            .uri()
            .query()
            .and_then(|query| query.strip_prefix("size=")?.parse().ok())
            .unwrap_or(0);
        match request.uri().path() {
            "/bytes" => answer(200, pieces(generated(&nonce, size), PIECE, None)),
            "/tiny" => answer(200, pieces(generated(&nonce, size), 1, None)),
            "/redirected" => {
                let mut response = answer(307, full(""));
                if let Ok(location) = format!("/bytes?size={size}").parse() {
                    response.headers_mut().insert("location", location);
                }
                response
            }
            "/sum" => match request.into_body().collect().await {
                Ok(body) => {
                    let bytes = body.to_bytes();
                    answer(200, full(format!("{} {}", bytes.len(), fnv(&bytes))))
                }
                Err(_) => answer(400, full("cut off")),
            },
            "/cut" => {
                let cut = io::Error::other("cut on purpose");
                answer(200, pieces(generated(&nonce, 1000), PIECE, Some(cut)))
            }
            "/note" => {
                let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
                *notes.entry(nonce).or_default() += 1;
                answer(200, full(""))
            }
            _ => answer(404, full("")),
        }
    }
}

fn answer(status: u16, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status.try_into().unwrap_or_default();
    response
}

fn full(text: impl Into<Bytes>) -> Body {
    Full::new(text.into())
        .map_err(|never| match never {})
        .boxed()
}

fn pieces(bytes: Vec<u8>, piece: usize, end: Option<io::Error>) -> Body {
    let bytes = Bytes::from(bytes);
    let count = bytes.len().div_ceil(piece);
    let pieces = (0..count).map(move |index| {
        let start = index * piece;
        Ok(Frame::data(
            bytes.slice(start..bytes.len().min(start + piece)),
        ))
    });
    let all = stream::iter(pieces).chain(stream::iter(end.map(Err)));
    BodyExt::boxed(StreamBody::new(all))
}
