//! What the console says.

use std::time::Instant;

use isolet_runtime::web::host::ConsoleLevel;

use crate::harness::{Instance, on_fresh_thread};

fn lines(body: &str) -> Vec<(ConsoleLevel, String)> {
    let mut instance = Instance::new(&format!(
        "export default {{ fetch() {{ {body}; return new Response() }} }}"
    ));
    instance.get("http://h/");
    let world = instance.world.borrow();
    world.console.clone()
}

#[test]
fn formats() {
    on_fresh_thread(|| {
        for (expression, expected) in [
            (
                "'a', 1, true, null, undefined, 5n, Symbol('s'), -0",
                "a 1 true null undefined 5n Symbol(s) -0",
            ),
            (
                "'%s is %d and %i and %f%%', 'x', '42.5', '42.5', '1.5'",
                "x is 42.5 and 42 and 1.5%",
            ),
            (
                "'%o %O %j', {a: 1}, [1], 'extra', 2",
                "{ a: 1 } [ 1 ] \"extra\" 2",
            ),
            ("'%c styled', 'color: red'", " styled"),
            ("'%s'", "%s"),
            ("'100%'", "100%"),
            ("'%x', 1", "%x 1"),
            ("'%d', {}, Symbol('x')", "NaN Symbol(x)"),
            ("", ""),
            ("['a', 'b']", "[ \"a\", \"b\" ]"),
            (
                "{ a: 1, 'b-c': { d: [] }, [Symbol('k')]: 2 }",
                "{ a: 1, \"b-c\": { d: [] }, [Symbol(k)]: 2 }",
            ),
            ("[1, , , 4]", "[ 1, <2 empty items>, 4 ]"),
            (
                "new Map([['k', new Set([1])]])",
                "Map(1) { \"k\" => Set(1) { 1 } }",
            ),
            ("{}, [], new Map(), new Set()", "{} [] Map(0) {} Set(0) {}"),
            (
                "new Date(0), new Date(NaN)",
                "1970-01-01T00:00:00.000Z Invalid Date",
            ),
            ("/a/g", "/a/g"),
            (
                "function f() {}, class A {}, () => {}",
                "[Function: f] [class A] [Function: (anonymous)]",
            ),
            (
                "new (class Point { constructor() { this.x = 1 } })",
                "Point { x: 1 }",
            ),
            ("Object.create(null)", "[Object: null prototype] {}"),
            ("new Uint8Array([1, 2])", "Uint8Array(2) [ 1, 2 ]"),
            ("new ArrayBuffer(3)", "ArrayBuffer { byteLength: 3 }"),
            (
                "Promise.resolve(4), new Promise(() => {})",
                "Promise { 4 } Promise { <pending> }",
            ),
            (
                "{ get a() { throw 1 }, set b(x) {}, get c() { return 1 }, set c(x) {} }",
                "{ a: [Getter], b: [Setter], c: [Getter/Setter] }",
            ),
            (
                "new Proxy({ a: 1 }, { get() { throw 1 }, ownKeys() { throw 2 } })",
                "[Proxy]",
            ),
            ("[\"it's\", 'say \"x\"']", "[ \"it's\", 'say \"x\"' ]"),
            (
                "Object(1), Object('s'), Object(true)",
                "[Number: 1] [String: \"s\"] [Boolean: true]",
            ),
            ("new Headers({ a: 'b' })", "Headers { a: \"b\" }"),
            ("new URL('http://h/x')", "URL \"http://h/x\""),
            ("new URLSearchParams('a=b')", "URLSearchParams \"a=b\""),
            (
                "new Request('http://h/')",
                "Request { method: \"GET\", url: \"http://h/\" }",
            ),
            (
                "new Response()",
                "Response { status: 200, statusText: \"\" }",
            ),
            (
                "{ a: { b: { c: { d: { e: { f: 1 } } } } } }",
                "{ a: { b: { c: { d: { e: [Object] } } } } }",
            ),
        ] {
            let text = &lines(&format!("console.log({expression})"))[0].1;
            let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
            assert_eq!(flat, expected.trim(), "{expression}");
        }
    });
}

#[test]
fn circles_errors_and_long_objects() {
    on_fresh_thread(|| {
        let text = &lines("const a = { x: [] }; a.self = a; a.x.push(a); console.log(a)")[0].1;
        assert_eq!(text, "{ x: [ [Circular] ], self: [Circular] }");
        let text =
            &lines("console.log(new RangeError('bad', { cause: new TypeError('why') }))")[0].1;
        assert!(
            text.starts_with("RangeError: bad\n    at Object.fetch (main.ts:1:"),
            "{text}"
        );
        assert!(text.contains("[cause]: TypeError: why\n"), "{text}");
        assert!(!text.contains("isolet:"), "{text}");
        let text = &lines("console.log(Object.assign(new Error('m'), { code: 5, e: 1 }))")[0].1;
        assert!(text.ends_with("{ code: 5, e: 1 }"), "{text}");
        let text = &lines("console.log(new DOMException('m', 'AbortError'))")[0].1;
        assert!(text.starts_with("AbortError: m\n"), "{text}");
        let text = &lines("console.log({ aaaaaaaaaaaaaaaaaaaa: 'bbbbbbbbbbbbbbbbbbbbbbbbbbb', cccccccccccccccccccc: { ddddddddddd: 'eeeeeeeeeeeeeeeeeeeeeeeee' } })")[0].1;
        assert_eq!(
            text,
            "{\n  aaaaaaaaaaaaaaaaaaaa: \"bbbbbbbbbbbbbbbbbbbbbbbbbbb\",\n  cccccccccccccccccccc: { ddddddddddd: \"eeeeeeeeeeeeeeeeeeeeeeeee\" }\n}"
        );
    });
}

#[test]
fn methods_and_levels() {
    on_fresh_thread(|| {
        use ConsoleLevel::{Debug, Error, Info, Warn};
        let output = lines(
            "console.debug('d'); console.info('i'); console.warn('w'); console.error('e');
             console.assert(true, 'no'); console.assert(false, 'yes %s', 1); console.assert(false); console.assert(false, {});
             console.count(); console.count(); console.countReset(); console.count('x'); console.countReset('none');
             console.group('g'); console.log('a\\nb'); console.group(); console.log('c'); console.groupEnd(); console.groupEnd(); console.groupEnd(); console.log('d');
             console.time('t'); console.timeLog('t', 1); console.timeEnd('t'); console.timeEnd('t'); console.time('u'); console.time('u');
             console.dir('s'); console.table([{ a: 1, b: 'x' }, { a: 2 }]); console.table(5); const { log } = console; log('unbound'); console.clear();",
        );
        let expected = [
            (Debug, "d"),
            (Info, "i"),
            (Warn, "w"),
            (Error, "e"),
            (Error, "Assertion failed: yes 1"),
            (Error, "Assertion failed"),
            (Error, "Assertion failed {}"),
            (Info, "default: 1"),
            (Info, "default: 2"),
            (Info, "x: 1"),
            (Warn, "Count for 'none' does not exist"),
            (Info, "g"),
            (Info, "  a\n  b"),
            (Info, "    c"),
            (Info, "d"),
            (Info, "t: 0.000ms 1"),
            (Info, "t: 0.000ms"),
            (Warn, "Timer 't' does not exist"),
            (Warn, "Timer 'u' already exists"),
            (Info, "\"s\""),
            (
                Info,
                "(index) | a | b  \n0       | 1 | \"x\"\n1       | 2 |    ",
            ),
            (Info, "5"),
            (Info, "unbound"),
        ];
        let actual: Vec<_> = output
            .iter()
            .map(|(level, text)| (*level, text.as_str()))
            .collect();
        assert_eq!(actual, expected);
        let trace = &lines("console.trace('here', 1)")[0];
        assert_eq!(trace.0, Debug);
        assert!(
            trace
                .1
                .starts_with("Trace: here 1\n    at Object.fetch (main.ts:1:"),
            "{}",
            trace.1
        );
        assert!(!trace.1.contains("isolet:"), "{}", trace.1);
    });
}

#[test]
fn huge_values_are_cut_while_built() {
    on_fresh_thread(|| {
        for value in [
            "'x'.repeat(5e7)",
            "'x'.repeat(2 ** 29 - 24)",
            "{ a: 'x'.repeat(2 ** 29 - 24) }, '%s', 'x'.repeat(2 ** 29 - 24)",
            "new Error('x'.repeat(2 ** 28))",
            "Array(1e6).fill('y'.repeat(1000))",
            "Array.from({ length: 1e5 }, (_, i) => ({ ['k' + i]: 'v'.repeat(100) }))",
            "Object.fromEntries(Array.from({ length: 1e5 }, (_, i) => ['k' + i, i]))",
            "(() => { let o = {}; for (let i = 0; i < 1e5; i++) o = { o }; return o })()",
            "(() => { let o = [1, 2]; for (let i = 0; i < 40; i++) o = [o, o, o]; return o })()",
            "new Map(Array.from({ length: 1e5 }, (_, i) => [i, i]))",
            "new Uint8Array(1e8)",
            "new Array(4294967295)",
            "1n << 1000000n",
            "Object.assign(new Error('z'.repeat(1e6)), { a: 'b'.repeat(1e6) })",
            "'%s %o'.repeat(1e5), 'x'.repeat(1e6)",
            "Symbol('q'.repeat(1e6))",
            "(() => { const f = () => {}; Object.defineProperty(f, 'name', { value: 'n'.repeat(1e6) }); return f })()",
            "Array.from({ length: 99 }, () => 'long '.repeat(1e4))",
        ] {
            let start = Instant::now();
            let output = lines(&format!("console.log({value})"));
            assert_eq!(output.len(), 1, "{value}");
            assert!(
                output[0].1.chars().count() <= 8300,
                "{value}: {} characters",
                output[0].1.len()
            );
            assert!(
                start.elapsed().as_secs() < 5,
                "{value} took {:?}",
                start.elapsed()
            );
        }
        for body in [
            "for (let i = 0; i < 1e4; i++) console.group(); console.log('a\\n'.repeat(1e4))",
            "for (let i = 0; i < 5000; i++) { console.count(i); console.time(i) } console.table(Array.from({ length: 1e4 }, () => ({ a: 'x'.repeat(1e4) })))",
        ] {
            for (_, text) in lines(body) {
                assert!(text.chars().count() <= 8300, "{} characters", text.len());
            }
        }
    });
}
