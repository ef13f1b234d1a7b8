//! Compiles a bundle's larger modules and runs nothing of them: what the agent keeps for the first start in a later worker.
//!
//! In a process of its own, `isolet compile`, which sees this one bundle: V8 trusts compiled code, so none may come from a
//! process in which another tenant's code could have run.
//!
//! Every function is compiled, also those that may never run: the first request then takes a fifth to a third of the CPU time.
//! But all of it lies in the heap of each instance. So where it is large, only what V8 compiles by itself is kept.

use isolet_crds::bundle::Bundle;
use v8::script_compiler::CompileOptions;

use super::generic::Generic;
use super::snapshot::Snapshot;
use super::{Blueprint, code, modules};
use crate::control::MAX_CODE_BYTES;

/// Heap of the isolate that compiles, in bytes. What the parser uses is not in it.
const HEAP_BYTES: usize = 256 << 20;

/// Most code of a revision of which every function is compiled, in bytes.
const MOST_EAGER_BYTES: usize = 512 << 10;

/// Why there is no code.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// There is no isolate to compile in.
    #[error("failed to make an isolate: {0}")]
    NoIsolate(String),
    /// No module is worth it, or compiles.
    #[error("the bundle has nothing to keep")]
    Nothing,
    /// It is more than the agent keeps.
    #[error("the code is too large to be kept")]
    TooLarge,
}

/// The code, as [`Blueprint::new`] takes it. Blocks for as long as V8 compiles.
pub fn compile(snapshot: Snapshot, bundle: Bundle) -> Result<Vec<u8>, CompileError> {
    let blueprint = Blueprint::new(bundle, Vec::new(), None, None);
    for (options, most_bytes) in [
        (CompileOptions::EagerCompile, MOST_EAGER_BYTES),
        (CompileOptions::NoCompileOptions, MAX_CODE_BYTES),
    ] {
        let code = compile_with(snapshot, &blueprint, options)?;
        if code.len() <= most_bytes {
            return Ok(code);
        }
    }
    Err(CompileError::TooLarge)
}

/// In an isolate of its own: one that has compiled a text remembers what it made of it.
fn compile_with(
    snapshot: Snapshot,
    blueprint: &Blueprint,
    options: CompileOptions,
) -> Result<Vec<u8>, CompileError> {
    let isolate = Generic::make(snapshot, HEAP_BYTES).map_err(CompileError::NoIsolate)?;
    let mut locker = isolate.shared.lock();
    let modules = {
        v8::scope_with_context!(scope, &mut *locker, &isolate.context);
        modules::compile_alone(scope, blueprint, options)
    };
    drop(locker);
    if modules.is_empty() {
        return Err(CompileError::Nothing);
    }
    Ok(code::encode(&modules))
}
