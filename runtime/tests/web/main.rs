//! The Web APIs in real isolates made from a real snapshot.
#![allow(missing_docs, clippy::unwrap_used, unsafe_code, clippy::undocumented_unsafe_blocks)]

mod harness;
mod handler;

use harness::run_cases;

macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        $(#[test]
        fn $name() {
            run_cases(stringify!($name), include_str!(concat!("cases/", stringify!($name), ".js")));
        })*
    };
}

cases![headers];
