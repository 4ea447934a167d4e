//! GET /: one static page that shows a user's machines and history through the documented API.

use crate::app::{App, HandlerResult, Request, Response};

const PAGE: &str = include_str!("page.html");

/// Allows only the page's own script and style, by their SHA-256
/// (`page::the_policy_names_the_pages_own_script_and_style_and_nothing_unsafe` prints the expected
/// digests when it fails). `require-trusted-types-for` makes the browser refuse to parse strings as
/// markup, so that a machine's name cannot inject any.
const POLICY: &str = "default-src 'none'; \
    script-src 'sha256-vftNt+6BJ7q59nTneIgdQIByS3HoPtzMZJqjQ3QRKs8='; \
    style-src 'sha256-iKGvYmrYGMDkO6lUP9zl7PIVRh77YnAuAE4ZqHPpPKg='; \
    img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'; require-trusted-types-for 'script'";

/// Returns the page. With `--no-page`, admission refuses the request first.
pub fn page(_app: &App, _request: &Request) -> HandlerResult {
    Ok(Response::text(200, "text/html; charset=utf-8", PAGE)
        .with("Content-Security-Policy", POLICY)
        .with("X-Frame-Options", "DENY")
        .with("Referrer-Policy", "no-referrer"))
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
