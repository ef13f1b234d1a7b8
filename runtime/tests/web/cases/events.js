test("listeners", () => {
  const target = new EventTarget();
  const seen = [];
  const listener = (event) => seen.push(event.type);
  target.addEventListener("a", listener);
  target.addEventListener("a", listener);
  target.addEventListener("a", { handleEvent(event) { seen.push(["object", this === listenerObject]); } });
  const listenerObject = { handleEvent() { seen.push(["this", this === listenerObject]); } };
  target.addEventListener("a", listenerObject, { once: true });
  target.addEventListener("a", () => seen.push("capture"), true);
  same(target.dispatchEvent(new Event("a")), true);
  alike(seen, ["capture", "a", ["object", false], ["this", true]]);
  target.removeEventListener("a", listener);
  seen.length = 0;
  target.dispatchEvent(new Event("a"));
  alike(seen, ["capture", ["object", false]]);
  target.addEventListener("b", null);
  throws(() => target.addEventListener("b", 5), "TypeError");
  throws(() => target.dispatchEvent({}), "TypeError");
});
test("events", () => {
  const event = new CustomEvent("x", { detail: 5, cancelable: true, bubbles: true });
  same(event.detail, 5);
  same(event.bubbles, true);
  same(event.isTrusted, false);
  const target = new EventTarget();
  target.addEventListener("x", (e) => {
    same(e.target, target);
    same(e.currentTarget, target);
    same(e.eventPhase, Event.AT_TARGET);
    alike(e.composedPath().length, 1);
    e.preventDefault();
    e.stopImmediatePropagation();
    throws(() => target.dispatchEvent(e), "InvalidStateError");
  });
  target.addEventListener("x", () => fail("stopped"));
  same(target.dispatchEvent(event), false);
  same(event.defaultPrevented, true);
  same(event.currentTarget, null);
  same(new CustomEvent("x").detail, null);
  throws(() => new Event(), "TypeError");
  const passive = new Event("p", { cancelable: true });
  target.addEventListener("p", (e) => e.preventDefault(), { passive: true });
  same(target.dispatchEvent(passive), true);
});
test("subclass of EventTarget", () => {
  class Mine extends EventTarget { constructor() { super(); this.n = 0; this.addEventListener("x", () => this.n++); } }
  const mine = new Mine();
  mine.dispatchEvent(new Event("x"));
  same(mine.n, 1);
});
test("removal while dispatching", () => {
  const target = new EventTarget();
  const seen = [];
  const second = () => seen.push(2);
  target.addEventListener("x", () => { seen.push(1); target.removeEventListener("x", second); target.addEventListener("x", () => seen.push(3)); });
  target.addEventListener("x", second);
  target.dispatchEvent(new Event("x"));
  alike(seen, [1]);
});
test("AbortController", () => {
  const controller = new AbortController();
  const { signal } = controller;
  const seen = [];
  signal.addEventListener("abort", (event) => seen.push(["listener", event.isTrusted]));
  signal.onabort = function (event) { seen.push(["handler", this === signal, event.target === signal]); };
  same(signal.aborted, false);
  signal.throwIfAborted();
  controller.abort();
  controller.abort("again");
  alike(seen, [["listener", true], ["handler", true, true]]);
  same(signal.reason.name, "AbortError");
  throws(() => signal.throwIfAborted(), "AbortError");
  same(AbortSignal.abort(5).reason, 5);
  throws(() => new AbortSignal(), "TypeError");
});
test("AbortSignal.any", () => {
  const a = new AbortController(), b = new AbortController();
  const any = AbortSignal.any([a.signal, b.signal]);
  const nested = AbortSignal.any([any]);
  same(any.aborted, false);
  b.abort("why");
  same(any.reason, "why");
  same(nested.reason, "why");
  a.abort("later");
  same(any.reason, "why");
  same(AbortSignal.any([AbortSignal.abort(1), AbortSignal.abort(2)]).reason, 1);
  same(AbortSignal.any([]).aborted, false);
  throws(() => AbortSignal.any([5]), "TypeError");
  throws(() => AbortSignal.any(), "TypeError");
});
test("AbortSignal.timeout", async () => {
  const signal = AbortSignal.timeout(5);
  const start = performance.now();
  await new Promise((resolve) => { signal.onabort = resolve; });
  same(signal.reason.name, "TimeoutError");
  same(performance.now() - start, 5);
  throws(() => AbortSignal.timeout(-1), "TypeError");
});
test("listener with signal", () => {
  const target = new EventTarget();
  const controller = new AbortController();
  let n = 0;
  target.addEventListener("x", () => n++, { signal: controller.signal });
  target.dispatchEvent(new Event("x"));
  controller.abort();
  target.dispatchEvent(new Event("x"));
  same(n, 1);
  target.addEventListener("x", () => n++, { signal: controller.signal });
  target.dispatchEvent(new Event("x"));
  same(n, 1);
});
test("timers in order", async () => {
  const seen = [];
  await new Promise((resolve) => {
    setTimeout((a, b) => seen.push(`20${a}${b}`), 20, "x", "y");
    setTimeout(() => seen.push("10"), 10);
    setTimeout(() => seen.push("0"));
    setTimeout(() => seen.push("-5"), -5);
    queueMicrotask(() => seen.push("micro"));
    setTimeout(resolve, 30);
  });
  alike(seen, ["micro", "0", "-5", "10", "20xy"]);
});
test("clearing", async () => {
  const seen = [];
  await new Promise((resolve) => {
    const later = setTimeout(() => seen.push("cleared"), 5);
    setTimeout(() => clearTimeout(later), 1);
    let n = 0;
    const interval = setInterval(() => { seen.push(++n); if (n === 3) clearInterval(interval); }, 2);
    const self = setTimeout(() => { clearTimeout(self); seen.push("self"); }, 1);
    clearTimeout(undefined);
    clearTimeout(99999);
    clearTimeout("x");
    setTimeout(resolve, 20);
  });
  alike(seen, ["self", 1, 2, 3]);
  same(typeof setTimeout(() => {}, 0), "number");
  throws(() => setTimeout(), "TypeError");
  throws(() => queueMicrotask(5), "TypeError");
});
test("structuredClone", () => {
  const date = new Date(5);
  const value = { a: [1, , 3], m: new Map([[{ k: 1 }, new Set(["x"])]]), d: date, r: /x/gi, b: 10n, u: undefined, n: null, nan: NaN, z: -0, bytes: new Uint8Array([1, 2]), e: new RangeError("bad") };
  value.self = value;
  const copy = structuredClone(value);
  same(copy.self, copy);
  same(copy.a.length, 3);
  same(1 in copy.a, false);
  same([...copy.m.keys()][0].k, 1);
  assert([...copy.m.values()][0].has("x"));
  same(copy.d.getTime(), 5);
  assert(copy.d instanceof Date && copy.d !== date);
  same(copy.r.flags, "gi");
  same(copy.b, 10n);
  same(copy.z, -0);
  same(copy.bytes[1], 2);
  assert(copy.e instanceof RangeError);
  same(copy.e.message, "bad");
  throws(() => structuredClone(() => {}), "DataCloneError");
  throws(() => structuredClone(Symbol()), "DataCloneError");
  throws(() => structuredClone(new WeakMap()), "DataCloneError");
  throws(() => structuredClone({ h: new Headers() }), "DataCloneError");
  throws(() => structuredClone(new Response()), "DataCloneError");
  throws(() => structuredClone(), "TypeError");
  throws(() => structuredClone({ get x() { throw new SyntaxError("getter"); } }), "SyntaxError");
  class Point { constructor() { this.x = 1; } }
  const point = structuredClone(new Point());
  same(Object.getPrototypeOf(point), Object.prototype);
});
test("structuredClone transfers", () => {
  const buffer = new Uint8Array([1, 2, 3]).buffer;
  const copy = structuredClone({ view: new Uint8Array(buffer, 1) }, { transfer: [buffer] });
  same(buffer.byteLength, 0);
  same(buffer.detached, true);
  alike([...copy.view], [2, 3]);
  throws(() => structuredClone(1, { transfer: [buffer] }), "DataCloneError");
  throws(() => structuredClone(1, { transfer: [{}] }), "DataCloneError");
  const twice = new ArrayBuffer(1);
  throws(() => structuredClone(1, { transfer: [twice, twice] }), "DataCloneError");
  same(twice.byteLength, 1);
});

test("ArrayBuffers that can be resized are off, others are what they were", () => {
  throws(() => new ArrayBuffer(4, { maxByteLength: 16 }), "TypeError");
  throws(() => ArrayBuffer(4), "TypeError");
  same(WebAssembly.Memory.prototype.toResizableBuffer, undefined);
  const buffer = new ArrayBuffer(4, {});
  same(buffer.constructor, ArrayBuffer);
  same(buffer instanceof ArrayBuffer, true);
  same(buffer.slice(1) instanceof ArrayBuffer, true);
  same(buffer.slice(1).byteLength, 3);
  same(new Uint8Array(2).buffer instanceof ArrayBuffer, true);
  alike([ArrayBuffer.name, ArrayBuffer.length, ArrayBuffer.isView(new Uint8Array(1))], ["ArrayBuffer", 1, true]);
  class Mine extends ArrayBuffer {}
  same(new Mine(3) instanceof Mine, true);
  same(new Mine(3).byteLength, 3);
});

test("a dependent signal that only its listener keeps", async () => {
  const root = new AbortController();
  let heard = 0;
  for (let i = 0; i < 100; i++) {
    AbortSignal.any([root.signal]).addEventListener("abort", () => heard++);
    AbortSignal.any([AbortSignal.any([root.signal])]).onabort = () => heard++;
    AbortSignal.any([root.signal]);
  }
  let waste = [];
  for (let i = 0; i < 50; i++) { waste = new Array(1e5).fill(i); await new Promise((resolve) => setTimeout(resolve, 0)); }
  root.abort();
  same(heard, 200);
});
test("structuredClone of many objects", () => {
  const list = Array.from({ length: 1e5 }, (_, i) => ({ i, a: [i] }));
  const copy = structuredClone(list);
  same(copy.length, 1e5);
  same(copy[99999].a[0], 99999);
});
