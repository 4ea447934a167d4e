//! `If-Match`, `If-None-Match` and `Accept`: what is read as entity tags is a list of them, and
//! reads the same when it is written in the plainest way.
#![no_main]

use configsync_server::fuzzing::{Digests, parse_tags, wants_bytes};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|field: &str| {
    let _ = wants_bytes(field);
    // The gate lets nothing else through in a field that is read.
    if !field.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return;
    }
    let (weak, strong) = (parse_tags(field, false), parse_tags(field, true));
    assert_eq!(weak.is_ok(), strong.is_ok(), "{field}");
    match (weak, strong) {
        (Ok(Digests::OneOf(all)), Ok(Digests::OneOf(strong))) => {
            assert!(!all.is_empty(), "{field}");
            assert!(
                strong.len() <= all.len() && strong.iter().all(|tag| all.contains(tag)),
                "{field}"
            );
            assert!(!all.iter().any(|tag| tag.contains(['"', ' '])), "{field}");
            let plain: Vec<String> = all.iter().map(|tag| format!("\"{tag}\"")).collect();
            assert_eq!(
                parse_tags(&plain.join(", "), true).ok(),
                Some(Digests::OneOf(all)),
                "{field}"
            );
        }
        (Ok(Digests::Any), Ok(Digests::Any)) => assert!(field.contains('*'), "{field}"),
        (Err(_), Err(_)) => {}
        other => panic!("{field}: {other:?}"),
    }
});
