// WHATWG streams: the vendored ponyfill, exposed, and its methods captured for internal use. Run late (02_lazy.js): what the
// ponyfill uses of the language while it is set up is handed to it, so that none of it is the tenant's.
"use strict";

const {
  MathCeil, MathFloor, MathMin, MathTrunc, Number, NumberIsFinite, NumberIsNaN, ObjectCreate, ObjectDefineProperty,
  ObjectGetOwnPropertyDescriptor, ObjectHasOwn, Promise, PromiseAll, PromisePrototypeThen, PromiseReject, PromiseResolve,
  ReflectOwnKeys, Symbol, uncurryThis,
} = primordials;
const { op_lazy_script } = ops;
internals.need("12_abort.js");

function defineProperty(object, name, descriptor) {
  return ObjectDefineProperty(object, name, { __proto__: null, ...descriptor });
}

// A constructor or function with members of its own only.
function withMembers(callable, members) {
  const keys = ReflectOwnKeys(members);
  for (let i = 0; i < keys.length; i++) defineProperty(callable, keys[i], { value: members[keys[i]] });
  return callable;
}

const language = {
  __proto__: null,
  AbortController: function AbortController() {
    return new internals.exposed.AbortController();
  },
  DOMException: function DOMException(message, name) {
    return new internals.DOMException(message, name);
  },
  Math: { __proto__: null, ceil: MathCeil, floor: MathFloor, min: MathMin, trunc: MathTrunc },
  Number: withMembers((value) => Number(value), {
    __proto__: null, isFinite: NumberIsFinite, isNaN: NumberIsNaN, MAX_SAFE_INTEGER: 9007199254740991,
  }),
  Object: {
    __proto__: null,
    create: ObjectCreate,
    defineProperty,
    defineProperties(object, descriptors) {
      const keys = ReflectOwnKeys(descriptors);
      for (let i = 0; i < keys.length; i++) defineProperty(object, keys[i], descriptors[keys[i]]);
      return object;
    },
    prototype: { __proto__: null, hasOwnProperty: { __proto__: null, call: ObjectHasOwn } },
  },
  Promise: withMembers(function (executor) {
    return new Promise(executor);
  }, {
    __proto__: null,
    all: PromiseAll,
    resolve: { __proto__: null, bind: () => PromiseResolve },
    reject: { __proto__: null, bind: () => PromiseReject },
  }),
};
// `prototype` of a function is there already.
language.Promise.prototype = { __proto__: null, then: { __proto__: null, call: PromisePrototypeThen } };

const exported = { __proto__: null };
op_lazy_script("streams.js")(
  exported, {}, { __proto__: null, DOMException: language.DOMException }, internals.queueMicrotask, language.AbortController,
  language.Math, language.Number, language.Object, language.Promise, Symbol,
);
const names = ReflectOwnKeys(exported);
for (let i = 0; i < names.length; i++) internals.exposed[names[i]] = exported[names[i]];

const { ReadableStream, ReadableByteStreamController, ReadableStreamDefaultReader, TransformStream } = exported;
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

const { streams } = internals;
streams.isLocked = isLocked;
streams.readable = (source, strategy) => new ReadableStream(source, strategy);
streams.transform = (transformer) => new TransformStream(transformer);
streams.readableOf = getter(TransformStream.prototype, "readable");
streams.writableOf = getter(TransformStream.prototype, "writable");
streams.enqueue = enqueue;
streams.reader = (stream) => getReader(stream);
streams.read = read;
streams.tee = tee;
streams.cancel = (stream, reason) => ignore(cancelStream(stream, reason));
streams.cancelReader = (reader, reason) => ignore(cancelReader(reader, reason));
streams.byteEnqueue = byteEnqueue;
streams.byteClose = byteClose;
streams.byteRespondZero = (controller) => {
  const request = byobRequest(controller);
  if (request !== null) respond(request, 0);
};
streams.passThrough = (stream) => pipeThrough(stream, new TransformStream());
streams.spent = () => {
  const stream = new ReadableStream({ __proto__: null });
  getReader(stream);
  stream._disturbed = true;
  return stream;
};
