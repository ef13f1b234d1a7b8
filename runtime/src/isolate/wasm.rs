//! WebAssembly modules get an upper bound for the memory that they define, before V8 sees them: V8 does not count such
//! memory and lets it grow to the process-wide maximum. A growth past the bound fails, as the specification allows.
//!
//! Format: <https://webassembly.github.io/spec/core/binary/modules.html#memory-section>.

use std::borrow::Cow;

const HEADER_BYTES: usize = 8;
const PAGE_BYTES: usize = 64 << 10;
const MEMORY_SECTION: u8 = 5;
const HAS_MAXIMUM: u8 = 1;
const IS_SHARED: u8 = 2;
const IS_64_BIT: u8 = 4;

/// Why a module's memory is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum MemoryError {
    /// It begins larger than the instance may be.
    #[error(
        "the module's memory begins with {pages} pages of 64 KiB, more than limits.memory allows: raise the limit"
    )]
    TooLarge {
        /// Its initial size.
        pages: u64,
    },
    /// It would be shared between threads, of which there are none.
    #[error("the module's memory is shared, which functions cannot have")]
    Shared,
}

/// A module whose memories cannot grow without bound.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Bounded<'m> {
    pub(super) module: Cow<'m, [u8]>,
    /// To how many bytes its memories together may grow.
    pub(super) maximum_bytes: u64,
}

/// The same module, each of whose memories grows to no more than so many bytes. What is not well formed is V8's to refuse.
pub(super) fn bound_memory(module: &[u8], limit_bytes: usize) -> Result<Bounded<'_>, MemoryError> {
    let unchanged = Bounded {
        module: Cow::Borrowed(module),
        maximum_bytes: 0,
    };
    let limit_pages = (limit_bytes / PAGE_BYTES) as u64;
    let Some((start, payload)) = find_section(module) else {
        return Ok(unchanged);
    };
    let Some((bounded, maximum_pages)) = bound_section(payload, limit_pages).transpose()? else {
        return Ok(unchanged);
    };
    let end = payload.as_ptr() as usize - module.as_ptr() as usize + payload.len();
    let mut rewritten = module[..start].to_vec();
    rewritten.push(MEMORY_SECTION);
    write(&mut rewritten, bounded.len() as u64);
    rewritten.extend_from_slice(&bounded);
    rewritten.extend_from_slice(&module[end..]);
    Ok(Bounded {
        module: Cow::Owned(rewritten),
        maximum_bytes: maximum_pages.saturating_mul(PAGE_BYTES as u64),
    })
}

/// Where the memory section begins, and its content.
fn find_section(module: &[u8]) -> Option<(usize, &[u8])> {
    let mut rest = module.get(HEADER_BYTES..)?;
    loop {
        let start = module.len() - rest.len();
        let (&id, after) = rest.split_first()?;
        rest = after;
        let bytes = usize::try_from(read(&mut rest)?).ok()?;
        let (payload, after) = rest.split_at_checked(bytes)?;
        if id == MEMORY_SECTION {
            return Some((start, payload));
        }
        rest = after;
    }
}

/// The section and the sum of its maxima, in pages. None for a section that is not well formed.
fn bound_section(
    mut payload: &[u8],
    limit_pages: u64,
) -> Option<Result<(Vec<u8>, u64), MemoryError>> {
    let mut sum = 0u64;
    let count = read(&mut payload)?;
    let mut bounded = Vec::new();
    write(&mut bounded, count);
    for _ in 0..count {
        let (&flags, rest) = payload.split_first()?;
        payload = rest;
        // Custom page sizes and what else may come.
        if flags & !(HAS_MAXIMUM | IS_SHARED | IS_64_BIT) != 0 {
            return None;
        }
        let pages = read(&mut payload)?;
        let maximum = match flags & HAS_MAXIMUM {
            0 => limit_pages,
            _ => read(&mut payload)?.min(limit_pages),
        };
        if flags & IS_SHARED != 0 {
            return Some(Err(MemoryError::Shared));
        }
        if pages > limit_pages {
            return Some(Err(MemoryError::TooLarge { pages }));
        }
        bounded.push(flags | HAS_MAXIMUM);
        write(&mut bounded, pages);
        write(&mut bounded, maximum.max(pages));
        sum = sum.saturating_add(maximum.max(pages));
    }
    payload.is_empty().then_some(Ok((bounded, sum)))
}

/// Reads an unsigned LEB128 number of at most 64 bits.
fn read(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn write(bytes: &mut Vec<u8>, mut value: u64) {
    loop {
        let low = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            bytes.push(low);
            return;
        }
        bytes.push(low | 0x80);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: [u8; 8] = [0, b'a', b's', b'm', 1, 0, 0, 0];
    const MIB: usize = 1 << 20;

    fn module(section: &[u8]) -> Vec<u8> {
        // A type section before, a custom section after.
        [&HEADER, &[1, 1, 0][..], section, &[0, 2, 1, b'x']].concat()
    }

    #[test]
    fn a_memory_gets_a_maximum_or_a_lower_one() {
        for (before, after, pages) in [
            (&[5, 3, 1, 0, 1][..], &[5, 4, 1, 1, 1, 16][..], 16),
            (&[5, 5, 1, 1, 1, 0x80, 0x02], &[5, 4, 1, 1, 1, 16], 16),
            (&[5, 4, 1, 1, 1, 2], &[5, 4, 1, 1, 1, 2], 2),
            (&[5, 5, 2, 0, 1, 0, 2], &[5, 7, 2, 1, 1, 16, 1, 2, 16], 32),
        ] {
            let before = module(before);
            let bounded = bound_memory(&before, MIB).expect("small enough");
            assert_eq!(*bounded.module, module(after));
            assert_eq!(bounded.maximum_bytes, pages * PAGE_BYTES as u64);
        }
    }

    #[test]
    fn a_memory_that_begins_too_large_or_is_shared_is_refused() {
        assert_eq!(
            bound_memory(&module(&[5, 3, 1, 0, 17]), MIB),
            Err(MemoryError::TooLarge { pages: 17 })
        );
        assert_eq!(
            bound_memory(&module(&[5, 4, 1, 3, 1, 2]), MIB),
            Err(MemoryError::Shared)
        );
    }

    #[test]
    fn what_is_not_well_formed_stays_as_it_is() {
        for bytes in [
            &b""[..],
            &b"no"[..],
            &HEADER[..],
            &[&HEADER[..], &[5, 3, 1, 0]].concat(),
            &module(&[5, 0xff, 0xff, 0xff, 0xff, 0xff]),
            &module(&[5, 3, 0xff, 0xff, 0x7f]),
            &module(&[5, 4, 1, 8, 1, 0]),
        ] {
            let bounded = bound_memory(bytes, MIB).expect("nothing to refuse");
            assert_eq!((&*bounded.module, bounded.maximum_bytes), (bytes, 0));
        }
    }
}
