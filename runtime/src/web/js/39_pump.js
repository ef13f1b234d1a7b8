// Moves bodies from JavaScript to the host: of responses and of outbound requests.
"use strict";

const { String, TypeError } = primordials;
const { body: bodies, streams } = internals;
const { op_close, op_write } = ops;

function pumpStream(writer, entry, stream, done) {
  const reader = streams.reader(stream);
  pump(writer, entry, async () => {
    const step = await streams.read(reader);
    if (step.done) return null;
    const chunk = step.value;
    if (!bodies.isUint8Array(chunk)) {
      const error = new TypeError("The body's stream gave something that is no Uint8Array; encode text with TextEncoderStream");
      throw error;
    }
    return chunk;
  }, (reason) => streams.cancelReader(reader, reason), done);
}

// Moves chunks from next() to the host, one at a time, at the host's pace.
async function pump(writer, entry, next, cancel, done) {
  let open = true; // the host still takes what we write
  entry.cancel = (reason) => {
    open = false;
    cancel(reason);
  };
  try {
    for (;;) {
      let chunk;
      try {
        chunk = await next();
      } catch (error) {
        if (open) {
          op_close(writer, errorText(error));
          cancel(error);
        }
        return;
      }
      if (!open) return;
      if (chunk === null) {
        op_close(writer, undefined);
        return;
      }
      try {
        const wait = op_write(writer, chunk);
        if (wait !== 0) await internals.completion(wait);
      } catch (error) {
        if (open) cancel(error);
        return;
      }
      if (!open) return;
    }
  } finally {
    open = false;
    entry.cancel = undefined;
    done();
  }
}
function errorText(error) {
  try {
    if (internals.isDOMException(error)) return internals.domExceptionText(error);
    return String(error);
  } catch {
    return "an error without text";
  }
}

internals.pump = pump;
internals.pumpStream = pumpStream;
