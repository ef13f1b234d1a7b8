//! Bodies that arrive, of requests and of fetched responses, read one piece at a time as JavaScript asks.

use bytes::Bytes;
use http_body_util::{BodyExt, Either};
use hyper::body::{Body, Incoming};

use super::connections::HeldBody;
use crate::limits::body::{BodyLimit, BodyTooLarge};

/// A body that arrives.
#[derive(Debug)]
pub struct Inbound {
    body: Either<Incoming, HeldBody>,
    limit: Option<BodyLimit>,
}

/// Why there is no next piece.
#[derive(Debug, thiserror::Error)]
pub(super) enum InboundError {
    /// More than `limits.body`.
    #[error(transparent)]
    TooLarge(#[from] BodyTooLarge),
    /// The other side went away or broke the protocol.
    #[error("the body was cut off")]
    Broken,
}

impl Inbound {
    /// Body of a request.
    pub(super) fn of_request(body: Incoming, limit: BodyLimit) -> Self {
        Self {
            body: Either::Left(body),
            limit: Some(limit),
        }
    }

    /// Body of a fetched response.
    pub(super) fn of_response(body: HeldBody) -> Self {
        Self {
            body: Either::Right(body),
            limit: None,
        }
    }

    /// Whether it is known to be empty.
    pub(super) fn is_end(&self) -> bool {
        self.body.is_end_stream()
    }

    /// The next piece that is not empty, none at the end. Dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, InboundError> {
        while let Some(frame) = self.body.frame().await {
            let Ok(piece) = frame.map_err(|_| InboundError::Broken)?.into_data() else {
                continue;
            };
            if piece.is_empty() {
                continue;
            }
            if let Some(limit) = &mut self.limit {
                limit.take(&piece)?;
            }
            return Ok(Some(piece));
        }
        Ok(None)
    }
}
