//! Operations of requests, responses, bodies and `fetch`.

use super::exception::exception_from;
use super::fields;
use super::host::{
    OutgoingBody, ReadOutcome, RequestId, ResponseHead, StreamId, WriteOutcome, WriterId,
};
use super::op::{OpError, OpResult, host, id, ops, text, text_or_bytes, throw, uint8_array};

ops![
    op_respond,
    op_fail,
    op_hold,
    op_release,
    op_read,
    op_cancel_read,
    op_write,
    op_close,
];

/// A body as JavaScript hands it over: null none, undefined a stream, else the whole.
pub(super) fn outgoing_body(
    scope: &mut v8::PinScope<'_, '_>,
    value: v8::Local<'_, v8::Value>,
) -> OpResult<OutgoingBody> {
    if value.is_null() {
        Ok(OutgoingBody::Empty)
    } else if value.is_undefined() {
        Ok(OutgoingBody::Stream)
    } else {
        Ok(OutgoingBody::Full(text_or_bytes(scope, value)?))
    }
}

/// `(request, status, content type if that is the only field, fields, body) -> writer or 0`
fn op_respond(
    scope: &mut v8::PinScope<'_, '_>,
    args: v8::FunctionCallbackArguments<'_>,
    mut rv: v8::ReturnValue<'_, v8::Value>,
) {
    let result = (|| {
        let request = RequestId(id(args.get(0))?);
        let status = u16::try_from(id(args.get(1))?)
            .ok()
            .filter(|status| (200..=599).contains(status))
            .ok_or(OpError::Type("status out of range"))?;
        let headers = match args.get(2) {
            none if none.is_null() => fields::from_string(scope, args.get(3))?,
            only => fields::content_type(scope, only)?,
        };
        let body = outgoing_body(scope, args.get(4))?;
        let head = ResponseHead { status, headers };
        Ok(host(scope)?.respond(request, head, body)?)
    })();
    match result {
        Ok(writer) => rv.set_uint32(writer.map_or(0, |writer| writer.0)),
        Err(error) => throw(scope, error),
    }
}

/// `(request, error)`
fn op_fail(
    scope: &mut v8::PinScope<'_, '_>,
    args: v8::FunctionCallbackArguments<'_>,
    _: v8::ReturnValue<'_, v8::Value>,
) {
    let result = (|| {
        let request = RequestId(id(args.get(0))?);
        let exception = exception_from(scope, args.get(1));
        host(scope)?.fail(request, exception);
        Ok(())
    })();
    if let Err(error) = result {
        throw(scope, error);
    }
}

/// `(request)`
fn op_hold(
    scope: &mut v8::PinScope<'_, '_>,
    args: v8::FunctionCallbackArguments<'_>,
    _: v8::ReturnValue<'_, v8::Value>,
) {
    let result = id(args.get(0)).and_then(|id| {
        host(scope)?.hold(RequestId(id));
        Ok(())
    });
    if let Err(error) = result {
        throw(scope, error);
    }
}

/// `(request)`
fn op_release(
    scope: &mut v8::PinScope<'_, '_>,
    args: v8::FunctionCallbackArguments<'_>,
    _: v8::ReturnValue<'_, v8::Value>,
) {
    let result = id(args.get(0)).and_then(|id| {
        host(scope)?.release(RequestId(id));
        Ok(())
    });
    if let Err(error) = result {
        throw(scope, error);
    }
}

/// `(stream) -> bytes, null at the end, or the completion that brings either`
fn op_read(
    scope: &mut v8::PinScope<'_, '_>,
    args: v8::FunctionCallbackArguments<'_>,
    mut rv: v8::ReturnValue<'_, v8::Value>,
) {
    let result = (|| {
        let stream = StreamId(id(args.get(0))?);
        Ok(match host(scope)?.read(stream)? {
            ReadOutcome::Ready(Some(bytes)) => uint8_array(scope, Vec::from(bytes))?.into(),
            ReadOutcome::Ready(None) => v8::null(scope).into(),
            ReadOutcome::Wait(completion) => {
                v8::Integer::new_from_unsigned(scope, completion.0).into()
            }
        })
    })();
    match result {
        Ok(outcome) => rv.set(outcome),
        Err(error) => throw(scope, error),
    }
}

/// `(stream)`
fn op_cancel_read(
    scope: &mut v8::PinScope<'_, '_>,
    args: v8::FunctionCallbackArguments<'_>,
    _: v8::ReturnValue<'_, v8::Value>,
) {
    let result = id(args.get(0)).and_then(|id| {
        host(scope)?.cancel_read(StreamId(id));
        Ok(())
    });
    if let Err(error) = result {
        throw(scope, error);
    }
}

/// `(writer, bytes) -> completion to wait for, or 0`
fn op_write(
    scope: &mut v8::PinScope<'_, '_>,
    args: v8::FunctionCallbackArguments<'_>,
    mut rv: v8::ReturnValue<'_, v8::Value>,
) {
    let result = (|| {
        let writer = WriterId(id(args.get(0))?);
        let piece = text_or_bytes(scope, args.get(1))?;
        Ok(host(scope)?.write(writer, piece)?)
    })();
    match result {
        Ok(WriteOutcome::Accepted) => rv.set_uint32(0),
        Ok(WriteOutcome::Wait(completion)) => rv.set_uint32(completion.0),
        Err(error) => throw(scope, error),
    }
}

/// `(writer, undefined or why it is broken off)`
fn op_close(
    scope: &mut v8::PinScope<'_, '_>,
    args: v8::FunctionCallbackArguments<'_>,
    _: v8::ReturnValue<'_, v8::Value>,
) {
    let result = (|| {
        let writer = WriterId(id(args.get(0))?);
        let error = match args.get(1) {
            value if value.is_undefined() => None,
            value => Some(text(scope, value)?),
        };
        host(scope)?.close(writer, error);
        Ok(())
    })();
    if let Err(error) = result {
        throw(scope, error);
    }
}
