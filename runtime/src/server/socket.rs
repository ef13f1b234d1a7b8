//! A client's socket with two time limits that hyper does not have: for the bytes that tell the protocol, which it awaits
//! before any of its own limits begins, and for a client that takes nothing of what is written to it.
//!
//! It also sees a client hang up whose request's body nobody takes: hyper reads no further then.

use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::FutureExt;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep, sleep_until};

/// What an HTTP/2 connection begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How often a socket that nobody reads is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// A client's socket. Reads and writes fail with `TimedOut` once a limit is over.
pub(super) struct Socket {
    stream: TcpStream,
    /// None once it is clear which protocol the client speaks.
    opening: Option<Opening>,
    /// How long a write may wait for the client.
    stall_timeout: Duration,
    /// Runs while one does.
    stalled: Option<Pin<Box<Sleep>>>,
    /// A read waits for the client: it will end if he hangs up.
    is_reading: bool,
    /// Until the next look whether he has, where none does.
    look: Option<Pin<Box<Sleep>>>,
}

/// A connection whose protocol is not known yet.
struct Opening {
    until: Instant,
    timer: Option<Pin<Box<Sleep>>>,
    /// Bytes of the preface that have come.
    matched: usize,
}

impl Socket {
    pub(super) fn new(stream: TcpStream, head_timeout: Duration, stall_timeout: Duration) -> Self {
        Self {
            stream,
            opening: Some(Opening {
                until: Instant::now() + head_timeout,
                timer: None,
                matched: 0,
            }),
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
            none => none.insert(Box::pin(sleep(LOOK))),
        };
        // Kept where a read waits now: a busy connection has one timer a second, not one a request.
        while timer.as_mut().poll(context).is_ready() {
            if self.is_reading {
                self.look = None;
                break;
            }
            let readiness = self.stream.ready(Interest::READABLE).now_or_never();
            if readiness.transpose()?.is_some_and(|it| it.is_read_closed()) {
                return Err(ErrorKind::ConnectionReset.into());
            }
            timer.as_mut().reset(Instant::now() + LOOK);
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
        let timer = self.stalled.get_or_insert_with(|| Box::pin(sleep(timeout)));
        ready!(timer.as_mut().poll(context));
        Poll::Ready(Err(ErrorKind::TimedOut.into()))
    }
}

impl Opening {
    /// Takes what has come; true once the protocol is clear.
    fn is_over(&mut self, bytes: &[u8]) -> bool {
        let rest = &PREFACE[self.matched..];
        let length = bytes.len().min(rest.len());
        self.matched += length;
        bytes.is_empty() || bytes[..length] != rest[..length] || self.matched == PREFACE.len()
    }

    fn poll_over(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let until = self.until;
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(sleep_until(until)));
        timer.as_mut().poll(context)
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
        let Some(opening) = &mut self.opening else {
            return read;
        };
        if read.is_pending() {
            ready!(opening.poll_over(context));
            return Poll::Ready(Err(ErrorKind::TimedOut.into()));
        }
        if opening.is_over(&buffer.filled()[before..]) {
            self.opening = None;
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
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.watch(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.look(context)?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_over(pieces: &[&[u8]]) -> bool {
        let mut opening = Opening {
            until: Instant::now(),
            timer: None,
            matched: 0,
        };
        pieces
            .iter()
            .map(|piece| opening.is_over(piece))
            .fold(false, |_, over| over)
    }

    #[test]
    fn the_protocol_is_clear_at_the_first_byte_that_differs_or_the_last_that_does_not() {
        assert!(is_over(&[b"GET / HTTP/1.1\r\n"]));
        assert!(is_over(&[b"P", b"OST"]));
        assert!(is_over(&[PREFACE]));
        assert!(is_over(&[&PREFACE[..10], &PREFACE[10..]]));
        assert!(is_over(&[&[PREFACE, b"more"].concat()]));
        assert!(is_over(&[b"PRI", b""]), "the end of the connection");
        assert!(!is_over(&[b"P"]));
        assert!(!is_over(&[&PREFACE[..10], &PREFACE[10..23]]));
    }
}
