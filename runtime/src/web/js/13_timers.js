// setTimeout and friends, https://html.spec.whatwg.org/#timers, and queueMicrotask. The host orders what is due.
"use strict";

const {
  FunctionPrototypeApply, Map, MapPrototypeDelete, MapPrototypeGet, MapPrototypeSet, Number, PromisePrototypeThen,
  PromiseResolve, TypeError,
} = primordials;
const { forgetCompletion, onCompletion, requireArguments } = internals;
const { op_cancel_timer, op_start_timer } = ops;

const timers = new Map(); // timer id -> the completion that it waits for
internals.timers = timers;
let lastId = 0;

const MAX_DELAY_MS = 0x7fffffff;

function delayOf(value) {
  const delay = Number(value);
  // https://webidl.spec.whatwg.org/#es-long: NaN and what does not fit become 0 or less.
  return delay > 0 && delay <= MAX_DELAY_MS ? primordials.MathTrunc(delay) : 0;
}

function start(callback, delay, args, repeat, what) {
  if (typeof callback !== "function") {
    const why = typeof callback === "string" ? "; code from strings is off" : "";
    throw new TypeError(`${what}: the callback is not a function${why}`);
  }
  const id = lastId = lastId % 0x7fffffff + 1;
  const wait = delayOf(delay);
  const arm = () => {
    const completion = op_start_timer(wait);
    MapPrototypeSet(timers, id, completion);
    onCompletion(completion, (failed) => {
      if (failed || MapPrototypeGet(timers, id) !== completion) return;
      if (repeat) {
        try {
          FunctionPrototypeApply(callback, globalThis, args);
        } finally {
          if (MapPrototypeGet(timers, id) === completion) {
            MapPrototypeDelete(timers, id);
            arm();
          }
        }
      } else {
        MapPrototypeDelete(timers, id);
        FunctionPrototypeApply(callback, globalThis, args);
      }
    });
  };
  arm();
  return id;
}

// Global functions are written as methods: such functions are no constructors.
const { setTimeout } = {
  setTimeout(callback, delay = 0, ...args) {
    requireArguments(arguments.length, 1, "setTimeout");
    return start(callback, delay, args, false, "setTimeout");
  },
};

const { setInterval } = {
  setInterval(callback, delay = 0, ...args) {
    requireArguments(arguments.length, 1, "setInterval");
    return start(callback, delay, args, true, "setInterval");
  },
};

function clear(id) {
  const key = Number(id);
  const completion = MapPrototypeGet(timers, key);
  if (completion === undefined) return;
  MapPrototypeDelete(timers, key);
  forgetCompletion(completion);
  op_cancel_timer(completion);
}

const { clearTimeout } = {
  clearTimeout(id = 0) {
    clear(id);
  },
};

const { clearInterval } = {
  clearInterval(id = 0) {
    clear(id);
  },
};

// An exception becomes an unhandled rejection, which the log shows.
const { queueMicrotask } = {
  queueMicrotask(callback) {
    requireArguments(arguments.length, 1, "queueMicrotask");
    if (typeof callback !== "function") throw new TypeError("queueMicrotask: the callback is not a function");
    PromisePrototypeThen(PromiseResolve(undefined), () => {
      callback();
    });
  },
};

// https://html.spec.whatwg.org/#dom-reporterror
const { reportError } = {
  reportError(error) {
    requireArguments(arguments.length, 1, "reportError");
    internals.reportException(error);
  },
};

// For this layer's own use.
internals.startTimer = (delay, callback) => {
  onCompletion(op_start_timer(delay > MAX_DELAY_MS ? MAX_DELAY_MS : delay), (failed) => {
    if (!failed) callback();
  });
};

const functions = { __proto__: null, setTimeout, setInterval, clearTimeout, clearInterval, queueMicrotask, reportError };
internals.functions = functions;
