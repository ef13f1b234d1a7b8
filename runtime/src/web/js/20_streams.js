// WHATWG streams for this layer's own use. The streams themselves are made when somebody uses one (21_streams.js).
"use strict";

internals.later("21_streams.js", [
  "ByteLengthQueuingStrategy", "CountQueuingStrategy", "ReadableByteStreamController", "ReadableStream",
  "ReadableStreamBYOBReader", "ReadableStreamBYOBRequest", "ReadableStreamDefaultController", "ReadableStreamDefaultReader",
  "TransformStream", "TransformStreamDefaultController", "WritableStream", "WritableStreamDefaultController",
  "WritableStreamDefaultWriter",
], []);
internals.laterChecks(["isReadableStream"]);
internals.streams = { __proto__: null, isDisturbed: (stream) => stream._disturbed === true };
// What can only be called with a stream in hand, or makes one.
internals.later("21_streams.js", [], [
  "isLocked", "readable", "reader", "read", "tee", "cancel", "cancelReader", "passThrough", "spent",
], internals.streams);
