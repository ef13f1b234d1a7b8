// Globals that are set up when they are first read look like any others before, and take what is done to them.
const names = Object.getOwnPropertyNames(globalThis);
const of = (name) => Object.getOwnPropertyDescriptor(globalThis, name);
test("they can be replaced before they were read", () => {
  URLSearchParams = 5;
  same(of("URLSearchParams").value, 5);
  globalThis.Blob = 6;
  same(Blob, 6);
  Object.defineProperty(globalThis, "TextEncoder", { value: 7, writable: false });
  same(TextEncoder, 7);
  same(of("TextEncoder").writable, false);
  same(of("TextEncoder").configurable, true);
  same(delete globalThis.CustomEvent, true);
  same("CustomEvent" in globalThis, false);
  same(typeof CustomEvent, "undefined");
  same(Reflect.set(globalThis, "TextDecoderStream", 8), true);
  same(TextDecoderStream, 8);
  const { Crypto } = globalThis;
  same(typeof Crypto, "function");
  same(new URL("http://h/?a=b").searchParams.get("a"), "b");
  same(new Event("x").type, "x");
});
test("they are read through others", () => {
  const child = Object.create(globalThis);
  same(child.TransformStream, TransformStream);
  same(Object.hasOwn(child, "TransformStream"), false);
  same(Reflect.get(globalThis, "WritableStream", {}), WritableStream);
  same(new Proxy(globalThis, {}).AbortSignal, AbortSignal);
  class Mine extends AbortController {}
  assert(new Mine().signal instanceof AbortSignal);
});
test("a stack that is full does not leave half of one behind", () => {
  let error;
  const deep = () => {
    try {
      deep();
    } catch (caught) {
      error = caught;
      try {
        void performance;
      } catch { /* still too deep */ }
      throw caught;
    }
  };
  throws(deep, "RangeError");
  same(error.name, "RangeError");
  assert(performance.now() >= 0);
  let tried = 0;
  const deeper = () => { tried++; void console; deeper(); };
  throws(deeper, "RangeError");
  same(typeof console.log, "function");
  assert(tried > 10);
});
test("descriptors, names and order", () => {
  for (const name of ["URL", "ReadableStream", "AbortSignal", "console", "crypto", "Event"]) {
    const { writable, enumerable, configurable, get } = of(name);
    alike([writable, enumerable, configurable, get], [true, false, true, undefined]);
    same(of(name).value, globalThis[name]);
  }
  for (const name of ["atob", "btoa"]) alike([of(name).writable, of(name).enumerable, of(name).configurable], [true, true, true]);
  alike(Object.getOwnPropertyNames(globalThis), names.filter((name) => name !== "CustomEvent"));
  same(Object.keys(globalThis).includes("atob"), true);
  same(Object.keys(globalThis).includes("URL"), false);
  same(Object.getOwnPropertySymbols(globalThis).length, 0);
});
test("a global object that takes no more", () => {
  Object.freeze(globalThis);
  same(typeof TextDecoder, "function");
  alike([of("TextDecoder").writable, of("TextDecoder").configurable], [false, false]);
  same(new TextDecoder().decode(new Uint8Array([65])), "A");
  same(navigator.userAgent, "Isolet");
});
