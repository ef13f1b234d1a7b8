// Blob, https://w3c.github.io/FileAPI/#blob-section: bytes in memory with a type.
"use strict";

const {
  ArrayPrototypePush, MathMax, MathMin, Number, RegExpPrototypeExec, StringPrototypeToLowerCase, SymbolIterator,
  TypeError, TypedArrayPrototypeGetBuffer, TypedArrayPrototypeGetByteLength, TypedArrayPrototypeSet,
  TypedArrayPrototypeSlice, Uint8Array,
} = primordials;
const { body: bodies, defineInterface, forOf } = internals;
const { op_decode_utf8, op_encode } = ops;

const kInternal = { __proto__: null };

class Blob {
  #bytes;
  #type;

  constructor(parts = undefined, options = undefined) {
    if (parts === kInternal) {
      this.#bytes = options.bytes;
      this.#type = options.type;
      return;
    }
    const pieces = [];
    let total = 0;
    if (parts !== undefined) {
      const method = typeof parts === "object" && parts !== null ? parts[SymbolIterator] : undefined;
      if (typeof method !== "function") throw new TypeError("Blob: the parts are not iterable");
      forOf(parts, method, (part) => {
        let bytes;
        if (typeof part === "object" && part !== null && #bytes in part) bytes = part.#bytes;
        else if (primordials.ArrayBufferIsView(part) || bodies.isArrayBuffer(part)) bytes = bodies.viewBytes(part);
        else bytes = op_encode(`${part}`);
        ArrayPrototypePush(pieces, bytes);
        total += TypedArrayPrototypeGetByteLength(bytes);
      });
    }
    const all = new Uint8Array(total);
    let offset = 0;
    for (let i = 0; i < pieces.length; i++) {
      TypedArrayPrototypeSet(all, pieces[i], offset);
      offset += TypedArrayPrototypeGetByteLength(pieces[i]);
    }
    this.#bytes = all;
    const type = options?.type;
    this.#type = type === undefined ? "" : normalizeType(`${type}`);
  }

  get size() {
    return TypedArrayPrototypeGetByteLength(this.#bytes);
  }

  get type() {
    return this.#type;
  }

  slice(start = 0, end = undefined, type = "") {
    const size = TypedArrayPrototypeGetByteLength(this.#bytes);
    const from = clamp(start, size);
    const to = end === undefined ? size : clamp(end, size);
    const bytes = TypedArrayPrototypeSlice(this.#bytes, from, MathMax(from, to));
    return new Blob(kInternal, { bytes, type: normalizeType(`${type}`) });
  }

  async text() {
    return op_decode_utf8(this.#bytes);
  }

  async arrayBuffer() {
    return TypedArrayPrototypeGetBuffer(TypedArrayPrototypeSlice(this.#bytes));
  }

  async bytes() {
    return TypedArrayPrototypeSlice(this.#bytes);
  }

  stream() {
    return bodies.bodyStream(new bodies.Body(this.#bytes, null, undefined));
  }

  static {
    internals.isBlob = (value) => typeof value === "object" && value !== null && #bytes in value;
    internals.blobBytes = (blob) => blob.#bytes;
    internals.blobType = (blob) => blob.#type;
    internals.makeBlob = (bytes, type) => new Blob(kInternal, { bytes, type: normalizeType(type) });
  }
}
defineInterface(Blob);

function normalizeType(type) {
  return RegExpPrototypeExec(/^[\x20-\x7e]*$/, type) === null ? "" : StringPrototypeToLowerCase(type);
}

function clamp(value, size) {
  const number = primordials.MathTrunc(Number(value)) || 0;
  return number < 0 ? MathMax(size + number, 0) : MathMin(number, size);
}

internals.exposed.Blob = Blob;
