// Headers, https://fetch.spec.whatwg.org/#headers-class. A list is kept flat: name, value, name, value; names in lower
// case. Fields of an arriving message come as one string, "name\nvalue\nname\nvalue", and are split on first use.
"use strict";

const {
  ArrayPrototypeJoin, ArrayPrototypePush, ArrayPrototypeSort, ArrayPrototypeSplice, FunctionPrototypeCall,
  IteratorPrototype, Map, MapPrototypeGet, MapPrototypeSet, ObjectCreate, ObjectDefineProperty,
  ReflectGetOwnPropertyDescriptor, ReflectOwnKeys, RegExpPrototypeExec, StringPrototypeCharCodeAt,
  StringPrototypeSlice, StringPrototypeSplit, StringPrototypeToLowerCase, SymbolIterator, TypeError,
} = primordials;
const { defineInterface, requireArguments } = internals;

const TOKEN = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;
const BAD_VALUE = /[\0\r\n]|[^\x00-\xff]/;

// https://webidl.spec.whatwg.org/#es-ByteString, then https://fetch.spec.whatwg.org/#header-name
function normalizeName(name) {
  const text = `${name}`;
  if (RegExpPrototypeExec(TOKEN, text) === null) throw new TypeError(`Invalid header name: ${quote(text)}`);
  return StringPrototypeToLowerCase(text);
}

// https://fetch.spec.whatwg.org/#concept-header-value-normalize
function normalizeValue(value, name) {
  const text = `${value}`;
  let start = 0;
  let end = text.length;
  while (start < end && isHttpSpace(StringPrototypeCharCodeAt(text, start))) start++;
  while (end > start && isHttpSpace(StringPrototypeCharCodeAt(text, end - 1))) end--;
  const trimmed = start === 0 && end === text.length ? text : StringPrototypeSlice(text, start, end);
  if (RegExpPrototypeExec(BAD_VALUE, trimmed) !== null) throw new TypeError(`Invalid value of header ${quote(name)}`);
  return trimmed;
}

function isHttpSpace(code) {
  return code === 0x20 || code === 0x09 || code === 0x0a || code === 0x0d;
}

function quote(text) {
  return text.length > 64 ? `"${StringPrototypeSlice(text, 0, 64)}\u2026"` : `"${text}"`;
}

function splitRaw(raw) {
  if (raw === "") return [];
  return StringPrototypeSplit(raw, "\n");
}

function combined(list, name) {
  let result = null;
  for (let i = 0; i < list.length; i += 2) {
    if (list[i] === name) result = result === null ? list[i + 1] : `${result}, ${list[i + 1]}`;
  }
  return result;
}

// https://fetch.spec.whatwg.org/#concept-header-list-sort-and-combine
function sortAndCombine(list) {
  const values = new Map();
  const names = [];
  for (let i = 0; i < list.length; i += 2) {
    const name = list[i];
    const value = MapPrototypeGet(values, name);
    if (value === undefined) ArrayPrototypePush(names, name);
    MapPrototypeSet(values, name, value === undefined ? list[i + 1] : `${value}, ${list[i + 1]}`);
  }
  ArrayPrototypeSort(names);
  const entries = [];
  for (let n = 0; n < names.length; n++) {
    const name = names[n];
    if (name === "set-cookie") {
      for (let i = 0; i < list.length; i += 2) if (list[i] === name) ArrayPrototypePush(entries, [name, list[i + 1]]);
    } else {
      ArrayPrototypePush(entries, [name, MapPrototypeGet(values, name)]);
    }
  }
  return entries;
}

class Headers {
  #list; // flat array, or a string not yet split
  #sorted = undefined; // what iteration gives, until the list changes
  #guard; // "none", "request", "response" or "immutable"

  constructor(init = undefined) {
    if (init === kInternal) {
      this.#list = makeList;
      this.#guard = makeGuard;
      makeList = undefined;
      return;
    }
    this.#list = [];
    this.#guard = "none";
    if (init !== undefined) fill(this, init);
  }

  static #read(headers) {
    if (typeof headers.#list === "string") headers.#list = splitRaw(headers.#list);
    return headers.#list;
  }

  static #write(headers) {
    if (headers.#guard === "immutable") throw new TypeError("These headers are immutable; copy them with new Headers(headers)");
    headers.#sorted = undefined;
    return Headers.#read(headers);
  }

  append(name, value) {
    requireArguments(arguments.length, 2, "Headers.append");
    const key = normalizeName(name);
    const text = normalizeValue(value, key);
    ArrayPrototypePush(Headers.#write(this), key, text);
  }

  delete(name) {
    requireArguments(arguments.length, 1, "Headers.delete");
    const key = normalizeName(name);
    const list = Headers.#write(this);
    for (let i = list.length - 2; i >= 0; i -= 2) if (list[i] === key) ArrayPrototypeSplice(list, i, 2);
  }

  get(name) {
    requireArguments(arguments.length, 1, "Headers.get");
    return combined(Headers.#read(this), normalizeName(name));
  }

  getSetCookie() {
    const list = Headers.#read(this);
    const cookies = [];
    for (let i = 0; i < list.length; i += 2) if (list[i] === "set-cookie") ArrayPrototypePush(cookies, list[i + 1]);
    return cookies;
  }

  has(name) {
    requireArguments(arguments.length, 1, "Headers.has");
    const key = normalizeName(name);
    const list = Headers.#read(this);
    for (let i = 0; i < list.length; i += 2) if (list[i] === key) return true;
    return false;
  }

  set(name, value) {
    requireArguments(arguments.length, 2, "Headers.set");
    const key = normalizeName(name);
    const text = normalizeValue(value, key);
    const list = Headers.#write(this);
    let found = false;
    for (let i = 0; i < list.length; i += 2) {
      if (list[i] !== key) continue;
      if (!found) {
        list[i + 1] = text;
        found = true;
      } else {
        ArrayPrototypeSplice(list, i, 2);
        i -= 2;
      }
    }
    if (!found) ArrayPrototypePush(list, key, text);
  }

  forEach(callback, thisArg = undefined) {
    requireArguments(arguments.length, 1, "Headers.forEach");
    if (typeof callback !== "function") throw new TypeError("Headers.forEach: the callback is not a function");
    for (let index = 0;; index++) {
      const entry = internals.headersEntry(this, index);
      if (entry === undefined) return;
      FunctionPrototypeCall(callback, thisArg, entry[1], entry[0], this);
    }
  }

  entries() {
    Headers.#read(this);
    return makeIterator(this, "entries");
  }

  keys() {
    Headers.#read(this);
    return makeIterator(this, "keys");
  }

  values() {
    Headers.#read(this);
    return makeIterator(this, "values");
  }

  static {
    internals.isHeaders = (value) => typeof value === "object" && value !== null && #list in value;
    internals.headersEntry = (headers, index) => {
      headers.#sorted ??= sortAndCombine(Headers.#read(headers));
      return index < headers.#sorted.length ? headers.#sorted[index] : undefined;
    };
    internals.headersList = (headers) => Headers.#read(headers);
    // Arriving fields not looked at yet need no splitting to be passed on.
    internals.headersRaw = (headers) =>
      typeof headers.#list === "string" ? headers.#list : ArrayPrototypeJoin(headers.#list, "\n");
  }
}
ObjectDefineProperty(Headers.prototype, SymbolIterator, {
  __proto__: null, value: Headers.prototype.entries, writable: true, configurable: true,
});
defineInterface(Headers);

const kInternal = { __proto__: null };
let makeList;
let makeGuard;

// Headers from a flat list or a string of arriving fields.
internals.makeHeaders = (list, guard) => {
  makeList = list;
  makeGuard = guard;
  return new Headers(kInternal);
};

// https://webidl.spec.whatwg.org/#js-default-iterator-object, live: entryAt(target, index) gives a pair or undefined.
internals.pairIterator = (tag, entryAt) => {
  const NEXT = { __proto__: null };
  class PairIterator {
    #target = NEXT.target;
    #kind = NEXT.kind;
    #index = 0;

    next() {
      const entry = entryAt(this.#target, this.#index);
      if (entry === undefined) return { value: undefined, done: true };
      this.#index++;
      const value = this.#kind === "keys" ? entry[0] : this.#kind === "values" ? entry[1] : [entry[0], entry[1]];
      return { value, done: false };
    }
  }
  const prototype = ObjectCreate(IteratorPrototype);
  const { next } = PairIterator.prototype;
  ObjectDefineProperty(prototype, "next", {
    __proto__: null, value: next, writable: true, enumerable: true, configurable: true,
  });
  ObjectDefineProperty(prototype, primordials.SymbolToStringTag, {
    __proto__: null, value: `${tag} Iterator`, configurable: true,
  });
  return (target, kind) => {
    NEXT.target = target;
    NEXT.kind = kind;
    const iterator = new PairIterator();
    NEXT.target = undefined;
    primordials.ObjectSetPrototypeOf(iterator, prototype);
    return iterator;
  };
};
const makeIterator = internals.pairIterator("Headers", internals.headersEntry);

// https://webidl.spec.whatwg.org/#js-union: a sequence of pairs if iterable, else a record.
// Calls add(name, value) for each.
internals.forEachPair = (init, add, what) => {
  if (init === null || (typeof init !== "object" && typeof init !== "function")) {
    throw new TypeError(`${what}: expected an object, an array of pairs or an iterable`);
  }
  const method = init[SymbolIterator];
  if (method !== undefined && method !== null) {
    if (typeof method !== "function") throw new TypeError(`${what}: the argument is not iterable`);
    forOf(init, method, (pair) => {
      if (pair === null || (typeof pair !== "object" && typeof pair !== "function")) {
        throw new TypeError(`${what}: each entry must be a pair`);
      }
      const items = [];
      const inner = pair[SymbolIterator];
      if (typeof inner !== "function") throw new TypeError(`${what}: each entry must be a pair`);
      forOf(pair, inner, (item) => {
        if (items.length >= 2) throw new TypeError(`${what}: each entry must be a pair of two`);
        ArrayPrototypePush(items, item);
      });
      if (items.length !== 2) throw new TypeError(`${what}: each entry must be a pair of two`);
      add(items[0], items[1]);
    });
    return;
  }
  const keys = ReflectOwnKeys(init);
  for (let i = 0; i < keys.length; i++) {
    const key = keys[i];
    const descriptor = ReflectGetOwnPropertyDescriptor(init, key);
    if (descriptor === undefined || !descriptor.enumerable) continue;
    if (typeof key === "symbol") throw new TypeError(`${what}: a symbol is no name`);
    add(key, init[key]);
  }
};

// for...of over an iterator method already looked up, without touching patched prototypes of this layer's own.
function forOf(iterable, method, each) {
  const iterator = FunctionPrototypeCall(method, iterable);
  if (iterator === null || typeof iterator !== "object") throw new TypeError("The iterator is not an object");
  const { next } = iterator;
  for (;;) {
    const step = FunctionPrototypeCall(next, iterator);
    if (step === null || typeof step !== "object") throw new TypeError("The iterator's result is not an object");
    if (step.done) return;
    try {
      each(step.value);
    } catch (error) {
      try {
        const close = iterator.return;
        if (typeof close === "function") FunctionPrototypeCall(close, iterator);
      } catch {
        // The first error counts.
      }
      throw error;
    }
  }
}
internals.forOf = forOf;

// https://fetch.spec.whatwg.org/#concept-headers-fill
function fill(headers, init) {
  if (internals.isHeaders(init)) {
    const entries = internals.headersList(init);
    const list = internals.headersList(headers);
    for (let i = 0; i < entries.length; i++) ArrayPrototypePush(list, entries[i]);
    return;
  }
  const list = internals.headersList(headers);
  internals.forEachPair(init, (name, value) => {
    const key = normalizeName(name);
    ArrayPrototypePush(list, key, normalizeValue(value, key));
  }, "Headers");
}
internals.fillHeaders = fill;
internals.headersHas = (headers, name) => combined(internals.headersList(headers), name) !== null;

internals.exposed.Headers = Headers;
internals.headerValue = (headers, name) => combined(internals.headersList(headers), name);
internals.appendHeader = (headers, name, value) => {
  ArrayPrototypePush(internals.headersList(headers), name, value);
};
