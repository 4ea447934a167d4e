//! GET /: the page and the fields that bind it. scripts/page/test.sh drives it in a browser.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use sha2::{Digest, Sha256};

use crate::fixture::{refused, serve};

#[test]
fn the_page_is_there_without_credentials_and_holds_nobodys_data() {
    let server = serve(&[]);
    let before = server.ask("GET", "/", "", b"");
    assert_eq!(before.status, 200);
    assert_eq!(before.field("content-type"), Some("text/html; charset=utf-8"));
    let user = server.user("secret@example.org");
    user.register("m");
    assert_eq!(user.get("/").body, before.body, "the same for everybody, signed in or not");
    let _server = server.restarted(&["--no-page"]);
    refused(&user.get("/"), 404, "not_found");
    user.read("/api/machines");
}

#[test]
fn the_policy_names_the_pages_own_script_and_style_and_nothing_unsafe() {
    let server = serve(&[]);
    let response = server.ask("GET", "/", "", b"");
    let page = std::str::from_utf8(&response.body).unwrap();
    let policy = response.field("content-security-policy").unwrap();
    let directives: Vec<_> = policy.split(';').map(str::trim).collect();
    for (element, directive) in [("script", "script-src"), ("style", "style-src")] {
        let (_, rest) = page.split_once(&format!("<{element}>")).unwrap();
        let (text, _) = rest.split_once(&format!("</{element}>")).unwrap();
        let hash = STANDARD.encode(Sha256::digest(text));
        let wanted = format!("{directive} 'sha256-{hash}'");
        assert!(directives.contains(&wanted.as_str()), "{wanted} in {policy}");
    }
    for wanted in [
        "default-src 'none'", "connect-src 'self'", "frame-ancestors 'none'", "base-uri 'none'",
        "form-action 'none'",
    ] {
        assert!(directives.contains(&wanted), "{wanted} in {policy}");
    }
    assert!(!policy.contains("unsafe") && !policy.contains('*'), "{policy}");
    assert_eq!(response.field("x-frame-options"), Some("DENY"));
    assert_eq!(response.field("referrer-policy"), Some("no-referrer"));
    assert_eq!(response.field("set-cookie"), None);
}
