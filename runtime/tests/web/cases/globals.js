test("what is there and what is not", () => {
  for (const name of ["Request", "Response", "Headers", "URL", "URLSearchParams", "TextEncoder", "TextDecoder", "TextEncoderStream",
    "TextDecoderStream", "ReadableStream", "WritableStream", "TransformStream", "ByteLengthQueuingStrategy", "CountQueuingStrategy",
    "AbortController", "AbortSignal", "Event", "EventTarget", "CustomEvent", "DOMException", "setTimeout", "setInterval", "clearTimeout",
    "clearInterval", "queueMicrotask", "structuredClone", "atob", "btoa", "fetch", "Blob", "WebAssembly", "Intl"]) {
    assert(typeof globalThis[name] === "function" || name === "WebAssembly" || name === "Intl", name);
  }
  for (const name of ["SharedArrayBuffer", "Atomics", "primordials", "ops", "internals", "Deno", "process", "require", "gc", "exports", "module", "WebStreamsPolyfill"]) {
    same(globalThis[name], undefined, name);
    same(name in globalThis, false, name);
  }
  same(self, globalThis);
  same(navigator.userAgent, "Isolet");
  same(crypto.subtle, undefined);
  const own = Object.getOwnPropertyNames(globalThis).filter((name) => /^(op_|__)/.test(name));
  alike(own, []);
  same(Object.keys(globalThis).includes("Request"), false);
});
test("no code from strings", () => {
  throws(() => eval("1"), "EvalError");
  throws(() => new Function("return 1"), "EvalError");
  throws(() => setTimeout("1"), "TypeError");
  throws(() => (async () => {}).constructor("return 1"), "EvalError");
});
test("DOMException", () => {
  const error = new DOMException("m", "AbortError");
  same(error.code, 20);
  same(error.name, "AbortError");
  same(error.message, "m");
  assert(error instanceof Error && error instanceof DOMException);
  assert(error.stack.startsWith("AbortError: m\n    at"), error.stack);
  assert(!error.stack.includes("isolet:"), error.stack);
  same(String(error), "AbortError: m");
  same(DOMException.ABORT_ERR, 20);
  same(new DOMException().name, "Error");
  same(new DOMException("", { name: "x", cause: 5 }).cause, 5);
  same(Object.prototype.toString.call(error), "[object DOMException]");
  throws(() => DOMException.prototype.name, "TypeError");
});
test("the clock stands still", () => {
  const a = Date.now(), b = performance.now();
  let x = 0;
  for (let i = 0; i < 2e6; i++) x += i;
  same(Date.now(), a);
  same(performance.now(), b);
  same(new Date().getTime(), a);
  same(performance.timeOrigin, 1700000000000);
  same(new Intl.DateTimeFormat("en", { timeZone: "UTC", year: "numeric" }).format(), "2023");
  same(new Intl.DateTimeFormat("en", { timeZone: "UTC", year: "numeric" }).formatToParts()[0].value, "2023");
  if (typeof Temporal !== "undefined") {
    same(Temporal.Now.instant().epochMilliseconds, a);
    same(Temporal.Now.zonedDateTimeISO().epochMilliseconds, a);
    same(Temporal.Now.plainDateISO("UTC").year, 2023);
    same(Temporal.Now.plainTimeISO("UTC").hour, 22);
    same(Temporal.Now.plainDateTimeISO("UTC").month, 11);
  }
});
test("Date is whole", () => {
  same(typeof Date(), "string");
  same(Date.length, 7);
  same(Date.name, "Date");
  assert(new Date() instanceof Date);
  same(new Date(0).constructor, Date);
  same(new Date(2020, 0, 2).getDate(), 2);
  same(new Date("2020-01-02T00:00:00Z").getTime(), 1577923200000);
  same(new Date(undefined).getTime(), NaN);
  same(Date.UTC(2020, 0), 1577836800000);
  same(Date.parse("2020-01-01T00:00:00Z"), 1577836800000);
  class Mine extends Date { x() { return 1; } }
  const mine = new Mine();
  assert(mine instanceof Mine && mine instanceof Date);
  same(mine.x(), 1);
  same(mine.getTime(), Date.now());
  same(new Mine(5).getTime(), 5);
  const made = Reflect.construct(Date, [], Mine);
  assert(made instanceof Mine);
  same(Object.prototype.toString.call(made), "[object Date]");
  same(Object.getOwnPropertyDescriptor(Date, "prototype").writable, false);
  same(Object.keys(Date).length, 0);
});
test("crypto", () => {
  const bytes = crypto.getRandomValues(new Uint8Array(64));
  assert(new Set(bytes).size > 8);
  const words = new Uint32Array(8);
  same(crypto.getRandomValues(words.subarray(2, 4)).length, 2);
  same(words[0], 0);
  throws(() => crypto.getRandomValues(new Float32Array(2)), "TypeMismatchError");
  throws(() => crypto.getRandomValues(new DataView(new ArrayBuffer(2))), "TypeMismatchError");
  throws(() => crypto.getRandomValues(new Uint8Array(65537)), "QuotaExceededError");
  throws(() => crypto.getRandomValues({}), "TypeMismatchError");
  const id = crypto.randomUUID();
  assert(/^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/.test(id), id);
  assert(id !== crypto.randomUUID());
  throws(() => new Crypto(), "TypeError");
});
test("WebAssembly from bytes is refused", async () => {
  const bytes = new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0]);
  throws(() => new WebAssembly.Module(bytes), "CompileError");
  const error = await rejects(WebAssembly.instantiate(bytes), "CompileError");
  assert(error.message.includes("import the module"), error.message);
  await rejects(WebAssembly.compile(bytes), "CompileError");
  same(new WebAssembly.Memory({ initial: 1 }).buffer.byteLength, 65536);
  assert(new WebAssembly.Memory({ initial: 1 }) instanceof WebAssembly.Memory);
  throws(() => new WebAssembly.Memory({ initial: 1, maximum: 1, shared: true }), "TypeError");
  same(new WebAssembly.Memory({ initial: 1 }).constructor, WebAssembly.Memory);
  same(new WebAssembly.Global({ value: "i32" }, 4).value, 4);
  same(WebAssembly.Module.exports.length, 1);
});
test("base64", () => {
  same(btoa("hello\xff"), "aGVsbG//");
  same(btoa(""), "");
  throws(() => btoa("\u0100"), "InvalidCharacterError");
  throws(() => btoa("\ud800"), "InvalidCharacterError");
  for (const [input, output] of [["", ""], ["YQ==", "a"], ["YQ=", null], ["YQ", "a"], ["Y", null], [" Y Q\n=\t=\f\r", "a"], ["YR==", "a"],
    ["====", null], ["YWI=", "ab"], ["YWJj", "abc"], ["YW=Jj", null], ["ab_-", null], ["/A", "\xfc"], ["=", null], ["YQ===", null], ["\xa0", null], ["AA/", "\0\x0f"]]) {
    if (output === null) throws(() => atob(input), "InvalidCharacterError", input);
    else same(atob(input), output, input);
  }
  same(atob(null).length, 3);
  throws(() => atob(), "TypeError");
});
test("functions are no constructors and have their names", () => {
  for (const [name, length] of [["setTimeout", 1], ["setInterval", 1], ["clearTimeout", 0], ["clearInterval", 0], ["queueMicrotask", 1],
    ["structuredClone", 1], ["atob", 1], ["btoa", 1], ["fetch", 1], ["reportError", 1]]) {
    same(globalThis[name].name, name);
    same(globalThis[name].length, length, name);
    same("prototype" in globalThis[name], false, name);
    throws(() => new globalThis[name](() => {}), "TypeError", name);
    same(Object.getOwnPropertyDescriptor(globalThis, name).enumerable, true);
  }
  for (const name of ["Request", "Headers", "URL", "EventTarget", "ReadableStream"]) {
    same(Object.getOwnPropertyDescriptor(globalThis, name).enumerable, false);
    same(globalThis[name].name, name);
  }
});
