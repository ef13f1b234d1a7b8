//! The long poll of one runtime pod. One poller a pod, one request at a time, every answer bounded in size and time.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use isolet_crds::report::{self, FunctionsReport};

use super::GRACE;
use crate::context::Context;

/// How long an agent may hold a request.
const HOLD: Duration = Duration::from_secs(30);
/// How much longer an answer may take; without a cursor the agent answers at once.
const SLACK: Duration = Duration::from_secs(5);
const CONNECT: Duration = Duration::from_secs(3);
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(5);
/// 5,000 functions with a long message each.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// The HTTP client of all pollers.
#[derive(Clone)]
pub(crate) struct AgentClient(Client<HttpConnector, Empty<Bytes>>);

impl Default for AgentClient {
    fn default() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT));
        connector.set_nodelay(true);
        Self(Client::builder(TokioExecutor::new()).build(connector))
    }
}

#[derive(Debug, thiserror::Error)]
enum PollError {
    #[error("failed to read the token file: {0}")]
    Token(#[source] std::io::Error),
    #[error("failed to make the request: {0}")]
    Request(#[from] http::Error),
    #[error("no answer: {0}")]
    Transport(#[from] hyper_util::client::legacy::Error),
    #[error("no answer in {0:?}")]
    Timeout(Duration),
    #[error("the agent answered {0}: {1}")]
    Status(StatusCode, String),
    #[error("failed to read the answer: {0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
    #[error("the answer is no report: {0}")]
    Json(#[from] serde_json::Error),
}

/// Polls until dropped.
pub(super) async fn run(context: Arc<Context>, pod: String, uid: String, address: IpAddr) {
    let address = SocketAddr::new(address, context.config.agent_port);
    let mut cursor: Option<String> = None;
    let mut heard = Instant::now();
    let mut retry = FIRST_RETRY;
    loop {
        match poll(&context, address, cursor.as_deref()).await {
            Ok(report) => {
                heard = Instant::now();
                retry = FIRST_RETRY;
                cursor = Some(report.cursor.clone());
                let changed = context.agents.merge(&pod, &uid, report);
                context.agents_changed(changed);
                continue;
            }
            Err(error) => {
                tracing::debug!(pod, %error, "failed to ask a runtime pod what it serves")
            }
        }
        // Whatever the agent became meanwhile, its whole state is asked for again.
        cursor = None;
        let wait = retry.mul_f64(jitter());
        if heard.elapsed() + wait >= GRACE && context.agents.silence(&pod, &uid) {
            tracing::warn!(pod, %address, "a runtime pod does not answer the operator");
            context.agents_changed(super::Changed::All);
        }
        tokio::time::sleep(wait).await;
        retry = (retry * 2).min(LAST_RETRY);
    }
}

async fn poll(
    context: &Context,
    address: SocketAddr,
    cursor: Option<&str>,
) -> Result<FunctionsReport, PollError> {
    let token = token(&context.config.token_file).await?;
    let request = Request::get(uri(address, cursor))
        .header(AUTHORIZATION, format!("Bearer {token}"))
        .body(Empty::new())?;
    let answer = async {
        let response = context.agent_client.0.request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES);
        let body = body.collect().await.map_err(PollError::Body)?.to_bytes();
        if status != StatusCode::OK {
            let text = String::from_utf8_lossy(&body[..body.len().min(300)]).into_owned();
            return Err(PollError::Status(status, text));
        }
        Ok(serde_json::from_slice(&body)?)
    };
    let limit = cursor.map_or(SLACK, |_| HOLD + SLACK);
    tokio::time::timeout(limit, answer)
        .await
        .map_err(|_| PollError::Timeout(limit))?
}

fn uri(address: SocketAddr, cursor: Option<&str>) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(cursor.map(|cursor| ("since", cursor)));
    query.append_pair("timeoutSeconds", &HOLD.as_secs().to_string());
    format!("http://{address}{}?{}", report::PATH, query.finish())
}

/// Read each time: the kubelet replaces the file before the token expires.
async fn token(path: &Path) -> Result<String, PollError> {
    let text = tokio::fs::read_to_string(path)
        .await
        .map_err(PollError::Token)?;
    Ok(text.trim().to_owned())
}

/// Between 0.5 and 1.5, so that pods that failed together are not asked together.
pub(crate) fn jitter() -> f64 {
    use std::hash::{BuildHasher as _, RandomState};
    0.5 + RandomState::new().hash_one(Instant::now()) as f64 / u64::MAX as f64
}
