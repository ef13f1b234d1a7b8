// Files that an instance runs only when it uses what they provide: until then they take none of its memory. Such a file may
// be run after the tenant has changed the language's own objects, and must not call any code of his: no iteration, no
// method and no descriptor that is looked up in his objects, nothing of another class's prototype.
"use strict";

const { ReflectApply, ReflectOwnKeys } = primordials;
const { op_lazy_script } = ops;

const loaded = { __proto__: null };
const lazyGlobals = { __proto__: null }; // name -> file
internals.lazyGlobals = lazyGlobals;

// Runs a file, once. If it throws (the stack may be full) the next use runs it again.
internals.need = (file) => {
  if (loaded[file] === true) return;
  op_lazy_script(file)(primordials, ops, internals, globalThis);
  loaded[file] = true;
};

internals.anyLoaded = () => ReflectOwnKeys(loaded).length > 0;

// The value of a global that is read for the first time. A file's own name has it run.
internals.provide = (name) => {
  internals.need(lazyGlobals[name] ?? name);
  return internals.exposed[name] ?? internals.functions[name];
};

// Says what a file provides: globals, and functions that it puts into `target`.
internals.later = (file, globals, functions, target = internals) => {
  for (let i = 0; i < globals.length; i++) lazyGlobals[globals[i]] = file;
  for (let i = 0; i < functions.length; i++) {
    const name = functions[i];
    target[name] = (...args) => {
      internals.need(file);
      return ReflectApply(target[name], undefined, args);
    };
  }
};

// Functions that ask for the file's own objects: no before it has run, as there are none.
internals.laterChecks = (names) => {
  for (let i = 0; i < names.length; i++) {
    const name = names[i];
    const check = (value) => internals[name] !== check && internals[name](value);
    internals[name] = check;
  }
};

internals.later("11_events.js", ["Event", "CustomEvent", "EventTarget"], []);
internals.later("12_abort.js", ["AbortSignal", "AbortController"], [
  "newAbortSignal", "dependentSignal", "signalAbort", "isAborted", "abortReason", "onAbort", "offAbort",
]);
internals.laterChecks(["isAbortSignal", "keepSignal"]);
internals.later("34_url.js", ["URL", "URLSearchParams"], ["urlHref", "searchParamsText"]);
internals.laterChecks(["isURL", "isURLSearchParams"]);
internals.later("35_encoding.js", ["TextEncoder", "TextDecoder", "atob", "btoa"], []);
internals.later("36_blob.js", ["Blob"], ["makeBlob", "blobBytes", "blobType"]);
internals.laterChecks(["isBlob"]);
internals.later("41_text_streams.js", ["TextEncoderStream", "TextDecoderStream"], []);
internals.later("50_inspect.js", [], ["beginning"]);
internals.later("51_console.js", ["console"], ["logError"]);
internals.later("71_crypto.js", ["Crypto", "crypto", "Navigator", "navigator"], []);
internals.later("73_performance.js", ["Performance", "performance"], []);
