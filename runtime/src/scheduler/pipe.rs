//! A body on its way out: JavaScript writes at one end, hyper reads at the other, at most [`CAPACITY_BYTES`] wait between.
//!
//! ```text
//! writer (owner of the instance)         reader (task of the connection)
//!   write   -> Accepted, or Wait(id)       poll_piece takes a piece; below half the capacity: Done for that id
//!   close   -> end, or the reason          drop: `gone` runs once, further writes fail
//! ```
//!
//! Bytes between the two ends are charged to the instance's memory.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use crate::egress::JOINED_BYTES;
use crate::limits::heap::HeapBudget;
use crate::web::host::CompletionId;

/// Bytes that may wait; past them a writer has to.
pub const CAPACITY_BYTES: usize = 64 << 10;

/// What the ends tell the instance.
pub trait PipeEvents: Send + Sync {
    /// A writer may go on.
    fn room(&self, id: CompletionId);
    /// The reader went away before the end.
    fn gone(&self);
}

/// The writing end.
pub struct PipeWriter(Arc<Pipe>);

/// The reading end.
pub struct PipeReader(Arc<Pipe>);

/// JavaScript broke the body off, or its request ended first.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the body was broken off: {0}")]
pub struct PipeBroken(String);

/// What became of a piece.
#[derive(Debug, PartialEq, Eq)]
pub enum Written {
    /// There is room for more.
    Accepted,
    /// Taken; the id given gets its completion when there is room again.
    Wait,
    /// The reader has gone.
    Gone,
    /// It does not fit the instance's memory.
    TooLarge,
    /// The writer did not wait for the piece before.
    Busy,
}

struct Pipe {
    state: Mutex<State>,
    budget: Arc<HeapBudget>,
    events: Box<dyn PipeEvents>,
}

#[derive(Default)]
struct State {
    pieces: VecDeque<Bytes>,
    waiting_bytes: usize,
    end: Option<Result<(), PipeBroken>>,
    reader: Option<Waker>,
    writer: Option<CompletionId>,
    reader_gone: bool,
}

/// A new pipe.
pub fn pipe(budget: Arc<HeapBudget>, events: Box<dyn PipeEvents>) -> (PipeWriter, PipeReader) {
    let pipe = Arc::new(Pipe {
        state: Mutex::default(),
        budget,
        events,
    });
    (PipeWriter(Arc::clone(&pipe)), PipeReader(pipe))
}

impl PipeWriter {
    /// Writes a piece. `id` is kept if the writer has to wait.
    pub fn write(&self, piece: Bytes, id: CompletionId) -> Written {
        let mut state = self.0.lock();
        if state.reader_gone {
            return Written::Gone;
        }
        if state.writer.is_some() {
            return Written::Busy;
        }
        if piece.is_empty() || state.end.is_some() {
            return Written::Accepted;
        }
        if !self.0.budget.try_charge(piece.len()) {
            return Written::TooLarge;
        }
        state.waiting_bytes += piece.len();
        state.pieces.push_back(piece);
        let full = state.waiting_bytes > CAPACITY_BYTES;
        if full {
            state.writer = Some(id);
        }
        wake(state);
        if full {
            Written::Wait
        } else {
            Written::Accepted
        }
    }

    /// Ends the body, or breaks it off.
    pub fn close(self, error: Option<String>) {
        self.end(error.map_or(Ok(()), |reason| Err(PipeBroken(reason))));
    }

    fn end(&self, end: Result<(), PipeBroken>) {
        let mut state = self.0.lock();
        state.end.get_or_insert(end);
        wake(state);
    }
}

impl Drop for PipeWriter {
    fn drop(&mut self) {
        self.end(Err(PipeBroken("its request ended".into())));
    }
}

impl PipeReader {
    /// The next piece, none at the end.
    pub fn poll_piece(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, PipeBroken>>> {
        let mut state = self.0.lock();
        let Some(piece) = next_piece(&mut state.pieces) else {
            return match &state.end {
                Some(Ok(())) => Poll::Ready(None),
                Some(Err(broken)) => Poll::Ready(Some(Err(broken.clone()))),
                None => {
                    state.reader = Some(context.waker().clone());
                    Poll::Pending
                }
            };
        };
        state.waiting_bytes -= piece.len();
        let writer = (state.waiting_bytes <= CAPACITY_BYTES / 2)
            .then(|| state.writer.take())
            .flatten();
        drop(state);
        self.0.budget.release(piece.len());
        if let Some(id) = writer {
            self.0.events.room(id);
        }
        Poll::Ready(Some(Ok(piece)))
    }
}

impl PipeReader {
    /// Bytes still to come, once the writer has ended the body.
    pub fn known_length(&self) -> Option<u64> {
        let state = self.0.lock();
        matches!(state.end, Some(Ok(()))).then_some(state.waiting_bytes as u64)
    }
}

impl Drop for PipeReader {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.reader_gone = true;
        let ended = state.end.is_some();
        let writer = state.writer.take();
        let left = std::mem::take(&mut state.waiting_bytes);
        state.pieces.clear();
        drop(state);
        self.0.budget.release(left);
        if let Some(id) = writer {
            self.0.events.room(id);
        }
        if !ended {
            self.0.events.gone();
        }
    }
}

/// The next piece, with those after it that fit into one with it: each that goes out alone costs a frame, and clients take
/// very many small ones for an attack.
fn next_piece(pieces: &mut VecDeque<Bytes>) -> Option<Bytes> {
    let first = pieces.pop_front()?;
    let fits = |length: usize, next: Option<&Bytes>| {
        next.is_some_and(|next| length + next.len() <= JOINED_BYTES)
    };
    if !fits(first.len(), pieces.front()) {
        return Some(first);
    }
    let mut joined = Vec::with_capacity(JOINED_BYTES);
    joined.extend_from_slice(&first);
    while fits(joined.len(), pieces.front())
        && let Some(next) = pieces.pop_front()
    {
        joined.extend_from_slice(&next);
    }
    Some(joined.into())
}

impl Pipe {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wakes the reader, outside the lock.
fn wake(mut state: MutexGuard<'_, State>) {
    let reader = state.reader.take();
    drop(state);
    if let Some(reader) = reader {
        reader.wake();
    }
}

impl std::fmt::Debug for PipeReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PipeReader").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for PipeWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PipeWriter").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[derive(Default)]
    struct Seen {
        room: AtomicU32,
        gone: AtomicU32,
    }

    impl PipeEvents for Arc<Seen> {
        fn room(&self, id: CompletionId) {
            self.room.store(id.0, Ordering::Relaxed);
        }
        fn gone(&self) {
            self.gone.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn open(memory_bytes: usize) -> (PipeWriter, PipeReader, Arc<Seen>, Arc<HeapBudget>) {
        let seen = Arc::new(Seen::default());
        let budget = Arc::new(HeapBudget::new(memory_bytes));
        let (writer, reader) = pipe(Arc::clone(&budget), Box::new(Arc::clone(&seen)));
        (writer, reader, seen, budget)
    }

    fn next(reader: &mut PipeReader) -> Poll<Option<Result<usize, String>>> {
        reader
            .poll_piece(&mut Context::from_waker(Waker::noop()))
            .map(|piece| piece.map(|piece| piece.map(|b| b.len()).map_err(|e| e.to_string())))
    }

    #[test]
    fn a_full_pipe_makes_its_writer_wait_until_half_is_read() {
        let (writer, mut reader, seen, budget) = open(1 << 20);
        let half = Bytes::from(vec![0; CAPACITY_BYTES / 2]);
        let more = Bytes::from(vec![0; 1]);
        for id in [1, 2] {
            let written = writer.write(half.clone(), CompletionId(id));
            assert_eq!(written, Written::Accepted);
        }
        assert_eq!(writer.write(more, CompletionId(3)), Written::Wait);
        assert_eq!(writer.write(half, CompletionId(4)), Written::Busy);
        assert!(!budget.try_charge((1 << 20) - CAPACITY_BYTES));
        assert_eq!(next(&mut reader), Poll::Ready(Some(Ok(CAPACITY_BYTES / 2))));
        assert_eq!(seen.room.load(Ordering::Relaxed), 0);
        assert_eq!(next(&mut reader), Poll::Ready(Some(Ok(CAPACITY_BYTES / 2))));
        assert_eq!(seen.room.load(Ordering::Relaxed), 3);
        assert_eq!(next(&mut reader), Poll::Ready(Some(Ok(1))));
        assert_eq!(next(&mut reader), Poll::Pending);
        writer.close(None);
        assert_eq!(next(&mut reader), Poll::Ready(None));
        drop(reader);
        assert_eq!(seen.gone.load(Ordering::Relaxed), 0);
        assert!(budget.try_charge(1 << 20));
    }

    #[test]
    fn a_reader_that_leaves_gives_back_memory_and_says_so_once() {
        let (writer, reader, seen, budget) = open(1 << 20);
        let piece = Bytes::from(vec![0; CAPACITY_BYTES + 1]);
        assert_eq!(writer.write(piece.clone(), CompletionId(7)), Written::Wait);
        drop(reader);
        assert_eq!(seen.gone.load(Ordering::Relaxed), 1);
        assert_eq!(seen.room.load(Ordering::Relaxed), 7);
        assert!(budget.try_charge(1 << 20));
        assert_eq!(writer.write(piece, CompletionId(8)), Written::Gone);
    }

    #[test]
    fn small_pieces_leave_together() {
        let (writer, mut reader, _, budget) = open(1 << 20);
        for size in [1, 2, JOINED_BYTES - 3, 1, JOINED_BYTES, 5] {
            let piece = Bytes::from(vec![0; size]);
            assert_eq!(writer.write(piece, CompletionId(1)), Written::Accepted);
        }
        writer.close(None);
        for size in [JOINED_BYTES, 1, JOINED_BYTES, 5] {
            assert_eq!(next(&mut reader), Poll::Ready(Some(Ok(size))));
        }
        assert_eq!(next(&mut reader), Poll::Ready(None));
        assert!(budget.try_charge(1 << 20));
    }

    #[test]
    fn the_length_is_known_once_the_body_is_complete() {
        let (writer, mut reader, _, _) = open(1 << 20);
        let written = writer.write(Bytes::from_static(b"hello"), CompletionId(1));
        assert_eq!((written, reader.known_length()), (Written::Accepted, None));
        writer.close(None);
        assert_eq!(reader.known_length(), Some(5));
        assert_eq!(next(&mut reader), Poll::Ready(Some(Ok(5))));
        assert_eq!(reader.known_length(), Some(0));
    }

    #[test]
    fn a_piece_larger_than_the_instance_may_be_is_refused() {
        let (writer, _reader, _, _) = open(10);
        let piece = Bytes::from(vec![0; 11]);
        assert_eq!(writer.write(piece, CompletionId(1)), Written::TooLarge);
    }

    #[test]
    fn a_writer_dropped_without_close_breaks_the_body_off() {
        let (writer, mut reader, _, _) = open(10);
        drop(writer);
        assert!(matches!(next(&mut reader), Poll::Ready(Some(Err(_)))));
    }
}
