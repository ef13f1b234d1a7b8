//! The worker's log lines, for a person at a terminal:
//!
//! ```text
//! default/hello | what the function wrote to its console
//! default/hello ! what it wrote with console.warn or console.error
//! GET /fn/default/hello/ 200 3 ms
//! default/hello: request failed: … (HandlerError)
//!     Error: …
//!         at fetch (main.ts:3:5)
//! warning: anything else worth knowing
//! ```

use std::fmt::{self, Write};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Target of console output.
pub const CONSOLE: &str = "console";
const DEFAULT_FILTER: &str =
    "warn,console=debug,isolet_runtime::server=debug,isolet_runtime::scheduler=warn";

/// Writes such lines to standard output; `RUST_LOG` chooses which.
pub fn init() {
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT_FILTER));
    // Fails only if a subscriber is there already, which is then as good.
    let _ = tracing::subscriber::set_global_default(
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stdout)
            .event_format(Lines)
            .finish(),
    );
}

struct Lines;

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let level = *event.metadata().level();
        out.write_str(&fields.lines(event.metadata().target(), level))
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    namespace: String,
    function: String,
    reason: String,
    exception: String,
    stack: String,
    method: String,
    path: String,
    status: String,
    ms: String,
    others: String,
}

impl Fields {
    fn lines(&self, target: &str, level: Level) -> String {
        let mut text = String::new();
        let name = format!("{}/{}", self.namespace, self.function);
        let has_name = !self.function.is_empty();
        if target == CONSOLE {
            let mark = if level <= Level::WARN { '!' } else { '|' };
            for line in self.message.split('\n') {
                let _ = writeln!(text, "{name} {mark} {}", plain(line));
            }
        } else if !self.method.is_empty() {
            let _ = writeln!(
                text,
                "{} {} {} {} ms",
                plain(&self.method),
                plain(&self.path),
                self.status,
                self.ms
            );
        } else if has_name {
            let _ = writeln!(
                text,
                "{name}: {}{}",
                plain(&self.message),
                bracketed(&self.reason)
            );
            // V8's stack begins with the message.
            let detail = if self.stack.is_empty() {
                &self.exception
            } else {
                &self.stack
            };
            for line in detail.lines().filter(|line| !line.is_empty()) {
                let _ = writeln!(text, "    {}", plain(line));
            }
        } else {
            let label = match level {
                Level::ERROR => "error: ",
                Level::WARN => "warning: ",
                _ => "",
            };
            let _ = writeln!(
                text,
                "{label}{}{}",
                plain(&self.message),
                plain(&self.others)
            );
        }
        text
    }

    fn set(&mut self, field: &Field, value: String) {
        let place = match field.name() {
            "message" => &mut self.message,
            "namespace" => &mut self.namespace,
            "function" => &mut self.function,
            "reason" => &mut self.reason,
            "exception" => &mut self.exception,
            "stack" => &mut self.stack,
            "method" => &mut self.method,
            "path" => &mut self.path,
            "status" => &mut self.status,
            "ms" => &mut self.ms,
            other => {
                let _ = write!(self.others, " {other}={value}");
                return;
            }
        };
        *place = value;
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field, value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.set(field, format!("{value:?}"));
    }
}

fn bracketed(reason: &str) -> String {
    if reason.is_empty() {
        String::new()
    } else {
        format!(" ({reason})")
    }
}

/// Without what could steer a terminal.
fn plain(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c.is_control() && c != '\t' {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_for_people() {
        let fields = |message: &str| Fields {
            message: message.into(),
            namespace: "default".into(),
            function: "hello".into(),
            ..Default::default()
        };
        let console = fields("one\ntwo \u{1b}[2J");
        assert_eq!(
            console.lines(CONSOLE, Level::INFO),
            "default/hello | one\ndefault/hello | two \u{fffd}[2J\n"
        );
        assert_eq!(
            fields("x").lines(CONSOLE, Level::ERROR),
            "default/hello ! x\n"
        );
        let request = Fields {
            method: "GET".into(),
            path: "/x".into(),
            status: "200".into(),
            ms: "3".into(),
            ..fields("request")
        };
        assert_eq!(request.lines("server", Level::DEBUG), "GET /x 200 3 ms\n");
        let failed = Fields {
            reason: "HandlerError".into(),
            stack: "Error: no\n    at fetch (main.ts:3:5)".into(),
            ..fields("request failed")
        };
        assert_eq!(
            failed.lines("scheduler", Level::WARN),
            "default/hello: request failed (HandlerError)\n    Error: no\n        at fetch (main.ts:3:5)\n"
        );
        let other = Fields {
            message: "odd".into(),
            others: " why=x".into(),
            ..Default::default()
        };
        assert_eq!(other.lines("worker", Level::WARN), "warning: odd why=x\n");
    }
}
