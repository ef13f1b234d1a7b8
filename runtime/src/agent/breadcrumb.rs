//! Which Functions a worker ran when it ended, from the memory it shared.
use std::fs::File;
/// Them.
pub fn running(_breadcrumb: &File) -> Vec<String> { Vec::new() }
