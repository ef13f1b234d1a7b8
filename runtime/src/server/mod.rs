//! HTTP/1.1 and h2c for tenants: from a connection to a Function and back.
//!
//! A server takes a listener and a shutdown future: it then stops accepting, serves what has begun to arrive on the
//! connections that there are, and returns.

pub mod body;
pub mod error;
mod exchange;
pub mod outbox;
mod socket;
mod timer;

use std::convert::Infallible;
use std::error::Error;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::header;
use http::{Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::unconstrained;
use tokio::time::Instant;

use self::body::Body;
use self::error::RequestError;
use self::exchange::{Exchange, Exchanges};
use self::socket::Socket;
use self::timer::IdleTimer;
use crate::scheduler::{Admission, Answered, Function, Functions, Inbound};
use crate::web::RequestHead;

/// Target of the log line of each request.
pub(crate) const LOG: &str = "isolet_runtime::server";
/// Size of a request's head.
const MAX_HEAD_BYTES: usize = 64 << 10;
/// Requests at once in one HTTP/2 connection.
const MAX_STREAMS: u32 = 256;
/// Pause after a failed accept, such as for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What clients may take.
#[derive(Clone, Copy, Debug)]
pub struct ClientLimits {
    /// Connections at once; more wait in the listener's backlog.
    pub connections: usize,
    /// Time to send the head of a request, from the connection's begin or the answer before.
    pub head_timeout: Duration,
    /// Time without taking anything of an answer that waits.
    pub stall_timeout: Duration,
}

/// Serves until `shutdown` resolves, then at most `drain` longer.
pub async fn serve(
    listener: TcpListener,
    functions: Arc<Functions>,
    limits: ClientLimits,
    shutdown: impl Future<Output = ()>,
    drain: Duration,
) {
    let (stop, stopping) = watch::channel(());
    let builder = builder();
    let mut shutdown = pin!(shutdown);
    let places = Arc::new(Semaphore::new(limits.connections));
    loop {
        let accept = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, stream) = tokio::select! {
            (place, accepted) = accept => match accepted {
                Ok((stream, _)) => (place, stream),
                Err(error) => {
                    tracing::warn!(%error, "failed to accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
            () = &mut shutdown => break,
        };
        // A socket that refuses the option only sends small packets later.
        let _ = stream.set_nodelay(true);
        let exchanges = Exchanges::new();
        let idle = IdleTimer::new(Arc::clone(&exchanges), limits.head_timeout);
        let socket = Socket::new(
            stream,
            Arc::clone(&exchanges),
            limits.head_timeout,
            limits.stall_timeout,
        );
        let functions = Arc::clone(&functions);
        let service = service_fn(move |request| {
            let answer = handle(Arc::clone(&functions), request, exchanges.begin());
            async { Ok::<_, Infallible>(answer.await) }
        });
        let connection = builder
            .serve_connection(TokioIo::new(socket), service)
            .into_owned();
        let stopping = stopping.clone();
        tokio::spawn(async move {
            let _place = place;
            if let Err(error) = converse(connection, idle, stopping).await {
                tracing::debug!(%error, "a connection ended with an error");
            }
        });
    }
    drop((listener, stopping));
    // The tasks of the connections hold the receivers.
    let all_ended = async {
        stop.send_replace(());
        stop.closed().await;
    };
    if tokio::time::timeout(drain, all_ended).await.is_err() {
        tracing::warn!("requests still under way at the end of the drain were broken off");
    }
}

/// Serves a connection until the client ends it, the worker stops, or no request has come for too long: then the client is
/// told, which over HTTP/2 loses none that it sends at that moment.
async fn converse<S>(
    connection: auto::Connection<'_, TokioIo<Socket>, S, TokioExecutor>,
    mut idle: IdleTimer,
    mut stopping: watch::Receiver<()>,
) -> Result<(), Box<dyn Error + Send + Sync>>
where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    let mut connection = pin!(connection);
    let stop = stopping.clone();
    let mut stopped = pin!(unconstrained(stopping.changed()));
    let mut is_awaited = false;
    let ended = poll_fn(|context| {
        if let Poll::Ready(ended) = connection.as_mut().poll(context) {
            return Poll::Ready(Some(ended));
        }
        // The task's waker is always the same: a look is enough once it is known.
        if !is_awaited || stop.has_changed().unwrap_or(true) {
            is_awaited = true;
            if stopped.as_mut().poll(context).is_ready() {
                return Poll::Ready(None);
            }
        }
        idle.poll(context).map(|()| None)
    });
    if let Some(ended) = ended.await {
        return ended;
    }
    let is_idle = !stop.has_changed().unwrap_or(true);
    connection.as_mut().graceful_shutdown();
    idle.restart();
    tokio::select! {
        ended = connection => ended,
        // The client does not say that it knows.
        () = poll_fn(|context| idle.poll(context)), if is_idle => Ok(()),
    }
}

fn builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        // The socket has one.
        .header_read_timeout(None)
        .max_buf_size(MAX_HEAD_BYTES)
        .keep_alive(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(MAX_HEAD_BYTES as u32)
        .max_concurrent_streams(MAX_STREAMS)
        .keep_alive_interval(Some(Duration::from_secs(30)))
        .keep_alive_timeout(Duration::from_secs(20));
    builder
}

/// Finds the Function at once, so that the future, which hyper moves, holds only what is needed after that.
fn handle(
    functions: Arc<Functions>,
    request: Request<Incoming>,
    exchange: Exchange,
) -> impl Future<Output = Response<Body>> {
    let arrived = Instant::now();
    let is_head = request.method() == Method::HEAD;
    let line = Line::of(&request);
    let (function, call) = admit(&functions, request, arrived);
    async move {
        let answer = match call {
            Ok(call) => call.admission.handle(call.head, call.body).await,
            Err(error) => Err(error),
        };
        let services = functions.services();
        let function = function.as_deref();
        let counters = function.map(Function::metrics);
        let Answered { mut response, cpu } = answer.unwrap_or_else(|error| {
            services.metrics.failed(counters, error.reason());
            Answered {
                response: error.response(),
                cpu: None,
            }
        });
        if services.server_timing
            && let Some(cpu) = cpu
            && let Ok(value) = server_timing(cpu).try_into()
        {
            response.headers_mut().append("server-timing", value);
        }
        let status = response.status();
        let took = arrived.elapsed();
        services.metrics.answered(counters, status.as_u16(), took);
        if let Some(line) = line {
            line.write(function, status, cpu, took);
        }
        let mut response = without_body_where_none_may_be(response, is_head);
        response.body_mut().ends(exchange);
        response
    }
}

/// The log line of a request. The query may hold secrets: it is not in it.
struct Line(Box<(Method, String)>);

impl Line {
    /// None where nobody logs it.
    fn of(request: &Request<Incoming>) -> Option<Self> {
        tracing::enabled!(target: LOG, tracing::Level::DEBUG).then(|| {
            let path = request.uri().path().to_owned();
            Self(Box::new((request.method().clone(), path)))
        })
    }

    fn write(
        self,
        function: Option<&Function>,
        status: StatusCode,
        cpu: Option<Duration>,
        took: Duration,
    ) {
        let (method, path) = *self.0;
        let identity = function.map(Function::identity);
        tracing::debug!(
            target: LOG,
            namespace = identity.map(|it| it.namespace.as_str()),
            function = identity.map(|it| it.name.as_str()),
            method = method.as_str(),
            path,
            status = status.as_u16(),
            cpu_ms = cpu.map(|cpu| cpu.as_micros() as f64 / 1000.0),
            ms = took.as_millis() as u64,
            "request"
        );
    }
}

/// CPU time as <https://www.w3.org/TR/server-timing/> has it, in milliseconds.
fn server_timing(cpu: Duration) -> String {
    let us = cpu.as_micros();
    format!("cpu;dur={}.{:03}", us / 1000, us % 1000)
}

/// A request that its Function may run.
struct Call {
    admission: Admission,
    head: Box<RequestHead>,
    body: Option<Inbound>,
}

/// The Function that a request is for, and whether it may run.
fn admit(
    functions: &Functions,
    request: Request<Incoming>,
    arrived: Instant,
) -> (Option<Arc<Function>>, Result<Call, RequestError>) {
    let (parts, body) = request.into_parts();
    if !has_one_host(&parts) {
        return (None, Err(RequestError::BadRequest));
    }
    // HTTP/2 has the host in the URI, HTTP/1 in a header.
    let host = match parts.uri.authority() {
        Some(authority) => authority.as_str(),
        None => parts
            .headers
            .get(header::HOST)
            .and_then(|host| host.to_str().ok())
            .unwrap_or_default(),
    };
    let Some((function, path)) = functions.route(host, parts.uri.path()) else {
        return (None, Err(RequestError::NotFound));
    };
    let admission = match function.admit(arrived) {
        Ok(admission) => admission,
        Err(error) => return (Some(function), Err(error)),
    };
    let declared_bytes = parts
        .headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse().ok());
    let url = url(host, path, parts.uri.query());
    let call = admission.body(body, declared_bytes).map(|body| Call {
        admission,
        head: Box::new(RequestHead {
            url,
            method: parts.method,
            headers: parts.headers,
        }),
        body,
    });
    (Some(function), call)
}

/// Whether everybody must take the request as meant for the same host (RFC 9112, 3.2): a proxy before us might look at
/// another of several.
fn has_one_host(parts: &http::request::Parts) -> bool {
    let mut hosts = parts.headers.get_all(header::HOST).iter();
    let is_named = hosts.next().is_some() || parts.version != Version::HTTP_11;
    is_named && hosts.next().is_none()
}

/// What the function sees as `request.url`.
fn url(host: &str, path: &str, query: Option<&str>) -> String {
    let host = if host.is_empty() { "localhost" } else { host };
    let slash = if path.starts_with('/') { "" } else { "/" };
    let (mark, query) = query.map_or(("", ""), |query| ("?", query));
    ["http://", host, slash, path, mark, query].concat()
}

/// Answers to HEAD and of some statuses have headers only.
fn without_body_where_none_may_be(mut response: Response<Body>, is_head: bool) -> Response<Body> {
    let status = response.status();
    if is_head
        && !response.headers().contains_key(header::CONTENT_LENGTH)
        && let Some(length) = response.body().known_length()
    {
        response
            .headers_mut()
            .insert(header::CONTENT_LENGTH, length.into());
    }
    if is_head
        || status == StatusCode::NO_CONTENT
        || status == StatusCode::RESET_CONTENT
        || status == StatusCode::NOT_MODIFIED
    {
        *response.body_mut() = Body::empty();
    }
    response
}
