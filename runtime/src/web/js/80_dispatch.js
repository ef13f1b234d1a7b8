// Entry points that Rust calls: start, dispatch, abort (complete is in 10_completions.js).
"use strict";

const {
  FunctionPrototypeBind, Map, MapPrototypeDelete, MapPrototypeGet, MapPrototypeGetSize, MapPrototypeSet, ObjectDefineProperty, ObjectFreeze,
  PromisePrototypeThen, PromiseResolve, TypeError,
} = primordials;
const {
  arrivingRequest, body: bodies, defineInterface, headersRaw, pumpArriving, pumpStream, responseBody, responseState, streams,
} = internals;
const { op_fail, op_hold, op_release, op_respond } = ops;

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
  handle = FunctionPrototypeBind(fetch, exported);
  env = ObjectFreeze(values);
  return undefined;
};

internals.dispatch = (id, method, url, fields, inbound) => {
  const request = arrivingRequest(method, url, fields, inbound);
  try {
    const result = handle(request, env, new ExecutionContext(underWay, id));
    const state = responseState(result);
    if (state === undefined) {
      answerLater(id, request, result);
    } else if (typeof state.body === "string") {
      respondText(id, state);
    } else {
      answer(id, request, state);
    }
  } catch (error) {
    fail(id, error);
  }
};

// Waits for the handler's promise. A tenant's Promise.prototype.constructor can make either call throw.
function answerLater(id, request, promise) {
  MapPrototypeSet(underWay, id, { request, cancel: undefined });
  PromisePrototypeThen(PromiseResolve(promise), (value) => {
    MapPrototypeDelete(underWay, id);
    const state = responseState(value);
    try {
      if (state === undefined) throw new TypeError(`the handler returned ${describe(value)}, not a Response`);
      if (typeof state.body === "string") respondText(id, state);
      else answer(id, request, state);
    } catch (error) {
      fail(id, error);
    }
  }, (error) => fail(id, error));
}

function fail(id, error) {
  MapPrototypeDelete(underWay, id);
  op_fail(id, error);
}

// Text that nobody looked at: most answers.
function respondText(id, state) {
  const { body, headers } = state;
  state.body = undefined;
  if (headers === undefined) op_respond(id, state.status, state.contentType, "", body);
  else op_respond(id, state.status, null, headersRaw(headers), body);
}

// Any other answer.
function answer(id, request, state) {
  const body = responseBody(state);
  if (state.type === "error") throw new TypeError("the handler returned Response.error(), which cannot be sent");
  if (bodies.isUnusable(body)) {
    throw new TypeError(
      "the handler returned a Response whose body was read already, or is locked; return response.clone() or a new Response",
    );
  }
  const { headers } = state;
  const contentType = headers === undefined ? state.contentType : null;
  const fields = headers === undefined ? "" : headersRaw(headers);
  const moves = body !== null && (body.stream !== undefined || body.inbound !== null);
  const writer = op_respond(id, state.status, contentType, fields, moves ? undefined : body === null ? null : body.source);
  if (moves) {
    move(id, request, body, writer);
  } else if (body !== null) {
    body.used = true;
  }
}

// Moves a body to the host; the request is under way for as long.
function move(id, request, body, writer) {
  const { inbound, stream } = body;
  if (stream === undefined) body.used = true;
  if (writer === 0) {
    // Nobody wants the body (HEAD): its source need not make it.
    if (stream !== undefined) streams.cancel(stream, undefined);
    else bodies.failArriving(inbound, new TypeError("Nobody reads the body any more"));
    return;
  }
  const entry = { request, cancel: undefined };
  MapPrototypeSet(underWay, id, entry);
  const done = () => MapPrototypeDelete(underWay, id);
  if (stream !== undefined) pumpStream(writer, entry, stream, done);
  // A body that arrives is passed on without a stream in between.
  else pumpArriving(writer, entry, inbound, done);
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
