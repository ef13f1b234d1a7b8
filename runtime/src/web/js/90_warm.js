// Runs what most requests need once, so that the snapshot holds compiled code and the first request of an instance does
// not wait for it; all of it takes memory in every instance. There is no host yet: whatever asks for one throws here.
"use strict";

const { Response } = internals.exposed;

// In a block, so that nothing of it stays in the snapshot.
{
  const handlers = [
    () => new Response("text", { status: 200, headers: { a: "b" } }),
    () => Response.json({ a: 1 }),
    (request) => new Response(request.method + request.url + request.headers.get("a")),
  ];
  for (let i = 0; i < handlers.length; i++) {
    internals.start({ default: { fetch: handlers[i] } }, ["NAME", "value"]);
    try {
      internals.dispatch(1, "GET", "http://h/", "a\nb", 0);
    } catch {
      // No host.
    }
  }
}

// Entry point: in each isolate that is made in advance, before it belongs to a revision. No snapshot knows that a function
// has run, nor the shapes of what it made. Its answer never comes, so that no host is asked for and nothing is thrown.
internals.warm = () => {
  const fetch = (_request, env) => {
    internals.responseState(new Response(env.NAME));
    return new primordials.Promise(() => {});
  };
  internals.start({ default: { fetch } }, ["NAME", "value"]);
  internals.dispatch(1, "GET", "http://h/", "a\nb", 0);
  internals.requestsUnderWay.clear();
};
internals.warm();
internals.start({ default: { fetch: () => undefined } }, []);
