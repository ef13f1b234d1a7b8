//! `structuredClone` on V8's serializer and deserializer.

use v8::{ValueDeserializerHelper, ValueSerializerHelper};

use super::op::{OpError, OpResult, ops, string, throw};

ops![op_clone];

/// How many buffers one call can transfer.
const MAX_TRANSFERS: u32 = 65_536;

/// Throws DOMExceptions made in JavaScript; objects of the Web APIs are not serializable.
struct Serializer {
    is_platform: v8::Global<v8::Function>,
    clone_error: v8::Global<v8::Function>,
}

impl Serializer {
    fn throw(&self, scope: &mut v8::PinScope<'_, '_>, message: v8::Local<'_, v8::String>) {
        let function = v8::Local::new(scope, &self.clone_error);
        let receiver = v8::undefined(scope).into();
        if let Some(error) = function.call(scope, receiver, &[message.into()]) {
            scope.throw_exception(error);
        }
    }
}

impl v8::ValueSerializerImpl for Serializer {
    fn throw_data_clone_error<'s>(
        &self,
        scope: &mut v8::PinScope<'s, '_>,
        message: v8::Local<'s, v8::String>,
    ) {
        self.throw(scope, message);
    }

    fn has_custom_host_object(&self, _: &v8::Isolate) -> bool {
        true
    }

    fn is_host_object<'s>(
        &self,
        scope: &mut v8::PinScope<'s, '_>,
        object: v8::Local<'s, v8::Object>,
    ) -> Option<bool> {
        let function = v8::Local::new(scope, &self.is_platform);
        let receiver = v8::undefined(scope).into();
        Some(function.call(scope, receiver, &[object.into()])?.is_true())
    }

    fn write_host_object<'s>(
        &self,
        scope: &mut v8::PinScope<'s, '_>,
        object: v8::Local<'s, v8::Object>,
        _: &dyn ValueSerializerHelper,
    ) -> Option<bool> {
        let name = object.get_constructor_name().to_rust_string_lossy(scope);
        let text = string(scope, &format!("A {name} cannot be cloned"));
        self.throw(scope, text);
        None
    }

    fn get_wasm_module_transfer_id(
        &self,
        scope: &mut v8::PinScope<'_, '_>,
        _: v8::Local<'_, v8::WasmModuleObject>,
    ) -> Option<u32> {
        let text = string(scope, "A WebAssembly.Module cannot be cloned");
        self.throw(scope, text);
        None
    }
}

struct Deserializer;

impl v8::ValueDeserializerImpl for Deserializer {}

/// `(value, buffers to transfer, isPlatform, cloneError) -> value`
fn op_clone<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    args: v8::FunctionCallbackArguments<'s>,
    mut rv: v8::ReturnValue<'s, v8::Value>,
) {
    match clone(scope, &args) {
        Ok(value) => rv.set(value),
        Err(error) => throw(scope, error),
    }
}

fn clone<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    args: &v8::FunctionCallbackArguments<'s>,
) -> OpResult<v8::Local<'s, v8::Value>> {
    let function = |index| {
        v8::Local::<v8::Function>::try_from(args.get(index))
            .map_err(|_| OpError::Type("expected a function"))
    };
    let is_platform = function(2)?;
    let clone_error = function(3)?;
    let buffers = transferred(scope, args.get(1))?;
    let context = scope.get_current_context();
    let serializer_impl = Serializer {
        is_platform: v8::Global::new(scope, is_platform),
        clone_error: v8::Global::new(scope, clone_error),
    };
    for buffer in &buffers {
        if buffer.was_detached() || !buffer.is_detachable() {
            let text = string(scope, "An ArrayBuffer to transfer is detached already");
            serializer_impl.throw(scope, text);
            return Err(OpError::Thrown);
        }
    }
    let serializer = v8::ValueSerializer::new(scope, Box::new(serializer_impl));
    serializer.write_header();
    for (id, buffer) in (0..).zip(&buffers) {
        serializer.transfer_array_buffer(id, *buffer);
    }
    let written = serializer.write_value(context, args.get(0));
    let data = serializer.release();
    if written != Some(true) {
        return Err(OpError::Thrown);
    }
    let deserializer = v8::ValueDeserializer::new(scope, Box::new(Deserializer), &data);
    if deserializer.read_header(context) != Some(true) {
        return Err(OpError::Thrown);
    }
    for (id, buffer) in (0..).zip(buffers) {
        // The getters that serializing calls may have detached it.
        if buffer.was_detached() {
            return Err(OpError::Type(
                "an ArrayBuffer was detached while it was transferred",
            ));
        }
        let store = buffer.get_backing_store();
        let moved = v8::ArrayBuffer::with_backing_store(scope, &store);
        if buffer.detach(None) != Some(true) {
            return Err(OpError::Type("an ArrayBuffer could not be transferred"));
        }
        deserializer.transfer_array_buffer(id, moved);
    }
    deserializer.read_value(context).ok_or(OpError::Thrown)
}

fn transferred<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    value: v8::Local<'s, v8::Value>,
) -> OpResult<Vec<v8::Local<'s, v8::ArrayBuffer>>> {
    let list =
        v8::Local::<v8::Array>::try_from(value).map_err(|_| OpError::Type("expected an array"))?;
    if list.length() > MAX_TRANSFERS {
        return Err(OpError::Type("too many ArrayBuffers to transfer"));
    }
    let mut buffers = Vec::new();
    for index in 0..list.length() {
        let item = list.get_index(scope, index).ok_or(OpError::Thrown)?;
        let buffer = v8::Local::<v8::ArrayBuffer>::try_from(item)
            .map_err(|_| OpError::Type("expected an ArrayBuffer"))?;
        buffers.push(buffer);
    }
    Ok(buffers)
}
