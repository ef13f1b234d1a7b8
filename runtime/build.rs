//! Puts functions of ours before some of V8's: see src/isolate/ffi_tiering.rs and ffi_stub_caches.rs.

/// Their names in V8's library.
const WRAPPED: [&str; 6] = [
    "_ZN2v88internal14TieringManager18InterruptBudgetForEPNS0_7IsolateENS0_6TaggedINS0_10JSFunctionEEENSt4__Cr8optionalINS0_8CodeKindEEE",
    "_ZN2v88internal14TieringManager15OnInterruptTickENS0_12DirectHandleINS0_10JSFunctionEEENS0_8CodeKindE",
    "_ZN2v88internal14TieringManager15NotifyICChangedENS0_6TaggedINS0_14FeedbackVectorEEE",
    "_ZN2v88internal9StubCacheC1EPNS0_7IsolateE",
    "_ZN2v88internal9StubCache10InitializeEv",
    "_ZN2v88internal9StubCache5ClearEv",
];

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    for name in WRAPPED {
        println!("cargo:rustc-link-arg=-Wl,--wrap={name}");
    }
}
