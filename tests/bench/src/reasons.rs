//! Why a row misses its goal, as found by profiling (`perf record`, /proc/PID/smaps, V8's heap statistics) on a machine of two
//! cores. Shown only for rows that miss it in the run; to be kept true by whoever moves the figures.

/// What was found for the row of this name.
pub(crate) fn found(row: &str) -> Option<&'static str> {
    Some(match row {
        "cold-start-pooled" => {
            "Timed on an AMD EPYC, of 0.2 ms from the choice of an isolate to its answer V8 reads the compiled code in 0.05, links, \
             evaluates and names the module in 0.05, the Web API layer starts and answers in 0.05; the rest is locks, clocks and \
             measuring the heap. Two thirds of it are waiting for memory that no cache holds, as the core did nothing for 20 ms \
             before: where one isolate after another is made all of it takes 0.07, and a second start right after the first half as \
             long. Of the slowest hundredth, traced by sched_switch, more than half is that start itself; the rest is the \
             collection of instances that became idle five seconds before, and V8's helpers for it, on the same core at a lower \
             priority."
        }
        "cold-start-empty" => {
            "Of the CPU time of such starts and of the pool's thread beside them, sampled on an Intel Xeon, V8 makes the isolate in 38 % \
             and the context in 33, both from the snapshot, of which 5 are what it adds to each context although there is one. \
             10 % in all are page faults, 9 calls that get memory before it is touched, 3 other system calls for memory."
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
            "Alternated on an AMD EPYC, medians of four runs: a hello takes 15.0 us of CPU time, of which 8.9 are the kernel's (two \
             system calls, as hyper has them); hyper's 10.7 and 8.6, Deno's 13.1 and 9.6. Of the other 6.1, sampled, a fifth is \
             V8's and JavaScript's, a fifth the way to the instance and back with its metering; hyper and tokio take 28 %, the \
             allocators 10, copies 8, clocks 7, and no function a tenth. Deno is one thread with one tenant, whose isolate is never \
             left, nothing routed, metered or bounded. Where other guests of the host slow down its memory, what runs more code \
             outside the kernel loses more. Since then 0.5 to 1.3 us less were seen, alternated on an Intel Xeon: 3.9 of 8.4 us are \
             outside the kernel there. Seven times workerd is more than hyper, which runs no JavaScript, reaches with echo on \
             all machines and with hello on some: 5 times it on one, 10 on another."
        }
        "tenants" => {
            "Each request finds another isolate, which no cache holds: a hello, followed instruction by instruction, \
             touches some 350 lines of 64 bytes on 90 pages that are its tenant's own (150 of JavaScript's objects \
             and code, 130 of V8's own state, 65 of the runtime's), which costs 20 us more than the same request to \
             one tenant. workerd loses 22 us, too, from 72. To fetch 190 of these lines ahead gained 9 % and was left \
             out: their places depend on the build of V8 and of the snapshot."
        }
        "neighbour" => {
            "The loop is ended at its limit 20 times a second. In a trace of sched_switch with the clients' times one of 20 requests \
             was held up, always in the same way: the monitor woke up on the core of the thread that served, and when it slept \
             again the kernel gave the core to the loop, to which it owed time. The monitor now looks again after 0.2 ms, which \
             took a sixth to a quarter of the p99. What is left are the agent, V8's helpers and the thread that makes an isolate for the \
             instance that is replaced, where their slices follow a hand-over: then the kernel owes the serving thread nothing. \
             Where the processor is a virtual one that its host takes away while it is idle, the quiet tenants alone wait longer \
             than beside the loop."
        }
        "churn" => {
            "Looks differ by 5 % up and down with how many of the instances have just collected or are leaving, and ten \
             thousand starts are too few to settle."
        }
        _ => return None,
    })
}
