//! The operations of DCDN's EdgeRoutine API (version 2018-01-15) and the shapes of its answers.
//!
//! The documentation leaves most of the shapes open, so reading is lenient: numbers for text, one element for a list,
//! three encodings of a description. What rotation depends on is the exception. Where the environments cannot be read
//! without a guess, they are unknown, and then nothing is deleted.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::PoisonError;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use crate::routine::{Code, Revision, RoutineName};

use super::error::{self, Class, CloudError};
use super::form::Form;
use super::gate::Permit;
use super::rpc::Size;
use super::{Cloud, Environments, Fetched, Listed, Listing};

impl Cloud {
    /// Lists the versions of a routine and what is live where (`DescribeRoutine`).
    pub async fn list(
        &self,
        permit: Permit<'_>,
        routine: &RoutineName,
    ) -> Result<Listing, CloudError> {
        let operation = "DescribeRoutine";
        let arguments = [("Name", routine.as_str())];
        let mut key = self.rpc.key(operation)?;
        let sent = self
            .rpc
            .send_with(&key, permit, operation, &arguments, Size::Words);
        let answer = match sent.await {
            // A listing changes nothing, so it may go out once more.
            Err(error) if error.key_changed => {
                let permit = self.permit().await;
                key = self.rpc.key(operation)?;
                self.rpc
                    .send_with(&key, permit, operation, &arguments, Size::Words)
                    .await?
            }
            answer => answer?,
        };
        self.listed_with
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(routine.clone(), key.number);
        match answer.get("Content") {
            Some(Value::Object(content)) => Ok(listing(content)),
            // The service has been seen to answer like this for a routine that does not exist.
            None | Some(Value::Null) => Err(CloudError::unusable(
                Class::Gone,
                operation,
                "the routine does not exist",
            )),
            Some(_) => Err(odd(&answer, operation, "the answer holds no listing")),
        }
    }

    /// Asks for a new version and the form to post its code with (`UploadRoutineCode`). The version may exist from
    /// here on, without code.
    pub async fn begin_upload(
        &self,
        permit: Permit<'_>,
        routine: &RoutineName,
        description: &str,
    ) -> Result<(Revision, Form), CloudError> {
        self.begin(permit, "UploadRoutineCode", routine, description)
            .await
    }

    /// Asks for the form to post code with that is to run on staging (`UploadStagingRoutineCode`). What the answer names
    /// may be the staging slot, a version, or neither of them.
    pub async fn begin_staging(
        &self,
        permit: Permit<'_>,
        routine: &RoutineName,
        description: &str,
    ) -> Result<(Revision, Form), CloudError> {
        self.begin(permit, "UploadStagingRoutineCode", routine, description)
            .await
    }

    async fn begin(
        &self,
        permit: Permit<'_>,
        operation: &'static str,
        routine: &RoutineName,
        description: &str,
    ) -> Result<(Revision, Form), CloudError> {
        let arguments = [("Name", routine.as_str()), ("CodeDescription", description)];
        let sent = self.rpc.send(permit, operation, &arguments, Size::Words);
        let answer = sent.await?;
        // A form that may not be used is the same at the next try.
        let refused = |what: String| CloudError::unusable(Class::Permanent, operation, what);
        let content = answer.get("Content").unwrap_or(&Value::Null);
        let revision = content
            .get("CodeRevision")
            .and_then(text)
            .filter(|text| is_name(text))
            .ok_or_else(|| odd(&answer, operation, "the answer names no version"))?;
        let config = content.get("OssPostConfig").unwrap_or(&Value::Null);
        let form = Form::read(config, self.loopback).map_err(|error| refused(error.to_string()))?;
        Ok((Revision::new(&revision), form))
    }

    /// Makes a version of what is on staging (`CommitStagingRoutineCode`).
    pub async fn commit_staging(
        &self,
        permit: Permit<'_>,
        routine: &RoutineName,
        description: &str,
    ) -> Result<Revision, CloudError> {
        let operation = "CommitStagingRoutineCode";
        let arguments = [("Name", routine.as_str()), ("CodeDescription", description)];
        let sent = self.rpc.send(permit, operation, &arguments, Size::Words);
        let answer = sent.await?;
        let content = answer.get("Content").unwrap_or(&Value::Null);
        // One sample of the documentation has the number alone.
        let named = content.get("CodeRevision").and_then(text);
        let named = named.or_else(|| text(content)).filter(|text| is_name(text));
        match named {
            Some(revision) => Ok(Revision::new(&revision)),
            None => Err(odd(&answer, operation, "the answer names no version")),
        }
    }

    /// The addresses of the nodes that run what is on staging (`DescribeDcdnStagingIp`).
    pub async fn staging_addresses(&self) -> Result<Vec<IpAddr>, CloudError> {
        let operation = "DescribeDcdnStagingIp";
        let answer = self.rpc.call(operation, &[], Size::Words).await?;
        let listed = answer.pointer("/IPV4s/IPV4").unwrap_or(&Value::Null);
        let one = std::slice::from_ref(listed);
        let all = listed.as_array().map_or(one, Vec::as_slice);
        let addresses = all.iter().filter_map(Value::as_str);
        Ok(addresses.filter_map(|text| text.parse().ok()).collect())
    }

    /// Posts the code with the form of its upload. `Ok` means that the service has it.
    pub async fn post(&self, form: &Form, code: &Code) -> Result<(), CloudError> {
        let timeout = self.rpc.timeouts.post_of(code);
        form.post(&self.rpc.client, code, timeout).await
    }

    /// Reads the code of a version back (`DescribeRoutineCodeRevision`).
    pub async fn fetch(
        &self,
        routine: &RoutineName,
        revision: &Revision,
    ) -> Result<Fetched, CloudError> {
        let operation = "DescribeRoutineCodeRevision";
        let arguments = [
            ("Name", routine.as_str()),
            ("SelectCodeRevision", revision.as_str()),
        ];
        let answer = self.rpc.call(operation, &arguments, Size::Code).await?;
        // Nothing is a statement of the service; no statement at all is not taken for one.
        let encoded = answer
            .pointer("/Content/ErCode")
            .and_then(Value::as_str)
            .ok_or_else(|| odd(&answer, operation, "the answer holds no code"))?;
        let bytes = STANDARD
            .decode(encoded)
            .map_err(|_| odd(&answer, operation, "the code is not valid base64"))?;
        if bytes.is_empty() || is_storage_error(&bytes) {
            return Ok(Fetched::Nothing);
        }
        Ok(Fetched::Code(Code::new(bytes)))
    }

    /// Deletes a version for good (`DeleteRoutineCodeRevision`). The service does not promise to spare a live one, so
    /// the look it rests on has to be fresh when the permit is given. It is sent with the key of that look or not at all,
    /// since no answer names the account.
    pub async fn delete(
        &self,
        permit: Permit<'_>,
        routine: &RoutineName,
        revision: &Revision,
    ) -> Result<(), CloudError> {
        let operation = "DeleteRoutineCodeRevision";
        let arguments = [
            ("Name", routine.as_str()),
            ("SelectCodeRevision", revision.as_str()),
        ];
        let key = self.rpc.key(operation)?;
        if self.listed_with(routine) != Some(key.number) {
            let class = Class::NotSent;
            return Err(CloudError::unusable(class, operation, error::KEY_CHANGED));
        }
        self.rpc
            .send_with(&key, permit, operation, &arguments, Size::Words)
            .await?;
        Ok(())
    }

    /// Makes a version the live one of environments (`PublishRoutineCodeRevision`).
    pub async fn publish(
        &self,
        routine: &RoutineName,
        revision: &Revision,
        environments: &[&str],
    ) -> Result<(), CloudError> {
        let environments = Value::from(environments.to_vec()).to_string();
        let arguments = [
            ("Name", routine.as_str()),
            ("SelectCodeRevision", revision.as_str()),
            ("Envs", &environments),
        ];
        self.rpc
            .call("PublishRoutineCodeRevision", &arguments, Size::Words)
            .await?;
        Ok(())
    }

    /// Makes a routine with the service's own settings (`CreateRoutine`).
    pub async fn create(&self, routine: &RoutineName) -> Result<(), CloudError> {
        self.rpc
            .call("CreateRoutine", &[("Name", routine.as_str())], Size::Words)
            .await?;
        Ok(())
    }
}

/// The service's own answer, with something in it that cannot be used. It is likely to be the same at the next try.
fn odd(answer: &Value, operation: &'static str, what: &str) -> CloudError {
    let mut error = CloudError::unusable(Class::Ambiguous, operation, what);
    error.request_id = answer.get("RequestId").and_then(text);
    error
}

/// A version without code reads back as object storage's own error page. Code that only speaks of one is code.
fn is_storage_error(bytes: &[u8]) -> bool {
    let start = String::from_utf8_lossy(&bytes[..bytes.len().min(512)]).into_owned();
    let page = start.trim_start_matches('\u{feff}').trim_start();
    ["<?xml", "<Error>"].iter().any(|tag| page.starts_with(tag))
        && page.contains("<Error>")
        && page.contains("<Code>NoSuchKey</Code>")
}

fn listing(content: &Map<String, Value>) -> Listing {
    let mut unread = false;
    let rows = elements(content.get("CodeRevs"), "CodeRevision");
    let rows = rows.unwrap_or_else(|| {
        unread = true;
        Vec::new()
    });
    let mut revisions = Vec::new();
    for row in rows {
        match listed(row) {
            Some(listed) => revisions.push(listed),
            None => unread = true,
        }
    }
    // Which version is the oldest, and how many there are, can only be told by a list that was read whole.
    let environments = if unread {
        Environments::Unknown("the service's list of versions could not be read whole".into())
    } else {
        environments(content)
    };
    Listing {
        revisions,
        environments,
        whole: !unread,
    }
}

fn listed(row: &Value) -> Option<Listed> {
    let field = |key: &str| row.get(key).and_then(text);
    let revision = field("CodeRevision").filter(|revision| is_name(revision))?;
    let created = field("CreationTime").or_else(|| field("CreateTime"));
    Some(Listed {
        revision: Revision::new(&revision),
        created: created.and_then(|time| time.parse().ok()),
        description: description(&field("CodeDescription").unwrap_or_default()),
    })
}

/// The members of a list that may also come as one element, or wrapped in an object as XML would have it; `None` if it
/// is no list at all.
fn elements<'a>(value: Option<&'a Value>, key: &str) -> Option<Vec<&'a Value>> {
    match value? {
        Value::Array(list) => Some(list.iter().collect()),
        one @ Value::Object(map) if map.contains_key(key) => match map.get(key) {
            inner @ Some(Value::Array(_) | Value::Object(_)) => elements(inner, key),
            _ => Some(vec![one]),
        },
        Value::Object(map) if map.len() == 1 => elements(map.values().next(), key),
        Value::Object(map) if map.is_empty() => Some(Vec::new()),
        _ => None,
    }
}

fn environments(content: &Map<String, Value>) -> Environments {
    let Some(Value::Object(conf)) = content.get("EnvConf") else {
        return Environments::Unknown("the service did not say what is live where".into());
    };
    let mut live = BTreeMap::new();
    for (name, settings) in conf {
        let shown = error::tidy(name, error::MAX_CODE_CHARS);
        if !is_name(name) {
            return Environments::Unknown(format!(
                "the service named an environment `{shown}`, which is no name"
            ));
        }
        let Some(revision) = settings.get("CodeRev").and_then(text) else {
            return Environments::Unknown(format!(
                "the service did not say what is live in `{shown}`"
            ));
        };
        if !revision.is_empty() && !is_name(&revision) {
            return Environments::Unknown(format!(
                "the service did not say what is live in `{shown}`"
            ));
        }
        // An empty text is how the service says that no numbered version is live there.
        live.insert(
            name.clone(),
            (!revision.is_empty()).then(|| Revision::new(&revision)),
        );
    }
    let named: Vec<String> = match content.get("Envs") {
        Some(Value::Array(list)) => list.iter().filter_map(text).collect(),
        Some(Value::String(one)) => vec![one.clone()],
        _ => Vec::new(),
    };
    if let Some(missing) = named.iter().find(|name| !live.contains_key(*name)) {
        let shown = error::tidy(missing, error::MAX_CODE_CHARS);
        return Environments::Unknown(format!("the service did not say what is live in `{shown}`"));
    }
    Environments::Known(live)
}

/// Whether a text can be the name of something: it is shown to people and may end up in a line of a log.
fn is_name(text: &str) -> bool {
    let chars = 1..=error::MAX_CODE_CHARS;
    chars.contains(&text.chars().count()) && !text.chars().any(char::is_control)
}

/// Text, or a whole number as text. A number with a fraction or an exponent has lost digits already and stays unread.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) if number.is_u64() => Some(number.to_string()),
        _ => None,
    }
}

/// Descriptions come back in base64, in base64 of a JSON string, or plain.
fn description(raw: &str) -> String {
    let decoded = STANDARD
        .decode(raw)
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok());
    match decoded {
        Some(text) if !text.chars().any(char::is_control) => match serde_json::from_str(&text) {
            Ok(Value::String(inner)) => inner,
            _ => text,
        },
        _ => match serde_json::from_str(raw) {
            Ok(Value::String(inner)) => inner,
            _ => raw.to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(content: &Value) -> Listing {
        listing(content.as_object().unwrap())
    }

    fn ids(listing: &Listing) -> Vec<&str> {
        listing
            .revisions
            .iter()
            .map(|listed| listed.revision.as_str())
            .collect()
    }

    #[test]
    fn code_that_speaks_of_a_missing_object_is_code() {
        let page = "<?xml version=\"1.0\"?>\n<Error>\n  <Code>NoSuchKey</Code>\n</Error>";
        for page in [page, &format!("\u{feff}\n{page}"), &page[22..]] {
            assert!(is_storage_error(page.as_bytes()), "{page}");
        }
        for code in [
            format!("// looks for `{page}`"),
            format!("const page = `{page}`;"),
            "<Error><Code>AccessDenied</Code></Error>".into(),
        ] {
            assert!(!is_storage_error(code.as_bytes()), "{code}");
        }
    }

    #[test]
    fn by_a_list_that_cannot_be_read_whole_nothing_is_deleted() {
        let environments = json!({"production": {"CodeRev": "17"}});
        for rows in [
            json!(null),
            json!(7),
            json!("none"),
            json!([{"CodeRevision": "17"}, {"CodeRevision": 1.5}]),
            json!([{"CodeRevision": "17"}, {"Revision": "18"}]),
            json!([{"CodeRevision": "17"}, ""]),
            json!([{"CodeRevision": ""}]),
        ] {
            let content = json!({"CodeRevs": rows, "EnvConf": environments});
            let listing = read(&content);
            assert!(
                matches!(listing.environments, Environments::Unknown(_)),
                "{content}"
            );
        }
        let without = read(&json!({"EnvConf": environments}));
        assert!(matches!(without.environments, Environments::Unknown(_)));
        let empty = read(&json!({"CodeRevs": [], "EnvConf": environments}));
        assert!(matches!(empty.environments, Environments::Known(_)));
    }

    #[test]
    fn b11_what_could_not_be_shown_in_a_line_is_no_name() {
        let long = "x".repeat(10_000);
        for name in [&long, "a\u{1b}[2Jb", ""] {
            let row = json!([{"CodeRevision": name}]);
            let listing = read(&json!({"CodeRevs": row, "EnvConf": {}}));
            assert!(!listing.whole && listing.revisions.is_empty(), "{name:?}");
            let named = json!({"CodeRevs": [], "EnvConf": {name: {"CodeRev": ""}}});
            let listed = json!({"CodeRevs": [], "EnvConf": {}, "Envs": [name]});
            let live = json!({"CodeRevs": [], "EnvConf": {"production": {"CodeRev": name}}});
            for content in [named, listed, live] {
                match read(&content).environments {
                    Environments::Unknown(why) => {
                        assert!(
                            why.chars().count() < 200 && !why.contains('\u{1b}'),
                            "{why}"
                        );
                    }
                    // An empty text is how the service says that nothing is live.
                    Environments::Known(_) => assert_eq!(name, "", "{content}"),
                }
            }
        }
    }

    #[test]
    fn the_documented_answer_is_read_whole() {
        let listing = read(&json!({
            "Envs": ["production", "staging", "presetCanaryBeijing"],
            "EnvConf": {
                "production": {"SpecName": "50ms", "CodeRev": "1622467236337778954", "AllowedHosts": ["a"]},
                "staging": {"SpecName": "50ms", "CodeRev": "", "AllowedHosts": []},
                "presetCanaryBeijing": {"SpecName": "5ms", "CodeRev": "1622467214654495147"},
            },
            "CodeRevs": [
                {"CodeRevision": "1622467214654495147", "CreationTime": "2021-05-31T13:20:14Z", "CodeDescription": "IkhlbGxvIFdvcmxkIg=="},
                {"CodeRevision": "unstable", "CreationTime": "", "CodeDescription": "IkhlbGxvIFdvcmxkIEZyb20gU3RhZ2luZyBFbnYi"},
                {"CodeRevision": "1622467544804919489", "CreationTime": "2021-05-31T13:25:44.132925407Z", "CodeDescription": "SGVsbG8gV29ybGQgRnJvbSBDb21taXQ="},
            ],
        }));
        assert_eq!(
            ids(&listing),
            ["1622467214654495147", "unstable", "1622467544804919489"]
        );
        let descriptions: Vec<_> = listing
            .revisions
            .iter()
            .map(|l| l.description.as_str())
            .collect();
        assert_eq!(
            descriptions,
            [
                "Hello World",
                "Hello World From Staging Env",
                "Hello World From Commit"
            ]
        );
        assert_eq!(
            listing.revisions[0].created.unwrap().as_second(),
            1_622_467_214
        );
        assert_eq!(listing.revisions[1].created, None);
        let Environments::Known(live) = listing.environments else {
            panic!()
        };
        assert_eq!(
            live["production"],
            Some(Revision::new("1622467236337778954"))
        );
        assert_eq!(live["staging"], None);
        assert_eq!(
            live["presetCanaryBeijing"],
            Some(Revision::new("1622467214654495147"))
        );
    }

    #[test]
    fn a_version_number_keeps_every_digit_whether_text_or_number() {
        let listing = read(&json!({"EnvConf": {}, "CodeRevs": [
            {"CodeRevision": 1_620_876_959_997_924_701u64}, {"CodeRevision": "1620876959997924702"},
        ]}));
        assert_eq!(
            ids(&listing),
            ["1620876959997924701", "1620876959997924702"]
        );
        assert_eq!(text(&json!(1.5e18)), None);
    }

    #[test]
    fn one_element_may_stand_in_place_of_a_list() {
        let one = json!({"CodeRevision": "1", "CodeDescription": "x"});
        let two = json!([{"CodeRevision": "1"}, {"CodeRevision": "2"}]);
        let shapes = [
            (json!([one]), 1),
            (one.clone(), 1),
            (json!({"CodeRev": one}), 1),
            (json!({"CodeRev": two}), 2),
            (json!({"CodeRevision": two}), 2),
            (json!([]), 0),
            (json!(null), 0),
            (json!(""), 0),
        ];
        for (shape, count) in shapes {
            let listing = read(&json!({"EnvConf": {}, "CodeRevs": shape}));
            assert_eq!(listing.revisions.len(), count, "{shape}");
        }
    }

    #[test]
    fn environments_that_need_a_guess_are_unknown() {
        let odd = [
            json!({}),
            json!({"EnvConf": null}),
            json!({"EnvConf": []}),
            json!({"EnvConf": "production"}),
            json!({"EnvConf": {"production": null}}),
            json!({"EnvConf": {"production": {"SpecName": "5ms"}}}),
            json!({"EnvConf": {"production": {"CodeRev": ["1"]}}}),
            json!({"EnvConf": {"production": {"CodeRev": 1.5e18}}}),
            json!({"EnvConf": {"production": {"CodeRev": "1"}}, "Envs": ["production", "staging"]}),
        ];
        for mut content in odd {
            content["CodeRevs"] = json!([]);
            assert!(
                matches!(read(&content).environments, Environments::Unknown(_)),
                "{content}"
            );
        }
        let known = json!({"EnvConf": {"production": {"CodeRev": 5}}, "Envs": "production", "CodeRevs": []});
        let known = read(&known);
        let live = BTreeMap::from([("production".to_owned(), Some(Revision::new("5")))]);
        assert_eq!(known.environments, Environments::Known(live));
    }

    #[test]
    fn a_description_is_read_in_every_encoding_it_has_been_seen_in() {
        for (raw, read) in [
            ("IkhlbGxvIFdvcmxkIg==", "Hello World"),
            (
                "SGVsbG8gV29ybGQgRnJvbSBDb21taXQ=",
                "Hello World From Commit",
            ),
            ("Hello World", "Hello World"),
            ("\"quoted\"", "quoted"),
            ("", ""),
            ("test", "test"),
            (
                "a.js er1.0123456789abcdef0123456789abcdef.01234567",
                "a.js er1.0123456789abcdef0123456789abcdef.01234567",
            ),
        ] {
            assert_eq!(description(raw), read, "{raw}");
        }
    }

    #[test]
    fn a_version_without_code_is_told_by_the_error_page_in_its_place() {
        let page = b"<?xml version=\"1.0\"?>\n<Error>\n  <Code>NoSuchKey</Code><Message>x</Message></Error>";
        assert!(is_storage_error(page));
        assert!(!is_storage_error(
            b"addEventListener('fetch', () => '<Error>')"
        ));
    }

    proptest::proptest! {
        #[test]
        fn no_answer_makes_reading_panic(raw in ".*", depth in 0usize..6) {
            let mut value = json!(raw);
            for level in 0..depth {
                value = if level % 2 == 0 { json!({"CodeRevision": value, "EnvConf": {"x": value}}) } else { json!([value]) };
            }
            let _ = listing(json!({"CodeRevs": value, "EnvConf": value, "Envs": value}).as_object().unwrap());
            let _ = description(&raw);
        }
    }
}
