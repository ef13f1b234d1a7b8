//! WebAssembly modules that the host compiled.

use isolet_runtime::web;

use crate::harness::{Instance, head, on_fresh_thread};

/// `(module (import "env" "base" (func (result i32))) (func (export "add") (param i32 i32) (result i32) …))`:
/// add(a, b) = a + b + base()
const ADD: &[u8] = &[
    0, 97, 115, 109, 1, 0, 0, 0, // header
    1, 11, 2, 96, 0, 1, 127, 96, 2, 127, 127, 1, 127, // types
    2, 12, 1, 3, b'e', b'n', b'v', 4, b'b', b'a', b's', b'e', 0, 0, // import env.base
    3, 2, 1, 1, // one function of type 1
    7, 7, 1, 3, b'a', b'd', b'd', 0, 1, // export add
    10, 12, 1, 10, 0, 32, 0, 32, 1, 106, 16, 0, 106, 11, // code
];

#[test]
fn imported_modules_are_instantiated() {
    on_fresh_thread(|| {
        let mut instance = Instance::new(
            "export default { async fetch() {
               const module = globalThis.module;
               const results = [module instanceof WebAssembly.Module, WebAssembly.Module.exports(module)[0].name];
               const instance = await WebAssembly.instantiate(module, { env: { base: () => 100 } });
               results.push(instance instanceof WebAssembly.Instance, instance.exports.add(1, 2));
               results.push(new WebAssembly.Instance(module, { env: { base: () => 0 } }).exports.add(3, 4));
               try { await WebAssembly.instantiate(module, {}) } catch (error) { results.push(error.name) }
               try { structuredClone(module) } catch (error) { results.push(error.name) }
               try { new module.constructor(new Uint8Array(8)) } catch (error) { results.push(error.name) }
               console.log(module, instance);
               return Response.json(results);
             } }",
        );
        instance.enter(|_, scope| {
            let module = v8::WasmModuleObject::compile(scope, ADD).expect("compile");
            let key = v8::String::new(scope, "module").expect("key");
            let global = scope.get_current_context().global(scope);
            global.set(scope, key.into(), module.into());
        });
        assert_eq!(
            instance.get("http://h/").text(),
            r#"[true,"add",true,103,7,"TypeError","DataCloneError","CompileError"]"#
        );
    });
}

#[test]
fn a_trap_has_a_stack() {
    on_fresh_thread(|| {
        let mut instance = Instance::new(
            "export default { fetch() { return new Response(new WebAssembly.Instance(globalThis.module, { env: { base() { throw new RangeError('inside') } } }).exports.add(1, 2)) } }",
        );
        instance.enter(|_, scope| {
            let module = v8::WasmModuleObject::compile(scope, ADD).expect("compile");
            let key = v8::String::new(scope, "module").expect("key");
            let global = scope.get_current_context().global(scope);
            global.set(scope, key.into(), module.into());
        });
        let request = instance.begin(head("GET", "http://h/", &[]), None);
        let failure = instance.failure(request);
        assert_eq!(failure.message, "RangeError: inside");
        assert!(failure.stack.contains("wasm://"), "{}", failure.stack);
        assert_eq!(failure.file.as_deref(), Some("main.ts"));
        let _ = web::external_references();
    });
}
