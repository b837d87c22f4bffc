//! Who may ask over TCP, where a browser can be made to ask by any page on the internet. Pure.
//!
//! * The host has to be this machine by a name that no stranger can point at it, or else a page whose name is made to
//!   lead here (DNS rebinding) could read everything.
//! * What comes from another page is refused by what browsers say of it, unless it only opens this page.
//! * An order needs something that a form on another page cannot send and a script there may not.

use axum::http::{HeaderMap, Method, Uri, header};

/// The header that an order has to have, with any value.
pub(super) const ORDER_HEADER: &str = "x-er-dev";

/// Refuses what must not be answered at an address, in words. The address is written like `127.0.0.1:9477`.
pub(super) fn refusal(
    address: &str,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
) -> Option<&'static str> {
    let is_ours = |host: &str| is_ours(host, address);
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = hosts.next().and_then(|host| host.to_str().ok());
    let named = uri.authority().map(|authority| authority.as_str());
    let known = host.is_some_and(is_ours) && hosts.next().is_none() && named.is_none_or(is_ours);
    if !known {
        return Some(
            "the Host header has to name this machine: 127.0.0.1, localhost or [::1], with the port",
        );
    }
    let opens = *method == Method::GET && is(headers, "sec-fetch-mode", &["navigate"]);
    let from_elsewhere = headers.get_all(header::ORIGIN).iter().any(|origin| {
        let origin = origin.to_str().unwrap_or_default();
        !origin.strip_prefix("http://").is_some_and(is_ours)
    });
    let said_so = headers.contains_key("sec-fetch-site")
        && !is(headers, "sec-fetch-site", &["same-origin", "none"]);
    if !opens && (from_elsewhere || said_so) {
        return Some("requests that come from another page are refused");
    }
    let is_json = headers.get(header::CONTENT_TYPE).is_some_and(|kind| {
        let kind = kind.to_str().unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim();
        kind.eq_ignore_ascii_case("application/json")
    });
    if !method.is_safe() && !is_json && !headers.contains_key(ORDER_HEADER) {
        return Some(
            "an order needs the header `x-er-dev: 1`, so that no form on another page can give it",
        );
    }
    None
}

/// Whether a header has one of these values, and no other.
fn is(headers: &HeaderMap, name: &str, values: &[&str]) -> bool {
    let mut said = headers.get_all(name).iter();
    let first = said.next().and_then(|value| value.to_str().ok());
    first.is_some_and(|first| values.contains(&first)) && said.next().is_none()
}

/// Whether a host, with its port, is this machine at this address.
fn is_ours(host: &str, address: &str) -> bool {
    let (own, port) = address.rsplit_once(':').unwrap_or((address, "80"));
    let name = match host
        .strip_suffix(port)
        .and_then(|rest| rest.strip_suffix(':'))
    {
        Some(name) => name,
        // This port goes without saying.
        None if port == "80" => host,
        None => return false,
    };
    ["127.0.0.1", "localhost", "[::1]", own]
        .iter()
        .any(|ours| name.eq_ignore_ascii_case(ours))
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    /// What is said to a request with these headers.
    fn at(method: &Method, uri: &str, headers: &[(&str, &str)]) -> Option<&'static str> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name: HeaderName = name.parse().unwrap();
            map.append(name, HeaderValue::from_str(value).unwrap());
        }
        let address = "127.0.0.1:9477";
        refusal(address, method, &uri.parse().unwrap(), &map)
    }

    const HOST: (&str, &str) = ("host", "127.0.0.1:9477");

    #[test]
    fn only_names_that_no_stranger_can_point_here_are_answered() {
        for host in [
            "127.0.0.1:9477",
            "localhost:9477",
            "LocalHost:9477",
            "[::1]:9477",
        ] {
            assert_eq!(at(&Method::GET, "/", &[("host", host)]), None, "{host}");
        }
        for host in [
            "",
            "127.0.0.1",
            "127.0.0.1:80",
            "localhost:9478",
            "localhost.:9477",
            "rebound.example:9477",
            "127.0.0.1.rebound.example:9477",
            "user@127.0.0.1:9477",
            "x:9477:9477",
        ] {
            assert!(at(&Method::GET, "/", &[("host", host)]).is_some(), "{host}");
        }
        assert!(at(&Method::GET, "/", &[]).is_some());
        assert!(at(&Method::GET, "/", &[HOST, ("host", "rebound.example")]).is_some());
        assert!(at(&Method::GET, "http://rebound.example/", &[HOST]).is_some());
        assert_eq!(at(&Method::GET, "http://localhost:9477/", &[HOST]), None);
    }

    #[test]
    fn the_address_itself_is_a_name_and_port_80_goes_without_saying() {
        for (host, address) in [
            ("127.0.0.7:9477", "127.0.0.7:9477"),
            ("[::1]:9477", "[::1]:9477"),
            ("localhost", "127.0.0.1:80"),
            ("[::1]", "[::1]:80"),
        ] {
            assert!(is_ours(host, address), "{host}");
        }
        assert!(!is_ours("127.0.0.7:9477", "127.0.0.1:9477"));
    }

    #[test]
    fn other_pages_get_nothing_but_a_way_to_open_this_one() {
        let order = (ORDER_HEADER, "1");
        let origin = |origin| ("origin", origin);
        let site = |site| ("sec-fetch-site", site);
        for (headers, answered) in [
            (&[origin("http://127.0.0.1:9477")][..], true),
            (&[site("same-origin")], true),
            (&[site("none")], true),
            (&[origin("http://rebound.example")], false),
            (&[origin("https://127.0.0.1:9477")], false),
            (&[origin("http://127.0.0.1:8080")], false),
            (&[origin("null")], false),
            (&[site("cross-site")], false),
            (&[site("same-site")], false),
            (&[site("same-origin"), site("cross-site")], false),
        ] {
            for method in [Method::GET, Method::POST] {
                let headers = [headers, &[HOST, order]].concat();
                let said = at(&method, "/events", &headers);
                assert_eq!(said.is_none(), answered, "{method} {headers:?}");
            }
        }
        let link = [
            HOST,
            site("cross-site"),
            ("sec-fetch-mode", "navigate"),
            order,
        ];
        assert_eq!(at(&Method::GET, "/", &link), None);
        assert!(at(&Method::POST, "/pause", &link).is_some());
    }

    #[test]
    fn an_order_needs_what_no_form_can_send() {
        let kind = |kind| ("content-type", kind);
        for (header, answered) in [
            ((ORDER_HEADER, "1"), true),
            (kind("application/json"), true),
            (kind("Application/JSON; charset=utf-8"), true),
            (kind("text/plain"), false),
            (kind("text/plain; application/json"), false),
            (kind("application/x-www-form-urlencoded"), false),
        ] {
            let said = at(&Method::POST, "/pause", &[HOST, header]);
            assert_eq!(said.is_none(), answered, "{header:?}");
        }
        assert!(at(&Method::POST, "/pause", &[HOST]).is_some());
    }
}
