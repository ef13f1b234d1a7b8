//! Operations of URL, on crate `url`.

use super::op::{OpResult, long_string, ops, text, throw};

ops![op_url_href];

/// `(input) -> href or null`
fn op_url_href(
    scope: &mut v8::PinScope<'_, '_>,
    args: v8::FunctionCallbackArguments<'_>,
    mut rv: v8::ReturnValue<'_, v8::Value>,
) {
    let result: OpResult<_> = (|| {
        let input = text(scope, args.get(0))?;
        match ::url::Url::parse(&input) {
            Ok(url) => Ok(Some(long_string(scope, url.as_str())?)),
            Err(_) => Ok(None),
        }
    })();
    match result {
        Ok(Some(href)) => rv.set(href.into()),
        Ok(None) => rv.set_null(),
        Err(error) => throw(scope, error),
    }
}
