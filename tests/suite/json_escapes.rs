//! Any escape of JSON, in names and in base64: it means what RFC 8259 says.

use serde_json::Value;

use crate::fixture::{with_machine, with_user};

const PATH: &str = "/api/machines/snapshot";

#[test]
fn an_upload_may_spell_names_and_base64_with_any_escape() {
    let (_server, user) = with_machine(&[]);
    for (name, base64) in [
        ("encrypted_state", r"+/8B"),
        ("encrypted_state", r"\u002B\/8C"),
        ("encrypted_state", r"\u002b\u002f\u0038D"),
        (r"encrypted\u005fstate", r"+\u002FA\u003D"),
        (r"\u0065ncrypted_state", r"\u0041\u0041\u003d\u003D"),
    ] {
        let body =
            format!(r#"{{"machine\u005fid":"\u006d","meta\u0064ata":0,"{name}":"{base64}"}}"#);
        assert_eq!(user.raw("POST", PATH, "", body.as_bytes()).status, 201, "{body}");
        let meant: Value = serde_json::from_str(&format!("\"{base64}\"")).unwrap();
        assert_eq!(user.read(PATH)["encrypted_state"], meant, "{base64}");
    }
}

#[test]
fn json_nests_128_deep_on_every_route_and_no_deeper() {
    let (_server, user) = with_user(&[]);
    let nested = |n: usize| format!(r#"{}0{}"#, "[".repeat(n), "]".repeat(n));
    for (path, rest) in [
        ("/api/machines", r#""machine_id":"m","name":"n""#),
        (PATH, r#""machine_id":"m","encrypted_state":"AAAA""#),
    ] {
        for (depth, name, fits) in
            [(127, "x", true), (128, "x", false), (127, "metadata", true), (128, "metadata", false)]
        {
            let body = format!(r#"{{"{name}":{},{rest}}}"#, nested(depth));
            let status = user.raw("POST", path, "", body.as_bytes()).status;
            assert_eq!(status < 300, fits, "{path} {depth} {name}: {status}");
        }
    }
}
