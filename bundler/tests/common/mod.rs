//! A Function from inline modules, for tests that read in a few lines.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::collections::BTreeMap;

use isolet_bundler::{Built, Invalid, SecretValue, Sources, build, inline_modules, validate};
use isolet_crds::bundle::{Bundle, ModuleEntry};
use isolet_crds::{Function, FunctionSpec};

/// A Function whose code is one inline module, `main.ts`.
pub fn inline(code: &str) -> Function {
    function(&serde_json::json!({ "source": { "inline": code } }))
}

/// A Function of several modules.
pub fn modules(modules: &[(&str, &str)]) -> Function {
    let modules: BTreeMap<_, _> = modules.iter().copied().collect();
    function(&serde_json::json!({ "source": { "modules": modules } }))
}

/// A Function with this spec.
pub fn function(spec: &serde_json::Value) -> Function {
    let spec: FunctionSpec = serde_json::from_value(spec.clone()).unwrap();
    let mut function = Function::new("hello", spec);
    function.metadata.namespace = Some("default".into());
    function.metadata.uid = Some("5b1a9e5e-0000-4000-8000-000000000000".into());
    function
}

/// Builds it with what the spec itself holds.
pub fn built(function: &Function) -> Result<Built, Invalid> {
    built_with(function, Sources::default())
}

/// Builds it with fetched values; modules come from the spec unless given.
pub fn built_with(function: &Function, mut sources: Sources) -> Result<Built, Invalid> {
    if sources.modules.is_empty() {
        sources.modules = inline_modules(&function.spec).unwrap_or_default();
    }
    Ok(build(&validate(function, sources)?).unwrap())
}

/// Why it is not valid.
pub fn refused(function: &Function) -> Invalid {
    built(function).expect_err("the Function should be invalid")
}

/// A secret value of version 1.
pub fn secret(value: &str) -> SecretValue {
    SecretValue {
        value: value.into(),
        version: "uid@1".into(),
    }
}

/// One module of a built bundle, as a runtime pod reads it.
pub fn module(built: &Built, path: &str) -> (ModuleEntry, String) {
    let bundle = Bundle::decode(&built.bundle.bytes, Some(&built.bundle.digest)).unwrap();
    let (entry, content) = bundle
        .modules()
        .find(|(entry, _)| entry.path == path)
        .unwrap();
    (entry.clone(), String::from_utf8(content.to_vec()).unwrap())
}

/// The JavaScript that inline TypeScript becomes.
pub fn emitted(code: &str) -> String {
    let code = format!("{code}\nexport default {{ fetch() {{}} }};\n");
    module(
        &built(&inline(&code)).unwrap_or_else(|error| panic!("{}", error.report())),
        "main.ts",
    )
    .1
}
