//! What is refused about the code, and what TypeScript becomes.
#![allow(clippy::unwrap_used)]

mod common;

use common::{built, emitted, inline, module, modules, refused};
use isolet_bundler::Invalid;
use isolet_crds::condition::reason;

const HANDLER: &str = "export default { fetch() {} }";

#[track_caller]
fn syntax_error(code: &str) -> Invalid {
    let invalid = refused(&inline(code));
    assert_eq!(invalid.reason, reason::SYNTAX_ERROR, "{invalid}");
    invalid
}

#[test]
fn a_syntax_error_shows_the_place() {
    let invalid = syntax_error("export default {\n  fetch() { return new Response('a' }\n}\n");
    let location = invalid.location.clone().unwrap();
    assert_eq!((location.file.as_str(), location.line), ("main.ts", 2));
    assert_eq!(
        invalid.report(),
        "main.ts:2:37: Expected `,` or `)` but found `}`
   |
 2 |   fetch() { return new Response('a' }
   |                                     ^"
    );
}

#[test]
fn errors_that_a_parser_alone_does_not_see() {
    assert!(
        syntax_error("let a = 1; let a = 2; export default {}")
            .message
            .starts_with("main.ts:1:5: ")
    );
    assert!(
        syntax_error("export default {};\nbreak;")
            .message
            .starts_with("main.ts:2:1: ")
    );
    assert!(
        syntax_error("export default { a() { #x } }")
            .message
            .starts_with("main.ts:1:27: ")
    );
}

#[test]
fn jsx_is_named() {
    for (path, code) in [
        ("main.js", "const a = <p>hello</p>;\nexport default {}"),
        ("main.ts", "const a = <p>hello</p>;\nexport default {}"),
    ] {
        let invalid = refused(&modules(&[(path, code)]));
        assert_eq!(invalid.reason, reason::SYNTAX_ERROR);
        assert!(
            invalid.message.ends_with(&format!(
                "JSX is not supported: compile {path} to JavaScript first"
            )),
            "{invalid}"
        );
    }
}

#[test]
fn decorators_and_accessors_that_v8_does_not_know() {
    let decorated = "function d(c) {}\n@d class A {}\nexport default {}";
    let invalid = refused(&modules(&[("main.js", decorated)]));
    assert_eq!(
        invalid.message,
        "main.js:2:1: decorators are TypeScript here: JavaScript engines do not know them. Name the module .ts"
    );
    let accessor = "class A {\n  accessor x = 1 }\nexport default {}";
    let invalid = refused(&modules(&[("main.js", accessor)]));
    assert_eq!(
        invalid.message,
        "main.js:2:3: accessor fields are TypeScript here: write a getter and a setter, or name the module .ts"
    );
    let (_, code) = module(
        &built(&modules(&[("main.ts", accessor)])).unwrap(),
        "main.ts",
    );
    assert!(code.contains("set x(value)"), "{code}");
}

#[test]
fn no_default_export() {
    let expected = "main.ts has no default export: write export default { fetch(request, env, ctx) { return new Response(\"hello\") } }";
    for code in [
        "export function fetch() {}",
        "",
        "export default interface A {}",
        "const a = 1; export { a }",
    ] {
        let invalid = refused(&inline(code));
        assert_eq!(
            (invalid.reason, invalid.message.as_str()),
            (reason::NO_HANDLER, expected),
            "{code}"
        );
    }
    for code in [
        HANDLER,
        "const a = {}; export { a as default }",
        "export { default } from './b.ts'",
        "export * as default from './b.ts'",
        "export default class { fetch() {} }",
        "export default function f() {}",
        "export default ({ fetch() {} }) satisfies unknown",
    ] {
        built(&modules(&[("main.ts", code), ("b.ts", HANDLER)]))
            .unwrap_or_else(|error| panic!("{code}: {error}"));
    }
}

#[test]
fn imports_resolve_among_the_modules() {
    let main = "import a from './lib/a'; import b from './b.js'; import c from './c.json' with { type: 'json' };
        export * from './lib/a.ts'; const d = () => import('./b'); const e = () => import(`./c.json`);
        export default { fetch() { return [a, b, c, d, e] } }";
    built(&modules(&[
        ("main.ts", main),
        ("lib/a.ts", "export { default } from '../b.ts'"),
        ("b.ts", "export default 1"),
        ("c.json", "{}"),
    ]))
    .unwrap();
}

#[test]
fn an_unknown_import_shows_the_place() {
    for (code, at, part) in [
        (
            "import a from './nope';\na();",
            "1:15",
            "no module nope, nope.ts",
        ),
        ("import 'lodash';", "1:8", "a Function has no packages"),
        (
            "\nexport * from '../x.ts';",
            "2:15",
            "leaves the Function's modules",
        ),
        ("const a = import('node:fs');", "1:18", "Node.js"),
        ("const a = import(`./x`);", "1:18", "no module x"),
        (
            "export { a } from 'https://example.com/a.js'",
            "1:19",
            "nothing from the network",
        ),
    ] {
        let invalid = refused(&inline(&format!("{code}\n{HANDLER}")));
        assert_eq!(invalid.reason, reason::UNKNOWN_IMPORT, "{code}: {invalid}");
        assert!(
            invalid
                .message
                .starts_with(&format!("main.ts:{at}: cannot import ")),
            "{code}: {invalid}"
        );
        assert!(invalid.message.contains(part), "{code}: {invalid}");
    }
    // What is only a type, and what is computed, is not looked for.
    built(&inline(&format!(
        "import type {{ A }} from 'lodash'; import {{ B }} from './nope'; let x: A | B; import('./' + x);\n{HANDLER}"
    )))
    .unwrap();
}

#[test]
fn javascript_passes_byte_for_byte() {
    let code = "// as written\nexport   default{fetch( ){}}\n\n";
    let (entry, content) = module(&built(&modules(&[("main.js", code)])).unwrap(), "main.js");
    assert_eq!(content, code);
    assert_eq!(entry.mappings, None);
}

#[test]
fn types_vanish() {
    let code = emitted(
        "import type { A } from './a'; import { type B, C } from './c';
        interface I { x: number } type T = I | string; declare const g: number; declare global { var h: number }
        abstract class K<T> implements I { x!: number; private readonly y: T | undefined; abstract z(): void; declare w: string }
        function f<T>(this: void, a: T, b?: number): a is T { return a as any as T & true }
        function over(a: string): void; function over(a: unknown) { return a! }
        const s = { a: 1 } satisfies Record<string, number>; enum E { A } let e: C = <C>E.A; export type { A };",
    );
    for gone in [
        "import",
        "interface",
        "type ",
        "declare",
        "abstract",
        "implements",
        "satisfies",
        " as ",
        "private",
        ": number",
        "<C>",
    ] {
        assert!(!code.contains(gone), "{gone} in {code}");
    }
    assert!(code.contains("const s = { a: 1 };"), "{code}");
}

#[test]
fn unused_imports_vanish_as_typescript_does_by_default() {
    let code = "import { Used, OnlyType } from './lib'; import './side-effect'; let x: OnlyType; new Used(x);";
    let function = modules(&[
        ("main.ts", &format!("{code}\n{HANDLER}")),
        (
            "lib.ts",
            "export class Used {} export interface OnlyType {}",
        ),
        ("side-effect.ts", ""),
    ]);
    let (_, code) = module(&built(&function).unwrap(), "main.ts");
    assert!(code.contains("import { Used } from \"./lib\""), "{code}");
    assert!(code.contains("import \"./side-effect\""), "{code}");
}

#[test]
fn enums_and_namespaces_become_values() {
    let code = emitted(
        "export enum Color { Red = 1, Green, Blue = Green << 1, Name = 'n' } export const enum Flag { On = 1 }\nexport const used = Flag.On;",
    );
    for part in [
        "Color[Color[\"Red\"] = 1] = \"Red\"",
        "Color[Color[\"Green\"] = 2] = \"Green\"",
        "Color[Color[\"Blue\"] = 4] = \"Blue\"",
        "Color[\"Name\"] = \"n\"",
        "Flag[Flag[\"On\"] = 1] = \"On\"",
    ] {
        assert!(code.contains(part), "{part} not in {code}");
    }
    let code = emitted(
        "namespace Geo { export const pi = 3; export namespace Deep { export function f() { return pi } } }\nexport const x = Geo.Deep.f();",
    );
    assert!(code.contains("(function(_Geo) {"), "{code}");
    assert!(
        code.contains("Geo.Deep || (_Geo.Deep = {})") || code.contains("_Geo.Deep"),
        "{code}"
    );
}

#[test]
fn texts_of_enums_are_bounded() {
    let doubling = |first: &str, next: fn(usize) -> String| {
        let members: String = (1..60)
            .map(|n| format!("A{n} = {},\n", next(n - 1)))
            .collect();
        inline(&format!("enum E {{ A0 = {first},\n{members} }}\n{HANDLER}"))
    };
    for function in [
        doubling("'x'", |n| format!("A{n} + A{n}")),
        doubling("'x'", |n| format!("E.A{n} + E['A{n}']")),
        doubling("7", |n| format!("`${{A{n}}}${{A{n}}}`")),
        doubling("7", |n| format!("'' + A{n} + A{n}")),
    ] {
        let invalid = refused(&function);
        assert_eq!(invalid.reason, reason::SYNTAX_ERROR);
        assert!(
            invalid
                .message
                .contains("enum members become longer than 1 MiB"),
            "{invalid}"
        );
    }
    built(&doubling("1", |n| format!("A{n} + A{n}"))).unwrap();
    built(&doubling("1", |n| format!("A{n} | 1 << {n}"))).unwrap();
    built(&doubling("'x'", |n| format!("'name-' + {n}"))).unwrap();
}

#[test]
fn parts_of_a_namespace_use_each_other_by_full_name() {
    let first = "namespace N { export const p = 1; export function q() { return p } export namespace M { export class K {} } }\n";
    for (second, found) in [
        (
            "namespace N { export const r = q() }",
            Some(("2:32", "q", "N")),
        ),
        (
            "namespace N.M { export const r = new K() }",
            Some(("2:38", "K", "N.M")),
        ),
        (
            "namespace N { namespace X { export const r = p } }",
            Some(("2:46", "p", "N")),
        ),
        (
            "const q = 1; namespace N { export const r = q }",
            Some(("2:45", "q", "N")),
        ),
        ("namespace N { export const r = N.q() }", None),
        ("namespace N { export const r = (q: number) => q }", None),
        (
            "namespace N { const q = 1; export const r = q; export namespace X { export const s = q } }",
            None,
        ),
        (
            "namespace N { export const s: typeof q | unknown = 1; export type T = K | M.K; }",
            None,
        ),
        ("namespace Other { export const r = typeof q }", None),
    ] {
        let function = inline(&format!("{first}{second}\n{HANDLER}"));
        match found {
            None => drop(built(&function).unwrap_or_else(|error| panic!("{second}: {error}"))),
            Some((at, name, namespace)) => assert_eq!(
                refused(&function).message,
                format!(
                    "main.ts:{at}: {name} is exported by another part of namespace {namespace}: write {namespace}.{name}"
                )
            ),
        }
    }
}

#[test]
fn parameter_properties_become_fields() {
    let code = emitted("class A { constructor(private readonly a: number, public b = 2) {} }");
    assert!(code.contains("this.a = a"), "{code}");
    assert!(code.contains("this.b = b"), "{code}");
}

#[test]
fn decorators_bring_their_helpers_along() {
    let code = emitted(
        "function on(...a: any[]): any {} function p(t: any, k: any, i: number) {}
        @on class A { @on m(@p a: string) {} @on x = 1; @on static s() {} }\nexport { A };",
    );
    assert!(!code.contains("isolet:"), "{code}");
    assert!(!code.contains("import "), "{code}");
    assert!(
        code.contains("function _decorate(decorators, target, key, descriptor) {"),
        "{code}"
    );
    assert!(
        code.contains("function _decorateParam(index, decorator) {"),
        "{code}"
    );
    assert!(code.contains("_decorateParam(0, p)"), "{code}");
}

#[test]
fn typescript_that_cannot_become_a_module_is_refused() {
    for code in [
        "import a = require('a'); a();",
        "export = 1;",
        "const a = 1; export = a;",
    ] {
        syntax_error(&format!("{code}\n"));
    }
    let invalid = syntax_error("namespace A {\n  export let b = 1; }");
    assert_eq!(
        invalid.message,
        "main.ts:2:14: a namespace can export only const variables here: write const, or a module instead of the namespace"
    );
}

#[test]
fn positions_lead_back_to_what_was_written() {
    let source = "enum Color { Red, Green, Blue }\ninterface Gone { x: number }\n\nexport default {\n  fetch(): never {\n    throw new Error(Color[0]);\n  },\n};\n";
    let (entry, code) = module(&built(&inline(source)).unwrap(), "main.ts");
    let offset = code.find("new Error").unwrap();
    let line = code[..offset].matches('\n').count() as u32;
    let column = (offset - code[..offset].rfind('\n').unwrap() - 1) as u32;
    let json = serde_json::json!({ "version": 3, "sources": ["main.ts"], "names": [], "mappings": entry.mappings.unwrap() });
    let map = oxc_sourcemap::SourceMap::from_json_string(&json.to_string())
        .unwrap()
        .into_owned();
    let table = map.generate_lookup_table();
    let token = map.lookup_token(&table, line, column).unwrap();
    assert_ne!(line, 5, "the test should move the line");
    // From 0: line 6, column 11.
    assert_eq!((token.get_src_line(), token.get_src_col()), (5, 10));
}

#[test]
fn hostile_nesting_is_an_error_and_not_a_crash() {
    let n = 100_000;
    for (open, close) in [
        ("[", "]"),
        ("(", ")"),
        ("{", "}"),
        ("f(", ")"),
        ("!", ""),
        ("- ", ""),
        ("a=>", ""),
        ("a?", ":1"),
        ("a?b:", ""),
        ("a=", ""),
        ("a+", ""),
        ("a**", ""),
        ("new ", ""),
        ("`${", "}`"),
        ("if(a)", ""),
        ("{a:", "}"),
        ("a<(", ")"),
    ] {
        let code = format!("x={}1{};\n{HANDLER}", open.repeat(n), close.repeat(n));
        for path in ["main.js", "main.ts"] {
            let invalid = refused(&modules(&[(path, &code)]));
            assert_eq!(invalid.reason, reason::SYNTAX_ERROR);
            assert!(invalid.message.len() < 1000);
        }
    }
}

#[test]
fn a_message_has_one_line_whatever_the_source() {
    let invalid = syntax_error(&format!("x = '{}\u{1b}[31m\n", "é".repeat(5000)));
    assert!(!invalid.message.contains(char::is_control), "{invalid}");
    assert!(
        invalid
            .report()
            .lines()
            .all(|line| line.chars().count() < 1100)
    );
}
