//! The JSON of an upload, split while it arrives in small pieces: nothing is taken that serde_json
//! would read otherwise.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../fuzz.rs"]
#[allow(dead_code, unused_imports)]
mod compared;

fuzz_target!(|document: &[u8]| {
    compared::compare_body(document, 1 + document.len() % 12);
});
