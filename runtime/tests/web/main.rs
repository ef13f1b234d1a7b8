//! The Web APIs in real isolates made from a real snapshot.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used)]

mod cases;
mod console;
mod fetch;
mod handler;
mod handles;
mod harness;
mod lazy;
mod memory;
mod tables;
mod termination;
mod wasm;

use cases::run_cases;

macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        $(#[test]
        fn $name() {
            run_cases(stringify!($name), include_str!(concat!("cases/", stringify!($name), ".js")));
        })*
    };
}

cases![
    globals,
    events,
    headers,
    url,
    encoding,
    streams,
    http,
    prototypes,
    lazy_setup,
    lazy_globals
];
