//! Puts functions of ours before some of V8's: see src/isolate/ffi_tiering.rs, ffi_stub_caches.rs, ffi_cage.rs,
//! ffi_ranges.rs, ffi_handles.rs and ffi_prefault.rs.

/// Their names in V8's library. The last one is C++'s own.
const WRAPPED: [&str; 23] = [
    "_ZN2v88internal14TieringManager18InterruptBudgetForEPNS0_7IsolateENS0_6TaggedINS0_10JSFunctionEEENSt4__Cr8optionalINS0_8CodeKindEEE",
    "_ZN2v88internal14TieringManager15OnInterruptTickENS0_12DirectHandleINS0_10JSFunctionEEENS0_8CodeKindE",
    "_ZN2v88internal14TieringManager15NotifyICChangedENS0_6TaggedINS0_14FeedbackVectorEEE",
    "_ZN2v88internal9StubCacheC1EPNS0_7IsolateE",
    "_ZN2v88internal9StubCache10InitializeEv",
    "_ZN2v88internal9StubCache5ClearEv",
    "_ZN2v84base15RegionAllocatorC1Emmm",
    "_ZN2v84base15RegionAllocator14AllocateRegionEmNS1_18AllocationStrategyE",
    "_ZN2v84base15RegionAllocator16AllocateRegionAtEmmNS1_11RegionStateE",
    "_ZN2v84base15RegionAllocator10TrimRegionEmm",
    "_ZN2v84base15RegionAllocator13TryGrowRegionEmm",
    "_ZN2v88internal15MemoryAllocatorC1EPNS0_7IsolateEPNS_13PageAllocatorES5_PNS0_10MemoryPoolEm",
    "_ZN2v88internal15MemoryAllocator12AllocatePageENS1_14AllocationModeEPNS0_5SpaceENS0_13ExecutabilityE",
    "_ZN2v88internal15MemoryAllocator17AllocateLargePageEPNS0_16LargeObjectSpaceEmNS0_13ExecutabilityENS0_14AllocationHintE",
    "_ZN2v84base20BoundedPageAllocatorC1EPNS_13PageAllocatorEmmmNS0_22PageInitializationModeENS0_15PageFreeingModeE",
    "_ZN2v84base23AddressSpaceReservation8AllocateEPvmNS0_2OS16MemoryPermissionE",
    "_ZN2v84base23AddressSpaceReservation14SetPermissionsEPvmNS0_2OS16MemoryPermissionE",
    "_ZN2v84base23AddressSpaceReservation4FreeEPvm",
    "_ZN2v84base2OS14SetPermissionsEPvmNS1_16MemoryPermissionE",
    "_ZN2v84base2OS13DecommitPagesEPvm",
    "_ZN2v88internal22HandleScopeImplementer19FreeThreadResourcesEv",
    "_ZN2v88internal21AlignedAllocWithRetryEmm",
    "_Znwm",
];

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    for name in WRAPPED {
        println!("cargo:rustc-link-arg=-Wl,--wrap={name}");
    }
}
