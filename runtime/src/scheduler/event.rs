//! What an instance is entered for.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::inbound::{Inbound, InboundError};
use super::outbound::Fetched;
use super::state::{State, ended};
use crate::isolate::Entry;
use crate::web::RequestHead;
use crate::web::host::{Completion, CompletionId, HostError, InboundResponse, RequestId, StreamId};

/// What an instance is entered for.
#[derive(Debug)]
pub(super) enum Event {
    /// A request.
    Dispatch(RequestId, Box<RequestHead>, Option<StreamId>),
    /// A timer fired, a pipe has room.
    Done(CompletionId),
    /// A read ended.
    Read {
        id: CompletionId,
        stream: StreamId,
        outcome: Result<Option<Bytes>, InboundError>,
        inbound: Inbound,
    },
    /// A fetch ended.
    Fetched {
        id: CompletionId,
        outcome: Result<Fetched, HostError>,
    },
    /// The caller has gone.
    Abort(RequestId),
    /// `limits.timeout` is over; the caller knows.
    Expire(RequestId),
    /// JavaScript waits for this, but its request has ended.
    Orphan(CompletionId),
}

/// What an event becomes.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) request: RequestId,
    pub(super) entry: Entry,
    /// The request's time is over.
    pub(super) expired: bool,
    /// CPU time that the request still has, and when its wall time ends.
    pub(super) time_left: (Duration, Instant),
}

impl Event {
    /// From an event to an entry for a request. None for what nobody waits for any more.
    pub(super) fn prepare(self, state: &mut State, now: Instant) -> Option<Prepared> {
        state.set_clocks(now);
        let complete = |request, id, completion| {
            let entry = Entry::Complete {
                request,
                id,
                completion,
            };
            (request, entry, false)
        };
        let (request, entry, expired) = match self {
            Self::Dispatch(request, head, body) => {
                state.live(request)?;
                let entry = Entry::Dispatch {
                    request,
                    head,
                    body,
                };
                (request, entry, false)
            }
            Self::Done(id) => complete(state.take(id)?, id, Completion::Done),
            Self::Orphan(id) => complete(state.take(id)?, id, Completion::Failed(ended())),
            Self::Read {
                id,
                stream,
                outcome,
                inbound,
            } => {
                let request = state.take(id)?;
                let completion = match outcome {
                    Ok(piece) => {
                        state.return_inbound(stream, inbound);
                        Completion::Chunk(piece)
                    }
                    Err(error) => Completion::Failed(state.inbound_failed(request, stream, &error)),
                };
                complete(request, id, completion)
            }
            Self::Fetched { id, outcome } => {
                let request = state.take(id)?;
                let completion = match outcome {
                    // A body that nobody can end would stay.
                    Ok(_) if state.live(request).is_none() => Completion::Failed(ended()),
                    Ok(fetched) => {
                        let body = Inbound::of_response(fetched.body);
                        let body = (!body.is_end()).then(|| state.add_inbound(request, body));
                        Completion::Response(InboundResponse {
                            status: fetched.status,
                            status_text: String::new(),
                            headers: fetched.headers,
                            url: fetched.url,
                            redirected: fetched.redirected,
                            body,
                        })
                    }
                    Err(error) => Completion::Failed(error),
                };
                complete(request, id, completion)
            }
            Self::Abort(request) => {
                state.live(request)?;
                (request, abort(request, "The client has gone"), false)
            }
            Self::Expire(request) => {
                state.live(request)?;
                (request, abort(request, "The request's time is over"), true)
            }
        };
        state.current = Some(request);
        Some(Prepared {
            request,
            entry,
            expired,
            time_left: state.time_left(request),
        })
    }
}

fn abort(request: RequestId, reason: &str) -> Entry {
    Entry::Abort {
        request,
        reason: reason.to_owned(),
    }
}
