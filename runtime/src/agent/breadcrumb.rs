//! Whom to blame for the end of a worker, from the memory it shared: a slot a thread, each a UID that ends in a zero byte,
//! empty for none; its last byte is 1 where that thread crashed. The worker may have been broken when it wrote, so nothing
//! is trusted.
//!
//! A tenant must not be able to have its neighbours quarantined by crashing while they run. So the thread that crashed
//! counts; where none says so (the process was killed) only a Function that ran alone does.

use std::fs::File;
use std::os::unix::fs::FileExt;

use crate::control::BREADCRUMB_BYTES;
use crate::isolate::Breadcrumb;

/// What a worker left behind.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Traces {
    /// UIDs of all Functions that ran.
    pub running: Vec<String>,
    /// UIDs of those that count as its cause.
    pub blamed: Vec<String>,
}

/// Reads them.
pub fn read(breadcrumb: &File) -> Traces {
    let mut bytes = [0; BREADCRUMB_BYTES];
    if let Err(error) = breadcrumb.read_exact_at(&mut bytes, 0) {
        tracing::warn!(%error, "failed to read what the worker ran");
        return Traces::default();
    }
    let slots = bytes.chunks_exact(Breadcrumb::SLOT_BYTES);
    let named: Vec<(String, bool)> = slots.filter_map(slot).collect();
    let uids = |only_crashed: bool| {
        let named = named
            .iter()
            .filter(|(_, crashed)| *crashed || !only_crashed);
        let mut uids: Vec<String> = named.map(|(uid, _)| uid.clone()).collect();
        uids.sort();
        uids.dedup();
        uids
    };
    let running = uids(false);
    let mut blamed = uids(true);
    if blamed.is_empty() && running.len() == 1 {
        blamed = running.clone();
    }
    Traces { running, blamed }
}

fn slot(slot: &[u8]) -> Option<(String, bool)> {
    let (flag, name) = slot.split_last()?;
    let text = name
        .split(|byte| *byte == 0)
        .next()
        .filter(|text| !text.is_empty())?;
    let sane = text
        .iter()
        .all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-');
    if !sane {
        return None;
    }
    Some((String::from_utf8(text.to_vec()).ok()?, *flag == 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_worker_writes_and_survives_anything_else() {
        let file = tempfile::tempfile().unwrap();
        assert_eq!(read(&file), Traces::default(), "a file that is too short");
        let breadcrumb = Breadcrumb::map(&file).unwrap();
        assert_eq!(read(&file), Traces::default());
        breadcrumb.mark(0, "uid-a-longer");
        breadcrumb.mark(0, "uid-a");
        assert_eq!(read(&file).blamed, ["uid-a"], "it ran alone");
        breadcrumb.mark(1, "uid-b");
        breadcrumb.mark(2, "uid-a");
        breadcrumb.mark(3, &"x".repeat(500));
        let traces = read(&file);
        assert_eq!(traces.running, ["uid-a", "uid-b", &"x".repeat(62)]);
        assert!(traces.blamed.is_empty(), "nobody knows who it was");
        let crashed_at = (Breadcrumb::SLOT_BYTES + Breadcrumb::CRASHED_AT) as u64;
        file.write_all_at(&[1], crashed_at).unwrap();
        assert_eq!(read(&file).blamed, ["uid-b"]);
        for slot in 0..4 {
            breadcrumb.mark(slot, "");
        }
        assert_eq!(read(&file), Traces::default());
        file.write_all_at(&[0xff; BREADCRUMB_BYTES], 0).unwrap();
        assert_eq!(read(&file), Traces::default());
    }
}
