//! Room for handles that stays with an isolate.

use crate::harness::{self, on_fresh_thread};

/// A block of V8's for handles: 1,022 addresses.
const BLOCK_BYTES: usize = 1022 * 8;

/// Enters an isolate; where its first handle lay.
fn first_handle(isolate: &v8::SharedIsolate) -> usize {
    let mut locker = isolate.lock();
    v8::scope!(let scope, &mut *locker);
    let first = v8::String::new(scope, "first").unwrap();
    std::ptr::from_ref(&*first).addr()
}

#[test]
fn the_next_entry_uses_the_same_block_on_whatever_thread() {
    on_fresh_thread(|| {
        let isolate = harness::isolate();
        // SAFETY: nothing is attached to it, and it is on the thread that made it.
        #[allow(unsafe_code)]
        let isolate = unsafe { isolate.try_into_shared() }.unwrap();
        let first = first_handle(&isolate);
        // Nobody else got it meanwhile.
        let others: Vec<_> = (0..64).map(|_| vec![1_u8; BLOCK_BYTES]).collect();
        let begins = |other: &Vec<u8>| other.as_ptr().addr() == first;
        assert!(!others.iter().any(begins));
        for _ in 0..3 {
            let again = std::thread::scope(|threads| {
                threads.spawn(|| first_handle(&isolate)).join().unwrap()
            });
            assert_eq!(again, first);
        }
    });
}
