//! All files together: objects by name, and what each Function refers to. Pure.

use std::collections::BTreeMap;

use isolet_bundler::{SecretValue, Sources, inline_modules};
use isolet_crds::{Function, KeySelector};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use sha2::{Digest, Sha256};

use super::manifest::{FileContent, Located};

/// Namespace and name.
pub type Name = (String, String);

/// The objects of all files.
#[derive(Debug, Default)]
pub struct Project {
    /// Functions.
    pub functions: BTreeMap<Name, Located<Function>>,
    secrets: BTreeMap<Name, Located<Secret>>,
    config_maps: BTreeMap<Name, Located<ConfigMap>>,
    /// Objects that are in two files.
    pub errors: Vec<String>,
}

impl Project {
    /// Puts files together.
    pub fn new<'a>(files: impl IntoIterator<Item = &'a FileContent>) -> Self {
        let mut project = Self::default();
        for file in files {
            insert(&mut project.functions, &file.functions, &mut project.errors);
            insert(&mut project.secrets, &file.secrets, &mut project.errors);
            insert(
                &mut project.config_maps,
                &file.config_maps,
                &mut project.errors,
            );
        }
        project
    }

    /// Fetches what a Function refers to. The error names the field and what would help.
    pub fn sources(&self, function: &Located<Function>) -> Result<Sources, String> {
        let spec = &function.object.spec;
        let namespace = function
            .object
            .metadata
            .namespace
            .clone()
            .unwrap_or_default();
        let mut sources = Sources {
            modules: match (inline_modules(spec), &spec.source.config_map_ref) {
                (Some(modules), _) => modules,
                (None, Some(reference)) => self
                    .config_map(&namespace, &reference.name)
                    .map(|config_map| contents(&config_map.object))
                    .ok_or_else(|| {
                        missing(
                            "spec.source.configMapRef",
                            "ConfigMap",
                            &namespace,
                            &reference.name,
                        )
                    })?,
                // The bundler says that there is no source.
                (None, None) => BTreeMap::new(),
            },
            ..Default::default()
        };
        for (index, variable) in spec.env.iter().enumerate() {
            let Some(from) = &variable.value_from else {
                continue;
            };
            if let Some(key) = &from.secret_key_ref {
                let field = format!("spec.env[{index}].valueFrom.secretKeyRef");
                let secret = self.secrets.get(&(namespace.clone(), key.name.clone()));
                let value = secret.and_then(|secret| secret_value(&secret.object, &key.key));
                if let Some(value) =
                    found(&field, "Secret", &namespace, key, secret.is_some(), value)?
                {
                    // The value stays in this process's memory, so its hash may be the version here.
                    let version = hex(&Sha256::digest(value.as_bytes()));
                    sources
                        .secret_env
                        .insert(variable.name.clone(), SecretValue { value, version });
                }
            } else if let Some(key) = &from.config_map_key_ref {
                let field = format!("spec.env[{index}].valueFrom.configMapKeyRef");
                let config_map = self.config_map(&namespace, &key.name);
                let value =
                    config_map.and_then(|map| map.object.data.as_ref()?.get(&key.key).cloned());
                if let Some(value) = found(
                    &field,
                    "ConfigMap",
                    &namespace,
                    key,
                    config_map.is_some(),
                    value.map(Ok),
                )? {
                    sources.env.insert(variable.name.clone(), value);
                }
            }
        }
        Ok(sources)
    }

    fn config_map(&self, namespace: &str, name: &str) -> Option<&Located<ConfigMap>> {
        self.config_maps
            .get(&(namespace.to_owned(), name.to_owned()))
    }
}

/// The UID of a Function in `isolet dev`: the same for the same name.
pub fn uid((namespace, name): &Name) -> String {
    let digest = Sha256::digest(format!("{namespace}/{name}"));
    format!("dev-{}", &hex(&digest)[..32])
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn insert<T: kube::Resource<DynamicType = ()> + Clone>(
    into: &mut BTreeMap<Name, Located<T>>,
    objects: &[Located<T>],
    errors: &mut Vec<String>,
) {
    for object in objects {
        let metadata = object.object.meta();
        let name = (
            metadata.namespace.clone().unwrap_or_default(),
            metadata.name.clone().unwrap_or_default(),
        );
        if let Some(first) = into.get(&name) {
            errors.push(format!(
                "{}:{}: {} {}/{} is also in {}:{}: rename or remove one; the latter is used",
                object.file.display(),
                object.line,
                T::kind(&()),
                name.0,
                name.1,
                first.file.display(),
                first.line,
            ));
        } else {
            into.insert(name, object.clone());
        }
    }
}

fn contents(config_map: &ConfigMap) -> BTreeMap<String, Vec<u8>> {
    let text = config_map
        .data
        .iter()
        .flatten()
        .map(|(key, value)| (key.clone(), value.clone().into_bytes()));
    let binary = config_map
        .binary_data
        .iter()
        .flatten()
        .map(|(key, value)| (key.clone(), value.0.clone()));
    text.chain(binary).collect()
}

fn secret_value(secret: &Secret, key: &str) -> Option<Result<String, String>> {
    if let Some(value) = secret.string_data.as_ref().and_then(|data| data.get(key)) {
        return Some(Ok(value.clone()));
    }
    let value = secret.data.as_ref()?.get(key)?;
    Some(
        String::from_utf8(value.0.clone())
            .map_err(|_| "is not UTF-8: env values are text".to_owned()),
    )
}

fn missing(field: &str, kind: &str, namespace: &str, name: &str) -> String {
    format!(
        "{field}: there is no {kind} {namespace}/{name} in the files: add it, or the file that has it, to the command line"
    )
}

/// `Ok(None)`: absent and optional.
fn found(
    field: &str,
    kind: &str,
    namespace: &str,
    key: &KeySelector,
    object_exists: bool,
    value: Option<Result<String, String>>,
) -> Result<Option<String>, String> {
    match value {
        Some(Ok(value)) => Ok(Some(value)),
        Some(Err(why)) => Err(format!(
            "{field}: key {} of {kind} {namespace}/{} {why}",
            key.key, key.name
        )),
        None if key.optional => Ok(None),
        None if object_exists => Err(format!(
            "{field}: {kind} {namespace}/{} has no key {}: add it or set optional: true",
            key.name, key.key
        )),
        None => Err(missing(field, kind, namespace, &key.name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dev::manifest::parse;
    use std::path::Path;

    fn project(files: &[(&str, &str)]) -> Project {
        let contents: Vec<_> = files
            .iter()
            .map(|(name, text)| parse(Path::new(name), text).unwrap())
            .collect();
        Project::new(&contents)
    }

    fn function(spec: &str) -> String {
        format!(
            "apiVersion: isolet.dev/v1alpha1\nkind: Function\nmetadata: {{ name: a }}\nspec:\n{spec}"
        )
    }

    const OBJECTS: &str = "apiVersion: v1\nkind: Secret\nmetadata: { name: s }\nstringData: { k: secret }\ndata: { bad: /w== }\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: { name: c }\ndata: { main.js: code, k: plain }\nbinaryData: { m.wasm: AAEC }\n";

    fn sources(spec: &str) -> Result<Sources, String> {
        let project = project(&[("f.yaml", &function(spec)), ("o.yaml", OBJECTS)]);
        let function = project.functions.values().next().unwrap();
        project.sources(function)
    }

    fn env(reference: &str) -> String {
        format!(
            "  source: {{ inline: x }}\n  env:\n  - {{ name: N, valueFrom: {{ {reference} }} }}\n"
        )
    }

    #[test]
    fn references_resolve_among_the_files() {
        let code = sources("  source: { configMapRef: { name: c } }\n").unwrap();
        assert_eq!(code.modules["main.js"], b"code");
        assert_eq!(code.modules["m.wasm"], [0, 1, 2]);
        let secret = sources(&env("secretKeyRef: { name: s, key: k }")).unwrap();
        assert_eq!(secret.secret_env["N"].value, "secret");
        let plain = sources(&env("configMapKeyRef: { name: c, key: k }")).unwrap();
        assert_eq!(plain.env["N"], "plain");
        let absent = sources(&env("secretKeyRef: { name: x, key: k, optional: true }")).unwrap();
        assert!(absent.secret_env.is_empty());
    }

    #[test]
    fn what_is_missing_is_named_with_its_field() {
        for (spec, error) in [
            (
                "  source: { configMapRef: { name: x } }\n".to_owned(),
                "spec.source.configMapRef: there is no ConfigMap default/x",
            ),
            (
                env("secretKeyRef: { name: x, key: k }"),
                "spec.env[0].valueFrom.secretKeyRef: there is no Secret default/x",
            ),
            (
                env("secretKeyRef: { name: s, key: z }"),
                "Secret default/s has no key z",
            ),
            (
                env("secretKeyRef: { name: s, key: bad }"),
                "key bad of Secret default/s is not UTF-8",
            ),
            (
                env("configMapKeyRef: { name: c, key: z }"),
                "ConfigMap default/c has no key z",
            ),
        ] {
            let text = sources(&spec).unwrap_err();
            assert!(text.contains(error), "{text}");
        }
    }

    #[test]
    fn two_functions_of_one_name_are_an_error_that_names_both_files() {
        let text = function("  source: { inline: x }\n");
        let project = project(&[("one.yaml", &text), ("two.yaml", &text)]);
        assert_eq!(project.functions.len(), 1);
        assert_eq!(
            project.errors,
            [
                "two.yaml:1: Function default/a is also in one.yaml:1: rename or remove one; the latter is used"
            ]
        );
    }
}
