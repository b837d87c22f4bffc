//! Each rule is kept by an ordinary run and is broken by the one thing it forbids.

use super::super::history::{Mark, PERSON_DELETE, PERSON_PUBLISH};
use super::*;

const SECOND: u64 = 1_000_000_000;

/// A history in the making: one routine, one thing every ten seconds, so that nothing is hurried by accident.
#[derive(Default)]
struct Story {
    records: Vec<Record>,
    listed: BTreeSet<u64>,
    gap: Option<u64>,
}

fn hello() -> RoutineName {
    RoutineName::new("hello").unwrap()
}

fn digest(code: &str) -> Digest {
    Digest::of(code.as_bytes())
}

fn mark(code: &str) -> Mark {
    Mark {
        digest: digest(code).hex()[..32].to_owned(),
        instance: "00c0ffee".to_owned(),
    }
}

impl Story {
    fn tell(&mut self, op: &'static str, number: u64, change: impl FnOnce(&mut Record)) {
        let seq = self.records.len() as u64;
        let t = self.records.last().map_or(0, |last| last.ended) + self.gap.unwrap_or(10 * SECOND);
        let mut record = Record {
            seq,
            t,
            ended: t + 1,
            op,
            routine: Some(hello()),
            revision: Some(Revision::new(&number.to_string())),
            processed: true,
            status: 200,
            nonce: (op != POST_OBJECT).then(|| format!("nonce {seq}")),
            ..Record::default()
        };
        change(&mut record);
        if record.processed {
            match op {
                UPLOAD | PERSON_UPLOAD => self.listed.insert(number),
                DELETE | PERSON_DELETE => self.listed.remove(&number),
                _ => false,
            };
        }
        record.slots = Some(self.listed.len());
        self.records.push(record);
    }

    fn begin(&mut self, number: u64, code: &str) {
        self.tell(UPLOAD, number, |record| record.mark = Some(mark(code)));
    }

    fn upload(&mut self, number: u64, code: &str) {
        self.begin(number, code);
        self.tell(POST_OBJECT, number, |record| {
            record.sha256 = Some(digest(code));
        });
    }

    fn person(&mut self, op: &'static str, number: u64) {
        self.tell(op, number, |record| {
            record.actor = Actor::Person;
            record.nonce = None;
            match op {
                PERSON_UPLOAD => record.sha256 = Some(digest(&number.to_string())),
                PERSON_PUBLISH => record.environments = vec!["production".to_owned()],
                _ => {}
            }
        });
    }

    fn delete(&mut self, number: u64) {
        self.tell(DELETE, number, |_| {});
    }

    fn list(&mut self) {
        self.tell("DescribeRoutine", 0, |record| record.revision = None);
    }

    fn broken(&self, rules: &Rules) -> Vec<&'static str> {
        let mut rules: Vec<&str> = check(&self.records, rules).iter().map(|v| v.rule).collect();
        rules.dedup();
        rules
    }
}

fn at_rest() -> Rules {
    Rules {
        at_rest: true,
        rollback: true,
        ..Rules::default()
    }
}

/// Ten versions of others, then twelve edits, each with its room made and freed by deleting the oldest.
fn ordinary() -> Story {
    let mut story = Story::default();
    for number in 1..=10 {
        story.person(PERSON_UPLOAD, number);
    }
    story.list();
    story.delete(1);
    for edit in 11..=22 {
        story.upload(edit, &format!("edit {edit}"));
        story.list();
        story.delete(edit - 9);
    }
    story
}

#[test]
fn an_ordinary_run_breaks_no_rule() {
    let story = ordinary();
    assert_eq!(check(&story.records, &at_rest()), []);
    let last = [(hello(), digest("edit 22"))];
    assert_eq!(lost(&story.records, &last), []);
    let vaulted = (1..=13).map(|n| Revision::new(&n.to_string())).collect();
    assert_eq!(unvaulted(&story.records, &vaulted, &at_rest()), []);
}

#[test]
fn i1_an_eleventh_version_is_too_many() {
    let mut story = ordinary();
    story.upload(23, "a");
    assert_eq!(story.broken(&Rules::default()), [""; 0]);
    story.upload(24, "b");
    assert_eq!(story.broken(&Rules::default()), ["I1"]);
    let told = check(&story.records, &Rules::default())[0].to_string();
    assert!(told.starts_with("I1: hello has 11 versions"), "{told}");
    assert!(
        told.ends_with(&format!("(record {})", story.records.len() - 2)),
        "{told}"
    );
}

#[test]
fn i2_a_live_version_is_not_deleted_unless_it_was_published_in_that_moment() {
    for (gap, broken) in [(SECOND / 2, &[][..]), (2 * SECOND, &["I2"])] {
        let mut story = ordinary();
        story.upload(23, "a");
        story.person(PERSON_PUBLISH, 14);
        story.gap = Some(gap);
        story.tell(DELETE, 14, |record| record.live = true);
        assert_eq!(story.broken(&Rules::default()), broken, "{gap}");
    }
    let mut unprocessed = ordinary();
    unprocessed.tell(DELETE, 14, |record| {
        record.live = true;
        record.processed = false;
    });
    assert_eq!(unprocessed.broken(&Rules::default()), [""; 0]);
}

#[test]
fn i3_the_newest_with_code_stay_and_an_orphan_is_not_one_of_them() {
    let mut story = ordinary();
    story.begin(23, "orphan");
    let mut third = Story {
        records: story.records.clone(),
        listed: story.listed.clone(),
        gap: None,
    };
    third.delete(20);
    assert_eq!(third.broken(&Rules::default()), ["I3"]);
    let less = Rules {
        keep_newest: 2,
        ..Rules::default()
    };
    assert_eq!(third.broken(&less), [""; 0]);
    story.delete(23);
    assert_eq!(story.broken(&Rules::default()), [""; 0]);
}

#[test]
fn i3_what_a_person_takes_away_in_that_moment_does_not_make_an_older_one_one_of_the_newest() {
    for (gap, broken) in [(SECOND / 2, &[][..]), (2 * SECOND, &["I3"])] {
        let mut story = ordinary();
        story.person(PERSON_DELETE, 22);
        story.gap = Some(gap);
        story.delete(19);
        assert_eq!(story.broken(&Rules::default()), broken, "{gap}");
    }
}

#[test]
fn i3_the_rule_of_rotation_and_named_versions_are_kept() {
    let with = |rotate| Rules {
        rotate,
        ..Rules::default()
    };
    let mut foreign = Story::default();
    for number in 1..=5 {
        foreign.person(PERSON_UPLOAD, number);
    }
    foreign.delete(1);
    assert_eq!(foreign.broken(&with(Rotate::Any)), [""; 0]);
    assert_eq!(foreign.broken(&with(Rotate::Own)), ["I3"]);
    assert_eq!(foreign.broken(&with(Rotate::Never)), ["I3"]);
    let mut own = Story::default();
    for number in 1..=5 {
        own.upload(number, &number.to_string());
    }
    own.delete(1);
    assert_eq!(own.broken(&with(Rotate::Own)), [""; 0]);
    assert_eq!(own.broken(&with(Rotate::Never)), ["I3"]);
    let pinned = Rules {
        protected: [Revision::new("1")].into(),
        ..Rules::default()
    };
    assert_eq!(own.broken(&pinned), ["I3"]);
}

#[test]
fn i3_what_was_live_before_stays_as_far_as_the_client_was_told() {
    for (told, broken) in [(true, &["I3"][..]), (false, &[])] {
        let mut story = ordinary();
        story.person(PERSON_PUBLISH, 14);
        if told {
            story.list();
        }
        story.person(PERSON_PUBLISH, 21);
        story.list();
        story.delete(14);
        assert_eq!(story.broken(&at_rest()), broken);
        assert_eq!(story.broken(&Rules::default()), [""; 0]);
    }
}

#[test]
fn i4_what_is_said_to_be_stored_is_stored() {
    let story = ordinary();
    let claim = |number: u64, code: &str| Claim {
        routine: hello(),
        revision: Revision::new(&number.to_string()),
        sha256: digest(code).hex(),
    };
    let right = [claim(11, "edit 11"), claim(22, "edit 22")];
    assert_eq!(untrue(&story.records, &right), []);
    let wrong = untrue(
        &story.records,
        &[claim(22, "edit 21"), claim(23, "edit 22")],
    );
    assert_eq!(wrong.len(), 2);
    assert_eq!(wrong[0].rule, "I4");
}

#[test]
fn i5_at_rest_no_two_versions_were_made_of_the_same_bytes() {
    let mut story = ordinary();
    story.delete(14);
    story.upload(23, "edit 22");
    assert_eq!(story.broken(&at_rest()), ["I5"]);
    assert_eq!(story.broken(&Rules::default()), [""; 0]);
    let forced = Rules {
        forced: true,
        ..at_rest()
    };
    assert_eq!(story.broken(&forced), [""; 0]);
    let mut orphan = ordinary();
    orphan.delete(14);
    orphan.begin(23, "edit 22");
    assert_eq!(
        orphan.broken(&at_rest()),
        ["I5"],
        "an orphan is one as well"
    );
}

#[test]
fn an_upload_that_takes_its_slot_at_the_callback_is_no_version_before() {
    let mut story = ordinary();
    story.tell(UPLOAD, 23, |record| record.mark = Some(mark("edit 22")));
    story.listed.remove(&23);
    story.records.last_mut().unwrap().slots = Some(story.listed.len());
    assert_eq!(story.broken(&at_rest()), [""; 0]);
}

#[test]
fn i6_the_last_bytes_are_held_at_the_end() {
    let story = ordinary();
    let found = lost(
        &story.records,
        &[(hello(), digest("edit 12")), (hello(), digest("edit 22"))],
    );
    assert_eq!(found.len(), 1);
    assert!(found[0].to_string().starts_with("I6: no version of hello"));
}

#[test]
fn i7_a_hundred_requests_in_a_second_are_too_many() {
    for (requests, broken) in [(99, &[][..]), (100, &["I7"])] {
        let mut story = Story {
            gap: Some(9_999_999),
            ..Story::default()
        };
        for _ in 0..requests {
            story.list();
        }
        assert_eq!(story.broken(&Rules::default()), broken);
    }
}

#[test]
fn i8_a_nonce_is_used_once_also_for_what_was_never_carried_out() {
    let mut story = ordinary();
    story.tell("DescribeRoutine", 0, |record| {
        record.nonce = Some("nonce 10".to_owned());
        record.processed = false;
        record.decision = Decision::Fault;
    });
    assert_eq!(story.broken(&Rules::default()), ["I8"]);
}

#[test]
fn i8_a_stale_time_stamp_is_forgiven_only_while_the_services_clock_is_unknown() {
    let stale = |story: &mut Story| {
        story.tell("DescribeRoutine", 0, |record| {
            record.processed = false;
            record.decision = Decision::Refused;
            record.code = Some("InvalidTimeStamp.Expired".to_owned());
        });
    };
    let mut story = Story::default();
    stale(&mut story);
    story.list();
    assert_eq!(story.broken(&Rules::default()), [""; 0]);
    stale(&mut story);
    assert_eq!(story.broken(&Rules::default()), ["I8"]);
    let one = Rules {
        stale: 1,
        ..Rules::default()
    };
    assert_eq!(story.broken(&one), [""; 0]);
}

#[test]
fn i9_no_two_requests_change_a_routine_at_once() {
    let overlap = |change: fn(&mut Record)| {
        let mut story = ordinary();
        let t = story.records.last().unwrap().ended + SECOND;
        story.tell(POST_OBJECT, 22, |record| {
            (record.t, record.ended) = (t, t + SECOND / 2);
            record.sha256 = Some(digest("edit 22"));
            change(record);
        });
        story.tell(UPLOAD, 23, |record| {
            (record.t, record.ended) = (t + SECOND / 4, t + SECOND);
        });
        story.broken(&Rules::default())
    };
    assert_eq!(overlap(|_| {}), ["I9"]);
    assert_eq!(
        overlap(|r| r.routine = RoutineName::new("other").ok()),
        [""; 0]
    );
    assert_eq!(overlap(|r| r.processed = false), [""; 0]);
    for left_behind in [
        overlap(|r| r.fault = Some("process_late(500)".into())),
        overlap(|r| r.fault = Some("kill(77,late)".into())),
    ] {
        assert_eq!(left_behind, [""; 0]);
    }
    assert_eq!(overlap(|r| r.fault = Some("delay(500)".into())), ["I9"]);
    assert_eq!(
        overlap(|r| r.t -= SECOND),
        [""; 0],
        "the client has given up before"
    );
}

#[test]
fn i10_each_delete_is_explained_by_an_upload_or_deletes_nothing_of_use() {
    let no_other = Rules {
        keep_newest: 0,
        ..Rules::default()
    };
    let mut story = Story::default();
    for number in 1..=5 {
        story.upload(number, &number.to_string());
    }
    for number in 1..=5 {
        story.delete(number);
    }
    // What the world did not take away can be deleted again and again.
    story.listed.insert(6);
    story.tell(POST_OBJECT, 6, |record| record.sha256 = Some(digest("6")));
    story.delete(6);
    assert_eq!(
        story.broken(&no_other),
        [""; 0],
        "one more than uploads is explained"
    );
    story.listed.insert(7);
    story.tell(POST_OBJECT, 7, |record| record.sha256 = Some(digest("7")));
    story.delete(7);
    assert_eq!(story.broken(&no_other), ["I10"]);

    let mut orphans = Story::default();
    orphans.upload(1, "a");
    for number in 2..10 {
        orphans.begin(number, "b");
        orphans.records.last_mut().unwrap().processed = true;
        orphans.delete(number);
    }
    assert_eq!(orphans.broken(&no_other), [""; 0]);
}

#[test]
fn i11_what_is_deleted_is_kept_unless_it_never_had_code() {
    let mut story = ordinary();
    story.begin(23, "orphan");
    story.delete(23);
    let vaulted: BTreeSet<Revision> = (2..=13).map(|n| Revision::new(&n.to_string())).collect();
    let found = unvaulted(&story.records, &vaulted, &Rules::default());
    assert_eq!(found.len(), 1);
    assert!(found[0].text.contains("version 1 of hello"), "{}", found[0]);
    let newest_only = Rules {
        vault_keeps: 12,
        ..Rules::default()
    };
    assert_eq!(unvaulted(&story.records, &vaulted, &newest_only), []);
}

#[test]
fn i12_a_slot_is_free_at_rest_unless_nothing_may_go() {
    let mut story = ordinary();
    story.upload(23, "edit 23");
    assert_eq!(story.broken(&at_rest()), ["I12"]);
    let never = Rules {
        rotate: Rotate::Never,
        ..at_rest()
    };
    let own_only = Story {
        records: story
            .records
            .iter()
            .filter(|r| r.op != DELETE)
            .cloned()
            .collect(),
        ..Story::default()
    };
    assert!(!own_only.broken(&never).contains(&"I12"));
    let pinned = Rules {
        protected: (14..=20).map(|n| Revision::new(&n.to_string())).collect(),
        ..at_rest()
    };
    assert_eq!(story.broken(&pinned), [""; 0]);
    story.tell(DELETE, 14, |record| record.processed = false);
    assert_eq!(story.broken(&at_rest()), [""; 0], "it could not be deleted");

    let mut others = ordinary();
    others.person(PERSON_UPLOAD, 23);
    assert_eq!(
        others.broken(&at_rest()),
        [""; 0],
        "somebody else filled it since"
    );
}
