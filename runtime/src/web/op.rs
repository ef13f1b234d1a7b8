//! What all native operations share: their table, the host in the isolate's slot, arguments, errors, bytes.
//!
//! An operation trusts none of its arguments, whatever calls it: a wrong type is a `TypeError`, never a panic.

use bytes::Bytes;
use v8::MapFnTo;

use super::host::{Host, HostError, HostSlot, RequestId};

/// A native operation, and under which name JavaScript finds it in `ops`.
pub(super) struct Op {
    pub(super) name: &'static str,
    pub(super) callback: v8::FunctionCallback,
}

impl Op {
    pub(super) fn new(name: &'static str, callback: impl MapFnTo<v8::FunctionCallback>) -> Self {
        Self {
            name,
            callback: callback.map_fn_to(),
        }
    }
}

/// The table of a file's operations, each under its own name.
macro_rules! ops {
    ($($op:ident),* $(,)?) => {
        pub(super) fn ops() -> Vec<$crate::web::op::Op> {
            vec![$($crate::web::op::Op::new(stringify!($op), $op)),*]
        }
    };
}
pub(super) use ops;

/// Why an operation throws.
#[derive(Debug)]
pub(super) enum OpError {
    /// A `TypeError`.
    Type(&'static str),
    /// What the host says.
    Host(HostError),
    /// JavaScript has thrown already.
    Thrown,
}

impl From<HostError> for OpError {
    fn from(error: HostError) -> Self {
        Self::Host(error)
    }
}

pub(super) type OpResult<T> = Result<T, OpError>;

/// Turns an error into a pending exception.
pub(super) fn throw(scope: &mut v8::PinScope<'_, '_>, error: OpError) {
    let exception = match error {
        OpError::Thrown => return,
        OpError::Type(text) => {
            let text = string(scope, text);
            v8::Exception::type_error(scope, text)
        }
        OpError::Host(error) => {
            let text = string(scope, &error.to_string());
            match error {
                HostError::Type(_) => v8::Exception::type_error(scope, text),
                HostError::Range(_) => v8::Exception::range_error(scope, text),
                HostError::Abort(_) => {
                    let exception = v8::Exception::error(scope, text);
                    if let Ok(object) = v8::Local::<v8::Object>::try_from(exception) {
                        let name = string(scope, "name");
                        let value = string(scope, "AbortError");
                        object.create_data_property(scope, name.into(), value.into());
                    }
                    exception
                }
            }
        }
    };
    scope.throw_exception(exception);
}

/// The host of this isolate; none while the snapshot is made.
pub(super) fn host<'a>(scope: &'a mut v8::PinScope<'_, '_>) -> OpResult<&'a mut dyn Host> {
    let request = continuation_request(scope);
    match scope.get_slot_mut::<HostSlot>() {
        Some(slot) => {
            let host = slot.0.as_mut();
            host.act_for(request);
            Ok(host)
        }
        None => Err(OpError::Type("not available while the snapshot is made")),
    }
}

/// The request that this JavaScript runs for: V8 carries it along every promise and microtask from where the entry set it.
fn continuation_request(scope: &v8::PinScope<'_, '_>) -> Option<RequestId> {
    let data = scope.get_continuation_preserved_embedder_data();
    let request = v8::Local::<v8::Uint32>::try_from(data).ok()?.value();
    (request != 0).then_some(RequestId(request))
}

/// A string for JavaScript; text over V8's maximum length becomes empty.
pub(super) fn string<'s>(scope: &v8::PinScope<'s, '_>, text: &str) -> v8::Local<'s, v8::String> {
    v8::String::new(scope, text).unwrap_or_else(|| v8::String::empty(scope))
}

/// A string for JavaScript, or a `RangeError` where V8 cannot hold it.
pub(super) fn long_string<'s>(
    scope: &v8::PinScope<'s, '_>,
    text: &str,
) -> OpResult<v8::Local<'s, v8::String>> {
    v8::String::new(scope, text)
        .ok_or_else(|| OpError::Host(HostError::Range("the text is too long for a string".into())))
}

/// Longest text that an operation copies, in UTF-16 code units: copies do not count as the tenant's heap.
const TEXT_UNITS: usize = 128 << 20;
/// Longest text that an operation works through (URLs, base64): nothing interrupts native code, so that it must be
/// short beside a CPU limit.
const SHORT_UNITS: usize = 8 << 20;

/// A string argument, lone surrogates replaced.
pub(super) fn text(scope: &v8::PinScope<'_, '_>, value: v8::Local<v8::Value>) -> OpResult<String> {
    bounded_text(scope, value, TEXT_UNITS)
}

/// A string argument of an operation that takes its time with each character.
pub(super) fn short_text(
    scope: &v8::PinScope<'_, '_>,
    value: v8::Local<v8::Value>,
) -> OpResult<String> {
    bounded_text(scope, value, SHORT_UNITS)
}

fn bounded_text(
    scope: &v8::PinScope<'_, '_>,
    value: v8::Local<v8::Value>,
    units: usize,
) -> OpResult<String> {
    Ok(bounded_string(value, units)?.to_rust_string_lossy(scope))
}

fn bounded_string<'s>(
    value: v8::Local<'s, v8::Value>,
    units: usize,
) -> OpResult<v8::Local<'s, v8::String>> {
    let string =
        v8::Local::<v8::String>::try_from(value).map_err(|_| OpError::Type("expected a string"))?;
    // Asked before the string is made flat, which allocates.
    if string.length() > units {
        return Err(OpError::Host(HostError::Range(format!(
            "the text is longer than {} Mi characters",
            units >> 20
        ))));
    }
    Ok(string)
}

/// A string of one byte a character (WebIDL's `ByteString`), at most so many.
pub(super) fn bytes_of_string(
    scope: &v8::PinScope<'_, '_>,
    value: v8::Local<v8::Value>,
    most: usize,
) -> OpResult<Vec<u8>> {
    let string = byte_string(value, most)?;
    let mut bytes = vec![0; string.length()];
    string.write_one_byte_v2(scope, 0, &mut bytes, v8::WriteFlags::empty());
    Ok(bytes)
}

/// Lends such a string, to something that runs no JavaScript; a short one without memory of its own.
pub(super) fn with_bytes_of_string<T>(
    scope: &v8::PinScope<'_, '_>,
    value: v8::Local<v8::Value>,
    most: usize,
    read: impl FnOnce(&[u8]) -> T,
) -> OpResult<T> {
    let string = byte_string(value, most)?;
    let mut short = [0; 64];
    match short.get_mut(..string.length()) {
        Some(bytes) => {
            string.write_one_byte_v2(scope, 0, bytes, v8::WriteFlags::empty());
            Ok(read(bytes))
        }
        None => Ok(read(&bytes_of_string(scope, value, most)?)),
    }
}

fn byte_string<'s>(
    value: v8::Local<'s, v8::Value>,
    most: usize,
) -> OpResult<v8::Local<'s, v8::String>> {
    let string = bounded_string(value, most)?;
    if string.contains_only_onebyte() {
        Ok(string)
    } else {
        Err(OpError::Type("a character is greater than U+00FF"))
    }
}

/// A 32-bit identifier.
pub(super) fn id(value: v8::Local<v8::Value>) -> OpResult<u32> {
    v8::Local::<v8::Uint32>::try_from(value)
        .map(|number| number.value())
        .map_err(|_| OpError::Type("expected an unsigned integer"))
}

/// A number argument.
pub(super) fn number(value: v8::Local<v8::Value>) -> OpResult<f64> {
    v8::Local::<v8::Number>::try_from(value)
        .map(|number| number.value())
        .map_err(|_| OpError::Type("expected a number"))
}

/// The bytes of a view, copied.
pub(super) fn bytes(value: v8::Local<v8::Value>) -> OpResult<Vec<u8>> {
    with_bytes(value, <[u8]>::to_vec)
}

/// Lends the bytes of a view, where they lie, to something that runs no JavaScript.
pub(super) fn with_bytes<T>(
    value: v8::Local<v8::Value>,
    read: impl FnOnce(&[u8]) -> T,
) -> OpResult<T> {
    let view = v8::Local::<v8::ArrayBufferView>::try_from(value)
        .map_err(|_| OpError::Type("expected a view of an ArrayBuffer"))?;
    let mut storage = [0; v8::TYPED_ARRAY_MAX_SIZE_IN_HEAP];
    Ok(read(view.get_contents(&mut storage)))
}

/// A new Uint8Array that takes the bytes over.
pub(super) fn uint8_array<'s>(
    scope: &v8::PinScope<'s, '_>,
    bytes: Vec<u8>,
) -> OpResult<v8::Local<'s, v8::Uint8Array>> {
    let length = bytes.len();
    let store = v8::ArrayBuffer::new_backing_store_from_vec(bytes).make_shared();
    let buffer = v8::ArrayBuffer::with_backing_store(scope, &store);
    v8::Uint8Array::new(scope, buffer, 0, length).ok_or(OpError::Thrown)
}

/// Bytes that a string or a view holds.
pub(super) fn text_or_bytes(
    scope: &v8::PinScope<'_, '_>,
    value: v8::Local<v8::Value>,
) -> OpResult<Bytes> {
    if value.is_string() {
        Ok(Bytes::from(text(scope, value)?.into_bytes()))
    } else {
        Ok(Bytes::from(bytes(value)?))
    }
}
