//! A row of the table: what was asked, what each contestant showed, whether the goal holds.

use serde::Serialize;
use serde_json::Value;

use crate::stats::{median, spread};

/// One row.
#[derive(Serialize, Clone, Debug)]
pub(crate) struct Row {
    /// Short name, for `--only`.
    pub(crate) name: &'static str,
    /// What is asked.
    pub(crate) question: String,
    /// The goal, as in the project's plan; empty where the row only informs.
    pub(crate) goal: String,
    /// Isolet first.
    pub(crate) cells: Vec<Cell>,
    pub(crate) verdict: Verdict,
    /// What a reader must know beside the numbers.
    pub(crate) note: String,
    /// What should have run and did not.
    pub(crate) failures: Vec<String>,
}

/// What one contestant showed.
#[derive(Serialize, Clone, Debug)]
pub(crate) struct Cell {
    pub(crate) contestant: String,
    /// One a round.
    pub(crate) values: Vec<f64>,
    pub(crate) unit: &'static str,
    pub(crate) median: Option<f64>,
    pub(crate) low: Option<f64>,
    pub(crate) high: Option<f64>,
    /// Why there is no value.
    pub(crate) missing: Option<String>,
    /// Whatever else was seen, for the JSON file.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) details: Vec<Value>,
}

/// Whether the goal holds.
#[derive(Serialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Verdict {
    Holds,
    Missed,
    /// Isolet, or what it is compared with, gave no value.
    Unknown,
    /// There is no goal.
    Informs,
}

impl Verdict {
    /// Holds if the condition does.
    pub(crate) fn of(holds: bool) -> Self {
        if holds { Self::Holds } else { Self::Missed }
    }

    /// The word in the table.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Holds => "yes",
            Self::Missed => "**no**",
            Self::Unknown => "not measured",
            Self::Informs => "",
        }
    }
}

impl Cell {
    /// What was measured, one value a round.
    pub(crate) fn of(contestant: impl Into<String>, unit: &'static str, values: Vec<f64>) -> Self {
        let known = (!values.is_empty()).then(|| (median(&values), spread(&values)));
        Self {
            contestant: contestant.into(),
            median: known.map(|(median, _)| median),
            low: known.map(|(_, (low, _))| low),
            high: known.map(|(_, (_, high))| high),
            values,
            unit,
            missing: None,
            details: Vec::new(),
        }
    }

    /// No value, and why.
    pub(crate) fn missing(contestant: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            missing: Some(reason.into()),
            ..Self::of(contestant, "", Vec::new())
        }
    }

    pub(crate) fn with_details(mut self, details: Vec<Value>) -> Self {
        self.details = details;
        self
    }

    /// `median (low–high) unit`.
    pub(crate) fn text(&self) -> String {
        match (self.median, self.low, self.high, &self.missing) {
            (_, _, _, Some(reason)) => reason.clone(),
            (Some(median), Some(low), Some(high), None) => {
                let unit = if self.unit.is_empty() {
                    String::new()
                } else {
                    format!(" {}", self.unit)
                };
                if self.values.len() == 1 {
                    format!("{}{unit}", number(median))
                } else {
                    format!(
                        "{} ({}–{}){unit}",
                        number(median),
                        number(low),
                        number(high)
                    )
                }
            }
            _ => "no value".into(),
        }
    }
}

impl Row {
    /// A row that could not be measured.
    pub(crate) fn failed(name: &'static str, error: &anyhow::Error) -> Self {
        Self {
            name,
            question: name.into(),
            goal: String::new(),
            cells: vec![Cell::missing("isolet", "failed to run")],
            verdict: Verdict::Unknown,
            note: String::new(),
            failures: vec![format!("{name}: {error:#}")],
        }
    }
}

/// Median of a contestant among cells.
pub(crate) fn median_of(cells: &[Cell], contestant: &str) -> Option<f64> {
    cells
        .iter()
        .find(|cell| cell.contestant == contestant)
        .and_then(|cell| cell.median)
}

/// Three digits that matter, thousands apart.
pub(crate) fn number(value: f64) -> String {
    let decimals = match value.abs() {
        v if v >= 100.0 => 0,
        v if v >= 10.0 => 1,
        v if v >= 1.0 => 2,
        _ => 3,
    };
    let text = format!("{value:.decimals$}");
    let (whole, fraction) = match text.split_once('.') {
        Some((whole, fraction)) => (whole, format!(".{fraction}")),
        None => (text.as_str(), String::new()),
    };
    let mut apart = String::new();
    for (index, digit) in whole.chars().enumerate() {
        let left = whole.len() - index;
        if index > 0 && left.is_multiple_of(3) && !apart.ends_with('-') {
            apart.push(',');
        }
        apart.push(digit);
    }
    apart + &fraction
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        assert_eq!(number(225_000.4), "225,000");
        assert_eq!(number(999.6), "1,000");
        assert_eq!(number(12.345), "12.3");
        assert_eq!(number(0.7314), "0.731");
        assert_eq!(number(-123.0), "-123");
    }

    #[test]
    fn cells_say_what_they_hold() {
        assert_eq!(
            Cell::of("x", "ms", vec![2.0, 1.0, 3.0]).text(),
            "2.00 (1.00–3.00) ms"
        );
        assert_eq!(Cell::of("x", "ms", vec![2.0]).text(), "2.00 ms");
        assert_eq!(Cell::missing("x", "no program").text(), "no program");
        assert_eq!(Cell::of("x", "ms", vec![]).text(), "no value");
    }
}
