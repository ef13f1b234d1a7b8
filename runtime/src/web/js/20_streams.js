// WHATWG streams: the vendored ponyfill, exposed, and its methods captured for internal use.
"use strict";

const { ObjectGetOwnPropertyDescriptor, ObjectHasOwn, PromisePrototypeThen, uncurryThis } = primordials;

const exported = internals.streamsPonyfill;
const NAMES = [
  "ByteLengthQueuingStrategy", "CountQueuingStrategy", "ReadableByteStreamController", "ReadableStream",
  "ReadableStreamBYOBReader", "ReadableStreamBYOBRequest", "ReadableStreamDefaultController", "ReadableStreamDefaultReader",
  "TransformStream", "TransformStreamDefaultController", "WritableStream", "WritableStreamDefaultController",
  "WritableStreamDefaultWriter",
];
for (let i = 0; i < NAMES.length; i++) internals.exposed[NAMES[i]] = exported[NAMES[i]];

const { ReadableStream, ReadableByteStreamController, ReadableStreamDefaultReader, TransformStream } = exported;
internals.ReadableStream = ReadableStream;
internals.TransformStream = TransformStream;
const getter = (prototype, name) => uncurryThis(ObjectGetOwnPropertyDescriptor(prototype, name).get);
const isLocked = getter(ReadableStream.prototype, "locked");
const getReader = uncurryThis(ReadableStream.prototype.getReader);
const cancelStream = uncurryThis(ReadableStream.prototype.cancel);
const pipeThrough = uncurryThis(ReadableStream.prototype.pipeThrough);
const tee = uncurryThis(ReadableStream.prototype.tee);
const read = uncurryThis(ReadableStreamDefaultReader.prototype.read);
const cancelReader = uncurryThis(ReadableStreamDefaultReader.prototype.cancel);
const byteEnqueue = uncurryThis(ReadableByteStreamController.prototype.enqueue);
const byteClose = uncurryThis(ReadableByteStreamController.prototype.close);
const byobRequest = getter(ReadableByteStreamController.prototype, "byobRequest");
const enqueue = uncurryThis(exported.TransformStreamDefaultController.prototype.enqueue);
const respond = uncurryThis(exported.ReadableStreamBYOBRequest.prototype.respond);

internals.isReadableStream = (value) => {
  if (typeof value !== "object" || value === null) return false;
  try {
    // The getter throws for anything else, which is slow; this tells most of them.
    if (!ObjectHasOwn(value, "_readableStreamController")) return false;
    isLocked(value);
    return true;
  } catch {
    return false;
  }
};

function ignore(promise) {
  PromisePrototypeThen(promise, undefined, () => {});
}

internals.streams = {
  __proto__: null,
  isLocked,
  enqueue,
  isDisturbed: (stream) => stream._disturbed === true,
  reader: (stream) => getReader(stream),
  read,
  tee,
  cancel: (stream, reason) => ignore(cancelStream(stream, reason)),
  cancelReader: (reader, reason) => ignore(cancelReader(reader, reason)),
  byteEnqueue,
  byteClose,
  byteRespondZero(controller) {
    const request = byobRequest(controller);
    if (request !== null) respond(request, 0);
  },
  passThrough: (stream) => pipeThrough(stream, new TransformStream()),
  spent() {
    const stream = new ReadableStream({ __proto__: null });
    getReader(stream);
    stream._disturbed = true;
    return stream;
  },
};
