//! Operations of text encodings and base64.

use super::op::{OpResult, bytes, long_string, ops, text, throw, uint8_array};

ops![op_encode, op_decode_utf8];

/// `(string) -> Uint8Array` in UTF-8
fn op_encode(
    scope: &mut v8::PinScope<'_, '_>,
    args: v8::FunctionCallbackArguments<'_>,
    mut rv: v8::ReturnValue<'_, v8::Value>,
) {
    let result =
        text(scope, args.get(0)).and_then(|text| uint8_array(scope, text.into_bytes()));
    match result {
        Ok(array) => rv.set(array.into()),
        Err(error) => throw(scope, error),
    }
}

/// `(bytes) -> string`: https://encoding.spec.whatwg.org/#utf-8-decode, a byte order mark is dropped
fn op_decode_utf8(
    scope: &mut v8::PinScope<'_, '_>,
    args: v8::FunctionCallbackArguments<'_>,
    mut rv: v8::ReturnValue<'_, v8::Value>,
) {
    let result: OpResult<_> = (|| {
        let bytes = bytes(args.get(0))?;
        let (text, _) = encoding_rs::UTF_8.decode_with_bom_removal(&bytes);
        long_string(scope, &text)
    })();
    match result {
        Ok(text) => rv.set(text.into()),
        Err(error) => throw(scope, error),
    }
}
