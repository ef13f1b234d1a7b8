//! Operations of `crypto`: the operating system's randomness.

use super::host::HostError;
use super::op::{OpError, OpResult, id, ops, string, throw, uint8_array};

ops![op_random, op_uuid];

/// Most bytes at a time, <https://w3c.github.io/webcrypto/#Crypto-method-getRandomValues>
const MAX_BYTES: u32 = 65_536;

fn fill(bytes: &mut [u8]) -> OpResult<()> {
    getrandom::fill(bytes)
        .map_err(|_| OpError::Host(HostError::Type("no randomness is available".to_owned())))
}

/// `(length) -> Uint8Array`
fn op_random(
    scope: &mut v8::PinScope<'_, '_>,
    args: v8::FunctionCallbackArguments<'_>,
    mut rv: v8::ReturnValue<'_, v8::Value>,
) {
    let result = (|| {
        let length = id(args.get(0))?;
        if length > MAX_BYTES {
            return Err(OpError::Type("too many random bytes"));
        }
        let mut bytes = vec![0; length as usize];
        fill(&mut bytes)?;
        uint8_array(scope, bytes)
    })();
    match result {
        Ok(array) => rv.set(array.into()),
        Err(error) => throw(scope, error),
    }
}

/// `() -> string`: a version 4 UUID, RFC 9562 section 5.4
fn op_uuid(
    scope: &mut v8::PinScope<'_, '_>,
    _: v8::FunctionCallbackArguments<'_>,
    mut rv: v8::ReturnValue<'_, v8::Value>,
) {
    let mut bytes = [0; 16];
    if let Err(error) = fill(&mut bytes) {
        return throw(scope, error);
    }
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let mut text = String::with_capacity(36);
    for (index, byte) in bytes.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        for nibble in [byte >> 4, byte & 15] {
            text.push(char::from_digit(u32::from(nibble), 16).unwrap_or('0'));
        }
    }
    rv.set(string(scope, &text).into());
}
