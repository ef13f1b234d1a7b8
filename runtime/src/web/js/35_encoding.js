// TextEncoder, TextDecoder (https://encoding.spec.whatwg.org/#api), atob and btoa
// (https://infra.spec.whatwg.org/#forgiving-base64).
"use strict";

const {
  Boolean, RangeError, TypeError, TypedArrayPrototypeGetByteLength, TypedArrayPrototypeSet, Uint8Array,
} = primordials;
const { DOMException, defineInterface, requireArguments } = internals;
const { op_atob, op_btoa, op_decode, op_encode, op_encode_into, op_encoding_name } = ops;

class TextEncoder {
  #brand = true;

  get encoding() {
    this.#brand;
    return "utf-8";
  }

  encode(input = "") {
    this.#brand;
    return op_encode(`${input}`);
  }

  encodeInto(source, destination) {
    requireArguments(arguments.length, 2, "TextEncoder.encodeInto");
    this.#brand;
    const text = `${source}`;
    if (!internals.body.isUint8Array(destination)) throw new TypeError("encodeInto: the destination is not a Uint8Array");
    const room = TypedArrayPrototypeGetByteLength(destination);
    const result = op_encode_into(text, room);
    TypedArrayPrototypeSet(destination, result[1]);
    return { read: result[0], written: TypedArrayPrototypeGetByteLength(result[1]) };
  }
}
defineInterface(TextEncoder);

const NO_BYTES = new Uint8Array(0);

class TextDecoder {
  #encoding;
  #fatal;
  #ignoreBOM;
  // Between calls with stream: the bytes of an unfinished character and whether the start was seen.
  #rest = NO_BYTES;
  #started = false;

  constructor(label = "utf-8", options = undefined) {
    const name = op_encoding_name(`${label}`);
    if (name === null) throw new RangeError(`Unknown encoding: ${label}`);
    this.#encoding = name;
    if (options !== undefined && options !== null && typeof options !== "object" && typeof options !== "function") {
      throw new TypeError("TextDecoder: options is not an object");
    }
    this.#fatal = Boolean(options?.fatal);
    this.#ignoreBOM = Boolean(options?.ignoreBOM);
  }

  get encoding() {
    return this.#encoding;
  }

  get fatal() {
    return this.#fatal;
  }

  get ignoreBOM() {
    return this.#ignoreBOM;
  }

  decode(input = undefined, options = undefined) {
    this.#encoding;
    const stream = Boolean(options?.stream);
    let bytes = NO_BYTES;
    if (input !== undefined) {
      if (!primordials.ArrayBufferIsView(input) && !internals.body.isArrayBuffer(input)) {
        throw new TypeError("TextDecoder.decode: the input is neither an ArrayBuffer nor a view of one");
      }
      bytes = internals.body.viewBytes(input);
    }
    const result = op_decode(this.#encoding, this.#fatal, this.#ignoreBOM || this.#started, stream, this.#rest, bytes);
    if (result === null) {
      this.#rest = NO_BYTES;
      this.#started = false;
      throw new TypeError(`The bytes are not valid ${this.#encoding}`);
    }
    if (stream) {
      this.#rest = result[1];
      this.#started = this.#started || result[2];
    } else {
      this.#rest = NO_BYTES;
      this.#started = false;
    }
    return result[0];
  }
}
defineInterface(TextDecoder);
internals.decodeBytes = primordials.uncurryThis(TextDecoder.prototype.decode);

const { atob } = {
  atob(data) {
    requireArguments(arguments.length, 1, "atob");
    const result = op_atob(`${data}`);
    if (result === null) throw new DOMException("The string is not correctly encoded base64", "InvalidCharacterError");
    return result;
  },
};

const { btoa } = {
  btoa(data) {
    requireArguments(arguments.length, 1, "btoa");
    const result = op_btoa(`${data}`);
    if (result === null) {
      throw new DOMException(
        "The string contains characters above U+00FF; encode it with TextEncoder first", "InvalidCharacterError",
      );
    }
    return result;
  },
};

internals.functions.atob = atob;
internals.functions.btoa = btoa;
internals.exposed.TextEncoder = TextEncoder;
internals.exposed.TextDecoder = TextDecoder;
