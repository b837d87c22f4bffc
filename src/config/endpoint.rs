//! Which addresses requests may go to.
//!
//! The file can come with somebody else's project, and every request carries a signature made with the user's key. So
//! a file may only name the service itself or this machine. "Ends in aliyuncs.com" would not do: customers run hosts
//! below it, and may call a bucket `dcdn`.

use std::net::{Ipv4Addr, Ipv6Addr};

use reqwest::Url;
use toml::Spanned;

use super::Endpoint;
use super::error::Fault;

/// How the names of Alibaba Cloud's regions begin (a fact of the service). What is not a region between the product's
/// name and the domain may be the product of a customer, like `oss-cn-hangzhou`.
const REGION_AREAS: [&str; 9] = ["cn", "ap", "us", "eu", "me", "na", "sa", "af", "rus"];

const EXPECTED: &str = "an endpoint is like https://dcdn.aliyuncs.com or http://127.0.0.1:9480";

/// Checks an address. `allowed` are the hosts, with or without a port, that whoever started er-dev vouches for.
pub(super) fn check(value: &Spanned<String>, allowed: &[String]) -> Result<Endpoint, Fault> {
    let text = value.get_ref();
    let fault = |message: &str| Fault::at(value.span(), message).help(EXPECTED);
    if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(fault("an endpoint cannot hold spaces or line breaks"));
    }
    let url = Url::parse(text).map_err(|error| fault(&format!("not an endpoint: {error}")))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(
            fault("an endpoint cannot hold a user or a password").hide_from(value.span().start)
        );
    }
    if url.query().is_some() || url.fragment().is_some() || !matches!(url.path(), "" | "/") {
        return Err(fault("an endpoint ends after its host and port"));
    }
    let Some(host) = url
        .host_str()
        .filter(|_| matches!(url.scheme(), "http" | "https"))
    else {
        return Err(fault("an endpoint begins with https://"));
    };

    let origin = url.origin().ascii_serialization();
    let shown = match origin.split_once("://") {
        Some((_, rest)) => rest.to_owned(),
        None => return Err(fault("not an endpoint")),
    };
    let loopback = is_loopback(host);
    let vouched = |allowed: &String| {
        allowed.eq_ignore_ascii_case(host) || allowed.eq_ignore_ascii_case(&shown)
    };
    if !loopback && !is_service(host) && !allowed.iter().any(vouched) {
        let message =
            format!("`{host}` is neither a dcdn or esa host of aliyuncs.com nor this machine");
        return Err(Fault::at(value.span(), message).help(format!(
            "if requests may go there, start with --allow-endpoint {shown}"
        )));
    }
    if url.scheme() == "http" && !loopback {
        return Err(fault("plain http is for this machine only; use https"));
    }
    Ok(Endpoint {
        url: origin,
        host: shown,
        loopback,
    })
}

/// Whether the host, as `Url` writes it, is an address of this machine or its name.
fn is_loopback(host: &str) -> bool {
    let v6 = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    host == "localhost"
        || host.parse::<Ipv4Addr>().is_ok_and(|ip| ip.is_loopback())
        || v6.is_some_and(|ip| ip.parse::<Ipv6Addr>().is_ok_and(|ip| ip.is_loopback()))
}

fn is_service(host: &str) -> bool {
    let Some(name) = host.strip_suffix(".aliyuncs.com") else {
        return false;
    };
    let (product, region) = match name.split_once('.') {
        Some((product, region)) => (product, Some(region)),
        None => (name, None),
    };
    let known = ["dcdn", "esa"].iter().any(|known| {
        product
            .strip_prefix(known)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    });
    known && region.is_none_or(is_region)
}

fn is_region(label: &str) -> bool {
    label.split_once('-').is_some_and(|(area, place)| {
        REGION_AREAS.contains(&area)
            && !place.is_empty()
            && place
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(text: &str, allowed: &[&str]) -> Result<Endpoint, String> {
        let allowed: Vec<String> = allowed.iter().map(|host| (*host).to_owned()).collect();
        check(&Spanned::new(0..text.len(), text.to_owned()), &allowed)
            .map_err(|fault| fault.in_file("f", text).to_string())
    }

    #[test]
    fn hosts_of_the_service_and_of_this_machine_are_endpoints() {
        #[rustfmt::skip]
        let cases = [
            ("https://dcdn.aliyuncs.com", "https://dcdn.aliyuncs.com", "dcdn.aliyuncs.com", false),
            ("https://DCDN.Aliyuncs.com/", "https://dcdn.aliyuncs.com", "dcdn.aliyuncs.com", false),
            ("https://dcdn.aliyuncs.com:443", "https://dcdn.aliyuncs.com", "dcdn.aliyuncs.com", false),
            ("https://dcdn.cn-hangzhou.aliyuncs.com", "https://dcdn.cn-hangzhou.aliyuncs.com", "dcdn.cn-hangzhou.aliyuncs.com", false),
            ("https://esa.ap-southeast-1.aliyuncs.com", "https://esa.ap-southeast-1.aliyuncs.com", "esa.ap-southeast-1.aliyuncs.com", false),
            ("https://dcdn-vpc.aliyuncs.com", "https://dcdn-vpc.aliyuncs.com", "dcdn-vpc.aliyuncs.com", false),
            ("https://esa-share.cn-beijing-finance-1.aliyuncs.com:8443", "https://esa-share.cn-beijing-finance-1.aliyuncs.com:8443", "esa-share.cn-beijing-finance-1.aliyuncs.com:8443", false),
            ("http://127.0.0.1:9480", "http://127.0.0.1:9480", "127.0.0.1:9480", true),
            ("http://127.8.9.1", "http://127.8.9.1", "127.8.9.1", true),
            ("http://2130706433:1", "http://127.0.0.1:1", "127.0.0.1:1", true),
            ("http://[::1]:80", "http://[::1]", "[::1]", true),
            ("https://localhost:9480/", "https://localhost:9480", "localhost:9480", true),
        ];
        for (text, url, host, loopback) in cases {
            let endpoint = checked(text, &[]).unwrap();
            assert_eq!(
                (
                    endpoint.url.as_str(),
                    endpoint.host.as_str(),
                    endpoint.loopback
                ),
                (url, host, loopback),
                "{text}"
            );
        }
    }

    #[test]
    fn any_other_host_needs_the_flag_of_whoever_starts_er_dev() {
        for host in [
            "evil-dcdn.example.com",
            "dcdn.example.com",
            "aliyuncs.com",
            "dcdn.aliyuncs.com.example.com",
            "dcdn-evil.aliyuncs.com.example.com",
            "dcdn.aliyuncs.com.",
            "dcdnx.aliyuncs.com",
            "evil-dcdn.aliyuncs.com",
            "evildcdn.aliyuncs.com",
            "ecs.aliyuncs.com",
            "x.oss-cn-hangzhou.aliyuncs.com",
            "dcdn.oss-cn-hangzhou.aliyuncs.com",
            "esa-evil.oss-accelerate.aliyuncs.com",
            "dcdn-evil.rds.aliyuncs.com",
            "dcdn.evil.cn-hangzhou.aliyuncs.com",
            "dcdn.cn-hangzhou.evil.aliyuncs.com",
            "dcdn.cn-.aliyuncs.com",
            "dcdn.-.aliyuncs.com",
            "dcdn.xaliyuncs.com",
            "dcdn.aliyuncs.co",
            "10.0.0.1",
            "0.0.0.0",
            "169.254.169.254",
            "128.0.0.1",
            "[::ffff:127.0.0.1]",
            "[fe80::1]",
            "localhost.example.com",
            "foo.localhost",
            "127.0.0.1.example.com",
        ] {
            let error = checked(&format!("https://{host}"), &[]).unwrap_err();
            assert!(error.contains("--allow-endpoint "), "{host}: {error}");
        }
    }

    #[test]
    fn the_flag_vouches_for_its_own_host_over_https_only() {
        let flag = ["Proxy.example.com", "other.example.com:8443"];
        assert!(checked("https://proxy.example.com", &flag).is_ok());
        assert!(checked("https://proxy.example.com:1", &flag).is_ok());
        assert!(checked("https://other.example.com:8443", &flag).is_ok());
        for text in [
            "https://other.example.com",
            "https://x.proxy.example.com",
            "http://proxy.example.com",
        ] {
            assert!(checked(text, &flag).is_err(), "{text}");
        }
    }

    #[test]
    fn an_endpoint_is_https_host_and_port_and_nothing_else() {
        #[rustfmt::skip]
        let cases = [
            ("http://dcdn.aliyuncs.com", "plain http"),
            ("ftp://dcdn.aliyuncs.com", "begins with https"),
            ("file:///etc/passwd", "ends after"),
            ("dcdn.aliyuncs.com", "not an endpoint"),
            ("https://", "not an endpoint"),
            ("", "not an endpoint"),
            ("https://dcdn.aliyuncs.com/x", "ends after"),
            ("https://dcdn.aliyuncs.com?x", "ends after"),
            ("https://dcdn.aliyuncs.com/#x", "ends after"),
            ("https://dcdn.aliyuncs.com:99999", "not an endpoint"),
            ("https://dcdn.aliyuncs.com\n", "spaces or line breaks"),
            ("https://dcdn.aliyuncs.com@example.com", "user or a password"),
            ("https://example.com\\@dcdn.aliyuncs.com", "ends after"),
        ];
        for (text, message) in cases {
            let error = checked(text, &[]).unwrap_err();
            assert!(error.contains(message), "{text}: {error}");
        }
    }

    #[test]
    fn a_password_in_an_endpoint_is_not_shown() {
        let error = checked("https://me:hunter2@dcdn.aliyuncs.com", &[]).unwrap_err();
        assert!(!error.contains("hunter2"), "{error}");
    }
}
