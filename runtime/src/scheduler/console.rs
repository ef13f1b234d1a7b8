//! Tenants' console output: a target of its own, bounded in line length and in lines a second.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::web::host::ConsoleLevel;

/// Longest line, in bytes.
const LINE_BYTES: usize = 8 << 10;
/// Lines of one Function a second.
const LINES: u32 = 256;
const WINDOW: Duration = Duration::from_secs(1);

/// Console of one Function.
#[derive(Debug)]
pub struct Console {
    namespace: String,
    function: String,
    revision: String,
    window: Mutex<Window>,
}

#[derive(Debug)]
struct Window {
    since: Instant,
    lines: u32,
    dropped: u32,
}

impl Console {
    /// A console without lines.
    pub fn new(namespace: &str, function: &str, revision: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            function: function.to_owned(),
            revision: revision.to_owned(),
            window: Mutex::new(Window {
                since: Instant::now(),
                lines: 0,
                dropped: 0,
            }),
        }
    }

    /// Writes one line, unless the Function has written too many.
    pub fn write(&self, level: ConsoleLevel, mut text: String) {
        let (admitted, dropped) = self.admit(Instant::now());
        if dropped > 0 {
            tracing::warn!(target: "console", namespace = self.namespace, function = self.function,
                revision = self.revision, dropped, "console lines dropped: too many in a second");
        }
        if !admitted {
            return;
        }
        if text.len() > LINE_BYTES {
            text.truncate(text.floor_char_boundary(LINE_BYTES));
            text.push('…');
        }
        macro_rules! line {
            ($level:ident) => {
                tracing::$level!(target: "console", namespace = self.namespace, function = self.function,
                    revision = self.revision, "{text}")
            };
        }
        match level {
            ConsoleLevel::Debug => line!(debug),
            ConsoleLevel::Info => line!(info),
            ConsoleLevel::Warn => line!(warn),
            ConsoleLevel::Error => line!(error),
        }
    }

    /// Whether a line may be written now, and how many were dropped before it that nothing has been said of yet.
    fn admit(&self, now: Instant) -> (bool, u32) {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let mut dropped = 0;
        if now.duration_since(window.since) >= WINDOW {
            dropped = std::mem::take(&mut window.dropped);
            window.since = now;
            window.lines = 0;
        }
        if window.lines < LINES {
            window.lines += 1;
            (true, dropped)
        } else {
            window.dropped += 1;
            (false, dropped)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_past_the_rate_are_counted_and_told_once() {
        let console = Console::new("ns", "f", "r");
        let start = Instant::now();
        for _ in 0..LINES {
            assert_eq!(console.admit(start), (true, 0));
        }
        assert_eq!(console.admit(start), (false, 0));
        assert_eq!(console.admit(start), (false, 0));
        assert_eq!(console.admit(start + WINDOW), (true, 2));
        assert_eq!(console.admit(start + WINDOW), (true, 0));
    }
}
