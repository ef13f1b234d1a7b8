//! What is refused about the spec, and with which words.
#![allow(clippy::unwrap_used)]

mod common;

use common::{built, built_with, function, inline, modules, refused, secret};
use isolet_bundler::{MAX_MODULES, MAX_SCRIPT_BYTES, Sources, inline_modules};
use isolet_crds::condition::reason;
use isolet_crds::{Function, ResolvedLimits};
use serde_json::{Value, json};

const HANDLER: &str = "export default { fetch() {} }";

fn spec(field: &str, value: Value) -> Function {
    let mut spec = json!({ "source": { "inline": HANDLER } });
    spec[field] = value;
    function(&spec)
}

#[track_caller]
fn is_refused(function: &Function, reason: &str, message: &str) {
    let invalid = refused(function);
    assert_eq!(
        (invalid.reason, invalid.message.as_str()),
        (reason, message)
    );
}

#[test]
fn a_small_function_is_built() {
    let built = built(&inline(HANDLER)).unwrap();
    let manifest = &built.manifest;
    assert_eq!(manifest.main, "main.ts");
    assert_eq!(manifest.function.namespace, "default");
    assert_eq!(manifest.function.name, "hello");
    assert_eq!(manifest.limits, ResolvedLimits::default());
    assert_eq!(manifest.modules.len(), 1);
    assert!(built.secrets.is_none());
}

#[test]
fn the_same_function_gives_the_same_digest() {
    let first = built(&inline(HANDLER)).unwrap();
    assert_eq!(
        first.bundle.digest,
        built(&inline(HANDLER)).unwrap().bundle.digest
    );
    for changed in [
        spec("suspend", json!(true)),
        spec("limits", json!({ "cpu": "51ms" })),
        spec("env", json!([{ "name": "A", "value": "b" }])),
        spec("egress", json!({ "allow": ["example.com"] })),
        spec("routes", json!([{ "host": "a.example.com" }])),
        inline("export default { fetch() { } , a: 1 }"),
    ] {
        assert_ne!(first.bundle.digest, built(&changed).unwrap().bundle.digest);
    }
}

#[test]
fn order_of_routes_and_env_does_not_matter() {
    let with = |routes: Value, env: Value| {
        let spec = json!({ "source": { "inline": HANDLER }, "routes": routes, "env": env });
        built(&function(&spec)).unwrap().bundle.digest
    };
    let (a, b) = (
        json!({ "host": "a.example.com", "path": "/x" }),
        json!({ "host": "b.example.com", "path": "/" }),
    );
    let (c, d) = (
        json!({ "name": "C", "value": "1" }),
        json!({ "name": "D", "value": "2" }),
    );
    assert_eq!(
        with(json!([a, b]), json!([c, d])),
        with(json!([b, a]), json!([d, c]))
    );
}

#[test]
fn names() {
    for name in ["", "Hello", "a.b", "-a", "a_b", &"a".repeat(64)] {
        let mut function = inline(HANDLER);
        function.metadata.name = Some(name.into());
        let invalid = refused(&function);
        assert_eq!(invalid.reason, reason::INVALID_SPEC);
        assert!(invalid.message.starts_with("metadata.name"), "{invalid}");
    }
}

#[test]
fn exactly_one_source() {
    let message = "spec.source: set exactly one of inline, modules and configMapRef";
    is_refused(
        &function(&json!({ "source": {} })),
        reason::INVALID_SPEC,
        message,
    );
    let two = json!({ "source": { "inline": HANDLER, "modules": { "main.ts": HANDLER } } });
    is_refused(&function(&two), reason::INVALID_SPEC, message);
}

#[test]
fn main_module() {
    let main_of = |paths: &[&str], main: Option<&str>| {
        let code: Vec<(&str, &str)> = paths.iter().map(|path| (*path, HANDLER)).collect();
        let mut function = modules(&code);
        function.spec.main = main.map(Into::into);
        built(&function)
            .map(|built| built.manifest.main)
            .map_err(|error| {
                assert_eq!(error.reason, reason::MAIN_NOT_FOUND);
                error.message
            })
    };
    assert_eq!(main_of(&["handler.ts"], None), Ok("handler.ts".into()));
    assert_eq!(main_of(&["a.ts", "main.js"], None), Ok("main.js".into()));
    assert_eq!(main_of(&["a.ts", "b.ts"], Some("b.ts")), Ok("b.ts".into()));
    assert_eq!(
        main_of(&["main.ts", "main.js"], None),
        Err(
            "main.ts and main.js could all be the main module: set spec.main to the one that is"
                .into()
        )
    );
    assert_eq!(
        main_of(&["a.ts", "b.ts"], None),
        Err("no module is named main.ts, main.js or main.mjs: name one so, or set spec.main to one of a.ts, b.ts".into())
    );
    assert_eq!(
        main_of(&["a.ts", "b.ts"], Some("c.ts")),
        Err("spec.main is c.ts, but there is no such module; there is a.ts, b.ts".into())
    );
    let mut function = inline(HANDLER);
    function.spec.main = Some("index.ts".into());
    is_refused(
        &function,
        reason::MAIN_NOT_FOUND,
        "spec.main is index.ts, but inline code is main.ts: leave spec.main out",
    );
    is_refused(
        &modules(&[("data.json", "{}")]),
        reason::MAIN_NOT_FOUND,
        "the Function has no JavaScript or TypeScript module: add main.ts",
    );
}

#[test]
fn the_only_script_is_main_beside_data() {
    let built = built(&modules(&[("api.ts", HANDLER), ("data.json", "[1]")])).unwrap();
    assert_eq!(built.manifest.main, "api.ts");
}

#[test]
fn routes() {
    let host = |text: &str| {
        format!(
            "spec.routes[0].host \"{text}\": write a lower-case host name such as api.example.com or *.example.com, without scheme or port"
        )
    };
    for text in [
        "API.example.com",
        "https://a.com",
        "a.com:80",
        "a..com",
        "*.*.com",
        "*",
        "a_b.com",
    ] {
        is_refused(
            &spec("routes", json!([{ "host": text }])),
            reason::INVALID_SPEC,
            &host(text),
        );
    }
    for path in ["v1", "/a//b", "/a/../b", "/.", "/a?b", "/a#b"] {
        let message = format!(
            "spec.routes[0].path \"{path}\": it must start with / and have no empty, . or .. segment, no ? and no #"
        );
        is_refused(
            &spec("routes", json!([{ "host": "a.com", "path": path }])),
            reason::INVALID_SPEC,
            &message,
        );
    }
    is_refused(
        &spec(
            "routes",
            json!([{ "host": "a.com" }, { "host": "a.com", "path": "/" }]),
        ),
        reason::INVALID_SPEC,
        "spec.routes[1]: host a.com with path / is listed twice: remove one",
    );
    let fine = spec(
        "routes",
        json!([{ "host": "*.a.com", "path": "/v1/x.y/..z" }]),
    );
    assert_eq!(built(&fine).unwrap().manifest.routes[0].host, "*.a.com");
}

#[test]
fn env_names() {
    let named = |name: &str| spec("env", json!([{ "name": name, "value": "x" }]));
    is_refused(
        &named("ISOLET_TOKEN"),
        reason::INVALID_SPEC,
        "spec.env[0].name \"ISOLET_TOKEN\": names that start with ISOLET_ are reserved: choose another name",
    );
    is_refused(
        &named("1A"),
        reason::INVALID_SPEC,
        "spec.env[0].name \"1A\": write letters, digits and _, not starting with a digit, at most 128",
    );
    let twice = json!([{ "name": "A", "value": "1" }, { "name": "A", "value": "2" }]);
    is_refused(
        &spec("env", twice),
        reason::INVALID_SPEC,
        "spec.env[1]: A is listed twice: remove one",
    );
    is_refused(
        &spec("env", json!([{ "name": "A" }])),
        reason::INVALID_SPEC,
        "spec.env[0] (A): set exactly one of value and valueFrom",
    );
}

#[test]
fn env_values_come_from_spec_config_map_and_secret() {
    let env = json!([
        { "name": "A", "value": "literal" },
        { "name": "B", "valueFrom": { "configMapKeyRef": { "name": "c", "key": "k" } } },
        { "name": "C", "valueFrom": { "secretKeyRef": { "name": "s", "key": "k" } } },
        { "name": "D", "valueFrom": { "secretKeyRef": { "name": "s", "key": "none", "optional": true } } },
    ]);
    let function = spec("env", env);
    let sources = Sources {
        env: [
            ("B".into(), "fetched".into()),
            ("X".into(), "not asked for".into()),
        ]
        .into(),
        secret_env: [("C".into(), secret("hush"))].into(),
        ..Sources::default()
    };
    let built = built_with(&function, sources).unwrap();
    let plain: Vec<_> = built.manifest.env.iter().collect();
    assert_eq!(
        plain,
        [
            (&"A".to_owned(), &"literal".to_owned()),
            (&"B".to_owned(), &"fetched".to_owned())
        ]
    );
    assert_eq!(
        built.manifest.secret_env,
        [("C".to_owned(), "uid@1".to_owned())].into()
    );
    assert_eq!(
        built.secrets.unwrap().values,
        [("C".to_owned(), "hush".to_owned())].into()
    );
    let raw = zstd_free_text(&built.bundle.bytes);
    assert!(!raw.contains("hush"), "a secret is in the bundle");

    is_refused(
        &function,
        reason::REF_NOT_FOUND,
        "env B: ConfigMap c has no key k: create it, or set optional: true",
    );
}

fn zstd_free_text(bytes: &[u8]) -> String {
    let bundle = isolet_crds::bundle::Bundle::decode(bytes, None).unwrap();
    format!("{:?} {:?}", bundle.manifest, bundle.contents)
}

#[test]
fn env_values_are_bounded() {
    let names: Vec<String> = (0..9).map(|n| format!("S{n}")).collect();
    let env: Vec<Value> = names
        .iter()
        .map(|name| json!({ "name": name, "valueFrom": { "secretKeyRef": { "name": "s", "key": "k" } } }))
        .collect();
    let function = spec("env", json!(env));
    let with = |bytes: usize| {
        let value = secret(&"x".repeat(bytes));
        let secret_env = names
            .iter()
            .map(|name| (name.clone(), value.clone()))
            .collect();
        built_with(
            &function,
            Sources {
                secret_env,
                ..Sources::default()
            },
        )
    };
    assert_eq!(
        with((64 << 10) + 1).unwrap_err().message,
        "spec.env: the value of S0 has 65537 bytes, at most 65536"
    );
    assert_eq!(
        with(64 << 10).unwrap_err().message,
        "spec.env: the values from Secrets have 589824 bytes together, at most 524288"
    );
    assert_eq!(with(32 << 10).unwrap().secrets.unwrap().values.len(), 9);
}

#[test]
fn a_new_version_of_a_secret_is_a_new_revision() {
    let function = spec(
        "env",
        json!([{ "name": "C", "valueFrom": { "secretKeyRef": { "name": "s", "key": "k" } } }]),
    );
    let digest = |version: &str| {
        let mut value = secret("hush");
        value.version = version.into();
        let sources = Sources {
            secret_env: [("C".into(), value)].into(),
            ..Sources::default()
        };
        built_with(&function, sources).unwrap().bundle.digest
    };
    assert_ne!(digest("uid@1"), digest("uid@2"));
}

#[test]
fn egress() {
    is_refused(
        &spec("egress", json!({ "allow": ["a.com", "https://b.com/x"] })),
        reason::INVALID_SPEC,
        "spec.egress.allow[1] \"https://b.com/x\": write a host without scheme and path, such as api.example.com:443",
    );
    let fine = json!({ "allow": ["A.com", "*.b.com:8443", "203.0.113.0/24"] });
    assert_eq!(
        built(&spec("egress", fine)).unwrap().manifest.egress,
        ["A.com", "*.b.com:8443", "203.0.113.0/24"]
    );
}

#[test]
fn limits() {
    is_refused(
        &spec("limits", json!({ "cpu": "6m" })),
        reason::INVALID_SPEC,
        "spec.limits.cpu: is out of range: \"6m\"; write a duration from 1ms to 5m, such as 50ms, 30s or 2m",
    );
    let built = built(&spec(
        "limits",
        json!({ "cpu": "1s", "memory": "64Mi", "concurrency": 2 }),
    ));
    let limits = built.unwrap().manifest.limits;
    assert_eq!(
        (limits.cpu_ms, limits.memory_bytes, limits.concurrency),
        (1000, 64 << 20, 2)
    );
}

#[test]
fn module_paths() {
    for (path, part) in [
        ("../a.ts", "relative and plain"),
        ("/a.ts", "relative and plain"),
        ("a//b.ts", "relative and plain"),
        ("isolet:x.ts", "letters, digits"),
        ("a\nb.ts", "letters, digits"),
        ("a b.ts", "letters, digits"),
        ("", "1 to 253"),
        ("README.md", "its kind is not known"),
        ("noextension", "its kind is not known"),
        ("a.tsx", "JSX is not supported"),
        ("a.cjs", "CommonJS is not supported"),
    ] {
        let invalid = refused(&modules(&[("main.ts", HANDLER), (path, "")]));
        assert_eq!(invalid.reason, reason::INVALID_SPEC);
        assert!(invalid.message.contains(part), "{path:?}: {invalid}");
    }
}

#[test]
fn declaration_files_are_left_out() {
    let code = "import type { A } from './types'; import { B } from './types.d.ts';
        export default { fetch(a: A, b: B) {} }";
    let built = built(&modules(&[
        ("main.ts", code),
        ("types.d.ts", "export interface A {} export interface B {}"),
    ]))
    .unwrap();
    assert_eq!(built.manifest.modules.len(), 1);
}

#[test]
fn sizes_are_bounded_before_any_parsing() {
    let many: Vec<(String, String)> = (0..=MAX_MODULES)
        .map(|n| (format!("m{n}.ts"), "(".into()))
        .collect();
    let many: Vec<(&str, &str)> = many
        .iter()
        .map(|(path, code)| (path.as_str(), code.as_str()))
        .collect();
    let invalid = refused(&modules(&many));
    assert_eq!(invalid.reason, reason::BUNDLE_TOO_LARGE);
    assert!(invalid.message.contains("513 modules"), "{invalid}");

    let big = "(".repeat(MAX_SCRIPT_BYTES + 1);
    let invalid = refused(&modules(&[("main.ts", &big)]));
    assert_eq!(invalid.reason, reason::BUNDLE_TOO_LARGE);

    let function = function(&json!({ "source": { "configMapRef": { "name": "c" } } }));
    assert_eq!(inline_modules(&function.spec), None);
    let sources = Sources {
        modules: [
            ("main.ts".into(), HANDLER.into()),
            ("big.txt".into(), vec![b'a'; 33 << 20]),
        ]
        .into(),
        ..Sources::default()
    };
    assert_eq!(
        built_with(&function, sources).unwrap_err().reason,
        reason::BUNDLE_TOO_LARGE
    );
}

#[test]
fn data_modules() {
    let with = |path: &str, content: &[u8]| {
        let function = function(&json!({ "source": { "configMapRef": { "name": "c" } } }));
        let sources = Sources {
            modules: [
                ("main.ts".into(), HANDLER.into()),
                (path.into(), content.to_vec()),
            ]
            .into(),
            ..Sources::default()
        };
        built_with(&function, sources).map(drop).map_err(|error| {
            assert_eq!(error.reason, reason::SYNTAX_ERROR);
            error.message
        })
    };
    assert_eq!(with("a.wasm", b"\0asm\x01\0\0\0"), Ok(()));
    assert_eq!(with("a.json", b"{\"a\": [1]}"), Ok(()));
    assert_eq!(with("a.txt", "grüß".as_bytes()), Ok(()));
    assert!(
        with("a.wasm", b"AGFzbQ==")
            .unwrap_err()
            .contains("a.wasm: this is no WebAssembly")
    );
    assert!(
        with("a.wasm", b"\0asm\x0d\0\x01\0")
            .unwrap_err()
            .contains("component")
    );
    assert!(
        with("a.json", b"{\n  \"a\": oops\n}")
            .unwrap_err()
            .starts_with("a.json:2:8: the module is not JSON")
    );
    assert!(with("a.json", &[b'['; 100_000]).is_err());
    assert!(
        with("a.txt", b"ok\n\xff")
            .unwrap_err()
            .starts_with("a.txt:2:1: the module is not UTF-8")
    );
    assert!(
        with("a.js", b"\xff")
            .unwrap_err()
            .starts_with("a.js:1:1: the module is not UTF-8")
    );
}
