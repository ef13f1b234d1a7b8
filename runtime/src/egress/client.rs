//! One outbound request, with its redirects: each hop is checked anew.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, header};
use http_body_util::{BodyExt, Either, Full};
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use url::Url;

use super::EgressError;
use super::connect::{Connector, Target};
use super::pool::{Connection, Key, Pool};
use super::redirect::{Hop, MAX_REDIRECTS, is_redirect};
use super::table::FunctionEgress;

/// Larger bodies cannot be sent a second time after a 307 or 308.
const MAX_REPLAYED_BYTES: u64 = 1 << 20;
/// Bounds a response's head.
const MAX_HEAD_BYTES: usize = 64 << 10;
const MAX_HEADERS: usize = 256;

/// What to do with a redirect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RedirectMode {
    /// Follow it.
    Follow,
    /// It is an error.
    Error,
    /// It is the answer.
    Manual,
}

/// A response and where it came from.
#[derive(Debug)]
pub struct Fetched {
    /// Head and body.
    pub response: Response<Incoming>,
    /// URL after redirects.
    pub url: Url,
}

enum Payload {
    Empty,
    Whole(Bytes),
    Stream(Incoming),
    /// A stream that has been sent.
    Spent,
}

type Outgoing = Either<Full<Bytes>, Incoming>;

/// Sends requests in the name of Functions.
pub struct Client {
    connector: Connector,
    pool: Arc<Pool<Outgoing>>,
}

impl Client {
    /// Connects by this connector.
    pub fn new(connector: Connector) -> Self {
        Self {
            connector,
            pool: Arc::default(),
        }
    }

    /// Sends the request and follows its redirects.
    pub async fn fetch(
        &self,
        function: &FunctionEgress,
        request: Request<Incoming>,
        mode: RedirectMode,
    ) -> Result<Fetched, EgressError> {
        let (parts, body) = request.into_parts();
        let url = Url::parse(&parts.uri.to_string())
            .map_err(|error| EgressError::Unsendable(format!("the address is no URL: {error}")))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(EgressError::Unsendable(format!(
                "{}: cannot be fetched: only http: and https: can",
                url.scheme()
            )));
        }
        if matches!(parts.method, Method::CONNECT | Method::TRACE) {
            return Err(EgressError::Unsendable(format!(
                "the method {} is not allowed",
                parts.method
            )));
        }
        let mut hop = Hop {
            method: parts.method,
            url,
            headers: parts.headers,
            with_body: true,
        };
        strip(&mut hop.headers);
        let mut payload = payload(body, mode).await?;
        for _ in 0..=MAX_REDIRECTS {
            let response = self.exchange(function, &hop, &mut payload).await?;
            let status = response.status();
            if !is_redirect(status) || mode == RedirectMode::Manual {
                return Ok(Fetched {
                    response,
                    url: hop.url,
                });
            }
            if mode == RedirectMode::Error {
                return Err(EgressError::Failed(format!(
                    "{} answered with a redirect ({status}) and redirect is \"error\"",
                    hop.url.origin().ascii_serialization()
                )));
            }
            let sent = hop.url.clone();
            if !hop
                .redirect(status, response.headers())
                .map_err(EgressError::Failed)?
            {
                return Ok(Fetched {
                    response,
                    url: sent,
                });
            }
        }
        Err(EgressError::Failed(format!(
            "there were more than {MAX_REDIRECTS} redirects"
        )))
    }

    async fn exchange(
        &self,
        function: &FunctionEgress,
        hop: &Hop,
        payload: &mut Payload,
    ) -> Result<Response<Incoming>, EgressError> {
        let target = Target::of(&hop.url)?;
        let key = Key {
            uid: function.identity.uid.clone(),
            tls: target.tls,
            host: target.name.clone(),
            port: target.port,
        };
        let mut request = head(hop, payload.body(hop)?)?;
        let idle = self.pool.take(&key, |peer| {
            self.connector.allows(&function.rules, &target, peer)
        });
        if let Some(mut connection) = idle {
            match connection.sender.try_send_request(request).await {
                Ok(response) => {
                    self.pool.keep(key, connection);
                    return Ok(response);
                }
                // The server closed it while it was idle.
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None if hop.method.is_idempotent() && payload.can_be_sent_again() => {
                        request = head(hop, payload.body(hop)?)?;
                    }
                    None => return Err(broken(hop, &error.into_error())),
                },
            }
        }
        let (stream, peer) = self.connector.connect(&function.rules, &target).await?;
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(MAX_HEAD_BYTES)
            .max_headers(MAX_HEADERS)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| broken(hop, &error))?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "outbound connection ended");
            }
        });
        let sent = sender.send_request(request).await;
        let response = sent.map_err(|error| broken(hop, &error))?;
        self.pool.keep(key, Connection { sender, peer });
        Ok(response)
    }
}

impl Payload {
    /// The body for the next hop.
    fn body(&mut self, hop: &Hop) -> Result<Outgoing, EgressError> {
        match self {
            _ if !hop.with_body => Ok(Either::Left(Full::default())),
            Self::Empty => Ok(Either::Left(Full::default())),
            Self::Whole(bytes) => Ok(Either::Left(Full::new(bytes.clone()))),
            Self::Stream(_) | Self::Spent => match std::mem::replace(self, Self::Spent) {
                Self::Stream(body) => Ok(Either::Right(body)),
                _ => Err(EgressError::Failed(format!(
                    "the server redirects to {} and wants the body again, but a streamed body can be sent only once",
                    hop.url.origin().ascii_serialization()
                ))),
            },
        }
    }

    fn can_be_sent_again(&self) -> bool {
        matches!(self, Self::Empty | Self::Whole(_))
    }
}

fn broken(hop: &Hop, error: &hyper::Error) -> EgressError {
    EgressError::Failed(format!(
        "failed to exchange a request with {}: {}",
        hop.url.origin().ascii_serialization(),
        chain(error)
    ))
}

/// A short body of known length is kept, so that it can be sent again.
async fn payload(body: Incoming, mode: RedirectMode) -> Result<Payload, EgressError> {
    if body.is_end_stream() {
        return Ok(Payload::Empty);
    }
    let short = body
        .size_hint()
        .exact()
        .is_some_and(|bytes| bytes <= MAX_REPLAYED_BYTES);
    if mode != RedirectMode::Follow || !short {
        return Ok(Payload::Stream(body));
    }
    match body.collect().await {
        Ok(whole) => Ok(Payload::Whole(whole.to_bytes())),
        Err(error) => Err(EgressError::Failed(format!(
            "the request's body broke off: {error}"
        ))),
    }
}

fn head<B>(hop: &Hop, body: B) -> Result<Request<B>, EgressError> {
    let unsendable = |error: http::Error| {
        EgressError::Unsendable(format!("the request cannot be sent: {error}"))
    };
    let target = &hop.url[url::Position::BeforePath..url::Position::AfterQuery];
    let host = &hop.url[url::Position::BeforeHost..url::Position::AfterPort];
    let mut request = Request::builder()
        .method(hop.method.clone())
        .uri(target)
        .body(body)
        .map_err(unsendable)?;
    let headers = request.headers_mut();
    // Fields in their order, with Host in front as RFC 9110 asks.
    headers.insert(
        header::HOST,
        HeaderValue::from_str(host).map_err(|error| unsendable(error.into()))?,
    );
    headers.extend(hop.headers.clone());
    if !headers.contains_key(header::USER_AGENT) {
        headers.insert(header::USER_AGENT, HeaderValue::from_static("isolet"));
    }
    if !headers.contains_key(header::ACCEPT) {
        headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
    }
    Ok(request)
}

/// Takes out what belongs to a connection and not to the message, and what is between worker and agent.
pub fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    let own: Vec<HeaderName> = headers
        .keys()
        .filter(|name| name.as_str().starts_with("isolet-"))
        .cloned()
        .collect();
    let fixed = [
        header::CONNECTION,
        header::HOST,
        header::PROXY_AUTHENTICATE,
        header::PROXY_AUTHORIZATION,
        header::TE,
        header::TRAILER,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
        header::EXPECT,
        HeaderName::from_static("keep-alive"),
        HeaderName::from_static("proxy-connection"),
        HeaderName::from_static("http2-settings"),
    ];
    for name in named.into_iter().chain(own).chain(fixed) {
        headers.remove(name);
    }
}

/// hyper's own text says little; its sources say why.
fn chain(error: &hyper::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        source = inner.source();
    }
    text
}
