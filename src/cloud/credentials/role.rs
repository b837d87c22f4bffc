//! A role that a key takes on: the service that hands out temporary keys is asked in the same way as any other.
//! (`AssumeRole`, version 2015-04-01, of the product Sts.)

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use secrecy::ExposeSecret as _;

use crate::cloud::error::{self, Answer};
use crate::cloud::{Authorities, http, rpc, sign};
use crate::config::Signature;
use crate::secrets::Text;

use super::Credentials;
use super::means::Role;

const OPERATION: &str = "AssumeRole";

const VERSION: &str = "2015-04-01";

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The largest answer that is read, in bytes.
const MAX_BYTES: usize = 64 * 1024;

/// What the role's sessions are called where nothing else is said.
const SESSION: &str = "er-dev";

/// How long a session lasts where nothing else is said, in seconds (the service's own default).
const SECONDS: &str = "3600";

/// The service's answer to this key asking for this role. `address` stands in for the service in a test, and has to be
/// on this machine.
pub(super) async fn assume(
    role: &Role,
    key: &Credentials,
    address: Option<&str>,
    authorities: &Authorities,
) -> Result<Text, String> {
    let (url, host) = match address {
        None => {
            let host = host(role.region.as_deref())?;
            (format!("https://{host}/"), host)
        }
        Some(address) => match address.parse::<SocketAddr>() {
            Ok(address) if address.ip().is_loopback() => {
                (format!("http://{address}/"), address.to_string())
            }
            _ => return Err("the address of the service for roles is not on this machine".into()),
        },
    };
    key.check_endpoint(address.is_some())
        .map_err(|error| error.to_string())?;
    let session = role.session.as_deref().unwrap_or(SESSION);
    let seconds = role.seconds.as_deref().unwrap_or(SECONDS);
    let mut arguments = vec![
        ("RoleArn", role.arn.as_str()),
        ("RoleSessionName", session),
        ("DurationSeconds", seconds),
    ];
    arguments.extend(role.external_id.as_deref().map(|id| ("ExternalId", id)));
    arguments.extend(role.policy.as_deref().map(|policy| ("Policy", policy)));
    let call = sign::Call {
        operation: OPERATION,
        version: VERSION,
        arguments: &arguments,
        host: &host,
        timestamp: &humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
        nonce: &rpc::nonce(),
    };
    let signer = sign::Key {
        id: &key.id,
        secret: key.secret().expose_secret(),
        token: key.token().map(|token| token.expose_secret()),
    };
    let signed = sign::sign(Signature::Acs3HmacSha256, &signer, &call);
    let client = http::Client::new(address.is_some(), authorities.clone())
        .map_err(|_| "no HTTP client could be made")?;
    let request = |client: &reqwest::Client| {
        let request = client.post(url).timeout(TIMEOUT).body(signed.body);
        let headers = signed.headers.into_iter();
        headers.fold(request, |request, (name, value)| {
            request.header(name, value)
        })
    };
    let answer = client.send(OPERATION, MAX_BYTES, request).await;
    let answer = answer.map_err(|error| error.to_string())?;
    if answer.status == 200 {
        return Ok(answer.text.into());
    }
    let told = Answer {
        status: answer.status,
        body: &rpc::scrubbed(key, &answer.text),
        retry_after: None,
    };
    Err(error::of_api(OPERATION, told).to_string())
}

/// The host of the service, in a region or for all of them.
fn host(region: Option<&str>) -> Result<String, &'static str> {
    let is_region = |text: &str| {
        let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        text.chars().all(inner)
    };
    match region {
        None => Ok("sts.aliyuncs.com".to_owned()),
        Some(region) if is_region(region) => Ok(format!("sts.{region}.aliyuncs.com")),
        Some(_) => Err("its region is no name of a region such as cn-hangzhou"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_names_a_host_of_the_service_and_nothing_else() {
        assert_eq!(host(None).unwrap(), "sts.aliyuncs.com");
        let region = host(Some("cn-hangzhou"));
        assert_eq!(region.unwrap(), "sts.cn-hangzhou.aliyuncs.com");
        for odd in ["a.example.org/", "a/b", "CN", "a b", "a:1", "a@b", "a#"] {
            assert!(host(Some(odd)).is_err(), "{odd}");
        }
    }
}
