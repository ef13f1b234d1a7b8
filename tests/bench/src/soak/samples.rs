//! What worker and agent occupy, second by second, and whether it stays flat.
//!
//! ```text
//! one worker's life, or the whole run for the agent:   first third   | middle third | last third
//!                                                      warming up    | median  <-- compared --> median
//! ```

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use serde::Serialize;

use crate::process::cpu_seconds;
use crate::stats::median;

/// Between two samples.
const PERIOD: Duration = Duration::from_secs(1);
/// Shortest third on which flatness is judged: less says more about garbage collections than about leaks.
const SHORTEST_THIRD: Duration = Duration::from_secs(45);

/// What one process occupies.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Usage {
    /// Resident and swapped out, in 10^6 bytes.
    pub(crate) memory_mb: f64,
    pub(crate) files: usize,
    pub(crate) mappings: usize,
    pub(crate) threads: usize,
    /// CPU time so far.
    pub(crate) cpu_seconds: f64,
}

/// One look.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Sample {
    /// Since the load began.
    pub(crate) second: f64,
    /// Number of the worker: 0 before it was killed.
    pub(crate) stretch: usize,
    pub(crate) worker: Usage,
    pub(crate) agent: Usage,
}

/// What is looked at.
pub(crate) struct Watched {
    pub(crate) agent: u32,
    /// Process and number of the worker; none while it is being killed.
    worker: Mutex<Option<(u32, usize)>>,
    samples: Mutex<Vec<Sample>>,
    /// Why the worker could not be looked at although nobody killed it.
    lost: Mutex<Option<String>>,
    stopped: AtomicBool,
}

/// Something that must stay as it is.
pub(crate) struct Quantity {
    pub(crate) name: &'static str,
    /// The process it is of.
    process: Process,
    pub(crate) of: fn(&Sample) -> f64,
    /// How much more the last third may have than the middle one: this part of it,
    pub(crate) part: f64,
    /// or this much.
    pub(crate) amount: f64,
}

/// A process that is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Process {
    /// Each one for itself.
    Worker,
    /// One, from the first look to the last.
    Agent,
}

/// What is compared. Threads are not: there may be as many as ever computed or started an instance at once, and those go
/// only when they are idle for ten seconds; that they do is looked at in the end.
pub(crate) const QUANTITIES: [Quantity; 5] = [
    Quantity {
        name: "worker memory, MB",
        process: Process::Worker,
        of: |sample| sample.worker.memory_mb,
        part: 0.03,
        amount: 0.0,
    },
    Quantity {
        name: "worker descriptors",
        process: Process::Worker,
        of: |sample| sample.worker.files as f64,
        part: 0.05,
        amount: 4.0,
    },
    Quantity {
        name: "worker mappings",
        process: Process::Worker,
        of: |sample| sample.worker.mappings as f64,
        part: 0.03,
        amount: 0.0,
    },
    Quantity {
        name: "agent memory, MB",
        process: Process::Agent,
        of: |sample| sample.agent.memory_mb,
        part: 0.03,
        amount: 1.0,
    },
    Quantity {
        name: "agent descriptors",
        process: Process::Agent,
        of: |sample| sample.agent.files as f64,
        part: 0.05,
        amount: 4.0,
    },
];

/// A quantity over the life of one process.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Curve {
    pub(crate) name: &'static str,
    /// Number of the worker; none for the agent.
    pub(crate) stretch: Option<usize>,
    pub(crate) start: f64,
    pub(crate) middle: f64,
    pub(crate) end: f64,
    pub(crate) most: f64,
    /// None where the stretch is too short.
    pub(crate) is_flat: Option<bool>,
}

impl Usage {
    pub(crate) fn of(pid: u32) -> anyhow::Result<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let number = |key: &str| -> anyhow::Result<f64> {
            status
                .lines()
                .find_map(|line| line.strip_prefix(key)?.split_whitespace().next())
                .and_then(|number| number.parse().ok())
                .with_context(|| format!("/proc/{pid}/status has no {key}"))
        };
        let memory_kib = number("VmRSS:")? + number("VmSwap:")?;
        Ok(Self {
            memory_mb: memory_kib * 1024.0 / 1e6,
            files: fs::read_dir(format!("/proc/{pid}/fd"))?.count(),
            mappings: fs::read_to_string(format!("/proc/{pid}/maps"))?
                .lines()
                .count(),
            threads: number("Threads:")? as usize,
            cpu_seconds: cpu_seconds(pid)?,
        })
    }
}

impl Watched {
    pub(crate) fn new(agent: u32, worker: u32) -> Self {
        Self {
            agent,
            worker: Mutex::new(Some((worker, 0))),
            samples: Mutex::default(),
            lost: Mutex::default(),
            stopped: AtomicBool::new(false),
        }
    }

    /// Looks each second until [`Watched::stop`].
    pub(crate) async fn run(&self) {
        let began = Instant::now();
        let mut ticks = tokio::time::interval(PERIOD);
        loop {
            ticks.tick().await;
            if self.stopped.load(Ordering::SeqCst) {
                return;
            }
            let worker = *lock(&self.worker);
            let Some((worker, stretch)) = worker else {
                continue;
            };
            let usages = Usage::of(worker).and_then(|usage| Ok((usage, Usage::of(self.agent)?)));
            match usages {
                Ok((worker, agent)) => lock(&self.samples).push(Sample {
                    second: began.elapsed().as_secs_f64(),
                    stretch,
                    worker,
                    agent,
                }),
                Err(error) => {
                    // It may have been killed on purpose since.
                    if lock(&self.worker).is_some_and(|(now, _)| now == worker) {
                        lock(&self.lost).get_or_insert_with(|| format!("{error:#}"));
                    }
                }
            }
        }
    }

    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
    }

    /// The worker, unless it is being killed.
    pub(crate) fn worker(&self) -> Option<u32> {
        lock(&self.worker).map(|(pid, _)| pid)
    }

    /// Has nobody look at the worker, which is about to be killed.
    pub(crate) fn leave(&self) {
        *lock(&self.worker) = None;
    }

    /// Looks at the next worker.
    pub(crate) fn follow(&self, worker: u32) {
        let stretch = lock(&self.samples)
            .last()
            .map_or(0, |sample| sample.stretch + 1);
        *lock(&self.worker) = Some((worker, stretch));
    }

    pub(crate) fn samples(&self) -> Vec<Sample> {
        lock(&self.samples).clone()
    }

    pub(crate) fn lost(&self) -> Option<String> {
        lock(&self.lost).clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// All quantities of all processes.
pub(crate) fn curves(samples: &[Sample]) -> Vec<Curve> {
    let stretches = samples.last().map_or(0, |sample| sample.stretch + 1);
    let of = |process| {
        QUANTITIES
            .iter()
            .filter(move |quantity| quantity.process == process)
    };
    let workers = (0..stretches).flat_map(|stretch| {
        let own: Vec<Sample> = samples
            .iter()
            .filter(|sample| sample.stretch == stretch)
            .copied()
            .collect();
        of(Process::Worker).filter_map(move |quantity| curve(quantity, Some(stretch), &own))
    });
    let agent = of(Process::Agent).filter_map(|quantity| curve(quantity, None, samples));
    workers.chain(agent).collect()
}

fn curve(quantity: &Quantity, stretch: Option<usize>, samples: &[Sample]) -> Option<Curve> {
    let (first, last) = (samples.first()?, samples.last()?);
    let third = (last.second - first.second) / 3.0;
    let within = |index: f64| -> Vec<f64> {
        let begin = first.second + index * third;
        samples
            .iter()
            .filter(|sample| sample.second >= begin && sample.second <= begin + third)
            .map(quantity.of)
            .collect()
    };
    let (middle, end) = (median(&within(1.0)), median(&within(2.0)));
    let allowed = (middle * quantity.part).max(quantity.amount);
    Some(Curve {
        name: quantity.name,
        stretch,
        start: (quantity.of)(first),
        middle,
        end,
        most: samples.iter().map(quantity.of).fold(0.0, f64::max),
        is_flat: (third >= SHORTEST_THIRD.as_secs_f64()).then_some(end <= middle + allowed),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(memory_mb: impl Fn(f64) -> f64, seconds: u32) -> Vec<Sample> {
        let sample = |second| Sample {
            second,
            stretch: 0,
            worker: Usage {
                memory_mb: memory_mb(second),
                ..Usage::default()
            },
            agent: Usage::default(),
        };
        (0..seconds).map(|second| sample(second.into())).collect()
    }

    fn is_flat(memory_mb: impl Fn(f64) -> f64, seconds: u32) -> Option<bool> {
        curves(&samples(memory_mb, seconds))[0].is_flat
    }

    #[test]
    fn what_grows_is_not_flat() {
        assert_eq!(is_flat(|second| 100.0 + second / 10.0, 300), Some(false));
        assert_eq!(is_flat(|_| 100.0, 300), Some(true));
        // It may warm up, and go down.
        let warm = |second: f64| if second < 90.0 { second } else { 100.0 };
        assert_eq!(is_flat(warm, 300), Some(true));
        assert_eq!(is_flat(|second| 400.0 - second, 300), Some(true));
        assert_eq!(is_flat(|second| second, 30), None, "too short to say");
    }

    #[test]
    fn the_agent_outlives_a_worker() {
        let mut samples = samples(|_| 100.0, 300);
        for sample in &mut samples {
            sample.stretch = usize::from(sample.second >= 100.0);
            sample.agent.memory_mb = sample.second;
        }
        let stretches: Vec<_> = curves(&samples).iter().map(|it| it.stretch).collect();
        assert_eq!(
            stretches,
            [[Some(0); 3].as_slice(), &[Some(1); 3], &[None; 2]].concat()
        );
        let flat = |index: usize| curves(&samples)[index].is_flat;
        assert_eq!((flat(0), flat(3), flat(6)), (None, Some(true), Some(false)));
    }

    #[test]
    fn this_process_can_be_looked_at() {
        let usage = Usage::of(std::process::id()).expect("a usage");
        assert!(usage.memory_mb > 1.0 && usage.files >= 3 && usage.threads >= 1);
        assert!(usage.mappings > 10);
    }
}
