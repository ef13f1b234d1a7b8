//! After the load: nothing may be left of it.

use std::fs;
use std::sync::atomic::Ordering;
use std::time::Instant;

use anyhow::{Context, bail};
use bytes::Bytes;
use futures::StreamExt;
use futures::channel::mpsc;
use futures::future::join_all;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;

use super::asks::{Ask, Content, Expected, Payload, Verdict};
use super::http2::{Connection, read};
use super::random::Random;
use super::report::Check;
use super::samples::Usage;
use super::tenants::{CONCURRENCY, Kind, Tenant};
use super::{PATIENCE, POLL, Soak};

impl Soak {
    /// Checks all of it.
    pub(super) async fn ends(&self) -> Vec<Check> {
        vec![
            self.places().await,
            self.versions().await,
            self.notes().await,
            self.wrong_fetches(),
            self.log(),
            self.at_rest().await,
        ]
    }

    /// No request of the load still counts as under way: each tenant takes as many at once as its limit allows, no more.
    async fn places(&self) -> Check {
        let what = "no request is under way any more";
        let deadline = Instant::now() + PATIENCE;
        for tenant in self.tenants.all() {
            while let Err(error) = self.fill(tenant).await {
                if Instant::now() > deadline {
                    return Check::new(what, false, format!("{}: {error:#}", tenant.name));
                }
                tokio::time::sleep(POLL).await;
            }
        }
        let detail = format!("each tenant took {CONCURRENCY} at once, and refused one more");
        Check::new(what, true, detail)
    }

    /// Takes all places of a tenant.
    async fn fill(&self, tenant: &Tenant) -> anyhow::Result<()> {
        let connection = Connection::open(self.server.port).await?;
        let mut held = Vec::new();
        for index in 0..=CONCURRENCY {
            let (body, pieces) = mpsc::unbounded::<Bytes>();
            let frames = StreamBody::new(pieces.map(|piece| Ok(Frame::data(piece))));
            let nonce = format!("{}:hold-{index}", tenant.name);
            let mut ask = Ask::new(
                Kind::Hello,
                Some(tenant),
                nonce.clone(),
                &mut Random::new(0, 0),
            );
            ask.method = "POST";
            ask.path = "/hold".into();
            ask.body = Payload::Chunked(Vec::new());
            ask.expected = Expected::Right(Content::Bytes(nonce.clone().into_bytes()));
            let response = connection.send(&ask, BodyExt::boxed(frames)).await?;
            let is_refused = response.status().as_u16() == 503;
            if index == CONCURRENCY {
                if !is_refused {
                    bail!(
                        "{} were taken although the limit is {CONCURRENCY}",
                        index + 1
                    );
                }
                break;
            }
            if is_refused {
                let refusal = read(response).await?;
                bail!(
                    "only {index} of {CONCURRENCY} were taken; {}",
                    refusal.describe()
                );
            }
            held.push((ask, body, response));
        }
        let ends = held.into_iter().map(|(ask, body, response)| async move {
            let _ = body.unbounded_send(ask.nonce.clone().into());
            drop(body);
            let answer = read(response).await?;
            match ask.judge(&answer, ask.least_version()) {
                Ok(Verdict::Right) => Ok(()),
                _ => bail!("a wrong answer: {}", answer.describe()),
            }
        });
        for end in join_all(ends).await {
            end?;
        }
        Ok(())
    }

    /// The latest version of each redeployed tenant answers, and goes on to.
    async fn versions(&self) -> Check {
        let what = "the latest version of each redeployed tenant answers";
        let deadline = Instant::now() + PATIENCE;
        let mut client = self.client(3_000_000);
        let wrong = self.books.total().wrong;
        let mut count = 0;
        for tenant in self.tenants.of(Kind::Redeployed) {
            let deployed = tenant.deployed.load(Ordering::SeqCst);
            count += deployed - 1;
            while tenant.seen.load(Ordering::SeqCst) < deployed {
                if Instant::now() > deadline {
                    let seen = tenant.seen.load(Ordering::SeqCst);
                    let detail = format!("{}: {seen}, not {deployed}", tenant.name);
                    return Check::new(what, false, detail);
                }
                client.ask_one(tenant).await;
            }
            // An older one would be booked as wrong now.
            for _ in 0..3 {
                client.ask_one(tenant).await;
            }
        }
        let holds = self.books.total().wrong == wrong;
        Check::new(what, holds, format!("after {count} new versions"))
    }

    /// What was promised with `waitUntil` was done, once.
    async fn notes(&self) -> Check {
        let what = "what waitUntil promised was done, once";
        let due = self.books.notes();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let notes = self.upstream.notes();
            let missing: Vec<_> = due.iter().filter(|due| !notes.contains_key(*due)).collect();
            let twice = notes.iter().find(|(_, count)| **count > 1);
            if let Some((nonce, count)) = twice {
                return Check::new(what, false, format!("{nonce} came {count} times"));
            }
            if missing.is_empty() {
                return Check::new(what, true, format!("{} notes", due.len()));
            }
            if Instant::now() > deadline {
                let detail = format!("{} of {} missing: {missing:?}", missing.len(), due.len());
                return Check::new(what, false, detail);
            }
            tokio::time::sleep(POLL).await;
        }
    }

    fn wrong_fetches(&self) -> Check {
        let wrong = self.upstream.wrong();
        let detail = wrong.first().cloned().unwrap_or_default();
        Check::new(
            "each outbound request carried its own tenant's name and secret",
            wrong.is_empty(),
            detail,
        )
    }

    /// Nothing panicked, and each kind of tenant failed only as it should: also where nobody saw it, as after a hang-up.
    fn log(&self) -> Check {
        let what = "the log has no panic, and no failure that its kind of tenant should not have";
        let path = self.args.out.join("isolet.log");
        let log = match fs::read(&path) {
            Ok(log) => log,
            Err(error) => return Check::new(what, false, format!("{}: {error}", path.display())),
        };
        let log = String::from_utf8_lossy(&log);
        let mut failures = 0;
        for line in log.lines() {
            let failure = line
                .split_once(": request failed: ")
                .and_then(|(function, text)| {
                    let name = function.strip_prefix("default/")?;
                    let (_, reason) = text.strip_suffix(')')?.rsplit_once('(')?;
                    Some((self.tenants.named(name)?, reason))
                });
            let is_wrong = match failure {
                Some((tenant, reason)) => !tenant.kind.failures().contains(&reason),
                None => line.contains("panicked"),
            };
            if is_wrong {
                return Check::new(what, false, line);
            }
            failures += usize::from(failure.is_some());
        }
        Check::new(what, failures > 0, format!("{failures} failures"))
    }

    /// Descriptors and threads are as many as before the load.
    async fn at_rest(&self) -> Check {
        let what = "descriptors and threads are as many as before the load";
        let deadline = Instant::now() + PATIENCE;
        let (worker, agent) = &self.at_rest;
        loop {
            let (detail, holds) = match self.usages() {
                Ok((now, agent_now)) => (
                    format!(
                        "worker {} and {}, now {} and {}; agent {} and {}, now {} and {}",
                        worker.files,
                        worker.threads,
                        now.files,
                        now.threads,
                        agent.files,
                        agent.threads,
                        agent_now.files,
                        agent_now.threads
                    ),
                    now.files == worker.files
                        && now.threads <= worker.threads
                        && agent_now.files <= agent.files
                        && agent_now.threads <= agent.threads,
                ),
                Err(error) => (format!("{error:#}"), false),
            };
            if holds || Instant::now() > deadline {
                return Check::new(what, holds, detail);
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Of worker and agent, now.
    fn usages(&self) -> anyhow::Result<(Usage, Usage)> {
        let worker = self.watched.worker().context("there is no worker")?;
        Ok((Usage::of(worker)?, Usage::of(self.watched.agent)?))
    }
}
