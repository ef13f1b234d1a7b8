// Uses what the files that are run late provide, in an isolate of its own at the start of the process: what V8 compiles for
// it is kept for all instances. There is no host: whatever asks for one throws here.
"use strict";

const { exposed, functions, lazyGlobals, provide } = internals;
const names = primordials.ReflectOwnKeys(lazyGlobals);
for (let i = 0; i < names.length; i++) provide(names[i]);

function attempt(run) {
  try {
    run();
  } catch {
    // No host.
  }
}

attempt(() => {
  const url = new exposed.URL("http://h/a?b=c");
  const { hash, hostname, origin, pathname, search } = url;
  url.searchParams.get("b");
  url.searchParams.has("b");
  url.searchParams.set("b", `${hash}${hostname}${origin}${pathname}${search}`);
  new exposed.URLSearchParams("a=b").toString();
  `${url}`;
});
attempt(() => new exposed.TextDecoder().decode(new exposed.TextEncoder().encode("text")));
attempt(() => functions.atob(functions.btoa("text")));
attempt(() => exposed.console.log("text %s", { a: [1, "b"] }, 1));
attempt(() => {
  const target = new exposed.EventTarget();
  target.addEventListener("a", () => {});
  target.dispatchEvent(new exposed.Event("a"));
});
attempt(() => {
  const controller = new exposed.AbortController();
  controller.signal.addEventListener("abort", () => {});
  controller.abort();
});
attempt(() => new exposed.Request("http://h/").signal);
attempt(() => exposed.crypto.randomUUID());
attempt(() => exposed.crypto.getRandomValues(new primordials.Uint8Array(1)));
attempt(() => exposed.performance.now());
attempt(() => new exposed.Blob(["a"]).text());
attempt(() => {
  const stream = new exposed.ReadableStream({
    start(controller) {
      controller.enqueue(new primordials.Uint8Array(1));
      controller.close();
    },
  });
  new exposed.Response(stream).text();
  new exposed.Response(new exposed.TextEncoderStream().readable);
  new exposed.Response("text").body.getReader().read();
  new exposed.ReadableStream().pipeThrough(new exposed.TransformStream());
});
