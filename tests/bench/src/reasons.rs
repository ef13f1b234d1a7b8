//! Why a row misses its goal, as found by profiling (`perf record`, /proc/PID/smaps, V8's heap statistics) on a machine of two
//! cores. Shown only for rows that miss it in the run; to be kept true by whoever moves the figures.

/// What was found for the row of this name.
pub(crate) fn found(row: &str) -> Option<&'static str> {
    Some(match row {
        "cold-start-pooled" => {
            "V8 itself takes about half of the goal on a warm machine: 0.03 ms to compile and evaluate four lines, 0.04 ms for \
             the first call, each twice to four times as much on memory that no cache holds yet. On one core the pool's \
             thread makes the next isolate in the same time."
        }
        "cold-start-empty" => {
            "Isolate and context come from the snapshot in 0.8 ms (V8's own figures), and the first touch of 0.8 MB of new \
             memory costs some 200 page faults."
        }
        "memory" => {
            "V8's own tables of an isolate take 0.5 MB in C++ memory whatever runs (three stub caches of 60 KB, caches of code \
             addresses, the isolate, string and pointer tables); a bare context has 0.1 MB of heap. Isolates of the pool (up to \
             64) count too. With the bundle of 100 KB: its 420 functions are objects of each instance's own heap, and its \
             compiled code lies there as well."
        }
        "alive" => {
            "Heaps live in V8's cage of 4 GiB in pages of 256 KiB: an idle hello has three or four of them, and a sixth of the \
             cage is kept for those that run."
        }
        "hello" | "echo" | "stream" => {
            "Of a hello's CPU time 57 % is the kernel's: two system calls, nearly all that hyper uses. What is ours is user \
             time: hyper's parser and timers a quarter, malloc a sixth, entering V8 and its JavaScript an eighth, the rest \
             admission, metering and the books of the request, spread over many small places."
        }
        "tenants" => {
            "Each request finds another isolate, whose code, maps and stack limits no cache holds: user time goes from 5 to 30 µs \
             a request. A function called now and then also stays in V8's interpreter, while the one tenant's is compiled. \
             workerd shows less of it because its one tenant is slower."
        }
        "neighbour" => {
            "The loop's function gets a new instance for each call, as each is ended at its limit; on one core these starts and \
             the pool's thread stand in the way of the quiet ones for a millisecond at a time. Twice the unloaded p99 \
             is less than a slice of the kernel's scheduler."
        }
        _ => return None,
    })
}
