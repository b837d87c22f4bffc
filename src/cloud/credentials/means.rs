//! What a file says of a key: the key itself, or where it comes from. Pure.
//!
//! A parser's own words for what is wrong are not passed on, since they may quote a value.

use serde_json::Value;

use super::document::{Document, field};
use crate::cloud::error::tidy;
use crate::secrets::Text;

/// The longest name of a profile or mode that is repeated in a message, in characters.
const MAX_NAME_CHARS: usize = 64;

/// The modes of the command line tool that are supported.
const MODES: [&str; 6] = [
    "AK",
    "StsToken",
    "RamRoleArn",
    "External",
    "CredentialsURI",
    "EcsRamRole",
];

/// The types of sections that are supported.
const TYPES: [&str; 4] = ["access_key", "sts", "ram_role_arn", "ecs_ram_role"];

/// Where the key of a profile comes from.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Means {
    /// It stands there.
    Pair(Pair),
    /// This command prints it.
    Command(String),
    /// A server at this address hands it out.
    Uri(String),
    /// It is that of the role of this ECS instance; of the only one, where none is named.
    Role(Option<String>),
    /// A key that stands there takes on a role.
    Assumed(Pair, Role),
}

/// A role that a key takes on.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Role {
    pub(super) arn: String,
    pub(super) session: Option<String>,
    pub(super) seconds: Option<String>,
    pub(super) external_id: Option<String>,
    pub(super) policy: Option<String>,
    pub(super) region: Option<String>,
}

/// The parts of a key, each with its name in the file, as far as they are there.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Pair {
    pub(super) id: Part,
    pub(super) secret: Part,
    pub(super) token: Part,
}

/// A part of a key: what the place calls it, and its value if there is one.
pub(super) type Part = (String, Option<Text>);

/// The profile that was found, by its name, and what it says.
pub(super) type Found = Option<(String, Means)>;

/// Reads the aliyun command line tool's `config.json`: the wanted profile, or the one that it calls current. `None` if
/// a wanted one is not there, or the current one was never filled in. (Fields and modes: aliyun/aliyun-cli,
/// `config/profile.go`.)
pub(super) fn of_cli(text: &str, wanted: Option<&str>) -> Result<Found, String> {
    let document = Document::read(text).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        format!("line {line} column {column} is not valid JSON")
    })?;
    let word = |value: &Value, key: &str| field(value, key).map(|text| text.to_string());
    let profiles = document.0.get("profiles").and_then(Value::as_array);
    let current = word(&document.0, "current").unwrap_or_else(|| "default".into());
    let name = wanted.map_or(current, str::to_owned);
    let is_it = |profile: &&Value| field(profile, "name").as_deref() == Some(&name);
    let Some(profile) = profiles.into_iter().flatten().find(is_it) else {
        let some = profiles.is_some_and(|profiles| !profiles.is_empty());
        return match wanted {
            None if some => Err(format!(
                "it has no profile `{}`, which it calls its current one; run `aliyun configure switch`",
                shown(&name)
            )),
            _ => Ok(None),
        };
    };
    let mode = word(profile, "mode").unwrap_or_else(|| "AK".into());
    // Upper and lower case are the same to the tool.
    let known = MODES.iter().find(|known| known.eq_ignore_ascii_case(&mode));
    let mode = known.map_or(mode, |known| (*known).to_owned());
    let whose = format!("profile `{}`", shown(&name));
    let needed = |key: &str| {
        field(profile, key).ok_or_else(|| format!("{whose} of mode {mode} has no `{key}`"))
    };
    let means = match mode.as_str() {
        "AK" | "StsToken" | "RamRoleArn" => {
            let keys = ["access_key_id", "access_key_secret"];
            let is_empty = keys.iter().all(|key| field(profile, key).is_none());
            if is_empty && wanted.is_none() && mode == "AK" {
                return Ok(None);
            }
            let part = |key: &str| Ok::<Part, String>((key.to_owned(), Some(needed(key)?)));
            let pair = Pair {
                id: part("access_key_id")?,
                secret: part("access_key_secret")?,
                token: match mode.as_str() {
                    "StsToken" => part("sts_token")?,
                    "AK" => ("sts_token".into(), None),
                    _ => ("sts_token".into(), field(profile, "sts_token")),
                },
            };
            if mode == "RamRoleArn" {
                let seconds = profile.get("expired_seconds").and_then(Value::as_u64);
                let role = Role {
                    arn: needed("ram_role_arn")?.to_string(),
                    session: word(profile, "ram_session_name"),
                    // The tool writes 0 for what was not said.
                    seconds: seconds.filter(|n| *n > 0).map(|n| n.to_string()),
                    external_id: word(profile, "external_id"),
                    policy: None,
                    region: word(profile, "sts_region"),
                };
                Means::Assumed(pair, role)
            } else {
                Means::Pair(pair)
            }
        }
        "External" => Means::Command(needed("process_command")?.to_string()),
        "CredentialsURI" => Means::Uri(needed("credentials_uri")?.to_string()),
        "EcsRamRole" => Means::Role(word(profile, "ram_role_name")),
        other => return Err(unsupported(&whose, "mode", other, &MODES)),
    };
    Ok(Some((name, means)))
}

/// Reads a section of the vendor's INI file: the wanted one, or `default`. `None` if it is not there or is switched off.
/// (Keys and types: aliyun/credentials-go, `credentials/providers/profile.go`.)
pub(super) fn of_ini(text: &str, wanted: Option<&str>) -> Result<Found, String> {
    let name = wanted.unwrap_or("default").to_owned();
    let Some(section) = section(text, &name)? else {
        return Ok(None);
    };
    let field = |key: &str| {
        // Of two the last one counts, as for whoever reads the file into a map.
        let of_key = section.iter().rev().find(|(known, _)| known == key);
        let value = of_key.map(|(_, value)| value.clone());
        value.filter(|value| !value.is_empty())
    };
    let word = |key: &str| field(key).map(|text| text.to_string());
    if field("enable").is_some_and(|enable| enable.eq_ignore_ascii_case("false")) {
        return Ok(None);
    }
    let whose = format!("section [{}]", shown(&name));
    let Some(kind) = word("type") else {
        return Err(format!(
            "{whose} has no `type`; it can be {}",
            TYPES.join(", ")
        ));
    };
    let needed = |key: &str| {
        let missing = || format!("{whose} of type {kind} has no `{key}`");
        field(key).ok_or_else(missing)
    };
    let part = |key: &str| Ok::<Part, String>((key.to_owned(), Some(needed(key)?)));
    let means = match kind.as_str() {
        "access_key" | "sts" | "ram_role_arn" => {
            let pair = Pair {
                id: part("access_key_id")?,
                secret: part("access_key_secret")?,
                token: match kind.as_str() {
                    "sts" => part("security_token")?,
                    _ => ("security_token".into(), None),
                },
            };
            if kind == "ram_role_arn" {
                let role = Role {
                    arn: needed("role_arn")?.to_string(),
                    session: word("role_session_name"),
                    seconds: None,
                    external_id: None,
                    policy: word("policy"),
                    region: None,
                };
                Means::Assumed(pair, role)
            } else {
                Means::Pair(pair)
            }
        }
        "ecs_ram_role" => Means::Role(word("role_name")),
        other => return Err(unsupported(&whose, "type", other, &TYPES)),
    };
    Ok(Some((name, means)))
}

/// The keys and values of a section; `None` if there is none of that name.
fn section(text: &str, name: &str) -> Result<Option<Vec<(String, Text)>>, String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut found: Option<Vec<(String, Text)>> = None;
    let mut inside = false;
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(rest) = line.strip_prefix('[') {
            let title = rest.split_once(']').map(|(title, _)| title.trim());
            let title = title.ok_or_else(|| format!("line {} has no `]`", index + 1))?;
            inside = title == name;
            if inside {
                found.get_or_insert_default();
            }
            continue;
        }
        let (key, value) = line
            .split_once('=')
            .ok_or_else(|| format!("line {} is neither `key = value` nor `[name]`", index + 1))?;
        if inside && let Some(found) = &mut found {
            let value = Text::new(unquoted(value.trim()).to_owned());
            found.push((key.trim().to_owned(), value));
        }
    }
    Ok(found)
}

fn unquoted(value: &str) -> &str {
    let inner = |quote: char| value.strip_prefix(quote)?.strip_suffix(quote);
    inner('"').or_else(|| inner('\'')).unwrap_or(value)
}

fn unsupported(whose: &str, what: &str, given: &str, known: &[&str]) -> String {
    format!(
        "{whose} has the {what} `{}`, which er-dev does not support; it can be {}. Name another one with \
         `service.profile`, or let a command print the key with the mode External of the aliyun command line tool",
        shown(given),
        known.join(", ")
    )
}

/// A text of the file that holds a name, as far as it may be shown.
pub(super) fn shown(name: &str) -> String {
    tidy(name, MAX_NAME_CHARS)
}

#[cfg(test)]
mod tests;
