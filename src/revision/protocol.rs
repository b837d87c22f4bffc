//! What to do next, from what is known. Pure.
//!
//! [`store`] leads to a version that provably holds the wanted bytes, [`trim`] from there to a free slot. Both look at
//! [`Knowledge`] and name one [`Step`]; whoever carries the step out writes down what came of it and asks again. An
//! answer that was lost is therefore no special case: the next question starts from a listing.
//!
//! A mark in a description says what a version was meant to hold. What it does hold is known only from a clean answer
//! of the upload or from reading the code back.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::cloud::{Environments, Listed, Listing};
use crate::routine::{Digest, Revision};

use super::mark::{Instance, Mark};
use super::rotation::{Fate, Policy, Protected, Refusal, Stays};

/// A delete is decided on a listing that is not older than this.
pub const FRESH: Duration = Duration::from_millis(500);

/// How long a version that reads back without code is given, since its code may only be late to show.
pub const LAG: Duration = Duration::from_secs(10);

/// The pause between two looks at such a version.
const POLL: Duration = Duration::from_secs(1);

/// How often one edit may find all slots taken although the listing said otherwise.
pub const MAX_QUOTA_HITS: u32 = 2;

/// What a version holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// Code with this digest.
    Holds(Digest),
    /// No code: its upload never finished.
    Nothing,
}

/// What is known of one routine on the service. It survives from edit to edit; losing it costs requests, never code.
#[derive(Debug, Clone, Default)]
pub struct Knowledge {
    listing: Option<Seen>,
    /// What was live where when that was last told.
    live: BTreeMap<String, Revision>,
    contents: BTreeMap<Revision, Content>,
    /// Since when a version has been read back without code.
    empty_since: BTreeMap<Revision, Instant>,
    /// Whether the listing was taken, or a version added to it, by the present edit.
    current: bool,
    /// An upload was sent and its outcome is not known. Only a listing from this moment on can tell.
    doubt: Option<Instant>,
    saved: BTreeSet<Revision>,
    /// Versions whose deletion was asked for, and whether the service confirmed it.
    deleted: BTreeMap<Revision, bool>,
    protected: Protected,
    quota_hits: u32,
    /// The service said that all slots are taken, and none was freed since.
    room_owed: bool,
}

#[derive(Debug, Clone)]
struct Seen {
    listing: Listing,
    at: Instant,
    /// A version was added since; the rest of it may serve as long as nothing is deleted by it.
    extended: bool,
}

/// What is wanted.
#[derive(Debug, Clone)]
pub struct Goal {
    /// The digest of the entry's bytes.
    pub digest: Digest,
    /// Which er-dev wants it.
    pub instance: Instance,
    /// Versions that do not count although they may hold the bytes: those that were there when an upload of identical
    /// bytes was forced.
    pub besides: BTreeSet<Revision>,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing before this moment: what was sent could still arrive.
    Wait(Instant),
    /// List the versions.
    List,
    /// Read the code of a version back.
    ReadBack(Revision),
    /// Save a version's code, since it is about to be deleted.
    Save(Revision),
    /// Delete a version.
    Delete(Revision, Why),
    /// Ask for a version and post the code.
    Upload,
    /// This version holds the bytes.
    Stored(Revision),
    /// A slot is free, or none can be made free.
    AtRest,
    /// Nothing can be done until somebody changes something.
    Blocked(Blocked),
}

/// Why a version is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It is the oldest that may go.
    Oldest,
    /// er-dev made it and its code never arrived.
    Orphan,
}

/// Why no version can be made, or no slot freed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Blocked {
    /// All slots are taken and each version has a reason to stay.
    #[error("all {} slots are taken and every version has a reason to stay: {}", .0.len(), list(.0))]
    AllProtected(Vec<(Revision, Stays)>),
    /// All slots are taken and nothing may be deleted.
    #[error("all slots are taken and nothing may be deleted: {0}")]
    Refused(Refusal),
    /// A version that er-dev made of these bytes holds others. Another upload would come to the same.
    #[error("version {0} was made of these bytes, but the service gives others back")]
    OtherBytes(Revision),
    /// The service says that all slots are taken, again and again, and the listing says otherwise.
    #[error("the service says that all slots are taken although the listing does not")]
    Contradiction,
}

fn list(stays: &[(Revision, Stays)]) -> String {
    let parts: Vec<String> = stays
        .iter()
        .map(|(revision, stays)| format!("{} ({stays})", revision.short()))
        .collect();
    parts.join(", ")
}

impl Knowledge {
    /// The last listing, with what was uploaded since.
    pub fn listing(&self) -> Option<&Listing> {
        self.listing.as_ref().map(|seen| &seen.listing)
    }

    /// What protects versions beyond the listing.
    pub fn protected(&self) -> &Protected {
        &self.protected
    }

    /// Forgets everything that somebody else may have changed since. What was seen to be live stays protected.
    pub fn forget_listing(&mut self) {
        self.listing = None;
    }

    /// A new edit begins: what was refused may be tried again.
    pub fn begin(&mut self) {
        self.quota_hits = 0;
        self.room_owed = false;
        self.protected.spared.clear();
        self.protected.present = None;
        self.current = false;
        // Code that was missing may have come since.
        self.contents
            .retain(|_, content| *content != Content::Nothing);
    }

    /// This version holds the present bytes, so it stays.
    pub fn stored(&mut self, revision: Revision) {
        self.protected.present = Some(revision);
    }

    /// A listing came. Returns the versions it lacks whose deletion had not been confirmed.
    pub fn listed(&mut self, listing: Listing, now: Instant) -> Vec<Revision> {
        if let Environments::Known(live) = &listing.environments {
            for (environment, revision) in live {
                let before = match revision {
                    Some(revision) => self.live.insert(environment.clone(), revision.clone()),
                    None => self.live.remove(environment),
                };
                if let Some(before) = before.filter(|before| Some(before) != revision.as_ref()) {
                    self.protected.was_live.insert(environment.clone(), before);
                }
            }
        }
        let is_listed = |revision: &Revision| {
            listing
                .revisions
                .iter()
                .any(|listed| listed.revision == *revision)
        };
        self.contents.retain(|revision, _| is_listed(revision));
        self.empty_since.retain(|revision, _| is_listed(revision));
        self.saved.retain(is_listed);
        let mut gone = Vec::new();
        for (revision, confirmed) in std::mem::take(&mut self.deleted) {
            if is_listed(&revision) {
                let reason = if confirmed {
                    "its deletion was confirmed, but it is still listed"
                } else {
                    "its deletion got no answer, and it is still listed"
                };
                self.protected.spared.insert(revision, reason.into());
            } else if !confirmed {
                gone.push(revision);
            }
        }
        self.current = true;
        self.doubt = self.doubt.filter(|settled| now < *settled);
        self.listing = Some(Seen {
            listing,
            at: now,
            extended: false,
        });
        gone
    }

    /// A version's code was read.
    pub fn read_back(&mut self, revision: Revision, content: Content, now: Instant) {
        match content {
            Content::Holds(_) => self.empty_since.remove(&revision),
            Content::Nothing => Some(*self.empty_since.entry(revision.clone()).or_insert(now)),
        };
        self.contents.insert(revision, content);
    }

    /// A version was made and its code posted. `proven` tells whether the service confirmed that it has the code.
    pub fn uploaded(&mut self, revision: Revision, description: String, proven: Option<Digest>) {
        if let Some(digest) = proven {
            self.contents
                .insert(revision.clone(), Content::Holds(digest));
        }
        if let Some(seen) = &mut self.listing {
            seen.listing.revisions.push(Listed {
                revision,
                created: None,
                description,
            });
            seen.extended = true;
        }
        self.current = true;
    }

    /// For a dry run: as if a version had been made.
    pub fn pretend_uploaded(&mut self, revision: Revision) {
        if let Some(seen) = &mut self.listing {
            seen.listing.revisions.push(Listed {
                revision,
                created: None,
                description: String::new(),
            });
        }
    }

    /// For a dry run: as if a version had been deleted.
    pub fn pretend_deleted(&mut self, revision: &Revision) {
        if let Some(seen) = &mut self.listing {
            seen.listing
                .revisions
                .retain(|listed| listed.revision != *revision);
        }
    }

    /// Something was sent whose outcome is not known; a listing before `settled` does not tell.
    pub fn in_doubt(&mut self, settled: Instant) {
        self.doubt = Some(self.doubt.map_or(settled, |doubt| doubt.max(settled)));
    }

    /// The service said that all slots are taken.
    pub fn quota_hit(&mut self) {
        self.quota_hits += 1;
        self.room_owed = true;
        self.listing = None;
    }

    /// A version's code lies in the vault, or it has none to save.
    pub fn saved(&mut self, revision: Revision) {
        self.saved.insert(revision);
    }

    /// A version cannot be saved or deleted for now; the next oldest is tried.
    pub fn spare(&mut self, revision: Revision, reason: String) {
        self.protected.spared.insert(revision, reason);
    }

    /// A deletion was asked for and may have been carried out. `confirmed` tells whether the service said so.
    pub fn deleted(&mut self, revision: Revision, confirmed: bool) {
        self.deleted.insert(revision, confirmed);
        self.room_owed = false;
        self.listing = None;
    }

    /// How old the listing is; `None` without one that was taken whole.
    pub fn listing_age(&self, now: Instant) -> Option<Duration> {
        let seen = self.listing.as_ref().filter(|seen| !seen.extended)?;
        Some(now.saturating_duration_since(seen.at))
    }

    /// The version that provably holds a digest, the newest of them.
    pub fn holder(&self, goal: &Goal) -> Option<&Revision> {
        self.newest_first()
            .map(|listed| &listed.revision)
            .filter(|revision| !goal.besides.contains(*revision))
            .find(|revision| self.contents.get(*revision) == Some(&Content::Holds(goal.digest)))
    }

    /// The newest numbered version.
    pub fn newest(&self) -> Option<&Revision> {
        self.newest_first().next().map(|listed| &listed.revision)
    }

    fn newest_first(&self) -> impl Iterator<Item = &Listed> {
        let mut numbered: Vec<(u64, &Listed)> = self
            .listing()
            .into_iter()
            .flat_map(|listing| &listing.revisions)
            .filter_map(|listed| Some((listed.revision.number()?, listed)))
            .collect();
        numbered.sort_by_key(|(number, _)| std::cmp::Reverse(*number));
        numbered.into_iter().map(|(_, listed)| listed)
    }

    fn is_live(&self, revision: &Revision) -> bool {
        match self.listing().map(|listing| &listing.environments) {
            Some(Environments::Known(live)) => {
                live.values().any(|live| live.as_ref() == Some(revision))
            }
            _ => true,
        }
    }
}

/// The next step towards a version that holds the wanted bytes.
pub fn store(knowledge: &Knowledge, goal: &Goal, policy: &Policy, now: Instant) -> Step {
    match knowledge.doubt {
        Some(settled) if now < settled => return Step::Wait(settled),
        Some(_) => return Step::List,
        None => {}
    }
    let Some(seen) = &knowledge.listing else {
        return Step::List;
    };
    let count = seen.listing.revisions.len();
    if let Some(holder) = knowledge.holder(goal) {
        // Somebody may have deleted it since an older listing.
        return if knowledge.current {
            Step::Stored(holder.clone())
        } else {
            Step::List
        };
    }
    if let Some(step) = find(knowledge, goal, policy, now) {
        return step;
    }
    if knowledge.quota_hits > MAX_QUOTA_HITS {
        return Step::Blocked(Blocked::Contradiction);
    }
    // The service's word counts for more than the listing: it may count versions that it does not list yet.
    if count >= policy.cap || knowledge.room_owed {
        return match make_room(knowledge, policy, now) {
            Step::AtRest => Step::Blocked(all_protected(knowledge, policy)),
            step => step,
        };
    }
    Step::Upload
}

/// The next step towards a free slot. The edit is safe already, so what cannot be done here waits for the next one.
pub fn trim(knowledge: &Knowledge, policy: &Policy, now: Instant) -> Step {
    let Some(seen) = &knowledge.listing else {
        return Step::List;
    };
    if seen.listing.revisions.len() <= policy.at_rest() || !policy.may_delete() {
        return Step::AtRest;
    }
    match make_room(knowledge, policy, now) {
        Step::AtRest => Step::Blocked(all_protected(knowledge, policy)),
        step => step,
    }
}

/// Looks among the marked versions for one that holds the bytes; reads back what is not proven.
fn find(knowledge: &Knowledge, goal: &Goal, policy: &Policy, now: Instant) -> Option<Step> {
    for listed in knowledge.newest_first() {
        let revision = &listed.revision;
        if goal.besides.contains(revision) {
            continue;
        }
        let Some(mark) = Mark::read(&listed.description).filter(|mark| mark.is_for(goal.digest))
        else {
            continue;
        };
        match knowledge.contents.get(revision) {
            None => return Some(Step::ReadBack(revision.clone())),
            Some(Content::Holds(_)) if mark.instance == goal.instance => {
                return Some(Step::Blocked(Blocked::OtherBytes(revision.clone())));
            }
            Some(Content::Holds(_)) => {}
            Some(Content::Nothing) => {
                let since = knowledge.empty_since.get(revision).copied().unwrap_or(now);
                if now < since + LAG {
                    return Some(Step::Wait((since + LAG).min(now + POLL)));
                }
                let ours = mark.instance == goal.instance && policy.may_delete();
                let spared = knowledge.protected.spared.contains_key(revision);
                if ours && !spared && !knowledge.is_live(revision) {
                    return Some(match knowledge.listing_age(now) {
                        Some(age) if age <= FRESH => Step::Delete(revision.clone(), Why::Orphan),
                        _ => Step::List,
                    });
                }
            }
        }
    }
    None
}

fn make_room(knowledge: &Knowledge, policy: &Policy, now: Instant) -> Step {
    let (Some(listing), Some(age)) = (knowledge.listing(), knowledge.listing_age(now)) else {
        return Step::List;
    };
    match policy.victim(listing, &knowledge.protected) {
        Err(refusal) => Step::Blocked(Blocked::Refused(refusal)),
        Ok(None) => Step::AtRest,
        Ok(Some(victim)) => {
            let revision = victim.revision.clone();
            if !knowledge.saved.contains(&revision) {
                Step::Save(revision)
            } else if age > FRESH {
                Step::List
            } else {
                Step::Delete(revision, Why::Oldest)
            }
        }
    }
}

fn all_protected(knowledge: &Knowledge, policy: &Policy) -> Blocked {
    let Some(listing) = knowledge.listing() else {
        return Blocked::AllProtected(Vec::new());
    };
    match policy.fates(listing, &knowledge.protected) {
        Err(refusal) => Blocked::Refused(refusal),
        Ok(fates) => Blocked::AllProtected(
            listing
                .revisions
                .iter()
                .zip(fates)
                .filter_map(|(listed, fate)| match fate {
                    Fate::Stays(stays) => Some((listed.revision.clone(), stays)),
                    Fate::MayGo(_) => None,
                })
                .collect(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Strategy, any, prop_assert, prop_assert_eq, proptest};

    use crate::config::{Revisions, Rotate, Verify};
    use crate::revision::mark::describe;

    use super::*;

    /// The service as far as the protocol can see it, with a clock that moves a little at every step.
    struct World {
        now: Instant,
        next: u64,
        versions: Vec<(Listed, Option<Digest>)>,
        live: BTreeMap<String, Option<Revision>>,
        /// What the next uploads come to; a clean success once this has run out.
        faults: Vec<Fault>,
        deletes: Vec<Revision>,
        uploads: usize,
    }

    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Fault {
        /// The request was lost on its way.
        Lost,
        /// The version was made, its code was posted, and the answers were lost.
        AnswerLost,
        /// The version was made and its code never arrived.
        NoCode,
    }

    fn policy() -> Policy {
        Policy::new(&Revisions {
            cap: 10,
            reserve: 1,
            keep_newest: 3,
            rotate: Rotate::Any,
            pin: Vec::new(),
            verify: Verify::Doubt,
        })
    }

    fn goal(text: &str) -> Goal {
        Goal {
            digest: Digest::of(text.as_bytes()),
            instance: Instance::from_number(1),
            besides: BTreeSet::new(),
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
                now: Instant::now(),
                next: 1_000,
                versions,
                live,
                faults: Vec::new(),
                deletes: Vec::new(),
                uploads: 0,
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
            }
        }

        fn upload(&mut self, knowledge: &mut Knowledge, goal: &Goal) {
            self.uploads += 1;
            let fault = (!self.faults.is_empty()).then(|| self.faults.remove(0));
            if fault == Some(Fault::Lost) {
                return knowledge.in_doubt(self.now + Duration::from_secs(20));
            }
            if self.versions.len() >= 10 {
                return knowledge.quota_hit();
            }
            self.next += 1;
            let description = describe("f.js", goal.digest, &goal.instance);
            let revision = Revision::new(&self.next.to_string());
            let listed = Listed {
                revision: revision.clone(),
                created: None,
                description: description.clone(),
            };
            let code = (fault != Some(Fault::NoCode)).then_some(goal.digest);
            self.versions.push((listed, code));
            match fault {
                None => knowledge.uploaded(revision, description, Some(goal.digest)),
                Some(Fault::AnswerLost) => knowledge.in_doubt(self.now + Duration::from_secs(20)),
                Some(_) => {
                    knowledge.uploaded(revision, description, None);
                    knowledge.in_doubt(self.now);
                }
            }
        }

        /// Carries one step out; `true` when there is nothing more to do.
        fn carry_out(&mut self, step: Step, knowledge: &mut Knowledge, goal: &Goal) -> bool {
            self.now += Duration::from_millis(20);
            match step {
                Step::Wait(until) => self.now = until,
                Step::List => drop(knowledge.listed(self.listing(), self.now)),
                Step::ReadBack(revision) => {
                    let found = self
                        .versions
                        .iter()
                        .find(|(listed, _)| listed.revision == revision)
                        .unwrap();
                    let content = found.1.map_or(Content::Nothing, Content::Holds);
                    knowledge.read_back(revision, content, self.now);
                }
                Step::Save(revision) => knowledge.saved(revision),
                Step::Delete(revision, _) => {
                    assert!(
                        !self
                            .live
                            .values()
                            .any(|live| live.as_ref() == Some(&revision)),
                        "live deleted"
                    );
                    self.versions
                        .retain(|(listed, _)| listed.revision != revision);
                    self.deletes.push(revision.clone());
                    knowledge.deleted(revision, true);
                }
                Step::Upload => self.upload(knowledge, goal),
                Step::Stored(_) | Step::AtRest | Step::Blocked(_) => return true,
            }
            assert!(self.versions.len() <= 10, "more than ten versions");
            false
        }

        fn deploy(&mut self, knowledge: &mut Knowledge, goal: &Goal) -> Step {
            knowledge.begin();
            let stored = self.run(knowledge, goal, store);
            if let Step::Stored(revision) = &stored {
                knowledge.stored(revision.clone());
                self.run(knowledge, goal, |knowledge, _, policy, now| {
                    trim(knowledge, policy, now)
                });
            }
            stored
        }

        fn run(
            &mut self,
            knowledge: &mut Knowledge,
            goal: &Goal,
            next: impl Fn(&Knowledge, &Goal, &Policy, Instant) -> Step,
        ) -> Step {
            let policy = policy();
            // Each orphan is looked at ten times before it is believed to be one.
            for _ in 0..300 {
                let step = next(knowledge, goal, &policy, self.now);
                if self.carry_out(step.clone(), knowledge, goal) {
                    return step;
                }
            }
            panic!("no end in sight");
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
        let goal = goal("new");
        assert_eq!(store(&knowledge, &goal, &policy(), world.now), Step::List);
        let _ = knowledge.listed(world.listing(), world.now);
        assert_eq!(store(&knowledge, &goal, &policy(), world.now), Step::Upload);
        world.upload(&mut knowledge, &goal);
        assert_eq!(
            store(&knowledge, &goal, &policy(), world.now),
            Step::Stored(Revision::new("1001"))
        );
        assert_eq!(trim(&knowledge, &policy(), world.now), Step::AtRest);
    }

    #[test]
    fn a_full_routine_loses_its_oldest_version_only_after_that_was_saved() {
        let mut world = World::new(10, &[0]);
        let mut knowledge = Knowledge::default();
        let goal = goal("new");
        let _ = knowledge.listed(world.listing(), world.now);
        let oldest = Revision::new("101");
        assert_eq!(
            store(&knowledge, &goal, &policy(), world.now),
            Step::Save(oldest.clone())
        );
        knowledge.saved(oldest.clone());
        assert_eq!(
            store(&knowledge, &goal, &policy(), world.now),
            Step::Delete(oldest, Why::Oldest)
        );
        let late = world.now + Duration::from_secs(1);
        assert_eq!(
            store(&knowledge, &goal, &policy(), late),
            Step::List,
            "the listing is too old to delete by"
        );
        world.deploy(&mut knowledge, &goal);
        assert_eq!(world.versions.len(), 9);
        assert_eq!(world.deletes, [Revision::new("101"), Revision::new("102")]);
    }

    #[test]
    fn bytes_that_went_away_and_came_back_are_found_and_not_uploaded_again() {
        let mut world = World::new(0, &[]);
        let mut knowledge = Knowledge::default();
        let first = world.deploy(&mut knowledge, &goal("a"));
        world.deploy(&mut knowledge, &goal("b"));
        assert_eq!(world.deploy(&mut knowledge, &goal("a")), first);
        assert_eq!(world.uploads, 2);
    }

    #[test]
    fn a_mark_alone_is_no_proof() {
        let mut world = World::new(0, &[]);
        let goal = goal("a");
        world.faults = vec![Fault::NoCode];
        world.upload(&mut Knowledge::default(), &goal);
        let mut fresh = Knowledge::default();
        let _ = fresh.listed(world.listing(), world.now);
        let orphan = Revision::new("1001");
        assert_eq!(
            store(&fresh, &goal, &policy(), world.now),
            Step::ReadBack(orphan.clone())
        );
        fresh.read_back(orphan.clone(), Content::Nothing, world.now);
        let polled = store(&fresh, &goal, &policy(), world.now);
        assert_eq!(
            polled,
            Step::Wait(world.now + POLL),
            "its code may be late to show"
        );
        world.now += LAG;
        let _ = fresh.listed(world.listing(), world.now);
        assert_eq!(
            store(&fresh, &goal, &policy(), world.now),
            Step::Delete(orphan.clone(), Why::Orphan)
        );
        let Step::Stored(revision) = world.deploy(&mut fresh, &goal) else {
            panic!()
        };
        assert_ne!(revision, orphan);
    }

    #[test]
    fn an_orphan_of_another_er_dev_is_left_alone() {
        let mut world = World::new(0, &[]);
        let theirs = Goal {
            instance: Instance::from_number(2),
            ..goal("a")
        };
        world.faults = vec![Fault::NoCode];
        world.upload(&mut Knowledge::default(), &theirs);
        let mut knowledge = Knowledge::default();
        world.deploy(&mut knowledge, &goal("a"));
        assert!(world.deletes.is_empty());
        assert_eq!(world.versions.len(), 2);
    }

    #[test]
    fn nothing_is_asked_while_a_lost_request_could_still_arrive() {
        let mut world = World::new(0, &[]);
        let mut knowledge = Knowledge::default();
        let _ = knowledge.listed(world.listing(), world.now);
        let settled = world.now + Duration::from_secs(20);
        knowledge.in_doubt(settled);
        assert_eq!(
            store(&knowledge, &goal("a"), &policy(), world.now),
            Step::Wait(settled)
        );
        assert_eq!(
            store(&knowledge, &goal("a"), &policy(), settled),
            Step::List
        );
        world.now = settled;
        let _ = knowledge.listed(world.listing(), world.now);
        assert_eq!(
            store(&knowledge, &goal("a"), &policy(), settled),
            Step::Upload
        );
    }

    #[test]
    fn a_service_that_claims_to_be_full_ends_in_a_sentence_and_not_in_a_loop() {
        let world = World::new(0, &[]);
        let mut knowledge = Knowledge::default();
        let goal = goal("a");
        for _ in 0..=MAX_QUOTA_HITS {
            knowledge.quota_hit();
            let _ = knowledge.listed(world.listing(), world.now);
        }
        let step = store(&knowledge, &goal, &policy(), world.now);
        assert_eq!(step, Step::Blocked(Blocked::Contradiction));
    }

    #[test]
    fn a_full_routine_without_a_version_that_may_go_says_who_holds_the_slots() {
        let mut world = World::new(10, &[0, 1, 2, 3, 4, 5, 6]);
        let mut knowledge = Knowledge::default();
        let Step::Blocked(blocked) = world.deploy(&mut knowledge, &goal("a")) else {
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
        world.deploy(&mut knowledge, &goal("a"));
        let forced = Goal {
            besides: BTreeSet::from([Revision::new("1001")]),
            ..goal("a")
        };
        assert_eq!(
            world.deploy(&mut knowledge, &forced),
            Step::Stored(Revision::new("1002"))
        );
    }

    #[test]
    fn a_version_that_does_not_go_is_spared_and_the_next_oldest_goes() {
        let world = World::new(10, &[]);
        let mut knowledge = Knowledge::default();
        let oldest = Revision::new("100");
        knowledge.deleted(oldest.clone(), true);
        let _ = knowledge.listed(world.listing(), world.now);
        assert_eq!(
            store(&knowledge, &goal("a"), &policy(), world.now),
            Step::Save(Revision::new("101"))
        );
        knowledge.begin();
        assert_eq!(
            store(&knowledge, &goal("a"), &policy(), world.now),
            Step::Save(oldest)
        );
    }

    #[test]
    fn what_was_live_before_stays() {
        let mut world = World::new(10, &[0]);
        let mut knowledge = Knowledge::default();
        let _ = knowledge.listed(world.listing(), world.now);
        world.live.insert("env0".into(), Some(Revision::new("109")));
        world.deploy(&mut knowledge, &goal("a"));
        assert!(world.holds(&Revision::new("100")).is_some());
        assert!(world.holds(&Revision::new("101")).is_none());
    }

    #[test]
    fn a_version_that_somebody_deleted_since_the_last_listing_is_not_taken_for_there() {
        let mut world = World::new(0, &[]);
        let mut knowledge = Knowledge::default();
        world.deploy(&mut knowledge, &goal("a"));
        world.deploy(&mut knowledge, &goal("b"));
        world.versions.remove(0);
        let Step::Stored(revision) = world.deploy(&mut knowledge, &goal("a")) else {
            panic!()
        };
        assert_eq!(world.holds(&revision), Some(goal("a").digest));
        assert_eq!(world.uploads, 3);
    }

    #[test]
    fn a_service_that_gives_other_bytes_back_is_told_and_not_fed_more() {
        let mut world = World::new(0, &[]);
        let goal = goal("a");
        world.upload(&mut Knowledge::default(), &goal);
        world.versions[0].1 = Some(Digest::of(b"other"));
        let blocked = world.deploy(&mut Knowledge::default(), &goal);
        let expected = Blocked::OtherBytes(Revision::new("1001"));
        assert_eq!(blocked, Step::Blocked(expected));
        assert_eq!(world.uploads, 1);
    }

    #[test]
    fn a_deletion_without_an_answer_is_told_once_the_listing_lacks_the_version() {
        let mut world = World::new(3, &[]);
        let mut knowledge = Knowledge::default();
        let _ = knowledge.listed(world.listing(), world.now);
        let (gone, there) = (Revision::new("100"), Revision::new("101"));
        knowledge.deleted(gone.clone(), false);
        knowledge.deleted(there.clone(), false);
        world.versions.remove(0);
        assert_eq!(knowledge.listed(world.listing(), world.now), [gone]);
        assert!(knowledge.protected().spared.contains_key(&there));
    }

    #[test]
    fn code_that_shows_late_saves_its_version() {
        let mut world = World::new(0, &[]);
        let goal = goal("a");
        world.faults = vec![Fault::NoCode];
        let mut knowledge = Knowledge::default();
        world.upload(&mut knowledge, &goal);
        let _ = knowledge.listed(world.listing(), world.now);
        let late = Revision::new("1001");
        knowledge.read_back(late.clone(), Content::Nothing, world.now);
        world.versions[0].1 = Some(goal.digest);
        world.now += LAG * 2;
        assert_eq!(world.deploy(&mut knowledge, &goal), Step::Stored(late));
        assert!(world.deletes.is_empty());
    }

    fn faults() -> impl Strategy<Value = Vec<Fault>> {
        let fault = proptest::sample::select(vec![Fault::Lost, Fault::AnswerLost, Fault::NoCode]);
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
                let goal = goal(&text.to_string());
                let Step::Stored(revision) = world.deploy(&mut knowledge, &goal) else {
                    panic!("blocked although seven versions may go");
                };
                prop_assert_eq!(world.holds(&revision), Some(goal.digest));
                prop_assert!(world.versions.len() <= 9);
                let same = world.versions.iter().filter(|(_, code)| *code == Some(goal.digest)).count();
                prop_assert_eq!(same, 1);
            }
        }
    }
}
