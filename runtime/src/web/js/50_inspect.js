// Text of any value for the console: depth, width and length are bounded while it is built, getters are not called.
"use strict";

const {
  ArrayBufferPrototypeGetByteLength, ArrayIsArray, ArrayPrototypePush, BooleanPrototypeValueOf, DatePrototypeGetTime,
  DatePrototypeToISOString, FunctionPrototypeCall, JSONStringify, MapPrototypeForEach, MapPrototypeGetSize,
  NumberPrototypeToString, NumberPrototypeValueOf, ObjectGetPrototypeOf, ObjectIs, ReflectGetOwnPropertyDescriptor,
  ReflectOwnKeys, RegExpPrototypeExec, RegExpPrototypeToString, SetPrototypeForEach, SetPrototypeGetSize, String,
  StringPrototypeIncludes, StringPrototypeReplaceAll, StringPrototypeSlice, StringPrototypeValueOf,
  SymbolPrototypeToString, TypedArrayPrototypeGetLength, TypedArrayPrototypeGetSymbolToStringTag,
} = primordials;
const { op_enumerable_keys, op_kind, op_promise_state } = ops;

const MAX_DEPTH = 4;
const MAX_ITEMS = 100;
const MAX_STRING = 10_000;
const MAX_FLAT = 1 << 24;
const LINE = 76;
const IDENTIFIER = /^[a-zA-Z_$][a-zA-Z_$0-9]*$/;

// The beginning of a text. One of many million characters is only counted: cutting a string that was put together from
// pieces makes it flat first, which takes as much memory as it is long.
function beginning(text, length) {
  if (text.length <= length) return text;
  return text.length > MAX_FLAT ? `<${text.length} characters>` : `${StringPrototypeSlice(text, 0, length)}…`;
}
internals.beginning = beginning;

class Budget {
  left;
  seen = [];

  constructor(limit) {
    this.left = limit;
  }

  // Takes what is left of the budget for a piece of text.
  take(text) {
    if (this.left <= 0) return "";
    if (text.length > this.left) {
      const piece = beginning(text, this.left);
      this.left = 0;
      return piece;
    }
    this.left -= text.length;
    return text;
  }
}

function quote(text) {
  const cut = beginning(text, MAX_STRING);
  const json = JSONStringify(cut);
  if (!StringPrototypeIncludes(cut, '"') || StringPrototypeIncludes(cut, "'")) return json;
  return `'${StringPrototypeReplaceAll(StringPrototypeSlice(json, 1, -1), '\\"', '"')}'`;
}

function inspect(value, budget, depth) {
  if (budget.left <= 0) return "";
  switch (typeof value) {
    case "string": return budget.take(quote(value));
    case "number": return budget.take(ObjectIs(value, -0) ? "-0" : NumberPrototypeToString(value));
    case "bigint": return budget.take(bigintText(value));
    case "symbol": return budget.take(SymbolPrototypeToString(value));
    case "boolean":
    case "undefined": return budget.take(String(value));
    case "function": return inspectFunction(value, budget, depth);
  }
  if (value === null) return budget.take("null");
  return inspectObject(value, budget, depth);
}

function bigintText(value) {
  // Converting a huge one takes long; nobody reads it either.
  if (value > 1n << 4096n || value < -(1n << 4096n)) return "<huge>n";
  return `${String(value)}n`;
}

function dataProperty(object, key) {
  const descriptor = ReflectGetOwnPropertyDescriptor(object, key);
  return descriptor === undefined ? undefined : descriptor.value;
}

// Name of the constructor, by data properties only.
function constructorName(object) {
  let current = object;
  for (let i = 0; i < 8 && current !== null; i++) {
    const constructor = dataProperty(current, "constructor");
    if (typeof constructor === "function") {
      const name = dataProperty(constructor, "name");
      return typeof name === "string" && name !== "" ? beginning(name, 100) : "Object";
    }
    current = ObjectGetPrototypeOf(current);
  }
  return null;
}

function inspectFunction(value, budget, depth) {
  const name = dataProperty(value, "name");
  const label = typeof name === "string" && name !== "" ? beginning(name, 100) : "(anonymous)";
  const isClass = op_kind(value) === "class";
  const text = isClass ? `[class ${label}]` : `[Function: ${label}]`;
  return withProperties(value, text, [], budget, depth, "alone");
}

function inspectObject(value, budget, depth) {
  const { seen } = budget;
  for (let i = 0; i < seen.length; i++) if (seen[i] === value) return budget.take("[Circular]");
  const kind = op_kind(value);
  if (kind === "proxy") return budget.take("[Proxy]");
  const name = constructorName(value) ?? "[Object: null prototype]";
  if (kind === "error" || internals.isDOMException(value)) return inspectError(value, budget, depth);
  if (depth > MAX_DEPTH) return budget.take(ArrayIsArray(value) ? "[Array]" : `[${name}]`);
  ArrayPrototypePush(seen, value);
  try {
    return inspectKind(value, kind, name, budget, depth);
  } finally {
    seen.length--;
  }
}

function inspectKind(value, kind, name, budget, depth) {
  const inner = (item) => inspect(item, budget, depth + 1);
  const items = [];
  switch (kind) {
    case "array": {
      const count = value.length < MAX_ITEMS ? value.length : MAX_ITEMS;
      let holes = 0;
      for (let i = 0; i < count && budget.left > 0; i++) {
        const descriptor = ReflectGetOwnPropertyDescriptor(value, i);
        if (descriptor === undefined) {
          holes++;
          continue;
        }
        if (holes > 0) ArrayPrototypePush(items, emptyText(holes));
        holes = 0;
        ArrayPrototypePush(items, describe(descriptor, inner));
      }
      if (holes > 0) ArrayPrototypePush(items, emptyText(holes));
      if (value.length > count) ArrayPrototypePush(items, moreText(value.length - count));
      return withProperties(value, name === "Array" ? "" : `${name}(${value.length})`, items, budget, depth, "[");
    }
    case "map": {
      const size = MapPrototypeGetSize(value);
      let index = 0;
      MapPrototypeForEach(value, (item, key) => {
        if (index++ < MAX_ITEMS && budget.left > 0) ArrayPrototypePush(items, `${inner(key)} => ${inner(item)}`);
      });
      if (size > MAX_ITEMS) ArrayPrototypePush(items, moreText(size - MAX_ITEMS));
      return withProperties(value, `${name}(${size})`, items, budget, depth, "{");
    }
    case "set": {
      const size = SetPrototypeGetSize(value);
      let index = 0;
      SetPrototypeForEach(value, (item) => {
        if (index++ < MAX_ITEMS && budget.left > 0) ArrayPrototypePush(items, inner(item));
      });
      if (size > MAX_ITEMS) ArrayPrototypePush(items, moreText(size - MAX_ITEMS));
      return withProperties(value, `${name}(${size})`, items, budget, depth, "{");
    }
    case "typedarray": {
      const length = TypedArrayPrototypeGetLength(value);
      for (let i = 0; i < length && i < MAX_ITEMS && budget.left > 0; i++) ArrayPrototypePush(items, inner(value[i]));
      if (length > MAX_ITEMS) ArrayPrototypePush(items, moreText(length - MAX_ITEMS));
      return withProperties(value, `${TypedArrayPrototypeGetSymbolToStringTag(value)}(${length})`, items, budget, depth, "[");
    }
    case "arraybuffer":
      return budget.take(`ArrayBuffer { byteLength: ${ArrayBufferPrototypeGetByteLength(value)} }`);
    case "date": {
      const time = DatePrototypeGetTime(value);
      return withProperties(value, time === time ? DatePrototypeToISOString(value) : "Invalid Date", [], budget, depth, "alone");
    }
    case "regexp": return withProperties(value, RegExpPrototypeToString(value), [], budget, depth, "alone");
    case "promise": {
      const pair = op_promise_state(value);
      const state = pair[0];
      const result = pair[1];
      if (state === "pending") ArrayPrototypePush(items, "<pending>");
      else ArrayPrototypePush(items, `${state === "rejected" ? "<rejected> " : ""}${inner(result)}`);
      return withProperties(value, name, items, budget, depth, "{");
    }
    case "number": {
      const text = NumberPrototypeToString(NumberPrototypeValueOf(value));
      return withProperties(value, `[Number: ${text}]`, [], budget, depth, "alone");
    }
    case "string": return withProperties(value, `[String: ${quote(StringPrototypeValueOf(value))}]`, [], budget, depth, "alone");
    case "boolean": return withProperties(value, `[Boolean: ${BooleanPrototypeValueOf(value)}]`, [], budget, depth, "alone");
    case "weakmap": return budget.take(`${name} { <items unknown> }`);
    case "weakset": return budget.take(`${name} { <items unknown> }`);
    case "namespace": return withProperties(value, "[Module]", [], budget, depth, "{");
  }
  const platform = internals.inspectPlatform(value, inner);
  if (platform !== undefined) return platform;
  return withProperties(value, name === "Object" ? "" : name, [], budget, depth, "{");
}

function emptyText(count) {
  return `<${count} empty item${count === 1 ? "" : "s"}>`;
}

function moreText(count) {
  return `… ${count} more`;
}

function describe(descriptor, inner) {
  if (descriptor.get !== undefined) return descriptor.set !== undefined ? "[Getter/Setter]" : "[Getter]";
  if (descriptor.set !== undefined) return "[Setter]";
  return inner(descriptor.value);
}

// Own enumerable properties after what is particular to the kind, on one line or one a line. Style is the opening
// bracket, or "alone" where the prefix says enough without properties.
function withProperties(value, prefix, items, budget, depth, style) {
  const keys = op_enumerable_keys(value);
  let shown = 0;
  for (let i = 0; i < keys.length && budget.left > 0; i++) {
    if (shown++ >= MAX_ITEMS) {
      ArrayPrototypePush(items, moreText(keys.length - i));
      break;
    }
    const key = keys[i];
    const descriptor = ReflectGetOwnPropertyDescriptor(value, key);
    if (descriptor === undefined) continue;
    const label = typeof key === "symbol"
      ? `[${SymbolPrototypeToString(key)}]`
      : RegExpPrototypeExec(IDENTIFIER, key) !== null ? key : quote(key);
    ArrayPrototypePush(items, `${budget.take(label)}: ${describe(descriptor, (item) => inspect(item, budget, depth + 1))}`);
  }
  const open = style === "[" ? "[" : "{";
  const close = style === "[" ? "]" : "}";
  if (items.length === 0) return budget.take(style === "alone" ? prefix : `${prefix}${prefix === "" ? "" : " "}${open}${close}`);
  budget.take(prefix);
  const lead = prefix === "" ? "" : `${prefix} `;
  let total = lead.length;
  let multiline = false;
  for (let i = 0; i < items.length; i++) {
    total += items[i].length + 2;
    if (StringPrototypeIncludes(items[i], "\n")) multiline = true;
  }
  if (!multiline && total + depth * 2 <= LINE) return `${lead}${open} ${joinWith(items, ", ")} ${close}`;
  let indent = "\n";
  for (let i = 0; i <= depth; i++) indent += "  ";
  return `${lead}${open}${indent}${joinWith(items, `,${indent}`)}${StringPrototypeSlice(indent, 0, -2)}${close}`;
}

function joinWith(items, separator) {
  let text = "";
  for (let i = 0; i < items.length; i++) text += i === 0 ? items[i] : separator + items[i];
  return text;
}

// An error's stack, its cause, and its other own properties.
function inspectError(value, budget, depth) {
  for (let i = 0; i < budget.seen.length; i++) if (budget.seen[i] === value) return budget.take("[Circular]");
  ArrayPrototypePush(budget.seen, value);
  try {
    let text;
    try {
      const { stack } = value;
      text = typeof stack === "string" && stack !== "" ? internals.userFrames(beginning(stack, MAX_STRING)) : errorHead(value);
    } catch {
      text = errorHead(value);
    }
    if (depth > 0) {
      let indent = "\n";
      for (let i = 0; i < depth; i++) indent += "  ";
      text = StringPrototypeReplaceAll(beginning(text, MAX_STRING), "\n", indent);
    }
    text = budget.take(text);
    const items = [];
    const keys = ReflectOwnKeys(value);
    for (let i = 0; i < keys.length && items.length < MAX_ITEMS && budget.left > 0; i++) {
      const key = keys[i];
      const descriptor = ReflectGetOwnPropertyDescriptor(value, key);
      if (descriptor === undefined || key === "stack" || key === "message") continue;
      if (!descriptor.enumerable && key !== "cause" && key !== "errors") continue;
      const label = typeof key === "symbol" ? `[${SymbolPrototypeToString(key)}]` : descriptor.enumerable ? key : `[${key}]`;
      ArrayPrototypePush(items, `${budget.take(label)}: ${describe(descriptor, (item) => inspect(item, budget, depth + 1))}`);
    }
    return items.length === 0 ? text : `${text} { ${joinWith(items, ", ")} }`;
  } finally {
    budget.seen.length--;
  }
}

function errorHead(value) {
  if (internals.isDOMException(value)) return internals.domExceptionText(value);
  try {
    return FunctionPrototypeCall(primordials.Error.prototype.toString, value);
  } catch {
    return "an error without text";
  }
}

// A stack without the frames of this layer.
internals.userFrames = (stack) => {
  if (!StringPrototypeIncludes(stack, "isolet:")) return stack;
  const lines = primordials.StringPrototypeSplit(stack, "\n");
  const kept = [];
  for (let i = 0; i < lines.length; i++) {
    if (RegExpPrototypeExec(/^\s*at .*isolet:/, lines[i]) === null) ArrayPrototypePush(kept, lines[i]);
  }
  return joinWith(kept, "\n");
};

internals.newBudget = (limit) => new Budget(limit);
internals.inspect = inspect;
