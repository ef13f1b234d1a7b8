//! From a URL's host to a connection: resolve once, check every address, connect to one that was checked.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use isolet_crds::egress::EgressRule;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use url::{Host, Url};

use super::EgressError;
use super::policy::{PlatformPolicy, may_resolve};

const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);
/// For all addresses of a host and the TLS handshake together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// For one address while others remain.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(3);
/// The resolver blocks a thread for each query.
const QUERIES_AT_ONCE: usize = 64;
const MAX_ADDRESSES: usize = 64;

/// A connected stream, encrypted or not.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Makes connections under the platform's policy.
pub struct Connector {
    policy: PlatformPolicy,
    tls: TlsConnector,
    queries: Semaphore,
}

impl Connector {
    /// Trusts the certificate authorities of the system (`SSL_CERT_FILE` and `SSL_CERT_DIR` are honoured); where there are
    /// none, Mozilla's as this build has them.
    pub fn new(policy: PlatformPolicy) -> Result<Self, rustls::Error> {
        let mut roots = RootCertStore::empty();
        let native = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(native.certs);
        if roots.is_empty() {
            roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        }
        Self::with_roots(policy, roots)
    }

    /// Trusts these certificate authorities.
    pub fn with_roots(policy: PlatformPolicy, roots: RootCertStore) -> Result<Self, rustls::Error> {
        let mut config =
            ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()?
                .with_root_certificates(roots)
                .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            policy,
            tls: TlsConnector::from(Arc::new(config)),
            queries: Semaphore::new(QUERIES_AT_ONCE),
        })
    }

    /// Whether a Function with these rules may use a connection to this address of the target.
    pub fn allows(&self, rules: &[EgressRule], target: &Target<'_>, peer: IpAddr) -> bool {
        self.policy
            .check(rules, &target.name, peer, target.port)
            .is_ok()
    }

    /// Connects to the target in the name of a Function with these rules.
    pub async fn connect(
        &self,
        rules: &[EgressRule],
        target: &Target<'_>,
    ) -> Result<(Box<dyn Stream>, IpAddr), EgressError> {
        let Target { name, port, .. } = target;
        let addresses = self.addresses(rules, target).await?;
        let deadline = Instant::now() + CONNECT_TIMEOUT;
        let (tcp, peer) = dial(name, *port, &addresses, deadline).await?;
        if !target.tls {
            return Ok((Box::new(tcp), peer));
        }
        let failed = |why: String| {
            EgressError::Failed(format!(
                "failed to connect to {name}:{port} with TLS: {why}"
            ))
        };
        let server =
            ServerName::try_from(name.clone()).map_err(|error| failed(error.to_string()))?;
        match tokio::time::timeout_at(deadline, self.tls.connect(server, tcp)).await {
            Ok(Ok(stream)) => Ok((Box::new(stream), peer)),
            Ok(Err(error)) => Err(failed(error.to_string())),
            Err(_) => Err(failed(format!(
                "no answer within {} s",
                CONNECT_TIMEOUT.as_secs()
            ))),
        }
    }

    /// Every address of the host, each of them checked.
    async fn addresses(
        &self,
        rules: &[EgressRule],
        target: &Target<'_>,
    ) -> Result<Vec<IpAddr>, EgressError> {
        let (name, port) = (&target.name, target.port);
        let addresses = match &target.host {
            Host::Ipv4(address) => vec![IpAddr::V4(*address)],
            Host::Ipv6(address) => vec![IpAddr::V6(*address)],
            Host::Domain(domain) => {
                may_resolve(rules, domain, port)?;
                self.resolve(domain, port).await?
            }
        };
        for address in &addresses {
            self.policy.check(rules, name, *address, port)?;
        }
        Ok(addresses)
    }

    async fn resolve(&self, domain: &str, port: u16) -> Result<Vec<IpAddr>, EgressError> {
        let failed =
            |why: String| EgressError::Failed(format!("failed to resolve {domain}: {why}"));
        let query = async {
            // It is never closed.
            let _slot = self.queries.acquire().await.ok();
            tokio::net::lookup_host((domain, port)).await
        };
        let found = timeout(RESOLVE_TIMEOUT, query)
            .await
            .map_err(|_| failed(format!("no answer within {} s", RESOLVE_TIMEOUT.as_secs())))?
            .map_err(|error| failed(error.to_string()))?;
        let mut addresses: Vec<IpAddr> = Vec::new();
        for address in found.map(|found| found.ip()) {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        match addresses.len() {
            0 => Err(failed("it has no address".into())),
            1..=MAX_ADDRESSES => Ok(addresses),
            many => Err(failed(format!(
                "it has {many} addresses, more than {MAX_ADDRESSES}"
            ))),
        }
    }
}

async fn dial(
    name: &str,
    port: u16,
    addresses: &[IpAddr],
    deadline: Instant,
) -> Result<(TcpStream, IpAddr), EgressError> {
    let mut last = String::from("no time left");
    for (index, address) in addresses.iter().enumerate() {
        let until = if index + 1 < addresses.len() {
            deadline.min(Instant::now() + ATTEMPT_TIMEOUT)
        } else {
            deadline
        };
        match tokio::time::timeout_at(until, TcpStream::connect(SocketAddr::new(*address, port)))
            .await
        {
            Ok(Ok(stream)) => {
                // Only a matter of speed.
                let _ = stream.set_nodelay(true);
                return Ok((stream, *address));
            }
            Ok(Err(error)) => last = error.to_string(),
            Err(_) => last = "no answer in time".into(),
        }
    }
    Err(EgressError::Failed(format!(
        "failed to connect to {name}:{port}: {last}"
    )))
}

/// Where a URL leads.
pub struct Target<'a> {
    host: Host<&'a str>,
    /// The host as rules and errors write it.
    pub name: String,
    /// The port, also where it is the scheme's.
    pub port: u16,
    /// Whether it is encrypted.
    pub tls: bool,
}

impl<'a> Target<'a> {
    /// Reads an http or https URL.
    pub fn of(url: &'a Url) -> Result<Self, EgressError> {
        let port = url
            .port_or_known_default()
            .ok_or_else(|| EgressError::Unsendable(format!("{} has no port", url.scheme())))?;
        let host = url
            .host()
            .ok_or_else(|| EgressError::Unsendable("the URL has no host".into()))?;
        Ok(Self {
            name: host_name(&host),
            host,
            port,
            tls: url.scheme() == "https",
        })
    }
}

/// The host as rules and errors write it: no brackets around IPv6, no dot at the end.
fn host_name(host: &Host<&str>) -> String {
    match host {
        Host::Domain(name) => name.strip_suffix('.').unwrap_or(name).to_owned(),
        Host::Ipv4(address) => address.to_string(),
        Host::Ipv6(address) => address.to_string(),
    }
}
