const bytes = (...values) => new Uint8Array(values);
test("TextEncoder", () => {
  const encoder = new TextEncoder();
  alike([...encoder.encode("aé€😀")], [97, 195, 169, 226, 130, 172, 240, 159, 152, 128]);
  alike([...encoder.encode("\ud800x")], [239, 191, 189, 120]);
  same(encoder.encode().length, 0);
  same(encoder.encoding, "utf-8");
  const target = new Uint8Array(4);
  alike(encoder.encodeInto("aé€", target), { read: 2, written: 3 });
  alike([...target], [97, 195, 169, 0]);
  alike(encoder.encodeInto("😀x", new Uint8Array(10)), { read: 3, written: 5 });
  throws(() => encoder.encodeInto("x", new ArrayBuffer(1)), "TypeError");
});
test("TextDecoder labels", () => {
  for (const [label, name] of [["utf8", "utf-8"], [" UTF-8\n", "utf-8"], ["latin1", "windows-1252"], ["ascii", "windows-1252"], ["utf-16", "utf-16le"],
    ["utf-16be", "utf-16be"], ["shift_jis", "shift_jis"], ["gbk", "gbk"], ["big5", "big5"], ["euc-kr", "euc-kr"], ["iso-8859-2", "iso-8859-2"]]) {
    same(new TextDecoder(label).encoding, name, label);
  }
  for (const label of ["", "utf-99", "replacement", "iso-2022-kr"]) throws(() => new TextDecoder(label), "RangeError", label);
});
test("fatal and replacement", () => {
  for (const bad of [bytes(0xff), bytes(0xc3), bytes(0xed, 0xa0, 0x80), bytes(0xf0, 0x9f), bytes(0xc0, 0x80), bytes(97, 0x80)]) {
    throws(() => new TextDecoder("utf-8", { fatal: true }).decode(bad), "TypeError");
    assert(new TextDecoder().decode(bad).includes("\ufffd"));
  }
  same(new TextDecoder().decode(bytes(0xf0, 0x9f, 97)), "\ufffda");
  same(new TextDecoder("latin1").decode(bytes(0x80, 0xe9)), "€é");
  same(new TextDecoder("shift_jis").decode(bytes(0x82, 0xa0)), "あ");
  same(new TextDecoder("utf-16be").decode(bytes(0, 97)), "a");
  throws(() => new TextDecoder("utf-16le", { fatal: true }).decode(bytes(97)), "TypeError");
});
test("byte order marks", () => {
  same(new TextDecoder().decode(bytes(0xef, 0xbb, 0xbf, 97)), "a");
  same(new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes(0xef, 0xbb, 0xbf, 97)), "\ufeffa");
  same(new TextDecoder("utf-16le").decode(bytes(0xff, 0xfe, 97, 0)), "a");
  same(new TextDecoder().decode(bytes(0xef, 0xbb, 0xbf, 0xef, 0xbb, 0xbf)), "\ufeff");
  const decoder = new TextDecoder();
  same(decoder.decode(bytes(0xef), { stream: true }), "");
  same(decoder.decode(bytes(0xbb), { stream: true }), "");
  same(decoder.decode(bytes(0xbf, 97), { stream: true }), "a");
  same(decoder.decode(bytes(0xef, 0xbb, 0xbf), { stream: true }), "\ufeff");
  same(decoder.decode(), "");
  same(decoder.decode(bytes(0xef, 0xbb, 0xbf, 98)), "b");
});
test("streaming cuts nowhere", () => {
  const text = "aé€😀z".repeat(3);
  for (const [label, data] of [["utf-8", new TextEncoder().encode(text)],
    ["utf-16le", new Uint8Array(new Uint16Array([...text].join("").split("").map((c) => c.charCodeAt(0))).buffer)]]) {
    for (let size = 1; size <= 5; size++) {
      const decoder = new TextDecoder(label, { fatal: true });
      let out = "";
      for (let i = 0; i < data.length; i += size) out += decoder.decode(data.subarray(i, i + size), { stream: true });
      same(out + decoder.decode(), text, `${label} ${size}`);
    }
  }
  const legacy = [["shift_jis", bytes(0x82, 0xa0, 97, 0x82, 0xa2), "あaい"], ["gb18030", bytes(0x81, 0x30, 0x81, 0x30, 97, 0xc4, 0xe3), "\u0080a你"],
    ["euc-jp", bytes(0xa4, 0xa2, 0x8f, 0xb0, 0xa1), "あ丂"], ["iso-2022-jp", bytes(0x1b, 0x24, 0x42, 0x24, 0x22, 0x1b, 0x28, 0x42, 97), "あa"]];
  for (const [label, data, expected] of legacy) {
    for (let size = 1; size <= 3; size++) {
      const decoder = new TextDecoder(label, { fatal: true });
      let out = "";
      for (let i = 0; i < data.length; i += size) out += decoder.decode(data.subarray(i, i + size), { stream: true });
      same(out + decoder.decode(), expected, `${label} ${size}`);
    }
  }
  const decoder = new TextDecoder("utf-8", { fatal: true });
  decoder.decode(bytes(0xc3), { stream: true });
  throws(() => decoder.decode(), "TypeError");
  same(decoder.decode(bytes(97)), "a");
});
test("inputs", () => {
  const buffer = new TextEncoder().encode("abcd").buffer;
  same(new TextDecoder().decode(buffer), "abcd");
  same(new TextDecoder().decode(new DataView(buffer, 1, 2)), "bc");
  same(new TextDecoder().decode(new Uint16Array(buffer)), "abcd");
  same(new TextDecoder().decode(undefined), "");
  throws(() => new TextDecoder().decode("x"), "TypeError");
  throws(() => new TextDecoder().decode({}), "TypeError");
  throws(() => TextDecoder.prototype.decode.call({}, buffer), "TypeError");
});
test("encoder and decoder streams", async () => {
  const readable = ReadableStream.from(["a\ud83d", "\ude00b", "\ud800"]).pipeThrough(new TextEncoderStream()).pipeThrough(new TextDecoderStream());
  let text = "";
  for await (const chunk of readable) text += chunk;
  same(text, "a😀b\ufffd");
  const bad = ReadableStream.from([bytes(0xff)]).pipeThrough(new TextDecoderStream("utf-8", { fatal: true }));
  await rejects(bad.getReader().read(), "TypeError");
});
