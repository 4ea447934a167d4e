//! The base64 member of an upload, with any escapes in it: it is what serde_json and the base64
//! crate make of it together, or it is refused.
#![no_main]

use std::io::BufReader;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use configsync_server::fuzzing::split_upload_json;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, &str)| {
    let (piece, member) = input;
    let document = format!("{{\"encrypted_state\":\"{member}\"}}");
    // A quote in the member would end it: then the document is another one.
    let Ok(text) = serde_json::from_str::<String>(&format!("\"{member}\"")) else { return };
    let expected = STANDARD.decode(text);
    let source = BufReader::with_capacity(usize::from(piece).max(1), document.as_bytes());
    let mut decoded = Vec::new();
    let split = split_upload_json(source, "encrypted_state", "metadata", 1 << 20, |bytes| {
        decoded.extend_from_slice(bytes);
        Ok(())
    });
    match expected {
        Ok(expected) => {
            assert!(split.is_ok(), "refused {document}");
            assert_eq!(decoded, expected, "{document}");
        }
        Err(_) => assert!(split.is_err(), "accepted {document}"),
    }
});
