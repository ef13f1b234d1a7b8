//! How many files, connections among them, this process may have open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Lets this process have as many as the system allows it; how many that is, none without a bound.
pub fn raise() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_as_the_system_allows() {
        let allowed = getrlimit(Resource::Nofile).maximum;
        let lowered = Rlimit {
            current: allowed.map(|files| files - 1),
            maximum: allowed,
        };
        setrlimit(Resource::Nofile, lowered).unwrap();
        assert_eq!(raise(), allowed);
        assert_eq!(getrlimit(Resource::Nofile).current, allowed);
    }
}
