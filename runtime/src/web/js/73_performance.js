// performance on the host's clock, https://w3c.github.io/hr-time/#the-performance-interface
"use strict";

const { TypeError } = primordials;
const { op_elapsed, op_now } = ops;
internals.need("11_events.js");

const kInternal = { __proto__: null };

class Performance extends internals.EventTarget {
  #brand = true;

  constructor(token = undefined) {
    if (token !== kInternal) throw new TypeError("Illegal constructor");
    super();
  }

  now() {
    this.#brand;
    return op_elapsed();
  }

  get timeOrigin() {
    this.#brand;
    return op_now() - op_elapsed();
  }

  toJSON() {
    return { timeOrigin: this.timeOrigin };
  }
}
internals.defineInterface(Performance);
internals.exposed.Performance = Performance;
internals.exposed.performance = new Performance(kInternal);
