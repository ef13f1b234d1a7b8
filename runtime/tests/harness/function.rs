//! Functions as the operator would pack them.

use std::collections::BTreeMap;

use isolet_crds::bundle::{
    Bundle, FunctionIdentity, Manifest, ModuleEntry, ModuleKind, SecretValues,
};
use isolet_crds::{ResolvedLimits, Route};

#[derive(Clone)]
pub struct Function {
    name: String,
    namespace: String,
    main: String,
    modules: BTreeMap<String, (Vec<u8>, Option<String>)>,
    env: BTreeMap<String, String>,
    secrets: BTreeMap<String, String>,
    routes: Vec<Route>,
    limits: ResolvedLimits,
    suspend: bool,
}

impl Function {
    pub fn new(name: &str, source: &str) -> Self {
        Self {
            name: name.into(),
            namespace: "default".into(),
            main: "main.js".into(),
            modules: BTreeMap::from([("main.js".into(), (source.into(), None))]),
            env: BTreeMap::new(),
            secrets: BTreeMap::new(),
            routes: Vec::new(),
            // CPU time of a debug build on a shared machine; tests of the limit set their own.
            limits: ResolvedLimits {
                cpu_ms: 5000,
                ..ResolvedLimits::default()
            },
            suspend: false,
        }
    }

    /// Its requests wait until so many are there, then all echo their bodies.
    pub fn meeting(name: &str, count: usize) -> Self {
        let source = format!(
            "const waiting = [];
             export default {{ async fetch(request) {{
               await new Promise((resolve) => {{
                 waiting.push(resolve);
                 if (waiting.length === {count}) setTimeout(() => waiting.forEach((go) => go()), 5);
               }});
               return new Response(await request.text());
             }} }}"
        );
        Self::new(name, &source)
    }

    /// The same in another namespace.
    pub fn namespaced(mut self, namespace: &str) -> Self {
        self.namespace = namespace.into();
        self
    }

    pub fn uid(&self) -> String {
        format!("uid-{}-{}", self.namespace, self.name)
    }

    /// The same code under another name.
    pub fn rename(mut self, name: &str) -> Self {
        self.name = name.into();
        self
    }

    pub fn module(mut self, path: &str, content: impl Into<Vec<u8>>) -> Self {
        self.modules.insert(path.into(), (content.into(), None));
        self
    }

    /// The main module's source map.
    pub fn mappings(mut self, mappings: &str) -> Self {
        self.modules.get_mut("main.js").unwrap().1 = Some(mappings.into());
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }

    pub fn secret(mut self, name: &str, value: &str) -> Self {
        self.secrets.insert(name.into(), value.into());
        self
    }

    pub fn route(mut self, host: &str, path: &str) -> Self {
        self.routes.push(Route {
            host: host.into(),
            path: path.into(),
        });
        self
    }

    pub fn limits(mut self, change: impl FnOnce(&mut ResolvedLimits)) -> Self {
        change(&mut self.limits);
        self
    }

    pub fn suspend(mut self) -> Self {
        self.suspend = true;
        self
    }

    pub fn encode(&self) -> (Vec<u8>, Vec<u8>) {
        let kind = |path: &str| match path.rsplit_once('.').map(|(_, extension)| extension) {
            Some("wasm") => ModuleKind::WebAssembly,
            Some("json") => ModuleKind::Json,
            Some("txt") => ModuleKind::Text,
            _ => ModuleKind::JavaScript,
        };
        let modules = self
            .modules
            .iter()
            .map(|(path, (content, mappings))| ModuleEntry {
                path: path.clone(),
                kind: kind(path),
                bytes: content.len() as u64,
                mappings: mappings.clone(),
            });
        let bundle = Bundle {
            manifest: Manifest {
                format: Manifest::FORMAT,
                function: FunctionIdentity {
                    namespace: self.namespace.clone(),
                    name: self.name.clone(),
                    uid: self.uid(),
                },
                main: self.main.clone(),
                modules: modules.collect(),
                routes: self.routes.clone(),
                env: self.env.clone(),
                secret_env: self
                    .secrets
                    .keys()
                    .map(|name| (name.clone(), "v1".into()))
                    .collect(),
                limits: self.limits,
                egress: Vec::new(),
                suspend: self.suspend,
            },
            contents: self
                .modules
                .values()
                .map(|(content, _)| content.clone())
                .collect(),
        };
        let secrets = if self.secrets.is_empty() {
            Vec::new()
        } else {
            SecretValues {
                values: self.secrets.clone(),
            }
            .encode()
            .unwrap()
        };
        (bundle.encode().unwrap().bytes, secrets)
    }
}
