test("reading, back-pressure, cancel", async () => {
  let pulls = 0, cancelled;
  const stream = new ReadableStream({ pull(c) { c.enqueue(++pulls); if (pulls === 5) c.close(); }, cancel(r) { cancelled = r; } }, { highWaterMark: 2 });
  await Promise.resolve(); await Promise.resolve(); await Promise.resolve(); await Promise.resolve();
  same(pulls, 2);
  const reader = stream.getReader();
  same(stream.locked, true);
  throws(() => stream.getReader(), "TypeError");
  alike(await reader.read(), { value: 1, done: false });
  await reader.cancel("enough");
  same(cancelled, "enough");
  alike(await reader.read(), { done: true });
});
test("async iteration and from", async () => {
  const seen = [];
  for await (const item of ReadableStream.from([1, Promise.resolve(2), 3])) seen.push(item);
  alike(seen, [1, 2, 3]);
  const stream = ReadableStream.from([1, 2, 3]);
  for await (const item of stream) { same(item, 1); break; }
  same(stream.locked, false);
  alike(await stream.getReader().read(), { done: true });
});
test("tee", async () => {
  const [a, b] = ReadableStream.from(["x", "y"]).tee();
  const read = async (s) => { const out = []; for await (const i of s) out.push(i); return out; };
  alike(await Promise.all([read(a), read(b)]), [["x", "y"], ["x", "y"]]);
});
test("transform and pipeTo", async () => {
  const upper = new TransformStream({ transform(chunk, c) { c.enqueue(chunk.toUpperCase()); }, flush(c) { c.enqueue("end"); } });
  const out = [];
  let closed = false;
  await ReadableStream.from(["a", "b"]).pipeThrough(upper).pipeTo(new WritableStream({ write(c) { out.push(c); }, close() { closed = true; } }));
  alike(out, ["A", "B", "end"]);
  assert(closed);
  const controller = new AbortController();
  const piping = new ReadableStream({}).pipeTo(new WritableStream({}), { signal: controller.signal });
  controller.abort();
  await rejects(piping, "AbortError");
});
test("writer back-pressure", async () => {
  let release;
  const writable = new WritableStream({ write() { return new Promise((resolve) => { release = resolve; }); } }, new CountQueuingStrategy({ highWaterMark: 1 }));
  const writer = writable.getWriter();
  same(writer.desiredSize, 1);
  const first = writer.write("x");
  same(writer.desiredSize, 0);
  let ready = false;
  writer.ready.then(() => { ready = true; });
  await Promise.resolve(); await Promise.resolve();
  same(ready, false);
  await new Promise((resolve) => setTimeout(resolve, 0));
  release();
  await first;
  await writer.ready;
  await writer.close();
  same(new ByteLengthQueuingStrategy({ highWaterMark: 3 }).size(new Uint8Array(7)), 7);
});
test("errors", async () => {
  const stream = new ReadableStream({ start(c) { c.error(new RangeError("no")); } });
  await rejects(stream.getReader().read(), "RangeError");
  const writable = new WritableStream({ write() { throw new SyntaxError("bad"); } });
  const writer = writable.getWriter();
  writer.closed.catch(() => {});
  writer.ready.catch(() => {});
  await rejects(writer.write(1), "SyntaxError");
});
test("byte streams", async () => {
  const stream = new ReadableStream({ type: "bytes", pull(c) { const v = c.byobRequest?.view; if (v) { v[0] = 7; c.byobRequest.respond(1); } else c.enqueue(new Uint8Array([8])); } });
  const reader = stream.getReader({ mode: "byob" });
  const { value } = await reader.read(new Uint8Array(4));
  alike([...value], [7]);
  reader.releaseLock();
  alike([...(await stream.getReader().read()).value], [8]);
});
