const tests = [];
function test(name, run) { tests.push([name, run]); }
function fail(text) { throw new Error(text); }
function assert(condition, text = "assertion failed") { if (!condition) fail(text); }
function show(value) {
  if (typeof value === "string") return JSON.stringify(value);
  if (typeof value === "object" && value !== null) { try { return JSON.stringify(value); } catch { return String(value); } }
  return String(value);
}
function same(actual, expected, text = "") {
  if (!Object.is(actual, expected)) fail(`${text} expected ${show(expected)}, got ${show(actual)}`);
}
function alike(actual, expected, text = "") {
  const a = JSON.stringify(actual), b = JSON.stringify(expected);
  if (a !== b) fail(`${text} expected ${b}, got ${a}`);
}
function throws(run, name, text = "") {
  try { run(); } catch (error) {
    const actual = error?.name;
    if (actual !== name) fail(`${text} expected ${name}, got ${actual}: ${error?.message}\n${error?.stack}`);
    return error;
  }
  fail(`${text} expected ${name}, nothing was thrown`);
}
async function rejects(promise, name, text = "") {
  try { await promise; } catch (error) {
    const actual = error?.name;
    if (actual !== name) fail(`${text} expected ${name}, got ${actual}: ${error?.message}\n${error?.stack}`);
    return error;
  }
  fail(`${text} expected ${name}, nothing was thrown`);
}
let currentRequest;
let currentContext;
export default {
  async fetch(request, env, ctx) {
    currentRequest = request;
    currentContext = ctx;
    let failures = "";
    const results = tests.slice();
    for (let i = 0; i < results.length; i++) {
      const entry = results[i];
      try { await entry[1](request, env, ctx); } catch (error) { failures += `${entry[0]}: ${error?.stack ?? error}\n`; }
    }
    return new Response(`${results.length}\n${failures}`);
  },
};
