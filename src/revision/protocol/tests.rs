//! The protocol against a service in memory: what is lost on the way, what comes late, what others do.

use proptest::prelude::{Strategy, any, prop_assert, prop_assert_eq, proptest};

use std::collections::BTreeMap;

use crate::cloud::{Environments, Listed, Listing};
use crate::config::{Revisions, Rotate, Verify};
use crate::revision::mark::describe;

use super::*;

/// The service as far as the protocol can see it, with a clock that moves a little at every step.
struct World {
    now: Moment,
    next: u64,
    versions: Vec<(Listed, Option<Digest>)>,
    live: BTreeMap<String, Option<Revision>>,
    /// What the next uploads come to; a clean success once this has run out.
    faults: Vec<Fault>,
    deletes: Vec<Revision>,
    uploads: usize,
    /// Whether it says that all slots are taken, whatever is so.
    claims_full: bool,
    /// What the post of the upload that has begun will come to.
    fault: Option<Fault>,
    /// What the numbers of new versions begin with.
    prefix: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    /// The request for a version was lost on its way.
    Lost,
    /// The version was made, and the answer was lost.
    Unposted,
    /// The post was lost on its way.
    PostLost,
    /// The post arrived, and the answer was lost.
    AnswerLost,
    /// The form had ended.
    FormEnded,
}

const SETTLE: Duration = Duration::from_secs(20);

const LAG: Duration = Duration::from_secs(10);

fn rules() -> Rules {
    Rules {
        policy: Policy::new(&Revisions {
            cap: 10,
            reserve: 1,
            keep_newest: 3,
            rotate: Rotate::Any,
            pin: Vec::new(),
            verify: Verify::Doubt,
        }),
        instance: Instance::from_number(1),
        lag: LAG,
    }
}

fn wanted(text: &str) -> Wanted {
    let digest = Digest::of(text.as_bytes());
    Wanted {
        digest,
        normalised: digest,
        besides: BTreeSet::new(),
        replaces: true,
    }
}

fn store(knowledge: &Knowledge, wanted: &Wanted, now: Moment) -> Step {
    decide(knowledge, Goal::Stored(wanted), &rules(), now)
}

fn doubt(settled: Moment) -> Doubt {
    Doubt {
        settled,
        shown: settled,
    }
}

impl World {
    fn new(foreign: usize, live: &[usize]) -> Self {
        let versions: Vec<(Listed, Option<Digest>)> = (0..foreign)
            .map(|n| {
                let revision = Revision::new(&(100 + n).to_string());
                let code = Digest::of(format!("foreign {n}").as_bytes());
                (
                    Listed {
                        revision,
                        created: None,
                        description: "by hand".into(),
                    },
                    Some(code),
                )
            })
            .collect();
        let live = live
            .iter()
            .enumerate()
            .map(|(i, n)| {
                (
                    format!("env{i}"),
                    versions.get(*n).map(|(listed, _)| listed.revision.clone()),
                )
            })
            .collect();
        Self {
            now: Moment::after_boot(Duration::from_secs(1_000)),
            next: 1_000,
            versions,
            live,
            faults: Vec::new(),
            deletes: Vec::new(),
            uploads: 0,
            claims_full: false,
            fault: None,
            prefix: "",
        }
    }

    fn listing(&self) -> Listing {
        Listing {
            revisions: self
                .versions
                .iter()
                .map(|(listed, _)| listed.clone())
                .collect(),
            environments: Environments::Known(self.live.clone()),
            whole: true,
        }
    }

    /// The first step of an upload, as the shell takes it.
    fn upload(&mut self, knowledge: &mut Knowledge, wanted: &Wanted) {
        self.uploads += 1;
        let digest = wanted.digest;
        self.fault = (!self.faults.is_empty()).then(|| self.faults.remove(0));
        if self.fault == Some(Fault::Lost) {
            return self.unanswered(knowledge, digest);
        }
        if self.claims_full || self.versions.len() >= 10 {
            return knowledge.quota_hit(digest);
        }
        self.next += 1;
        let description = describe("f.js", digest, &rules().instance);
        let revision = Revision::new(&format!("{}{}", self.prefix, self.next));
        let listed = Listed {
            revision: revision.clone(),
            created: None,
            description: description.clone(),
        };
        self.versions.push((listed, None));
        match self.fault {
            Some(Fault::Unposted) => self.unanswered(knowledge, digest),
            _ => knowledge.begun(revision, description, digest, self.now),
        }
    }

    /// The second step.
    fn post(&mut self, revision: &Revision, knowledge: &mut Knowledge, digest: Digest) {
        let fault = self.fault.take();
        knowledge.posting();
        match fault {
            Some(Fault::FormEnded) => return knowledge.form_ended(self.now),
            Some(Fault::PostLost) => return self.unanswered(knowledge, digest),
            _ => {}
        }
        let mut versions = self.versions.iter_mut();
        if let Some((_, code)) = versions.find(|(listed, _)| listed.revision == *revision) {
            *code = Some(digest);
        }
        match fault {
            Some(Fault::AnswerLost) => self.unanswered(knowledge, digest),
            _ => knowledge.proven(revision.clone(), digest, self.now),
        }
    }

    fn unanswered(&self, knowledge: &mut Knowledge, digest: Digest) {
        knowledge.in_doubt(doubt(self.now + SETTLE));
        knowledge.may_come_late(Late::Upload(digest), self.now);
    }

    /// Carries one step out; `true` when there is nothing more to do.
    fn carry_out(&mut self, step: Step, knowledge: &mut Knowledge, wanted: &Wanted) -> bool {
        self.now = self.now + Duration::from_millis(20);
        match step {
            Step::Wait(until) => {
                self.now = until;
                // Waiting ends a pass.
                knowledge.begin();
            }
            Step::List => drop(knowledge.listed(self.listing(), &rules(), self.now)),
            Step::ReadBack(revision) => {
                let found = self
                    .versions
                    .iter()
                    .find(|(listed, _)| listed.revision == revision);
                match found {
                    Some((_, code)) => {
                        let content = code.map_or(Content::Nothing, Content::Holds);
                        knowledge.read_back(revision, content, &rules(), self.now);
                    }
                    None => knowledge.not_there(revision, &rules(), self.now),
                }
            }
            Step::Save(revision) => knowledge.saved(revision),
            Step::Delete(revision, _) => {
                let live = self.live.values();
                assert!(
                    !live.flatten().any(|live| *live == revision),
                    "live deleted"
                );
                self.versions
                    .retain(|(listed, _)| listed.revision != revision);
                self.deletes.push(revision.clone());
                knowledge.deleted(revision, true, self.now);
            }
            // As the shell does, after a long pause.
            Step::Blocked(Blocked::Fruitless) => {
                self.now = self.now + Duration::from_secs(60);
                knowledge.try_anew();
                knowledge.begin();
            }
            Step::Upload => self.upload(knowledge, wanted),
            Step::Post(revision) => self.post(&revision, knowledge, wanted.digest),
            Step::Stage | Step::Commit => unreachable!("no goal here is about staging"),
            Step::Stored(_) | Step::AtRest | Step::Blocked(_) => return true,
        }
        assert!(self.versions.len() <= 10, "more than ten versions");
        false
    }

    fn deploy(&mut self, knowledge: &mut Knowledge, wanted: &Wanted) -> Step {
        knowledge.begin();
        let stored = self.run(knowledge, wanted, Goal::Stored(wanted));
        if let Step::Stored(revision) = &stored {
            knowledge.stored(revision.clone(), wanted);
            self.run(knowledge, wanted, Goal::AtRest);
        }
        stored
    }

    fn run(&mut self, knowledge: &mut Knowledge, wanted: &Wanted, goal: Goal<'_>) -> Step {
        // Each orphan is looked at ten times before it is believed to be one.
        for _ in 0..300 {
            let step = decide(knowledge, goal, &rules(), self.now);
            if self.carry_out(step.clone(), knowledge, wanted) {
                return step;
            }
        }
        panic!("no end in sight");
    }

    /// Runs until the next step is this one.
    fn run_up_to(&mut self, end: &Step, knowledge: &mut Knowledge, wanted: &Wanted) {
        for _ in 0..300 {
            let step = decide(knowledge, Goal::Stored(wanted), &rules(), self.now);
            if step == *end {
                return;
            }
            assert!(!self.carry_out(step, knowledge, wanted));
        }
        panic!("{end:?} never came");
    }

    fn holds(&self, revision: &Revision) -> Option<Digest> {
        self.versions
            .iter()
            .find(|(listed, _)| listed.revision == *revision)
            .and_then(|(_, code)| *code)
    }
}

#[test]
fn a_free_slot_takes_one_listing_and_one_upload() {
    let mut world = World::new(3, &[0]);
    let mut knowledge = Knowledge::default();
    let wanted = wanted("new");
    assert_eq!(store(&knowledge, &wanted, world.now), Step::List);
    let _ = knowledge.listed(world.listing(), &rules(), world.now);
    assert_eq!(store(&knowledge, &wanted, world.now), Step::Upload);
    world.upload(&mut knowledge, &wanted);
    let made = Revision::new("1001");
    assert_eq!(
        store(&knowledge, &wanted, world.now),
        Step::Post(made.clone())
    );
    world.post(&made, &mut knowledge, wanted.digest);
    assert_eq!(store(&knowledge, &wanted, world.now), Step::Stored(made));
    assert_eq!(
        decide(&knowledge, Goal::AtRest, &rules(), world.now),
        Step::AtRest
    );
}

#[test]
fn a_full_routine_loses_its_oldest_version_only_after_that_was_saved() {
    let mut world = World::new(10, &[0]);
    let mut knowledge = Knowledge::default();
    let wanted = wanted("new");
    let _ = knowledge.listed(world.listing(), &rules(), world.now);
    let oldest = Revision::new("101");
    assert_eq!(
        store(&knowledge, &wanted, world.now),
        Step::Save(oldest.clone())
    );
    knowledge.saved(oldest.clone());
    assert_eq!(
        store(&knowledge, &wanted, world.now),
        Step::Delete(oldest, Why::Oldest)
    );
    let late = world.now + Duration::from_secs(1);
    assert_eq!(
        store(&knowledge, &wanted, late),
        Step::List,
        "the listing is too old to delete by"
    );
    world.deploy(&mut knowledge, &wanted);
    assert_eq!(world.versions.len(), 9);
    assert_eq!(world.deletes, [Revision::new("101"), Revision::new("102")]);
}

#[test]
fn a_version_that_was_made_and_deleted_within_moments_is_gone() {
    let mut world = World::new(0, &[]);
    let mut knowledge = Knowledge::default();
    for save in 0..20 {
        world.deploy(&mut knowledge, &wanted(&save.to_string()));
    }
    assert_eq!((world.versions.len(), world.deletes.len()), (9, 11));
    assert!(world.now.since(Moment::BOOT) < Duration::from_secs(1_000) + LAG);
}

#[test]
fn bytes_that_went_away_and_came_back_are_found_and_not_uploaded_again() {
    let mut world = World::new(0, &[]);
    let mut knowledge = Knowledge::default();
    let first = world.deploy(&mut knowledge, &wanted("a"));
    world.deploy(&mut knowledge, &wanted("b"));
    assert_eq!(world.deploy(&mut knowledge, &wanted("a")), first);
    assert_eq!(world.uploads, 2);
}

#[test]
fn a_mark_alone_is_no_proof() {
    let mut world = World::new(0, &[]);
    let wanted = wanted("a");
    world.faults = vec![Fault::Unposted];
    world.upload(&mut Knowledge::default(), &wanted);
    let mut fresh = Knowledge::default();
    let _ = fresh.listed(world.listing(), &rules(), world.now);
    let orphan = Revision::new("1001");
    assert_eq!(
        store(&fresh, &wanted, world.now),
        Step::ReadBack(orphan.clone())
    );
    fresh.read_back(orphan.clone(), Content::Nothing, &rules(), world.now);
    let polled = store(&fresh, &wanted, world.now);
    assert_eq!(
        polled,
        Step::Wait(world.now + POLL),
        "its code may be late to show"
    );
    world.now = world.now + LAG;
    let _ = fresh.listed(world.listing(), &rules(), world.now);
    assert_eq!(
        store(&fresh, &wanted, world.now),
        Step::Delete(orphan.clone(), Why::Orphan)
    );
    let Step::Stored(revision) = world.deploy(&mut fresh, &wanted) else {
        panic!()
    };
    assert_ne!(revision, orphan);
}

#[test]
fn an_orphan_of_another_er_dev_is_left_alone() {
    let mut world = World::new(0, &[]);
    world.faults = vec![Fault::Unposted];
    world.upload(&mut Knowledge::default(), &wanted("a"));
    let theirs = describe("f.js", wanted("a").digest, &Instance::from_number(2));
    world.versions[0].0.description = theirs;
    let mut knowledge = Knowledge::default();
    world.deploy(&mut knowledge, &wanted("a"));
    assert!(world.deletes.is_empty());
    assert_eq!(world.versions.len(), 2);
}

#[test]
fn nothing_is_asked_while_a_lost_request_could_still_arrive() {
    let mut world = World::new(0, &[]);
    let mut knowledge = Knowledge::default();
    let _ = knowledge.listed(world.listing(), &rules(), world.now);
    let settled = world.now + Duration::from_secs(20);
    knowledge.in_doubt(doubt(settled));
    assert_eq!(
        store(&knowledge, &wanted("a"), world.now),
        Step::Wait(settled)
    );
    assert_eq!(store(&knowledge, &wanted("a"), settled), Step::List);
    world.now = settled;
    let _ = knowledge.listed(world.listing(), &rules(), world.now);
    assert_eq!(store(&knowledge, &wanted("a"), settled), Step::Upload);
}

#[test]
fn a_service_that_goes_on_claiming_to_be_full_costs_two_versions_however_often_it_is_tried() {
    let mut world = World::new(9, &[]);
    let mut knowledge = Knowledge::default();
    world.claims_full = true;
    for _ in 0..5 {
        let step = world.deploy(&mut knowledge, &wanted("a"));
        assert_eq!(step, Step::Blocked(Blocked::Contradiction));
        world.now = world.now + Duration::from_secs(60);
    }
    assert_eq!(world.deletes.len(), 2);
    assert!(world.uploads > 5, "it is asked again in each pass");
    world.claims_full = false;
    let stored = world.deploy(&mut knowledge, &wanted("a"));
    assert!(matches!(stored, Step::Stored(_)), "{stored:?}");
}

#[test]
fn that_the_service_is_full_counts_only_where_room_was_made() {
    let mut world = World::new(9, &[]);
    let mut knowledge = Knowledge::default();
    world.claims_full = true;
    // Nothing could be deleted after any of these.
    for _ in 0..5 {
        knowledge.begin();
        let _ = knowledge.listed(world.listing(), &rules(), world.now);
        assert_eq!(store(&knowledge, &wanted("a"), world.now), Step::Upload);
        world.upload(&mut knowledge, &wanted("a"));
    }
    let step = world.deploy(&mut knowledge, &wanted("a"));
    assert_eq!(step, Step::Blocked(Blocked::Contradiction));
    assert_eq!(world.deletes.len(), 2);
}

/// A listing of which nothing could be read.
fn part() -> Listing {
    Listing {
        revisions: Vec::new(),
        environments: Environments::Unknown("it could not be read".into()),
        whole: false,
    }
}

#[test]
fn a_listing_that_cannot_be_read_whole_is_asked_for_again_before_anything_is_made_by_it() {
    let mut world = World::new(0, &[]);
    world.deploy(&mut Knowledge::default(), &wanted("a"));
    let mut knowledge = Knowledge::default();
    for _ in 1..MAX_IN_PART {
        let _ = knowledge.listed(part(), &rules(), world.now);
        let next = world.now + POLL;
        for goal in [Goal::Stored(&wanted("a")), Goal::AtRest] {
            let step = decide(&knowledge, goal, &rules(), world.now);
            assert_eq!(step, Step::Wait(next));
        }
        world.now = next;
        knowledge.begin();
        assert_eq!(store(&knowledge, &wanted("a"), world.now), Step::List);
    }
    let mut back = knowledge.clone();
    let _ = back.listed(world.listing(), &rules(), world.now);
    let found = Step::ReadBack(Revision::new("1001"));
    assert_eq!(store(&back, &wanted("a"), world.now), found);
    // It stays so: whoever leaves an empty list out could never be given its first version.
    let _ = knowledge.listed(part(), &rules(), world.now);
    assert_eq!(store(&knowledge, &wanted("a"), world.now), Step::Upload);
}

#[test]
fn c18_a_version_whose_number_cannot_be_counted_holds_its_bytes_and_never_goes() {
    let mut world = World::new(2, &[]);
    world.prefix = "99999999999999999999999999";
    let mut knowledge = Knowledge::default();
    let first = Revision::new("999999999999999999999999991001");
    for text in ["a", "b", "a"] {
        let stored = world.deploy(&mut knowledge, &wanted(text));
        assert!(matches!(stored, Step::Stored(_)), "{stored:?}");
    }
    assert_eq!(world.uploads, 2);
    assert_eq!(knowledge.protected().present, Some(first.clone()));
    for text in ["c", "d", "e", "f", "g", "h"] {
        world.deploy(&mut knowledge, &wanted(text));
    }
    assert!(world.holds(&first).is_some());
    assert!(world.deletes.iter().all(|gone| gone.number().is_some()));
}

#[test]
fn what_a_listing_lacks_that_was_not_read_whole_may_be_there() {
    let mut world = World::new(1, &[]);
    let mut knowledge = Knowledge::default();
    world.deploy(&mut knowledge, &wanted("a"));
    knowledge.deleted(Revision::new("100"), false, world.now);
    assert_eq!(knowledge.listed(part(), &rules(), world.now), []);
    assert_eq!(knowledge.confirmed().count(), 1);
    assert_eq!(knowledge.delete_tries(&Revision::new("100")), 1);
}

#[test]
fn what_is_in_the_way_is_looked_at_again_before_it_is_said() {
    let mut world = World::new(10, &[0, 1, 2, 3, 4, 5, 6]);
    let mut knowledge = Knowledge::default();
    assert!(matches!(
        world.deploy(&mut knowledge, &wanted("a")),
        Step::Blocked(_)
    ));
    world.versions.pop();
    let stored = world.deploy(&mut knowledge, &wanted("a"));
    assert!(matches!(stored, Step::Stored(_)), "{stored:?}");
}

#[test]
fn a_full_routine_without_a_version_that_may_go_says_who_holds_the_slots() {
    let mut world = World::new(10, &[0, 1, 2, 3, 4, 5, 6]);
    let mut knowledge = Knowledge::default();
    let Step::Blocked(blocked) = world.deploy(&mut knowledge, &wanted("a")) else {
        panic!()
    };
    let text = blocked.to_string();
    assert!(text.starts_with("all 10 slots are taken"), "{text}");
    assert!(
        text.contains("100 (live in env0)") && text.contains("109 (newest)"),
        "{text}"
    );
    assert!(world.deletes.is_empty());
}

#[test]
fn forcing_makes_a_version_of_bytes_that_are_there_already() {
    let mut world = World::new(0, &[]);
    let mut knowledge = Knowledge::default();
    world.deploy(&mut knowledge, &wanted("a"));
    let forced = Wanted {
        besides: BTreeSet::from([Revision::new("1001")]),
        ..wanted("a")
    };
    assert_eq!(
        world.deploy(&mut knowledge, &forced),
        Step::Stored(Revision::new("1002"))
    );
}

#[test]
fn a_version_that_stays_listed_after_confirmed_deletions_ends_in_a_sentence() {
    let mut world = World::new(10, &[]);
    let mut knowledge = Knowledge::default();
    let oldest = Revision::new("100");
    for tries in 1..=MAX_DELETES {
        let delete = Step::Delete(oldest.clone(), Why::Oldest);
        world.run_up_to(&delete, &mut knowledge, &wanted("a"));
        knowledge.deleted(oldest.clone(), true, world.now);
        let _ = knowledge.listed(world.listing(), &rules(), world.now);
        assert_eq!(
            store(&knowledge, &wanted("a"), world.now),
            Step::Wait(world.now + POLL),
            "the listing may be late, at try {tries}"
        );
        world.now = world.now + LAG;
    }
    let _ = knowledge.listed(world.listing(), &rules(), world.now);
    let blocked = Step::Blocked(Blocked::StillListed(oldest));
    assert_eq!(store(&knowledge, &wanted("a"), world.now), blocked);
}

#[test]
fn a_version_that_cannot_be_saved_is_spared_and_the_next_oldest_goes() {
    let world = World::new(10, &[]);
    let mut knowledge = Knowledge::default();
    let _ = knowledge.listed(world.listing(), &rules(), world.now);
    let save = |knowledge: &Knowledge| store(knowledge, &wanted("a"), world.now);
    let oldest = Revision::new("100");
    assert_eq!(save(&knowledge), Step::Save(oldest.clone()));
    knowledge.spare(oldest.clone(), "it cannot be read".into());
    assert_eq!(save(&knowledge), Step::Save(Revision::new("101")));
    knowledge.begin();
    assert_eq!(save(&knowledge), Step::Save(oldest));
}

#[test]
fn where_nothing_can_be_deleted_safely_uploads_go_on_until_all_slots_are_taken() {
    let mut world = World::new(9, &[]);
    let mut knowledge = Knowledge::default();
    knowledge.no_deletes("the disk is full".into());
    let _ = knowledge.listed(world.listing(), &rules(), world.now);
    assert_eq!(store(&knowledge, &wanted("a"), world.now), Step::Upload);
    world.upload(&mut knowledge, &wanted("a"));
    world.post(&Revision::new("1001"), &mut knowledge, wanted("a").digest);
    let rest = decide(&knowledge, Goal::AtRest, &rules(), world.now);
    assert_eq!(rest, Step::AtRest);
    let _ = knowledge.listed(world.listing(), &rules(), world.now);
    let Step::Blocked(blocked) = store(&knowledge, &wanted("b"), world.now) else {
        panic!()
    };
    assert!(
        blocked.to_string().ends_with("the disk is full"),
        "{blocked}"
    );
}

#[test]
fn a_form_that_is_still_in_memory_is_posted_again_instead_of_making_another_version() {
    let mut world = World::new(0, &[]);
    let mut knowledge = Knowledge::default();
    world.faults = vec![Fault::PostLost];
    let made = Revision::new("1001");
    assert_eq!(
        world.deploy(&mut knowledge, &wanted("a")),
        Step::Stored(made)
    );
    assert_eq!(world.uploads, 1);
    assert!(world.deletes.is_empty());
}

#[test]
fn a_version_whose_deletion_is_in_doubt_is_not_relied_on() {
    let mut world = World::new(0, &[]);
    let mut knowledge = Knowledge::default();
    let first = Revision::new("1001");
    world.deploy(&mut knowledge, &wanted("a"));
    world.deploy(&mut knowledge, &wanted("b"));
    knowledge.may_come_late(Late::Delete(first.clone()), world.now);
    let Step::Stored(revision) = world.deploy(&mut knowledge, &wanted("a")) else {
        panic!()
    };
    assert_ne!(revision, first);
    world.now = world.now + LATEST;
    let _ = knowledge.listed(world.listing(), &rules(), world.now);
    assert_eq!(knowledge.late(), []);
}

#[test]
fn of_two_versions_with_the_same_bytes_the_older_goes_unless_it_is_live() {
    for (live, goes) in [(None, "100"), (Some("100"), "101")] {
        let mut world = World::new(2, &[]);
        let mark = describe("f.js", wanted("a").digest, &rules().instance);
        for (listed, code) in &mut world.versions {
            listed.description.clone_from(&mark);
            *code = Some(wanted("a").digest);
        }
        world
            .live
            .insert("production".into(), live.map(Revision::new));
        let mut knowledge = Knowledge::default();
        knowledge.may_come_late(Late::Upload(wanted("a").digest), world.now);
        world.deploy(&mut knowledge, &wanted("a"));
        assert_eq!(world.deletes, [Revision::new(goes)]);
    }
}

#[test]
fn what_others_made_is_noticed_once_and_what_this_er_dev_made_is_not() {
    let mut world = World::new(1, &[]);
    let mut knowledge = Knowledge::default();
    world.deploy(&mut knowledge, &wanted("a"));
    let theirs = Instance::from_number(2);
    world.versions[0].0.description = describe("", wanted("b").digest, &theirs);
    world.versions[0].0.revision = Revision::new("2000");
    let noticed = knowledge.listed(world.listing(), &rules(), world.now);
    let foreign = Noticed::Foreign {
        revision: Revision::new("2000"),
        by: Some(theirs),
        first: false,
    };
    assert_eq!(noticed, [foreign]);
    assert_eq!(knowledge.listed(world.listing(), &rules(), world.now), []);
}

#[test]
fn who_made_a_version_is_noticed_before_what_was_done_with_it() {
    let mut world = World::new(2, &[0]);
    let mut knowledge = Knowledge::default();
    let _ = knowledge.listed(world.listing(), &rules(), world.now);
    let (mut listed, code) = world.versions[1].clone();
    listed.revision = Revision::new("777");
    world
        .live
        .insert("env0".into(), Some(listed.revision.clone()));
    world.versions.insert(0, (listed.clone(), code));
    listed.revision = Revision::new("99");
    world.versions.push((listed, code));
    let noticed = knowledge.listed(world.listing(), &rules(), world.now);
    let [
        Noticed::Foreign {
            revision: older, ..
        },
        Noticed::Foreign {
            revision: newer, ..
        },
        Noticed::Republished { .. },
    ] = &noticed[..]
    else {
        panic!("{noticed:?}")
    };
    assert_eq!((older.as_str(), newer.as_str()), ("99", "777"));
}

#[test]
fn a_version_that_is_live_after_its_deletion_is_noticed() {
    let mut world = World::new(2, &[]);
    let mut knowledge = Knowledge::default();
    let _ = knowledge.listed(world.listing(), &rules(), world.now);
    let deleted = world.versions.remove(0).0.revision;
    knowledge.deleted(deleted.clone(), true, world.now);
    world
        .live
        .insert("production".into(), Some(deleted.clone()));
    let noticed = knowledge.listed(world.listing(), &rules(), world.now);
    let (revision, environment) = (deleted, String::from("production"));
    assert_eq!(
        noticed,
        [
            Noticed::Republished {
                revision: revision.clone(),
                environment: environment.clone(),
                before: None,
            },
            Noticed::LiveAndGone {
                revision,
                environment,
                deleted: true,
            }
        ]
    );
}

#[test]
fn a_live_version_that_was_made_here_and_deleted_elsewhere_is_noticed_at_the_first_listing_that_tells()
 {
    let mut world = World::new(2, &[]);
    let mut knowledge = Knowledge::default();
    let _ = knowledge.listed(world.listing(), &rules(), world.now);
    let made = Revision::new("99");
    let described = describe("", Digest::of(b"a"), &rules().instance);
    knowledge.made(made.clone(), described, world.now);
    world.live.insert("production".into(), Some(made.clone()));
    let gone = |noticed: &Noticed| matches!(noticed, Noticed::LiveAndGone { .. });
    // A listing may be late for so long.
    let noticed = knowledge.listed(world.listing(), &rules(), world.now);
    assert!(!noticed.iter().any(gone), "{noticed:?}");
    assert!(!knowledge.wants_a_pass());
    let noticed = knowledge.listed(world.listing(), &rules(), world.now + rules().lag);
    assert!(noticed.iter().any(gone), "{noticed:?}");
    assert!(
        knowledge.wants_a_pass(),
        "a save that changes nothing finds it mended"
    );
    world.live.insert("production".into(), None);
    let noticed = knowledge.listed(world.listing(), &rules(), world.now + rules().lag);
    assert!(noticed.contains(&Noticed::Mended("production".into())));
    assert!(!knowledge.wants_a_pass());
}

#[test]
fn an_environment_that_points_at_nothing_is_noticed_once_and_so_is_its_mending() {
    let mut world = World::new(2, &[0]);
    let mut knowledge = Knowledge::default();
    let mut look = |world: &World| knowledge.listed(world.listing(), &rules(), world.now);
    let first = look(&world);
    let foreign = |noticed: &Noticed| matches!(noticed, Noticed::Foreign { .. });
    assert!(
        first.iter().all(foreign),
        "what is live from the start is no news: {first:?}"
    );
    // Somebody deletes it, and not from here.
    let (revision, environment) = (world.versions.remove(0).0.revision, String::from("env0"));
    let gone = Noticed::LiveAndGone {
        revision,
        environment: environment.clone(),
        deleted: false,
    };
    assert_eq!(look(&world), [gone]);
    assert_eq!(look(&world), []);
    let there = world.versions[0].0.revision.clone();
    world.live.insert(environment.clone(), Some(there));
    let noticed = look(&world);
    assert!(matches!(noticed[0], Noticed::Republished { .. }));
    assert_eq!(noticed[1..], [Noticed::Mended(environment)]);
    assert_eq!(look(&world), []);
}

#[test]
fn an_environment_that_is_removed_protects_nothing_for_ever_and_is_not_in_trouble_any_more() {
    let mut world = World::new(4, &[0, 1]);
    let mut knowledge = Knowledge::default();
    let [first, second, third] = [0, 1, 2].map(|at| world.versions[at].0.revision.clone());
    world.live.insert("staging".into(), Some(first.clone()));
    let _ = knowledge.listed(world.listing(), &rules(), world.now);
    for environment in ["env0", "env1", "staging"] {
        world.live.insert(environment.into(), Some(third.clone()));
    }
    let _ = knowledge.listed(world.listing(), &rules(), world.now);
    // One of them points at nothing before it goes.
    world.versions.remove(2);
    let noticed = knowledge.listed(world.listing(), &rules(), world.now);
    assert_eq!(noticed.len(), 3, "{noticed:?}");
    let was_live = |knowledge: &Knowledge| knowledge.past().was_live;
    let before = was_live(&knowledge);
    assert_eq!(before.get("env0"), Some(&first));
    world.live.remove("env0");
    world.live.remove("staging");
    // One that is left out once may only be missing from an answer.
    assert_eq!(knowledge.listed(world.listing(), &rules(), world.now), []);
    world.live.insert("env0".into(), Some(third.clone()));
    assert_eq!(knowledge.listed(world.listing(), &rules(), world.now), []);
    assert_eq!(was_live(&knowledge), before);
    world.live.remove("env0");
    let mut noticed = Vec::new();
    for _ in 0..5 {
        // Whoever comes next counts on.
        let mut next = Knowledge::default();
        next.recall_past(knowledge.past());
        next.told_gone.clone_from(&knowledge.told_gone);
        knowledge = next;
        noticed.extend(knowledge.listed(world.listing(), &rules(), world.now));
    }
    noticed.retain(|noticed| matches!(noticed, Noticed::Mended(_)));
    assert_eq!(
        noticed,
        [
            Noticed::Mended("staging".into()),
            Noticed::Mended("env0".into())
        ]
    );
    // What every routine has is not removed, and its way back stays.
    let expected = BTreeMap::from([("env1".into(), second), ("staging".into(), first)]);
    assert_eq!(was_live(&knowledge), expected);
}

#[test]
fn what_others_put_live_is_noticed_once_and_what_was_published_from_here_is_not() {
    let mut world = World::new(3, &[0]);
    let mut knowledge = Knowledge::default();
    let _ = knowledge.listed(world.listing(), &rules(), world.now);
    let [first, second, third] = [0, 1, 2].map(|at| world.versions[at].0.revision.clone());
    world.live.insert("env0".into(), Some(second.clone()));
    let noticed = knowledge.listed(world.listing(), &rules(), world.now);
    let republished = Noticed::Republished {
        revision: second.clone(),
        environment: "env0".into(),
        before: Some(first),
    };
    assert_eq!(noticed, [republished]);
    knowledge.published("env0", &third);
    world.live.insert("env0".into(), Some(third));
    assert_eq!(knowledge.listed(world.listing(), &rules(), world.now), []);
    assert_eq!(knowledge.protected().was_live["env0"], second);
}

#[test]
fn what_was_live_before_stays() {
    let mut world = World::new(10, &[0]);
    let mut knowledge = Knowledge::default();
    let _ = knowledge.listed(world.listing(), &rules(), world.now);
    world.live.insert("env0".into(), Some(Revision::new("109")));
    world.deploy(&mut knowledge, &wanted("a"));
    assert!(world.holds(&Revision::new("100")).is_some());
    assert!(world.holds(&Revision::new("101")).is_none());
}

#[test]
fn what_was_live_before_an_earlier_run_ended_stays() {
    let mut world = World::new(10, &[0]);
    let mut before = Knowledge::default();
    let _ = before.listed(world.listing(), &rules(), world.now);
    let mut knowledge = Knowledge::default();
    knowledge.recall_past(before.past());
    world.live.insert("env0".into(), Some(Revision::new("109")));
    world.deploy(&mut knowledge, &wanted("a"));
    assert!(world.holds(&Revision::new("100")).is_some());
}

#[test]
fn a_version_that_somebody_deleted_since_the_last_listing_is_not_taken_for_there() {
    let mut world = World::new(0, &[]);
    let mut knowledge = Knowledge::default();
    world.deploy(&mut knowledge, &wanted("a"));
    world.deploy(&mut knowledge, &wanted("b"));
    world.versions.remove(0);
    let Step::Stored(revision) = world.deploy(&mut knowledge, &wanted("a")) else {
        panic!()
    };
    assert_eq!(world.holds(&revision), Some(wanted("a").digest));
    assert_eq!(world.uploads, 3);
}

#[test]
fn a_service_that_gives_other_bytes_back_is_told_and_not_fed_more() {
    let mut world = World::new(0, &[]);
    let wanted = wanted("a");
    world.upload(&mut Knowledge::default(), &wanted);
    world.versions[0].1 = Some(Digest::of(b"other"));
    let blocked = world.deploy(&mut Knowledge::default(), &wanted);
    let expected = Blocked::OtherBytes(Revision::new("1001"));
    assert_eq!(blocked, Step::Blocked(expected));
    assert_eq!(world.uploads, 1);
}

#[test]
fn one_wrong_answer_to_a_reading_is_not_believed_for_ever() {
    let mut world = World::new(0, &[]);
    let wanted = wanted("a");
    world.upload(&mut Knowledge::default(), &wanted);
    world.versions[0].1 = Some(Digest::of(b"other"));
    let mut knowledge = Knowledge::default();
    world.deploy(&mut knowledge, &wanted);
    world.versions[0].1 = Some(wanted.digest);
    knowledge.doubt_content(&Revision::new("1001"));
    let stored = world.deploy(&mut knowledge, &wanted);
    assert_eq!(stored, Step::Stored(Revision::new("1001")));
}

#[test]
fn a_version_that_stays_long_after_an_unanswered_deletion_counts_again() {
    let mut world = World::new(0, &[]);
    let mut knowledge = Knowledge::default();
    let first = Revision::new("1001");
    world.deploy(&mut knowledge, &wanted("a"));
    knowledge.deleted(first.clone(), false, world.now);
    world.now = world.now + LATEST;
    let stored = world.deploy(&mut knowledge, &wanted("a"));
    assert_eq!(stored, Step::Stored(first));
    assert_eq!(world.uploads, 1);
}

#[test]
fn a_version_that_stays_long_after_an_unanswered_deletion_of_an_earlier_run_is_among_the_newest_again()
 {
    let mut world = World::new(0, &[]);
    let mut knowledge = Knowledge::default();
    world.deploy(&mut knowledge, &wanted("a"));
    let first = Revision::new("1001");
    knowledge.may_come_late(Late::Delete(first.clone()), world.now);
    let _ = knowledge.listed(world.listing(), &rules(), world.now);
    assert!(knowledge.protected().worthless.contains(&first));
    world.now = world.now + LATEST;
    let _ = knowledge.listed(world.listing(), &rules(), world.now);
    assert!(knowledge.protected().worthless.is_empty());
}

#[test]
fn what_an_unanswered_upload_brings_at_the_very_last_is_cleared_away_without_an_edit() {
    let mut world = World::new(0, &[]);
    let mut knowledge = Knowledge::default();
    world.faults = vec![Fault::Lost];
    world.deploy(&mut knowledge, &wanted("a"));
    let sent = knowledge.late()[0].1;
    knowledge.tidied(&rules(), world.now);
    let all_come = knowledge.all_come(&rules(), world.now);
    assert_eq!(all_come, Some(sent + LATEST + LAG));
    // The lost request is carried out after half an hour.
    let description = describe("f.js", wanted("a").digest, &rules().instance);
    let listed = Listed {
        revision: Revision::new("2000"),
        created: None,
        description,
    };
    world.versions.push((listed, None));
    // The machine sleeps for a day.
    world.now = sent + LATEST + LAG + Duration::from_secs(86_400);
    knowledge.begin();
    world.run(&mut knowledge, &wanted("a"), Goal::AtRest);
    knowledge.tidied(&rules(), world.now);
    assert_eq!(world.deletes, [Revision::new("2000")]);
    assert_eq!(knowledge.all_come(&rules(), world.now), None);
    assert_eq!(knowledge.late(), []);
}

#[test]
fn a_deletion_without_an_answer_is_told_once_the_listing_lacks_the_version() {
    let mut world = World::new(3, &[]);
    let mut knowledge = Knowledge::default();
    let _ = knowledge.listed(world.listing(), &rules(), world.now);
    let gone = Revision::new("100");
    knowledge.deleted(gone.clone(), false, world.now);
    world.versions.remove(0);
    let noticed = knowledge.listed(world.listing(), &rules(), world.now);
    assert_eq!(noticed, [Noticed::Gone(gone)]);
}

#[test]
fn code_that_shows_late_saves_its_version() {
    let mut world = World::new(0, &[]);
    let wanted = wanted("a");
    world.faults = vec![Fault::Unposted];
    let mut knowledge = Knowledge::default();
    world.upload(&mut knowledge, &wanted);
    let _ = knowledge.listed(world.listing(), &rules(), world.now);
    let late = Revision::new("1001");
    knowledge.read_back(late.clone(), Content::Nothing, &rules(), world.now);
    world.versions[0].1 = Some(wanted.digest);
    world.now = world.now + LAG * 2;
    assert_eq!(world.deploy(&mut knowledge, &wanted), Step::Stored(late));
    assert!(world.deletes.is_empty());
}

fn faults() -> impl Strategy<Value = Vec<Fault>> {
    let fault = proptest::sample::select(vec![
        Fault::Lost,
        Fault::Unposted,
        Fault::PostLost,
        Fault::AnswerLost,
        Fault::FormEnded,
    ]);
    proptest::collection::vec(fault, 0..6)
}

proptest! {
    #[test]
    fn whatever_is_lost_the_bytes_end_up_stored_once_and_a_slot_is_free(
        foreign in 0usize..=10,
        live in proptest::collection::vec(0usize..10, 0..3),
        edits in proptest::collection::vec((0u8..4, faults(), any::<bool>()), 1..15),
    ) {
        let mut world = World::new(foreign, &live);
        let mut knowledge = Knowledge::default();
        for (text, faults, restart) in edits {
            world.faults = faults;
            if restart {
                knowledge = Knowledge::default();
            }
            let wanted = wanted(&text.to_string());
            let Step::Stored(revision) = world.deploy(&mut knowledge, &wanted) else {
                panic!("blocked although seven versions may go");
            };
            prop_assert_eq!(world.holds(&revision), Some(wanted.digest));
            prop_assert!(world.versions.len() <= 9);
            let same = world.versions.iter().filter(|(_, code)| *code == Some(wanted.digest)).count();
            prop_assert_eq!(same, 1);
        }
    }
}
