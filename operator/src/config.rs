//! What the operator is told on its command line. Everything is parsed to its type before anything starts, and every
//! error names the flag.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, ValueEnum};

/// Reconciles Functions into bundles for the runtime pods, and reports what those serve.
#[derive(Parser, Clone, Debug)]
#[command(name = "isolet-operator", version, about)]
pub struct Config {
    /// Namespace of the operator, the runtime pods and the bundles.
    #[arg(long, env = "POD_NAMESPACE", value_parser = label)]
    pub system_namespace: String,
    /// Domain of the built-in host names NAME.NAMESPACE.DOMAIN.
    #[arg(long, env = "ISOLET_DOMAIN", default_value = "isolet.local", value_parser = domain)]
    pub domain: String,
    /// Label selector of the runtime pods in the system namespace.
    #[arg(
        long,
        default_value = "app.kubernetes.io/name=isolet,app.kubernetes.io/component=runtime",
        value_parser = selector
    )]
    pub runtime_selector: String,
    /// DaemonSet of the runtime pods. Bundles get it as their owner, so that they go when it goes.
    #[arg(long)]
    pub runtime_daemonset: Option<String>,
    /// Service in front of the runtime pods, for status.address.
    #[arg(long, default_value = "isolet", value_parser = label)]
    pub runtime_service: String,
    /// Port of the agent's endpoint in the runtime pods.
    #[arg(long, default_value_t = 9090)]
    pub agent_port: u16,
    /// File with the ServiceAccount token (audience isolet) for the agents; read again for every call.
    #[arg(long)]
    pub token_file: PathBuf,
    /// JSON or YAML file: namespace -> host patterns which its Functions may claim; "*" is every namespace. Without it,
    /// only the built-in routes exist.
    #[arg(long)]
    pub allowed_hosts_file: Option<PathBuf>,
    /// Address of /metrics, /healthz and /readyz.
    #[arg(long, default_value = "0.0.0.0:8080")]
    pub metrics_addr: SocketAddr,
    /// Lease in the system namespace by which one of several operators leads.
    #[arg(long, default_value = "isolet-operator")]
    pub lease_name: String,
    /// Name of this operator in the Lease and in Events, which no other has; the pod's name.
    #[arg(long, env = "POD_NAME", default_value_t = unique_name())]
    pub identity: String,
    /// Works without asking the Lease.
    #[arg(long)]
    pub no_leader_election: bool,
    /// Own ServiceAccount; named in the command that grants access to a namespace's Secrets.
    #[arg(long, env = "POD_SERVICE_ACCOUNT", default_value = "isolet-operator")]
    pub service_account: String,
    /// ClusterRole by which a namespace grants access to its Secrets and ConfigMaps; named in that command.
    #[arg(long, default_value = "isolet-function-refs")]
    pub refs_cluster_role: String,
    /// About how many seconds pass until Secrets and ConfigMaps that a Function refers to are read again; they are not
    /// watched.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub reference_refresh_seconds: u64,
    /// Functions reconciled at once.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub concurrency: u16,
    /// Form of the log lines.
    #[arg(long, value_enum, default_value_t = LogFormat::Json)]
    pub log_format: LogFormat,
    /// What is logged, as in RUST_LOG.
    #[arg(long, env = "RUST_LOG", default_value = "info")]
    pub log: String,
}

/// Form of the log lines.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

fn unique_name() -> String {
    format!(
        "isolet-operator-{}-{}",
        std::process::id(),
        k8s_openapi::jiff::Timestamp::now().as_millisecond()
    )
}

fn label(text: &str) -> Result<String, String> {
    let inside = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if text.is_empty()
        || text.len() > 63
        || !text.chars().all(inside)
        || text.starts_with('-')
        || text.ends_with('-')
    {
        return Err("must be a DNS label: lower-case letters, digits and inner hyphens".into());
    }
    Ok(text.to_owned())
}

fn domain(text: &str) -> Result<String, String> {
    text.split('.').try_for_each(|part| label(part).map(drop))?;
    Ok(text.to_owned())
}

/// Equality requirements only: all that a selector of pods by their own labels needs.
fn selector(text: &str) -> Result<String, String> {
    let inside = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    let valid = |requirement: &str| {
        requirement.split_once('=').is_some_and(|(key, value)| {
            !key.is_empty() && key.chars().all(inside) && value.chars().all(inside)
        })
    };
    if text.split(',').all(valid) {
        return Ok(text.to_owned());
    }
    Err("must be KEY=VALUE, or several with commas between".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Config, clap::Error> {
        let required = [
            "isolet-operator",
            "--system-namespace=isolet-system",
            "--token-file=/t",
        ];
        Config::try_parse_from(required.iter().chain(args))
    }

    #[test]
    fn defaults_are_complete() {
        let config = parse(&[]).expect("parses");
        assert_eq!(config.domain, "isolet.local");
        assert_eq!(config.agent_port, 9090);
        assert_eq!(config.concurrency, 16);
        assert!(!config.no_leader_election);
    }

    #[test]
    fn errors_name_the_flag() {
        for (flag, value) in [
            ("--domain", "Not A Domain"),
            ("--runtime-selector", "a in (b"),
            ("--runtime-selector", ""),
            ("--agent-port", "70000"),
            ("--metrics-addr", "localhost"),
            ("--concurrency", "0"),
            ("--log-format", "xml"),
        ] {
            let error = parse(&[flag, value]).expect_err(flag).to_string();
            assert!(error.contains(flag), "{flag}: {error}");
        }
    }
}
