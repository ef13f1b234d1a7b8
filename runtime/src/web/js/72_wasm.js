// WebAssembly from imported modules only: compiling bytes is refused with a sentence, shared memory too.
"use strict";

const {
  Number, ObjectDefineProperty, PromiseReject, ReflectConstruct, ReflectGetOwnPropertyDescriptor, ReflectOwnKeys, TypeError,
} = primordials;
const { op_wasm_instance, op_wasm_memory } = ops;

function define(object, name, value) {
  ObjectDefineProperty(object, name, { __proto__: null, value, writable: true, configurable: true });
}

function replaceConstructor(original, replacement) {
  const keys = ReflectOwnKeys(original);
  for (let i = 0; i < keys.length; i++) {
    const descriptor = ReflectGetOwnPropertyDescriptor(original, keys[i]);
    descriptor.__proto__ = null;
    ObjectDefineProperty(replacement, keys[i], descriptor);
  }
  define(original.prototype, "constructor", replacement);
}

// Called in every context made from the snapshot, where V8 installs WebAssembly anew.
internals.patchWebAssembly = (WebAssembly) => {
  const { Instance, Memory, Module, CompileError } = WebAssembly;
  const REFUSAL = "compiling WebAssembly from bytes is off; import the module: import module from \"./module.wasm\"";

  const { exports } = Module;
  function isModule(value) {
    try {
      exports(value);
      return true;
    } catch {
      return false;
    }
  }

  function WasmModule() {
    throw new CompileError(`WebAssembly.Module: ${REFUSAL}`);
  }
  replaceConstructor(Module, WasmModule);
  define(WebAssembly, "Module", WasmModule);

  function WasmMemory(descriptor) {
    if (new.target === undefined) throw new TypeError("WebAssembly.Memory must be called with new");
    if (typeof descriptor !== "object" || descriptor === null) {
      throw new TypeError("WebAssembly.Memory: the argument is not an object");
    }
    const copy = { __proto__: null };
    for (let i = 0; i < MEMORY_FIELDS.length; i++) {
      const value = descriptor[MEMORY_FIELDS[i]];
      if (value !== undefined) copy[MEMORY_FIELDS[i]] = value;
    }
    if (descriptor.shared) throw new TypeError("WebAssembly.Memory: shared memory is off");
    if (copy.address !== undefined) {
      copy.address = String(copy.address);
      if (copy.address !== "i32") throw new TypeError("WebAssembly.Memory: 64-bit memory is off");
    }
    if (copy.maximum !== undefined) copy.maximum = Number(copy.maximum);
    // V8 refuses other numbers with its own words.
    if (copy.maximum === undefined || copy.maximum >= 0) copy.maximum = op_wasm_memory(copy.maximum);
    return ReflectConstruct(Memory, [copy], new.target);
  }
  // As for other buffers (73_buffers.js).
  delete Memory.prototype.toResizableBuffer;
  replaceConstructor(Memory, WasmMemory);
  define(WebAssembly, "Memory", WasmMemory);

  function construct(module, imports, target) {
    op_wasm_instance(module);
    return ReflectConstruct(Instance, imports === undefined ? [module] : [module, imports], target);
  }

  function WasmInstance(module, imports = undefined) {
    if (new.target === undefined) throw new TypeError("WebAssembly.Instance must be called with new");
    return construct(module, imports, new.target);
  }
  replaceConstructor(Instance, WasmInstance);
  define(WebAssembly, "Instance", WasmInstance);

  define(WebAssembly, "instantiate", function instantiate(module, imports = undefined) {
    if (!isModule(module)) return PromiseReject(new CompileError(`WebAssembly.instantiate: ${REFUSAL}`));
    try {
      return primordials.PromiseResolve(construct(module, imports, Instance));
    } catch (error) {
      return PromiseReject(error);
    }
  });
  const refused = ["compile", "compileStreaming", "instantiateStreaming"];
  for (let i = 0; i < refused.length; i++) {
    const name = refused[i];
    const replacement = { [name]: () => PromiseReject(new CompileError(`WebAssembly.${name}: ${REFUSAL}`)) };
    define(WebAssembly, name, replacement[name]);
  }
};

const MEMORY_FIELDS = ["address", "index", "initial", "minimum", "maximum"];
