//! Header fields between HTTP and JavaScript, which keeps them as one string: `name\nvalue\nname\nvalue`. A character stands
//! for one byte, as Fetch has it (its isomorphic decode).

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};

use super::op::{OpError, OpResult, bytes_of_string, with_bytes_of_string};

/// Bytes of all fields of one message that a handler may hand over.
const MAX_BYTES: usize = 1 << 20;

/// Fields that arrive. Those that speak of the connection are left out.
pub(super) fn string<'s>(
    scope: &v8::PinScope<'s, '_>,
    headers: &HeaderMap,
) -> v8::Local<'s, v8::String> {
    let bytes = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + 2);
    let mut text = Vec::with_capacity(bytes.sum());
    for (name, value) in headers {
        if is_of_connection(name) {
            continue;
        }
        if !text.is_empty() {
            text.push(b'\n');
        }
        text.extend_from_slice(name.as_str().as_bytes());
        text.push(b'\n');
        text.extend_from_slice(value.as_bytes());
    }
    v8::String::new_from_one_byte(scope, &text, v8::NewStringType::Normal)
        .unwrap_or_else(|| v8::String::empty(scope))
}

/// Fields that leave. Those of framing are left out: they are the HTTP library's own, whatever JavaScript sets; only
/// `content-length` is left to the host, which knows whether it can be true.
pub(super) fn from_string(
    scope: &v8::PinScope<'_, '_>,
    value: v8::Local<'_, v8::Value>,
) -> OpResult<HeaderMap> {
    let text = bytes_of_string(scope, value, MAX_BYTES)?;
    parse(Bytes::from(text))
}

/// A `content-type` that is the only field.
pub(super) fn content_type(
    scope: &v8::PinScope<'_, '_>,
    value: v8::Local<'_, v8::Value>,
) -> OpResult<HeaderMap> {
    let value = with_bytes_of_string(scope, value, MAX_BYTES, |text| match text {
        b"text/plain;charset=UTF-8" => Ok(HeaderValue::from_static("text/plain;charset=UTF-8")),
        b"application/json" => Ok(HeaderValue::from_static("application/json")),
        _ => HeaderValue::from_bytes(text),
    })?;
    let value = value.map_err(|_| OpError::Type("invalid header value"))?;
    let mut headers = HeaderMap::with_capacity(1);
    headers.insert(CONTENT_TYPE, value);
    Ok(headers)
}

fn parse(text: Bytes) -> OpResult<HeaderMap> {
    let mut headers = HeaderMap::new();
    if text.is_empty() {
        return Ok(headers);
    }
    let mut parts = text.split(|byte| *byte == b'\n');
    while let Some(name) = parts.next() {
        let value = parts
            .next()
            .ok_or(OpError::Type("header fields out of step"))?;
        let name =
            HeaderName::from_bytes(name).map_err(|_| OpError::Type("invalid header name"))?;
        let value = HeaderValue::from_maybe_shared(text.slice_ref(value))
            .map_err(|_| OpError::Type("invalid header value"))?;
        if !is_framing(&name) {
            headers
                .try_append(name, value)
                .map_err(|_| OpError::Type("too many header fields"))?;
        }
    }
    Ok(headers)
}

/// Fields that say how a message is framed or a connection kept.
fn is_framing(name: &HeaderName) -> bool {
    matches!(name.as_str(), "expect" | "host") || is_of_connection(name)
}

/// Fields that speak of one connection, not of the message.
fn is_of_connection(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "keep-alive"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> OpResult<Vec<(String, Vec<u8>)>> {
        let headers = parse(Bytes::copy_from_slice(text.as_bytes()))?;
        let pair = |(name, value): (&HeaderName, &HeaderValue)| {
            (name.as_str().to_owned(), value.as_bytes().to_vec())
        };
        Ok(headers.iter().map(pair).collect())
    }

    #[test]
    fn fields_keep_their_values_and_those_of_framing_go() {
        let text = "a\n1\nset-cookie\nx=1\nset-cookie\n\nconnection\nclose\nhost\nevil\nb\n\u{e9}";
        let list = parsed(text).unwrap();
        let names: Vec<_> = list.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["a", "set-cookie", "set-cookie", "b"]);
        assert_eq!(list[2].1, b"");
        assert_eq!(list[3].1, "\u{e9}".as_bytes());
        assert!(parsed("").unwrap().is_empty());
    }

    #[test]
    fn what_would_break_a_message_is_refused() {
        for text in [
            "a", "a b\nc", "\nv", "a\nb\nc", "a\nb\rc", "a\nb\0", "a\n1\n",
        ] {
            assert!(parsed(text).is_err(), "{text:?}");
        }
        let many: Vec<_> = (0..40_000).map(|n| format!("a{n}\n1")).collect();
        assert!(parsed(&many.join("\n")).is_err());
    }
}
