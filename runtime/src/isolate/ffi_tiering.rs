//! How often V8's lower tiers look for a termination.
//!
//! Ignition, Sparkplug and Maglev count a function's bytecode, in loops and returns, down from a budget. They look for
//! interrupts when it is used up, and then decide whether to optimise the function. V8 chooses the budget for that decision
//! alone: hundreds or thousands of times the function's length, and 2^30 bytes while code is made for it in the background
//! or where it is too long to be optimised (`TieringManager::InterruptBudgetFor` in V8's src/execution/tiering-manager.cc).
//! A loop whose steps are natives obeyed a termination late, and with 2^30 bytes not at all.
//!
//! So V8 gets its budgets in slices, each of as much bytecode as takes a tenth of a millisecond, going by the thread's last one. When
//! a slice is used up, V8 looks for interrupts, and decides about the tier with the chance that the slice is of the whole
//! budget: in the mean after as much bytecode as without slices, with nothing to remember for a function. Where V8 would make a budget
//! longer because an inline cache has changed, as the function is better optimised later, that slice decides nothing.
//!
//! Unsafe code: the linker's `--wrap` (build.rs) has V8's calls of three of its functions come here, and here V8's own are called.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::time::{Duration, Instant};

/// Bytes of bytecode in a slice, where its steps are quick and where they take long.
const MOST: c_int = 16 << 10;
const LEAST: c_int = 64;
/// Time that a slice shall take. To look, at its end, takes a fraction of a microsecond.
const TIME: Duration = Duration::from_micros(100);

/// What a thread that runs JavaScript goes by.
struct Slices {
    bytes: Cell<c_int>,
    /// When this slice began; none where the time shall not count, as in the process that makes the snapshot.
    began: Cell<Option<Instant>>,
    /// An inline cache has changed in this slice.
    ic_changed: Cell<bool>,
    random: Cell<u64>,
}

thread_local! {
    static SLICES: Slices = const {
        Slices {
            bytes: Cell::new(MOST),
            began: Cell::new(None),
            ic_changed: Cell::new(false),
            random: Cell::new(0x9e37_79b9_7f4a_7c15),
        }
    };
}

/// This thread begins to run JavaScript: what it did before does not count.
pub fn entered(now: Instant) {
    SLICES.with(|slices| slices.began.set(Some(now)));
}

/// `Tagged<JSFunction>`: an object's address with its lowest bit set.
type Tagged = usize;
/// `std::optional<CodeKind>`: a byte, and a byte that says whether it is there.
type OptionalCodeKind = u16;
const NO_CODE_KIND: OptionalCodeKind = 0;
const TAG: usize = 1;
/// `BudgetModification::kRaise`.
const RAISE: c_int = 1;

unsafe extern "C" {
    fn v8__Isolate__GetCurrent() -> *mut c_void;

    #[link_name = "__real__ZN2v88internal14TieringManager18InterruptBudgetForEPNS0_7IsolateENS0_6TaggedINS0_10JSFunctionEEENSt4__Cr8optionalINS0_8CodeKindEEE"]
    fn v8_interrupt_budget_for(
        isolate: *mut c_void,
        function: Tagged,
        active_tier: OptionalCodeKind,
    ) -> c_int;

    #[link_name = "__real__ZN2v88internal14TieringManager15OnInterruptTickENS0_12DirectHandleINS0_10JSFunctionEEENS0_8CodeKindE"]
    fn v8_on_interrupt_tick(this: *mut c_void, function: *const Tagged, active_tier: u8);

    #[link_name = "_ZN2v88internal10JSFunction18SetInterruptBudgetEPNS0_7IsolateENS0_18BudgetModificationENSt4__Cr8optionalINS0_8CodeKindEEE"]
    fn v8_set_interrupt_budget(
        this: usize,
        isolate: *mut c_void,
        modification: c_int,
        active_tier: OptionalCodeKind,
    );
}

// Proof, for all that is unsafe below. V8 is exactly version 15.2 (Cargo.toml: `=152.2.0`), in which these are ordinary functions
// and methods of other object files than their callers. Their arguments are pointers, integers and classes of at most one
// word that C++ copies as such, so both x86-64's and arm64's C++ pass them as C does, `this` first: an object's address without its
// tag for `JSFunction`, the address of the slot that holds it for `DirectHandle`. What the linker cannot find is an error of
// the build. V8 calls them on the isolate's own thread, inside it, where no garbage is collected, and so are V8's own
// called here, with V8's own arguments. `NotifyICChanged` only makes a budget longer and notes what
// `--profile-guided-optimization` goes by, which is off (platform.rs): it may be left out. Nothing here panics.

/// V8 asks how much bytecode a function may run until its next tick.
#[unsafe(export_name = "__wrap__ZN2v88internal14TieringManager18InterruptBudgetForEPNS0_7IsolateENS0_6TaggedINS0_10JSFunctionEEENSt4__Cr8optionalINS0_8CodeKindEEE")]
extern "C" fn interrupt_budget_for(
    isolate: *mut c_void,
    function: Tagged,
    active_tier: OptionalCodeKind,
) -> c_int {
    // SAFETY: see above.
    unsafe { v8_interrupt_budget_for(isolate, function, active_tier) }
        .min(SLICES.with(|slices| slices.bytes.get()))
}

/// V8 has looked for interrupts and found none that ends the function, whose budget is used up.
#[unsafe(export_name = "__wrap__ZN2v88internal14TieringManager15OnInterruptTickENS0_12DirectHandleINS0_10JSFunctionEEENS0_8CodeKindE")]
extern "C" fn on_interrupt_tick(this: *mut c_void, function: *const Tagged, active_tier: u8) {
    // SAFETY: see above. The isolate that this thread has entered is the function's.
    unsafe {
        let isolate = v8__Isolate__GetCurrent();
        let budget = v8_interrupt_budget_for(isolate, *function, NO_CODE_KIND);
        if SLICES.with(|slices| slices.next(budget)) {
            v8_on_interrupt_tick(this, function, active_tier);
        } else {
            v8_set_interrupt_budget(*function - TAG, isolate, RAISE, NO_CODE_KIND);
        }
    }
}

/// V8 has noticed something new about the values in a function.
#[unsafe(export_name = "__wrap__ZN2v88internal14TieringManager15NotifyICChangedENS0_6TaggedINS0_14FeedbackVectorEEE")]
extern "C" fn notify_ic_changed() {
    SLICES.with(|slices| slices.ic_changed.set(true));
}

impl Slices {
    /// A slice is used up. Whether it is taken for the whole budget: true for one of as many as the budget has.
    fn next(&self, budget: c_int) -> bool {
        let bytes = self.bytes.get();
        if let Some(began) = self.began.get() {
            let now = Instant::now();
            self.began.set(Some(now));
            self.bytes.set(bytes_after(bytes, now - began));
        }
        let budget = u64::try_from(budget).unwrap_or_default();
        // A number below the budget, by its 32 highest bits.
        let chance = ((self.random() >> 32) * budget) >> 32;
        !self.ic_changed.replace(false) && chance < bytes as u64
    }

    /// xorshift64* (Vigna 2014): nothing depends on who can guess it.
    fn random(&self) -> u64 {
        let mut x = self.random.get();
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        self.random.set(x);
        x.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

/// How much bytecode the next slice has after one that took so long: as much as takes [`TIME`], but not much more than before.
fn bytes_after(bytes: c_int, took: Duration) -> c_int {
    let speed = TIME.as_nanos() * bytes as u128 / took.as_nanos().max(1);
    let most = MOST.min(bytes.saturating_mul(8));
    c_int::try_from(speed).unwrap_or(MOST).clamp(LEAST, most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_used_up_after_as_many_slices_as_it_has() {
        const TIMES: u32 = 100_000;
        SLICES.with(|slices| {
            for number in [1, 2, 10, 1000] {
                let whole = (0..TIMES)
                    .filter(|_| {
                        slices.bytes.set(MOST);
                        slices.next(number * MOST)
                    })
                    .count() as f64;
                let expected = f64::from(TIMES) / f64::from(number);
                // Six times the standard deviation.
                let error = (whole - expected).abs();
                assert!(error <= 6.0 * expected.sqrt(), "{number}: {whole}");
            }
            slices.bytes.set(MOST);
            assert!(slices.next(1));
            slices.ic_changed.set(true);
            assert!(!slices.next(1), "it would be better optimised later");
            assert!(slices.next(1));
        });
    }

    #[test]
    fn a_slice_has_less_bytecode_where_its_steps_take_longer() {
        assert_eq!(bytes_after(MOST, TIME), MOST);
        assert_eq!(bytes_after(MOST, TIME * 2), MOST / 2);
        assert_eq!(bytes_after(MOST, Duration::from_secs(1000)), LEAST);
        // It comes back in steps: one short slice says little.
        assert_eq!(bytes_after(LEAST, Duration::ZERO), 8 * LEAST);
        assert_eq!(bytes_after(MOST / 2, TIME / 100), MOST);
    }
}
