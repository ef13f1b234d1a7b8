// What the layer sets up late is set up as if it had been there from the start, whatever the tenant has done before.
const LAZY = ["Event", "CustomEvent", "EventTarget", "AbortSignal", "AbortController", "URL", "URLSearchParams", "TextEncoder", "TextDecoder",
  "Blob", "TextEncoderStream", "TextDecoderStream", "Crypto", "crypto", "Navigator", "navigator", "Performance", "performance", "console",
  "ReadableStream", "ReadableStreamDefaultReader", "ReadableStreamBYOBReader", "ReadableStreamDefaultController", "ReadableByteStreamController",
  "ReadableStreamBYOBRequest", "WritableStream", "WritableStreamDefaultWriter", "WritableStreamDefaultController", "TransformStream",
  "TransformStreamDefaultController", "ByteLengthQueuingStrategy", "CountQueuingStrategy", "atob", "btoa"];
const pristine = { defineProperty: Object.defineProperty, getOwnPropertyDescriptor: Object.getOwnPropertyDescriptor, setPrototypeOf: Object.setPrototypeOf, String };

// Puts an accessor that takes note in place of each property of the language's own objects; gives what undoes it.
function poison(note) {
  const roots = [];
  for (const name of ["Object", "Function", "Array", "Promise", "Map", "Set", "WeakMap", "WeakSet", "WeakRef", "Symbol", "Number", "String", "Boolean",
    "RegExp", "Date", "BigInt", "Proxy", "Error", "TypeError", "RangeError", "SyntaxError", "ArrayBuffer", "DataView", "Uint8Array", "Int8Array", "Uint32Array",
    "Float64Array", "FinalizationRegistry", "AggregateError", "DOMException", "Headers", "Request", "Response", "Iterator"]) {
    roots.push([name, globalThis[name]]);
    if (globalThis[name].prototype !== undefined) roots.push([`${name}.prototype`, globalThis[name].prototype]);
  }
  for (const name of ["Reflect", "Math", "JSON", "Intl"]) roots.push([name, globalThis[name]]);
  const of = Object.getPrototypeOf;
  roots.push(["TypedArray", of(Uint8Array)], ["TypedArray.prototype", of(Uint8Array.prototype)], ["ArrayIterator", of([][Symbol.iterator]())],
    ["MapIterator", of(new Map().entries())], ["generator", of(of(function* () {}.prototype))], ["AsyncIterator", of(of(of(async function* () {}.prototype)))]);
  const undo = [];
  const replace = (object, owner, key) => {
    const original = pristine.getOwnPropertyDescriptor(object, key);
    if (original !== undefined && !original.configurable) return;
    if (original !== undefined) pristine.setPrototypeOf(original, null);
    const label = `${owner}.${pristine.String(key)}`;
    pristine.defineProperty(object, key, {
      __proto__: null,
      configurable: true,
      enumerable: original === undefined ? false : original.enumerable,
      get() { note(label); return original === undefined ? undefined : original.value; },
      set() { note(label); },
    });
    undo[undo.length] = () => original === undefined ? delete object[key] : pristine.defineProperty(object, key, original);
  };
  const globals = ["Object", "Function", "Array", "Promise", "Map", "Set", "Symbol", "Number", "Math", "Reflect", "TypeError", "Error", "RangeError",
    "Uint8Array", "ArrayBuffer", "WeakMap", "WeakRef", "String", "Boolean", "DOMException", "queueMicrotask", "structuredClone", "self", "Request", "Date"];
  const objectPrototype = Object.prototype;
  const keysOf = Reflect.ownKeys;
  const work = roots.map(([owner, object]) => ({ __proto__: null, owner, object, keys: keysOf(object) }));
  for (let w = 0; w < work.length; w++) {
    for (let k = 0; k < work[w].keys.length; k++) replace(work[w].object, work[w].owner, work[w].keys[k]);
  }
  for (let g = 0; g < globals.length; g++) replace(globalThis, "globalThis", globals[g]);
  const odd = ["get", "set", "value", "writable", "enumerable", "configurable", "then", "name", "next", "done", "return", "start", "pull", "type", "0", "length",
    "isFinite", "prototype", "AbortController", "DOMException", "exports", "define", "amd", "global", "signal", "highWaterMark", "size", "message", "stack", "cause"];
  const finish = () => { for (let i = 0; i < odd.length; i++) replace(objectPrototype, "Object.prototype", odd[i]); };
  return { finish, undo() { for (let i = undo.length - 1; i >= 0; i--) undo[i](); } };
}

test("setting up calls nothing of the tenant's", () => {
  let notes = "";
  let active = false;
  const values = [];
  const { finish, undo } = poison((label) => { if (active) notes += ` ${label}`; });
  finish();
  active = true;
  for (let i = 0; i < LAZY.length; i++) {
    const before = notes.length;
    const value = globalThis[LAZY[i]];
    if (notes.length > before) notes += ` <- ${LAZY[i]};`;
    pristine.defineProperty(values, i, { __proto__: null, value, configurable: true, writable: true, enumerable: true });
  }
  active = false;
  undo();
  same(notes, "");
  for (let i = 0; i < LAZY.length; i++) {
    assert(typeof values[i] === "function" || typeof values[i] === "object", LAZY[i]);
    same(values[i], globalThis[LAZY[i]]);
    if (typeof values[i] === "function") same(values[i].name, LAZY[i]);
  }
});
test("what was set up among poisoned objects works", async () => {
  same(new URL("http://h/a?b=c").searchParams.get("b"), "c");
  same(atob(btoa("x")), "x");
  same(new TextDecoder().decode(new TextEncoder().encode("é")), "é");
  same(await new Blob(["a", "b"]).text(), "ab");
  same(await new Response(new Blob(["ab"]).stream().pipeThrough(new TextDecoderStream()).pipeThrough(new TextEncoderStream())).text(), "ab");
  const controller = new AbortController();
  let reason;
  controller.signal.addEventListener("abort", () => { reason = controller.signal.reason; });
  controller.abort("why");
  same(reason, "why");
  const chunks = [];
  const piped = new ReadableStream({ start(c) { c.enqueue(1); c.enqueue(2); c.close(); } }).pipeThrough(new TransformStream({ transform(x, c) { c.enqueue(x * 2); } }));
  for await (const chunk of piped) chunks.push(chunk);
  alike(chunks, [2, 4]);
  const aborted = new AbortController();
  const written = [];
  const sink = new WritableStream({ write(x) { written.push(x); } });
  aborted.abort();
  await rejects(new ReadableStream({ start(c) { c.enqueue(1); } }).pipeTo(sink, { signal: aborted.signal }), "AbortError");
  await rejects(new ReadableStream().pipeTo({}), "TypeError");
  assert(performance instanceof EventTarget && performance.now() >= 0);
  same(crypto.randomUUID().length, 36);
});
