// AbortController and AbortSignal, https://dom.spec.whatwg.org/#aborting-ongoing-activities
"use strict";

const {
  ArrayPrototypePush, Number, Set, SetPrototypeAdd, SetPrototypeDelete, SetPrototypeForEach, SetPrototypeGetSize,
  TypeError, WeakRef, WeakRefPrototypeDeref,
} = primordials;
internals.need("11_events.js");
const { DOMException, defineInterface, defineHandler, dispatchTrusted, Event, EventTarget } = internals;

const kInternal = { __proto__: null };

class AbortSignal extends EventTarget {
  #aborted = false;
  #reason = undefined;
  #algorithms = undefined; // Set of functions, run once
  #handler = { __proto__: null, value: null, added: false };
  #sources = undefined; // signals that a dependent one follows
  #dependents = undefined; // WeakRefs of the signals that follow this one
  #sweepAt = 16; // at how many dependents the dead ones are taken out
  #listened = false; // whether somebody ever listened with addEventListener
  #kept = undefined; // Set of dependents that somebody listens to: they must not be collected

  constructor(token = undefined) {
    if (token !== kInternal) throw new TypeError("Illegal constructor");
    super();
  }

  static abort(reason = undefined) {
    const signal = new AbortSignal(kInternal);
    signal.#aborted = true;
    signal.#reason = reason === undefined ? abortError() : reason;
    return signal;
  }

  static timeout(milliseconds) {
    internals.requireArguments(arguments.length, 1, "AbortSignal.timeout");
    const delay = Number(milliseconds);
    if (!(delay >= 0 && delay <= 9007199254740991)) {
      throw new TypeError("AbortSignal.timeout: the time must be a number of milliseconds from 0");
    }
    const signal = new AbortSignal(kInternal);
    internals.startTimer(delay, () => AbortSignal.#signal(signal, new DOMException("The operation timed out", "TimeoutError")));
    return signal;
  }

  static any(signals) {
    internals.requireArguments(arguments.length, 1, "AbortSignal.any");
    if (signals === null || typeof signals !== "object") throw new TypeError("AbortSignal.any: not an iterable of signals");
    const method = signals[primordials.SymbolIterator];
    if (typeof method !== "function") throw new TypeError("AbortSignal.any: not an iterable of signals");
    const list = [];
    internals.forOf(signals, method, (signal) => {
      if (!internals.isAbortSignal(signal)) throw new TypeError("AbortSignal.any: not an AbortSignal");
      ArrayPrototypePush(list, signal);
    });
    return AbortSignal.#dependent(list);
  }

  // https://dom.spec.whatwg.org/#create-a-dependent-abort-signal; a dependent signal follows the sources of its sources.
  static #dependent(signals) {
    const result = new AbortSignal(kInternal);
    for (let i = 0; i < signals.length; i++) {
      if (signals[i].#aborted) {
        result.#aborted = true;
        result.#reason = signals[i].#reason;
        return result;
      }
    }
    result.#sources = [];
    for (let i = 0; i < signals.length; i++) {
      const roots = signals[i].#sources ?? [signals[i]];
      for (let r = 0; r < roots.length; r++) {
        ArrayPrototypePush(result.#sources, roots[r]);
        AbortSignal.#follow(roots[r], result);
      }
    }
    return result;
  }

  // A long-lived signal holds those that follow it weakly.
  static #follow(root, dependent) {
    root.#dependents ??= [];
    ArrayPrototypePush(root.#dependents, new WeakRef(dependent));
    if (root.#dependents.length < root.#sweepAt) return;
    const alive = [];
    for (let i = 0; i < root.#dependents.length; i++) {
      if (WeakRefPrototypeDeref(root.#dependents[i]) !== undefined) ArrayPrototypePush(alive, root.#dependents[i]);
    }
    root.#dependents = alive;
    root.#sweepAt = 2 * alive.length + 16;
  }

  static #keep(signal) {
    if (signal.#sources === undefined || signal.#aborted) return;
    for (let i = 0; i < signal.#sources.length; i++) {
      signal.#sources[i].#kept ??= new Set();
      SetPrototypeAdd(signal.#sources[i].#kept, signal);
    }
  }

  static #release(signal) {
    if (signal.#sources === undefined) return;
    for (let i = 0; i < signal.#sources.length; i++) {
      const kept = signal.#sources[i].#kept;
      if (kept !== undefined) SetPrototypeDelete(kept, signal);
    }
  }

  static #add(signal, algorithm) {
    if (signal.#aborted) return;
    signal.#algorithms ??= new Set();
    SetPrototypeAdd(signal.#algorithms, algorithm);
    AbortSignal.#keep(signal);
  }

  // https://dom.spec.whatwg.org/#abortsignal-signal-abort
  static #signal(signal, reason) {
    if (signal.#aborted) return;
    signal.#aborted = true;
    signal.#reason = reason === undefined ? abortError() : reason;
    const algorithms = signal.#algorithms;
    signal.#algorithms = undefined;
    AbortSignal.#release(signal);
    signal.#sources = undefined;
    if (algorithms !== undefined) SetPrototypeForEach(algorithms, (algorithm) => algorithm());
    dispatchTrusted(signal, new Event("abort"));
    const dependents = signal.#dependents;
    signal.#dependents = signal.#kept = undefined;
    if (dependents === undefined) return;
    for (let i = 0; i < dependents.length; i++) {
      const dependent = WeakRefPrototypeDeref(dependents[i]);
      if (dependent !== undefined) AbortSignal.#signal(dependent, signal.#reason);
    }
  }

  get aborted() {
    return this.#aborted;
  }

  get reason() {
    return this.#reason;
  }

  throwIfAborted() {
    if (this.#aborted) throw this.#reason;
  }

  static {
    defineHandler(AbortSignal.prototype, "onabort", "abort", (signal) => signal.#handler);
    internals.keepSignal = (target) => {
      if (!(#aborted in target)) return;
      target.#listened = true;
      AbortSignal.#keep(target);
    };
    internals.newAbortSignal = () => new AbortSignal(kInternal);
    internals.dependentSignal = (signals) => AbortSignal.#dependent(signals);
    internals.signalAbort = (signal, reason) => AbortSignal.#signal(signal, reason);
    internals.isAbortSignal = (value) => typeof value === "object" && value !== null && #aborted in value;
    internals.isAborted = (signal) => signal.#aborted;
    internals.abortReason = (signal) => signal.#reason;
    internals.onAbort = (signal, algorithm) => AbortSignal.#add(signal, algorithm);
    internals.offAbort = (signal, algorithm) => {
      if (signal.#algorithms === undefined) return;
      SetPrototypeDelete(signal.#algorithms, algorithm);
      if (SetPrototypeGetSize(signal.#algorithms) === 0 && !signal.#listened) AbortSignal.#release(signal);
    };
  }
}
defineInterface(AbortSignal);

function abortError() {
  return new DOMException("The operation was aborted", "AbortError");
}

class AbortController {
  #signal = new AbortSignal(kInternal);

  get signal() {
    return this.#signal;
  }

  abort(reason = undefined) {
    internals.signalAbort(this.#signal, reason);
  }
}
defineInterface(AbortController);

internals.exposed.AbortSignal = AbortSignal;
internals.exposed.AbortController = AbortController;
