// Puts what was built on the global object and takes away what tenants must not have.
"use strict";

const { ObjectDefineProperty, ReflectDeleteProperty, ReflectOwnKeys } = primordials;
const { op_lazy_global, op_lazy_provider } = ops;

const names = ReflectOwnKeys(internals.exposed);
for (let i = 0; i < names.length; i++) {
  ObjectDefineProperty(globalThis, names[i], {
    __proto__: null, value: internals.exposed[names[i]], writable: true, configurable: true, enumerable: false,
  });
}
const functions = ReflectOwnKeys(internals.functions);
for (let i = 0; i < functions.length; i++) {
  ObjectDefineProperty(globalThis, functions[i], {
    __proto__: null, value: internals.functions[functions[i]], writable: true, configurable: true, enumerable: true,
  });
}
const lazy = ReflectOwnKeys(internals.lazyGlobals);
if (internals.anyLoaded()) throw new primordials.Error("a lazy file was run for the snapshot");
for (let i = 0; i < lazy.length; i++) {
  const isFunction = lazy[i] === "atob" || lazy[i] === "btoa";
  op_lazy_global(globalThis, lazy[i], isFunction);
}
op_lazy_provider(globalThis, internals.provide);
ObjectDefineProperty(globalThis, "self", {
  __proto__: null, value: globalThis, writable: true, configurable: true, enumerable: true,
});

internals.patchTemporal();

// Called with the global object, once in every context made from the snapshot. V8 adds to Atomics while it makes one, and
// stops the process if it is not there; it installs WebAssembly anew.
internals.load = (global) => {
  ReflectDeleteProperty(global, "Atomics");
  ReflectDeleteProperty(global, "SharedArrayBuffer");
  internals.patchWebAssembly(global.WebAssembly);
};
// Here only so that the snapshot holds the compiled code: to compile it took a twentieth of the time of a new isolate.
internals.load({ WebAssembly: { Instance: class {}, Memory: class {}, Module: class {} } });
