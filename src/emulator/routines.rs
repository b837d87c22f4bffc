//! What a routine is at the service: its environments and its versions.
//!
//! Who may change them, and when, is in `world`. Texts are kept in the form in which they came, so that what a callback
//! brings is told again letter for letter.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::Value;

use super::reply::Refusal;
use super::switches::DescriptionForm;
use crate::routine::{Code, Revision};

/// The environments of every routine: the two that all have, and three of the canaries the service knows.
pub const ENVIRONMENTS: [&str; 5] = [
    "production",
    "staging",
    "presetCanaryZhejiang",
    "presetCanaryHong-Kong",
    "presetCanaryOverseas",
];

/// One routine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoutineState {
    /// When it was made.
    pub created: Timestamp,
    /// Its description in plain text.
    pub description: String,
    /// Its environments, in the order in which they are told.
    pub environments: Vec<Environment>,
    pub(super) versions: Vec<Version>,
}

/// One environment of a routine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    /// Its name, in which case counts.
    pub name: &'static str,
    /// Its class of CPU time.
    pub spec: String,
    /// The version that runs there.
    pub live: Option<Revision>,
    /// The hosts it answers for; none means all.
    pub allowed_hosts: Vec<String>,
}

/// One version of a routine's code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// Its number: the time it was made, in nanoseconds since 1970.
    pub revision: Revision,
    /// Its description exactly as it is stored.
    pub stored_description: String,
    /// Its code; none while nothing was posted for it.
    pub code: Option<Code>,
}

impl RoutineState {
    /// The versions, oldest first by number.
    pub fn versions(&self) -> Vec<&Version> {
        let mut sorted: Vec<&Version> = self.versions.iter().collect();
        sorted.sort_by_key(|version| version.revision.number());
        sorted
    }

    /// A version, if it is there.
    pub fn version(&self, revision: &Revision) -> Option<&Version> {
        self.versions.iter().find(|v| v.revision == *revision)
    }

    /// The version that is live in an environment.
    pub fn live(&self, environment: &str) -> Option<&Revision> {
        let found = self.environments.iter().find(|e| e.name == environment);
        found.and_then(|e| e.live.as_ref())
    }

    /// The environments in which a version is live.
    pub fn live_in(&self, revision: &Revision) -> Vec<&'static str> {
        let running = self
            .environments
            .iter()
            .filter(|e| e.live.as_ref() == Some(revision));
        running.map(|e| e.name).collect()
    }

    /// Every entry counts against the cap, also one without code.
    pub(super) fn add(&mut self, version: Version, cap: usize) -> Result<Revision, Refusal> {
        if self.versions.len() >= cap {
            return Err(Refusal::general("you got upper limit of code revisions"));
        }
        let revision = version.revision.clone();
        self.versions.push(version);
        Ok(revision)
    }
}

impl Environment {
    pub(super) fn new(name: &'static str) -> Self {
        Self {
            name,
            spec: "50ms".to_owned(),
            live: None,
            allowed_hosts: Vec::new(),
        }
    }
}

impl Version {
    /// The description in plain text.
    pub fn description(&self) -> String {
        read_text(&self.stored_description)
    }

    /// The bytes of the code.
    pub fn bytes(&self) -> Option<&[u8]> {
        self.code.as_ref().map(Code::bytes)
    }

    /// When it was made, which its number says.
    pub fn created(&self) -> Option<Timestamp> {
        let number = i128::from(self.revision.number()?);
        Timestamp::from_nanosecond(number).ok()
    }
}

/// The refusal of a call about a routine that is not there.
pub(super) fn no_such_routine(name: &str) -> Refusal {
    Refusal::general(format!("routine {name} does not exist"))
}

/// The refusal of a call about a version that is not there.
pub(super) fn no_such_revision(revision: &Revision) -> Refusal {
    Refusal::general(format!("no such code revision: {revision}"))
}

/// A text as the service stores and tells it.
pub(super) fn store_text(text: &str, form: DescriptionForm) -> String {
    match form {
        DescriptionForm::Base64 => STANDARD.encode(text),
        DescriptionForm::JsonBase64 => STANDARD.encode(Value::from(text).to_string()),
        DescriptionForm::Plain => text.to_owned(),
    }
}

/// The plain text of what is stored, in whichever form it was.
pub(super) fn read_text(stored: &str) -> String {
    let Some(decoded) = STANDARD
        .decode(stored)
        .ok()
        .and_then(|b| String::from_utf8(b).ok())
    else {
        return stored.to_owned();
    };
    serde_json::from_str(&decoded).unwrap_or(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_is_stored_as_base64_of_the_quoted_text() {
        let store = |text| store_text(text, DescriptionForm::JsonBase64);
        assert_eq!(store("Hello World"), "IkhlbGxvIFdvcmxkIg==");
        for text in ["", "版本 \"v2\" \n", "SGVsbG8="] {
            assert_eq!(read_text(&store(text)), text);
        }
    }

    #[test]
    fn a_description_that_came_in_another_form_is_read_as_well() {
        assert_eq!(
            read_text("SGVsbG8gV29ybGQgRnJvbSBDb21taXQ="),
            "Hello World From Commit"
        );
        assert_eq!(read_text("not base64"), "not base64");
        for form in [DescriptionForm::Base64, DescriptionForm::Plain] {
            let text = "words er1.0123456789abcdef0123456789abcdef.00c0ffee";
            assert_eq!(read_text(&store_text(text, form)), text);
        }
    }
}
