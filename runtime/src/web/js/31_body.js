// Bodies, https://fetch.spec.whatwg.org/#body-mixin. A body is kept in its simplest form for as long as it can be:
// whole (text or bytes), then an arriving stream known by its number only, then a ReadableStream.
"use strict";

const {
  ArrayBuffer, ArrayBufferIsView, ArrayBufferPrototypeGetByteLength, ArrayPrototypePush, DataViewPrototypeGetBuffer,
  DataViewPrototypeGetByteLength, DataViewPrototypeGetByteOffset, JSONParse, PromisePrototypeThen, PromiseReject,
  PromiseResolve, PromiseWithResolvers, TypeError, TypedArrayPrototypeGetBuffer, TypedArrayPrototypeGetByteLength,
  TypedArrayPrototypeGetByteOffset, TypedArrayPrototypeGetSymbolToStringTag, TypedArrayPrototypeSet, Uint8Array,
} = primordials;
const { isReadableStream, streams } = internals;
const { op_encode, op_decode_utf8, op_read, op_cancel_read } = ops;

// A body that arrives, by the host's number for it.
class Arriving {
  id;
  done = false; // the last piece has come
  failed = undefined; // { reason } once it was broken off here
  reject = undefined; // ends the read under way
  end = undefined; // called once the last piece has come

  constructor(id) {
    this.id = id;
  }
}
primordials.ObjectSetPrototypeOf(Arriving.prototype, null);

class Body {
  source; // string or Uint8Array, when the whole is known
  inbound; // Arriving or null
  stream; // ReadableStream, once someone asked for it
  used = false;

  constructor(source, inbound, stream) {
    this.source = source;
    this.inbound = inbound;
    this.stream = stream;
  }
}
primordials.ObjectSetPrototypeOf(Body.prototype, null);

// The bytes of an ArrayBuffer or a view, not copied.
function viewBytes(value) {
  if (ArrayBufferIsView(value)) {
    if (TypedArrayPrototypeGetSymbolToStringTag(value) === undefined) {
      return new Uint8Array(
        DataViewPrototypeGetBuffer(value), DataViewPrototypeGetByteOffset(value), DataViewPrototypeGetByteLength(value),
      );
    }
    return new Uint8Array(
      TypedArrayPrototypeGetBuffer(value), TypedArrayPrototypeGetByteOffset(value), TypedArrayPrototypeGetByteLength(value),
    );
  }
  return new Uint8Array(value);
}

function isArrayBuffer(value) {
  if (typeof value !== "object" || value === null) return false;
  try {
    ArrayBufferPrototypeGetByteLength(value);
    return true;
  } catch {
    return false;
  }
}

function isUint8Array(value) {
  return ArrayBufferIsView(value) && TypedArrayPrototypeGetSymbolToStringTag(value) === "Uint8Array";
}

const TEXT_TYPE = "text/plain;charset=UTF-8";
let extractedType = null;
// https://fetch.spec.whatwg.org/#concept-bodyinit-extract; the type is in extractedType.
function extract(init) {
  extractedType = null;
  if (typeof init === "string") {
    extractedType = TEXT_TYPE;
    return new Body(init, null, undefined);
  }
  if (typeof init === "object" && init !== null) {
    if (isReadableStream(init)) {
      if (streams.isDisturbed(init) || streams.isLocked(init)) {
        throw new TypeError("The body is a stream that is locked or was read already");
      }
      return new Body(undefined, null, init);
    }
    if (ArrayBufferIsView(init) || isArrayBuffer(init)) {
      return new Body(new Uint8Array(viewBytes(init)), null, undefined);
    }
    if (internals.isURLSearchParams(init)) {
      extractedType = "application/x-www-form-urlencoded;charset=UTF-8";
      return new Body(internals.searchParamsText(init), null, undefined);
    }
    if (internals.isBlob(init)) {
      const type = internals.blobType(init);
      extractedType = type === "" ? null : type;
      return new Body(internals.blobBytes(init), null, undefined);
    }
  }
  const text = `${init}`;
  extractedType = TEXT_TYPE;
  return new Body(text, null, undefined);
}

// The stream of a body, made on first use.
function bodyStream(body) {
  if (body.stream !== undefined) return body.stream;
  const { source, inbound } = body;
  if (inbound !== null) {
    body.stream = streams.readable({
      __proto__: null,
      type: "bytes",
      async pull(controller) {
        const chunk = await readChunk(inbound);
        if (chunk === null) {
          streams.byteClose(controller);
        } else if (chunk.length > 0) {
          streams.byteEnqueue(controller, chunk);
        }
      },
      cancel(reason) {
        failArriving(inbound, reason ?? new TypeError("The body's stream was cancelled"));
      },
    }, { __proto__: null, highWaterMark: 0 });
  } else {
    body.stream = streams.readable({
      __proto__: null,
      type: "bytes",
      pull(controller) {
        const bytes = typeof source === "string" ? op_encode(source) : new Uint8Array(source);
        if (bytes.length > 0) streams.byteEnqueue(controller, bytes);
        streams.byteClose(controller);
        // A read that waits for bytes of its own is answered with none.
        streams.byteRespondZero(controller);
      },
    }, { __proto__: null, highWaterMark: 0 });
  }
  if (body.used) {
    // Consumed as a whole before anyone looked: nobody else can read it.
    body.stream = streams.spent();
  }
  body.source = undefined;
  body.inbound = null;
  return body.stream;
}

// Promise of the next piece that is not empty, or of null at the end.
async function readChunk(inbound) {
  for (;;) {
    const got = read(inbound);
    const chunk = typeof got === "number" ? await completed(inbound, got) : got;
    if (chunk === null || TypedArrayPrototypeGetByteLength(chunk) > 0) return chunk;
  }
}

// A piece, null at the end, or the completion that brings either.
function read(inbound) {
  if (inbound.failed !== undefined) throw inbound.failed.reason;
  const got = op_read(inbound.id);
  if (got === null) ended(inbound);
  return got;
}

function ended(inbound) {
  inbound.done = true;
  if (inbound.end !== undefined) inbound.end();
}

function completed(inbound, completion) {
  const { promise, resolve, reject } = PromiseWithResolvers();
  inbound.reject = (reason) => {
    internals.forgetCompletion(completion);
    reject(reason);
  };
  internals.onCompletion(completion, (failed, value) => {
    inbound.reject = undefined;
    if (failed) {
      reject(value);
      return;
    }
    if (value === null) ended(inbound);
    resolve(value);
  });
  return promise;
}

// Breaks off a body that arrives: this read and all later ones fail with the reason.
function failArriving(inbound, reason) {
  if (inbound.done || inbound.failed !== undefined) return;
  inbound.failed = { __proto__: null, reason };
  op_cancel_read(inbound.id);
  if (inbound.reject !== undefined) inbound.reject(reason);
}

function isUsed(body) {
  return body !== null && (body.used || (body.stream !== undefined && streams.isDisturbed(body.stream)));
}

function isUnusable(body) {
  return body !== null && (isUsed(body) || (body.stream !== undefined && streams.isLocked(body.stream)));
}

function join(chunks, total) {
  if (chunks.length === 1) return chunks[0];
  const all = new Uint8Array(total);
  let offset = 0;
  for (let i = 0; i < chunks.length; i++) {
    TypedArrayPrototypeSet(all, chunks[i], offset);
    offset += chunks[i].length;
    chunks[i] = undefined;
  }
  return all;
}

// Promise of a string or of bytes, whichever is at hand.
async function readAll(body) {
  const chunks = [];
  let total = 0;
  if (body.stream === undefined) {
    body.used = true;
    if (body.inbound === null) {
      const { source } = body;
      body.source = "";
      return source;
    }
    for (;;) {
      const chunk = await readChunk(body.inbound);
      if (chunk === null) return join(chunks, total);
      ArrayPrototypePush(chunks, chunk);
      total += chunk.length;
    }
  }
  const reader = streams.reader(body.stream);
  for (;;) {
    const step = await streams.read(reader);
    if (step.done) return chunks.length === 1 ? new Uint8Array(chunks[0]) : join(chunks, total);
    const chunk = step.value;
    if (!isUint8Array(chunk)) {
      const error = new TypeError("A body's stream gave something that is no Uint8Array");
      streams.cancelReader(reader, error);
      throw error;
    }
    const piece = viewBytes(chunk);
    ArrayPrototypePush(chunks, piece);
    total += TypedArrayPrototypeGetByteLength(piece);
  }
}

const convert = {
  __proto__: null,
  text: (data) => typeof data === "string" ? decodedText(data) : op_decode_utf8(data),
  json: (data) => JSONParse(typeof data === "string" ? decodedText(data) : op_decode_utf8(data)),
  bytes: (data) => typeof data === "string" ? op_encode(data) : owned(data),
  arrayBuffer: (data) => TypedArrayPrototypeGetBuffer(typeof data === "string" ? op_encode(data) : owned(data)),
};

// What decoding the text's UTF-8 gives: no byte order mark, no lone surrogates.
function decodedText(text) {
  const start = primordials.StringPrototypeCharCodeAt(text, 0) === 0xfeff ? 1 : 0;
  return primordials.StringPrototypeToWellFormed(start === 0 ? text : primordials.StringPrototypeSlice(text, 1));
}

// Bytes with a buffer of exactly their length.
function owned(bytes) {
  const buffer = TypedArrayPrototypeGetBuffer(bytes);
  if (ArrayBufferPrototypeGetByteLength(buffer) === TypedArrayPrototypeGetByteLength(bytes)) return bytes;
  return new Uint8Array(bytes);
}

// https://fetch.spec.whatwg.org/#concept-body-consume-body
function consume(body, kind) {
  if (body === null) {
    try {
      return PromiseResolve(convert[kind](""));
    } catch (error) {
      return PromiseReject(error);
    }
  }
  if (isUnusable(body)) return PromiseReject(new TypeError("The body was read already, or its stream is locked"));
  return PromisePrototypeThen(readAll(body), convert[kind]);
}

// https://fetch.spec.whatwg.org/#concept-body-clone; the body keeps one branch, the other is returned.
function cloneBody(body) {
  if (body === null) return null;
  if (body.stream === undefined && body.inbound === null) return new Body(body.source, null, undefined);
  const branches = streams.tee(bodyStream(body));
  body.stream = branches[0];
  return new Body(undefined, null, branches[1]);
}

// A body that was read.
function spent() {
  const body = new Body("", null, undefined);
  body.used = true;
  return body;
}

// Moves a body out of a Request that is copied by `new Request(request)`.
function takeBody(body) {
  if (body === null) return null;
  if (body.stream === undefined) {
    const taken = new Body(body.source, body.inbound, undefined);
    body.used = true;
    body.source = "";
    body.inbound = null;
    return taken;
  }
  const taken = new Body(undefined, null, streams.passThrough(body.stream));
  return taken;
}

// Adds the members of the Body mixin; bodyOf(object) checks the brand and returns its Body or null.
internals.mixinBody = (prototype, bodyOf, contentType) => {
  const members = {
    __proto__: primordials.ObjectPrototype ?? null,
    get body() {
      const body = bodyOf(this);
      return body === null ? null : bodyStream(body);
    },
    get bodyUsed() {
      return isUsed(bodyOf(this));
    },
    arrayBuffer() {
      return guarded(this, "arrayBuffer");
    },
    blob() {
      try {
        const type = contentType(this);
        return PromisePrototypeThen(consume(bodyOf(this), "bytes"), (bytes) => internals.makeBlob(bytes, type));
      } catch (error) {
        return PromiseReject(error);
      }
    },
    bytes() {
      return guarded(this, "bytes");
    },
    formData() {
      try {
        bodyOf(this);
      } catch (error) {
        return PromiseReject(error);
      }
      return PromiseReject(new TypeError("formData() is not supported; read text() and parse it with URLSearchParams"));
    },
    json() {
      return guarded(this, "json");
    },
    text() {
      return guarded(this, "text");
    },
  };
  function guarded(object, kind) {
    let body;
    try {
      body = bodyOf(object);
    } catch (error) {
      return PromiseReject(error);
    }
    return consume(body, kind);
  }
  const keys = primordials.ReflectOwnKeys(members);
  for (let i = 0; i < keys.length; i++) {
    const descriptor = primordials.ReflectGetOwnPropertyDescriptor(members, keys[i]);
    primordials.ObjectDefineProperty(prototype, keys[i], descriptor);
  }
};

internals.body = {
  __proto__: null,
  Arriving, Body, TEXT_TYPE, bodyStream, cloneBody, extract, failArriving, isArrayBuffer, isUint8Array, isUnusable, isUsed, readAll,
  readChunk, spent, takeBody, viewBytes,
  extractedType: () => extractedType,
};
