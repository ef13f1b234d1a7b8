//! Flags and initialisation of V8: once in a process, before any other thread is made (threads made earlier crash on CPUs
//! with protection keys).

/// Flags that hold for every isolate of the process.
///
/// `--single-threaded-gc` is not among them: the collector's helper threads belong to the platform's pool.
const FLAGS: &str = concat!(
    // Largest WebAssembly memory that any limit allows: 2 GiB.
    "--wasm-max-mem-pages=32768 ",
    // Stack that JavaScript may use, in KiB; threads that run it have STACK_BYTES.
    "--stack-size=984 ",
    // Frames of a stack trace.
    "--stack-trace-limit=20",
);

/// Stack of a thread that runs JavaScript.
pub const STACK_BYTES: usize = 4 << 20;

/// Initialises V8 with so many helper threads (compilers, garbage collector).
pub fn initialize(helper_threads: u32) {
    v8::V8::set_flags_from_string(FLAGS);
    let platform = v8::new_default_platform(helper_threads, false).make_shared();
    v8::V8::initialize_platform(platform);
    v8::V8::initialize();
}

/// Runs what V8 has queued for an isolate's own thread (finalisation of garbage collection, compiled code), bounded.
pub(super) fn run_foreground_tasks(isolate: &v8::Isolate) {
    const AT_ONCE: usize = 16;
    let platform = v8::V8::get_current_platform();
    for _ in 0..AT_ONCE {
        if !v8::Platform::pump_message_loop(&platform, isolate, false) {
            break;
        }
    }
}
