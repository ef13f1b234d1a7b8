// What JavaScript waits for outside the isolate: one entry a CompletionId, removed when it is completed.
"use strict";

const { Map, MapPrototypeDelete, MapPrototypeGet, MapPrototypeSet } = primordials;

const pending = new Map(); // CompletionId -> function(failed, value)
internals.pendingCompletions = pending;

internals.onCompletion = (id, callback) => {
  MapPrototypeSet(pending, id, callback);
};

internals.forgetCompletion = (id) => MapPrototypeDelete(pending, id);

// Entrypoint. kind: 0 done or chunk, 1 failed with an error of the given host kind.
internals.complete = (id, kind, value, errorKind) => {
  const callback = MapPrototypeGet(pending, id);
  if (callback === undefined) return;
  MapPrototypeDelete(pending, id);
  if (kind === 1) callback(true, internals.hostError(errorKind, value));
  else callback(false, value);
};
