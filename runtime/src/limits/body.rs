//! Size of a request body: what is declared is refused before the function hears of it, what is not is counted.

use bytes::Bytes;

/// Counts the bytes of one body against its limit.
#[derive(Debug)]
pub struct BodyLimit {
    left_bytes: u64,
}

/// A body is larger than its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the request body is larger than the function's limits.body")]
pub struct BodyTooLarge;

impl BodyLimit {
    /// A limit of so many bytes; refuses a body that says it is larger.
    pub fn new(limit_bytes: u64, declared_bytes: Option<u64>) -> Result<Self, BodyTooLarge> {
        match declared_bytes {
            Some(declared) if declared > limit_bytes => Err(BodyTooLarge),
            _ => Ok(Self {
                left_bytes: limit_bytes,
            }),
        }
    }

    /// Counts one piece.
    pub fn take(&mut self, piece: &Bytes) -> Result<(), BodyTooLarge> {
        self.left_bytes = self
            .left_bytes
            .checked_sub(piece.len() as u64)
            .ok_or(BodyTooLarge)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_itself_fits_and_one_more_does_not() {
        assert_eq!(BodyLimit::new(4, Some(5)).err(), Some(BodyTooLarge));
        let mut limit = BodyLimit::new(4, None).expect("nothing declared");
        assert_eq!(limit.take(&Bytes::from_static(b"abc")), Ok(()));
        assert_eq!(limit.take(&Bytes::from_static(b"d")), Ok(()));
        assert_eq!(limit.take(&Bytes::from_static(b"e")), Err(BodyTooLarge));
    }
}
