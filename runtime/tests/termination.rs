//! V8 by itself: whatever tier a loop is in, it obeys a termination within a slice of its budget (src/isolate/ffi_tiering.rs).
#![allow(clippy::unwrap_used)]

use isolet_runtime::isolate::platform;

/// A slice is 16 KiB of bytecode, and a round of [`source`]'s loop has more than 16 bytes.
const MOST_ROUNDS: i32 = 1024;

/// A loop of natives, in a function with so many statements more, that was called so many times before. It is terminated in
/// round number `stop`, and counts its rounds from there.
fn source(statements: usize, warm: u32, stop: u32) -> String {
    let more = "last = last * 2 | 0;".repeat(statements);
    format!(
        "let after = 0;
         const shapes = [{{ a: 1 }}, {{ b: 1, a: 1 }}, {{ c: 1, a: 1 }}, {{ d: 1, a: 1 }}];
         function loop(last, stop) {{
           if (last < 0) {{ {more} }}
           for (let round = 0, kept; round < last; round++) {{
             kept = new Array(10).fill(round);
             // Inline caches that change put off the decision about the tier.
             if (round < 40) kept = shapes[round >> 3 & 3].a;
             after++;
             if (round === stop) {{ terminate(); after = 0; }}
           }}
         }}
         for (let time = 0; time < {warm}; time++) loop(10, -1);
         loop(Infinity, {stop});"
    )
}

fn terminate(scope: &mut v8::PinScope, _: v8::FunctionCallbackArguments, _: v8::ReturnValue) {
    scope.terminate_execution();
}

/// How many rounds the loop goes on.
fn rounds_after_termination(source: &str) -> i32 {
    let mut isolate = v8::Isolate::new(v8::CreateParams::default());
    v8::scope!(let scope, &mut isolate);
    let context = v8::Context::new(scope, v8::ContextOptions::default());
    let scope = &mut v8::ContextScope::new(scope, context);
    let name = v8::String::new(scope, "terminate").unwrap();
    let function = v8::Function::new(scope, terminate).unwrap();
    context
        .global(scope)
        .set(scope, name.into(), function.into());
    let mut run = |source: &str| {
        v8::tc_scope!(let scope, scope);
        let source = v8::String::new(scope, source).unwrap();
        let script = v8::Script::compile(scope, source, None).unwrap();
        let result = script
            .run(scope)
            .map(|value| value.int32_value(scope).unwrap());
        scope.cancel_terminate_execution();
        result
    };
    assert_eq!(run(source), None);
    run("after").unwrap()
}

#[test]
fn a_loop_obeys_within_a_slice_of_its_budget() {
    platform::initialize(1);
    for statements in [0, 200, 2000, 20_000] {
        for warm in [0, 1, 10, 100, 300, 1000, 3000] {
            for stop in [0, 45, 1000, 50_000] {
                let rounds = rounds_after_termination(&source(statements, warm, stop));
                assert!(
                    rounds <= MOST_ROUNDS,
                    "{statements} statements, called {warm} times, terminated in round {stop}: {rounds} rounds more"
                );
            }
        }
    }
}
