//! `Function`, version `v1alpha1`: the resource that users write.
//!
//! What a schema can check it checks (patterns, ranges, CEL), so that `kubectl apply` itself refuses with a sentence.
//! The generated YAML is `crds/functions.isolet.dev.yaml`; `make crds` writes it and a test compares it.

// `KubeSchema` repeats each struct inside a function, where its `pub` reaches nobody.
#![allow(unreachable_pub)]

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::limits::Limits;

/// Code that answers HTTP requests, and how it is to run.
#[derive(CustomResource, Serialize, Deserialize, Clone, Debug, PartialEq, KubeSchema)]
#[kube(
    group = "isolet.dev",
    version = "v1alpha1",
    kind = "Function",
    plural = "functions",
    singular = "function",
    shortname = "isofn",
    category = "all",
    category = "isolet",
    namespaced,
    status = "FunctionStatus",
    derive = "PartialEq",
    doc = "A Function is JavaScript, TypeScript or WebAssembly that answers HTTP requests from an isolate of its own.",
    printcolumn(name = "URL", type_ = "string", json_path = ".status.url"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Revision", type_ = "string", json_path = ".status.revision"),
    printcolumn(name = "Nodes", type_ = "string", json_path = ".status.nodes.summary"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Size", type_ = "integer", json_path = ".status.size", priority = 1),
    validation = Rule::new("self.metadata.name.size() <= 63 && !self.metadata.name.contains('.')")
        .message("metadata.name must be at most 63 characters without a dot: it becomes a part of the host name")
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FunctionSpec {
    /// Where the code comes from.
    pub source: Source,
    /// Path of the module whose default export handles requests. Default: the only module, else main.ts, main.js or
    /// main.mjs.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub main: Option<String>,
    /// Hosts and paths to serve beside the built-in routes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["host", "path"]))]
    pub routes: Vec<Route>,
    /// Values of the handler's `env` argument.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub env: Vec<EnvVar>,
    /// What one request and one instance may use.
    #[serde(default, skip_serializing_if = "is_default")]
    pub limits: Limits,
    /// Where the Function's own requests may go. Nowhere by default.
    #[serde(default, skip_serializing_if = "is_default")]
    pub egress: Egress,
    /// Answers 503 to every request while true.
    #[serde(default, skip_serializing_if = "is_default")]
    pub suspend: bool,
    /// Revisions to keep beside the current one. Default 3.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<i32>", range(min = 0, max = 100))]
    pub revision_history_limit: Option<u32>,
}

/// Where code comes from: exactly one field is set.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("[has(self.inline), has(self.modules), has(self.configMapRef)].filter(set, set).size() == 1")
    .message("set exactly one of inline, modules and configMapRef"))]
pub struct Source {
    /// One module, TypeScript or JavaScript.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1048576))]
    pub inline: Option<String>,
    /// Several modules by path; relative imports resolve among them.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minProperties" = 1, "maxProperties" = 512))]
    pub modules: Option<BTreeMap<String, String>>,
    /// A ConfigMap of the same namespace: each key is a module, `binaryData` holds WebAssembly.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config_map_ref: Option<ConfigMapReference>,
}

/// A ConfigMap of the same namespace.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConfigMapReference {
    /// Name of the ConfigMap.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// A host and a path prefix.
#[derive(
    Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, KubeSchema,
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Route {
    /// A host name, or `*.` and a host name for exactly one more label in front of it.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self.matches('^([*][.])?[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')")
        .message("host must be a lower-case host name such as api.example.com or *.example.com, without scheme or port"))]
    pub host: String,
    /// A path prefix that ends on a segment border: `/v1` serves `/v1` and `/v1/x` but not `/v10`. Default `/`.
    #[serde(default = "root_path")]
    #[schemars(length(min = 1, max = 1024))]
    #[x_kube(validation = Rule::new("self.startsWith('/') && !self.contains('//') && !self.contains('?') && !self.contains('#') && !self.matches('(^|/)[.][.]?(/|$)')")
        .message("path must start with / and have no empty, . or .. segment, no ? and no #"))]
    pub path: String,
}

fn root_path() -> String {
    "/".into()
}

/// One value of the handler's `env` argument.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("has(self.value) != has(self.valueFrom)").message("set exactly one of value and valueFrom"))]
pub struct EnvVar {
    /// Name of the property; names that start with ISOLET_ are reserved.
    #[schemars(length(min = 1, max = 128))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z_][A-Za-z0-9_]*$')").message("env names have letters, digits and _, and do not start with a digit"))]
    #[x_kube(validation = Rule::new("!self.startsWith('ISOLET_')").message("env names that start with ISOLET_ are reserved: choose another name"))]
    pub name: String,
    /// The value itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 65536))]
    pub value: Option<String>,
    /// Where the value comes from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value_from: Option<EnvVarSource>,
}

/// Where a value comes from: exactly one field is set.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("has(self.secretKeyRef) != has(self.configMapKeyRef)")
    .message("set exactly one of secretKeyRef and configMapKeyRef"))]
pub struct EnvVarSource {
    /// A key of a Secret in the same namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_key_ref: Option<KeySelector>,
    /// A key of a ConfigMap in the same namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config_map_key_ref: Option<KeySelector>,
}

/// A key of a Secret or ConfigMap.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KeySelector {
    /// Name of the object.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key in its data.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
    /// Leaves the value out, instead of failing, where the object or the key does not exist.
    #[serde(default, skip_serializing_if = "is_default")]
    pub optional: bool,
}

/// Where a Function's own requests may go.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Egress {
    /// Hosts, `*.` hosts, addresses or CIDR ranges, each with an optional port; without one: 80 and 443.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 300)))]
    #[x_kube(validation = Rule::new("self.all(entry, entry.matches('^([*][.])?[A-Za-z0-9_]([-A-Za-z0-9_.]*[A-Za-z0-9_])?(/[0-9]{1,3})?(:[0-9]{1,5})?$|^[0-9A-Fa-f:.]+(/[0-9]{1,3})?$|^[[][0-9A-Fa-f:.]+(/[0-9]{1,3})?[]](:[0-9]{1,5})?$'))")
        .message(Message::Expression("self.filter(entry, !entry.matches('^([*][.])?[A-Za-z0-9_]([-A-Za-z0-9_.]*[A-Za-z0-9_])?(/[0-9]{1,3})?(:[0-9]{1,5})?$|^[0-9A-Fa-f:.]+(/[0-9]{1,3})?$|^[[][0-9A-Fa-f:.]+(/[0-9]{1,3})?[]](:[0-9]{1,5})?$'))[0] + ' is no host: write a host (api.example.com), *. and a host, an address or a CIDR range, with an optional :port and without scheme or path'".into())))]
    pub allow: Vec<String>,
}

/// What the operator saw.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FunctionStatus {
    /// `metadata.generation` that this status speaks of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Accepted, ResolvedRefs, Programmed, Ready; Reconciling and Stalled while they hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Address of the Function.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The same, as Knative's Addressable has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<Address>,
    /// The revision that runtime pods were last told to serve.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// Runtime pods that serve it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nodes: Option<NodesStatus>,
    /// Size of the bundle as stored, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<i64>,
}

/// Knative's Addressable.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
pub struct Address {
    /// Address of the Function inside the cluster.
    pub url: String,
}

/// How many runtime pods serve the revision.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
pub struct NodesStatus {
    /// Runtime pods that serve it.
    pub ready: i32,
    /// Runtime pods that there are.
    pub desired: i32,
    /// `ready/desired`, for `kubectl get`.
    pub summary: String,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
