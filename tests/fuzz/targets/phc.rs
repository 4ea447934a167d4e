//! PHC strings of stored passwords: one that somebody broke is an error or a refusal, never a crash
//! and never a match.
#![no_main]

use configsync_server::fuzzing::{permit, verify_with};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|phc: &str| {
    // A dear one would only slow the search down.
    let dear = |part: &str| {
        let cost = part.strip_prefix("m=").or(part.strip_prefix("t=")).or(part.strip_prefix("p="));
        cost.is_some_and(|cost| cost.parse::<u32>().map_or(cost.len() > 3, |cost| cost > 64))
    };
    if phc.len() > 512 || phc.split(['$', ',']).any(dear) {
        return;
    }
    let permit = permit().expect("no other hash runs here");
    if let Ok(matches) = verify_with(&permit, b"a password that nobody has", Some(phc)) {
        assert!(!matches, "{phc}");
        assert!(phc.starts_with("$argon2id$v=19$"), "{phc}");
    }
});
