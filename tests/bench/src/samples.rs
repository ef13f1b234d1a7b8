//! Measurements gathered round by round, contestants taking turns.

use serde_json::Value;

use crate::contestants::Entry;
use crate::row::Cell;

/// What each contestant showed so far.
pub(crate) struct Samples {
    all: Vec<Sample>,
    unit: &'static str,
    /// Contestants that run here but failed.
    pub(crate) failures: Vec<String>,
}

struct Sample {
    name: &'static str,
    values: Vec<f64>,
    details: Vec<Value>,
    missing: Option<String>,
}

impl Samples {
    /// Takes turns: each round, each contestant that `takes_part` is measured once.
    pub(crate) fn gather(
        rounds: usize,
        entries: &[Entry],
        unit: &'static str,
        takes_part: impl Fn(&Entry) -> bool,
        measure: impl Fn(&Entry) -> anyhow::Result<(f64, Value)>,
    ) -> Self {
        let entries: Vec<&Entry> = entries.iter().filter(|entry| takes_part(entry)).collect();
        let mut samples = Self {
            all: entries
                .iter()
                .map(|entry| Sample {
                    name: entry.contestant.name(),
                    values: Vec::new(),
                    details: Vec::new(),
                    missing: entry.version.clone().err(),
                })
                .collect(),
            unit,
            failures: Vec::new(),
        };
        for round in 1..=rounds {
            for (entry, sample) in entries.iter().zip(&mut samples.all) {
                if sample.missing.is_some() {
                    continue;
                }
                match measure(entry) {
                    Ok((value, details)) => {
                        eprintln!("  round {round}, {}: {value:.3} {unit}", sample.name);
                        sample.values.push(value);
                        sample.details.push(details);
                    }
                    Err(error) => {
                        eprintln!("  round {round}, {} failed: {error:#}", sample.name);
                        samples.failures.push(format!("{}: {error:#}", sample.name));
                        sample.missing = Some(format!("failed: {error:#}"));
                    }
                }
            }
        }
        samples
    }

    /// One cell for each contestant.
    pub(crate) fn cells(&self) -> Vec<Cell> {
        self.all
            .iter()
            .map(|sample| match &sample.missing {
                Some(reason) => Cell::missing(sample.name, reason.clone()),
                None => Cell::of(sample.name, self.unit, sample.values.clone())
                    .with_details(sample.details.clone()),
            })
            .collect()
    }

    /// Another number of a contestant, from the details of each round.
    pub(crate) fn detail(
        &self,
        contestant: &str,
        key: &str,
        label: String,
        unit: &'static str,
    ) -> Option<Cell> {
        let sample = self.all.iter().find(|sample| sample.name == contestant)?;
        let values = sample
            .details
            .iter()
            .filter_map(|it| it[key].as_f64())
            .collect();
        sample
            .missing
            .is_none()
            .then(|| Cell::of(label, unit, values))
    }
}
