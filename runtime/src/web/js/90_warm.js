// Runs what most requests need once, so that the snapshot holds compiled code and the first request of an instance does
// not wait for it; all of it takes memory in every instance. There is no host yet: whatever asks for one throws here.
"use strict";

const { Response } = internals.exposed;

function attempt(run) {
  try {
    run();
  } catch {
    // No host.
  }
}

const handlers = [
  () => new Response("text", { status: 200, headers: { a: "b" } }),
  () => Response.json({ a: 1 }),
  (request) => new Response(request.method + request.url + request.headers.get("a")),
];
for (let i = 0; i < handlers.length; i++) {
  internals.start({ default: { fetch: handlers[i] } }, ["NAME", "value"]);
  attempt(() => internals.dispatch(1, "GET", "http://h/", "a\nb", 0));
}
internals.requestsUnderWay.clear();
internals.start({ default: { fetch: () => undefined } }, []);
