// Request, https://fetch.spec.whatwg.org/#request-class, without what only browsers have (cache, credentials, mode...
// read as their defaults). A request that arrives is made without parsing: URL and fields are as the server gave them.
"use strict";

const { RegExpPrototypeExec, StringPrototypeToUpperCase, TypeError } = primordials;
const { defineInterface, makeHeaders, body: bodies } = internals;
const { op_url_href } = ops;

const kInternal = { __proto__: null };
const TOKEN = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;

// https://fetch.spec.whatwg.org/#concept-method
function normalizeMethod(value) {
  const method = `${value}`;
  switch (method) {
    case "GET": case "POST": case "PUT": case "DELETE": case "HEAD": case "OPTIONS": case "PATCH": return method;
  }
  if (RegExpPrototypeExec(TOKEN, method) === null) throw new TypeError(`Invalid method: ${method}`);
  const upper = StringPrototypeToUpperCase(method);
  switch (upper) {
    case "GET": case "POST": case "PUT": case "DELETE": case "HEAD": case "OPTIONS": return upper;
    case "CONNECT": case "TRACE": case "TRACK": throw new TypeError(`The method ${upper} is forbidden`);
  }
  return method;
}

// What a Request holds: one shape, with all its fields from the start, so that none is ever looked up in a prototype.
// headers: Headers | string, body: Body | null, follows: the signal it depends on, arriving: what still arrives of its body
const newState = (method, url, headers, body, redirect, follows, arriving) => ({
  method, url, headers, body, redirect, signal: undefined, follows, arriving, abortReason: undefined,
});

class Request {
  #state;

  // https://fetch.spec.whatwg.org/#dom-request
  constructor(input, init = undefined) {
    if (input === kInternal) {
      this.#state = init;
      return;
    }
    internals.requireArguments(arguments.length, 1, "Request");
    const options = init === undefined || init === null ? {} : init;
    if (typeof options !== "object" && typeof options !== "function") throw new TypeError("Request: init is not an object");
    const from = typeof input === "object" && input !== null && #state in input ? input.#state : null;
    const state = newState("GET", "", undefined, null, "follow", undefined, null);
    if (from === null) {
      const href = op_url_href(`${input}`);
      if (href === null) throw new TypeError(`Invalid URL: ${input}; a Request needs an absolute one`);
      state.url = href;
      if (internals.urlHasCredentials(href)) throw new TypeError("Request: the URL must not contain credentials");
    } else {
      state.url = from.url;
      state.method = from.method;
      state.redirect = from.redirect;
      // Following what the input follows spares a signal of its own that nobody asked for.
      state.follows = from.signal === undefined && from.follows !== undefined ? from.follows : Request.#signalOf(input);
    }
    const { body, headers, method, redirect, signal } = options;
    if (redirect !== undefined) {
      const mode = `${redirect}`;
      if (mode !== "follow" && mode !== "error" && mode !== "manual") {
        throw new TypeError(`Request: redirect must be "follow", "error" or "manual", not "${mode}"`);
      }
      state.redirect = mode;
    }
    if (method !== undefined) state.method = normalizeMethod(method);
    if (signal !== undefined) {
      if (signal !== null && !internals.isAbortSignal(signal)) throw new TypeError("Request: signal is not an AbortSignal");
      state.follows = signal ?? undefined;
    }
    state.headers = makeHeaders([], "request");
    if (headers !== undefined) internals.fillHeaders(state.headers, headers);
    else if (from !== null) internals.fillHeaders(state.headers, Request.#headersOf(from));
    const bodyGiven = body !== undefined && body !== null;
    const inherited = from !== null && from.body !== null;
    if ((bodyGiven || inherited) && (state.method === "GET" || state.method === "HEAD")) {
      throw new TypeError(`Request: a ${state.method} request cannot have a body`);
    }
    if (bodyGiven) {
      state.body = bodies.extract(body);
      const type = bodies.extractedType();
      if (type !== null && !internals.headersHas(state.headers, "content-type")) {
        internals.appendHeader(state.headers, "content-type", type);
      }
    } else if (inherited) {
      if (bodies.isUnusable(from.body)) throw new TypeError("Request: the input's body was read already, or is locked");
      state.body = bodies.takeBody(from.body);
    }
    this.#state = state;
  }

  static #headersOf(state) {
    if (typeof state.headers === "string") state.headers = makeHeaders(state.headers, "immutable");
    return state.headers;
  }

  // Made on first use. `follows` is the signal it depends on.
  static #signalOf(request) {
    const state = request.#state;
    if (state.signal === undefined) {
      state.signal = state.follows === undefined
        ? internals.newAbortSignal()
        : internals.dependentSignal([state.follows]);
      if (state.abortReason !== undefined) internals.signalAbort(state.signal, state.abortReason);
    }
    return state.signal;
  }

  get method() {
    return this.#state.method;
  }

  get url() {
    return this.#state.url;
  }

  get headers() {
    return Request.#headersOf(this.#state);
  }

  get redirect() {
    return this.#state.redirect;
  }

  get signal() {
    return Request.#signalOf(this);
  }

  get destination() {
    this.#state;
    return "";
  }

  get referrer() {
    this.#state;
    return "about:client";
  }

  get referrerPolicy() {
    this.#state;
    return "";
  }

  get mode() {
    this.#state;
    return "cors";
  }

  get credentials() {
    this.#state;
    return "same-origin";
  }

  get cache() {
    this.#state;
    return "default";
  }

  get integrity() {
    this.#state;
    return "";
  }

  get keepalive() {
    this.#state;
    return false;
  }

  get duplex() {
    this.#state;
    return "half";
  }

  clone() {
    const state = this.#state;
    if (bodies.isUnusable(state.body)) throw new TypeError("Request.clone: the body was read already, or is locked");
    const headers = makeHeaders([], "request");
    internals.fillHeaders(headers, Request.#headersOf(state));
    const body = bodies.cloneBody(state.body);
    return new Request(
      kInternal, newState(state.method, state.url, headers, body, state.redirect, Request.#signalOf(this), null),
    );
  }

  static {
    internals.isRequest = (value) => typeof value === "object" && value !== null && #state in value;
    internals.requestState = (request) => request.#state;
    // A request that arrives; fields are "name\nvalue\n...".
    internals.arrivingRequest = (method, url, fields, inbound) => {
      if (inbound !== 0) {
        const arriving = new bodies.Arriving(inbound);
        const body = new bodies.Body(undefined, arriving, undefined);
        return new Request(kInternal, newState(method, url, fields, body, "manual", undefined, arriving));
      }
      // Of newState's shape; what a function costs that most requests call is paid by each.
      return new Request(kInternal, {
        method, url, headers: fields, body: null, redirect: "manual", signal: undefined, follows: undefined, arriving: null,
        abortReason: undefined,
      });
    };
    // Aborts an arriving request's signal, now or when it is first asked for, and what still arrives of its body.
    internals.abortRequest = (request, reason) => {
      const state = request.#state;
      state.abortReason = reason;
      if (state.arriving !== null) bodies.failArriving(state.arriving, reason);
      if (state.signal !== undefined) internals.signalAbort(state.signal, reason);
    };
    internals.mixinBody(
      Request.prototype,
      (request) => request.#state.body,
      (request) => {
        const headers = Request.#headersOf(request.#state);
        return internals.headerValue(headers, "content-type") ?? "";
      },
    );
  }
}
defineInterface(Request);

internals.normalizeMethod = normalizeMethod;
internals.exposed.Request = Request;
