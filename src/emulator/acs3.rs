//! ACS3-HMAC-SHA256 from the server's side: what the headers of a call claim, and whether that is so.
//!
//! In which order a signature and the rest of a call are judged is left to `gateway`.

use std::collections::BTreeMap;

use super::reply::Refusal;
use super::signature;

/// The name of the scheme.
const NAME: &str = "ACS3-HMAC-SHA256";

/// How the names of all schemes of this family begin.
const FAMILY: &str = "ACS3-";

/// The headers that stand for parameters of the older scheme.
const COMMON: [(&str, &str); 5] = [
    ("x-acs-action", "Action"),
    ("x-acs-version", "Version"),
    ("x-acs-date", "Timestamp"),
    ("x-acs-signature-nonce", "SignatureNonce"),
    ("x-acs-security-token", "SecurityToken"),
];

/// The header that tells the hash of the body.
const HASH: &str = "x-acs-content-sha256";

/// What the signature of a call covers, as it arrived.
#[derive(Debug, Clone)]
pub(super) struct Claim {
    /// By their names in lower case.
    headers: BTreeMap<String, String>,
    /// The parameters in the address, sorted.
    query: Vec<(String, String)>,
    /// The hash of the body.
    hash: String,
}

/// The `Authorization` of a call.
struct Authorization<'a> {
    id: Option<&'a str>,
    /// In the order of the canonical request, whatever their order here.
    signed: Vec<String>,
    signature: Option<&'a str>,
}

impl Claim {
    /// Reads what a call claims, unless it is of the older scheme. Only `Authorization` tells the two apart: the
    /// vendor's older SDKs send some `x-acs-` headers, too.
    pub(super) fn read(
        query: &str,
        headers: impl IntoIterator<Item = (String, String)>,
        body: &[u8],
    ) -> Option<Self> {
        let mut values: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, value) in headers {
            let values = values.entry(name.to_ascii_lowercase()).or_default();
            values.push(value.trim().to_owned());
        }
        let join = |(name, mut values): (String, Vec<String>)| {
            values.sort();
            (name, values.join(","))
        };
        let headers: BTreeMap<String, String> = values.into_iter().map(join).collect();
        if !headers.get("authorization")?.starts_with(FAMILY) {
            return None;
        }
        let mut query = signature::decode_form(query);
        query.sort();
        Some(Self {
            headers,
            query,
            hash: signature::sha256(body),
        })
    }

    /// What the headers say of the call, under the names that the older scheme has for it.
    pub(super) fn parameters(&self) -> Vec<(String, String)> {
        let mut parameters: Vec<(String, String)> = COMMON
            .iter()
            .filter_map(|(header, name)| {
                Some(((*name).to_owned(), self.headers.get(*header)?.clone()))
            })
            .collect();
        if let Some(id) = self.authorization().id {
            parameters.push(("AccessKeyId".to_owned(), id.to_owned()));
        }
        parameters
    }

    /// Whether the caller wants to be answered in JSON.
    pub(super) fn accepts_json(&self) -> bool {
        let accept = self.headers.get("accept");
        accept.is_some_and(|accept| accept.to_ascii_lowercase().contains("json"))
    }

    /// Checks that the call was signed with this secret, and all of it that has to be.
    pub(super) fn check(&self, method: &str, secret: &str) -> Result<(), Refusal> {
        let authorization = self.authorization();
        let (Some(given), false) = (authorization.signature, authorization.signed.is_empty())
        else {
            return Err(incomplete(&format!(
                "Authorization must be like {NAME} Credential=<id>,SignedHeaders=<names>,Signature=<signature>"
            )));
        };
        let Some(hash) = self.headers.get(HASH) else {
            let message = format!("the mandatory header \"{HASH}\" is not supplied");
            return Err(Refusal::new(400, "MissingParameter", message));
        };
        let must = |name: &&String| {
            matches!(name.as_str(), "host" | "content-type") || name.starts_with("x-acs-")
        };
        let unsigned = |name: &&String| !authorization.signed.contains(*name);
        if let Some(name) = self.headers.keys().filter(must).find(unsigned) {
            return Err(incomplete(&format!("the header {name} is not signed")));
        }
        let absent = |name: &&String| !self.headers.contains_key(*name);
        if let Some(name) = authorization.signed.iter().find(absent) {
            return Err(incomplete(&format!(
                "the signed header {name} is not there"
            )));
        }
        let request = self.canonical_request(method, &authorization.signed);
        let text = format!("{NAME}\n{}", signature::sha256(request.as_bytes()));
        if signature::sign_acs3(secret, &text) == given && *hash == self.hash {
            return Ok(());
        }
        Err(signature::mismatch(&format!(
            "{text}, server canonical request is:{request}"
        )))
    }

    /// The body's own hash stands in it, not the one that the header tells.
    fn canonical_request(&self, method: &str, signed: &[String]) -> String {
        let query = signature::canonical(&self.query);
        let value = |name: &String| self.headers.get(name).map_or("", String::as_str);
        let headers: String = signed
            .iter()
            .map(|name| format!("{name}:{}\n", value(name)))
            .collect();
        let names = signed.join(";");
        format!("{method}\n/\n{query}\n{headers}\n{names}\n{}", self.hash)
    }

    fn authorization(&self) -> Authorization<'_> {
        let text = self.headers.get("authorization").map_or("", String::as_str);
        let fields: BTreeMap<&str, &str> = text
            .strip_prefix(NAME)
            .unwrap_or_default()
            .split(',')
            .filter_map(|field| field.trim().split_once('='))
            .collect();
        let field = |name: &str| fields.get(name).copied().filter(|value| !value.is_empty());
        let mut signed: Vec<String> = field("SignedHeaders")
            .map(|names| names.split(';').map(str::to_ascii_lowercase).collect())
            .unwrap_or_default();
        signed.sort();
        signed.dedup();
        Authorization {
            id: field("Credential"),
            signed,
            signature: field("Signature"),
        }
    }
}

fn incomplete(cause: &str) -> Refusal {
    let message = format!("The request signature does not conform to Aliyun standards. {cause}");
    Refusal::new(400, "IncompleteSignature", message)
}

#[cfg(test)]
pub(super) mod tests;
