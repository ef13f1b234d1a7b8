//! Pseudo-random numbers from a seed, so that a run can be repeated: SplitMix64.

/// A sequence of numbers.
pub(crate) struct Random(u64);

impl Random {
    /// Sequence number `stream` of a seed.
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        let mut random = Self(seed ^ stream.wrapping_mul(0xd134_2543_de82_ef95));
        random.next();
        random
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `end`, which is not 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// True in so many of a hundred cases.
    pub(crate) fn percent(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }

    /// One of these.
    pub(crate) fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }

    /// Between 0 and 1.
    pub(crate) fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(count + 8);
        while bytes.len() < count {
            bytes.extend(self.next().to_le_bytes());
        }
        bytes.truncate(count);
        bytes
    }
}

/// FNV-1a, 32 bits: the same as in `apps/soak/proof.js`.
pub(crate) fn fnv(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    })
}

/// What `generated` of `apps/soak/proof.js` makes of a text: `size` bytes, a multiple of 4.
pub(crate) fn generated(text: &str, size: usize) -> Vec<u8> {
    let mut state = fnv(text.as_bytes()).max(1);
    let mut bytes = Vec::with_capacity(size);
    for _ in 0..size / 4 {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        bytes.extend(state.to_le_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_values_come_out() {
        assert_eq!(fnv(b""), 0x811c_9dc5);
        assert_eq!(fnv(b"foobar"), 0xbf9c_f968);
        let mut random = Random(0);
        assert_eq!(random.next(), 0xe220_a839_7b1d_cdaf);
    }

    #[test]
    fn a_seed_gives_the_same_again_and_streams_differ() {
        let bytes = |seed, stream| Random::new(seed, stream).bytes(33);
        assert_eq!(bytes(7, 1), bytes(7, 1));
        assert_ne!(bytes(7, 1), bytes(7, 2));
        assert_ne!(bytes(7, 1), bytes(8, 1));
        assert_eq!(bytes(7, 1).len(), 33);
        assert_eq!(generated("x", 8).len(), 8);
    }
}
