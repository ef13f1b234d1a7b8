// TextEncoderStream and TextDecoderStream, https://encoding.spec.whatwg.org/#interface-textencoderstream
"use strict";

const { StringPrototypeCharCodeAt, StringPrototypeSlice } = primordials;
const { op_encode } = ops;
internals.need("21_streams.js");
internals.need("35_encoding.js");
const { decodeBytes, defineInterface, streams } = internals;
const { TextDecoder } = internals.exposed;

class TextEncoderStream {
  #transform;

  constructor() {
    let pendingHigh = "";
    this.#transform = streams.transform({
      __proto__: null,
      transform(chunk, controller) {
        let text = pendingHigh + `${chunk}`;
        pendingHigh = "";
        const last = text.length > 0 ? StringPrototypeCharCodeAt(text, text.length - 1) : 0;
        if (last >= 0xd800 && last <= 0xdbff) {
          pendingHigh = text[text.length - 1];
          text = StringPrototypeSlice(text, 0, -1);
        }
        if (text !== "") streams.enqueue(controller, op_encode(text));
      },
      flush(controller) {
        if (pendingHigh !== "") streams.enqueue(controller, op_encode(pendingHigh));
      },
    });
  }

  get encoding() {
    this.#transform;
    return "utf-8";
  }

  get readable() {
    return streams.readableOf(this.#transform);
  }

  get writable() {
    return streams.writableOf(this.#transform);
  }
}
defineInterface(TextEncoderStream);

class TextDecoderStream {
  #transform;
  #decoder;

  constructor(label = "utf-8", options = undefined) {
    const decoder = this.#decoder = new TextDecoder(label, options);
    this.#transform = streams.transform({
      __proto__: null,
      transform(chunk, controller) {
        const text = decodeBytes(decoder, chunk, { __proto__: null, stream: true });
        if (text !== "") streams.enqueue(controller, text);
      },
      flush(controller) {
        const text = decodeBytes(decoder);
        if (text !== "") streams.enqueue(controller, text);
      },
    });
  }

  get encoding() {
    return this.#decoder.encoding;
  }

  get fatal() {
    return this.#decoder.fatal;
  }

  get ignoreBOM() {
    return this.#decoder.ignoreBOM;
  }

  get readable() {
    return streams.readableOf(this.#transform);
  }

  get writable() {
    return streams.writableOf(this.#transform);
  }
}
defineInterface(TextDecoderStream);

internals.exposed.TextEncoderStream = TextEncoderStream;
internals.exposed.TextDecoderStream = TextDecoderStream;
