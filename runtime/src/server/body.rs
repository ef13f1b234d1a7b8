//! Response bodies: none, whole, or written by JavaScript while the client reads.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};

use super::exchange::Exchange;
use crate::limits::heap::Charge;
use crate::scheduler::pipe::{PipeBroken, PipeReader};

/// Body of a response.
#[derive(Debug)]
pub struct Body {
    kind: Kind,
    /// Over when the body is dropped.
    exchange: Option<Exchange>,
}

#[derive(Debug)]
enum Kind {
    Empty,
    Full {
        bytes: Bytes,
        /// Given back when the body is dropped.
        _charge: Option<Charge>,
    },
    Pipe {
        reader: PipeReader,
        /// What came before the body broke off had a chance to be sent.
        is_flushed: bool,
    },
}

impl Body {
    fn new(kind: Kind) -> Self {
        Self {
            kind,
            exchange: None,
        }
    }

    /// No body.
    pub fn empty() -> Self {
        Self::new(Kind::Empty)
    }

    /// The request is over when this body is.
    pub(super) fn ends(&mut self, exchange: Exchange) {
        self.exchange = Some(exchange);
    }

    /// A whole body.
    pub fn full(bytes: Bytes) -> Self {
        Self::new(Kind::Full {
            bytes,
            _charge: None,
        })
    }

    /// A whole body that counts as its instance's memory until it has been sent.
    pub fn charged(bytes: Bytes, charge: Charge) -> Self {
        Self::new(Kind::Full {
            bytes,
            _charge: Some(charge),
        })
    }

    /// A body that arrives through a pipe.
    pub fn pipe(reader: PipeReader) -> Self {
        Self::new(Kind::Pipe {
            reader,
            is_flushed: false,
        })
    }

    /// Whether its length is known, and which it is.
    pub fn known_length(&self) -> Option<u64> {
        match &self.kind {
            Kind::Empty => Some(0),
            Kind::Full { bytes, .. } => Some(bytes.len() as u64),
            Kind::Pipe { reader, .. } => reader.known_length(),
        }
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = PipeBroken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, PipeBroken>>> {
        match &mut self.kind {
            Kind::Empty => Poll::Ready(None),
            Kind::Full { bytes, .. } => {
                let bytes = std::mem::take(bytes);
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
            Kind::Pipe { reader, is_flushed } => {
                let piece = ready!(reader.poll_piece(context));
                // When a body fails hyper drops what it has not sent yet, the head too. It sends while a body has nothing.
                if matches!(piece, Some(Err(_))) && !*is_flushed {
                    *is_flushed = true;
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Poll::Ready(piece.map(|piece| piece.map(Frame::data)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Empty => true,
            Kind::Full { bytes, .. } => bytes.is_empty(),
            Kind::Pipe { reader, .. } => reader.known_length() == Some(0),
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.known_length()
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
