//! Which Functions a worker ran when it ended, from the memory it shared: a slot a thread, each a UID that ends in a zero
//! byte, empty for none. The worker may have been broken when it wrote, so nothing is trusted.

use std::fs::File;
use std::os::unix::fs::FileExt;

use crate::control::BREADCRUMB_BYTES;
use crate::isolate::Breadcrumb;

/// The UIDs, each once.
pub fn running(breadcrumb: &File) -> Vec<String> {
    let mut bytes = [0; BREADCRUMB_BYTES];
    if let Err(error) = breadcrumb.read_exact_at(&mut bytes, 0) {
        tracing::warn!(%error, "failed to read what the worker ran");
        return Vec::new();
    }
    let mut uids: Vec<String> = bytes
        .chunks(Breadcrumb::SLOT_BYTES)
        .filter_map(uid)
        .collect();
    uids.sort();
    uids.dedup();
    uids
}

fn uid(slot: &[u8]) -> Option<String> {
    let text = slot
        .split(|byte| *byte == 0)
        .next()
        .filter(|text| !text.is_empty())?;
    let sane = text
        .iter()
        .all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-');
    if sane {
        String::from_utf8(text.to_vec()).ok()
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_worker_writes_and_survives_anything_else() {
        let file = tempfile::tempfile().unwrap();
        assert!(running(&file).is_empty(), "a file that is too short");
        let breadcrumb = Breadcrumb::map(&file).unwrap();
        assert!(running(&file).is_empty());
        breadcrumb.mark(0, "uid-a-longer");
        breadcrumb.mark(0, "uid-a");
        breadcrumb.mark(1, "uid-b");
        breadcrumb.mark(2, "uid-a");
        breadcrumb.mark(3, &"x".repeat(500));
        assert_eq!(running(&file), ["uid-a", "uid-b", &"x".repeat(63)]);
        for slot in 0..4 {
            breadcrumb.mark(slot, "");
        }
        assert!(running(&file).is_empty());
        file.write_all_at(&[0xff; BREADCRUMB_BYTES], 0).unwrap();
        assert!(running(&file).is_empty());
    }
}
