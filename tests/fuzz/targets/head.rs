//! A request head: what is accepted reads the same in httparse, and by no other rules.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../fuzz.rs"]
#[allow(dead_code, unused_imports)]
mod compared;

use compared::random::Random;

fuzz_target!(|bytes: &[u8]| {
    compared::compare_head(bytes, &mut Random::new(bytes.len() as u64));
});
