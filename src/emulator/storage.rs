//! Object storage: a form post is checked, kept, and reported to the service, whose answer is the reply.
//!
//! The report is a call inside the process, but what it says comes from the callback parameters of the form, as at
//! the service: a form that lost them stores a file that no version ever gets.

use serde_json::{Value, json};

use super::form::{self, CALLBACK_PATH, Fields};
use super::history::{POST_OBJECT, Record};
use super::reply::{self, Refusal, Reply};
use super::signature::{decode_form, encode};
use super::world::{Now, Visit, World};
use crate::routine::Code;

/// One form post, read to its end.
#[derive(Debug, Clone)]
pub struct Post {
    /// The fields before the file. What comes after it is ignored.
    pub fields: Fields,
    /// The file, if there was one.
    pub file: Option<Code>,
}

impl World {
    /// Answers one form post and records it. Its form's life is judged at `visit.now`, when its body was complete. A
    /// post that could not be read is handed in as its refusal.
    pub fn post(&mut self, post: Result<&Post, Refusal>, visit: &Visit<'_>) -> Reply {
        self.now = visit.now;
        let mut record = record(post.as_ref().ok().copied(), visit);
        let outcome = post.and_then(|p| self.store(p, visit.now));
        let status = match &outcome {
            Ok(Some(_)) => 200,
            Ok(None) => 204,
            Err(refusal) => refusal.status,
        };
        record.processed = status == 200;
        self.enter(record, status, outcome.as_ref().err(), visit.hit);
        let request_id = self.next_request_id();
        reply::storage(outcome, self.host(), request_id)
    }

    fn store(&mut self, post: &Post, now: Now) -> Result<Option<Value>, Refusal> {
        let Some(key) = post.fields.get("key") else {
            let message = "a form needs a field named key before its file";
            return Err(Refusal::new(400, "InvalidArgument", message));
        };
        let Some(file) = &post.file else {
            let message = "a form needs exactly one field named file";
            return Err(Refusal::new(
                400,
                "IncorrectNumberOfFilesInPOSTRequest",
                message,
            ));
        };
        let size = file.bytes().len() as u64;
        post.fields.check(size, now.wall)?;
        let callback = post.fields.callback()?;
        let named = form::read_key(key);
        let first = named.is_none_or(|(_, revision)| self.first_post(&revision));
        if !first && !self.settings.form_reuse {
            let message = "the object exists already and can not be overwritten";
            return Err(Refusal::new(409, "FileAlreadyExists", message));
        }
        let Some(callback) = callback else {
            return Ok(None);
        };
        // From here on the file is stored, so whatever goes wrong is a callback that failed.
        let failed = |cause: String| Refusal::new(203, "CallbackFailed", cause);
        if callback.url != format!("{}{CALLBACK_PATH}", self.origin) {
            return Err(failed("the callback host cannot be reached".to_owned()));
        }
        if callback.body_type != "application/x-www-form-urlencoded" {
            return Err(failed("the callback answered with status 400".to_owned()));
        }
        let body = fill(&callback.body, |name| match name {
            "object" => key.to_owned(),
            "size" => size.to_string(),
            own if own.starts_with("x:") => post.fields.get(own).unwrap_or_default().to_owned(),
            _ => String::new(),
        });
        self.called_back(&body, key, file)
            .map(Some)
            .map_err(|refusal| {
                failed(format!(
                    "the callback answered with status {}",
                    refusal.status
                ))
            })
    }

    /// What the service does when object storage reports a file.
    fn called_back(&mut self, body: &str, stored: &str, file: &Code) -> Result<Value, Refusal> {
        let told = Fields(decode_form(body));
        let object = told.get("Object").filter(|object| *object == stored);
        let Some((routine, revision)) = object.and_then(form::read_key) else {
            return Err(Refusal::general(
                "the callback names no code that was stored",
            ));
        };
        let description = told.get("CodeDescription").unwrap_or_default();
        self.register(&routine, &revision, description, file.clone())?;
        Ok(registered())
    }
}

/// What the service answers to a callback once the code is registered.
pub(super) fn registered() -> Value {
    json!({"code": 200, "message": "success"})
}

/// What the record of a post holds whatever becomes of it; nothing is known of one that could not be read.
pub(super) fn record(post: Option<&Post>, visit: &Visit<'_>) -> Record {
    let key = post.and_then(|p| form::read_key(p.fields.get("key")?));
    let (routine, revision) = key.unzip();
    Record {
        routine,
        revision,
        sha256: post.and_then(|p| p.file.as_ref()).map(Code::digest),
        ..visit.record(POST_OBJECT)
    }
}

/// Puts values in place of the `${name}` of a callback body, percent-encoded for the form it is.
fn fill(template: &str, value_of: impl Fn(&str) -> String) -> String {
    let mut filled = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("${") {
        filled.push_str(before);
        let Some((name, tail)) = after.split_once('}') else {
            filled.push_str("${");
            rest = after;
            continue;
        };
        filled.push_str(&encode(&value_of(name)));
        rest = tail;
    }
    filled.push_str(rest);
    filled
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use jiff::{SignedDuration, Timestamp};

    use super::super::form::{STORAGE_KEY_SECRET, Ticket, issue};
    use super::super::signature::sign_policy;
    use super::super::world::{Settings, Slot};
    use super::*;
    use crate::routine::{Revision, RoutineName};

    const ORIGIN: &str = "http://127.0.0.1:9480";

    /// A description whose stored form has a plus, which a form would read as a space if nothing encoded it.
    const DESCRIPTION: &str = "<>>>";

    fn noon() -> Timestamp {
        "2026-02-03T12:00:00Z".parse().unwrap()
    }

    fn hello() -> RoutineName {
        RoutineName::new("hello").unwrap()
    }

    /// A world in which an upload has begun, and the form for it, good for five minutes.
    fn begun(slot: Slot) -> (World, Revision, Post) {
        let settings = Settings {
            slot,
            ..Settings::default()
        };
        let mut world = World::new(settings, ORIGIN);
        world.create_routine(&hello(), "", noon()).unwrap();
        let revision = world.begin_upload(&hello(), DESCRIPTION, noon()).unwrap();
        let form = issue(&Ticket {
            origin: ORIGIN,
            routine: &hello(),
            revision: &revision,
            stored_description: &world.store_text(DESCRIPTION),
            expires: noon() + SignedDuration::from_mins(5),
        });
        let fields = form
            .as_object()
            .unwrap()
            .iter()
            .filter(|(name, _)| *name != "Url");
        let fields = fields.map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned()));
        let post = Post {
            fields: Fields(fields.collect()),
            file: Some(Code::new(b"a\0\xff\r\n".to_vec())),
        };
        (world, revision, post)
    }

    fn send(world: &mut World, post: &Post, wall: Timestamp) -> Reply {
        let now = Now {
            wall,
            elapsed: Duration::ZERO,
        };
        let visit = Visit {
            arrived: Duration::ZERO,
            now,
            hit: None,
        };
        world.post(Ok(post), &visit)
    }

    fn set(post: &mut Post, name: &str, value: &str) {
        post.fields.0.retain(|(given, _)| given != name);
        post.fields.0.push((name.to_owned(), value.to_owned()));
    }

    fn drop_field(post: &mut Post, name: &str) {
        post.fields.0.retain(|(given, _)| given != name);
    }

    fn sign(post: &mut Post, policy: &Value) {
        let policy = STANDARD.encode(policy.to_string());
        set(post, "Signature", &sign_policy(STORAGE_KEY_SECRET, &policy));
        set(post, "policy", &policy);
    }

    fn expect(reply: &Reply, status: u16, code: &str) {
        assert_eq!(reply.status, status, "{}", reply.body);
        let element = format!("<Error><Code>{code}</Code><HostId>127.0.0.1:9480</HostId>");
        assert!(reply.body.contains(&element), "{}", reply.body);
    }

    fn code_of<'a>(world: &'a World, revision: &Revision) -> Option<&'a [u8]> {
        world.routine(&hello()).unwrap().version(revision)?.bytes()
    }

    #[test]
    fn a_posted_form_registers_its_code_byte_for_byte_and_answers_with_the_callback() {
        for slot in [Slot::AtUpload, Slot::AtCallback] {
            let (mut world, revision, mut post) = begun(slot);
            post.fields.0.reverse();
            let reply = send(&mut world, &post, noon());
            assert_eq!(reply.status, 200, "{}", reply.body);
            let answer: Value = serde_json::from_str(&reply.body).unwrap();
            assert_eq!(answer["code"], 200);
            assert_eq!(code_of(&world, &revision), Some(&b"a\0\xff\r\n"[..]));
            let version = world.routine(&hello()).unwrap().version(&revision).unwrap();
            assert_eq!(
                version.description(),
                DESCRIPTION,
                "it comes from the callback"
            );
            let record = serde_json::to_value(world.history().iter().next_back().unwrap()).unwrap();
            assert_eq!(record["op"], "PostObject");
            assert_eq!(record["revision"], json!(revision));
            assert_eq!(
                record["sha256"],
                json!(post.file.as_ref().unwrap().digest())
            );
        }
    }

    #[test]
    fn the_life_of_a_form_is_judged_when_the_post_is_complete() {
        let (mut world, revision, post) = begun(Slot::AtUpload);
        let end = noon() + SignedDuration::from_mins(5);
        let late = send(&mut world, &post, end + SignedDuration::from_nanos(1));
        expect(&late, 403, "AccessDenied");
        assert!(late.body.contains("Policy expired"));
        assert_eq!(code_of(&world, &revision), None);
        assert_eq!(send(&mut world, &post, end).status, 200);
    }

    #[test]
    fn a_field_that_the_policy_names_may_not_change_or_be_left_out() {
        for name in ["key", "callback", "x:codeDescription"] {
            let (mut world, revision, mut post) = begun(Slot::AtUpload);
            set(&mut post, name, "hello.1000000000000001.1.js");
            let reply = send(&mut world, &post, noon());
            expect(&reply, 403, "AccessDenied");
            assert!(
                reply.body.contains("Policy Condition failed"),
                "{}",
                reply.body
            );
            assert_eq!(code_of(&world, &revision), None);
        }
        for name in ["callback", "x:codeDescription"] {
            let (mut world, _, mut post) = begun(Slot::AtUpload);
            drop_field(&mut post, name);
            expect(&send(&mut world, &post, noon()), 403, "AccessDenied");
        }
    }

    #[test]
    fn the_case_of_a_fields_name_does_not_count() {
        let (mut world, _, mut post) = begun(Slot::AtUpload);
        for (name, _) in &mut post.fields.0 {
            *name = name.to_lowercase();
        }
        assert_eq!(send(&mut world, &post, noon()).status, 200);
    }

    #[test]
    fn every_condition_of_a_policy_counts() {
        for (condition, status) in [
            (json!(["eq", "$x:extra", "e"]), 403),
            (json!(["eq", "$x:mine", "value"]), 200),
            (json!(["starts-with", "$x:mine", "val"]), 200),
            (json!(["starts-with", "$x:mine", "x"]), 403),
            (json!({"x:mine": "value"}), 200),
            (json!({"x:mine": "other"}), 403),
            (json!({"x:extra": null}), 403),
            (json!(["near", "$x:mine", "value"]), 400),
            (json!(["content-length-range", "1", "2"]), 400),
            (json!("anything"), 400),
        ] {
            let (mut world, _, mut post) = begun(Slot::AtUpload);
            set(&mut post, "x:mine", "value");
            let policy = json!({"expiration": "2030-01-01T00:00:00Z", "conditions": [condition]});
            sign(&mut post, &policy);
            assert_eq!(
                send(&mut world, &post, noon()).status,
                status,
                "{condition}"
            );
        }
    }

    #[test]
    fn one_byte_to_four_mebibytes_are_taken() {
        for (size, status, code) in [
            (0, 400, "EntityTooSmall"),
            (1, 200, ""),
            (4_194_304, 200, ""),
            (4_194_305, 400, "EntityTooLarge"),
        ] {
            let (mut world, revision, mut post) = begun(Slot::AtUpload);
            post.file = Some(Code::new(vec![b'x'; size]));
            let reply = send(&mut world, &post, noon());
            if status == 200 {
                assert_eq!(
                    (reply.status, code_of(&world, &revision).unwrap().len()),
                    (200, size)
                );
            } else {
                expect(&reply, status, code);
            }
        }
    }

    #[test]
    fn a_form_whose_signature_or_parts_are_wrong_stores_nothing() {
        for (name, value, status, code) in [
            ("Signature", "AAAA", 403, "SignatureDoesNotMatch"),
            ("policy", "e30=", 403, "SignatureDoesNotMatch"),
            ("OSSAccessKeyId", "other", 403, "InvalidAccessKeyId"),
        ] {
            let (mut world, revision, mut post) = begun(Slot::AtUpload);
            set(&mut post, name, value);
            expect(&send(&mut world, &post, noon()), status, code);
            drop_field(&mut post, name);
            expect(&send(&mut world, &post, noon()), 403, "AccessDenied");
            assert_eq!(code_of(&world, &revision), None);
        }
        let (mut world, _, mut post) = begun(Slot::AtUpload);
        post.file = None;
        expect(
            &send(&mut world, &post, noon()),
            400,
            "IncorrectNumberOfFilesInPOSTRequest",
        );
        drop_field(&mut post, "key");
        expect(&send(&mut world, &post, noon()), 400, "InvalidArgument");
        let (mut world, _, mut post) = begun(Slot::AtUpload);
        sign(&mut post, &json!({"conditions": []}));
        expect(
            &send(&mut world, &post, noon()),
            400,
            "InvalidPolicyDocument",
        );
    }

    #[test]
    fn a_form_can_be_posted_again_only_where_forms_can_be_reused() {
        for reuse in [true, false] {
            let (mut world, revision, mut post) = begun(Slot::AtUpload);
            world.settings.form_reuse = reuse;
            assert_eq!(send(&mut world, &post, noon()).status, 200);
            post.file = Some(Code::new(b"later".to_vec()));
            let again = send(&mut world, &post, noon());
            if reuse {
                assert_eq!(code_of(&world, &revision), Some(&b"later"[..]));
            } else {
                expect(&again, 409, "FileAlreadyExists");
                assert_eq!(code_of(&world, &revision), Some(&b"a\0\xff\r\n"[..]));
            }
        }
    }

    #[test]
    fn code_that_is_normalised_loses_its_byte_order_mark_and_the_cr_of_its_line_ends() {
        let (mut world, revision, mut post) = begun(Slot::AtCallback);
        world.settings.normalised_code = true;
        post.file = Some(Code::new(b"\xef\xbb\xbfa\r\nb\rc\n\xef\xbb\xbf\r".to_vec()));
        assert_eq!(send(&mut world, &post, noon()).status, 200);
        assert_eq!(
            code_of(&world, &revision),
            Some(&b"a\nb\rc\n\xef\xbb\xbf\r"[..])
        );
    }

    #[test]
    fn a_file_without_a_callback_is_stored_and_never_registered() {
        for slot in [Slot::AtUpload, Slot::AtCallback] {
            let (mut world, revision, mut post) = begun(slot);
            sign(
                &mut post,
                &json!({"expiration": "2030-01-01T00:00:00Z", "conditions": []}),
            );
            drop_field(&mut post, "callback");
            let reply = send(&mut world, &post, noon());
            assert_eq!((reply.status, reply.body.as_str()), (204, ""));
            assert_eq!(code_of(&world, &revision), None);
        }
    }

    #[test]
    fn a_callback_that_fails_is_told_with_203_though_the_file_was_stored() {
        let (mut world, revision, post) = begun(Slot::AtCallback);
        for _ in 0..10 {
            world.seed(&hello(), Some(b"x"), "other", noon()).unwrap();
        }
        expect(&send(&mut world, &post, noon()), 203, "CallbackFailed");
        assert_eq!(code_of(&world, &revision), None);

        let (mut world, revision, mut post) = begun(Slot::AtUpload);
        sign(
            &mut post,
            &json!({"expiration": "2030-01-01T00:00:00Z", "conditions": []}),
        );
        let url = format!("{ORIGIN}{CALLBACK_PATH}");
        let urlencoded = "application/x-www-form-urlencoded";
        let other = world.seed(&hello(), None, "other", noon()).unwrap();
        let of_other = format!("Object=hello.1000000000000001.{other}.js");
        for (url, body, kind) in [
            ("http://127.0.0.1:9/other", "Object=${object}", urlencoded),
            (&url, "Object=${object}", "application/json"),
            (&url, &of_other, urlencoded),
            (&url, "Object=${bucket}${", urlencoded),
        ] {
            let callback =
                json!({"callbackUrl": url, "callbackBody": body, "callbackBodyType": kind});
            set(
                &mut post,
                "callback",
                &STANDARD.encode(callback.to_string()),
            );
            expect(&send(&mut world, &post, noon()), 203, "CallbackFailed");
        }
        set(&mut post, "callback", "not base64");
        expect(&send(&mut world, &post, noon()), 400, "InvalidArgument");
        assert_eq!(code_of(&world, &revision), None);
        assert_eq!(code_of(&world, &other), None);
    }
}
