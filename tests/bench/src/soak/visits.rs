//! The clients: each asks, in one way or another, checks what comes back, and books it.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use serde::Serialize;

use super::asks::{Answer, Ask, Payload, Verdict};
use super::books::{Books, Fate};
use super::http1::{Bytes1, Connection, Pace};
use super::http2;
use super::random::Random;
use super::tenants::{KINDS, Kind, Tenant, Tenants};

/// A kept connection that was idle for longer is not used again: the server closes idle ones.
const LONGEST_IDLE: Duration = Duration::from_secs(5);
/// Longest pause between two visits.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How something is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Way {
    /// On a connection that stays open.
    Kept,
    /// On a new one.
    Fresh,
    /// Several requests before the first answer.
    Pipelined,
    /// Several at once, by HTTP/2 with prior knowledge.
    Multiplexed,
    /// The client reads slowly.
    SlowReader,
    /// The client writes slowly.
    SlowWriter,
    /// The body is sent once the server asks for it: `Expect: 100-continue`.
    Continued,
    /// The client hangs up at some point.
    HungUp,
}

/// Ways, and how many of a hundred visits take each.
const WAYS: [(Way, u64); 8] = [
    (Way::Kept, 42),
    (Way::Fresh, 14),
    (Way::Pipelined, 8),
    (Way::Multiplexed, 12),
    (Way::SlowReader, 5),
    (Way::SlowWriter, 5),
    (Way::Continued, 4),
    (Way::HungUp, 10),
];

/// What was so when something was asked.
#[derive(Clone, Copy)]
struct Asked {
    at: Instant,
    /// Of the worker that it went to.
    epoch: u32,
    /// The oldest version that may answer.
    least: u32,
}

impl Asked {
    fn now(ask: &Ask<'_>, epoch: u32) -> Self {
        Self {
            at: Instant::now(),
            epoch,
            least: ask.least_version(),
        }
    }
}

/// One client.
pub(crate) struct Client {
    pub(crate) number: usize,
    pub(crate) port: u16,
    pub(crate) tenants: Arc<Tenants>,
    pub(crate) books: Arc<Books>,
    pub(crate) random: Random,
    /// Mean time between two visits.
    pub(crate) pause: Duration,
    count: u64,
    kept: Option<(Connection, u32)>,
    /// The epoch it is of, and when it was last used.
    multiplexed: Option<(http2::Connection, u32, Instant)>,
}

impl Client {
    pub(crate) fn new(
        number: usize,
        port: u16,
        tenants: Arc<Tenants>,
        books: Arc<Books>,
        seed: u64,
        pause: Duration,
    ) -> Self {
        Self {
            number,
            port,
            tenants,
            books,
            random: Random::new(seed, number as u64 + 1),
            pause,
            count: 0,
            kept: None,
            multiplexed: None,
        }
    }

    /// Visits until the books are closed.
    pub(crate) async fn run(mut self) {
        while !self.books.is_closed() {
            // Exponential pauses: visits come as if from many clients that know nothing of each other.
            let pause = self.pause.mul_f64(-(1.0 - self.random.fraction()).ln());
            tokio::time::sleep(pause.min(LONGEST_PAUSE)).await;
            self.visit().await;
        }
    }

    /// Asks a tenant something.
    pub(crate) async fn ask_one(&mut self, tenant: &Tenant) {
        let nonce = self.nonce(&tenant.name);
        let ask = Ask::new(tenant.kind, Some(tenant), nonce, &mut self.random);
        let _alone = tenant.alone.lock().await;
        self.ask_on_kept(&ask, false).await;
    }

    async fn visit(&mut self) {
        let tenants = Arc::clone(&self.tenants);
        let kind = weighted(
            &mut self.random,
            KINDS.iter().map(|(kind, _, w)| (*kind, *w)),
        );
        let way = weighted(&mut self.random, WAYS.iter().copied());
        let ask = self.ask(&tenants, kind);
        // A bomb takes the requests beside it along, so there is none.
        let _alone = match ask.tenant.filter(|_| kind == Kind::Bomb) {
            Some(tenant) => Some(tenant.alone.lock().await),
            None => None,
        };
        let has_body = !matches!(ask.body, Payload::None);
        match way {
            _ if kind == Kind::Malformed => self.ask_on_fresh(&ask, Way::Fresh, Pace::Fast).await,
            Way::Fresh => self.ask_on_fresh(&ask, way, Pace::Fast).await,
            Way::SlowReader => self.ask_on_fresh(&ask, way, Pace::SlowReader).await,
            Way::SlowWriter => self.ask_on_fresh(&ask, way, Pace::SlowWriter).await,
            Way::Pipelined if ask.leaves_connection_open() => {
                let mut asks = vec![ask];
                for _ in 0..1 + self.random.below(4) {
                    asks.push(self.companion(&tenants));
                }
                self.pipeline(&asks).await;
            }
            Way::Multiplexed => {
                let mut asks = vec![ask];
                for _ in 0..self.random.below(4) {
                    asks.push(self.companion(&tenants));
                }
                self.multiplex(&asks).await;
            }
            Way::HungUp if kind != Kind::Bomb => self.hang_up(&ask).await,
            Way::Continued if has_body => self.ask_on_kept(&ask, true).await,
            _ => self.ask_on_kept(&ask, false).await,
        }
    }

    /// Something to ask beside something else.
    fn companion<'t>(&mut self, tenants: &'t Tenants) -> Ask<'t> {
        const KINDS: [Kind; 8] = [
            Kind::Hello,
            Kind::Hello,
            Kind::Upload,
            Kind::Echo,
            Kind::Stream,
            Kind::Fetch,
            Kind::Redeployed,
            Kind::Nobody,
        ];
        loop {
            let kind = *self.random.pick(&KINDS);
            let ask = self.ask(tenants, kind);
            if ask.leaves_connection_open() {
                return ask;
            }
        }
    }

    fn ask<'t>(&mut self, tenants: &'t Tenants, kind: Kind) -> Ask<'t> {
        let of_kind = tenants.of(kind);
        let tenant = (!of_kind.is_empty()).then(|| *self.random.pick(&of_kind));
        let nonce = self.nonce(tenant.map_or("nobody", |tenant| &tenant.name));
        Ask::new(kind, tenant, nonce, &mut self.random)
    }

    /// Never the same twice. Names the tenant, so that the server behind it can check who passes it on.
    fn nonce(&mut self, tenant: &str) -> String {
        self.count += 1;
        format!("{tenant}:{}-{}", self.number, self.count)
    }

    async fn ask_on_fresh(&mut self, ask: &Ask<'_>, way: Way, pace: Pace) {
        let asked = Asked::now(ask, self.books.epoch());
        let answer = async {
            let mut connection = Connection::open(self.port, pace).await?;
            connection.exchange(ask, pace).await
        };
        let answer = answer.await.map_err(anyhow::Error::from);
        self.book(ask, way, answer, asked);
    }

    async fn ask_on_kept(&mut self, ask: &Ask<'_>, continued: bool) {
        let way = if continued { Way::Continued } else { Way::Kept };
        let mut asked = Asked::now(ask, self.books.epoch());
        let (mut connection, epoch) = match self.kept().await {
            Ok(kept) => kept,
            Err(error) => return self.book(ask, way, Err(error.into()), asked),
        };
        asked.epoch = epoch;
        let answer = if continued {
            connection.exchange_continued(ask).await
        } else {
            connection.exchange(ask, Pace::Fast).await
        };
        let stays = answer
            .as_ref()
            .is_ok_and(|answer| answer.is_whole && !answer.closes);
        if stays && ask.leaves_connection_open() {
            self.kept = Some((connection, epoch));
        }
        self.book(ask, way, answer.map_err(Into::into), asked);
    }

    /// The open connection, or a new one, and the epoch it is of.
    async fn kept(&mut self) -> io::Result<(Connection, u32)> {
        let epoch = self.books.epoch();
        match self.kept.take() {
            Some((connection, opened))
                if connection.used.elapsed() < LONGEST_IDLE && opened == epoch =>
            {
                Ok((connection, opened))
            }
            _ => Ok((Connection::open(self.port, Pace::Fast).await?, epoch)),
        }
    }

    async fn pipeline(&mut self, asks: &[Ask<'_>]) {
        let epoch = self.books.epoch();
        let asked: Vec<Asked> = asks.iter().map(|ask| Asked::now(ask, epoch)).collect();
        let requests: Vec<Vec<u8>> = asks
            .iter()
            .map(|ask| Bytes1::of(ask, false).all())
            .collect();
        let methods: Vec<&str> = asks.iter().map(|ask| ask.method).collect();
        let answers = match Connection::open(self.port, Pace::Fast).await {
            Ok(connection) => connection.pipelined(&requests.concat(), &methods).await,
            Err(error) => vec![Err(error)],
        };
        let mut answers = answers.into_iter();
        for (ask, asked) in asks.iter().zip(asked) {
            let answer = match answers.next() {
                Some(answer) => answer.map_err(Into::into),
                None => Err(anyhow::anyhow!("an answer before it failed")),
            };
            self.book(ask, Way::Pipelined, answer, asked);
        }
    }

    async fn multiplex(&mut self, asks: &[Ask<'_>]) {
        let current = self.books.epoch();
        let (connection, epoch) = match self.multiplexed.take() {
            Some((connection, epoch, used))
                if used.elapsed() < LONGEST_IDLE && epoch == current =>
            {
                (connection, epoch)
            }
            _ => match http2::Connection::open(self.port).await {
                Ok(connection) => (connection, current),
                Err(error) => {
                    let asked = Asked::now(&asks[0], current);
                    return self.book(&asks[0], Way::Multiplexed, Err(error), asked);
                }
            },
        };
        let asked: Vec<Asked> = asks.iter().map(|ask| Asked::now(ask, epoch)).collect();
        let answers = join_all(asks.iter().map(|ask| connection.exchange(ask))).await;
        let stays = answers.iter().all(Result::is_ok) && self.random.percent(95);
        for ((ask, answer), asked) in asks.iter().zip(answers).zip(asked) {
            self.book(ask, Way::Multiplexed, answer, asked);
        }
        if stays {
            self.multiplexed = Some((connection, epoch, Instant::now()));
        }
    }

    async fn hang_up(&mut self, ask: &Ask<'_>) {
        let began = Instant::now();
        let request = Bytes1::of(ask, false).all();
        let patience = Duration::from_micros(self.random.below(50_000) as u64);
        let outcome: anyhow::Result<()> = async {
            match self.random.below(5) {
                0 => {
                    let connection = http2::Connection::open(self.port).await?;
                    // The stream is reset, then the connection closed.
                    let _ = tokio::time::timeout(patience, connection.exchange(ask)).await;
                }
                number => {
                    let mut connection = Connection::open(self.port, Pace::Fast).await?;
                    let is_cut = number <= 2;
                    let sent = if is_cut {
                        self.random.below(request.len() + 1)
                    } else {
                        request.len()
                    };
                    let read = if number == 3 {
                        self.random.below(20_000)
                    } else {
                        0
                    };
                    // It may refuse a part of it.
                    let _ = connection.write(&request[..sent]).await;
                    let _ = tokio::time::timeout(patience, connection.read_some(read)).await;
                    if self.random.percent(50) {
                        connection.reset();
                    }
                }
            }
            Ok(())
        }
        .await;
        let fate = match outcome {
            Ok(()) => Fate::HungUp,
            Err(error) => Fate::Wrong(format!("{}: {error:#}", ask.describe())),
        };
        self.books
            .enter(ask.kind, Way::HungUp, fate, began.elapsed());
    }

    /// Judges and books an answer, or why there is none.
    fn book(&self, ask: &Ask<'_>, way: Way, answer: anyhow::Result<Answer>, asked: Asked) {
        let judged = match &answer {
            Ok(answer) => ask.judge(answer, asked.least),
            Err(error) => Err(format!("{error:#}")),
        };
        let is_whole = answer.as_ref().is_ok_and(|answer| answer.is_whole);
        let fate = match judged {
            Ok(Verdict::Right) => Fate::Right,
            Ok(Verdict::ExpectedError) => Fate::ExpectedError,
            Ok(Verdict::TooBusy) => Fate::TooBusy,
            Err(_) if !is_whole && self.books.excuses(asked.epoch) => Fate::Killed,
            Err(why) => {
                let got = answer
                    .as_ref()
                    .map_or_else(|_| String::new(), Answer::describe);
                Fate::Wrong(format!("{} ({way:?}): {why}\n    {got}", ask.describe()))
            }
        };
        if ask.kind == Kind::Later && matches!(fate, Fate::Right) {
            self.books.expect_note(&ask.nonce, asked.epoch);
        }
        self.books.enter(ask.kind, way, fate, asked.at.elapsed());
    }
}

/// One of the items, by its weight of a hundred in all.
fn weighted<T>(random: &mut Random, items: impl Iterator<Item = (T, u64)>) -> T {
    let mut left = random.below(100) as u64;
    for (item, weight) in items {
        if left < weight {
            return item;
        }
        left -= weight;
    }
    unreachable!("the weights are percentages: a test adds them up")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_weights_are_percentages() {
        assert_eq!(WAYS.iter().map(|(_, weight)| weight).sum::<u64>(), 100);
    }
}
