//! Where a Function's request may go: its own rules AND the platform's. Pure: names and addresses come in, a verdict goes out.
//!
//! The Function's rules say which hosts it means to reach; the platform's say which addresses nobody reaches, whatever name
//! led there. What the platform allows by CIDR it allows for every Function, still subject to that Function's rules.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use isolet_crds::egress::{EgressHost, EgressRule};

/// The platform's policy.
#[derive(Clone, Debug, Default)]
pub struct PlatformPolicy {
    /// Ranges that are open although they are not public: `--egress-allow-private`.
    pub allow: Vec<IpNet>,
    /// Ranges that are closed although they look public, such as a cluster's own: `--egress-deny`. They win over `allow`.
    pub deny: Vec<IpNet>,
    /// Ports of this pod: closed on its own addresses even where those are allowed.
    pub own_ports: Vec<u16>,
    /// Addresses of this pod beside loopback.
    pub own_addresses: Vec<IpAddr>,
    /// Opens loopback to a Function whose own rule names it: for `isolet dev`.
    pub loopback_by_rule: bool,
}

/// Why a request may not go out. The text is what JavaScript sees.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No rule of the Function matches.
    #[error(
        "egress to {host}:{port} is not allowed: add \"{}:{port}\" to spec.egress.allow",
        rule_host(host)
    )]
    NoRule {
        /// Host of the URL.
        host: String,
        /// Port of the URL.
        port: u16,
    },
    /// The platform denies an address.
    #[error("egress to {host}:{port} is not allowed: it {leads} {address}, {what}, which the platform's policy denies{}", remedy(*address))]
    Denied {
        /// Host of the URL.
        host: String,
        /// Port of the URL.
        port: u16,
        /// `resolves to` or `is`.
        leads: &'static str,
        /// The address.
        address: IpAddr,
        /// What kind of address it is.
        what: &'static str,
    },
}

fn rule_host(host: &str) -> String {
    if host.parse::<Ipv6Addr>().is_ok() {
        format!("[{host}]")
    } else {
        host.to_owned()
    }
}

fn remedy(address: IpAddr) -> String {
    if address.to_canonical().is_loopback() {
        "; in `isolet dev`, name localhost itself in spec.egress.allow".into()
    } else {
        String::new()
    }
}

/// Whether any rule speaks of the host before it is resolved, or may speak of its addresses after: else it need not be
/// resolved at all, and no query about it leaves the cluster.
pub fn may_resolve(rules: &[EgressRule], host: &str, port: u16) -> Result<(), Refusal> {
    let possible = rules.iter().any(|rule| {
        rule.allows_name(host, port)
            || (matches!(rule.host, EgressHost::Addresses(_)) && rule.allows_port(port))
    });
    if possible {
        Ok(())
    } else {
        Err(Refusal::NoRule {
            host: host.to_owned(),
            port,
        })
    }
}

impl PlatformPolicy {
    /// Whether a request to this host, which is or resolves to this address, may go out. Every address of a name is asked
    /// about, and one refusal refuses the request.
    pub fn check(
        &self,
        rules: &[EgressRule],
        host: &str,
        address: IpAddr,
        port: u16,
    ) -> Result<(), Refusal> {
        let by_name = rules.iter().any(|rule| rule.allows_name(host, port));
        let by_address = rules.iter().any(|rule| rule.allows_address(address, port));
        if !by_name && !by_address {
            return Err(Refusal::NoRule {
                host: host.to_owned(),
                port,
            });
        }
        let is_literal = host.parse::<IpAddr>().is_ok();
        match self.denied(rules, host, address, port) {
            None => Ok(()),
            Some(what) => Err(Refusal::Denied {
                host: host.to_owned(),
                port,
                leads: if is_literal { "is" } else { "resolves to" },
                address,
                what,
            }),
        }
    }

    fn denied(
        &self,
        rules: &[EgressRule],
        host: &str,
        address: IpAddr,
        port: u16,
    ) -> Option<&'static str> {
        // What an IPv6 address carries of an IPv4 one is where the packets end up.
        for address in effective(address) {
            let own = address.is_loopback() || self.own_addresses.contains(&address);
            if own && self.own_ports.contains(&port) {
                return Some("a port of the runtime itself");
            }
            if self.deny.iter().any(|range| range.contains(&address)) {
                return Some("an address of the cluster");
            }
            let allowed = self.allow.iter().any(|range| range.contains(&address))
                || (self.loopback_by_rule
                    && address.is_loopback()
                    && names_loopback(rules, host, address, port));
            if !allowed && let Some(what) = range_name(address) {
                return Some(what);
            }
        }
        None
    }
}

/// A rule that means loopback: its name, or a range within it.
fn names_loopback(rules: &[EgressRule], host: &str, address: IpAddr, port: u16) -> bool {
    rules.iter().any(|rule| match &rule.host {
        EgressHost::Name(name) => {
            (name == "localhost" || name.ends_with(".localhost")) && rule.allows_name(host, port)
        }
        EgressHost::Subdomains(name) => name == "localhost" && rule.allows_name(host, port),
        EgressHost::Addresses(range) => {
            range.network().is_loopback() && rule.allows_address(address, port)
        }
    })
}

/// The address itself, and the IPv4 address inside it where it is a mapped, compatible, NAT64, 6to4 or Teredo one.
fn effective(address: IpAddr) -> impl Iterator<Item = IpAddr> {
    let inner = match address {
        IpAddr::V4(_) => None,
        IpAddr::V6(v6) => embedded(v6).map(IpAddr::V4),
    };
    // A mapped address is an IPv4 address and no more; the others are also addresses of their own.
    let outer = (address.to_canonical() == address).then_some(address);
    outer.into_iter().chain(inner)
}

fn embedded(v6: Ipv6Addr) -> Option<Ipv4Addr> {
    let segments = v6.segments();
    let v4 = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match segments {
        [0, 0, 0, 0, 0, 0xffff, high, low] => Some(v4(high, low)),
        // RFC 6052 and RFC 8215.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x64, 0xff9b, 1, _, _, _, high, low] => {
            Some(v4(high, low))
        }
        // RFC 3056.
        [0x2002, high, low, ..] => Some(v4(high, low)),
        // RFC 4380: the client's address, inverted.
        [0x2001, 0, .., high, low] => Some(v4(!high, !low)),
        // ISATAP, RFC 5214.
        [.., 0 | 0x200, 0x5efe, high, low] => Some(v4(high, low)),
        // RFC 4291, deprecated; `::` and `::1` are their own.
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 => Some(v4(high, low)),
        _ => None,
    }
}

/// What is closed unless the platform opens it; `None` for public addresses.
fn range_name(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(v4) => v4_range(v4),
        IpAddr::V6(v6) => v6_range(v6),
    }
}

fn v4_range(v4: Ipv4Addr) -> Option<&'static str> {
    let [a, b, c, _] = v4.octets();
    match (a, b, c) {
        (0, ..) => Some("an unspecified address"),
        (10, ..) | (172, 16..=31, _) | (192, 168, _) => Some("a private address"),
        (100, 64..=127, _) => Some("a carrier-grade NAT address"),
        (127, ..) => Some("a loopback address"),
        (169, 254, 169) if v4.octets()[3] == 254 => Some("the cloud's metadata service"),
        (169, 254, _) => Some("a link-local address"),
        (192, 0, 0) | (198, 18..=19, _) => Some("a reserved address"),
        // Alibaba's and Oracle's metadata services lie in CGNAT and 192.0.0.0/24; Azure's wire server does not.
        (168, 63, 129) if v4.octets()[3] == 16 => Some("the cloud's metadata service"),
        (224..=239, ..) => Some("a multicast address"),
        (240..=255, ..) => Some("a reserved address"),
        _ => None,
    }
}

fn v6_range(v6: Ipv6Addr) -> Option<&'static str> {
    if v6.is_unspecified() {
        return Some("an unspecified address");
    }
    if v6.is_loopback() {
        return Some("a loopback address");
    }
    match v6.segments()[0] {
        0xfe80..=0xfebf => Some("a link-local address"),
        0xfec0..=0xfeff => Some("a site-local address"),
        0xfc00..=0xfdff => Some("a private address"),
        0xff00..=0xffff => Some("a multicast address"),
        0x0100 if v6.segments()[1..4] == [0, 0, 0] => Some("a reserved address"),
        // Outside 2000::/3 nothing is global but NAT64, whose inner address is judged on its own.
        0x2000..=0x3fff => None,
        0x0064 if v6.segments()[1] == 0xff9b => None,
        _ => Some("a reserved address"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(texts: &[&str]) -> Vec<EgressRule> {
        texts
            .iter()
            .map(|text| EgressRule::parse(text).unwrap())
            .collect()
    }

    fn everything() -> Vec<EgressRule> {
        rules(&["0.0.0.0/0", "::/0", "*.example.com", "localhost", "*.local"])
    }

    fn verdict(policy: &PlatformPolicy, host: &str, address: &str) -> Result<(), String> {
        policy
            .check(&everything(), host, address.parse().unwrap(), 443)
            .map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn the_platform_denies_whatever_the_functions_rules_say() {
        let policy = PlatformPolicy::default();
        for (address, what) in [
            ("0.0.0.0", "unspecified"),
            ("0.1.2.3", "unspecified"),
            ("10.0.0.1", "private"),
            ("172.16.0.1", "private"),
            ("172.31.255.255", "private"),
            ("192.168.1.1", "private"),
            ("100.64.0.1", "carrier-grade"),
            ("100.100.100.200", "carrier-grade"),
            ("127.0.0.1", "loopback"),
            ("127.9.9.9", "loopback"),
            ("169.254.169.254", "metadata"),
            ("169.254.1.1", "link-local"),
            ("168.63.129.16", "metadata"),
            ("192.0.0.192", "reserved"),
            ("198.18.0.1", "reserved"),
            ("224.0.0.1", "multicast"),
            ("239.1.1.1", "multicast"),
            ("255.255.255.255", "reserved"),
            ("::", "unspecified"),
            ("::1", "loopback"),
            ("fe80::1", "link-local"),
            ("fec0::1", "site-local"),
            ("fc00::1", "private"),
            ("fd00:ec2::254", "private"),
            ("ff02::1", "multicast"),
            ("100::1", "reserved"),
            ("4000::1", "reserved"),
            ("::ffff:10.0.0.1", "private"),
            ("::ffff:127.0.0.1", "loopback"),
            ("::10.0.0.1", "reserved"),
            ("64:ff9b::10.0.0.1", "private"),
            ("64:ff9b::a9fe:a9fe", "metadata"),
            ("64:ff9b:1::7f00:1", "loopback"),
            ("2002:7f00:1::", "loopback"),
            ("2002:c0a8:101::1", "private"),
            ("2001:0:1:2:3:4:80ff:fffe", "loopback"),
            ("2a00::5efe:10.0.0.1", "private"),
        ] {
            let error = verdict(&policy, "x.example.com", address).expect_err(address);
            assert!(error.contains(what), "{address}: {error}");
            assert!(error.contains("resolves to"), "{error}");
        }
    }

    #[test]
    fn public_addresses_are_open() {
        let policy = PlatformPolicy::default();
        for address in [
            "1.1.1.1",
            "93.184.216.34",
            "172.15.0.1",
            "172.32.0.1",
            "100.63.0.1",
            "100.128.0.1",
            "169.253.1.1",
            "192.0.1.1",
            "2606:4700::1111",
            "2a00:1450::5",
            "64:ff9b::1.1.1.1",
            "2002:101:101::1",
            "::ffff:1.1.1.1",
        ] {
            assert_eq!(
                verdict(&policy, "x.example.com", address),
                Ok(()),
                "{address}"
            );
        }
    }

    #[test]
    fn the_platform_opens_ranges_and_closes_its_own() {
        let policy = PlatformPolicy {
            allow: vec![
                "10.0.0.0/8".parse().unwrap(),
                "127.0.0.0/8".parse().unwrap(),
            ],
            deny: vec![
                "10.96.0.0/12".parse().unwrap(),
                "203.0.113.0/24".parse().unwrap(),
            ],
            own_ports: vec![443],
            own_addresses: vec!["10.1.1.1".parse().unwrap()],
            loopback_by_rule: false,
        };
        assert_eq!(verdict(&policy, "x.example.com", "10.5.0.1"), Ok(()));
        assert_eq!(verdict(&policy, "x.example.com", "::ffff:10.5.0.1"), Ok(()));
        for (address, what) in [
            ("192.168.0.1", "private"),
            ("10.96.0.1", "of the cluster"),
            ("203.0.113.5", "of the cluster"),
            ("64:ff9b::10.96.0.1", "of the cluster"),
            ("10.1.1.1", "port of the runtime"),
            ("127.0.0.1", "port of the runtime"),
            ("169.254.169.254", "metadata"),
        ] {
            let error = verdict(&policy, "x.example.com", address).expect_err(address);
            assert!(error.contains(what), "{address}: {error}");
        }
    }

    #[test]
    fn dev_opens_loopback_only_to_rules_that_name_it() {
        let policy = PlatformPolicy {
            loopback_by_rule: true,
            ..Default::default()
        };
        let check = |rule: &str, host: &str, address: &str, port| {
            policy
                .check(&rules(&[rule]), host, address.parse().unwrap(), port)
                .is_ok()
        };
        assert!(check("localhost:9000", "localhost", "127.0.0.1", 9000));
        assert!(check("localhost:9000", "localhost", "::1", 9000));
        assert!(check("127.0.0.1:9000", "127.0.0.1", "127.0.0.1", 9000));
        assert!(check(
            "127.0.0.0/8:9000",
            "rebind.example.com",
            "127.0.0.1",
            9000
        ));
        assert!(check("[::1]:9000", "::1", "::1", 9000));
        assert!(!check("localhost:9000", "localhost", "127.0.0.1", 9001));
        assert!(!check(
            "rebind.example.com",
            "rebind.example.com",
            "127.0.0.1",
            80
        ));
        assert!(!check("0.0.0.0/0", "127.0.0.1", "127.0.0.1", 80));
        assert!(!check("localhost", "localhost", "10.0.0.1", 80));
    }

    #[test]
    fn a_functions_rules_speak_of_names_or_addresses() {
        let policy = PlatformPolicy::default();
        let check = |rule: &str, host: &str, address: &str, port| {
            policy
                .check(&rules(&[rule]), host, address.parse().unwrap(), port)
                .map_err(|refusal| refusal.to_string())
        };
        assert_eq!(
            check("api.github.com", "api.github.com", "1.1.1.1", 443),
            Ok(())
        );
        assert_eq!(
            check("1.1.1.0/24:8080", "any.example.com", "1.1.1.1", 8080),
            Ok(())
        );
        assert_eq!(
            check("api.github.com:80", "api.github.com", "1.1.1.1", 443),
            Err("egress to api.github.com:443 is not allowed: add \"api.github.com:443\" to spec.egress.allow".into())
        );
        assert_eq!(
            check("a.b", "2606:4700::1", "2606:4700::1", 443),
            Err("egress to 2606:4700::1:443 is not allowed: add \"[2606:4700::1]:443\" to spec.egress.allow".into())
        );
        assert_eq!(
            check("api.github.com", "api.github.com", "10.0.0.1", 443),
            Err("egress to api.github.com:443 is not allowed: it resolves to 10.0.0.1, a private address, which the platform's policy denies".into())
        );
    }

    #[test]
    fn a_name_that_no_rule_can_allow_is_not_even_resolved() {
        assert!(may_resolve(&rules(&["a.com", "1.1.1.1:80"]), "b.com", 443).is_err());
        assert!(may_resolve(&rules(&["1.1.1.1"]), "b.com", 443).is_ok());
        assert!(may_resolve(&[], "b.com", 443).is_err());
    }
}
