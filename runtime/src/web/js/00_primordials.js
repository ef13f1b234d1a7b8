// The language's own functions as they were before any user code, under names such as ArrayPrototypeJoin.
// Method functions take their receiver first. Internal code uses these, so that a tenant who patches a prototype
// changes what his own code sees, not what this layer does.
// Parameters: primordials, ops, internals, globalThis.
"use strict";

const { bind, call } = Function.prototype;
const uncurryThis = bind.bind(call);
const { defineProperty, getOwnPropertyDescriptor, freeze } = Object;
const { ownKeys } = Reflect;

// In a block, so that nothing keeps what is needed for it.
{
  function keyName(key) {
    if (typeof key === "string") return key[0].toUpperCase() + key.slice(1);
    return `Symbol${key.description[7].toUpperCase()}${key.description.slice(8)}`;
  }

  // Only what some file names is kept: each takes memory in every instance.
  const named = new Set(internals.primordialNames);
  delete internals.primordialNames;

  function copy(source, prefix, method) {
    for (const key of ownKeys(source)) {
      const descriptor = getOwnPropertyDescriptor(source, key);
      if (descriptor.get !== undefined) {
        const name = `${prefix}Get${keyName(key)}`;
        if (method && named.has(name)) primordials[name] = uncurryThis(descriptor.get);
        continue;
      }
      const name = `${prefix}${keyName(key)}`;
      if (!named.has(name)) continue;
      const { value } = descriptor;
      primordials[name] = typeof value === "function" && method ? uncurryThis(value) : value;
    }
  }

  for (const name of ["JSON", "Math", "Reflect"]) copy(globalThis[name], name, false);
  for (
    const name of [
      "Array", "ArrayBuffer", "BigInt", "Boolean", "DataView", "Date", "Error", "Function", "Map", "Number", "Object",
      "Promise", "RegExp", "Set", "String", "Symbol", "Uint8Array", "Uint32Array", "WeakMap", "WeakRef", "WeakSet", "EvalError",
      "RangeError", "ReferenceError", "SyntaxError", "TypeError", "URIError", "Int8Array", "Uint8ClampedArray",
      "Int16Array", "Uint16Array", "Int32Array", "BigInt64Array", "BigUint64Array",
    ]
  ) {
    if (named.has(name)) primordials[name] = globalThis[name];
    copy(globalThis[name], name, false);
    copy(globalThis[name].prototype, `${name}Prototype`, true);
  }
  const TypedArray = Object.getPrototypeOf(Uint8Array);
  primordials.TypedArray = TypedArray;
  copy(TypedArray.prototype, "TypedArrayPrototype", true);
  const arrayIterator = Object.getPrototypeOf([][Symbol.iterator]());
  copy(arrayIterator, "ArrayIteratorPrototype", true);
  copy(Object.getPrototypeOf(new Map().entries()), "MapIteratorPrototype", true);
  copy(Object.getPrototypeOf(new Set().entries()), "SetIteratorPrototype", true);
  primordials.IteratorPrototype = Object.getPrototypeOf(arrayIterator);

  // These need a receiver.
  primordials.PromiseAll = Promise.all.bind(Promise);
  primordials.PromiseResolve = Promise.resolve.bind(Promise);
  primordials.PromiseReject = Promise.reject.bind(Promise);
  primordials.PromiseWithResolvers = Promise.withResolvers.bind(Promise);
  primordials.uncurryThis = uncurryThis;
}
freeze(primordials);

// Marks a class's members enumerable and names it, as Web IDL has them.
internals.defineInterface = (constructor, tag) => {
  const { prototype } = constructor;
  const members = ownKeys(prototype);
  for (let i = 0; i < members.length; i++) {
    if (members[i] === "constructor" || typeof members[i] === "symbol") continue;
    defineProperty(prototype, members[i], { __proto__: null, enumerable: true });
  }
  const statics = ownKeys(constructor);
  for (let i = 0; i < statics.length; i++) {
    if (typeof constructor[statics[i]] !== "function") continue;
    defineProperty(constructor, statics[i], { __proto__: null, enumerable: true });
  }
  defineProperty(prototype, primordials.SymbolToStringTag, { __proto__: null, value: tag ?? constructor.name, configurable: true });
};

// Global properties that are classes, functions or namespaces: writable, configurable, not enumerable.
internals.exposed = { __proto__: null };
