//! Everything that can be known without running the code.

use std::collections::BTreeMap;

use isolet_crds::Function;
use isolet_crds::bundle::{FunctionIdentity, Manifest, ModuleEntry, SecretValues};
use isolet_crds::condition::reason;
use isolet_crds::resolve::resolve;

use crate::compile::{Compiled, compile_all};
use crate::invalid::{Invalid, Location};
use crate::modules::{SourceKind, SourceModule, classify, main_module};
use crate::sources::Sources;
use crate::spec;

/// A Function whose spec is valid and whose code compiles; only [`validate`] makes one.
#[derive(Clone, Debug)]
pub struct ValidatedFunction {
    pub(crate) manifest: Manifest,
    pub(crate) contents: Vec<Vec<u8>>,
    pub(crate) secrets: Option<SecretValues>,
}

impl ValidatedFunction {
    /// What the bundle will say of the Function.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }
}

/// Checks the spec, compiles the modules, resolves their imports.
pub fn validate(function: &Function, sources: Sources) -> Result<ValidatedFunction, Invalid> {
    let name = spec::check_name(function)?;
    let spec = &function.spec;
    spec::check_source(spec)?;
    let limits = spec::limits(spec)?;
    let routes = spec::routes(spec)?;
    let egress = spec::egress(spec)?;
    let env = spec::env(spec, sources.env, sources.secret_env)?;

    let modules = classify(sources.modules)?;
    let main = main_module(spec.main.as_deref(), spec.source.inline.is_some(), &modules)?;
    let compiled = compile_all(&modules)?;
    check_imports(&modules, &compiled)?;
    check_handler(&main, &modules, &compiled)?;
    modules.iter().try_for_each(check_data)?;

    let metadata = &function.metadata;
    let (modules, contents) = modules
        .into_iter()
        .zip(compiled)
        .map(|(module, compiled)| {
            let (content, mappings) = match compiled {
                Some(compiled) => (compiled.code, compiled.mappings),
                None => (module.content, None),
            };
            let entry = ModuleEntry {
                path: module.path,
                kind: module.kind.module_kind(),
                bytes: content.len() as u64,
                mappings,
            };
            (entry, content)
        })
        .unzip();
    let manifest = Manifest {
        format: Manifest::FORMAT,
        function: FunctionIdentity {
            namespace: metadata
                .namespace
                .clone()
                .unwrap_or_else(|| "default".into()),
            name: name.to_owned(),
            uid: metadata.uid.clone().unwrap_or_default(),
        },
        main,
        modules,
        routes,
        env: env.plain,
        secret_env: env
            .secret
            .iter()
            .map(|(name, secret)| (name.clone(), secret.version.clone()))
            .collect(),
        limits,
        egress,
        suspend: spec.suspend,
    };
    let values: BTreeMap<String, String> = env
        .secret
        .into_iter()
        .map(|(name, secret)| (name, secret.value))
        .collect();
    let secrets = (!values.is_empty()).then_some(SecretValues { values });
    Ok(ValidatedFunction {
        manifest,
        contents,
        secrets,
    })
}

fn check_imports(modules: &[SourceModule], compiled: &[Option<Compiled>]) -> Result<(), Invalid> {
    let has = |path: &str| {
        modules
            .binary_search_by(|module| module.path.as_str().cmp(path))
            .is_ok()
    };
    for (module, compiled) in modules.iter().zip(compiled) {
        for import in compiled.iter().flat_map(|compiled| &compiled.imports) {
            resolve(&module.path, &import.specifier, has).map_err(|error| {
                let location = Location::of_offset(
                    &module.path,
                    module.text().unwrap_or_default(),
                    import.offset,
                );
                Invalid::at(reason::UNKNOWN_IMPORT, location, error.to_string())
            })?;
        }
    }
    Ok(())
}

fn check_handler(
    main: &str,
    modules: &[SourceModule],
    compiled: &[Option<Compiled>],
) -> Result<(), Invalid> {
    let has_handler = modules.iter().zip(compiled).any(|(module, compiled)| {
        module.path == main && compiled.as_ref().is_some_and(|c| c.has_default_export)
    });
    if has_handler {
        return Ok(());
    }
    Err(Invalid::new(
        reason::NO_HANDLER,
        format!(
            "{main} has no default export: write export default {{ fetch(request, env, ctx) {{ return new Response(\"hello\") }} }}"
        ),
    ))
}

/// Modules that are no scripts.
fn check_data(module: &SourceModule) -> Result<(), Invalid> {
    let at_start = |message: &str| {
        Err(Invalid::new(
            reason::SYNTAX_ERROR,
            format!("{}: {message}", module.path),
        ))
    };
    match module.kind {
        SourceKind::JavaScript | SourceKind::TypeScript => Ok(()),
        SourceKind::Text => module.text().map(drop),
        SourceKind::Json => {
            let text = module.text()?;
            match serde_json::from_str::<serde::de::IgnoredAny>(text) {
                Ok(_) => Ok(()),
                Err(error) => Err(Invalid::at(
                    reason::SYNTAX_ERROR,
                    Location::of_line(&module.path, text, error.line(), error.column()),
                    format!("the module is not JSON: {error}"),
                )),
            }
        }
        SourceKind::WebAssembly => match module.content.get(..8) {
            Some(b"\0asm\x01\0\0\0") => Ok(()),
            Some([b'\0', b'a', b's', b'm', ..]) => at_start(
                "this is no WebAssembly core module, perhaps a component: compile it as a core module of version 1",
            ),
            _ => at_start(
                "this is no WebAssembly: it must be the binary form (.wasm), in a ConfigMap under binaryData",
            ),
        },
    }
}
