//! A request head: what is accepted reads the same in httparse, and by no other rules.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../fuzz.rs"]
#[allow(dead_code, unused_imports)]
mod compared;

fuzz_target!(|bytes: &[u8]| {
    compared::compare_head(bytes, 1 + bytes.len() % 12);
});
