// Runs what most requests need once, so that the snapshot holds compiled code and the first request of an instance does
// not wait for it. There is no host yet: whatever asks for one throws here.
"use strict";

const { exposed } = internals;
const { Headers, Request, Response, URL } = exposed;

function attempt(run) {
  try {
    run();
  } catch {
    // No host.
  }
}

const headers = new Headers({ "content-type": "text/plain", a: "b" });
headers.append("a", "c");
headers.get("a");
const url = new URL("http://h/a?b=c");
url.searchParams.get("b");
const { pathname } = url;
new Request(`http://h${pathname}`, { headers });
const handlers = [
  () => new Response("text", { status: 200, headers: { a: "b" } }),
  () => Response.json({ a: 1 }),
  (request) => new Response(request.method + request.url + request.headers.get("a")),
  (request) => new Response(request.body),
];
for (let i = 0; i < handlers.length; i++) {
  internals.start({ default: { fetch: handlers[i] } }, ["NAME", "value"]);
  attempt(() => internals.dispatch(1, "GET", "http://h/", "a\nb", i === 3 ? 1 : 0));
}
attempt(() => internals.abort(1, "warm"));
internals.complete(1, 0, undefined, 0);
internals.requestsUnderWay.clear();
internals.start({ default: { fetch: () => undefined } }, []);
