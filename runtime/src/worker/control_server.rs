//! The worker's end of the control socket: takes bundles and removals from the agent, gives metrics.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use isolet_crds::bundle::{Bundle, MAX_COMPRESSED_BYTES, SecretValues};
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::control::{
    BUNDLE_BYTES_HEADER, CHECKED_HEADER, CODE_BYTES_HEADER, LoadError, MAX_CODE_BYTES, OPEN_PATH,
    STARTS_PATH,
};
use crate::scheduler::{Functions, Offer};
use crate::server::outbox;

/// A bundle, as many secrets, and code.
const MAX_PUT_BYTES: usize = 2 * MAX_COMPRESSED_BYTES + MAX_CODE_BYTES;

/// Serves the agent; `gone` is dropped when the socket closes.
pub(super) async fn serve(
    socket: UnixStream,
    functions: Arc<Functions>,
    opened: CancellationToken,
    gone: oneshot::Sender<()>,
) {
    let service = service_fn(move |request| {
        let (functions, opened) = (Arc::clone(&functions), opened.clone());
        async move { Ok::<_, Infallible>(answer(&functions, &opened, request).await) }
    });
    let served = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(socket), service)
        .await;
    if let Err(error) = served {
        tracing::warn!(%error, "the control connection ended");
    }
    drop(gone);
}

async fn answer(
    functions: &Functions,
    opened: &CancellationToken,
    request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    // Metrics of many Functions take a millisecond.
    outbox::send();
    let path = request.uri().path().to_owned();
    let uid = path
        .strip_prefix("/functions/")
        .filter(|uid| !uid.is_empty());
    match (request.method(), uid) {
        (&Method::PUT, Some(uid)) => match put(functions, uid, request).await {
            Ok(loaded) => json(StatusCode::OK, &loaded),
            Err(error) => json(StatusCode::UNPROCESSABLE_ENTITY, &error),
        },
        (&Method::DELETE, Some(uid)) => {
            functions.delete(uid).await;
            text(StatusCode::OK, String::new())
        }
        (&Method::POST, None) if path == OPEN_PATH => {
            opened.cancel();
            text(StatusCode::OK, String::new())
        }
        (&Method::GET, None) if path == STARTS_PATH => {
            json(StatusCode::OK, &functions.services().start_log.next().await)
        }
        (&Method::GET, None) if path == "/metrics" => {
            let services = functions.services();
            services.metrics.pool(services.pool.ready());
            text(StatusCode::OK, services.metrics.text())
        }
        _ => text(StatusCode::NOT_FOUND, "no such operation\n".into()),
    }
}

async fn put(
    functions: &Functions,
    uid: &str,
    request: Request<Incoming>,
) -> Result<crate::control::Loaded, LoadError> {
    let bundle_bytes = length(&request, BUNDLE_BYTES_HEADER);
    let code_bytes = length(&request, CODE_BYTES_HEADER);
    let checked = request.headers().contains_key(CHECKED_HEADER);
    let body = Limited::new(request.into_body(), MAX_PUT_BYTES)
        .collect()
        .await
        .map_err(|_| refuse("the bundle did not arrive whole"))?
        .to_bytes();
    // To decode it may take milliseconds.
    outbox::send();
    let (body, code) = body
        .len()
        .checked_sub(code_bytes.unwrap_or(0))
        .and_then(|at| body.split_at_checked(at))
        .ok_or_else(|| refuse("the code did not arrive whole"))?;
    let (archive, secrets) = body
        .split_at_checked(bundle_bytes.unwrap_or(body.len()))
        .ok_or_else(|| refuse("the bundle did not arrive whole"))?;
    let bundle = Bundle::decode(archive, None).map_err(|error| refuse(&error.to_string()))?;
    if bundle.manifest.function.uid != uid {
        return Err(refuse("the bundle belongs to another function"));
    }
    let revision = bundle
        .digest()
        .map_err(|error| refuse(&error.to_string()))?
        .revision()
        .to_owned();
    let secrets = if secrets.is_empty() {
        SecretValues::default()
    } else {
        SecretValues::decode(secrets).map_err(|error| refuse(&error.to_string()))?
    };
    if let Some(name) = bundle
        .manifest
        .secret_env
        .keys()
        .find(|name| !secrets.values.contains_key(*name))
    {
        return Err(refuse(&format!("the value of env {name} is missing")));
    }
    let offer = Offer {
        checked,
        code: code_bytes.map(|_| code),
    };
    functions.put(revision, bundle, secrets, offer).await
}

fn length(request: &Request<Incoming>, header: &str) -> Option<usize> {
    request.headers().get(header)?.to_str().ok()?.parse().ok()
}

fn refuse(problem: &str) -> LoadError {
    LoadError {
        message: problem.to_owned(),
        file: None,
        line: None,
        column: None,
    }
}

fn json(status: StatusCode, value: &impl serde::Serialize) -> Response<Full<Bytes>> {
    match serde_json::to_string(value) {
        Ok(body) => text(status, body),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response
}
