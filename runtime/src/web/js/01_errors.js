// DOMException (https://webidl.spec.whatwg.org/#idl-DOMException) and the errors that come from the host.
"use strict";

const { ErrorCaptureStackTrace, ErrorPrototype, ObjectSetPrototypeOf, ObjectDefineProperty, RangeError, String, TypeError } =
  primordials;

const CODES = {
  __proto__: null,
  IndexSizeError: 1, HierarchyRequestError: 3, WrongDocumentError: 4, InvalidCharacterError: 5,
  NoModificationAllowedError: 7, NotFoundError: 8, NotSupportedError: 9, InUseAttributeError: 10, InvalidStateError: 11,
  SyntaxError: 12, InvalidModificationError: 13, NamespaceError: 14, InvalidAccessError: 15, TypeMismatchError: 17,
  SecurityError: 18, NetworkError: 19, AbortError: 20, URLMismatchError: 21, QuotaExceededError: 22, TimeoutError: 23,
  InvalidNodeTypeError: 24, DataCloneError: 25,
};
const CONSTANTS = [
  "INDEX_SIZE_ERR", 1, "DOMSTRING_SIZE_ERR", 2, "HIERARCHY_REQUEST_ERR", 3, "WRONG_DOCUMENT_ERR", 4,
  "INVALID_CHARACTER_ERR", 5, "NO_DATA_ALLOWED_ERR", 6, "NO_MODIFICATION_ALLOWED_ERR", 7, "NOT_FOUND_ERR", 8,
  "NOT_SUPPORTED_ERR", 9, "INUSE_ATTRIBUTE_ERR", 10, "INVALID_STATE_ERR", 11, "SYNTAX_ERR", 12,
  "INVALID_MODIFICATION_ERR", 13, "NAMESPACE_ERR", 14, "INVALID_ACCESS_ERR", 15, "VALIDATION_ERR", 16,
  "TYPE_MISMATCH_ERR", 17, "SECURITY_ERR", 18, "NETWORK_ERR", 19, "ABORT_ERR", 20, "URL_MISMATCH_ERR", 21,
  "QUOTA_EXCEEDED_ERR", 22, "TIMEOUT_ERR", 23, "INVALID_NODE_TYPE_ERR", 24, "DATA_CLONE_ERR", 25,
];

class DOMException {
  #name;
  #message;

  constructor(message = "", options = "Error") {
    this.#message = `${message}`;
    if (typeof options === "object" && options !== null) {
      const { name = "Error" } = options;
      this.#name = `${name}`;
      if ("cause" in options) {
        ObjectDefineProperty(this, "cause", {
          __proto__: null, value: options.cause, writable: true, configurable: true, enumerable: false,
        });
      }
    } else {
      this.#name = `${options}`;
    }
    ErrorCaptureStackTrace(this, DOMException);
  }

  get name() {
    return this.#name;
  }

  get message() {
    return this.#message;
  }

  get code() {
    return CODES[this.#name] ?? 0;
  }

  static {
    internals.isDOMException = (value) => typeof value === "object" && value !== null && #name in value;
    internals.domExceptionText = (value) => `${value.#name}: ${value.#message}`;
  }
}
ObjectSetPrototypeOf(DOMException.prototype, ErrorPrototype ?? primordials.Error.prototype);
internals.defineInterface(DOMException);
for (let i = 0; i < CONSTANTS.length; i += 2) {
  const descriptor = { __proto__: null, value: CONSTANTS[i + 1], enumerable: true };
  ObjectDefineProperty(DOMException, CONSTANTS[i], descriptor);
  ObjectDefineProperty(DOMException.prototype, CONSTANTS[i], descriptor);
}

// Kinds of host::HostError, as web/op.rs numbers them.
internals.hostError = (kind, message) => {
  if (kind === 1) return new RangeError(message);
  if (kind === 2) return new DOMException(message, "AbortError");
  return new TypeError(message);
};

// Hands an exception that no user code can catch to the log: an unhandled rejection.
internals.reportException = (error) => {
  primordials.PromiseReject(error);
};

internals.requireArguments = (given, needed, what) => {
  if (given < needed) {
    const plural = needed === 1 ? "" : "s";
    throw new TypeError(`${what} requires at least ${needed} argument${plural}, but only ${given} present`);
  }
};

internals.DOMException = DOMException;
internals.exposed.DOMException = DOMException;

internals.queueMicrotask = (callback) => {
  primordials.PromisePrototypeThen(primordials.PromiseResolve(undefined), () => {
    callback();
  });
};
