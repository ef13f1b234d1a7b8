//! What `isolet dev` prints on standard output, for people.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use isolet_crds::Route;

use super::project::Name;

/// One Function of the list.
pub struct Entry {
    /// Namespace and name.
    pub name: Name,
    /// Its explicit routes.
    pub routes: Vec<Route>,
    /// Whether it has a revision to serve.
    pub served: bool,
}

/// `http://HOST:PORT`, as a person would type it.
pub fn base_url(address: SocketAddr) -> String {
    let host = match address.ip() {
        ip if ip.is_loopback() || ip.is_unspecified() => "localhost".into(),
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    };
    format!("http://{host}:{}", address.port())
}

/// The list of Functions, each with the commands that call it.
pub fn list(base: &str, entries: &[Entry]) -> String {
    let label = |entry: &Entry| format!("{}/{}", entry.name.0, entry.name.1);
    let width = entries
        .iter()
        .map(|entry| label(entry).chars().count())
        .max()
        .unwrap_or(0);
    let mut text = String::new();
    for entry in entries {
        let (namespace, name) = &entry.name;
        let note = if entry.served {
            ""
        } else {
            "   # not served: see the error above"
        };
        text.push_str(&format!(
            "  {:width$}  curl {base}/fn/{namespace}/{name}/{note}\n",
            label(entry)
        ));
        for route in &entry.routes {
            text.push_str(&format!(
                "  {:width$}  curl -H 'Host: {}' {base}{}\n",
                "",
                // A wildcard stands for one label; any will do.
                route.host.replacen('*', "any", 1),
                route.path
            ));
        }
    }
    text
}

/// Prints one line or several.
pub fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    // Nobody may be reading any more; serving goes on.
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// Prints an error, apart from what is around it.
pub fn complain(text: &str) {
    say(&format!("error: {text}"));
}

/// A duration for people.
pub fn elapsed(duration: Duration) -> String {
    if duration < Duration::from_secs(1) {
        format!("{} ms", duration.as_millis())
    } else {
        format!("{:.1} s", duration.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_aligned() {
        let entry = |name: &str, served| Entry {
            name: ("default".into(), name.into()),
            routes: Vec::new(),
            served,
        };
        let mut entries = [entry("a", true), entry("longer", false)];
        entries[0].routes.push(Route {
            host: "*.example.com".into(),
            path: "/v1".into(),
        });
        assert_eq!(
            list("http://localhost:1", &entries),
            "  default/a       curl http://localhost:1/fn/default/a/\n\
             \x20                 curl -H 'Host: any.example.com' http://localhost:1/v1\n\
             \x20 default/longer  curl http://localhost:1/fn/default/longer/   # not served: see the error above\n"
        );
    }

    #[test]
    fn addresses_as_people_type_them() {
        for (address, url) in [
            ("127.0.0.1:8787", "http://localhost:8787"),
            ("0.0.0.0:1", "http://localhost:1"),
            ("[::1]:1", "http://localhost:1"),
            ("192.168.1.2:1", "http://192.168.1.2:1"),
        ] {
            assert_eq!(base_url(address.parse().unwrap()), url);
        }
    }
}
