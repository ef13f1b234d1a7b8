//! Timers of a connection, whose task polls them at each of its steps: once they are set, that costs a look.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::task::unconstrained;
use tokio::time::{Instant, Sleep, sleep_until};

use super::exchange::Exchanges;

/// Wakes the task that polls it, which is always the same.
pub(super) struct Timer {
    sleep: Pin<Box<Sleep>>,
    is_set: bool,
}

impl Timer {
    pub(super) fn new(until: Instant) -> Self {
        Self {
            sleep: Box::pin(sleep_until(until)),
            is_set: false,
        }
    }

    pub(super) fn reset(&mut self, until: Instant) {
        self.sleep.as_mut().reset(until);
        self.is_set = false;
    }

    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.is_set && !self.sleep.is_elapsed() {
            return Poll::Pending;
        }
        // A task that did much in this step may not set it otherwise.
        let polled = pin!(unconstrained(self.sleep.as_mut())).poll(context);
        self.is_set = polled.is_pending();
        polled
    }
}

/// Fires once a connection has awaited the head of a request for too long. It is looked at then, not set anew by each request.
pub(super) struct IdleTimer {
    exchanges: Arc<Exchanges>,
    limit: Duration,
    timer: Option<Timer>,
}

impl IdleTimer {
    pub(super) fn new(exchanges: Arc<Exchanges>, limit: Duration) -> Self {
        Self {
            exchanges,
            limit,
            timer: None,
        }
    }

    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            if let Some(timer) = &mut self.timer {
                ready!(timer.poll(context));
            }
            let Some(until) = self.exchanges.idle_until(self.limit) else {
                return Poll::Ready(());
            };
            match &mut self.timer {
                Some(timer) => timer.reset(until),
                None => self.timer = Some(Timer::new(until)),
            }
        }
    }

    /// Has it fire after another such time at the earliest.
    pub(super) fn restart(&mut self) {
        self.timer = Some(Timer::new(Instant::now() + self.limit));
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::ready;

    use tokio::task::coop::{consume_budget, has_budget_remaining};
    use tokio::time::timeout;

    use super::*;

    const SOON: Duration = Duration::from_millis(5);

    /// Has a task do as much in one step as one may, set a timer in the same step, and wait for it.
    async fn fires_after_a_long_step(mut poll: impl FnMut(&mut Context<'_>) -> Poll<()>) -> bool {
        let mut is_first = true;
        let fired = poll_fn(|context| {
            if std::mem::take(&mut is_first) {
                while has_budget_remaining() {
                    let _ = pin!(consume_budget()).poll(context);
                }
            }
            poll(context)
        });
        timeout(Duration::from_secs(20), fired).await.is_ok()
    }

    #[tokio::test]
    async fn a_timer_fires_that_a_task_sets_at_the_end_of_a_long_step() {
        let mut timer = Timer::new(Instant::now() + SOON);
        assert!(fires_after_a_long_step(|context| timer.poll(context)).await);
    }

    #[tokio::test]
    async fn a_timer_that_is_set_anew_fires_then() {
        let begin = Instant::now();
        let mut timer = Timer::new(begin + SOON);
        let mut is_second = false;
        let fired = fires_after_a_long_step(|context| {
            ready!(timer.poll(context));
            if std::mem::replace(&mut is_second, true) {
                return Poll::Ready(());
            }
            timer.reset(begin + 2 * SOON);
            timer.poll(context)
        });
        assert!(fired.await);
        assert!(begin.elapsed() >= 2 * SOON);
    }

    #[tokio::test]
    async fn an_idle_connection_is_over_once_no_request_was_under_way_for_so_long() {
        let exchanges = Exchanges::new();
        let mut idle = IdleTimer::new(Arc::clone(&exchanges), SOON);
        let request = exchanges.begin();
        let ended = poll_fn(|context| idle.poll(context));
        assert!(
            timeout(4 * SOON, ended).await.is_err(),
            "a request is under way"
        );
        drop(request);
        let begin = Instant::now();
        assert!(fires_after_a_long_step(|context| idle.poll(context)).await);
        assert!(begin.elapsed() >= SOON / 2);
        idle.restart();
        let begin = Instant::now();
        assert!(fires_after_a_long_step(|context| idle.poll(context)).await);
        assert!(begin.elapsed() >= SOON);
    }
}
