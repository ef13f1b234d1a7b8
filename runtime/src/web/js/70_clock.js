// Date, Intl.DateTimeFormat and Temporal.Now on the host's clock, which stands still while JavaScript runs.
"use strict";

const {
  Date: OriginalDate, DateParse, DatePrototypeToString, DateUTC, ObjectDefineProperty, ObjectGetOwnPropertyDescriptor,
  ReflectConstruct, ReflectOwnKeys, uncurryThis,
} = primordials;
const { op_now } = ops;

// A function, not a class: Date() without new gives a string.
function Date(...args) {
  if (new.target === undefined) return DatePrototypeToString(new OriginalDate(op_now()));
  return ReflectConstruct(OriginalDate, args.length === 0 ? [op_now()] : args, new.target);
}
ObjectDefineProperty(Date, "length", { __proto__: null, value: 7, configurable: true });
ObjectDefineProperty(Date, "prototype", { __proto__: null, value: OriginalDate.prototype, writable: false, enumerable: false });
ObjectDefineProperty(OriginalDate.prototype, "constructor", {
  __proto__: null, value: Date, writable: true, configurable: true,
});
const statics = { __proto__: null, now: { now: () => op_now() }.now, parse: DateParse, UTC: DateUTC };
const names = ReflectOwnKeys(statics);
for (let i = 0; i < names.length; i++) {
  ObjectDefineProperty(Date, names[i], { __proto__: null, value: statics[names[i]], writable: true, configurable: true });
}
internals.exposed.Date = Date;

// Formatting without a date formats now.
const { Intl } = globalThis;
if (Intl !== undefined) {
  const { prototype } = Intl.DateTimeFormat;
  const getFormat = uncurryThis(ObjectGetOwnPropertyDescriptor(prototype, "format").get);
  const formats = new primordials.WeakMap();
  const get = ObjectGetOwnPropertyDescriptor(
    {
      get format() {
        let format = primordials.WeakMapPrototypeGet(formats, this);
        if (format === undefined) {
          const original = getFormat(this);
          format = (date = undefined) => original(date === undefined ? op_now() : date);
          primordials.WeakMapPrototypeSet(formats, this, format);
        }
        return format;
      },
    },
    "format",
  ).get;
  ObjectDefineProperty(prototype, "format", { __proto__: null, get, configurable: true });
  const formatToParts = uncurryThis(prototype.formatToParts);
  const replacement = {
    formatToParts(date = undefined) {
      return formatToParts(this, date === undefined ? op_now() : date);
    },
  };
  ObjectDefineProperty(prototype, "formatToParts", {
    __proto__: null, value: replacement.formatToParts, writable: true, configurable: true,
  });
}

// https://tc39.es/proposal-temporal/#sec-temporal-now-object
internals.patchTemporal = () => {
  const { Temporal } = globalThis;
  if (Temporal === undefined) return;
  const fromMs = Temporal.Instant.fromEpochMilliseconds;
  const toZoned = uncurryThis(Temporal.Instant.prototype.toZonedDateTimeISO);
  const zoneId = Temporal.Now.timeZoneId;
  const zoned = Temporal.ZonedDateTime.prototype;
  const toDateTime = uncurryThis(zoned.toPlainDateTime);
  const toDate = uncurryThis(zoned.toPlainDate);
  const toTime = uncurryThis(zoned.toPlainTime);
  const now = (zone) => toZoned(fromMs(op_now()), zone === undefined ? zoneId() : zone);
  const members = {
    instant: () => fromMs(op_now()),
    zonedDateTimeISO: (zone = undefined) => now(zone),
    plainDateTimeISO: (zone = undefined) => toDateTime(now(zone)),
    plainDateISO: (zone = undefined) => toDate(now(zone)),
    plainTimeISO: (zone = undefined) => toTime(now(zone)),
  };
  const keys = ReflectOwnKeys(members);
  for (let i = 0; i < keys.length; i++) {
    ObjectDefineProperty(Temporal.Now, keys[i], {
      __proto__: null, value: members[keys[i]], writable: true, configurable: true,
    });
  }
};
