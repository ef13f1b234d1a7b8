//! Gives back the memory of two tables that V8 keeps filled for each isolate and that are empty: 112 KB.
//!
//! V8 15.2 has them on its C++ heap. It writes them when an isolate is made and again in each full collection, so all their pages are
//! resident, whatever runs:
//!
//! | table | entries | an entry is empty if |
//! |---|---|---|
//! | code by return address (`InnerPointerToCodeCache`) | 1,024 of 64 bytes | its address is 0, and it owns nothing |
//! | WebAssembly code by return address (`WasmCodeLookupCache`) | 1,024 of 48 bytes | its address or its code is 0, and it owns nothing |
//!
//! The kernel takes pages back whose entries are all empty (`MADV_DONTNEED`), and gives pages of zeros at the next access.
//! Larger tables of the same kind are never filled: see `ffi_stub_caches`.
//!
//! Why that changes nothing, as read in V8's source (`execution/frames-inl.h`, `codegen/safepoint-table.h`,
//! `wasm/wasm-code-manager.cc`):
//!
//! - An entry of zeros is empty too, and nothing depends on the rest of an empty entry. Both find an entry only by its address, a
//!   return address, never 0, and else write all of it; zeros are what their constructors begin with, and an address of no code
//!   is looked up again. `Flush` only writes, and no collection visits the entries.
//! - Nobody else writes meanwhile: the tables belong to the thread that holds the isolate, which is ours, but for
//!   `WasmCodeLookupCache::Flush`, by which other threads write zeros.
//!
//! How they are found: by their place in the class `Isolate`, beside words that are known. These are the size of the stack, and
//! the addresses of the three stub caches: the isolate begins with the addresses that generated code uses, among them, in this order,
//! those of key, value and map of both parts of each. These 18 words with their fixed distances are found nowhere else. Where all
//! these words are is learnt in the first isolate of the process, before any tenant's code runs: later a counter in the isolate
//! could look like one of them. All that is done only with the version of V8 whose source was read.
#![allow(unsafe_code)]

use std::ops::Range;
use std::ptr::NonNull;
use std::sync::OnceLock;

use super::{ffi_stub_caches, platform};

/// The version of V8 for which the above was read.
const PROVED_FOR: &str = "15.2.124.1";

/// What refers to a stub cache: the places of key, value and map of its first entry, then of the first of its second part.
const REFERENCES: [usize; 6] = {
    let second = ffi_stub_caches::FIRST_PART_BYTES;
    [0, 4, 8, second, second + 4, second + 8]
};
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

static LAYOUT: OnceLock<Option<Layout>> = OnceLock::new();

/// Learns where isolates have their tables, from one that has run no tenant's code. Only the first call in a process counts.
pub fn learn(isolate: &mut v8::Isolate) {
    LAYOUT.get_or_init(|| {
        let layout = is_known_version()
            .then(|| Layout::of(&Object::of(isolate).words()))
            .flatten();
        if layout.is_none() {
            tracing::warn!(
                version = v8::V8::get_version(),
                "an idle instance keeps 288 KB more: V8's tables are known of another version only"
            );
        }
        layout
    });
}

/// The size of the piece of malloc in which V8's object of an isolate lies, in bytes.
pub(super) fn object_piece_bytes(isolate: &mut v8::Isolate) -> usize {
    Object::of(isolate).piece_bytes()
}

/// Gives back what the tables of an isolate take, and says how many bytes. The next collection of the isolate takes it again.
///
/// The isolate is entered by this thread, and no JavaScript of it runs. Nothing happens before [`learn`].
pub fn give_back(isolate: &mut v8::Isolate) -> usize {
    let isolate = Object::of(isolate);
    let Some(tables) = isolate.tables() else {
        return 0;
    };
    let mut bytes = 0;
    // SAFETY: in this version of V8 this word of the class points to an `InnerPointerToCodeCache`.
    let code_cache = unsafe { Block::of(tables.code_cache, CODE_CACHE.end()) };
    if let Some(cache) = code_cache.filter(|it| it.word(0) == isolate.address()) {
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

/// How much of an isolate's stub caches is in memory, in bytes of whole pages; none if they are not known. For tests.
pub fn resident_stub_caches(isolate: &mut v8::Isolate) -> Option<usize> {
    let tables = Object::of(isolate).tables()?;
    let bytes = tables.stub_caches.map(|cache| {
        // SAFETY: the address of a `StubCache` of this isolate, as its references say.
        unsafe { Block::of(cache, ffi_stub_caches::ENTRIES_BYTES) }
            .map_or(0, |it| it.resident(ffi_stub_caches::ENTRIES_BYTES))
    });
    Some(bytes.iter().sum())
}

/// Whether V8 is of the version that was read.
pub(super) fn is_known_version() -> bool {
    static IS_KNOWN: OnceLock<bool> = OnceLock::new();
    *IS_KNOWN.get_or_init(|| is_proved(v8::V8::get_version()))
}

fn is_proved(version: &str) -> bool {
    let rest = version.strip_prefix(PROVED_FOR);
    rest.is_some_and(|rest| !rest.starts_with(|it: char| it.is_ascii_digit() || it == '.'))
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

/// V8's own object of an isolate.
struct Object(NonNull<usize>);

impl Object {
    fn of(isolate: &mut v8::Isolate) -> Self {
        // SAFETY: `Isolate` is `repr(transparent)` over a pointer to V8's object that is never null.
        Self(unsafe {
            std::mem::transmute::<v8::UnsafeRawIsolatePtr, NonNull<usize>>(
                isolate.as_raw_isolate_ptr(),
            )
        })
    }

    fn address(&self) -> usize {
        self.0.as_ptr() as usize
    }

    /// A word of the object; `at` is less than the number of its words.
    fn word(&self, at: usize) -> usize {
        // SAFETY: inside the object; all isolates have the same size. Volatile: V8's other threads may write some of the words,
        // none of those that are used.
        unsafe { self.0.as_ptr().add(at).read_volatile() }
    }

    /// The addresses of its tables. Nothing before [`learn`].
    fn tables(&self) -> Option<Tables> {
        LAYOUT.get()?.as_ref()?.tables(|at| self.word(at))
    }

    /// The size of the piece of malloc in which it lies.
    fn piece_bytes(&self) -> usize {
        // SAFETY: V8 allocates isolates by malloc (`Isolate::Allocate`).
        unsafe { libc::malloc_usable_size(self.0.as_ptr().cast()) }
    }

    fn words(&self) -> Vec<usize> {
        let bytes = self.piece_bytes();
        let words = bytes.min(ISOLATE_BYTES) / size_of::<usize>();
        (0..words).map(|at| self.word(at)).collect()
    }
}

/// Where an isolate has the words that name its tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Layout {
    /// 18 words that refer to the stub caches.
    references: usize,
    /// `load_stub_cache_` and the two others.
    members: usize,
    /// `stack_size_`, which `wasm_code_look_up_cache_` follows.
    stack_size: usize,
}

/// Addresses of the tables.
#[derive(Debug, PartialEq, Eq)]
struct Tables {
    stub_caches: [usize; 3],
    code_cache: usize,
    wasm_cache: usize,
}

impl Layout {
    /// What the words of an isolate say, if each place can be only one.
    fn of(words: &[usize]) -> Option<Self> {
        let references = only(words.windows(18), |words| stub_caches(words).is_some())?;
        let stub_caches = stub_caches(&words[references..])?;
        let members = only(words.windows(3), |it| *it == stub_caches)?;
        let layout = Self {
            references,
            members,
            stack_size: only(words.windows(1), |it| {
                it[0] == platform::JAVASCRIPT_STACK_BYTES
            })?,
        };
        let is_whole = layout.members + TO_CODE_CACHE < words.len();
        (is_whole && layout.stack_size + 1 < words.len()).then_some(layout)
    }

    /// The tables of an isolate whose words are these; none if one of those that are known is another.
    fn tables(&self, word: impl Fn(usize) -> usize) -> Option<Tables> {
        let references: [usize; 18] = std::array::from_fn(|at| word(self.references + at));
        let stub_caches = stub_caches(&references)?;
        let members: [usize; 3] = std::array::from_fn(|at| word(self.members + at));
        let is_same =
            members == stub_caches && word(self.stack_size) == platform::JAVASCRIPT_STACK_BYTES;
        is_same.then(|| Tables {
            stub_caches,
            code_cache: word(self.members + TO_CODE_CACHE),
            wasm_cache: word(self.stack_size + 1),
        })
    }
}

/// The stub caches to which these words refer.
fn stub_caches(words: &[usize]) -> Option<[usize; 3]> {
    let (caches, _) = words.as_chunks::<6>();
    let [a, b, c] = caches.first_chunk::<3>()?;
    let refers =
        |it: &[usize; 6]| it[0] != 0 && *it == REFERENCES.map(|bytes| it[0].wrapping_add(bytes));
    (refers(a) && refers(b) && refers(c)).then(|| [a[0], b[0], c[0]])
}

/// Where the only one is for which this holds.
fn only<T>(mut all: impl Iterator<Item = T>, mut holds: impl FnMut(T) -> bool) -> Option<usize> {
    let first = all.position(&mut holds)?;
    (!all.any(holds)).then_some(first)
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

    /// How many bytes of the whole pages in its first `bytes` are in memory.
    fn resident(&self, bytes: usize) -> usize {
        let page = rustix::param::page_size();
        let begin = self.at.as_ptr() as usize;
        let first = begin.next_multiple_of(page) - begin;
        let pages = bytes.min(self.bytes).saturating_sub(first) / page;
        let mut is_resident = vec![0_u8; pages];
        // SAFETY: whole pages inside the block, and a byte for each.
        let outcome = unsafe {
            let start = self.at.as_ptr().add(first);
            libc::mincore(start.cast(), pages * page, is_resident.as_mut_ptr())
        };
        let count = is_resident.iter().filter(|it| **it & 1 == 1).count();
        if outcome == 0 { count * page } else { bytes }
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
        let words = words();
        let layout = Layout::of(&words).unwrap();
        let found = Tables {
            stub_caches: [0x1000, 0x20000, 0x40000],
            code_cache: 0x60000,
            wasm_cache: 0x80000,
        };
        assert_eq!(layout.tables(|at| words[at]), Some(found));
    }

    #[test]
    fn nothing_is_found_where_a_word_is_another() {
        let words = words();
        let layout = Layout::of(&words).unwrap();
        let stack_size = words.len() - 2;
        for at in (100..118).chain(168..171).chain([stack_size]) {
            let mut others = words.clone();
            others[at] += 4;
            assert_eq!(Layout::of(&others), None, "{at}");
            assert_eq!(layout.tables(|at| others[at]), None, "{at}");
        }
        for until in 0..words.len() {
            assert_eq!(Layout::of(&words[..until]), None);
        }
    }

    #[test]
    fn nothing_is_learnt_where_a_place_could_be_two() {
        for twice in [
            &words()[100..118],
            &[0x1000, 0x20000, 0x40000],
            &[platform::JAVASCRIPT_STACK_BYTES],
        ] {
            let mut words = words();
            words.splice(120..120 + twice.len(), twice.iter().copied());
            assert_eq!(Layout::of(&words), None);
        }
    }

    #[test]
    fn only_one_version_is_proved() {
        assert!(is_proved("15.2.124.1") && is_proved("15.2.124.1-rusty"));
        assert!(!is_proved("15.2.124.10") && !is_proved("15.2.124.1.2") && !is_proved("15.2.125"));
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
}
