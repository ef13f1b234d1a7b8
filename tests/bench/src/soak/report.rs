//! What a run came to, for a person and as JSON.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use serde::Serialize;
use serde_json::json;

use super::SoakArgs;
use super::books::{Books, Counts};
use super::samples::{Curve, Sample};
use crate::row::number;

/// Something that had to hold.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Check {
    pub(crate) what: String,
    pub(crate) outcome: Outcome,
    /// Numbers, or what went wrong.
    pub(crate) detail: String,
}

/// Whether it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Outcome {
    Holds,
    Failed,
    /// The run was too short to say.
    NotJudged,
}

impl Check {
    pub(crate) fn new(what: impl Into<String>, holds: bool, detail: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            outcome: if holds {
                Outcome::Holds
            } else {
                Outcome::Failed
            },
            detail: detail.into(),
        }
    }

    pub(crate) fn not_judged(what: impl Into<String>, detail: impl Into<String>) -> Self {
        Self {
            outcome: Outcome::NotJudged,
            ..Self::new(what, true, detail)
        }
    }
}

/// What a run came to.
pub(crate) struct Report<'r> {
    pub(crate) args: &'r SoakArgs,
    /// When, where, which commit.
    pub(crate) machine: Vec<(String, String)>,
    pub(crate) seed: u64,
    pub(crate) seconds: f64,
    pub(crate) tenants: usize,
    pub(crate) books: &'r Books,
    pub(crate) samples: &'r [Sample],
    pub(crate) curves: &'r [Curve],
    pub(crate) checks: &'r [Check],
}

impl Report<'_> {
    /// Writes soak.md and soak.json into `folder`; the text of the first.
    pub(crate) fn write(&self, folder: &Path) -> anyhow::Result<String> {
        let text = self.text();
        fs::write(folder.join("soak.md"), &text)?;
        let json = json!({
            "machine": self.machine,
            "seed": self.seed,
            "seconds": self.seconds,
            "rate": self.args.rate,
            "clients": self.args.clients,
            "tenants": self.tenants,
            "byKind": self.books.by_kind(),
            "byWay": self.books.by_way(),
            "wrong": self.books.wrong(),
            "curves": self.curves,
            "checks": self.checks,
            "samples": self.samples,
        });
        fs::write(folder.join("soak.json"), serde_json::to_vec_pretty(&json)?)?;
        Ok(text)
    }

    fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = self.write_text(&mut text);
        text
    }

    fn write_text(&self, text: &mut String) -> std::fmt::Result {
        writeln!(text, "# Soak\n")?;
        for (name, value) in &self.machine {
            writeln!(text, "- {name}: {value}")?;
        }
        writeln!(
            text,
            "- load: {:.0} s, {} tenants, {} clients, {} visits a second wanted, seed {}\n- CPU, in cores: {}\n",
            self.seconds,
            self.tenants,
            self.args.clients,
            self.args.rate,
            self.seed,
            self.cores()
        )?;
        let kinds = self.books.by_kind();
        let ways = self.books.by_way();
        let kinds = kinds.iter().map(|(kind, counts)| (kind.name(), *counts));
        let ways = ways
            .iter()
            .map(|(way, counts)| (format!("{way:?}").to_lowercase(), *counts));
        table(text, "kind of tenant", kinds)?;
        table(text, "way of asking", ways)?;
        writeln!(
            text,
            "| process | quantity | start | median, middle third | median, last third | most | flat |\n|---|---|---|---|---|---|---|"
        )?;
        for curve in self.curves {
            writeln!(
                text,
                "| {} | {} | {} | {} | {} | {} | {} |",
                process(curve.stretch),
                curve.name,
                number(curve.start),
                number(curve.middle),
                number(curve.end),
                number(curve.most),
                match curve.is_flat {
                    Some(true) => "yes",
                    Some(false) => "**no**",
                    None => "too short to say",
                }
            )?;
        }
        writeln!(text, "\n| what must hold | | |\n|---|---|---|")?;
        for check in self.checks {
            let outcome = match check.outcome {
                Outcome::Holds => "yes",
                Outcome::Failed => "**no**",
                Outcome::NotJudged => "not judged",
            };
            writeln!(text, "| {} | {outcome} | {} |", check.what, check.detail)?;
        }
        for wrong in self.books.wrong() {
            writeln!(text, "\nWrong: {wrong}")?;
        }
        Ok(())
    }

    /// CPU time per second of worker and agent under load.
    fn cores(&self) -> String {
        let rate = |of: fn(&Sample) -> f64| {
            let pairs = self.samples.windows(2);
            let (mut used, mut passed) = (0.0, 0.0);
            for pair in pairs.filter(|pair| pair[0].stretch == pair[1].stretch) {
                used += of(&pair[1]) - of(&pair[0]);
                passed += pair[1].second - pair[0].second;
            }
            number(used / passed)
        };
        format!(
            "worker {}, agent {}",
            rate(|sample| sample.worker.cpu_seconds),
            rate(|sample| sample.agent.cpu_seconds)
        )
    }
}

/// The worker of this number, counted from 1, or the agent.
pub(super) fn process(worker: Option<usize>) -> String {
    worker.map_or_else(|| "agent".into(), |worker| format!("worker {}", worker + 1))
}

fn table(
    text: &mut String,
    title: &str,
    rows: impl Iterator<Item = (String, Counts)>,
) -> std::fmt::Result {
    writeln!(
        text,
        "| {title} | asked | right | expected errors | too busy | hung up | killed with the worker | wrong | mean ms | slowest ms |\n|---|---|---|---|---|---|---|---|---|---|"
    )?;
    for (name, counts) in rows {
        writeln!(
            text,
            "| {name} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            counts.asked,
            counts.right,
            counts.expected_errors,
            counts.too_busy,
            counts.hung_up,
            counts.killed,
            counts.wrong,
            number(counts.mean_ms()),
            number(counts.slowest_ms)
        )?;
    }
    writeln!(text)
}
