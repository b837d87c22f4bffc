//! What may not stand in the file: credentials, and settings that a cloned project must not decide.
//!
//! It looks at every key and every text of the document, known or not, before anything else is checked. The first
//! finding in the order of the file is the one reported, and what is hidden begins there: nothing that was not looked
//! at is ever shown.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::Fault;

/// What a key id of Alibaba Cloud begins with (a fact of the service).
const KEY_ID_PREFIX: &str = "LTAI";

/// How many letters and digits after the prefix make a text look like a key id. Real ones have 12 to 26.
const KEY_ID_TAIL: usize = 12;

const WHERE_CREDENTIALS_GO: &str = "credentials go into the environment (ALIBABA_CLOUD_ACCESS_KEY_ID and \
    ALIBABA_CLOUD_ACCESS_KEY_SECRET) or into systemd credentials, never into this file; a key that others may have \
    seen should be replaced";

/// Looks at the whole document.
pub(super) fn check(document: &DeTable<'_>) -> Result<(), Fault> {
    let mut found = Vec::new();
    look_at_table(document, &mut found);
    match found.into_iter().min_by_key(|(byte, _)| *byte) {
        Some((_, fault)) => Err(fault),
        None => Ok(()),
    }
}

/// Looks for keys of credentials in a text that does not parse, so that a secret without quotes is not shown as a
/// mistake in the syntax.
pub(super) fn check_broken(text: &str) -> Result<(), Fault> {
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        if let Some(word) = credential_word(line)
            && !line.trim_start().starts_with('#')
        {
            let span = start + word.start..start + word.end;
            return Err(credential_key(&line[word], span));
        }
        start += line.len();
    }
    Ok(())
}

/// The first word of a line that looks like the key of a credential and is followed as a key would be.
pub(super) fn credential_word(line: &str) -> Option<Range<usize>> {
    let in_word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-');
    let mut rest = 0;
    while let Some(from) = line[rest..].find(in_word) {
        let start = rest + from;
        let end = line[start..]
            .find(|c| !in_word(c))
            .map_or(line.len(), |length| start + length);
        let next = line[end..].trim_start_matches(['"', '\'', ' ', '\t']);
        if next.starts_with(['=', ':', '.', ']']) && looks_like_credential(&line[start..end]) {
            return Some(start..end);
        }
        rest = end;
    }
    None
}

/// The text with every key id in it replaced by as many stars.
pub(super) fn starred(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(id) = key_id(rest) {
        out.push_str(&rest[..id.start]);
        out.push_str(&"*".repeat(id.len()));
        rest = &rest[id.end..];
    }
    out.push_str(rest);
    out
}

fn look_at_table(table: &DeTable<'_>, found: &mut Vec<(usize, Fault)>) {
    for (key, value) in table {
        let (name, span) = (key.get_ref().as_ref(), key.span());
        let start = span.start;
        if key_id(name).is_some() {
            found.push((
                start,
                key_id_fault(start..start, "as a key").hide_from(start),
            ));
        } else if let Some(fault) = setting_of_the_caller(name, span.clone()) {
            found.push((start, fault));
        } else if looks_like_credential(name) {
            found.push((start, credential_key(name, span.clone())));
        }
        look_at_value(name, span, value, found);
    }
}

fn look_at_value(
    name: &str,
    key: Range<usize>,
    value: &Spanned<DeValue<'_>>,
    found: &mut Vec<(usize, Fault)>,
) {
    match value.get_ref() {
        DeValue::String(text) if key_id(text).is_some() => {
            let fault = key_id_fault(key.clone(), &format!("in `{name}`")).hide_from(key.end);
            found.push((key.start, fault));
        }
        DeValue::Array(values) => {
            for value in values {
                look_at_value(name, key.clone(), value, found);
            }
        }
        DeValue::Table(table) => look_at_table(table, found),
        _ => {}
    }
}

fn credential_key(name: &str, span: Range<usize>) -> Fault {
    let end = span.end;
    Fault::at(
        span,
        format!("`{name}` looks like a credential, which may not stand in this file"),
    )
    .help(WHERE_CREDENTIALS_GO)
    .hide_from(end)
}

fn key_id_fault(span: Range<usize>, place: &str) -> Fault {
    Fault::at(
        span,
        format!("what looks like an access key id of Alibaba Cloud stands {place}"),
    )
    .help(WHERE_CREDENTIALS_GO)
}

/// Settings that could send requests, code or trust elsewhere: they belong to whoever starts er-dev.
fn setting_of_the_caller(name: &str, span: Range<usize>) -> Option<Fault> {
    let help = match name.to_ascii_lowercase().replace('-', "_").as_str() {
        "ca_file" => "use the flag --ca-file FILE",
        "state_dir" => "use the flag --state-dir DIR",
        "allow_endpoint" => "use the flag --allow-endpoint HOST",
        "allow_secrets" => "use the flag --allow-secrets",
        "proxy" | "http_proxy" | "https_proxy" | "all_proxy" | "no_proxy" => {
            "use the environment variables HTTPS_PROXY and NO_PROXY"
        }
        _ => return None,
    };
    let message = format!("`{name}` may not be set in this file, since a project could decide it");
    let end = span.end;
    Some(Fault::at(span, message).help(help).hide_from(end))
}

fn looks_like_credential(key: &str) -> bool {
    let plain: String = key
        .chars()
        .filter(|c| !matches!(c, '_' | '-' | ' '))
        .flat_map(char::to_lowercase)
        .collect();
    let parts = [
        "accesskey",
        "apikey",
        "privatekey",
        "secret",
        "token",
        "password",
        "passwd",
        "passphrase",
        "credential",
    ];
    matches!(plain.as_str(), "ak" | "sk" | "key" | "keyid" | "auth")
        || parts.iter().any(|part| plain.contains(part))
}

fn key_id(text: &str) -> Option<Range<usize>> {
    text.match_indices(KEY_ID_PREFIX).find_map(|(start, _)| {
        let after = &text[start + KEY_ID_PREFIX.len()..];
        let tail = after
            .find(|c: char| !c.is_ascii_alphanumeric())
            .unwrap_or(after.len());
        (tail >= KEY_ID_TAIL).then_some(start..start + KEY_ID_PREFIX.len() + tail)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_a_credential_is_known_in_any_spelling() {
        for key in [
            "access_key_id",
            "AccessKeySecret",
            "ACCESS-KEY-ID",
            "secret",
            "client-secret",
            "token",
            "security_token",
            "sts_token",
            "Password",
            "passwd",
            "api_key",
            "credentials",
            "private-key",
            "sk",
        ] {
            assert!(looks_like_credential(key), "{key}");
        }
    }

    #[test]
    fn a_key_id_is_starred_wherever_it_stands() {
        let id = format!("{}{}", "LTAI", "5tAbcdEfgh1234567890wxyz");
        let text = starred(&format!("a {id}, {id}x LTAIshort \u{7248}{id}"));
        assert!(!text.contains("5tAbcd"), "{text}");
        assert!(text.contains("LTAIshort"), "{text}");
        assert_eq!(starred("nothing to hide"), "nothing to hide");
    }

    #[test]
    fn a_word_is_a_key_only_where_a_key_could_stand() {
        assert_eq!(credential_word("x = 1 # the token of the day"), None);
        assert_eq!(credential_word("secret=x"), Some(0..6));
        assert_eq!(credential_word("a = { \"api-key\" : 1 }"), Some(7..14));
        assert_eq!(credential_word("[\u{e9}, secret]"), Some(5..11));
    }
}
