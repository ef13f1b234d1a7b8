//! Why a request got no answer from its function: one enum for the response, the log line and the metric.

use http::header::{CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};

use super::body::Body;
use crate::limits::heap::Excess;

/// Why a request got no answer from its function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum RequestError {
    /// It has no Host header, or several.
    #[error("the request must have exactly one Host header")]
    BadRequest,
    /// No Function has this host and path.
    #[error("no function serves this host and path")]
    NotFound,
    /// `spec.suspend` is true.
    #[error("this function is suspended")]
    Suspended,
    /// The request used up `limits.cpu`.
    #[error("the function used more CPU time than its limits.cpu allows for one request")]
    CpuLimitExceeded,
    /// The instance used up `limits.memory`.
    #[error("the function used more memory than its limits.memory allows")]
    MemoryLimitExceeded,
    /// All instances together used too much memory, and this one more than its share.
    #[error("this runtime pod has no memory left, and the function used more of it than its share")]
    MemoryPressure,
    /// `limits.concurrency` requests are under way.
    #[error("the function has as many requests under way as its limits.concurrency allows")]
    ConcurrencyLimitExceeded,
    /// Too many requests compute for long at once, and this Function has used most.
    #[error(
        "this pod has more to compute than it can, and the function has used more of it than others"
    )]
    TooBusy,
    /// `limits.timeout` is over.
    #[error("the function did not answer within its limits.timeout")]
    Timeout,
    /// The body is larger than `limits.body`.
    #[error("the request body is larger than the function's limits.body")]
    BodyTooLarge,
    /// The handler threw, or gave no response.
    #[error("the function failed")]
    HandlerError,
    /// The instance does not start.
    #[error("the function could not be started")]
    StartFailed,
    /// There is no room for another instance.
    #[error("this runtime pod has no room for another instance at the moment")]
    Overloaded,
}

impl From<Excess> for RequestError {
    fn from(excess: Excess) -> Self {
        match excess {
            Excess::Limit => Self::MemoryLimitExceeded,
            Excess::Share => Self::MemoryPressure,
        }
    }
}

impl RequestError {
    /// Name in answers, logs and metrics.
    pub fn reason(self) -> &'static str {
        match self {
            Self::BadRequest => "BadRequest",
            Self::NotFound => "NotFound",
            Self::Suspended => "Suspended",
            Self::CpuLimitExceeded => "CPULimitExceeded",
            Self::MemoryLimitExceeded => "MemoryLimitExceeded",
            Self::MemoryPressure => "MemoryPressure",
            Self::ConcurrencyLimitExceeded => "ConcurrencyLimitExceeded",
            Self::TooBusy => "TooBusy",
            Self::Timeout => "Timeout",
            Self::BodyTooLarge => "BodyTooLarge",
            Self::HandlerError => "HandlerError",
            Self::StartFailed => "StartFailed",
            Self::Overloaded => "Overloaded",
        }
    }

    /// HTTP status.
    pub fn status(self) -> StatusCode {
        match self {
            Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::HandlerError => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Timeout => StatusCode::GATEWAY_TIMEOUT,
            Self::Suspended
            | Self::CpuLimitExceeded
            | Self::MemoryLimitExceeded
            | Self::MemoryPressure
            | Self::ConcurrencyLimitExceeded
            | Self::TooBusy
            | Self::StartFailed
            | Self::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The answer that the caller gets.
    pub fn response(self) -> Response<Body> {
        let text = serde_json::json!({
            "error": { "reason": self.reason(), "message": self.to_string() }
        });
        let mut response = Response::new(Body::full(format!("{text}\n").into()));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if self == Self::BadRequest {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        if matches!(
            self,
            Self::MemoryPressure
                | Self::ConcurrencyLimitExceeded
                | Self::TooBusy
                | Self::Overloaded
        ) {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
