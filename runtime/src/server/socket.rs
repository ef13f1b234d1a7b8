//! A client's socket with two time limits: for a client that does not send the head of a request, and for one that takes
//! nothing of what is written to it. One timer a connection, which is looked at when it fires, not set anew by each request.
//!
//! It also sees a client hang up whose request's body nobody takes: hyper reads no further then.

use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::FutureExt;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use tokio::time::Instant;

use super::exchange::Exchanges;
use super::outbox::Outgoing;
use super::timer::{IdleTimer, Timer};

/// What an HTTP/2 connection begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How often a socket that nobody reads is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// A client's socket. Reads and writes fail with `TimedOut` once a limit is over.
pub(super) struct Socket {
    stream: OwnedReadHalf,
    outgoing: Arc<Outgoing>,
    protocol: Protocol,
    /// Until the head of a request has taken too long.
    head_timer: IdleTimer,
    /// How long a write may wait for the client.
    stall_timeout: Duration,
    /// Runs while one does.
    stalled: Option<Timer>,
    /// A read waits for the client: it will end if he hangs up.
    is_reading: bool,
    /// Until the next look whether he has, where none does.
    look: Option<Timer>,
}

/// What the client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    /// Not known yet: so many bytes of the preface have come.
    Unknown(usize),
    Http1,
    /// Its clients are told before they are let go (`converse` in the module above), and pinged.
    Http2,
}

impl Socket {
    pub(super) fn new(
        stream: TcpStream,
        exchanges: Arc<Exchanges>,
        head_timeout: Duration,
        stall_timeout: Duration,
    ) -> Self {
        let (stream, outgoing) = stream.into_split();
        Self {
            stream,
            outgoing: Outgoing::new(outgoing),
            protocol: Protocol::Unknown(0),
            head_timer: IdleTimer::new(exchanges, head_timeout),
            stall_timeout,
            stalled: None,
            is_reading: false,
            look: None,
        }
    }

    /// Fails if the client has hung up and no read will tell. hyper flushes whenever its connection is polled.
    fn look(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let timer = match &mut self.look {
            Some(timer) => timer,
            None if self.is_reading => return Ok(()),
            none => none.insert(Timer::new(Instant::now() + LOOK)),
        };
        // Kept where a read waits now: a busy connection has one timer a second, not one a request.
        while timer.poll(context).is_ready() {
            if self.is_reading {
                self.look = None;
                break;
            }
            let readiness = self.stream.ready(Interest::READABLE).now_or_never();
            if readiness.transpose()?.is_some_and(|it| it.is_read_closed()) {
                return Err(ErrorKind::ConnectionReset.into());
            }
            timer.reset(Instant::now() + LOOK);
        }
        Ok(())
    }

    /// Notes whether a write has to wait, and for how long it has.
    fn watch<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let timeout = self.stall_timeout;
        let timer = self
            .stalled
            .get_or_insert_with(|| Timer::new(Instant::now() + timeout));
        ready!(timer.poll(context));
        Poll::Ready(Err(ErrorKind::TimedOut.into()))
    }
}

impl Protocol {
    /// What it is after these bytes.
    fn after(self, bytes: &[u8]) -> Self {
        let Self::Unknown(matched) = self else {
            return self;
        };
        let rest = &PREFACE[matched..];
        let length = bytes.len().min(rest.len());
        if bytes.is_empty() || bytes[..length] != rest[..length] {
            Self::Http1
        } else if matched + length == PREFACE.len() {
            Self::Http2
        } else {
            Self::Unknown(matched + length)
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.is_reading = read.is_pending();
        if read.is_ready() {
            self.protocol = self.protocol.after(&buffer.filled()[before..]);
        } else if self.protocol != Protocol::Http2 {
            ready!(self.head_timer.poll(context));
            return Poll::Ready(Err(ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = self.outgoing.poll_write(context, &[IoSlice::new(bytes)]);
        self.watch(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = self.outgoing.poll_write(context, slices);
        self.watch(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.look(context)?;
        let flushed = self.outgoing.poll_flush(context);
        self.watch(context, flushed)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.outgoing.poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(pieces: &[&[u8]]) -> Protocol {
        let first = Protocol::Unknown(0);
        pieces.iter().fold(first, |known, piece| known.after(piece))
    }

    #[test]
    fn the_protocol_is_clear_at_the_first_byte_that_differs_or_the_last_that_does_not() {
        assert_eq!(after(&[b"GET / HTTP/1.1\r\n"]), Protocol::Http1);
        assert_eq!(after(&[b"P", b"OST", PREFACE]), Protocol::Http1);
        assert_eq!(after(&[PREFACE]), Protocol::Http2);
        assert_eq!(after(&[&PREFACE[..10], &PREFACE[10..]]), Protocol::Http2);
        assert_eq!(after(&[&[PREFACE, b"more"].concat()]), Protocol::Http2);
        assert_eq!(after(&[b"PRI", b""]), Protocol::Http1, "the end of it");
        assert_eq!(after(&[b"P"]), Protocol::Unknown(1));
        let two = [&PREFACE[..10], &PREFACE[10..23]];
        assert_eq!(after(&two), Protocol::Unknown(23));
    }
}
