//! Routes, env, egress, limits. The API server refuses most of this by schema and CEL; `isolet dev` has only this, and an
//! object stored under an older schema comes here too.

use std::collections::{BTreeMap, BTreeSet};

use isolet_crds::condition::reason;
use isolet_crds::egress::EgressRule;
use isolet_crds::{EnvVar, Function, FunctionSpec, ResolvedLimits, Route};

use crate::invalid::{Invalid, shown};
use crate::sources::SecretValue;

const MAX_ROUTES: usize = 64;
const MAX_ENV: usize = 256;
const MAX_EGRESS: usize = 256;
const MAX_VALUE_BYTES: usize = 64 << 10;
/// All secret values of a Function travel in one Secret, which holds at most 1 MiB.
const MAX_SECRET_BYTES: usize = 512 << 10;

fn invalid(message: impl AsRef<str>) -> Invalid {
    Invalid::new(reason::INVALID_SPEC, message)
}

/// `metadata.name`: it becomes a label of the built-in host name.
pub(crate) fn check_name(function: &Function) -> Result<&str, Invalid> {
    let name = function.metadata.name.as_deref().unwrap_or_default();
    if is_label(name) {
        return Ok(name);
    }
    Err(invalid(format!(
        "metadata.name \"{}\": write lower-case letters, digits and -, at most 63, starting and ending with a letter or digit",
        shown(name)
    )))
}

/// Exactly one source.
pub(crate) fn check_source(spec: &FunctionSpec) -> Result<(), Invalid> {
    let source = &spec.source;
    let set = [
        source.inline.is_some(),
        source.modules.is_some(),
        source.config_map_ref.is_some(),
    ];
    if set.into_iter().filter(|set| *set).count() == 1 {
        return Ok(());
    }
    Err(invalid(
        "spec.source: set exactly one of inline, modules and configMapRef",
    ))
}

/// Limits as numbers.
pub(crate) fn limits(spec: &FunctionSpec) -> Result<ResolvedLimits, Invalid> {
    spec.limits
        .resolve()
        .map_err(|error| invalid(error.to_string()))
}

/// Routes, sorted.
pub(crate) fn routes(spec: &FunctionSpec) -> Result<Vec<Route>, Invalid> {
    if spec.routes.len() > MAX_ROUTES {
        return Err(invalid(format!(
            "spec.routes: {} entries, at most {MAX_ROUTES}",
            spec.routes.len()
        )));
    }
    let mut routes = BTreeSet::new();
    for (index, route) in spec.routes.iter().enumerate() {
        check_route(route).map_err(|why| invalid(format!("spec.routes[{index}].{why}")))?;
        if !routes.insert(route.clone()) {
            return Err(invalid(format!(
                "spec.routes[{index}]: host {} with path {} is listed twice: remove one",
                route.host,
                shown(&route.path)
            )));
        }
    }
    Ok(routes.into_iter().collect())
}

fn check_route(route: &Route) -> Result<(), String> {
    let host = route.host.strip_prefix("*.").unwrap_or(&route.host);
    if route.host.len() > 253 || !host.split('.').all(is_label) {
        return Err(format!(
            "host \"{}\": write a lower-case host name such as api.example.com or *.example.com, without scheme or port",
            shown(&route.host)
        ));
    }
    let path = &route.path;
    let bad_segment = || path.split('/').any(|segment| matches!(segment, "." | ".."));
    if !path.starts_with('/')
        || path.len() > 1024
        || path.contains("//")
        || path.contains(['?', '#'])
        || bad_segment()
    {
        return Err(format!(
            "path \"{}\": it must start with / and have no empty, . or .. segment, no ? and no #",
            shown(path)
        ));
    }
    if path.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(format!(
            "path \"{}\": write spaces percent-encoded, as %20",
            shown(path)
        ));
    }
    Ok(())
}

/// Checks `spec.egress.allow` and gives it as written.
pub(crate) fn egress(spec: &FunctionSpec) -> Result<Vec<String>, Invalid> {
    let allow = &spec.egress.allow;
    if allow.len() > MAX_EGRESS {
        return Err(invalid(format!(
            "spec.egress.allow: {} entries, at most {MAX_EGRESS}",
            allow.len()
        )));
    }
    for (index, entry) in allow.iter().enumerate() {
        EgressRule::parse(entry).map_err(|error| {
            invalid(format!(
                "spec.egress.allow[{index}] \"{}\": {error}",
                shown(entry)
            ))
        })?;
    }
    Ok(allow.clone())
}

/// Env values: plain ones, and secret ones.
pub(crate) struct Env {
    pub(crate) plain: BTreeMap<String, String>,
    pub(crate) secret: BTreeMap<String, SecretValue>,
}

/// Checks `spec.env` and takes each value from the spec or from what was fetched.
pub(crate) fn env(
    spec: &FunctionSpec,
    mut fetched: BTreeMap<String, String>,
    mut fetched_secrets: BTreeMap<String, SecretValue>,
) -> Result<Env, Invalid> {
    if spec.env.len() > MAX_ENV {
        return Err(invalid(format!(
            "spec.env: {} entries, at most {MAX_ENV}",
            spec.env.len()
        )));
    }
    let mut env = Env {
        plain: BTreeMap::new(),
        secret: BTreeMap::new(),
    };
    let mut seen = BTreeSet::new();
    for (index, entry) in spec.env.iter().enumerate() {
        let name = &entry.name;
        check_env_name(name)
            .map_err(|why| invalid(format!("spec.env[{index}].name \"{}\": {why}", shown(name))))?;
        if !seen.insert(name) {
            return Err(invalid(format!(
                "spec.env[{index}]: {name} is listed twice: remove one"
            )));
        }
        if let Some(value) = &entry.value {
            if entry.value_from.is_some() {
                return Err(invalid(format!(
                    "spec.env[{index}] ({name}): set exactly one of value and valueFrom"
                )));
            }
            env.plain.insert(name.clone(), value.clone());
        } else if is_secret(entry, index)? {
            match fetched_secrets.remove(name) {
                Some(value) => drop(env.secret.insert(name.clone(), value)),
                None => require_optional(entry)?,
            }
        } else {
            match fetched.remove(name) {
                Some(value) => drop(env.plain.insert(name.clone(), value)),
                None => require_optional(entry)?,
            }
        }
    }
    let lengths = env.plain.iter().map(|(name, value)| (name, value.len()));
    let secret_lengths = env
        .secret
        .iter()
        .map(|(name, secret)| (name, secret.value.len()));
    if let Some((name, bytes)) = lengths
        .chain(secret_lengths)
        .find(|(_, bytes)| *bytes > MAX_VALUE_BYTES)
    {
        return Err(invalid(format!(
            "spec.env: the value of {name} has {bytes} bytes, at most {MAX_VALUE_BYTES}"
        )));
    }
    let secret_bytes: usize = env.secret.values().map(|secret| secret.value.len()).sum();
    if secret_bytes > MAX_SECRET_BYTES {
        return Err(invalid(format!(
            "spec.env: the values from Secrets have {secret_bytes} bytes together, at most {MAX_SECRET_BYTES}"
        )));
    }
    Ok(env)
}

fn check_env_name(name: &str) -> Result<(), &'static str> {
    let first_is_digit = name.starts_with(|c: char| c.is_ascii_digit());
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if name.is_empty() || name.len() > 128 || first_is_digit || !plain {
        return Err("write letters, digits and _, not starting with a digit, at most 128");
    }
    if name.starts_with("ISOLET_") {
        return Err("names that start with ISOLET_ are reserved: choose another name");
    }
    Ok(())
}

fn is_secret(entry: &EnvVar, index: usize) -> Result<bool, Invalid> {
    let name = &entry.name;
    let Some(from) = &entry.value_from else {
        return Err(invalid(format!(
            "spec.env[{index}] ({name}): set exactly one of value and valueFrom"
        )));
    };
    match (&from.secret_key_ref, &from.config_map_key_ref) {
        (Some(_), None) => Ok(true),
        (None, Some(_)) => Ok(false),
        _ => Err(invalid(format!(
            "spec.env[{index}].valueFrom ({name}): set exactly one of secretKeyRef and configMapKeyRef"
        ))),
    }
}

fn require_optional(entry: &EnvVar) -> Result<(), Invalid> {
    let from = entry.value_from.as_ref();
    let (kind, key) = match from.and_then(|from| from.secret_key_ref.as_ref()) {
        Some(key) => ("Secret", Some(key)),
        None => (
            "ConfigMap",
            from.and_then(|from| from.config_map_key_ref.as_ref()),
        ),
    };
    match key {
        Some(key) if !key.optional => Err(Invalid::new(
            reason::REF_NOT_FOUND,
            format!(
                "env {}: {kind} {} has no key {}: create it, or set optional: true",
                entry.name, key.name, key.key
            ),
        )),
        _ => Ok(()),
    }
}

fn is_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && label
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-')
}
