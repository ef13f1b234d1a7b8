// console, https://console.spec.whatwg.org/. A message is one call to the host, at most MAX_TEXT characters long.
"use strict";

const {
  ArrayIsArray, ArrayPrototypePush, Map, MapPrototypeDelete, MapPrototypeGet, MapPrototypeSet, Number,
  NumberPrototypeToFixed, ObjectDefineProperty, ReflectGetOwnPropertyDescriptor, ReflectOwnKeys,
  StringPrototypeIndexOf, StringPrototypePadEnd, StringPrototypeReplaceAll, StringPrototypeSlice, SymbolToStringTag,
} = primordials;
internals.need("50_inspect.js");
const { beginning, inspect, newBudget } = internals;
const { op_console, op_elapsed } = ops;

const MAX_TEXT = 8192;
const MAX_LABELS = 1000;
const DEBUG = 0, INFO = 1, WARN = 2, ERROR = 3;

// https://console.spec.whatwg.org/#formatter
function format(args, budget) {
  let text = "";
  let first = 0;
  if (args.length > 1 && typeof args[0] === "string") {
    first = 1;
    const template = beginning(args[0], MAX_TEXT);
    let from = 0;
    for (;;) {
      const at = StringPrototypeIndexOf(template, "%", from);
      if (at < 0 || at === template.length - 1) break;
      const kind = template[at + 1];
      text += budget.take(StringPrototypeSlice(template, from, at));
      from = at + 2;
      if (kind === "%") {
        text += budget.take("%");
      } else if (first < args.length && StringPrototypeIndexOf("sdifoOjc", kind) >= 0) {
        text += substitute(kind, args[first++], budget);
      } else {
        text += budget.take(`%${kind}`);
      }
    }
    text += budget.take(StringPrototypeSlice(template, from));
  }
  for (let i = first; i < args.length && budget.left > 0; i++) {
    if (i > 0) text += budget.take(" ");
    const arg = args[i];
    text += typeof arg === "string" ? budget.take(arg) : inspect(arg, budget, 0);
  }
  return text;
}

function substitute(kind, arg, budget) {
  switch (kind) {
    case "s":
      if (typeof arg === "string") return budget.take(arg);
      return inspect(arg, budget, typeof arg === "object" ? 4 : 0);
    case "d":
    case "i":
    case "f": {
      if (typeof arg === "bigint") return inspect(arg, budget, 0);
      if (typeof arg === "symbol" || typeof arg === "object" || typeof arg === "function") return budget.take("NaN");
      const number = kind === "d" ? Number(arg) : kind === "i" ? primordials.NumberParseInt(arg) : primordials.NumberParseFloat(arg);
      return inspect(number, budget, 0);
    }
    case "c": return "";
    default: return inspect(arg, budget, 0);
  }
}

let indent = "";
const counts = new Map();
const timers = new Map();

function print(level, text) {
  if (indent !== "") text = indent + StringPrototypeReplaceAll(StringPrototypeSlice(text, 0, MAX_TEXT), "\n", `\n${indent}`);
  op_console(level, text.length > MAX_TEXT + 1 ? `${StringPrototypeSlice(text, 0, MAX_TEXT)}\u2026` : text);
}

function log(level, args) {
  print(level, format(args, newBudget(MAX_TEXT)));
}

function labelOf(value) {
  return beginning(value === undefined ? "default" : `${value}`, 200);
}

function remember(map, key, value) {
  if (map.size >= MAX_LABELS && MapPrototypeGet(map, key) === undefined) return false;
  MapPrototypeSet(map, key, value);
  return true;
}

function trace(prefix, args, level) {
  const holder = {};
  primordials.ErrorCaptureStackTrace(holder, trace);
  let text = format(args, newBudget(MAX_TEXT / 2));
  text = text === "" ? prefix : `${prefix}: ${text}`;
  const stack = internals.userFrames(`${holder.stack}`);
  const at = StringPrototypeIndexOf(stack, "\n");
  print(level, at < 0 ? text : text + StringPrototypeSlice(stack, at));
}

// A table of rows and columns; anything that has no rows is logged as it is.
function table(data, columns) {
  if (typeof data !== "object" || data === null) return log(INFO, [data]);
  const keys = ReflectOwnKeys(data);
  const names = [];
  const rows = [];
  for (let i = 0; i < keys.length && rows.length < 100; i++) {
    const descriptor = ReflectGetOwnPropertyDescriptor(data, keys[i]);
    if (descriptor === undefined || !descriptor.enumerable || typeof keys[i] === "symbol") continue;
    const row = { __proto__: null, index: keys[i], cells: { __proto__: null } };
    const item = descriptor.value;
    if (typeof item === "object" && item !== null) {
      const fields = ArrayIsArray(columns) ? columns : ReflectOwnKeys(item);
      for (let f = 0; f < fields.length && f < 20; f++) {
        const field = ReflectGetOwnPropertyDescriptor(item, fields[f]);
        if (field === undefined || !field.enumerable || typeof fields[f] === "symbol") continue;
        const name = `${fields[f]}`;
        if (!has(names, name)) ArrayPrototypePush(names, name);
        row.cells[name] = cell(field.value);
      }
    } else {
      if (!has(names, "Values")) ArrayPrototypePush(names, "Values");
      row.cells.Values = cell(item);
    }
    ArrayPrototypePush(rows, row);
  }
  const header = ["(index)"];
  for (let i = 0; i < names.length; i++) ArrayPrototypePush(header, names[i]);
  const lines = [header];
  for (let r = 0; r < rows.length; r++) {
    const line = [rows[r].index];
    for (let i = 0; i < names.length; i++) ArrayPrototypePush(line, rows[r].cells[names[i]] ?? "");
    ArrayPrototypePush(lines, line);
  }
  let text = "";
  for (let l = 0; l < lines.length; l++) {
    let line = "";
    for (let c = 0; c < header.length; c++) {
      let width = 0;
      for (let r = 0; r < lines.length; r++) if (lines[r][c].length > width) width = lines[r][c].length;
      line += `${c === 0 ? "" : " | "}${StringPrototypePadEnd(lines[l][c], width)}`;
    }
    text += l === 0 ? line : `\n${line}`;
    if (text.length > MAX_TEXT) break;
  }
  print(INFO, text);
}

function has(list, name) {
  for (let i = 0; i < list.length; i++) if (list[i] === name) return true;
  return false;
}

function cell(value) {
  return inspect(value, newBudget(60), 4);
}

const methods = {
  assert(condition = false, ...args) {
    if (condition) return;
    if (args.length === 0) print(ERROR, "Assertion failed");
    else if (typeof args[0] === "string") {
      args[0] = `Assertion failed: ${args[0]}`;
      log(ERROR, args);
    } else {
      print(ERROR, `Assertion failed ${format(args, newBudget(MAX_TEXT))}`);
    }
  },
  clear() {
    indent = "";
  },
  count(label = undefined) {
    const key = labelOf(label);
    const count = (MapPrototypeGet(counts, key) ?? 0) + 1;
    if (remember(counts, key, count)) print(INFO, `${key}: ${count}`);
  },
  countReset(label = undefined) {
    const key = labelOf(label);
    if (!MapPrototypeDelete(counts, key)) print(WARN, `Count for '${key}' does not exist`);
  },
  debug(...args) {
    log(DEBUG, args);
  },
  dir(value = undefined) {
    log(INFO, [typeof value === "string" ? inspect(value, newBudget(MAX_TEXT), 0) : value]);
  },
  dirxml(...args) {
    log(INFO, args);
  },
  error(...args) {
    log(ERROR, args);
  },
  group(...args) {
    if (args.length > 0) log(INFO, args);
    if (indent.length < 40) indent += "  ";
  },
  groupCollapsed(...args) {
    if (args.length > 0) log(INFO, args);
    if (indent.length < 40) indent += "  ";
  },
  groupEnd() {
    indent = StringPrototypeSlice(indent, 2);
  },
  info(...args) {
    log(INFO, args);
  },
  log(...args) {
    log(INFO, args);
  },
  table(data = undefined, columns = undefined) {
    table(data, columns);
  },
  time(label = undefined) {
    const key = labelOf(label);
    if (MapPrototypeGet(timers, key) !== undefined) print(WARN, `Timer '${key}' already exists`);
    else remember(timers, key, op_elapsed());
  },
  timeEnd(label = undefined) {
    const key = labelOf(label);
    if (elapsed(key, [])) MapPrototypeDelete(timers, key);
  },
  timeLog(label = undefined, ...args) {
    elapsed(labelOf(label), args);
  },
  trace(...args) {
    trace("Trace", args, DEBUG);
  },
  warn(...args) {
    log(WARN, args);
  },
};

function elapsed(key, args) {
  const start = MapPrototypeGet(timers, key);
  if (start === undefined) {
    print(WARN, `Timer '${key}' does not exist`);
    return false;
  }
  const rest = args.length === 0 ? "" : ` ${format(args, newBudget(MAX_TEXT))}`;
  print(INFO, `${key}: ${NumberPrototypeToFixed(op_elapsed() - start, 3)}ms${rest}`);
  return true;
}

const console = {};
const keys = ReflectOwnKeys(methods);
for (let i = 0; i < keys.length; i++) {
  ObjectDefineProperty(console, keys[i], {
    __proto__: null, value: methods[keys[i]], writable: true, configurable: true, enumerable: true,
  });
}
ObjectDefineProperty(console, SymbolToStringTag, { __proto__: null, value: "console", configurable: true });

internals.logError = (text, error) => log(ERROR, [text, error]);
internals.exposed.console = console;

// Objects of this layer, whose state is private.
internals.inspectPlatform = (value, inner) => {
  if (internals.isHeaders(value)) {
    const object = { __proto__: null };
    const list = internals.headersList(value);
    for (let i = 0; i < list.length; i += 2) object[list[i]] = internals.headerValue(value, list[i]);
    return `Headers ${dropPrefix(inner(object))}`;
  }
  if (internals.isURL(value)) return `URL ${inner(internals.urlHref(value))}`;
  if (internals.isURLSearchParams(value)) return `URLSearchParams ${inner(internals.searchParamsText(value))}`;
  if (internals.isRequest(value)) {
    const { method, url } = internals.requestState(value);
    return `Request ${dropPrefix(inner({ __proto__: null, method, url }))}`;
  }
  if (internals.isResponse(value)) {
    const { status, statusText } = internals.responseState(value);
    return `Response ${dropPrefix(inner({ __proto__: null, status, statusText }))}`;
  }
  if (internals.isAbortSignal(value)) return `AbortSignal { aborted: ${internals.isAborted(value)} }`;
  if (internals.isReadableStream(value)) return `ReadableStream { locked: ${internals.streams.isLocked(value)} }`;
  return undefined;
};

function dropPrefix(text) {
  const prefix = "[Object: null prototype] ";
  return primordials.StringPrototypeStartsWith(text, prefix) ? StringPrototypeSlice(text, prefix.length) : text;
}
