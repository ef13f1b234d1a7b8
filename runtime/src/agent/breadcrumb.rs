//! Whom to blame for the end of a worker, from the memory it shared: a slot a thread, each a UID that ends in a zero byte,
//! empty for none; its last byte says where that thread crashed or had used up its memory. The worker may have been broken
//! when it wrote, so nothing is trusted.
//!
//! A tenant must not be able to have its neighbours quarantined by crashing while they run. So the thread that crashed
//! counts; where none did (a thread of V8's crashed, or the process was killed), who had used up its memory; else only a
//! Function that ran alone.

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
    let named: Vec<(String, u8)> = slots.filter_map(slot).collect();
    let uids = |counts: &dyn Fn(u8) -> bool| {
        let named = named.iter().filter(|(_, flag)| counts(*flag));
        let mut uids: Vec<String> = named.map(|(uid, _)| uid.clone()).collect();
        uids.sort();
        uids.dedup();
        uids
    };
    let running = uids(&|_| true);
    let certain = [
        uids(&|flag| flag == Breadcrumb::CRASHED),
        uids(&|flag| flag == Breadcrumb::SUSPECT),
    ];
    let blamed = match certain.into_iter().find(|uids| !uids.is_empty()) {
        Some(uids) => uids,
        None if running.len() == 1 => running.clone(),
        None => Vec::new(),
    };
    Traces { running, blamed }
}

fn slot(slot: &[u8]) -> Option<(String, u8)> {
    let (flag, name) = slot.split_last()?;
    let text = name.split(|byte| *byte == 0).next()?;
    let sane = text
        .iter()
        .all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-');
    if text.is_empty() || !sane {
        return None;
    }
    Some((String::from_utf8(text.to_vec()).ok()?, *flag))
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
        let flag = |slot: usize, flag: u8| {
            let at = slot * Breadcrumb::SLOT_BYTES + Breadcrumb::FLAG_AT;
            file.write_all_at(&[flag], at as u64).unwrap();
        };
        flag(0, Breadcrumb::SUSPECT);
        assert_eq!(read(&file).blamed, ["uid-a"]);
        flag(1, Breadcrumb::CRASHED);
        assert_eq!(read(&file).blamed, ["uid-b"], "what is certain counts");
        for slot in 0..4 {
            breadcrumb.mark(slot, "");
        }
        assert_eq!(read(&file), Traces::default());
        file.write_all_at(&[0xff; BREADCRUMB_BYTES], 0).unwrap();
        assert_eq!(read(&file), Traces::default());
    }
}
