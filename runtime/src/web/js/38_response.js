// Response, https://fetch.spec.whatwg.org/#response-class. Headers are made on first use: a Response of text alone has
// its content type only.
"use strict";

const { JSONStringify, Number, RangeError, RegExpPrototypeExec, TypeError } = primordials;
const { defineInterface, makeHeaders, body: bodies } = internals;
const { op_url_href } = ops;

const kInternal = { __proto__: null };
const REASON = /^[\t\x20-\x7e\x80-\xff]*$/;

const isNullBodyStatus = (status) => status === 101 || status === 103 || status === 204 || status === 205 || status === 304;

// https://webidl.spec.whatwg.org/#abstract-opdef-converttoint for unsigned short
function toUnsignedShort(value) {
  const number = Number(value);
  return number === number && number !== Infinity && number !== -Infinity ? (primordials.MathTrunc(number) & 0xffff) : 0;
}

// What a Response holds: one shape, with all its fields from the start, so that none is ever looked up in a prototype.
// headers: Headers | undefined, contentType: string | null,
// body: Body | null | string (text that nobody looked at yet) | undefined (text that was sent)
const newState = (status, statusText, headers, contentType, body, type, url, redirected) => ({
  status, statusText, headers, contentType, body, type, url, redirected,
});

class Response {
  #state;

  constructor(body = null, init = undefined) {
    if (body === kInternal) {
      this.#state = init;
      return;
    }
    if (init === undefined && typeof body === "string") {
      // Of newState's shape; what a function costs that most requests call is paid by each.
      this.#state = {
        status: 200, statusText: "", headers: undefined, contentType: bodies.TEXT_TYPE, body, type: "default", url: "", redirected: false,
      };
      return;
    }
    const state = newState(200, "", undefined, null, null, "default", "", false);
    // The whole of https://fetch.spec.whatwg.org/#initialize-a-response
    if (init !== undefined && init !== null) initialize(state, init);
    if (body !== null && body !== undefined) {
      if (isNullBodyStatus(state.status)) {
        throw new TypeError(`Response: a response of status ${state.status} cannot have a body`);
      }
      if (typeof body === "string") {
        state.body = body;
        state.contentType = bodies.TEXT_TYPE;
      } else {
        state.body = bodies.extract(body);
        state.contentType = bodies.extractedType();
      }
      if (state.headers !== undefined && state.contentType !== null) {
        if (!internals.headersHas(state.headers, "content-type")) {
          internals.appendHeader(state.headers, "content-type", state.contentType);
        }
      }
    }
    this.#state = state;
  }

  static #headersOf(state) {
    if (state.headers === undefined) {
      state.headers = makeHeaders(state.contentType === null ? [] : ["content-type", state.contentType], "response");
    }
    return state.headers;
  }

  static #bodyOf(state) {
    if (typeof state.body === "string") state.body = new bodies.Body(state.body, null, undefined);
    else if (state.body === undefined) state.body = bodies.spent();
    return state.body;
  }

  // https://fetch.spec.whatwg.org/#dom-response-error
  static error() {
    return new Response(kInternal, newState(0, "", makeHeaders([], "immutable"), null, null, "error", "", false));
  }

  // https://fetch.spec.whatwg.org/#dom-response-redirect
  static redirect(url, status = 302) {
    internals.requireArguments(arguments.length, 1, "Response.redirect");
    const href = op_url_href(`${url}`);
    if (href === null) throw new TypeError(`Response.redirect: invalid URL: ${url}; it must be absolute`);
    const code = toUnsignedShort(status);
    if (code !== 301 && code !== 302 && code !== 303 && code !== 307 && code !== 308) {
      throw new RangeError(`Response.redirect: ${code} is no redirect status`);
    }
    const headers = makeHeaders(["location", href], "immutable");
    return new Response(kInternal, newState(code, "", headers, null, null, "default", "", false));
  }

  // https://fetch.spec.whatwg.org/#dom-response-json
  static json(data, init = undefined) {
    internals.requireArguments(arguments.length, 1, "Response.json");
    const text = JSONStringify(data);
    if (text === undefined) throw new TypeError("Response.json: the value has no JSON form");
    const state = newState(200, "", undefined, "application/json", null, "default", "", false);
    if (init !== undefined && init !== null) initialize(state, init);
    if (isNullBodyStatus(state.status)) {
      throw new TypeError(`Response.json: a response of status ${state.status} cannot have a body`);
    }
    if (state.headers !== undefined && !internals.headersHas(state.headers, "content-type")) {
      internals.appendHeader(state.headers, "content-type", "application/json");
    }
    state.body = text;
    return new Response(kInternal, state);
  }

  get type() {
    return this.#state.type;
  }

  get url() {
    return this.#state.url;
  }

  get redirected() {
    return this.#state.redirected;
  }

  get status() {
    return this.#state.status;
  }

  get ok() {
    const { status } = this.#state;
    return status >= 200 && status <= 299;
  }

  get statusText() {
    return this.#state.statusText;
  }

  get headers() {
    return Response.#headersOf(this.#state);
  }

  clone() {
    const state = this.#state;
    const original = Response.#bodyOf(state);
    if (bodies.isUnusable(original)) throw new TypeError("Response.clone: the body was read already, or is locked");
    const from = Response.#headersOf(state);
    const headers = makeHeaders([], "response");
    internals.fillHeaders(headers, from);
    const body = bodies.cloneBody(original);
    return new Response(
      kInternal, newState(state.status, state.statusText, headers, null, body, state.type, state.url, state.redirected),
    );
  }

  static {
    // undefined of what is no Response
    internals.responseState = (value) => typeof value === "object" && value !== null && #state in value ? value.#state : undefined;
    internals.isResponse = (value) => internals.responseState(value) !== undefined;
    internals.responseBody = Response.#bodyOf;
    // A fetched response.
    internals.arrivingResponse = (status, statusText, fields, inbound, url, redirected) => {
      const headers = makeHeaders(fields, "immutable");
      const body = inbound === 0 ? null : new bodies.Body(undefined, new bodies.Arriving(inbound), undefined);
      return new Response(kInternal, newState(status, statusText, headers, null, body, "basic", url, redirected));
    };
    internals.mixinBody(
      Response.prototype,
      (response) => Response.#bodyOf(response.#state),
      (response) => internals.headerValue(Response.#headersOf(response.#state), "content-type") ?? "",
    );
  }
}
defineInterface(Response);

// https://fetch.spec.whatwg.org/#initialize-a-response, without the body
function initialize(state, init) {
  if (typeof init !== "object" && typeof init !== "function") throw new TypeError("Response: init is not an object");
  const { headers, status, statusText } = init;
  if (status !== undefined) {
    const code = toUnsignedShort(status);
    if (code < 200 || code > 599) throw new RangeError(`Response: status must be from 200 to 599, not ${code}`);
    state.status = code;
  }
  if (statusText !== undefined) {
    const text = `${statusText}`;
    if (RegExpPrototypeExec(REASON, text) === null) throw new TypeError("Response: invalid statusText");
    state.statusText = text;
  }
  if (headers !== undefined) {
    state.headers = makeHeaders([], "response");
    internals.fillHeaders(state.headers, headers);
  }
}

internals.exposed.Response = Response;
