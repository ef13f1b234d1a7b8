//! `spec.egress.allow`: where a Function's own requests may go.
//!
//! ```text
//! api.example.com        that name, ports 80 and 443
//! api.example.com:8443   that name, that port
//! *.example.com          any name below it, at any depth; not example.com itself
//! 203.0.113.7            that address
//! 203.0.113.0/24:8080    any address of the range
//! [2001:db8::1]:443      IPv6 with a port stands in brackets, an address or a range
//! ```
//!
//! A rule for a name speaks of the URL's host before it is resolved; a rule for addresses speaks of the address that the
//! host is or resolves to. What the platform denies (loopback, private ranges …) stays denied: the agent decides that.

use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

/// Ports of a rule that names none.
pub const DEFAULT_PORTS: [u16; 2] = [80, 443];
const MAX_NAME_BYTES: usize = 253;

/// One entry of `spec.egress.allow`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EgressRule {
    /// Which hosts.
    pub host: EgressHost,
    /// Which port; none for [`DEFAULT_PORTS`].
    pub port: Option<u16>,
}

/// Which hosts a rule speaks of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum EgressHost {
    /// This name, in lower case.
    Name(String),
    /// Any name below this one, in lower case and without `*.`.
    Subdomains(String),
    /// Any address of this range; one address is a range of full length.
    Addresses(IpNet),
}

/// An entry that is no rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct EgressError(String);

impl EgressRule {
    /// Parses an entry. The error says what is wrong and what to write.
    pub fn parse(text: &str) -> Result<Self, EgressError> {
        let error = |why: &str| Err(EgressError(why.to_owned()));
        if text.len() > 300 {
            return error("an entry has at most 300 characters");
        }
        if text == "*" {
            return error("* alone is no host: write 0.0.0.0/0 and ::/0 to allow every address");
        }
        if text.contains("://") {
            return error("write a host without scheme and path, such as api.example.com:443");
        }
        if text.contains(|c: char| c.is_whitespace() || c.is_control()) || text.is_empty() {
            return error("write a host such as api.example.com, without spaces");
        }
        let (host, port) = split_port(text)?;
        Ok(Self {
            host: EgressHost::parse(host)?,
            port,
        })
    }

    /// Whether a request to this host name may go out, whatever it resolves to. `host` is the URL's host; a literal address
    /// is no name, see [`EgressRule::allows_address`].
    pub fn allows_name(&self, host: &str, port: u16) -> bool {
        let host = host.strip_suffix('.').unwrap_or(host);
        self.allows_port(port)
            && match &self.host {
                EgressHost::Name(name) => host.eq_ignore_ascii_case(name),
                EgressHost::Subdomains(parent) => host
                    .len()
                    .checked_sub(parent.len() + 1)
                    .filter(|prefix| *prefix > 0 && host.is_char_boundary(*prefix))
                    .map(|prefix| host.split_at(prefix))
                    .and_then(|(_, rest)| rest.strip_prefix('.'))
                    .is_some_and(|rest| rest.eq_ignore_ascii_case(parent)),
                EgressHost::Addresses(_) => false,
            }
    }

    /// Whether a request to this address may go out: the URL's literal address, or one that its name resolves to. An IPv6
    /// address that maps an IPv4 one counts as that.
    pub fn allows_address(&self, address: IpAddr, port: u16) -> bool {
        self.allows_port(port)
            && matches!(&self.host, EgressHost::Addresses(range) if range.contains(&address.to_canonical()))
    }

    /// Whether the port is one of the rule's.
    pub fn allows_port(&self, port: u16) -> bool {
        match self.port {
            Some(only) => only == port,
            None => DEFAULT_PORTS.contains(&port),
        }
    }
}

impl FromStr for EgressRule {
    type Err = EgressError;
    fn from_str(text: &str) -> Result<Self, EgressError> {
        Self::parse(text)
    }
}

impl EgressHost {
    fn parse(host: &str) -> Result<Self, EgressError> {
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(Self::Addresses(IpNet::from(address.to_canonical())));
        }
        if let Some((address, length)) = host.split_once('/') {
            return Self::range(host, address, length);
        }
        let (name, subdomains) = match host.strip_prefix("*.") {
            Some(parent) => (parent, true),
            None => (host, false),
        };
        check_name(name)?;
        let name = name.to_ascii_lowercase();
        Ok(if subdomains {
            Self::Subdomains(name)
        } else {
            Self::Name(name)
        })
    }

    fn range(text: &str, address: &str, length: &str) -> Result<Self, EgressError> {
        if address.parse::<IpAddr>().is_err() {
            return Err(EgressError(
                "write a host without a path, such as api.example.com:443".into(),
            ));
        }
        // Rust reads `+8` as a number, Kubernetes and people do not.
        let range = IpNet::from_str(text).ok().filter(|_| length.bytes().all(|b| b.is_ascii_digit())).ok_or_else(|| {
            EgressError("is no address range: write an address and a prefix length, such as 203.0.113.0/24".into())
        })?;
        if range.trunc() != range {
            return Err(EgressError(format!(
                "the address has bits set after its prefix: write {}",
                range.trunc()
            )));
        }
        Ok(Self::Addresses(range))
    }
}

/// Splits `HOST`, `HOST:PORT`, `[V6]` and `[V6]:PORT`; an IPv6 address without brackets has no port.
fn split_port(text: &str) -> Result<(&str, Option<u16>), EgressError> {
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, after) = rest.split_once(']').ok_or_else(|| {
            EgressError("the bracket is not closed: write [2001:db8::1]:443".into())
        })?;
        if !host.contains(':') {
            return Err(EgressError(
                "only an IPv6 address or range stands in brackets".into(),
            ));
        }
        match after {
            "" => (host, None),
            after => (
                host,
                Some(after.strip_prefix(':').ok_or_else(|| {
                    EgressError("after the bracket only a port may stand: [2001:db8::1]:443 or [2001:db8::/32]:443".into())
                })?),
            ),
        }
    } else {
        match text.split_once(':') {
            Some((_, after)) if after.contains(':') => (text, None),
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        }
    };
    let port = port
        .map(|port| {
            port.parse::<u16>()
                .ok()
                .filter(|number| *number != 0 && port.bytes().all(|b| b.is_ascii_digit()))
                .ok_or_else(|| EgressError("the port must be a number from 1 to 65535".into()))
        })
        .transpose()?;
    Ok((host, port))
}

fn check_name(name: &str) -> Result<(), EgressError> {
    let error = |why: &str| Err(EgressError(why.to_owned()));
    if !name.is_ascii() {
        return error("write an international name in its xn-- form");
    }
    if name.contains('*') {
        return error("a * may stand only in front, as in *.example.com");
    }
    let label_is_sane = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if name.len() > MAX_NAME_BYTES || !name.split('.').all(label_is_sane) {
        return error(
            "is no host: write a name, *. and a name, an address or an address range, each with an optional :port",
        );
    }
    // URLs read a host that ends in a number as an IPv4 address.
    let last = name.rsplit('.').next().unwrap_or(name);
    let hexadecimal = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
    if last.bytes().all(|b| b.is_ascii_digit())
        || hexadecimal.is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))
    {
        return error(
            "a name cannot end in a number: write an address as four numbers, such as 203.0.113.7",
        );
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn rule(text: &str) -> EgressRule {
        EgressRule::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn addresses(text: &str) -> EgressHost {
        EgressHost::Addresses(text.parse().unwrap())
    }

    #[test]
    fn parses() {
        for (text, host, port) in [
            (
                "api.github.com",
                EgressHost::Name("api.github.com".into()),
                None,
            ),
            (
                "API.GitHub.com:443",
                EgressHost::Name("api.github.com".into()),
                Some(443),
            ),
            (
                "*.Example.com",
                EgressHost::Subdomains("example.com".into()),
                None,
            ),
            (
                "*.example.com:8443",
                EgressHost::Subdomains("example.com".into()),
                Some(8443),
            ),
            (
                "localhost:9000",
                EgressHost::Name("localhost".into()),
                Some(9000),
            ),
            (
                "_dmarc.example.com",
                EgressHost::Name("_dmarc.example.com".into()),
                None,
            ),
            ("203.0.113.7", addresses("203.0.113.7/32"), None),
            (
                "203.0.113.0/24:8080",
                addresses("203.0.113.0/24"),
                Some(8080),
            ),
            ("0.0.0.0/0", addresses("0.0.0.0/0"), None),
            ("::/0", addresses("::/0"), None),
            ("2001:db8::1", addresses("2001:db8::1/128"), None),
            ("2001:db8::/32", addresses("2001:db8::/32"), None),
            ("[2001:db8::1]", addresses("2001:db8::1/128"), None),
            ("[2001:db8::1]:443", addresses("2001:db8::1/128"), Some(443)),
            ("[2001:db8::/32]:443", addresses("2001:db8::/32"), Some(443)),
            ("::ffff:203.0.113.7", addresses("203.0.113.7/32"), None),
        ] {
            assert_eq!(rule(text), EgressRule { host, port }, "{text}");
        }
    }

    #[test]
    fn refuses_with_a_remedy() {
        for (text, part) in [
            ("*", "0.0.0.0/0 and ::/0"),
            ("https://api.example.com/x", "without scheme"),
            ("api.example.com/x", "without a path"),
            ("", "such as api.example.com"),
            ("a b", "without spaces"),
            ("a.*.com", "only in front"),
            ("**.example.com", "only in front"),
            ("*example.com", "only in front"),
            ("*.*.example.com", "only in front"),
            ("*.", "is no host"),
            ("example.com.", "is no host"),
            ("-a.com", "is no host"),
            ("a..com", "is no host"),
            ("user@example.com", "is no host"),
            ("bücher.example", "xn--"),
            ("example.com:0", "1 to 65535"),
            ("example.com:65536", "1 to 65535"),
            ("example.com:+80", "1 to 65535"),
            ("example.com:", "1 to 65535"),
            ("example.com:http", "1 to 65535"),
            ("10.0.0.1/8", "write 10.0.0.0/8"),
            ("10.0.0.0/33", "is no address range"),
            ("10.0.0.0/", "is no address range"),
            ("10.0.0.0/+8", "is no address range"),
            ("1.2.3", "four numbers"),
            ("256.1.1.1", "four numbers"),
            ("010.0.0.1", "four numbers"),
            ("example.0x7f", "four numbers"),
            ("*.1", "four numbers"),
            ("[2001:db8::1", "not closed"),
            ("[2001:db8::1]443", "only a port"),
            ("[2001:db8::]/32", "only a port"),
            ("[example.com]:80", "only an IPv6"),
            ("1:2:3", "is no host"),
        ] {
            let error = EgressRule::parse(text).expect_err(text).to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
        assert!(EgressRule::parse(&"a".repeat(1 << 20)).is_err());
    }

    #[test]
    fn names_match_exactly_whatever_their_case() {
        let exact = rule("api.example.com");
        assert!(exact.allows_name("API.Example.COM", 443));
        assert!(exact.allows_name("api.example.com.", 80));
        assert!(!exact.allows_name("x.api.example.com", 443));
        assert!(!exact.allows_name("example.com", 443));
        assert!(!exact.allows_name("api.example.com.evil.net", 443));
        assert!(!exact.allows_name("api.example.com", 8080));
    }

    #[test]
    fn a_star_is_any_depth_below() {
        let below = rule("*.example.com");
        assert!(below.allows_name("a.example.com", 443));
        assert!(below.allows_name("a.b.EXAMPLE.com", 443));
        for other in [
            "example.com",
            ".example.com",
            "badexample.com",
            "a.example.com.evil.net",
            "éexample.com",
            "",
        ] {
            assert!(!below.allows_name(other, 443), "{other}");
        }
    }

    #[test]
    fn addresses_match_by_range() {
        let range = rule("203.0.113.0/24:8080");
        assert!(range.allows_address("203.0.113.9".parse().unwrap(), 8080));
        assert!(range.allows_address("::ffff:203.0.113.9".parse().unwrap(), 8080));
        assert!(!range.allows_address("203.0.114.9".parse().unwrap(), 8080));
        assert!(!range.allows_address("203.0.113.9".parse().unwrap(), 80));
        assert!(!range.allows_name("203.0.113.9", 8080));
        assert!(!rule("example.com").allows_address("203.0.113.9".parse().unwrap(), 443));
        assert!(rule("[2001:db8::/32]:443").allows_address("2001:db8::5".parse().unwrap(), 443));
        assert!(!rule("0.0.0.0/0").allows_address("2001:db8::5".parse().unwrap(), 443));
    }
}
