//! Code on staging, and the version that becomes of it. Pure.
//!
//! One slot without a number is overwritten by each upload, so an upload costs no version and needs no room but the first
//! time. That it is one slot makes order matter instead: a post that got no answer and comes later than anybody waits for
//! lies over what was put there since, with its own bytes and its own mark. Nothing can call it back. So what counts is
//! decided in three places: nothing is sent before such a post has settled; as long as it could still come, what is on
//! staging is taken for what it should be only after reading it back; and it is looked for again, at growing
//! intervals, until it cannot come any more.
//!
//! Where the service gives no code for the slot, its mark and the clean answer of the upload have to do.

use serde::{Deserialize, Serialize};

use crate::clock::Moment;
use crate::cloud::{Environments, Listed, Listing};
use crate::revision::mark::Mark;
use crate::routine::{Digest, Revision};

use super::{
    Blocked, Content, Knowledge, LATEST, Late, MAX_POSTS, MAX_QUOTA_DELETES, MAX_UPLOADS, POLL,
    Rules, Step, Wanted, look_again, make_room,
};

/// The environment that runs what is uploaded to staging.
pub const STAGING: &str = "staging";

/// What a clean answer proved to be on staging.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Staged {
    /// Which bytes.
    pub digest: Digest,
    /// When it was put there; the boot if that was not done from here.
    pub at: Moment,
}

/// What is known of the staging slot beyond what is listed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Staging {
    /// What it holds for certain.
    pub(super) proven: Option<Staged>,
    /// What was proven, its mark stands, and older code may lie over it all the same: reading it back tells.
    doubted: Option<Staged>,
    /// What reading it back gave since the last listing.
    read: Option<Content>,
    /// Whether the service gives no code for it.
    unreadable: bool,
}

/// What staging runs, by a listing: a numbered version that somebody put live there, else the slot.
pub fn slot(listing: &Listing) -> Option<&Listed> {
    let live = match &listing.environments {
        Environments::Known(live) => live.get(STAGING).and_then(Option::as_ref),
        Environments::Unknown(_) => None,
    };
    let mut all = listing.revisions.iter();
    match live.filter(|live| !live.is_staging()) {
        Some(live) => all.find(|listed| listed.revision == *live),
        None => all.find(|listed| listed.revision.is_staging()),
    }
}

/// Brings a listing up to what an upload to staging has done.
pub(super) fn put(listing: &mut Listing, description: String) {
    if let Environments::Known(live) = &mut listing.environments {
        live.insert(STAGING.to_owned(), None);
    }
    let mut all = listing.revisions.iter_mut();
    match all.find(|listed| listed.revision.is_staging()) {
        Some(there) => there.description = description,
        None => listing.revisions.push(Listed {
            revision: Revision::staging(),
            created: None,
            description,
        }),
    }
}

/// The next step towards staging that runs the wanted bytes.
pub(super) fn stage(k: &Knowledge, wanted: &Wanted, rules: &Rules, now: Moment) -> Step {
    if k.is_seen_in_part() {
        return look_again(k, now + POLL, now);
    }
    if k.runs_on_staging(wanted) {
        // Somebody may have put something else there since an older listing.
        return if k.current {
            Step::Stored(Revision::staging())
        } else {
            Step::List
        };
    }
    let form = k.form.as_ref();
    let form = form.filter(|form| form.staging && form.digest == wanted.digest);
    let form = form.filter(|form| form.posts < MAX_POSTS);
    if let Some(form) = form.filter(|form| !form.sent) {
        return Step::Post(form.revision.clone());
    }
    if let Some(slot) = k.to_be_read(wanted) {
        return Step::ReadBack(slot.clone());
    }
    if let Some(doubt) = k.doubt.filter(|doubt| now < doubt.shown && form.is_none()) {
        return look_again(k, doubt.shown, now);
    }
    if k.room_owed && k.quota_deletes(wanted.digest) >= MAX_QUOTA_DELETES {
        return Step::Blocked(Blocked::Contradiction);
    }
    if k.room_owed || k.has_no_slot(wanted, rules) {
        let mut protected = k.protected.clone();
        if wanted.replaces {
            protected.present = None;
        }
        return make_room(k, &protected, rules, now);
    }
    match form {
        // It can only write the same bytes to the same place.
        Some(form) => Step::Post(form.revision.clone()),
        None if k.tries(wanted.digest) >= MAX_UPLOADS => Step::Blocked(Blocked::Fruitless),
        None => Step::Stage,
    }
}

impl Knowledge {
    /// What staging runs, by the last listing and what was put there since.
    pub fn staging_slot(&self) -> Option<&Listed> {
        slot(self.listing()?)
    }

    /// What the staging slot is proven to hold.
    pub fn put_on_staging(&self) -> Option<Staged> {
        self.staging.proven
    }

    /// The digest of that.
    pub fn staged_digest(&self) -> Option<Digest> {
        self.staging.proven.map(|staged| staged.digest)
    }

    /// Whether the form in memory is one for staging.
    pub fn has_staging_form(&self) -> bool {
        self.form.as_ref().is_some_and(|form| form.staging)
    }

    /// Whether the service gives no code for the staging slot.
    pub fn is_staging_unreadable(&self) -> bool {
        self.staging.unreadable
    }

    /// The service gives no code for the staging slot, though it lists it.
    pub fn staging_is_unreadable(&mut self) {
        self.staging.unreadable = true;
        let doubted = self.staging.doubted.take();
        self.staging.proven = self.staging.proven.or(doubted);
    }

    /// The code in the staging slot was read.
    pub fn read_staging(&mut self, content: Content) {
        self.staging.read = Some(content);
        self.staging.doubted = None;
        self.staging.proven = match content {
            Content::Holds(digest) => {
                self.form
                    .take_if(|form| form.staging && form.digest == digest);
                let at = Moment::BOOT;
                Some(Staged { digest, at })
            }
            Content::Nothing => None,
        };
    }

    /// Whatever is on staging does not count: identical bytes are to be put there once more.
    pub fn unstage(&mut self) {
        (self.staging.proven, self.staging.doubted) = (None, None);
        self.staging.read = Some(Content::Nothing);
    }

    /// A listing came: does what it says of the slot agree with what was proven?
    pub(super) fn look_at_staging(&mut self, listing: &Listing, rules: &Rules, now: Moment) {
        self.staging.read = None;
        let doubted = self.staging.doubted.take();
        let Some(staged) = self.staging.proven.or(doubted) else {
            return;
        };
        let digest = staged.digest;
        // A listing that is late to show what was put there costs one more upload, and no version.
        self.staging.proven = None;
        let mut all = listing.revisions.iter();
        let there = all.find(|listed| listed.revision.is_staging());
        let mark = there.and_then(|listed| Mark::read(&listed.description));
        let ours = mark.is_some_and(|mark| mark.instance == rules.instance && mark.is_for(digest));
        if !ours {
            return;
        }
        if !self.staging.unreadable && self.is_threatened(digest, rules, now) {
            self.staging.doubted = Some(staged);
        } else {
            self.staging.proven = Some(staged);
        }
    }

    /// When staging is to be looked at again, because older code could still come to lie over these bytes: after as long
    /// a time as has passed since it was sent, and for the last time when it cannot come any more.
    pub fn staging_look(&self, digest: Digest, rules: &Rules, now: Moment) -> Option<Moment> {
        let sent = self.threats(digest).max()?;
        let last = sent + LATEST + rules.lag;
        let next = now + now.since(sent).max(rules.lag);
        (now < last).then(|| next.min(last))
    }

    /// Whether other code could still come to lie over these bytes.
    fn is_threatened(&self, digest: Digest, rules: &Rules, now: Moment) -> bool {
        let over = LATEST + rules.lag;
        self.threats(digest).any(|sent| now.since(sent) <= over)
    }

    fn threats(&self, digest: Digest) -> impl Iterator<Item = Moment> {
        let late = self.late().iter();
        late.filter(move |(late, _)| matches!(late, Late::Staged(other) if *other != digest))
            .map(|(_, sent)| *sent)
    }

    fn runs_on_staging(&self, wanted: &Wanted) -> bool {
        let Some(slot) = self.staging_slot().map(|listed| &listed.revision) else {
            return false;
        };
        let holds = if slot.is_staging() {
            self.staged_digest()
        } else {
            match self.contents.get(slot) {
                Some(Content::Holds(digest)) if !self.is_out(slot, wanted) => Some(*digest),
                _ => None,
            }
        };
        holds.is_some_and(|digest| wanted.accepts(digest))
    }

    /// What runs on staging, if it was made of the wanted bytes and has not been read yet.
    fn to_be_read(&self, wanted: &Wanted) -> Option<&Revision> {
        let slot = self.staging_slot()?;
        let mark = Mark::read(&slot.description);
        let known = if slot.revision.is_staging() {
            self.staging.unreadable || self.staging.read.is_some()
        } else {
            self.contents.contains_key(&slot.revision) || self.is_out(&slot.revision, wanted)
        };
        let wanted = mark.is_some_and(|mark| mark.is_for(wanted.digest));
        (wanted && !known).then_some(&slot.revision)
    }

    /// Whether an upload to staging came to nothing and the listing says why: it has no slot yet, and none is free.
    fn has_no_slot(&self, wanted: &Wanted, rules: &Rules) -> bool {
        let Some(listing) = self.listing() else {
            return false;
        };
        let mut all = listing.revisions.iter();
        let has_one = all.any(|listed| listed.revision.is_staging());
        let full = listing.revisions.len() >= rules.policy.cap;
        full && !has_one && self.tries(wanted.digest) > 0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::time::Duration;

    use super::*;
    use crate::config::{Revisions, Rotate, Verify};
    use crate::revision::mark::{Instance, describe};
    use crate::revision::protocol::{Goal, decide};
    use crate::revision::rotation::Policy;

    fn at(seconds: u64) -> Moment {
        Moment::after_boot(Duration::from_secs(seconds))
    }

    fn instance() -> Instance {
        Instance::from_number(7)
    }

    fn rules() -> Rules {
        let revisions = Revisions {
            cap: 4,
            reserve: 1,
            keep_newest: 1,
            rotate: Rotate::Any,
            pin: Vec::new(),
            verify: Verify::Doubt,
        };
        Rules {
            policy: Policy::new(&revisions),
            instance: instance(),
            lag: Duration::from_secs(10),
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

    /// A routine with so many versions, and a slot that says it was made of this text.
    fn listing(versions: u64, staged: Option<&str>, live: Option<&str>) -> Listing {
        let listed = |revision: Revision, description: String| Listed {
            revision,
            created: None,
            description,
        };
        let numbered = |n: u64| listed(Revision::new(&n.to_string()), String::new());
        let slot = staged.map(|text| {
            let words = describe("", Digest::of(text.as_bytes()), &instance());
            listed(Revision::staging(), words)
        });
        let live = BTreeMap::from([(STAGING.to_owned(), live.map(Revision::new))]);
        Listing {
            revisions: (1..=versions).map(numbered).chain(slot).collect(),
            environments: Environments::Known(live),
            whole: true,
        }
    }

    /// Text that was put on staging, proven at a second, with the listing of a later one.
    fn put(text: &str, second: u64, later: u64) -> Knowledge {
        let mut k = Knowledge::default();
        let digest = Digest::of(text.as_bytes());
        k.begun_on_staging(Revision::staging(), String::new(), digest);
        k.staged(digest, at(second));
        let _ = k.listed(listing(1, Some(text), None), &rules(), at(later));
        k
    }

    fn next(k: &Knowledge, text: &str, second: u64) -> Step {
        decide(k, Goal::Staged(&wanted(text)), &rules(), at(second))
    }

    #[test]
    fn what_runs_on_staging_is_the_version_that_was_put_live_there_else_the_slot() {
        let runs = |listing: &Listing| slot(listing).map(|it| it.revision.to_string());
        let unstable = || Some("unstable".to_owned());
        assert_eq!(runs(&listing(2, Some("a"), None)), unstable());
        assert_eq!(runs(&listing(2, Some("a"), Some("unstable"))), unstable());
        assert_eq!(runs(&listing(2, Some("a"), Some("2"))), Some("2".into()));
        assert_eq!(runs(&listing(2, Some("a"), Some("9"))), None);
        assert_eq!(runs(&listing(2, None, None)), None);
    }

    #[test]
    fn what_is_proven_is_believed_as_long_as_its_mark_stands_and_no_longer() {
        let k = put("a", 100, 200);
        assert_eq!(next(&k, "a", 200), Step::Stored(Revision::staging()));
        assert_eq!(next(&k, "b", 200), Step::Stage);
        let mut k = k;
        let _ = k.listed(listing(1, Some("b"), None), &rules(), at(210));
        assert_eq!(next(&k, "a", 210), Step::Stage);
        assert_eq!(next(&k, "b", 210), Step::ReadBack(Revision::staging()));
    }

    #[test]
    fn older_code_that_could_still_come_makes_the_slot_be_read_and_not_believed() {
        let mut k = put("b", 100, 105);
        k.may_come_late(Late::Staged(Digest::of(b"a")), at(70));
        let _ = k.listed(listing(1, Some("b"), None), &rules(), at(200));
        assert_eq!(next(&k, "b", 200), Step::ReadBack(Revision::staging()));
        k.read_staging(Content::Holds(Digest::of(b"b")));
        assert_eq!(next(&k, "b", 200), Step::Stored(Revision::staging()));
        let _ = k.listed(listing(1, Some("b"), None), &rules(), at(300));
        k.read_staging(Content::Holds(Digest::of(b"a")));
        assert_eq!(next(&k, "b", 300), Step::Stage);
        // Where it cannot be read, the mark has to do.
        let mut k = put("b", 100, 105);
        k.may_come_late(Late::Staged(Digest::of(b"a")), at(70));
        k.staging_is_unreadable();
        let _ = k.listed(listing(1, Some("b"), None), &rules(), at(200));
        assert_eq!(next(&k, "b", 200), Step::Stored(Revision::staging()));
    }

    #[test]
    fn looks_are_as_far_apart_as_the_post_is_old_and_end_when_it_cannot_come_any_more() {
        let mut k = put("b", 100, 105);
        let look = |k: &Knowledge, second| k.staging_look(Digest::of(b"b"), &rules(), at(second));
        assert_eq!(look(&k, 110), None);
        k.may_come_late(Late::Staged(Digest::of(b"b")), at(70));
        assert_eq!(look(&k, 110), None, "the same bytes do no harm");
        k.may_come_late(Late::Staged(Digest::of(b"a")), at(70));
        let (mut now, mut looks) = (110, 0);
        while let Some(next) = look(&k, now) {
            assert!(next > at(now));
            (now, looks) = (next.since_boot().as_secs(), looks + 1);
        }
        assert_eq!(at(now), at(70) + LATEST + rules().lag);
        assert!(looks < 10, "{looks}");
    }

    #[test]
    fn a_first_upload_without_a_free_slot_makes_room_only_after_a_try() {
        let mut k = Knowledge::default();
        let _ = k.listed(listing(4, None, None), &rules(), at(100));
        assert_eq!(next(&k, "a", 100), Step::Stage);
        k.quota_hit(Digest::of(b"a"));
        let _ = k.listed(listing(4, None, None), &rules(), at(100));
        assert_eq!(next(&k, "a", 100), Step::Save(Revision::new("1")));
        // With the slot there, an upload needs no room.
        let mut k = Knowledge::default();
        let _ = k.listed(listing(3, Some("b"), None), &rules(), at(100));
        k.begun_on_staging(Revision::staging(), String::new(), Digest::of(b"a"));
        k.form_ended(at(100));
        assert_eq!(next(&k, "a", 100), Step::Stage);
    }

    #[test]
    fn a_commit_counts_the_slot_and_makes_room_first() {
        let mut k = Knowledge::default();
        let _ = k.listed(listing(3, Some("a"), None), &rules(), at(100));
        let goal = wanted("a");
        let next = |k: &Knowledge| decide(k, Goal::Committed(&goal), &rules(), at(100));
        assert_eq!(next(&k), Step::Save(Revision::new("1")));
        let _ = k.listed(listing(2, Some("a"), None), &rules(), at(100));
        assert_eq!(next(&k), Step::Commit);
        // What the new version holds is told by reading it back.
        let (made, words) = (Revision::new("9"), describe("", goal.digest, &instance()));
        k.committing(goal.digest);
        k.made(made.clone(), words, at(100));
        assert_eq!(next(&k), Step::ReadBack(made.clone()));
        k.read_back(
            made.clone(),
            Content::Holds(Digest::of(b"b")),
            &rules(),
            at(100),
        );
        assert_eq!(next(&k), Step::Blocked(Blocked::OtherBytes(made)));
    }
}
