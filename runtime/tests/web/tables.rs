//! Tables of V8 that were given back: JavaScript that uses them hard goes on as if nothing had been.

use crate::harness::{Instance, on_fresh_thread};

/// All that may go of one isolate: most of two tables of code by address.
const ALL_BYTES: usize = (60 << 10) + (48 << 10);

/// Loads, stores, `in`, definitions and calls at places that see 3,000 shapes, by name and by key, in all tiers.
const SHAPES: &str = "
    class Given { constructor(it) { return it; } }
    class Defined extends Given { defined = this.mark + 1; }
    const load = (it) => it.mark;
    const store = (it, value) => { it.mark = value; };
    const loadKeyed = (it, key) => it[key];
    const storeKeyed = (it, key, value) => { it[key] = value; };
    const has = (it, key) => key in it;
    const call = (it) => it.twice();
    const absent = (it) => it.absent;
    const base = { twice() { return this.mark * 2; } };
    function make(index) {
      const it = Object.create(base);
      it['own' + index] = index;
      it.mark = index;
      return it;
    }
    let round = 0;
    const kept = [];
    export default { fetch(request) {
      if (request.url.endsWith('/kept')) {
        return new Response(String(kept.every((it, at) => load(it) === at && it.defined === at + 1 && call(it) === at * 2)));
      }
      round++;
      let wrong = 0;
      for (let pass = 0; pass < 3; pass++) {
        for (let index = 0; index < 3000; index++) {
          const it = make(index);
          if (load(it) !== index) wrong++;
          store(it, index + round);
          if (it.mark !== index + round) wrong++;
          if (loadKeyed(it, 'own' + index) !== index || loadKeyed(it, 'mark') !== index + round) wrong++;
          storeKeyed(it, 'mark', index);
          storeKeyed(it, 'late' + (index % 7), pass);
          if (!has(it, 'own' + index) || has(it, 'own' + (index + 1)) || !has(it, 'twice')) wrong++;
          new Defined(it);
          if (it.defined !== index + 1 || call(it) !== index * 2 || absent(it) !== undefined) wrong++;
          if (round === 1 && pass === 0) kept.push(it);
        }
      }
      let depth = 0;
      try { (function down() { depth++; down(); })(); } catch (error) {
        if (!(error instanceof RangeError) || !error.stack.includes('down')) wrong++;
      }
      return new Response(`${wrong} wrong in round ${round}`);
    } }";

#[test]
fn all_tables_of_an_isolate_go_after_a_collection() {
    on_fresh_thread(|| {
        let mut instance = Instance::new(SHAPES);
        for round in 1..=2 {
            assert_eq!(
                instance.get("http://h/").text(),
                format!("0 wrong in round {round}")
            );
            instance.heap_bytes();
            let bytes = instance.give_tables_back();
            assert!(bytes >= ALL_BYTES, "{bytes}");
        }
        // Of memory that others have used.
        drop(instance);
        let mut fresh = Instance::new("export default { fetch() {} }");
        fresh.heap_bytes();
        let bytes = fresh.give_tables_back();
        assert!(bytes >= ALL_BYTES, "{bytes}");
    });
}

#[test]
fn code_with_thousands_of_shapes_runs_on_without_them() {
    on_fresh_thread(|| {
        let mut instance = Instance::new(SHAPES);
        assert!(instance.give_tables_back() >= ALL_BYTES);
        for round in 1..=12 {
            assert_eq!(
                instance.get("http://h/").text(),
                format!("0 wrong in round {round}")
            );
            // Every other time a collection comes first; without one the tables are in use.
            if round % 2 == 0 {
                instance.heap_bytes();
            }
            instance.give_tables_back();
            assert_eq!(instance.get("http://h/kept").text(), "true");
            instance.give_tables_back();
        }
    });
}

#[test]
fn stub_caches_take_memory_only_where_they_are_used() {
    on_fresh_thread(|| {
        let mut instance = Instance::new("export default { fetch() {} }");
        assert_eq!(instance.stub_caches(), 0);
        // Of memory that others have used.
        drop(instance);
        let mut instance = Instance::new(SHAPES);
        assert_eq!(instance.stub_caches(), 0);
        for round in 1..=2 {
            assert_eq!(
                instance.get("http://h/").text(),
                format!("0 wrong in round {round}")
            );
            let used = instance.stub_caches();
            assert!(used >= 60 << 10, "{used}");
            instance.give_tables_back();
            assert_eq!(instance.stub_caches(), used, "only a collection ends them");
            assert_eq!(instance.get("http://h/kept").text(), "true");
            instance.heap_bytes();
            assert_eq!(instance.stub_caches(), 0);
        }
    });
}

/// `(module (func (export "trap") unreachable))`
const TRAP: &[u8] = &[
    0, 97, 115, 109, 1, 0, 0, 0, // header
    1, 4, 1, 96, 0, 0, // types
    3, 2, 1, 0, // one function
    7, 8, 1, 4, b't', b'r', b'a', b'p', 0, 0, // export trap
    10, 5, 1, 3, 0, 0, 11, // code
];

/// V8 finds the code of a trap by its address.
#[test]
fn traps_of_webassembly_are_found_without_them() {
    on_fresh_thread(|| {
        let source = "
            export default { fetch() {
              const { exports } = new WebAssembly.Instance(globalThis.module);
              const seen = new Set();
              for (let call = 0; call < 100; call++) {
                try { exports.trap(); seen.add('returned'); } catch (error) {
                  seen.add(error.constructor.name + ' ' + error.stack.includes('wasm'));
                }
              }
              return new Response([...seen].join());
            } }";
        let mut instance = Instance::new(source);
        instance.enter(|_, scope| {
            let module = v8::WasmModuleObject::compile(scope, TRAP).expect("compile");
            let key = v8::String::new(scope, "module").expect("key");
            let global = scope.get_current_context().global(scope);
            global.set(scope, key.into(), module.into());
        });
        for _ in 0..4 {
            assert_eq!(instance.get("http://h/").text(), "RuntimeError true");
            instance.heap_bytes();
            instance.give_tables_back();
            assert_eq!(instance.get("http://h/").text(), "RuntimeError true");
            instance.give_tables_back();
        }
    });
}
