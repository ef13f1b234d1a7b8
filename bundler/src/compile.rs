//! One JavaScript or TypeScript module: parsed, checked, its types removed, positions kept.
//!
//! JavaScript passes through byte for byte. TypeScript is printed anew with the mappings of a source map. Decorators are
//! those of TypeScript's `experimentalDecorators`; the helpers they need are appended to the module as function
//! declarations, which are hoisted, so that no position shifts.

use std::path::{Path, PathBuf};

use isolet_crds::condition::reason;
use oxc::allocator::Allocator;
use oxc::ast::ast::Program;
use oxc::codegen::{Codegen, CodegenOptions};
use oxc::diagnostics::{Diagnostics, OxcDiagnostic};
use oxc::parser::Parser;
use oxc::semantic::SemanticBuilder;
use oxc::span::SourceType;
use oxc::transformer::{
    DecoratorOptions, EnvOptions, HelperLoaderMode, HelperLoaderOptions, Module, TransformOptions,
    Transformer,
};

use crate::enums;
use crate::imports::{Facts, Import, is_too_deep, take_imports};
use crate::invalid::{Invalid, Location};
use crate::modules::{SourceKind, SourceModule};
use crate::namespaces::{BareUse, bare_use};
use crate::nesting;

/// Where generated code would import its helpers from; such imports never leave this module.
const HELPERS: &str = "isolet:helpers";

/// How a message of the transformer starts that speaks to the users of another tool.
const NON_CONST_IN_NAMESPACE: &str = "Namespaces exporting non-const";

/// A module that V8 can load.
#[derive(Debug)]
pub(crate) struct Compiled {
    pub(crate) code: Vec<u8>,
    /// `mappings` of a source map, where the code differs from the source.
    pub(crate) mappings: Option<String>,
    pub(crate) imports: Vec<Import>,
    pub(crate) has_default_export: bool,
}

/// Compiles every script among `modules`; the result has `None` for the others.
///
/// Runs on a thread of its own: the parser recurses as deep as the source nests, which [`nesting`] bounds, and the
/// caller's stack may be small. A panic of the compiler becomes an error.
pub(crate) fn compile_all(modules: &[SourceModule]) -> Result<Vec<Option<Compiled>>, Invalid> {
    let stack_bytes = modules
        .iter()
        .filter(|module| module.kind.is_script())
        .map(|module| nesting::check(&module.path, module.text()?, module.kind))
        .try_fold(0, |most, bytes| bytes.map(|bytes| most.max(bytes)))?;
    let internal = |what: &str| Invalid::new(reason::SYNTAX_ERROR, what);
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("compile".into())
            .stack_size(stack_bytes)
            .spawn_scoped(scope, || modules.iter().map(compile_one).collect())
            .map_err(|error| internal(&format!("failed to start the compiler: {error}")))?;
        thread.join().unwrap_or_else(|_| {
            Err(internal("the compiler failed on this Function's modules: this is an error of Isolet, please report it"))
        })
    })
}

fn compile_one(module: &SourceModule) -> Result<Option<Compiled>, Invalid> {
    if module.kind.is_script() {
        compile(&module.path, module.text()?, module.kind).map(Some)
    } else {
        Ok(None)
    }
}

fn compile(path: &str, text: &str, kind: SourceKind) -> Result<Compiled, Invalid> {
    let at = |offset: usize, message: &str| {
        Invalid::at(
            reason::SYNTAX_ERROR,
            Location::of_offset(path, text, offset),
            message,
        )
    };
    let typescript = kind == SourceKind::TypeScript;
    let source_type = if typescript {
        SourceType::ts()
    } else {
        SourceType::mjs()
    };
    let allocator = Allocator::default();
    let parsed = Parser::new(&allocator, text, source_type).parse();
    if let Some(error) = first_error(path, text, &parsed.diagnostics) {
        return Err(explain(path, text, source_type, error));
    }
    let mut program = parsed.program;
    if let Some(offset) = is_too_deep(&program) {
        return Err(at(offset, nesting::TOO_DEEP));
    }
    if let Some(offset) = enums::too_long(&program) {
        return Err(at(offset, enums::TOO_LONG));
    }
    let semantic = SemanticBuilder::new()
        .with_check_syntax_error(true)
        .with_enum_eval(typescript)
        .build(&program);
    if let Some(error) = first_error(path, text, &semantic.diagnostics) {
        return Err(error);
    }
    if !typescript {
        let facts = Facts::of(&program);
        if let Some(offset) = facts.decorator {
            return Err(at(
                offset,
                "decorators are TypeScript here: JavaScript engines do not know them. Name the module .ts",
            ));
        }
        return finish(facts, text.as_bytes().to_vec(), None, at);
    }
    let scoping = semantic.semantic.into_scoping();
    if let Some(BareUse {
        offset,
        namespace,
        name,
    }) = bare_use(&program, &scoping)
    {
        return Err(at(
            offset,
            &format!(
                "{name} is exported by another part of namespace {namespace}: write {namespace}.{name}"
            ),
        ));
    }
    let transformed = Transformer::new(&allocator, Path::new(path), &transform_options())
        .build_with_scoping(scoping, &mut program);
    // What the transformer calls a warning would change what the code does.
    if let Some(error) = first_of(path, text, transformed.diagnostics.iter().collect()) {
        return Err(error);
    }
    let helpers = take_imports(&mut program, HELPERS);
    let facts = Facts::of(&program);
    let (mut code, mappings) = print(path, &program);
    for (helper, local) in helpers {
        code.push_str(&helper_source(&helper, &local).ok_or_else(|| {
            at(0, "the module uses syntax that would need a helper library: write it in plain JavaScript")
        })?);
    }
    finish(facts, code.into_bytes(), mappings, at)
}

fn finish(
    facts: Facts,
    code: Vec<u8>,
    mappings: Option<String>,
    at: impl Fn(usize, &str) -> Invalid,
) -> Result<Compiled, Invalid> {
    if let Some(offset) = facts.accessor {
        return Err(at(
            offset,
            "accessor fields are TypeScript here: write a getter and a setter, or name the module .ts",
        ));
    }
    Ok(Compiled {
        code,
        mappings,
        imports: facts.imports,
        has_default_export: facts.has_default_export,
    })
}

fn transform_options() -> TransformOptions {
    TransformOptions {
        decorator: DecoratorOptions {
            legacy: true,
            ..DecoratorOptions::default()
        },
        helper_loader: HelperLoaderOptions {
            module_name: HELPERS.into(),
            mode: HelperLoaderMode::Runtime,
        },
        // `import = require()` and `export =` are errors instead of CommonJS.
        env: EnvOptions {
            module: Module::Esm,
            ..EnvOptions::default()
        },
        ..TransformOptions::default()
    }
}

fn print(path: &str, program: &Program<'_>) -> (String, Option<String>) {
    let options = CodegenOptions {
        source_map_path: Some(PathBuf::from(path)),
        ..CodegenOptions::default()
    };
    let printed = Codegen::new().with_options(options).build(program);
    (printed.code, printed.map.map(|map| map.to_json().mappings))
}

/// The declaration of a helper that decorators call, as TypeScript defines their order of application.
fn helper_source(helper: &str, local: &str) -> Option<String> {
    match helper {
        "/helpers/decorate" => Some(format!(
            "function {local}(decorators, target, key, descriptor) {{
\tconst onClass = arguments.length < 3;
\tlet result = onClass ? target : descriptor === null ? Object.getOwnPropertyDescriptor(target, key) : descriptor;
\tfor (let index = decorators.length - 1; index >= 0; index--) {{
\t\tconst decorator = decorators[index];
\t\tif (!decorator) continue;
\t\tresult = (onClass ? decorator(result) : arguments.length > 3 ? decorator(target, key, result) : decorator(target, key)) || result;
\t}}
\tif (arguments.length > 3 && result) Object.defineProperty(target, key, result);
\treturn result;
}}
"
        )),
        "/helpers/decorateParam" => Some(format!(
            "function {local}(index, decorator) {{
\treturn (target, key) => decorator(target, key, index);
}}
"
        )),
        _ => None,
    }
}

/// The first error by position, and how many more there are.
fn first_error(path: &str, text: &str, diagnostics: &Diagnostics) -> Option<Invalid> {
    first_of(path, text, diagnostics.errors().collect())
}

fn first_of(path: &str, text: &str, diagnostics: Vec<&OxcDiagnostic>) -> Option<Invalid> {
    let offset_of = |diagnostic: &OxcDiagnostic| {
        diagnostic
            .labels
            .first()
            .map_or(0, |label| label.offset() as usize)
    };
    let first = diagnostics
        .iter()
        .min_by_key(|diagnostic| offset_of(diagnostic))?;
    let more = diagnostics.len() - 1;
    let mut message = first.message.to_string();
    if message.starts_with(NON_CONST_IN_NAMESPACE) {
        message = "a namespace can export only const variables here: write const, or a module instead of the namespace".into();
    }
    if let Some(help) = &first.help {
        message.push_str(" (");
        message.push_str(&help.split_whitespace().collect::<Vec<_>>().join(" "));
        message.push(')');
    }
    if more > 0 {
        message.push_str(&format!(" (and {more} more)"));
    }
    Some(Invalid::at(
        reason::SYNTAX_ERROR,
        Location::of_offset(path, text, offset_of(first)),
        message,
    ))
}

/// A better message where the text would parse with JSX.
fn explain(path: &str, text: &str, source_type: SourceType, error: Invalid) -> Invalid {
    let allocator = Allocator::default();
    let with_jsx = Parser::new(&allocator, text, source_type.with_jsx(true)).parse();
    match (with_jsx.diagnostics.has_errors(), error.location) {
        (false, Some(location)) => Invalid::at(
            reason::SYNTAX_ERROR,
            location,
            format!("JSX is not supported: compile {path} to JavaScript first"),
        ),
        (_, location) => Invalid { location, ..error },
    }
}
