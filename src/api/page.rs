//! GET /: one static page that shows a user's machines and history by the documented API.

use std::sync::LazyLock;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use sha2::{Digest, Sha256};

use crate::app::{App, HandlerResult, Request, Response};

const PAGE: &str = include_str!("page.html");

/// Only the page's own script and style run, by their hashes. `require-trusted-types-for` makes the
/// browser refuse to turn text into markup, so that a machine's name can never become any.
static POLICY: LazyLock<String> = LazyLock::new(|| {
    format!(
        "default-src 'none'; script-src {}; style-src {}; img-src data:; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
         require-trusted-types-for 'script'",
        source_hash("<script>", "</script>"),
        source_hash("<style>", "</style>"),
    )
});

/// The page. Admission knows whether it is served at all (`--no-page`).
pub fn page(_app: &App, _request: &Request) -> HandlerResult {
    Ok(Response::text(200, "text/html; charset=utf-8", PAGE)
        .with("Content-Security-Policy", POLICY.as_str())
        .with("X-Frame-Options", "DENY")
        .with("Referrer-Policy", "no-referrer"))
}

/// The hash of an inline element's text, as a policy names it.
fn source_hash(open: &str, close: &str) -> String {
    let inline = PAGE.split_once(open).and_then(|(_, rest)| rest.split_once(close));
    let digest = Sha256::digest(inline.map_or("", |(text, _)| text));
    format!("'sha256-{}'", STANDARD.encode(digest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_one_script_and_one_style_and_nothing_inline_beside_them() {
        for element in ["<script", "</script>", "<style", "</style>"] {
            assert_eq!(PAGE.matches(element).count(), 1, "{element}");
        }
        let markup = PAGE.split_once("<script>").unwrap().0;
        for inline in [" style=", " onclick=", " onsubmit=", " onload=", "javascript:"] {
            assert!(!markup.contains(inline), "{inline}");
        }
        assert!(!POLICY.contains(&source_hash("<absent>", "</absent>")));
        assert!(!POLICY.contains("unsafe"));
    }

    #[test]
    fn the_page_asks_no_other_origin_stores_nothing_and_makes_no_markup() {
        for word in [
            "src=", "@import", "url(", "localStorage", "sessionStorage", "indexedDB", "cookie",
            "innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(", "Function(",
        ] {
            assert!(!PAGE.contains(word), "{word}");
        }
        assert!(PAGE.lines().count() <= 350);
    }
}
