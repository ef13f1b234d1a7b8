//! Operations of `fetch`.

use super::fields;
use super::host::{CompletionId, OutboundRequest, Redirect};
use super::http::outgoing_body;
use super::op::{OpError, host, id, ops, text, throw};

ops![op_fetch, op_abort_fetch];

/// `(method, url, fields, body, redirect) -> [completion, writer or 0]`
fn op_fetch(
    scope: &mut v8::PinScope<'_, '_>,
    args: v8::FunctionCallbackArguments<'_>,
    mut rv: v8::ReturnValue<'_, v8::Value>,
) {
    let result = (|| {
        let method = text(scope, args.get(0))?;
        let mut url = text(scope, args.get(1))?;
        if let Some(at) = url.find('#') {
            url.truncate(at);
        }
        let mut headers = fields::from_string(scope, args.get(2))?;
        // Bodies are handed to JavaScript as they arrive: what it cannot decode must not be asked for, not even by a
        // handler that passes its caller's headers on.
        headers.remove(http::header::ACCEPT_ENCODING);
        headers.remove(http::header::CONTENT_LENGTH);
        let body = outgoing_body(scope, args.get(3))?;
        let redirect = match id(args.get(4))? {
            0 => Redirect::Follow,
            1 => Redirect::Error,
            2 => Redirect::Manual,
            _ => return Err(OpError::Type("unknown redirect mode")),
        };
        let host = host(scope)?;
        let request = OutboundRequest {
            request: host.current_request(),
            method,
            url,
            headers,
            body,
            redirect,
        };
        Ok(host.fetch(request)?)
    })();
    match result {
        Ok(handle) => {
            let completion = v8::Integer::new_from_unsigned(scope, handle.completion.0).into();
            let writer = handle.writer.map_or(0, |writer| writer.0);
            let writer = v8::Integer::new_from_unsigned(scope, writer).into();
            rv.set(v8::Array::new_with_elements(scope, &[completion, writer]).into());
        }
        Err(error) => throw(scope, error),
    }
}

/// `(completion)`
fn op_abort_fetch(
    scope: &mut v8::PinScope<'_, '_>,
    args: v8::FunctionCallbackArguments<'_>,
    _: v8::ReturnValue<'_, v8::Value>,
) {
    let result = id(args.get(0)).and_then(|id| {
        host(scope)?.abort_fetch(CompletionId(id));
        Ok(())
    });
    if let Err(error) = result {
        throw(scope, error);
    }
}
