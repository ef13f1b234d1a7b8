// Puts what was built on the global object and takes away what tenants must not have.
"use strict";

const { ObjectDefineProperty, ReflectDeleteProperty } = primordials;

const names = primordials.ReflectOwnKeys(internals.exposed);
for (let i = 0; i < names.length; i++) {
  ObjectDefineProperty(globalThis, names[i], {
    __proto__: null, value: internals.exposed[names[i]], writable: true, configurable: true, enumerable: false,
  });
}
ObjectDefineProperty(globalThis, "self", {
  __proto__: null, value: globalThis, writable: true, configurable: true, enumerable: true,
});

// Called once in every context made from the snapshot: V8 adds to Atomics while it makes one, and stops if it is not there.
internals.load = () => {
  ReflectDeleteProperty(globalThis, "Atomics");
  ReflectDeleteProperty(globalThis, "SharedArrayBuffer");
};
