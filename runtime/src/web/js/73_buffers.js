// ArrayBuffers that can be resized are off. Each takes memory mappings of the process, of which there are few for all
// tenants, however small it is, and V8 counts none of them.
"use strict";

const {
  ArrayBuffer, ObjectDefineProperty, ReflectConstruct, ReflectGetOwnPropertyDescriptor, ReflectOwnKeys, TypeError,
} = primordials;

const replacement = {
  ArrayBuffer: function (length) {
    if (new.target === undefined) throw new TypeError("Constructor ArrayBuffer requires 'new'");
    const options = arguments[1];
    if (typeof options === "object" && options !== null && options.maxByteLength !== undefined) {
      throw new TypeError("ArrayBuffer: maxByteLength is off; make a larger one, or transfer(newByteLength)");
    }
    return ReflectConstruct(ArrayBuffer, [length], new.target);
  },
}.ArrayBuffer;

const keys = ReflectOwnKeys(ArrayBuffer);
for (let i = 0; i < keys.length; i++) {
  const descriptor = ReflectGetOwnPropertyDescriptor(ArrayBuffer, keys[i]);
  descriptor.__proto__ = null;
  ObjectDefineProperty(replacement, keys[i], descriptor);
}
const value = { __proto__: null, value: replacement, writable: true, enumerable: false, configurable: true };
ObjectDefineProperty(ArrayBuffer.prototype, "constructor", value);
ObjectDefineProperty(globalThis, "ArrayBuffer", value);
