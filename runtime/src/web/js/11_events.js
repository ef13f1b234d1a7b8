// Event, CustomEvent, EventTarget, https://dom.spec.whatwg.org/#events, without a tree: a target has no parent.
"use strict";

const {
  ArrayPrototypePush, ArrayPrototypeSlice, ArrayPrototypeSplice, Boolean, FunctionPrototypeCall, Map,
  MapPrototypeDelete, MapPrototypeGet, MapPrototypeSet, ObjectDefineProperty, TypeError,
} = primordials;
const { defineInterface, requireArguments, reportException, DOMException } = internals;
const { op_elapsed } = ops;

let dispatchTo; // (event, target) -> prepares an event
let finish;
let setTrusted;
let innerFlags;

class Event {
  #type;
  #bubbles = false;
  #cancelable = false;
  #composed = false;
  #target = null;
  #current = null;
  #phase = 0;
  #canceled = false;
  #stop = false;
  #stopNow = false;
  #passive = false;
  #dispatching = false;
  #trusted = false;
  #time;

  constructor(type, init = undefined) {
    requireArguments(arguments.length, 1, "Event");
    this.#type = `${type}`;
    if (init !== undefined && init !== null) {
      if (typeof init !== "object" && typeof init !== "function") throw new TypeError("Event: init is not an object");
      this.#bubbles = Boolean(init.bubbles);
      this.#cancelable = Boolean(init.cancelable);
      this.#composed = Boolean(init.composed);
    }
    this.#time = op_elapsed();
  }

  get type() {
    return this.#type;
  }

  get target() {
    return this.#target;
  }

  get srcElement() {
    return this.#target;
  }

  get currentTarget() {
    return this.#current;
  }

  composedPath() {
    return this.#current === null ? [] : [this.#current];
  }

  get eventPhase() {
    return this.#phase;
  }

  stopPropagation() {
    this.#stop = true;
  }

  get cancelBubble() {
    return this.#stop;
  }

  set cancelBubble(value) {
    if (value) this.#stop = true;
  }

  stopImmediatePropagation() {
    this.#stop = true;
    this.#stopNow = true;
  }

  get bubbles() {
    return this.#bubbles;
  }

  get cancelable() {
    return this.#cancelable;
  }

  get returnValue() {
    return !this.#canceled;
  }

  set returnValue(value) {
    if (!value) this.preventDefault();
  }

  preventDefault() {
    if (this.#cancelable && !this.#passive) this.#canceled = true;
  }

  get defaultPrevented() {
    return this.#canceled;
  }

  get composed() {
    return this.#composed;
  }

  get isTrusted() {
    return this.#trusted;
  }

  get timeStamp() {
    return this.#time;
  }

  initEvent(type, bubbles = false, cancelable = false) {
    if (this.#dispatching) return;
    this.#stop = this.#stopNow = this.#canceled = false;
    this.#type = `${type}`;
    this.#bubbles = Boolean(bubbles);
    this.#cancelable = Boolean(cancelable);
  }

  static {
    dispatchTo = (event, target) => {
      if (typeof event !== "object" || event === null || !(#type in event)) {
        throw new TypeError("dispatchEvent: the argument is not an Event");
      }
      if (event.#dispatching) throw new DOMException("The event is being dispatched already", "InvalidStateError");
      event.#dispatching = true;
      event.#target = target;
      event.#current = target;
      event.#phase = 2;
    };
    finish = (event) => {
      event.#dispatching = false;
      event.#current = null;
      event.#phase = 0;
      event.#stop = event.#stopNow = false;
      return !event.#canceled;
    };
    setTrusted = (event) => {
      event.#trusted = true;
      return event;
    };
    innerFlags = {
      __proto__: null,
      type: (event) => event.#type,
      stopped: (event) => event.#stopNow,
      passive: (event, value) => {
        event.#passive = value;
      },
    };
  }
}
defineInterface(Event);
const PHASES = ["NONE", "CAPTURING_PHASE", "AT_TARGET", "BUBBLING_PHASE"];
for (let i = 0; i < PHASES.length; i++) {
  ObjectDefineProperty(Event, PHASES[i], { __proto__: null, value: i, enumerable: true });
  ObjectDefineProperty(Event.prototype, PHASES[i], { __proto__: null, value: i, enumerable: true });
}

class CustomEvent extends Event {
  #detail = null;

  constructor(type, init = undefined) {
    requireArguments(arguments.length, 1, "CustomEvent");
    super(type, init);
    if (init !== undefined && init !== null && init.detail !== undefined) this.#detail = init.detail;
  }

  get detail() {
    return this.#detail;
  }
}
defineInterface(CustomEvent);

class EventTarget {
  #listeners = undefined; // Map of type -> array of { callback, capture, once, passive, signal, removed }

  addEventListener(type, callback, options = undefined) {
    requireArguments(arguments.length, 2, "addEventListener");
    this.#listeners;
    const flat = flatten(options);
    if (callback === null || callback === undefined) return;
    if (typeof callback !== "function" && typeof callback !== "object") {
      throw new TypeError("addEventListener: the listener is neither a function nor an object");
    }
    const { signal } = flat;
    if (signal !== undefined) {
      if (!internals.isAbortSignal(signal)) throw new TypeError("addEventListener: signal is not an AbortSignal");
      if (internals.isAborted(signal)) return;
    }
    this.#listeners ??= new Map();
    const key = `${type}`;
    let list = MapPrototypeGet(this.#listeners, key);
    if (list === undefined) MapPrototypeSet(this.#listeners, key, list = []);
    for (let i = 0; i < list.length; i++) {
      if (list[i].callback === callback && list[i].capture === flat.capture) return;
    }
    const listener = { __proto__: null, callback, capture: flat.capture, once: flat.once, passive: flat.passive, removed: false };
    ArrayPrototypePush(list, listener);
    internals.keepSignal(this);
    if (signal !== undefined) internals.onAbort(signal, () => EventTarget.#remove(this, key, listener));
  }

  removeEventListener(type, callback, options = undefined) {
    requireArguments(arguments.length, 2, "removeEventListener");
    const capture = typeof options === "object" && options !== null ? Boolean(options.capture) : Boolean(options);
    if (this.#listeners === undefined) return;
    const key = `${type}`;
    const list = MapPrototypeGet(this.#listeners, key);
    if (list === undefined) return;
    for (let i = 0; i < list.length; i++) {
      if (list[i].callback === callback && list[i].capture === capture) {
        EventTarget.#remove(this, key, list[i]);
        return;
      }
    }
  }

  dispatchEvent(event) {
    requireArguments(arguments.length, 1, "dispatchEvent");
    this.#listeners;
    return EventTarget.#dispatch(this, event);
  }

  static #remove(target, key, listener) {
    listener.removed = true;
    const list = MapPrototypeGet(target.#listeners, key);
    if (list === undefined) return;
    for (let i = 0; i < list.length; i++) {
      if (list[i] === listener) {
        ArrayPrototypeSplice(list, i, 1);
        break;
      }
    }
    if (list.length === 0) MapPrototypeDelete(target.#listeners, key);
  }

  // https://dom.spec.whatwg.org/#concept-event-dispatch
  static #dispatch(target, event) {
    dispatchTo(event, target);
    const key = innerFlags.type(event);
    const list = target.#listeners === undefined ? undefined : MapPrototypeGet(target.#listeners, key);
    if (list !== undefined) {
      const now = ArrayPrototypeSlice(list);
      // Capturing listeners come first.
      for (let round = 0; round < 2; round++) {
        for (let i = 0; i < now.length && !innerFlags.stopped(event); i++) {
          const listener = now[i];
          if (listener.removed || listener.capture !== (round === 0)) continue;
          if (listener.once) EventTarget.#remove(target, key, listener);
          innerFlags.passive(event, listener.passive);
          try {
            const { callback } = listener;
            if (typeof callback === "function") FunctionPrototypeCall(callback, target, event);
            else {
              const { handleEvent } = callback;
              if (typeof handleEvent !== "function") throw new TypeError("The listener's handleEvent is not a function");
              FunctionPrototypeCall(handleEvent, callback, event);
            }
          } catch (error) {
            reportException(error);
          }
          innerFlags.passive(event, false);
        }
      }
    }
    return finish(event);
  }

  static {
    internals.dispatchTrusted = (target, event) => EventTarget.#dispatch(target, setTrusted(event));
  }
}
defineInterface(EventTarget);

// https://dom.spec.whatwg.org/#event-flatten-more
function flatten(options) {
  if (typeof options !== "object" || options === null) {
    return { __proto__: null, capture: Boolean(options), once: false, passive: false, signal: undefined };
  }
  const { capture, once, passive, signal } = options;
  return { __proto__: null, capture: Boolean(capture), once: Boolean(once), passive: Boolean(passive), signal };
}

// An onfoo attribute: a listener that keeps its place and can be exchanged.
internals.defineHandler = (prototype, name, type, slotOf) => {
  ObjectDefineProperty(prototype, name, {
    __proto__: null,
    configurable: true,
    enumerable: true,
    get() {
      return slotOf(this).value;
    },
    set(value) {
      const slot = slotOf(this);
      const isHandler = typeof value === "function" || (typeof value === "object" && value !== null);
      slot.value = isHandler ? value : null;
      if (slot.value !== null && !slot.added) {
        slot.added = true;
        addListener(this, type, (event) => {
          if (typeof slot.value === "function") FunctionPrototypeCall(slot.value, this, event);
        });
      }
    },
  });
};
const addListener = primordials.uncurryThis(EventTarget.prototype.addEventListener);

internals.EventTarget = EventTarget;
internals.Event = Event;
internals.exposed.Event = Event;
internals.exposed.CustomEvent = CustomEvent;
internals.exposed.EventTarget = EventTarget;
