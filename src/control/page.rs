//! The page, and the headers that keep it to itself: it may run its own script, ask whoever served it, and nothing else.

use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

const PAGE: &str = include_str!("page.html");

/// The page as it is answered.
pub(super) async fn page() -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8".to_owned()),
        (header::CONTENT_SECURITY_POLICY, policy(PAGE)),
    ];
    (headers, PAGE).into_response()
}

/// What a browser may do for this page. Style and script are allowed by their own hashes.
fn policy(page: &str) -> String {
    let [style, script] = ["style", "script"].map(|tag| {
        let inside = page.split_once(&format!("<{tag}>"));
        let inside = inside.and_then(|(_, rest)| rest.split_once(&format!("</{tag}>")));
        let text = inside.map_or("", |(text, _)| text);
        STANDARD.encode(Sha256::digest(text))
    });
    format!(
        "default-src 'none'; style-src 'sha256-{style}'; script-src 'sha256-{script}'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_one_style_and_one_script_and_names_nothing_elsewhere() {
        for tag in ["style", "script"] {
            assert_eq!(PAGE.matches(&format!("<{tag}")).count(), 1);
            assert_eq!(PAGE.matches(&format!("<{tag}>")).count(), 1);
        }
        for word in [
            "https:",
            "@import",
            "src=",
            " style=",
            "url(",
            "innerHTML",
            "insertAdjacent",
            "document.write",
            "eval(",
        ] {
            assert!(!PAGE.contains(word), "{word}");
        }
        // The name of a format is no address.
        let addresses = PAGE.matches("http:").count();
        assert_eq!(
            addresses,
            PAGE.matches("http://www.w3.org/2000/svg").count()
        );
    }

    #[test]
    fn the_policy_allows_what_stands_in_the_page_by_its_hash() {
        let policy = policy("<style>a</style><script>b</script>");
        let hash = |text: &str| format!("'sha256-{}'", STANDARD.encode(Sha256::digest(text)));
        assert!(
            policy.contains(&format!("style-src {};", hash("a"))),
            "{policy}"
        );
        assert!(
            policy.contains(&format!("script-src {};", hash("b"))),
            "{policy}"
        );
    }
}
