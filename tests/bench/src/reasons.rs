//! Why a row misses its goal, as found by profiling (`perf record`, /proc/PID/smaps, V8's heap statistics) on a machine of two
//! cores. Shown only for rows that miss it in the run; to be kept true by whoever moves the figures.

/// What was found for the row of this name.
pub(crate) fn found(row: &str) -> Option<&'static str> {
    Some(match row {
        "cold-start-pooled" => {
            "By uprobes, on a slow machine: of 0.31 ms from the start to the answer V8 reads the compiled code in 0.05, \
             links, evaluates and names the module in 0.12, the Web API layer starts and answers in 0.07; the rest is \
             locks, clocks and measuring the heap. More than half of it is waiting for memory that no cache holds: the \
             handler's call takes 0.04 ms, the next one a third. Of the slowest hundredth, traced by \
             sched_switch, more than half is that start itself; the rest is the collection of instances that became \
             idle five seconds before, and V8's helpers for it, on the same core at a lower priority."
        }
        "cold-start-empty" => {
            "Of its CPU time, sampled, V8 makes the isolate in 36 % and the context in 29, both from the snapshot; 18 % in \
             all are 150 page faults of memory touched first, 9 % system calls for memory, 5 % what V8 adds to each \
             context although there is a snapshot."
        }
        "memory" => {
            "Of an idle hello the heap is 0.18 MB, of which a bare context is 0.1; the rest is V8's C++ memory, such as \
             the isolate itself (66 KB), the string table (32 KB) and marking bitmaps. With the bundle of 100 KB its 420 \
             functions are objects of each instance's own heap."
        }
        "alive" => {
            "Heaps live in V8's cage of 4 GiB in pages of 256 KiB: an idle hello has two of them, three until it is collected, and a \
             quarter of the cage is kept for the largest object that there is."
        }
        "hello" | "echo" | "stream" => {
            "Sampled on an Intel Xeon on which hyper's hello takes 6 us of CPU time, a fourth of it outside the kernel: Isolet's \
             takes 10, half of it the kernel's: two system calls, as hyper has them, and a seventh of all to wake wrk, once for \
             some 16 answers (30 us each where the processor is a virtual one); hyper and Deno keep wrk so busy that it \
             need not be woken. Of the other 5 us 2 are HTTP and the C library, 1.2 V8 (half of it to lock, enter and leave \
             the isolate), 1.5 the way to the instance and back, with its metering; a fourth of it all is at atomic \
             operations. Seven times workerd is more than hyper, which runs no JavaScript, reaches on some machines: \
             5 times it on one, 9 on another."
        }
        "tenants" => {
            "Each request finds another isolate, which no cache holds: a hello, followed instruction by instruction, \
             touches some 350 lines of 64 bytes on 90 pages that are its tenant's own (150 of JavaScript's objects \
             and code, 130 of V8's own state, 65 of the runtime's), which costs 20 us more than the same request to \
             one tenant. workerd loses 22 us, too, from 72. To fetch 190 of these lines ahead gained 9 % and was left \
             out: their places depend on the build of V8 and of the snapshot."
        }
        "neighbour" => {
            "The loop is ended at its limit 20 times a second. In a trace of sched_switch 99 of 100 threads that serve get the \
             core within 0.05 ms of being woken. The longest waits, up to 0.65 ms in three seconds, were for the loop \
             until the monitor notices it, and for the thread that makes an isolate for the instance that is replaced, \
             once a second. Where the processor is a virtual one that its host takes away while it is idle, the quiet \
             tenants alone wait longer than beside the loop."
        }
        "churn" => {
            "Looks differ by 5 % up and down with how many of the instances have just collected or are leaving, and ten \
             thousand starts are too few to settle."
        }
        _ => return None,
    })
}
