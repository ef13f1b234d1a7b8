//! Operations of URL and URLSearchParams, on crate `url`.

use url::Url;
use url::form_urlencoded;
use url::quirks;

use super::op::{OpError, OpResult, long_string, ops, short_text, throw};

ops![
    op_url_href,
    op_url_parse,
    op_url_parts,
    op_url_set,
    op_form_decode,
    op_form_encode,
];

/// `(input) -> href or null`
fn op_url_href(
    scope: &mut v8::PinScope<'_, '_>,
    args: v8::FunctionCallbackArguments<'_>,
    rv: v8::ReturnValue<'_, v8::Value>,
) {
    let result = short_text(scope, args.get(0)).map(|input| Url::parse(&input).ok());
    give(scope, result, rv);
}

/// `(input, base or undefined) -> href or null`
fn op_url_parse(
    scope: &mut v8::PinScope<'_, '_>,
    args: v8::FunctionCallbackArguments<'_>,
    rv: v8::ReturnValue<'_, v8::Value>,
) {
    let result = (|| {
        let input = short_text(scope, args.get(0))?;
        if args.get(1).is_undefined() {
            return Ok(Url::parse(&input).ok());
        }
        let base = short_text(scope, args.get(1))?;
        Ok(Url::parse(&base).and_then(|base| base.join(&input)).ok())
    })();
    give(scope, result, rv);
}

fn give(
    scope: &mut v8::PinScope<'_, '_>,
    result: OpResult<Option<Url>>,
    mut rv: v8::ReturnValue<'_, v8::Value>,
) {
    let result = result.and_then(|url| match url {
        Some(url) => Ok(Some(long_string(scope, url.as_str())?)),
        None => Ok(None),
    });
    match result {
        Ok(Some(href)) => rv.set(href.into()),
        Ok(None) => rv.set_null(),
        Err(error) => throw(scope, error),
    }
}

fn parsed(scope: &v8::PinScope<'_, '_>, value: v8::Local<'_, v8::Value>) -> OpResult<Url> {
    Url::parse(&short_text(scope, value)?).map_err(|_| OpError::Type("not a serialized URL"))
}

/// `(href) -> [protocol, username, password, host, hostname, port, pathname, search, hash, origin]`
fn op_url_parts(
    scope: &mut v8::PinScope<'_, '_>,
    args: v8::FunctionCallbackArguments<'_>,
    mut rv: v8::ReturnValue<'_, v8::Value>,
) {
    let result: OpResult<_> = (|| {
        let url = parsed(scope, args.get(0))?;
        let origin = quirks::origin(&url);
        let parts = [
            quirks::protocol(&url),
            quirks::username(&url),
            quirks::password(&url),
            quirks::host(&url),
            quirks::hostname(&url),
            quirks::port(&url),
            quirks::pathname(&url),
            quirks::search(&url),
            quirks::hash(&url),
            &origin,
        ];
        let mut values = Vec::with_capacity(parts.len());
        for part in parts {
            values.push(long_string(scope, part)?.into());
        }
        Ok(v8::Array::new_with_elements(scope, &values))
    })();
    match result {
        Ok(array) => rv.set(array.into()),
        Err(error) => throw(scope, error),
    }
}

/// `(href, which, value) -> href, or null where the setter has no effect`
fn op_url_set(
    scope: &mut v8::PinScope<'_, '_>,
    args: v8::FunctionCallbackArguments<'_>,
    rv: v8::ReturnValue<'_, v8::Value>,
) {
    let result = (|| {
        let url = parsed(scope, args.get(0))?;
        let which = super::op::id(args.get(1))?;
        let value = short_text(scope, args.get(2))?;
        // A panic of the parser, should it have one, must not cross V8's frames.
        let changed = std::panic::catch_unwind(|| set(url, which, &value));
        Ok(changed.ok().flatten())
    })();
    give(scope, result, rv);
}

fn set(mut url: Url, which: u32, value: &str) -> Option<Url> {
    match which {
        0 => quirks::set_protocol(&mut url, value).ok()?,
        1 => quirks::set_username(&mut url, value).ok()?,
        2 => quirks::set_password(&mut url, value).ok()?,
        3 => quirks::set_host(&mut url, value).ok()?,
        4 => quirks::set_hostname(&mut url, value).ok()?,
        5 => quirks::set_port(&mut url, value).ok()?,
        6 => quirks::set_pathname(&mut url, value),
        7 => quirks::set_search(&mut url, value),
        8 => quirks::set_hash(&mut url, value),
        _ => return None,
    }
    Some(url)
}

/// `(text) -> string`: a name or value of application/x-www-form-urlencoded, decoded.
/// <https://url.spec.whatwg.org/#concept-urlencoded-parser>; JavaScript has split at `&` and `=`, so that it can be
/// interrupted where there are many.
fn op_form_decode(
    scope: &mut v8::PinScope<'_, '_>,
    args: v8::FunctionCallbackArguments<'_>,
    mut rv: v8::ReturnValue<'_, v8::Value>,
) {
    let result: OpResult<_> = (|| {
        let text = short_text(scope, args.get(0))?;
        // A piece has neither `&` nor, in a name, `=`: given as a value, it is one pair.
        let pair = format!("={text}");
        let decoded = form_urlencoded::parse(pair.as_bytes()).next();
        long_string(scope, decoded.as_ref().map_or("", |(_, value)| value))
    })();
    match result {
        Ok(text) => rv.set(text.into()),
        Err(error) => throw(scope, error),
    }
}

/// `(text) -> string`: <https://url.spec.whatwg.org/#concept-urlencoded-serializer> of one name or value
fn op_form_encode(
    scope: &mut v8::PinScope<'_, '_>,
    args: v8::FunctionCallbackArguments<'_>,
    mut rv: v8::ReturnValue<'_, v8::Value>,
) {
    let result: OpResult<_> = (|| {
        let text = short_text(scope, args.get(0))?;
        let encoded: String = form_urlencoded::byte_serialize(text.as_bytes()).collect();
        long_string(scope, &encoded)
    })();
    match result {
        Ok(text) => rv.set(text.into()),
        Err(error) => throw(scope, error),
    }
}
