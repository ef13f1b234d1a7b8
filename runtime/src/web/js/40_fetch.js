// fetch(), https://fetch.spec.whatwg.org/#fetch-method; redirects are followed by the host, which checks each of them.
"use strict";

const { PromiseWithResolvers, TypeError } = primordials;
const {
  abortReason, arrivingResponse, body: bodies, exposed, headersRaw, isAborted, offAbort, onAbort, pumpArriving, pumpStream,
  requestState, streams,
} = internals;
const { op_abort_fetch, op_fetch, op_url_parts } = ops;

const { Request } = exposed;
const REDIRECT = { __proto__: null, follow: 0, error: 1, manual: 2 };

const { fetch } = {
  fetch(input, init = undefined) {
    const { promise, resolve, reject } = PromiseWithResolvers();
    try {
      internals.requireArguments(arguments.length, 1, "fetch");
      begin(new Request(input, init), resolve, reject);
    } catch (error) {
      reject(error);
    }
    return promise;
  },
};

function begin(request, resolve, reject) {
  const state = requestState(request);
  const signal = state.follows;
  if (signal !== undefined && isAborted(signal)) {
    cancelBody(state.body, abortReason(signal));
    reject(abortReason(signal));
    return;
  }
  const protocol = op_url_parts(state.url)[0];
  if (protocol !== "http:" && protocol !== "https:") {
    throw new TypeError(`fetch: only http and https are supported, not ${protocol}`);
  }
  const { body } = state;
  const whole = body === null ? null : body.stream === undefined && body.inbound === null ? body.source : undefined;
  const handle = op_fetch(state.method, state.url, headersRaw(state.headers), whole, REDIRECT[state.redirect]);
  const completion = handle[0];
  const writer = handle[1];
  const upload = { __proto__: null, cancel: undefined };
  if (whole === undefined && body !== null) {
    if (writer === 0) cancelBody(body, undefined);
    else if (body.stream === undefined) {
      const { inbound } = body;
      body.used = true;
      pumpArriving(writer, upload, inbound, () => {});
    } else {
      pumpStream(writer, upload, body.stream, () => {});
    }
  } else if (body !== null) {
    body.used = true;
  }

  let arriving = null;
  let settled = false;
  const abort = () => {
    const reason = abortReason(signal);
    if (!settled) {
      settled = true;
      internals.forgetCompletion(completion);
      op_abort_fetch(completion);
      reject(reason);
    }
    if (upload.cancel !== undefined) upload.cancel(reason);
    if (arriving !== null) bodies.failArriving(arriving, reason);
  };
  if (signal !== undefined) onAbort(signal, abort);
  internals.onCompletion(completion, (failed, value) => {
    settled = true;
    if (failed) {
      if (signal !== undefined) offAbort(signal, abort);
      if (upload.cancel !== undefined) upload.cancel(value);
      reject(value);
      return;
    }
    const inbound = value[3];
    const response = arrivingResponse(value[0], value[1], value[2], inbound, value[4], value[5]);
    if (inbound === 0) {
      if (signal !== undefined) offAbort(signal, abort);
    } else {
      arriving = internals.responseState(response).body.inbound;
      if (signal !== undefined) arriving.end = () => offAbort(signal, abort);
    }
    resolve(response);
  });
}

function cancelBody(body, reason) {
  if (body === null) return;
  if (body.stream !== undefined) {
    if (!streams.isLocked(body.stream)) streams.cancel(body.stream, reason);
  } else if (body.inbound !== null) {
    body.used = true;
    bodies.failArriving(body.inbound, reason ?? new TypeError("Nobody reads the body any more"));
  }
}

// Of a URL's parts (34_url.js): user name and password.
internals.urlHasCredentials = (href) => {
  const parts = op_url_parts(href);
  return parts[1] !== "" || parts[2] !== "";
};

internals.functions.fetch = fetch;
