test("combines and sorts", () => {
  const headers = new Headers([["b", "1"], ["A", "x"], ["b", "2"], ["Set-Cookie", "a=1"], ["set-cookie", "b=2"]]);
  alike([...headers], [["a", "x"], ["b", "1, 2"], ["set-cookie", "a=1"], ["set-cookie", "b=2"]]);
  alike([...headers.keys()], ["a", "b", "set-cookie", "set-cookie"]);
  alike([...headers.values()], ["x", "1, 2", "a=1", "b=2"]);
  alike(headers.getSetCookie(), ["a=1", "b=2"]);
  same(headers.get("B"), "1, 2");
  same(headers.get("set-cookie"), "a=1, b=2");
  same(headers.get("none"), null);
});
test("from record, Headers, nothing", () => {
  same(new Headers({ "X-A": 5 }).get("x-a"), "5");
  same(new Headers(new Headers({ a: "b" })).get("a"), "b");
  alike([...new Headers()], []);
  alike([...new Headers(undefined)], []);
  throws(() => new Headers(null), "TypeError");
  throws(() => new Headers(5), "TypeError");
  throws(() => new Headers([["a"]]), "TypeError");
  throws(() => new Headers([["a", "b", "c"]]), "TypeError");
  throws(() => new Headers([5]), "TypeError");
});
test("set, delete, has", () => {
  const headers = new Headers([["a", "1"], ["b", "2"], ["a", "3"]]);
  headers.set("A", "4");
  alike([...headers], [["a", "4"], ["b", "2"]]);
  headers.delete("a");
  same(headers.has("a"), false);
  same(headers.has("B"), true);
  throws(() => headers.set("a"), "TypeError");
  throws(() => headers.has(), "TypeError");
});
test("validates", () => {
  for (const name of ["", "a b", "a\n", "ü", "a:", "a\0"]) throws(() => new Headers([[name, "x"]]), "TypeError", name);
  for (const value of ["a\nb", "a\0", "a\rb", "\u0100"]) throws(() => new Headers([["x", value]]), "TypeError", value);
  same(new Headers([["x", " \t\r\n a b \n"]]).get("x"), "a b");
  same(new Headers([["x", "\u00ff"]]).get("x"), "\u00ff");
});
test("iterates live, also while changed", () => {
  const headers = new Headers([["a", "1"], ["c", "3"]]);
  const seen = [];
  for (const entry of headers) {
    seen.push(entry[0]);
    if (entry[0] === "a") headers.append("b", "2");
  }
  alike(seen, ["a", "b", "c"]);
  const each = [];
  headers.forEach(function (value, name, self) { each.push([name, value, self === headers, this.x]); }, { x: 1 });
  alike(each[0], ["a", "1", true, 1]);
  same(Object.prototype.toString.call(headers.entries()), "[object Headers Iterator]");
  same(headers[Symbol.iterator], headers.entries);
});
test("arriving headers", (request) => {
  same(request.headers.get("X-One"), "1");
  throws(() => request.headers.set("a", "b"), "TypeError");
  const copy = new Headers(request.headers);
  copy.set("a", "b");
  same(copy.get("x-one"), "1");
});
test("brands", () => {
  throws(() => Headers.prototype.get.call({}, "a"), "TypeError");
  throws(() => Headers(), "TypeError");
  same(Object.prototype.toString.call(new Headers()), "[object Headers]");
});
