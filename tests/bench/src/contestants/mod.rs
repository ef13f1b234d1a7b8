//! Who is measured. Each contestant starts its own server with the same workload, on the server core.

pub(crate) mod deno;
pub(crate) mod hyper;
pub(crate) mod isolet;
pub(crate) mod node;
pub(crate) mod packages;
pub(crate) mod workerd;

use std::time::Duration;

use crate::http::{Answer, Connection};
use crate::plan::Plan;
use crate::process::{Server, free_port};

/// Time for a server with few functions to give its first answer.
pub(crate) const START_PATIENCE: Duration = Duration::from_secs(20);

/// One of those measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contestant {
    Isolet,
    Deno,
    Node,
    Workerd,
    Hyper,
}

/// What a server is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Workload {
    /// GET, eleven bytes back.
    Hello,
    /// POST of 1 KB of JSON, parsed and written again.
    Echo,
    /// GET, 64 KiB back as a stream of four chunks.
    Stream,
}

/// A server and the path of its workload.
pub(crate) struct Serving {
    pub(crate) server: Server,
    pub(crate) path: String,
}

/// A contestant that runs here, or the reason why it does not.
pub(crate) struct Entry {
    pub(crate) contestant: Contestant,
    /// Its version.
    pub(crate) version: Result<String, String>,
}

/// All contestants, those that cannot be had too.
pub(crate) fn all(plan: &Plan) -> Vec<Entry> {
    [
        Contestant::Isolet,
        Contestant::Deno,
        Contestant::Node,
        Contestant::Workerd,
        Contestant::Hyper,
    ]
    .map(|contestant| Entry {
        contestant,
        version: contestant
            .version(plan)
            .map_err(|error| format!("{error:#}")),
    })
    .into()
}

/// Starts a program that is told its port and the workload by its last two words.
fn start(plan: &Plan, log: &str, program: &[&str], workload: Workload) -> anyhow::Result<Serving> {
    let port = free_port()?;
    let mut command: Vec<String> = program.iter().map(|word| (*word).to_owned()).collect();
    command.extend([port.to_string(), workload.name().to_owned()]);
    let log = plan.work.join(log);
    Ok(Serving {
        server: Server::start(Some(plan.server_core), &command, port, &log)?,
        path: "/".into(),
    })
}

impl Contestant {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Isolet => "isolet",
            Self::Deno => "Deno",
            Self::Node => "Node",
            Self::Workerd => "workerd",
            Self::Hyper => "hyper",
        }
    }

    fn version(self, plan: &Plan) -> anyhow::Result<String> {
        match self {
            Self::Isolet => isolet::version(plan),
            Self::Deno => deno::version(plan),
            Self::Node => node::version(),
            Self::Workerd => workerd::version(plan),
            Self::Hyper => hyper::version(),
        }
    }

    /// Starts a server and waits until it answers as it should.
    pub(crate) fn serve(self, plan: &Plan, workload: Workload) -> anyhow::Result<Serving> {
        let mut serving = match self {
            Self::Isolet => isolet::serve(plan, workload)?,
            Self::Deno => deno::serve(plan, workload)?,
            Self::Node => node::serve(plan, workload)?,
            Self::Workerd => workerd::serve(plan, workload)?,
            Self::Hyper => hyper::serve(plan, workload)?,
        };
        let path = serving.path.clone();
        serving.server.wait_for(
            START_PATIENCE,
            |connection| workload.ask(connection, &path),
            &workload.answer(),
        )?;
        Ok(serving)
    }
}

impl Workload {
    /// The name of its module in `apps`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Hello => "hello",
            Self::Echo => "echo",
            Self::Stream => "stream",
        }
    }

    /// One request.
    pub(crate) fn ask(self, connection: &mut Connection, path: &str) -> anyhow::Result<Answer> {
        match self {
            Self::Hello | Self::Stream => connection.get(path),
            Self::Echo => connection.post(path, &echo_body()),
        }
    }

    /// The right answer.
    pub(crate) fn answer(self) -> Vec<u8> {
        match self {
            Self::Hello => b"hello world".to_vec(),
            Self::Echo => echo_body().into_bytes(),
            Self::Stream => vec![b'a'; 64 << 10],
        }
    }
}

/// About 1 KB of JSON, without blanks, names in order: the text is the same after parsing and writing.
pub(crate) fn echo_body() -> String {
    let items: Vec<String> = (10..28)
        .map(|id| format!(r#"{{"id":{id},"name":"item number {id}","tags":["a","b"]}}"#))
        .collect();
    format!(r#"{{"items":[{}],"total":18}}"#, items.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_echo_is_one_kilobyte_and_stays_the_same() {
        let body = echo_body();
        assert!((900..1100).contains(&body.len()), "{} bytes", body.len());
        let value: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(serde_json::to_string(&value).unwrap(), body);
    }
}
