// structuredClone, https://html.spec.whatwg.org/#dom-structuredclone, on V8's serializer. ArrayBuffers can be transferred;
// objects of this layer cannot be cloned.
"use strict";

const { ArrayPrototypeIncludes, ArrayPrototypePush, SymbolIterator, TypeError } = primordials;
const { DOMException, forOf, requireArguments } = internals;
const { op_clone } = ops;

function isPlatform(value) {
  return internals.isHeaders(value) || internals.isRequest(value) || internals.isResponse(value) || internals.isURL(value) ||
    internals.isURLSearchParams(value) || internals.isAbortSignal(value) || internals.isReadableStream(value) ||
    internals.isDOMException(value) || internals.isBlob(value);
}

function cloneError(message) {
  return new DOMException(message, "DataCloneError");
}

const { structuredClone } = {
  structuredClone(value, options = undefined) {
    requireArguments(arguments.length, 1, "structuredClone");
    const transfer = [];
    if (options !== undefined && options !== null) {
      if (typeof options !== "object" && typeof options !== "function") {
        throw new TypeError("structuredClone: options is not an object");
      }
      const list = options.transfer;
      if (list !== undefined) {
        const method = list === null ? undefined : list[SymbolIterator];
        if (typeof method !== "function") throw new TypeError("structuredClone: transfer is not iterable");
        forOf(list, method, (item) => {
          if (!internals.body.isArrayBuffer(item)) throw cloneError("Only ArrayBuffers can be transferred");
          if (ArrayPrototypeIncludes(transfer, item)) throw cloneError("An ArrayBuffer is listed twice in transfer");
          ArrayPrototypePush(transfer, item);
        });
      }
    }
    return op_clone(value, transfer, isPlatform, cloneError);
  },
};

internals.functions.structuredClone = structuredClone;
