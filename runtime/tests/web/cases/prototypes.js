// A tenant who patches everything: the layer goes on, and nothing of its inside comes out.
const stolen = [];
const keep = {
  then: Promise.prototype.then, iterator: Array.prototype[Symbol.iterator], push: Array.prototype.push, join: Array.prototype.join,
  splice: Array.prototype.splice, get: Map.prototype.get, set: Map.prototype.set, delete: Map.prototype.delete, call: Function.prototype.call,
  apply: Function.prototype.apply, exec: RegExp.prototype.exec, slice: String.prototype.slice, lower: String.prototype.toLowerCase,
  stringify: JSON.stringify, parse: JSON.parse,
};
function thief(name, original) {
  return function (...args) { stolen[stolen.length] = name; return Reflect_apply(original, this, args); };
}
const Reflect_apply = Reflect.apply;
function patch() {
  stolen.length = 0;
  Promise.prototype.then = thief("then", keep.then);
  Array.prototype.push = () => { throw new Error("push"); };
  Array.prototype.join = () => { throw new Error("join"); };
  Array.prototype.splice = () => { throw new Error("splice"); };
  Array.prototype[Symbol.iterator] = () => { throw new Error("iterator"); };
  Map.prototype.get = () => { throw new Error("get"); };
  Map.prototype.set = () => { throw new Error("set"); };
  Map.prototype.delete = () => { throw new Error("delete"); };
  RegExp.prototype.exec = () => { throw new Error("exec"); };
  RegExp.prototype.test = () => { throw new Error("test"); };
  String.prototype.slice = () => { throw new Error("slice"); };
  String.prototype.split = () => { throw new Error("split"); };
  String.prototype.toLowerCase = () => { throw new Error("lower"); };
  JSON.stringify = () => { throw new Error("stringify"); };
  JSON.parse = () => { throw new Error("parse"); };
  Function.prototype.call = () => { throw new Error("call"); };
  Function.prototype.apply = () => { throw new Error("apply"); };
  Object.defineProperty(Object.prototype, "get", { configurable: true, get() { stolen[stolen.length] = "Object.prototype.get"; return undefined; }, set() {} });
}
function unpatch() {
  delete Object.prototype.get;
  Function.prototype.call = keep.call;
  Function.prototype.apply = keep.apply;
  Promise.prototype.then = keep.then;
  Array.prototype.push = keep.push;
  Array.prototype.join = keep.join;
  Array.prototype.splice = keep.splice;
  Array.prototype[Symbol.iterator] = keep.iterator;
  Map.prototype.get = keep.get;
  Map.prototype.set = keep.set;
  Map.prototype.delete = keep.delete;
  RegExp.prototype.exec = keep.exec;
  String.prototype.slice = keep.slice;
  String.prototype.toLowerCase = keep.lower;
  JSON.stringify = keep.stringify;
  JSON.parse = keep.parse;
}
test("headers, URL, bodies with patched prototypes", async () => {
  const out = [];
  patch();
  try {
    const headers = new Headers();
    headers.append("B", "1");
    headers.append("a", "2");
    headers.delete("b");
    out[0] = headers.get("A");
    out[1] = new URL("http://h/x?a=b").searchParams.get("a");
    out[2] = await new Response("text").text();
    out[3] = (await Response.json({ a: 1 }).json()).a;
    out[4] = structuredClone({ a: 5 }).a;
    out[5] = new TextDecoder().decode(new TextEncoder().encode("é"));
    out[6] = atob(btoa("x"));
    out[7] = await (await fetch("http://h/", { method: "POST", body: "b" })).headers.get("x-body");
    const controller = new AbortController();
    let aborted = 0;
    controller.signal.addEventListener("abort", () => aborted++);
    controller.abort();
    out[8] = aborted;
    console.log("%s", "x", { a: [1, new Map()] });
    // The streams, a published package, do need the tenant's Function.prototype.
    Function.prototype.call = keep.call;
    Function.prototype.apply = keep.apply;
    Array.prototype.push = keep.push;
    out[9] = await new Response(new ReadableStream({ start(c) { c.enqueue(new Uint8Array(1).fill(65)); c.close(); } })).text();
    out[10] = new Request("http://h", { method: "put" }).method;
  } finally {
    unpatch();
  }
  alike(out, ["2", "b", "text", 1, 5, "é", "x", "b", 1, "A", "PUT"]);
});
test("a thenable as the handler's result and poisoned species", async () => {
  const original = Object.getOwnPropertyDescriptor(Promise, Symbol.species);
  Object.defineProperty(Promise, Symbol.species, { configurable: true, get() { throw new Error("species"); } });
  try {
    same(await new Response("x").text(), "x").catch?.(() => {});
  } catch (error) {
    same(error.message, "species");
  } finally {
    Object.defineProperty(Promise, Symbol.species, original);
  }
});
test("typed arrays with lying properties", async () => {
  const bytes = new Uint8Array([1, 2, 3]);
  Object.defineProperty(bytes, "length", { value: 1e9 });
  Object.defineProperty(bytes, "byteLength", { value: 1e9 });
  Object.defineProperty(bytes, "buffer", { value: {} });
  Object.setPrototypeOf(bytes, null);
  same((await new Response(bytes).arrayBuffer()).byteLength, 3);
  same(new TextDecoder().decode(bytes), "\x01\x02\x03");
  same(crypto.getRandomValues(bytes), bytes);
  const out = new Response(new ReadableStream({ start(c) { c.enqueue(bytes); c.close(); } }));
  alike([...await out.bytes()].length, 3);
});
test("arguments of the wrong type everywhere", async () => {
  const odd = [undefined, null, 0, -1, 1.5, NaN, 2 ** 53, 10n, "", "x", Symbol("s"), {}, [], () => {}, new Proxy({}, {}), new Proxy([], { get() { throw new RangeError("proxy"); } }),
    Object.create(null), new ArrayBuffer(3), new Uint8Array(2), new DataView(new ArrayBuffer(1)), { toString() { throw new RangeError("toString"); } },
    { valueOf() { return {}; }, toString() { return {}; } }, new Response(), new Headers(), structuredClone(new Date()), Promise.resolve(1), { length: 1e9 }];
  const constructors = [Headers, Request, Response, URL, URLSearchParams, TextDecoder, Event, CustomEvent, AbortSignal, DOMException, ReadableStream,
    WritableStream, TransformStream, Blob, TextEncoderStream, TextDecoderStream, WebAssembly.Memory, WebAssembly.Module, Date];
  const functions = [atob, btoa, structuredClone, queueMicrotask, clearTimeout, clearInterval, fetch, WebAssembly.instantiate, AbortSignal.any, AbortSignal.abort,
    Response.json, Response.redirect, URL.parse, URL.canParse, crypto.getRandomValues.bind(crypto), console.log, console.table, console.dir, console.assert,
    console.count, console.time, console.timeEnd, console.group, console.groupEnd, console.error, console.trace, console.timeLog];
  const instances = [new Headers(), new URL("http://h"), new URLSearchParams(), new TextDecoder(), new TextEncoder(), new EventTarget(), new Blob(), new Response("x"), new Request("http://h")];
  const methods = [];
  for (const object of instances) {
    for (const name of Object.getOwnPropertyNames(Object.getPrototypeOf(object))) {
      const { value, set } = Object.getOwnPropertyDescriptor(Object.getPrototypeOf(object), name);
      if (name !== "constructor" && typeof value === "function") methods.push(value);
      if (set) methods.push(set);
    }
  }
  let calls = 0;
  const attempt = async (run) => { calls++; try { await Promise.race([run(), 0]); } catch (error) { assert(error instanceof Error || error instanceof DOMException, String(error)); } };
  const quiet = (promise) => { promise?.catch?.(() => {}); return promise; };
  for (const a of odd) {
    for (const f of functions) await attempt(() => quiet(f(a)));
    for (const c of constructors) await attempt(() => { new c(a); });
    for (const m of methods) for (const object of [...instances, a]) await attempt(() => quiet(m.call(object, a)));
    for (const b of odd) {
      for (const c of constructors) await attempt(() => { new c(a, b); });
      for (const f of functions) await attempt(() => quiet(f(a, b)));
      for (const m of methods) await attempt(() => quiet(m.call(instances[calls % instances.length], a, b)));
    }
  }
  assert(calls > 10000, calls);
});
test("internals are not handed out", () => {
  Error.prepareStackTrace = (error, frames) => frames;
  let frames;
  try {
    new Headers({ get x() { frames = new Error().stack; return 1; } });
  } finally {
    delete Error.prepareStackTrace;
  }
  for (const frame of frames) {
    const f = frame.getFunction?.();
    if (f !== undefined) assert(!/isolet:/.test(frame.getFileName() ?? ""), "a function of the layer is visible");
    same(frame.getThis?.(), undefined);
  }
});
test("proxies are no platform objects, and their traps are the tenant's", async () => {
  const hostile = new Proxy({}, { getOwnPropertyDescriptor() { throw new RangeError("trap"); }, get(target, key) { if (key === Symbol.toPrimitive) return () => "proxied"; return undefined; } });
  same(await new Response(hostile).text(), "proxied");
  throws(() => structuredClone(hostile), "DataCloneError");
  throws(() => new Request(new Proxy(new Request("http://h/"), {})), "TypeError");
  throws(() => new Headers(new Proxy(new Headers({ a: "b" }), {})).get("a"), "TypeError");
});
