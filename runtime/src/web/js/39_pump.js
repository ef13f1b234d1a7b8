// Moves bodies from JavaScript to the host: of responses and of outbound requests.
"use strict";

const { PromiseWithResolvers, String, TypedArrayPrototypeGetByteLength, TypeError } = primordials;
const { body: bodies, forgetCompletion, onCompletion, streams } = internals;
const { op_close, op_write } = ops;

// Moves a stream's chunks. Locks the stream.
function pumpStream(writer, entry, stream, done) {
  const reader = streams.reader(stream);
  const next = async () => {
    for (;;) {
      const step = await streams.read(reader);
      if (step.done) return null;
      if (!bodies.isUint8Array(step.value)) {
        throw new TypeError("The body's stream gave something that is no Uint8Array; encode text with TextEncoderStream");
      }
      if (TypedArrayPrototypeGetByteLength(step.value) > 0) return step.value;
    }
  };
  pump(writer, entry, next, (reason) => streams.cancelReader(reader, reason), done);
}

// Moves the chunks of a body that arrives, with no stream in between.
function pumpArriving(writer, entry, inbound, done) {
  const gone = new TypeError("Nobody reads the body any more");
  pump(writer, entry, () => bodies.readChunk(inbound), (reason) => bodies.failArriving(inbound, reason ?? gone), done);
}

// Moves chunks from next() to the host, one at a time, at the host's pace. While it does, entry.cancel(reason) ends it:
// neither a chunk nor the host is waited for any more.
async function pump(writer, entry, next, cancel, done) {
  let open = true; // the host still takes what we write
  let stopWaiting;
  entry.cancel = (reason) => {
    open = false;
    op_close(writer, errorText(reason));
    if (stopWaiting !== undefined) stopWaiting();
    cancel(reason);
  };
  try {
    for (;;) {
      const chunk = await next();
      if (!open) return;
      if (chunk === null) {
        op_close(writer, undefined);
        return;
      }
      const wait = op_write(writer, chunk);
      if (wait !== 0) {
        const { promise, resolve, reject } = PromiseWithResolvers();
        onCompletion(wait, (failed, value) => failed ? reject(value) : resolve());
        stopWaiting = () => {
          forgetCompletion(wait);
          resolve();
        };
        await promise;
        stopWaiting = undefined;
      }
      if (!open) return;
    }
  } catch (error) {
    if (!open) return;
    op_close(writer, errorText(error));
    cancel(error);
  } finally {
    open = false;
    entry.cancel = undefined;
    done();
  }
}

function errorText(error) {
  try {
    if (internals.isDOMException(error)) return internals.beginning(internals.domExceptionText(error), 1000);
    return internals.beginning(String(error), 1000);
  } catch {
    return "an error without text";
  }
}

internals.pumpArriving = pumpArriving;
internals.pumpStream = pumpStream;
