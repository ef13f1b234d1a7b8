//! What the kernel says of memory.

use std::fs::File;
use std::os::unix::fs::FileExt;

/// The memory that this process and its like may have: its control group's limit (either version), else the machine's.
pub(super) fn memory_limit(read: impl Fn(&str) -> Option<String>) -> usize {
    let number = |path| read(path).and_then(|text| text.trim().parse::<usize>().ok());
    let machine = read("/proc/meminfo")
        .and_then(|text| {
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix("MemTotal:"))?;
            line.trim().strip_suffix("kB")?.trim().parse::<usize>().ok()
        })
        .map_or(usize::MAX, |kib| kib << 10);
    [
        "/sys/fs/cgroup/memory.max",
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
    ]
    .into_iter()
    .filter_map(number)
    .fold(machine, usize::min)
}

/// Of `/proc/self/statm`: its second number, in pages.
pub(super) fn resident_bytes(statm: &File) -> Option<usize> {
    let mut text = [0; 128];
    let length = statm.read_at(&mut text, 0).ok()?;
    let text = std::str::from_utf8(&text[..length]).ok()?;
    let pages: usize = text.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_limit_counts() {
        let meminfo = "MemTotal:       24684032 kB\nMemFree: 1 kB\n";
        let limit = |group: &'static str, old: &'static str| {
            memory_limit(|path| match path {
                "/proc/meminfo" => Some(meminfo.into()),
                "/sys/fs/cgroup/memory.max" => Some(group.into()),
                _ => Some(old.into()),
            })
        };
        let machine = 24_684_032 << 10;
        assert_eq!(limit("max\n", ""), machine);
        assert_eq!(limit("536870912\n", ""), 512 << 20);
        assert_eq!(limit("", "9223372036854771712\n"), machine);
        assert_eq!(limit("", "1073741824"), 1 << 30);
        assert_eq!(memory_limit(|_| None), usize::MAX);
    }
}
