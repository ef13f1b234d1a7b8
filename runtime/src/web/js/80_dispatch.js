// Entry points that Rust calls: start, dispatch, abort (complete is in 10_completions.js).
"use strict";

const {
  FunctionPrototypeCall, Map, MapPrototypeDelete, MapPrototypeGet, MapPrototypeGetSize, MapPrototypeSet, ObjectDefineProperty, ObjectFreeze,
  PromisePrototypeThen, PromiseResolve, TypeError,
} = primordials;
const {
  arrivingRequest, body: bodies, defineInterface, isResponse, pumpArriving, pumpStream, responseFields, responseState, streams,
} = internals;
const { op_fail, op_hold, op_release, op_respond } = ops;

let handler;
let handle;
let env;
const underWay = new Map(); // RequestId -> { request, cancel }
internals.requestsUnderWay = underWay;

// ctx of fetch(request, env, ctx)
class ExecutionContext {
  #id;

  constructor(token, id) {
    if (token !== underWay) throw new TypeError("Illegal constructor");
    this.#id = id;
  }

  // Keeps the request under way until the promise settles, also after the response.
  waitUntil(promise) {
    internals.requireArguments(arguments.length, 1, "waitUntil");
    const id = this.#id;
    op_hold(id);
    try {
      PromisePrototypeThen(PromiseResolve(promise), () => op_release(id), (error) => {
        internals.logError("A promise given to waitUntil was rejected:", error);
        op_release(id);
      });
    } catch (error) {
      op_release(id);
      throw error;
    }
  }

  // Workers have it; there is no origin to pass through to.
  passThroughOnException() {
    this.#id;
  }
}
defineInterface(ExecutionContext);

function describe(value) {
  if (value === null) return "null";
  switch (typeof value) {
    case "undefined": return "undefined";
    case "string": return "a string";
    case "function": return "a function";
    case "object": return "an object of another kind";
    default: return `a ${typeof value}`;
  }
}

const EXAMPLE = "write: export default { fetch(request, env, ctx) { return new Response(\"hello\") } }";

// Checks and keeps the default export. Returns what is wrong with it, or undefined.
internals.start = (namespace, pairs) => {
  const exported = namespace.default;
  if (exported === undefined) {
    return `the main module has no default export; ${EXAMPLE}`;
  }
  if (typeof exported === "function") {
    return `the default export is a function or a class, not an object with a fetch() method; ${EXAMPLE}`;
  }
  if (typeof exported !== "object" || exported === null) {
    return `the default export is ${describe(exported)}, not an object with a fetch() method`;
  }
  const { fetch } = exported;
  if (typeof fetch !== "function") {
    return fetch === undefined
      ? `the default export has no fetch() method; ${EXAMPLE}`
      : `the default export's fetch is ${describe(fetch)}, not a function`;
  }
  const values = {};
  for (let i = 0; i < pairs.length; i += 2) {
    ObjectDefineProperty(values, pairs[i], { __proto__: null, value: pairs[i + 1], enumerable: true });
  }
  handler = exported;
  handle = fetch;
  env = ObjectFreeze(values);
  return undefined;
};

internals.dispatch = (id, method, url, fields, inbound) => {
  const request = arrivingRequest(method, url, fields, inbound);
  const entry = { request, cancel: undefined };
  let result;
  try {
    result = FunctionPrototypeCall(handle, handler, request, env, new ExecutionContext(underWay, id));
    if (!isResponse(result)) {
      MapPrototypeSet(underWay, id, entry);
      // A tenant's Promise.prototype.constructor can make either call throw.
      PromisePrototypeThen(PromiseResolve(result), (value) => {
        if (isResponse(value)) send(id, entry, value);
        else fail(id, new TypeError(`the handler returned ${describe(value)}, not a Response`));
      }, (error) => fail(id, error));
      return;
    }
  } catch (error) {
    fail(id, error);
    return;
  }
  send(id, entry, result);
};

function fail(id, error) {
  MapPrototypeDelete(underWay, id);
  op_fail(id, error);
}

function send(id, entry, response) {
  let moving;
  try {
    moving = answer(id, entry, responseState(response));
  } catch (error) {
    fail(id, error);
    return;
  }
  if (moving) MapPrototypeSet(underWay, id, entry);
  else MapPrototypeDelete(underWay, id);
}

// Hands the response to the host. Returns whether its body still has to be moved.
function answer(id, entry, state) {
  const { body, status } = state;
  const fields = responseFields(state);
  if (state.type === "error") throw new TypeError("the handler returned Response.error(), which cannot be sent");
  if (body === null) {
    op_respond(id, status, fields, null);
    return false;
  }
  if (bodies.isUnusable(body)) {
    throw new TypeError(
      "the handler returned a Response whose body was read already, or is locked; return response.clone() or a new Response",
    );
  }
  const { inbound, source, stream } = body;
  const done = () => MapPrototypeDelete(underWay, id);
  if (stream !== undefined) {
    const writer = op_respond(id, status, fields, undefined);
    if (writer !== 0) {
      pumpStream(writer, entry, stream, done);
      return true;
    }
    // Nobody wants the body (HEAD): its source need not make it.
    streams.cancel(stream, undefined);
    return false;
  }
  body.used = true;
  if (inbound === null) {
    op_respond(id, status, fields, source);
    return false;
  }
  // A body that arrives is passed on without a stream in between.
  const writer = op_respond(id, status, fields, undefined);
  if (writer !== 0) {
    pumpArriving(writer, entry, inbound, done);
    return true;
  }
  bodies.failArriving(inbound, new TypeError("Nobody reads the body any more"));
  return false;
}

// The caller has gone, or the request's time is over.
internals.abort = (id, text) => {
  const entry = MapPrototypeGet(underWay, id);
  if (entry === undefined) return;
  MapPrototypeDelete(underWay, id);
  const reason = new internals.DOMException(text, "AbortError");
  internals.abortRequest(entry.request, reason);
  if (entry.cancel !== undefined) entry.cancel(reason);
};

internals.underWay = () => [MapPrototypeGetSize(underWay), MapPrototypeGetSize(internals.pendingCompletions)];
