//! Operations of text encodings and base64.

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use encoding_rs::{Encoding, ISO_2022_JP, UTF_8, UTF_16BE, UTF_16LE};

use super::host::HostError;
use super::op::{
    OpError, OpResult, bytes, id, long_string, ops, short_text, string, text, throw, uint8_array,
    with_bytes,
};

/// Most bytes of UTF-8 that are decoded at a time.
const UTF_8_BYTES: usize = 128 << 20;
/// Most bytes of other encodings, which are decoded slowly: nothing interrupts native code.
const LEGACY_BYTES: usize = 8 << 20;

ops![
    op_encode,
    op_encode_into,
    op_decode_utf8,
    op_decode,
    op_encoding_name,
    op_atob,
    op_btoa,
];

/// `(string) -> Uint8Array` in UTF-8
fn op_encode(
    scope: &mut v8::PinScope<'_, '_>,
    args: v8::FunctionCallbackArguments<'_>,
    mut rv: v8::ReturnValue<'_, v8::Value>,
) {
    let result = text(scope, args.get(0)).and_then(|text| uint8_array(scope, text.into_bytes()));
    match result {
        Ok(array) => rv.set(array.into()),
        Err(error) => throw(scope, error),
    }
}

/// `(string, room in bytes) -> [UTF-16 units read, Uint8Array]`
fn op_encode_into(
    scope: &mut v8::PinScope<'_, '_>,
    args: v8::FunctionCallbackArguments<'_>,
    mut rv: v8::ReturnValue<'_, v8::Value>,
) {
    let result: OpResult<_> = (|| {
        let text = text(scope, args.get(0))?;
        let room = id(args.get(1))? as usize;
        let end = text.floor_char_boundary(room);
        let taken = &text[..end];
        let units = taken.encode_utf16().count();
        let units = v8::Number::new(scope, units as f64).into();
        let array = uint8_array(scope, taken.as_bytes().to_vec())?.into();
        Ok(v8::Array::new_with_elements(scope, &[units, array]))
    })();
    match result {
        Ok(array) => rv.set(array.into()),
        Err(error) => throw(scope, error),
    }
}

/// `(bytes) -> string`: <https://encoding.spec.whatwg.org/#utf-8-decode>, a byte order mark is dropped
fn op_decode_utf8(
    scope: &mut v8::PinScope<'_, '_>,
    args: v8::FunctionCallbackArguments<'_>,
    mut rv: v8::ReturnValue<'_, v8::Value>,
) {
    let result: OpResult<_> = (|| {
        with_bytes(args.get(0), |bytes| {
            let (text, _) = UTF_8.decode_with_bom_removal(bytes);
            long_string(scope, &text)
        })?
    })();
    match result {
        Ok(text) => rv.set(text.into()),
        Err(error) => throw(scope, error),
    }
}

/// `(label) -> name in lower case, or null`
fn op_encoding_name(
    scope: &mut v8::PinScope<'_, '_>,
    args: v8::FunctionCallbackArguments<'_>,
    mut rv: v8::ReturnValue<'_, v8::Value>,
) {
    match text(scope, args.get(0)) {
        Ok(label) => match Encoding::for_label_no_replacement(label.as_bytes()) {
            Some(encoding) => {
                rv.set(string(scope, &encoding.name().to_ascii_lowercase()).into());
            }
            None => rv.set_null(),
        },
        Err(error) => throw(scope, error),
    }
}

/// `(name, fatal, keep byte order mark, more follows, rest of the last call, bytes) -> null if fatal, or
/// [string, rest for the next call, whether the start has passed]`
fn op_decode(
    scope: &mut v8::PinScope<'_, '_>,
    args: v8::FunctionCallbackArguments<'_>,
    mut rv: v8::ReturnValue<'_, v8::Value>,
) {
    let result: OpResult<_> = (|| {
        let name = text(scope, args.get(0))?;
        let encoding =
            Encoding::for_label(name.as_bytes()).ok_or(OpError::Type("unknown encoding"))?;
        let fatal = args.get(1).is_true();
        let keep_mark = args.get(2).is_true();
        let more = args.get(3).is_true();
        let mut data = bytes(args.get(4))?;
        let piece = bytes(args.get(5))?;
        let limit = if encoding == UTF_8 {
            UTF_8_BYTES
        } else {
            LEGACY_BYTES
        };
        if data.len() + piece.len() > limit {
            return Err(OpError::Host(HostError::Range(format!(
                "more than {} MiB of {name} at a time",
                limit >> 20
            ))));
        }
        if data.is_empty() {
            data = piece;
        } else {
            data.extend_from_slice(&piece);
        }
        let pending = if more { pending(encoding, &data) } else { 0 };
        let (ready, rest) = data.split_at(data.len() - pending);
        let body = match mark_of(encoding) {
            Some(mark) if !keep_mark => ready.strip_prefix(mark).unwrap_or(ready),
            _ => ready,
        };
        let Some(decoded) = decode(encoding, body, fatal) else {
            return Ok(None);
        };
        let values = [
            long_string(scope, &decoded)?.into(),
            uint8_array(scope, rest.to_vec())?.into(),
            v8::Boolean::new(scope, !ready.is_empty()).into(),
        ];
        Ok(Some(v8::Array::new_with_elements(scope, &values)))
    })();
    match result {
        Ok(Some(array)) => rv.set(array.into()),
        Ok(None) => rv.set_null(),
        Err(error) => throw(scope, error),
    }
}

fn mark_of(encoding: &'static Encoding) -> Option<&'static [u8]> {
    if encoding == UTF_8 {
        Some(b"\xef\xbb\xbf")
    } else if encoding == UTF_16LE {
        Some(b"\xff\xfe")
    } else if encoding == UTF_16BE {
        Some(b"\xfe\xff")
    } else {
        None
    }
}

fn decode(encoding: &'static Encoding, data: &[u8], fatal: bool) -> Option<String> {
    if fatal {
        encoding
            .decode_without_bom_handling_and_without_replacement(data)
            .map(|text| text.into_owned())
    } else {
        Some(encoding.decode_without_bom_handling(data).0.into_owned())
    }
}

/// How many bytes at the end belong to a character that is not complete. No encoding has characters over four bytes;
/// ISO-2022-JP alone has states that outlive a character, so all of it waits for the end.
fn pending(encoding: &'static Encoding, data: &[u8]) -> usize {
    if encoding == ISO_2022_JP {
        return data.len();
    }
    if encoding.is_single_byte() {
        return 0;
    }
    let tail = data.len().min(3);
    if encoding == UTF_8 {
        return (1..=tail)
            .find(|length| {
                let end = &data[data.len() - length..];
                std::str::from_utf8(end)
                    .is_err_and(|error| error.valid_up_to() == 0 && error.error_len().is_none())
            })
            .unwrap_or(0);
    }
    // The decoder itself knows: what it gives without an end is what the complete characters give.
    let open = decode_part(encoding, data);
    (0..=tail)
        .find(|length| {
            let (text, _) = encoding.decode_without_bom_handling(&data[..data.len() - length]);
            text == open
        })
        .unwrap_or(0)
}

fn decode_part(encoding: &'static Encoding, data: &[u8]) -> String {
    let mut decoder = encoding.new_decoder_without_bom_handling();
    let room = decoder.max_utf8_buffer_length(data.len()).unwrap_or(0);
    let mut text = String::with_capacity(room);
    let _ = decoder.decode_to_string(data, &mut text, false);
    text
}

/// `(string) -> string, or null`: <https://infra.spec.whatwg.org/#forgiving-base64-decode>
fn op_atob(
    scope: &mut v8::PinScope<'_, '_>,
    args: v8::FunctionCallbackArguments<'_>,
    mut rv: v8::ReturnValue<'_, v8::Value>,
) {
    let result = short_text(scope, args.get(0)).and_then(|input| match forgiving_decode(&input) {
        Some(bytes) => v8::String::new_from_one_byte(scope, &bytes, v8::NewStringType::Normal)
            .ok_or(OpError::Type("the result is too long for a string"))
            .map(Some),
        None => Ok(None),
    });
    match result {
        Ok(Some(text)) => rv.set(text.into()),
        Ok(None) => rv.set_null(),
        Err(error) => throw(scope, error),
    }
}

fn forgiving_decode(input: &str) -> Option<Vec<u8>> {
    const FORGIVING: GeneralPurpose = GeneralPurpose::new(
        &alphabet::STANDARD,
        GeneralPurposeConfig::new()
            .with_decode_allow_trailing_bits(true)
            .with_decode_padding_mode(DecodePaddingMode::RequireNone),
    );
    let mut data: Vec<u8> = input
        .bytes()
        .filter(|byte| !matches!(byte, b' ' | b'\t' | b'\n' | b'\x0c' | b'\r'))
        .collect();
    if data.len().is_multiple_of(4) {
        for _ in 0..2 {
            if data.last() == Some(&b'=') {
                data.pop();
            }
        }
    }
    FORGIVING.decode(data).ok()
}

/// `(string) -> string, or null where a character is above U+00FF`
fn op_btoa(
    scope: &mut v8::PinScope<'_, '_>,
    args: v8::FunctionCallbackArguments<'_>,
    mut rv: v8::ReturnValue<'_, v8::Value>,
) {
    let result = short_text(scope, args.get(0)).and_then(|input| {
        let bytes: Result<Vec<u8>, _> = input.chars().map(|c| u8::try_from(u32::from(c))).collect();
        match bytes {
            Ok(bytes) => {
                let encoded = base64::engine::general_purpose::STANDARD.encode(bytes);
                long_string(scope, &encoded).map(Some)
            }
            Err(_) => Ok(None),
        }
    });
    match result {
        Ok(Some(text)) => rv.set(text.into()),
        Ok(None) => rv.set_null(),
        Err(error) => throw(scope, error),
    }
}
