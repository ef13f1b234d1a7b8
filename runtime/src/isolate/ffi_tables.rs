//! Gives back the memory of tables that V8 keeps filled for each isolate and that are empty: 288 KB of them.
//!
//! V8 15.2 has five such tables on its C++ heap. It writes them when an isolate is made and again in each full collection, so
//! all their pages are resident, whatever runs:
//!
//! | table | entries | an entry is empty if |
//! |---|---|---|
//! | stub caches for loads, stores and definitions (`StubCache`) | 3 × 5,120 of 12 bytes | its map is Smi 0 |
//! | code by return address (`InnerPointerToCodeCache`) | 1,024 of 64 bytes | its address is 0, and it owns nothing |
//! | WebAssembly code by return address (`WasmCodeLookupCache`) | 1,024 of 48 bytes | its address or its code is 0, and it owns nothing |
//!
//! The kernel takes pages back whose entries are all empty (`MADV_DONTNEED`), and gives pages of zeros at the next access.
//!
//! Why that changes nothing, as read in V8's source (`ic/stub-cache.cc`, `ic/accessor-assembler.cc`, `execution/frames-inl.h`,
//! `codegen/safepoint-table.h`, `wasm/wasm-code-manager.cc`):
//!
//! - An entry of zeros is empty too, and nothing depends on the rest of an empty entry. `StubCache::Get` and the probe of
//!   generated code (`TryProbeStubCacheTable`) find an entry only if its key is the name *and* its map is the object's map, both
//!   pointers to heap objects, never 0; `Set` keeps the old entry only if its map is no Smi, and then writes all three words. The
//!   two others find an entry only by its address, a return address, never 0, and else write all of it; zeros are what their
//!   constructors begin with, and an address of no code is looked up again. `Clear` and `Flush` only write, and no collection
//!   visits the entries.
//! - Nobody else writes meanwhile: the tables belong to the thread that holds the isolate, which is ours, but for
//!   `WasmCodeLookupCache::Flush`, by which other threads write zeros.
//!
//! How they are found: the isolate begins with the addresses that generated code uses, among them, in this order, those of key,
//! value and map of both parts of the three stub caches. These 18 words with their fixed distances are found nowhere else, and
//! each stub cache must end with the address of its isolate. The two other tables are found by their place in the class
//! `Isolate`, beside words that are known. All that is done only with the version of V8 whose source was read.
#![allow(unsafe_code)]

use std::ops::Range;
use std::ptr::NonNull;
use std::sync::OnceLock;

use super::platform;

/// The version of V8 for which the above was read.
const PROVED_FOR: &str = "15.2.124.1";

/// What refers to a stub cache: the places of key, value and map of its first entry, then of the first of its second part.
const REFERENCES: [usize; 6] = {
    let second = 4096 * 12;
    [0, 4, 8, second, second + 4, second + 8]
};
const STUB_CACHE: Table = Table {
    entries_at: 0,
    entries: 4096 + 1024,
    entry_bytes: 12,
    is_empty: |entry| zero(entry, 8, 4),
};
/// What follows the entries of a stub cache: the address of its isolate.
const OWNER_AT: usize = STUB_CACHE.end();
/// The address of its isolate comes first. Each entry is an address, an optional code object, and what is known of it: of two
/// kinds, of which the first may own memory.
const CODE_CACHE: Table = Table {
    entries_at: 8,
    entries: 1024,
    entry_bytes: 64,
    is_empty: |entry| {
        let owns_nothing = zero(entry, 48, 8) || entry[24] == 1;
        zero(entry, 0, 8) && zero(entry, 32, 4) && owns_nothing
    },
};
/// Each entry is an address, its code or nothing, and what is known of it, which may own memory. V8 never forgets addresses
/// that it looked up in vain.
const WASM_CACHE: Table = Table {
    entries_at: 0,
    entries: 1024,
    entry_bytes: 48,
    is_empty: |entry| {
        let says_nothing = zero(entry, 0, 8) || zero(entry, 8, 8);
        says_nothing && zero(entry, 16, 4) && zero(entry, 32, 8)
    },
};
/// In the class `Isolate`, from `load_stub_cache_` to `inner_pointer_to_code_cache_`, in words.
const TO_CODE_CACHE: usize = 11;
/// The part of an isolate's object that names the tables.
const ISOLATE_BYTES: usize = 68 << 10;

/// Gives back what the tables of an isolate take, and says how many bytes. The next collection of the isolate takes it again.
///
/// The isolate is entered by this thread, and no JavaScript of it runs. 0 if V8 is another version, or nothing was found.
pub fn give_back(isolate: &mut v8::Isolate) -> usize {
    if !is_proved() {
        return 0;
    }
    let words = words_of(isolate);
    let isolate = words.at;
    let Some(tables) = Tables::find(&words.values) else {
        return 0;
    };
    let mut bytes = 0;
    for cache in tables.stub_caches {
        // SAFETY: the address of a `StubCache` of this isolate, as its references say.
        let cache = unsafe { Block::of(cache, OWNER_AT + size_of::<usize>()) };
        if let Some(cache) = cache.filter(|it| it.word(OWNER_AT) == isolate) {
            // SAFETY: it is a stub cache: it belongs to this isolate and is where its references point at.
            bytes += unsafe { cache.drop_empty(&STUB_CACHE) };
        }
    }
    // SAFETY: in this version of V8 this word of the class points to an `InnerPointerToCodeCache`.
    let code_cache = unsafe { Block::of(tables.code_cache, CODE_CACHE.end()) };
    if let Some(cache) = code_cache.filter(|it| it.word(0) == isolate) {
        // SAFETY: as above, and it belongs to this isolate.
        bytes += unsafe { cache.drop_empty(&CODE_CACHE) };
    }
    // SAFETY: in this version of V8 this word of the class points to a `WasmCodeLookupCache`.
    if let Some(cache) = unsafe { Block::of(tables.wasm_cache, WASM_CACHE.end()) } {
        // SAFETY: as above.
        bytes += unsafe { cache.drop_empty(&WASM_CACHE) };
    }
    bytes
}

/// Whether the V8 of this process is the one that was read; says so once if it is not.
fn is_proved() -> bool {
    static IS_PROVED: OnceLock<bool> = OnceLock::new();
    *IS_PROVED.get_or_init(|| {
        let version = v8::V8::get_version();
        let is_proved = version
            .strip_prefix(PROVED_FOR)
            .is_some_and(|rest| !rest.starts_with(|it: char| it.is_ascii_digit() || it == '.'));
        if !is_proved {
            tracing::warn!(version, "idle instances keep 288 KB more: their tables are known of another version of V8 only");
        }
        is_proved
    })
}

/// How a table lies in its block.
struct Table {
    entries_at: usize,
    entries: usize,
    entry_bytes: usize,
    /// Whether zeros in place of any part of an entry are as good.
    is_empty: fn(&[u8]) -> bool,
}

impl Table {
    const fn end(&self) -> usize {
        self.entries_at + self.entries * self.entry_bytes
    }

    /// The pages, as ranges of bytes in the block, that have nothing but empty entries; `first` is where the first page begins.
    fn empty_pages(&self, block: &[u8], first: usize, page: usize) -> Vec<Range<usize>> {
        let entries = block[self.entries_at..self.end()].chunks_exact(self.entry_bytes);
        let empty: Vec<bool> = entries.map(self.is_empty).collect();
        let mut found: Vec<Range<usize>> = Vec::new();
        for begin in (first..).step_by(page) {
            let end = begin + page;
            if end > self.end() {
                break;
            }
            let Some(offset) = begin.checked_sub(self.entries_at) else {
                continue;
            };
            let last = (offset + page).div_ceil(self.entry_bytes);
            if !empty[offset / self.entry_bytes..last].iter().all(|it| *it) {
                continue;
            }
            match found.last_mut() {
                Some(before) if before.end == begin => before.end = end,
                _ => found.push(begin..end),
            }
        }
        found
    }
}

fn zero(entry: &[u8], at: usize, bytes: usize) -> bool {
    entry[at..at + bytes].iter().all(|byte| *byte == 0)
}

/// The memory of an isolate's own object.
struct Words {
    at: usize,
    values: Vec<usize>,
}

fn words_of(isolate: &mut v8::Isolate) -> Words {
    // SAFETY: only its address is used.
    let pointer = unsafe { isolate.as_raw_isolate_ptr() };
    // SAFETY: `UnsafeRawIsolatePtr` is `repr(transparent)` over the pointer to V8's object.
    let at: *mut usize = unsafe { std::mem::transmute(pointer) };
    // SAFETY: V8 allocates isolates by malloc (`Isolate::Allocate`).
    let bytes = unsafe { libc::malloc_usable_size(at.cast()) };
    let words = bytes.min(ISOLATE_BYTES) / size_of::<usize>();
    Words {
        at: at as usize,
        // SAFETY: inside the block. Volatile: V8's other threads may write some of the words, which are read and not used.
        values: (0..words)
            .map(|word| unsafe { at.add(word).read_volatile() })
            .collect(),
    }
}

/// Addresses of the tables.
#[derive(Debug, PartialEq, Eq)]
struct Tables {
    stub_caches: [usize; 3],
    code_cache: usize,
    wasm_cache: usize,
}

impl Tables {
    /// What the words of an isolate say.
    fn find(words: &[usize]) -> Option<Self> {
        let stub_caches = words.windows(18).find_map(|words| {
            let (parts, _) = words.as_chunks::<6>();
            let is_one = |part: &[usize; 6]| {
                part[0] != 0 && REFERENCES.map(|bytes| part[0].wrapping_add(bytes)) == *part
            };
            parts
                .iter()
                .all(is_one)
                .then(|| [parts[0][0], parts[1][0], parts[2][0]])
        })?;
        let members = words.windows(3).position(|it| it == stub_caches)?;
        let code_cache = *words.get(members + TO_CODE_CACHE)?;
        // `stack_size_`, then `wasm_code_look_up_cache_`.
        let after = &words[members + TO_CODE_CACHE + 1..];
        let stack_size = after
            .iter()
            .position(|it| *it == platform::JAVASCRIPT_STACK_BYTES)?;
        Some(Self {
            stub_caches,
            code_cache,
            wasm_cache: *after.get(stack_size + 1)?,
        })
    }
}

/// A block of V8's C++ heap.
struct Block {
    at: NonNull<u8>,
    bytes: usize,
}

impl Block {
    /// The block at an address, if it has at least so many bytes.
    ///
    /// # Safety
    ///
    /// The address is that of a living block of malloc, or 0. Nobody writes into it as long as this one is there.
    unsafe fn of(address: usize, least_bytes: usize) -> Option<Self> {
        let at = NonNull::new(address as *mut u8).filter(|at| at.cast::<usize>().is_aligned())?;
        // SAFETY: a block of malloc.
        let bytes = unsafe { libc::malloc_usable_size(at.as_ptr().cast()) };
        (bytes >= least_bytes).then_some(Self { at, bytes })
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: inside the block, and nobody writes.
        unsafe { std::slice::from_raw_parts(self.at.as_ptr(), self.bytes) }
    }

    /// The word at this place.
    fn word(&self, at: usize) -> usize {
        let bytes = &self.bytes()[at..at + size_of::<usize>()];
        bytes.try_into().map_or(0, usize::from_ne_bytes)
    }

    /// Has the kernel take back the pages of a table that are empty; says how many bytes they have.
    ///
    /// # Safety
    ///
    /// The block is such a table.
    unsafe fn drop_empty(&self, table: &Table) -> usize {
        let page = rustix::param::page_size();
        let begin = self.at.as_ptr() as usize;
        let first = begin.next_multiple_of(page) - begin;
        let mut dropped = 0;
        for pages in table.empty_pages(self.bytes(), first, page) {
            // SAFETY: whole pages inside the block, of private memory without a file, as malloc's is: the kernel gives
            // zeros in their place, which are as good in empty entries.
            let outcome = unsafe {
                let start = self.at.as_ptr().add(pages.start);
                libc::madvise(start.cast(), pages.len(), libc::MADV_DONTNEED)
            };
            if outcome == 0 {
                dropped += pages.len();
            }
        }
        dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words() -> Vec<usize> {
        let mut words = vec![7; 100];
        for cache in [0x1000_usize, 0x20000, 0x40000] {
            words.extend(REFERENCES.map(|bytes| cache + bytes));
        }
        words.extend([9; 50]);
        words.extend([0x1000, 0x20000, 0x40000, 0, 0, 0, 0, 0, 0, 0, 0, 0x60000]);
        words.extend([8; 10]);
        words.extend([platform::JAVASCRIPT_STACK_BYTES, 0x80000]);
        words
    }

    #[test]
    fn tables_are_found_by_what_refers_to_them() {
        let found = Tables {
            stub_caches: [0x1000, 0x20000, 0x40000],
            code_cache: 0x60000,
            wasm_cache: 0x80000,
        };
        assert_eq!(Tables::find(&words()), Some(found));
    }

    #[test]
    fn only_pages_without_an_entry_in_use_go() {
        let table = Table {
            entries_at: 8,
            entries: 100,
            entry_bytes: 12,
            is_empty: |entry| zero(entry, 8, 4),
        };
        let mut block = vec![1; 8 + 1200 + 8];
        for entry in 0..100 {
            block[8 + entry * 12 + 8..][..4].fill(0);
        }
        // Pages of 64 bytes, of which the first begins 16 bytes into the block.
        let pages = |block: &[u8]| table.empty_pages(block, 16, 64);
        assert_eq!(pages(&block), vec![16..16 + 18 * 64; 1]);
        // Entry 10 has bytes 128 to 139, entry 11 bytes 140 to 151: the page from 80 to 143 has some of both.
        block[8 + 10 * 12 + 8] = 1;
        assert_eq!(pages(&block), [16..80, 144..16 + 18 * 64]);
        block[8 + 11 * 12 + 8] = 1;
        assert_eq!(pages(&block), [16..80, 208..16 + 18 * 64]);
        // The word before the entries is none of them.
        assert_eq!(table.empty_pages(&block, 0, 64), [64..128, 192..18 * 64]);
    }

    #[test]
    fn nothing_is_found_where_a_word_is_another() {
        let words = words();
        for at in (100..118).chain(168..171) {
            let mut others = words.clone();
            others[at] += 4;
            assert_eq!(Tables::find(&others), None, "{at}");
        }
        for until in 0..words.len() {
            assert_eq!(Tables::find(&words[..until]), None);
        }
    }
}
