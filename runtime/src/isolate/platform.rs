//! Flags and initialisation of V8: once in a process, before any other thread is made (threads made earlier crash on CPUs
//! with protection keys).

use crate::limits::cpu;

/// Flags that hold for every isolate of the process.
const FLAGS: &str = concat!(
    // V8 15.2 drops the interrupt check of an endless loop around an inlined short one (`for (;;) new Array(1000).fill(1)`)
    // in this phase: such a loop could never be ended. tests/limits.rs shows it.
    "--no-turboshaft-loop-unrolling ",
    // It goes by what V8 notes where ffi_tiering stands in for it.
    "--no-profile-guided-optimization ",
    // Largest WebAssembly memory, 512 MiB; a module's own is bounded by its limits.memory (see `wasm`).
    "--wasm-max-mem-pages=8192 ",
    // JAVASCRIPT_STACK_BYTES, in KiB.
    "--stack-size=984 ",
    // A collection by memory pressure would throw away the code of all WebAssembly modules of the process.
    "--no-flush-liftoff-code ",
    // Frames of a stack trace.
    "--stack-trace-limit=20 ",
    // Threads that help one collection to mark. Each isolate has 2.7 KB ready for each of them, 7 by default.
    "--concurrent-marking-max-worker-num=1",
);

/// Stack that JavaScript may use; it is V8's own default.
pub(super) const JAVASCRIPT_STACK_BYTES: usize = 984 << 10;
/// Stack of a thread that runs JavaScript.
pub const STACK_BYTES: usize = 4 << 20;

/// Initialises V8 with so many helper threads (compilers, garbage collector).
pub fn initialize(helper_threads: u32) {
    // Where the kernel takes them without being asked, the first access to each table of an isolate would take 2 MiB. One that
    // knows no such call has none.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    v8::V8::set_flags_from_string(FLAGS);
    // Of its own, V8 reads a file, which the worker may not, and then takes the time of day.
    v8::V8::set_entropy_source(|seed: &mut [u8]| getrandom::fill(seed).is_ok());
    let platform = v8::new_default_platform(helper_threads, false).make_shared();
    v8::V8::initialize_platform(platform);
    v8::V8::initialize();
}

/// Before `initialize`, for the process that makes the snapshot: what V8 draws by chance, such as the seed of its hash tables,
/// which every isolate made from the snapshot has too, follows from this number.
pub(super) fn seed(seed: u64) {
    // 0 means random; V8 refuses what has the highest bit, and all flags after it.
    let (hash, random) = ((seed >> 1) | 1, (seed >> 33) | 1);
    v8::V8::set_flags_from_string(&format!("--hash-seed={hash} --random-seed={random}"));
}

/// Runs what V8 has queued for an isolate's own thread (finalisation of garbage collection, compiled code), bounded. That may
/// call the tenant's code: callbacks of a `FinalizationRegistry`, a getter `then` on what a promise is resolved with. So it is
/// for the section whose CPU time is metered, and nothing runs once that was terminated: nobody would end it again.
pub(super) fn run_foreground_tasks(isolate: &v8::Isolate) {
    const AT_ONCE: usize = 16;
    let platform = v8::V8::get_current_platform();
    for _ in 0..AT_ONCE {
        if cpu::is_terminated() || !v8::Platform::pump_message_loop(&platform, isolate, false) {
            break;
        }
    }
}
