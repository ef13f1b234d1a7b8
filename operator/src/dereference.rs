//! First step: fetches what a Function refers to. Only this step reads tenants' Secrets and ConfigMaps, one by one, and
//! only where a namespace has granted it; the operator watches none of them. The controller therefore asks again every
//! `--reference-refresh-seconds`, and sooner while something is missing.

use std::collections::{BTreeMap, HashMap};

use isolet_bundler::{SecretValue, Sources, inline_modules};
use isolet_crds::condition::reason;
use isolet_crds::{Function, KeySelector};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{Api, Client, ResourceExt as _};

use crate::config::Config;

/// All that the Function refers to.
pub(crate) struct Dereferenced {
    /// Code and env values.
    pub sources: Sources,
    /// Changes whenever a referenced object does.
    pub versions: String,
}

/// Why a reference could not be resolved: the ResolvedRefs condition.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Unresolved {
    /// One of the constants of [`reason`].
    pub reason: &'static str,
    /// Field, object, key and remedy.
    pub message: String,
}

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DereferenceError {
    /// A reference cannot be resolved as things stand.
    #[error(transparent)]
    Unresolved(#[from] Unresolved),
    /// The API server did not answer.
    #[error("failed to read {what}: {source}")]
    Api {
        /// Kind, namespace and name.
        what: String,
        /// Why.
        source: Box<kube::Error>,
    },
}

/// Whether the Function refers to anything.
pub(crate) fn has_references(function: &Function) -> bool {
    function.spec.source.config_map_ref.is_some()
        || function.spec.env.iter().any(|env| env.value_from.is_some())
}

/// Fetches every referenced object once.
pub(crate) async fn dereference(
    client: &Client,
    config: &Config,
    function: &Function,
) -> Result<Dereferenced, DereferenceError> {
    let mut objects = Objects::new(client, config, function);
    let mut sources = Sources {
        modules: BTreeMap::new(),
        env: BTreeMap::new(),
        secret_env: BTreeMap::new(),
    };
    match (
        inline_modules(&function.spec),
        &function.spec.source.config_map_ref,
    ) {
        (Some(modules), _) => sources.modules = modules,
        (None, Some(reference)) => {
            let field = "spec.source.configMapRef";
            let Some(object) = objects.config_map(field, &reference.name).await? else {
                return Err(objects.missing(field, "ConfigMap", &reference.name).into());
            };
            sources.modules = modules_of(object);
        }
        (None, None) => {}
    }
    for (index, env) in function.spec.env.iter().enumerate() {
        if let Some(value) = &env.value {
            sources.env.insert(env.name.clone(), value.clone());
        }
        let Some(from) = &env.value_from else {
            continue;
        };
        let field = |kind: &str| format!("spec.env[{index}] {} valueFrom.{kind}", env.name);
        if let Some(selector) = &from.secret_key_ref {
            if let Some(value) = objects
                .secret_value(&field("secretKeyRef"), selector)
                .await?
            {
                sources.secret_env.insert(env.name.clone(), value);
            }
        } else if let Some(selector) = &from.config_map_key_ref
            && let Some(value) = objects
                .config_value(&field("configMapKeyRef"), selector)
                .await?
        {
            sources.env.insert(env.name.clone(), value);
        }
    }
    Ok(Dereferenced {
        sources,
        versions: objects.versions(),
    })
}

fn modules_of(object: &ConfigMap) -> BTreeMap<String, Vec<u8>> {
    let text = object.data.iter().flatten();
    let binary = object.binary_data.iter().flatten();
    text.map(|(path, text)| (path.clone(), text.clone().into_bytes()))
        .chain(binary.map(|(path, bytes)| (path.clone(), bytes.0.clone())))
        .collect()
}

/// Objects fetched so far: each once, however many fields name it.
struct Objects<'a> {
    config: &'a Config,
    namespace: String,
    secrets: Api<Secret>,
    config_maps: Api<ConfigMap>,
    seen_secrets: HashMap<String, Option<Secret>>,
    seen_config_maps: HashMap<String, Option<ConfigMap>>,
}

impl<'a> Objects<'a> {
    fn new(client: &Client, config: &'a Config, function: &Function) -> Self {
        let namespace = function.namespace().unwrap_or_default();
        Self {
            config,
            secrets: Api::namespaced(client.clone(), &namespace),
            config_maps: Api::namespaced(client.clone(), &namespace),
            namespace,
            seen_secrets: HashMap::new(),
            seen_config_maps: HashMap::new(),
        }
    }

    async fn secret_value(
        &mut self,
        field: &str,
        selector: &KeySelector,
    ) -> Result<Option<SecretValue>, DereferenceError> {
        if !self.seen_secrets.contains_key(&selector.name) {
            let found = self.secrets.get_opt(&selector.name).await;
            let found =
                found.map_err(|error| self.failed(field, "Secret", &selector.name, error))?;
            self.seen_secrets.insert(selector.name.clone(), found);
        }
        let Some(Some(secret)) = self.seen_secrets.get(&selector.name) else {
            return self.absent(field, "Secret", selector, None);
        };
        let Some(bytes) = secret
            .data
            .as_ref()
            .and_then(|data| data.get(&selector.key))
        else {
            let keys = secret.data.iter().flatten().map(|(key, _)| key.as_str());
            return self.absent(field, "Secret", selector, Some(keys.collect()));
        };
        let value = String::from_utf8(bytes.0.clone())
            .map_err(|_| not_text(field, "Secret", &self.namespace, selector))?;
        Ok(Some(SecretValue {
            value,
            version: version(secret),
        }))
    }

    async fn config_value(
        &mut self,
        field: &str,
        selector: &KeySelector,
    ) -> Result<Option<String>, DereferenceError> {
        let Some(object) = self.config_map(field, &selector.name).await? else {
            return self.absent(field, "ConfigMap", selector, None);
        };
        if let Some(value) = object
            .data
            .as_ref()
            .and_then(|data| data.get(&selector.key))
        {
            return Ok(Some(value.clone()));
        }
        let binary = object
            .binary_data
            .as_ref()
            .is_some_and(|data| data.contains_key(&selector.key));
        let keys = object
            .data
            .iter()
            .flatten()
            .map(|(key, _)| key.clone())
            .collect::<Vec<_>>();
        if binary {
            return Err(not_text(field, "ConfigMap", &self.namespace, selector).into());
        }
        self.absent(
            field,
            "ConfigMap",
            selector,
            Some(keys.iter().map(String::as_str).collect()),
        )
    }

    async fn config_map(
        &mut self,
        field: &str,
        name: &str,
    ) -> Result<Option<&ConfigMap>, DereferenceError> {
        if !self.seen_config_maps.contains_key(name) {
            let found = self.config_maps.get_opt(name).await;
            let found = found.map_err(|error| self.failed(field, "ConfigMap", name, error))?;
            self.seen_config_maps.insert(name.to_owned(), found);
        }
        Ok(self.seen_config_maps.get(name).and_then(Option::as_ref))
    }

    /// An object or key that is not there: fine where the reference is optional.
    fn absent<T>(
        &self,
        field: &str,
        kind: &str,
        selector: &KeySelector,
        keys: Option<Vec<&str>>,
    ) -> Result<Option<T>, DereferenceError> {
        if selector.optional {
            return Ok(None);
        }
        let Some(mut keys) = keys else {
            return Err(self.missing(field, kind, &selector.name).into());
        };
        // Names of keys are no secret to who may name the object, but the list may be long.
        let more = keys.len().saturating_sub(10);
        keys.truncate(10);
        let (name, key, namespace) = (&selector.name, &selector.key, &self.namespace);
        let has = match keys.is_empty() {
            true => "no keys".to_owned(),
            false if more > 0 => format!("the keys {} and {more} more", keys.join(", ")),
            false => format!("the keys {}", keys.join(", ")),
        };
        Err(Unresolved {
            reason: reason::REF_NOT_FOUND,
            message: format!(
                "{field}: {kind} {namespace}/{name} has no key {key} (it has {has}); add the key, or set optional: true"
            ),
        }
        .into())
    }

    fn missing(&self, field: &str, kind: &str, name: &str) -> Unresolved {
        Unresolved {
            reason: reason::REF_NOT_FOUND,
            message: format!(
                "{field}: there is no {kind} {}/{name}; create it, or correct the name",
                self.namespace
            ),
        }
    }

    fn failed(&self, field: &str, kind: &str, name: &str, error: kube::Error) -> DereferenceError {
        let namespace = &self.namespace;
        match &error {
            kube::Error::Api(status) if status.code == 403 => Unresolved {
                reason: reason::REF_NOT_PERMITTED,
                message: format!(
                    "{field}: isolet may not read {kind} {namespace}/{name}; grant it with: kubectl create rolebinding \
                     isolet-refs -n {namespace} --clusterrole={} --serviceaccount={}:{}",
                    self.config.refs_cluster_role,
                    self.config.system_namespace,
                    self.config.service_account
                ),
            }
            .into(),
            _ => DereferenceError::Api {
                what: format!("{kind} {namespace}/{name}"),
                source: Box::new(error),
            },
        }
    }

    fn versions(&self) -> String {
        let secrets = self.seen_secrets.iter();
        let config_maps = self.seen_config_maps.iter();
        let mut versions: Vec<String> = secrets
            .map(|(name, object)| {
                format!(
                    "s/{name}={}",
                    object.as_ref().map_or_else(String::new, version)
                )
            })
            .chain(config_maps.map(|(name, object)| {
                format!(
                    "c/{name}={}",
                    object.as_ref().map_or_else(String::new, version)
                )
            }))
            .collect();
        versions.sort_unstable();
        versions.join(" ")
    }
}

fn version<K: kube::Resource>(object: &K) -> String {
    let meta = object.meta();
    format!(
        "{}@{}",
        meta.uid.as_deref().unwrap_or_default(),
        meta.resource_version.as_deref().unwrap_or_default()
    )
}

fn not_text(field: &str, kind: &str, namespace: &str, selector: &KeySelector) -> Unresolved {
    Unresolved {
        reason: reason::REF_NOT_FOUND,
        message: format!(
            "{field}: key {} of {kind} {namespace}/{} is not UTF-8 text; env values are text: store it as base64 text",
            selector.key, selector.name
        ),
    }
}
