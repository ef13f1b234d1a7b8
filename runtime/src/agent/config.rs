//! `isolet agent`: flags, checked as a whole before any port is bound. Every error names its flag.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::Args;
use ipnet::IpNet;

use crate::egress::policy::PlatformPolicy;

/// Serves Functions on a node of a cluster.
#[derive(Args, Clone, Debug)]
pub struct AgentArgs {
    /// Namespace of the bundle objects: the one that this pod is in
    #[arg(long, env = "POD_NAMESPACE", value_parser = label)]
    pub namespace: String,
    /// Address for requests to Functions
    #[arg(long, env = "ISOLET_LISTEN", default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,
    /// Address for probes, metrics and the operator
    #[arg(long, env = "ISOLET_AGENT_LISTEN", default_value = "0.0.0.0:9090")]
    pub agent_listen: SocketAddr,
    /// Folder that keeps what is served, so that a restart with the API server down serves it again
    #[arg(long, env = "ISOLET_CACHE_DIR")]
    pub cache_dir: Option<PathBuf>,
    /// Domain of the built-in hosts NAME.NAMESPACE.DOMAIN
    #[arg(long, env = "ISOLET_DOMAIN", value_parser = domain)]
    pub domain: Option<String>,
    /// ServiceAccount that may read /v1/functions: NAMESPACE:NAME, also with system:serviceaccount: in front
    #[arg(long, env = "ISOLET_OPERATOR_SERVICE_ACCOUNT", value_parser = service_account)]
    pub operator_service_account: String,
    /// How long requests may go on after SIGTERM
    #[arg(long, env = "ISOLET_DRAIN_SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(0..=3600))]
    pub drain_seconds: u64,
    /// Instances that live at once, past which the coldest go; 0: as many as there is memory for
    #[arg(long, env = "ISOLET_MAX_INSTANCES", default_value_t = 0)]
    pub max_instances: usize,
    /// Private address ranges that Functions may reach, where their own rules name them too
    #[arg(long, env = "ISOLET_EGRESS_ALLOW_PRIVATE", value_delimiter = ',', value_parser = range)]
    pub egress_allow_private: Vec<IpNet>,
    /// Address ranges that no Function may reach, such as the cluster's own where they are public
    #[arg(long, env = "ISOLET_EGRESS_DENY", value_delimiter = ',', value_parser = range)]
    pub egress_deny: Vec<IpNet>,
    /// Addresses of this pod; its own ports are closed on them
    #[arg(long, env = "POD_IPS", value_delimiter = ',')]
    pub pod_ip: Vec<IpAddr>,
}

impl AgentArgs {
    /// The platform's egress policy.
    pub fn policy(&self) -> PlatformPolicy {
        PlatformPolicy {
            allow: self.egress_allow_private.clone(),
            deny: self.egress_deny.clone(),
            own_ports: vec![self.listen.port(), self.agent_listen.port()],
            own_addresses: self.pod_ip.clone(),
            loopback_by_rule: false,
        }
    }
}

fn range(text: &str) -> Result<IpNet, String> {
    text.parse::<IpNet>()
        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
        .map_err(|_| "write an address range such as 10.0.0.0/8".into())
}

fn service_account(text: &str) -> Result<String, String> {
    const PREFIX: &str = "system:serviceaccount:";
    let short = text.strip_prefix(PREFIX).unwrap_or(text);
    match short.split_once(':') {
        Some((namespace, name))
            if label(namespace).is_ok() && !name.is_empty() && !name.contains(':') =>
        {
            Ok(format!("{PREFIX}{short}"))
        }
        _ => Err("write NAMESPACE:NAME, such as isolet-system:isolet-operator".into()),
    }
}

fn label(text: &str) -> Result<String, String> {
    let sane = (1..=63).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-');
    if sane {
        Ok(text.to_owned())
    } else {
        Err("write a namespace's name, such as isolet-system".into())
    }
}

fn domain(text: &str) -> Result<String, String> {
    if text.len() <= 253 && text.split('.').all(|part| label(part).is_ok()) {
        Ok(text.to_owned())
    } else {
        Err("write a domain in lower case, such as fn.example.com".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser, Debug)]
    struct Cli {
        #[command(flatten)]
        agent: AgentArgs,
    }

    fn parse(args: &[&str]) -> Result<AgentArgs, String> {
        let base = [
            "agent",
            "--namespace=isolet-system",
            "--operator-service-account=isolet-system:op",
        ];
        Cli::try_parse_from(base.iter().chain(args))
            .map(|cli| cli.agent)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn what_the_chart_passes() {
        let args = parse(&[
            "--listen=0.0.0.0:8080",
            "--agent-listen=[::]:9090",
            "--cache-dir=/var/cache/isolet",
            "--domain=fn.example.com",
            "--drain-seconds=20",
            "--max-instances=500",
            "--egress-allow-private=10.0.0.0/8",
            "--egress-allow-private=192.168.0.0/16,127.0.0.1",
        ])
        .unwrap();
        assert_eq!(
            args.operator_service_account,
            "system:serviceaccount:isolet-system:op"
        );
        assert_eq!(args.max_instances, 500);
        assert_eq!(args.egress_allow_private.len(), 3);
        assert_eq!(args.policy().own_ports, [8080, 9090]);
    }

    #[test]
    fn every_error_names_its_flag() {
        for (arg, flag) in [
            ("--listen=8080", "--listen"),
            ("--agent-listen=localhost", "--agent-listen"),
            ("--domain=Bad_Domain", "--domain"),
            ("--drain-seconds=-1", "--drain-seconds"),
            ("--drain-seconds=soon", "--drain-seconds"),
            ("--max-instances=-1", "--max-instances"),
            (
                "--egress-allow-private=10.0.0.0/99",
                "--egress-allow-private",
            ),
            ("--egress-deny=x", "--egress-deny"),
            ("--pod-ip=x", "--pod-ip"),
            (
                "--operator-service-account=op",
                "--operator-service-account",
            ),
            ("--namespace=a/b", "--namespace"),
        ] {
            let mut args = vec!["agent", arg];
            for other in [
                "--namespace=isolet-system",
                "--operator-service-account=a:b",
            ] {
                if !other.starts_with(flag) {
                    args.push(other);
                }
            }
            let error = Cli::try_parse_from(args).expect_err(arg).to_string();
            assert!(error.contains(flag), "{arg}: {error}");
        }
    }
}
