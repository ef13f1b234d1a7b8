// crypto.getRandomValues and randomUUID, https://w3c.github.io/webcrypto/#Crypto-interface. There is no crypto.subtle.
"use strict";

const {
  ArrayBufferIsView, TypeError, TypedArrayPrototypeGetByteLength, TypedArrayPrototypeGetSymbolToStringTag,
  TypedArrayPrototypeSet,
} = primordials;
const { DOMException, defineInterface, requireArguments } = internals;
const { op_random, op_uuid } = ops;

const kInternal = { __proto__: null };

class Crypto {
  #brand = true;

  constructor(token = undefined) {
    if (token !== kInternal) throw new TypeError("Illegal constructor");
  }

  getRandomValues(array) {
    requireArguments(arguments.length, 1, "crypto.getRandomValues");
    this.#brand;
    const tag = ArrayBufferIsView(array) ? TypedArrayPrototypeGetSymbolToStringTag(array) : undefined;
    switch (tag) {
      case "Int8Array": case "Uint8Array": case "Uint8ClampedArray": case "Int16Array": case "Uint16Array": case "Int32Array":
      case "Uint32Array": case "BigInt64Array": case "BigUint64Array": break;
      default:
        throw new DOMException("crypto.getRandomValues: the argument is not an integer typed array", "TypeMismatchError");
    }
    const length = TypedArrayPrototypeGetByteLength(array);
    if (length > 65536) {
      throw new DOMException(
        `crypto.getRandomValues: ${length} bytes are more than the 65536 it gives at a time`, "QuotaExceededError",
      );
    }
    TypedArrayPrototypeSet(internals.body.viewBytes(array), op_random(length));
    return array;
  }

  randomUUID() {
    this.#brand;
    return op_uuid();
  }
}
defineInterface(Crypto);

class Navigator {
  constructor(token = undefined) {
    if (token !== kInternal) throw new TypeError("Illegal constructor");
  }

  get userAgent() {
    return "Isolet";
  }
}
defineInterface(Navigator);

internals.exposed.Crypto = Crypto;
internals.exposed.crypto = new Crypto(kInternal);
internals.exposed.Navigator = Navigator;
internals.exposed.navigator = new Navigator(kInternal);
