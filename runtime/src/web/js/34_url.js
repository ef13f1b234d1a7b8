// URL and URLSearchParams, https://url.spec.whatwg.org/#api. Parsing is crate url's; components are asked for once.
"use strict";

const {
  ArrayPrototypePush, ArrayPrototypeSort, ArrayPrototypeSplice, FunctionPrototypeCall, ObjectDefineProperty,
  RegExpPrototypeExec, StringPrototypeCharCodeAt, StringPrototypeIndexOf, StringPrototypeSlice,
  StringPrototypeToWellFormed, SymbolIterator, TypeError,
} = primordials;
const { defineInterface, forEachPair, requireArguments } = internals;
const { op_form_decode, op_form_encode, op_url_parse, op_url_parts, op_url_set } = ops;

const PROTOCOL = 0, USERNAME = 1, PASSWORD = 2, HOST = 3, HOSTNAME = 4, PORT = 5, PATHNAME = 6, SEARCH = 7, HASH = 8, ORIGIN = 9;

const PLAIN_IN = /^[^%+\ud800-\udfff]*$/;
const PLAIN_OUT = /^[a-zA-Z0-9*\-._]*$/;

let listOf;
let linkTo;
let reload;

class URLSearchParams {
  #list; // flat: name, value, name, value
  #url = undefined;

  constructor(init = undefined) {
    this.#list = [];
    if (init === undefined) return;
    if ((typeof init === "object" && init !== null) || typeof init === "function") {
      if (#list in init && init[SymbolIterator] === URLSearchParams.prototype[SymbolIterator]) {
        const list = init.#list;
        for (let i = 0; i < list.length; i++) ArrayPrototypePush(this.#list, list[i]);
        return;
      }
      forEachPair(init, (name, value) => ArrayPrototypePush(this.#list, text(name), text(value)), "URLSearchParams");
      return;
    }
    const string = `${init}`;
    this.#list = parseForm(StringPrototypeCharCodeAt(string, 0) === 0x3f ? StringPrototypeSlice(string, 1) : string);
  }

  get size() {
    return this.#list.length / 2;
  }

  append(name, value) {
    requireArguments(arguments.length, 2, "URLSearchParams.append");
    ArrayPrototypePush(this.#list, text(name), text(value));
    this.#update();
  }

  delete(name, value = undefined) {
    requireArguments(arguments.length, 1, "URLSearchParams.delete");
    const list = this.#list;
    const key = text(name);
    const only = value === undefined ? undefined : text(value);
    for (let i = list.length - 2; i >= 0; i -= 2) {
      if (list[i] === key && (only === undefined || list[i + 1] === only)) ArrayPrototypeSplice(list, i, 2);
    }
    this.#update();
  }

  get(name) {
    requireArguments(arguments.length, 1, "URLSearchParams.get");
    const list = this.#list;
    const key = text(name);
    for (let i = 0; i < list.length; i += 2) if (list[i] === key) return list[i + 1];
    return null;
  }

  getAll(name) {
    requireArguments(arguments.length, 1, "URLSearchParams.getAll");
    const list = this.#list;
    const key = text(name);
    const values = [];
    for (let i = 0; i < list.length; i += 2) if (list[i] === key) ArrayPrototypePush(values, list[i + 1]);
    return values;
  }

  has(name, value = undefined) {
    requireArguments(arguments.length, 1, "URLSearchParams.has");
    const list = this.#list;
    const key = text(name);
    const only = value === undefined ? undefined : text(value);
    for (let i = 0; i < list.length; i += 2) {
      if (list[i] === key && (only === undefined || list[i + 1] === only)) return true;
    }
    return false;
  }

  set(name, value) {
    requireArguments(arguments.length, 2, "URLSearchParams.set");
    const list = this.#list;
    const key = text(name);
    const data = text(value);
    let found = false;
    for (let i = 0; i < list.length; i += 2) {
      if (list[i] !== key) continue;
      if (!found) {
        list[i + 1] = data;
        found = true;
      } else {
        ArrayPrototypeSplice(list, i, 2);
        i -= 2;
      }
    }
    if (!found) ArrayPrototypePush(list, key, data);
    this.#update();
  }

  // Stable, by UTF-16 code units of the names.
  sort() {
    const list = this.#list;
    const pairs = [];
    for (let i = 0; i < list.length; i += 2) ArrayPrototypePush(pairs, [list[i], list[i + 1]]);
    ArrayPrototypeSort(pairs, (a, b) => a[0] < b[0] ? -1 : a[0] > b[0] ? 1 : 0);
    for (let i = 0; i < pairs.length; i++) {
      list[2 * i] = pairs[i][0];
      list[2 * i + 1] = pairs[i][1];
    }
    this.#update();
  }

  forEach(callback, thisArg = undefined) {
    requireArguments(arguments.length, 1, "URLSearchParams.forEach");
    if (typeof callback !== "function") throw new TypeError("URLSearchParams.forEach: the callback is not a function");
    const list = this.#list;
    for (let i = 0; i < list.length; i += 2) FunctionPrototypeCall(callback, thisArg, list[i + 1], list[i], this);
  }

  entries() {
    this.#list;
    return makeIterator(this, "entries");
  }

  keys() {
    this.#list;
    return makeIterator(this, "keys");
  }

  values() {
    this.#list;
    return makeIterator(this, "values");
  }

  toString() {
    return serializeForm(this.#list);
  }

  #update() {
    if (this.#url !== undefined) reload(this.#url, serializeForm(this.#list));
  }

  static {
    internals.isURLSearchParams = (value) => #list in value;
    internals.searchParamsText = (params) => serializeForm(params.#list);
    listOf = (params) => params.#list;
    // The params of a URL: its list is replaced when the URL's query changes.
    linkTo = (params, url, query) => {
      params.#url = url;
      params.#list = parseForm(query);
    };
  }
}
ObjectDefineProperty(URLSearchParams.prototype, SymbolIterator, {
  __proto__: null, value: URLSearchParams.prototype.entries, writable: true, configurable: true,
});
defineInterface(URLSearchParams);

const makeIterator = internals.pairIterator("URLSearchParams", (params, index) => {
  const list = listOf(params);
  return 2 * index < list.length ? [list[2 * index], list[2 * index + 1]] : undefined;
});

function text(value) {
  return StringPrototypeToWellFormed(`${value}`);
}

class URL {
  #href;
  #parts = undefined;
  #params = undefined;

  constructor(url, base = undefined) {
    requireArguments(arguments.length, 1, "URL");
    const input = `${url}`;
    const href = op_url_parse(input, base === undefined ? undefined : `${base}`);
    if (href === null) throw new TypeError(`Invalid URL: ${input}`);
    this.#href = href;
  }

  static canParse(url, base = undefined) {
    requireArguments(arguments.length, 1, "URL.canParse");
    return op_url_parse(`${url}`, base === undefined ? undefined : `${base}`) !== null;
  }

  static parse(url, base = undefined) {
    requireArguments(arguments.length, 1, "URL.parse");
    const href = op_url_parse(`${url}`, base === undefined ? undefined : `${base}`);
    return href === null ? null : new URL(href);
  }

  static #part(url, index) {
    return (url.#parts ??= op_url_parts(url.#href))[index];
  }

  static #set(url, index, value) {
    const href = op_url_set(url.#href, index, `${value}`);
    if (href === null) return;
    url.#href = href;
    url.#parts = undefined;
  }

  static #relink(url) {
    if (url.#params !== undefined) linkTo(url.#params, url, queryOf(URL.#part(url, SEARCH)));
  }

  get href() {
    return this.#href;
  }

  set href(value) {
    this.#href;
    const href = op_url_parse(`${value}`, undefined);
    if (href === null) throw new TypeError(`Invalid URL: ${value}`);
    this.#href = href;
    this.#parts = undefined;
    URL.#relink(this);
  }

  get origin() {
    return URL.#part(this, ORIGIN);
  }

  get protocol() {
    return URL.#part(this, PROTOCOL);
  }

  set protocol(value) {
    URL.#set(this, PROTOCOL, value);
  }

  get username() {
    return URL.#part(this, USERNAME);
  }

  set username(value) {
    URL.#set(this, USERNAME, value);
  }

  get password() {
    return URL.#part(this, PASSWORD);
  }

  set password(value) {
    URL.#set(this, PASSWORD, value);
  }

  get host() {
    return URL.#part(this, HOST);
  }

  set host(value) {
    URL.#set(this, HOST, value);
  }

  get hostname() {
    return URL.#part(this, HOSTNAME);
  }

  set hostname(value) {
    URL.#set(this, HOSTNAME, value);
  }

  get port() {
    return URL.#part(this, PORT);
  }

  set port(value) {
    URL.#set(this, PORT, value);
  }

  get pathname() {
    return URL.#part(this, PATHNAME);
  }

  set pathname(value) {
    URL.#set(this, PATHNAME, value);
  }

  get search() {
    return URL.#part(this, SEARCH);
  }

  set search(value) {
    URL.#set(this, SEARCH, value);
    URL.#relink(this);
  }

  get searchParams() {
    if (this.#params === undefined) {
      const params = new URLSearchParams();
      linkTo(params, this, queryOf(URL.#part(this, SEARCH)));
      this.#params = params;
    }
    return this.#params;
  }

  get hash() {
    return URL.#part(this, HASH);
  }

  set hash(value) {
    URL.#set(this, HASH, value);
  }

  toString() {
    return this.#href;
  }

  toJSON() {
    return this.#href;
  }

  static {
    reload = (url, query) => URL.#set(url, SEARCH, query);
    internals.isURL = (value) => #href in value;
    internals.urlHref = (url) => url.#href;
  }
}
defineInterface(URL);

// https://url.spec.whatwg.org/#concept-urlencoded-parser
function parseForm(query) {
  const list = [];
  let from = 0;
  while (from <= query.length) {
    let end = StringPrototypeIndexOf(query, "&", from);
    if (end < 0) end = query.length;
    if (end > from) {
      const piece = StringPrototypeSlice(query, from, end);
      const at = StringPrototypeIndexOf(piece, "=");
      if (at < 0) ArrayPrototypePush(list, decodeForm(piece), "");
      else {
        const name = decodeForm(StringPrototypeSlice(piece, 0, at));
        ArrayPrototypePush(list, name, decodeForm(StringPrototypeSlice(piece, at + 1)));
      }
    }
    from = end + 1;
  }
  return list;
}

function decodeForm(piece) {
  return RegExpPrototypeExec(PLAIN_IN, piece) !== null ? piece : op_form_decode(piece);
}

// https://url.spec.whatwg.org/#concept-urlencoded-serializer
function serializeForm(list) {
  let query = "";
  for (let i = 0; i < list.length; i += 2) {
    query += `${i === 0 ? "" : "&"}${encodeForm(list[i])}=${encodeForm(list[i + 1])}`;
  }
  return query;
}

function encodeForm(piece) {
  return RegExpPrototypeExec(PLAIN_OUT, piece) !== null ? piece : op_form_encode(piece);
}

function queryOf(search) {
  return search === "" ? "" : StringPrototypeSlice(search, 1);
}

internals.exposed.URL = URL;
internals.exposed.URLSearchParams = URLSearchParams;
