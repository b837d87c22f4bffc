//! What to do next, from what is known. Pure.
//!
//! [`decide`] looks at the [`Knowledge`] of one routine and names one [`Step`] towards a goal: first a version that
//! provably holds the wanted bytes, then a free slot. Whoever carries the step out writes down what came of it and asks
//! again. An answer that was lost, a kill in between or another er-dev beside this one are therefore no special cases:
//! the next question starts from a listing.
//!
//! A mark in a description says what a version was meant to hold. What it does hold is known only from a clean answer
//! of the upload or from reading the code back.

mod knowledge;
mod staging;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::time::Duration;

use crate::clock::Moment;
use crate::cloud::Listing;
use crate::routine::{Digest, Revision};

use super::mark::{Instance, Mark};
use super::rotation::{Fate, Policy, Protected, Refusal, Stays};

pub use knowledge::{
    Content, Doubt, Knowledge, LATEST, Late, Noticed, Owed, Past, is_of_every_routine,
};
pub use staging::{STAGING, Staged, slot as staging_slot};

/// A delete is decided on a listing that is not older than this.
pub const FRESH: Duration = Duration::from_millis(500);

/// The pause between two looks at something that may be late to show.
const POLL: Duration = Duration::from_secs(1);

/// How many versions may go for one edit because the service says that all slots are taken, against the listing or not.
pub const MAX_QUOTA_DELETES: u32 = 2;

/// How often one form is posted. Posting it again is safe, since it can only write the same version.
pub const MAX_POSTS: u32 = 2;

/// How many versions of the same bytes a pass asks for before one of them is proven: a form may end early, an orphan may
/// have to be replaced.
pub const MAX_UPLOADS: u32 = 3;

/// How often a version is deleted that stays listed nevertheless.
pub const MAX_DELETES: u32 = 3;

/// How many listings in a row that cannot be read whole are taken for a passing trouble. After that uploads go on by
/// what can be read, so that a service that leaves an empty list out is no dead end.
pub const MAX_IN_PART: u32 = 3;

/// The rules of one configuration.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Which versions may go.
    pub policy: Policy,
    /// Which er-dev this is.
    pub instance: Instance,
    /// How late the service may show what it has done: a version in a listing, or the code behind it.
    pub lag: Duration,
}

/// The bytes that are wanted on the service.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Wanted {
    /// Their digest.
    pub digest: Digest,
    /// The digest they would have if the service had changed their line ends to its liking. It does not say whether it
    /// keeps code byte for byte.
    pub normalised: Digest,
    /// Versions that do not count although they may hold the bytes: those that were there when an upload of identical
    /// bytes was forced.
    pub besides: BTreeSet<Revision>,
    /// Whether they take the place of the entry's present bytes. The version that held those is one like any other then.
    pub replaces: bool,
}

/// What is to be reached.
#[derive(Debug, Clone, Copy)]
pub enum Goal<'a> {
    /// A version that holds the bytes.
    Stored(&'a Wanted),
    /// Staging that runs the bytes.
    Staged(&'a Wanted),
    /// A version that holds the bytes, made of what is on staging.
    Committed(&'a Wanted),
    /// A free slot, and no version left over from an upload in doubt.
    AtRest,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Step {
    /// Nothing before this moment.
    Wait(Moment),
    /// List the versions.
    List,
    /// Read the code of a version back.
    ReadBack(Revision),
    /// Save a version's code, since it is about to be deleted.
    Save(Revision),
    /// Delete a version.
    Delete(Revision, Why),
    /// Ask for a version and the form to post its code with.
    Upload,
    /// Ask for the form to post the code with that is to run on staging.
    Stage,
    /// Make a version of what is on staging.
    Commit,
    /// Post the code with the form of this version.
    Post(Revision),
    /// This version holds the bytes, or the staging slot.
    Stored(Revision),
    /// A slot is free, or none is to be freed.
    AtRest,
    /// Nothing can be done until somebody changes something.
    Blocked(Blocked),
}

/// Why a version is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Why {
    /// It is the oldest that may go.
    Oldest,
    /// er-dev made it and its code never arrived.
    Orphan,
    /// er-dev made it although another one with the same bytes was on its way.
    Duplicate,
}

/// Why no version can be made, or no slot freed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, thiserror::Error)]
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
    /// The service confirms a deletion again and again, and the version stays.
    #[error(
        "the service confirmed {MAX_DELETES} times that version {0} is deleted, and still lists it"
    )]
    StillListed(Revision),
    /// No upload of these bytes is ever proven.
    #[error("no proven version after {MAX_UPLOADS} uploads")]
    Fruitless,
}

fn list(stays: &[(Revision, Stays)]) -> String {
    let parts: Vec<String> = stays
        .iter()
        .map(|(revision, stays)| format!("{} ({stays})", revision.short()))
        .collect();
    parts.join(", ")
}

impl Wanted {
    /// Whether code with this digest is the wanted code.
    pub fn accepts(&self, digest: Digest) -> bool {
        digest == self.digest || digest == self.normalised
    }
}

/// The next step towards a goal.
pub fn decide(knowledge: &Knowledge, goal: Goal<'_>, rules: &Rules, now: Moment) -> Step {
    let seen = match (&knowledge.doubt, &knowledge.listing) {
        (Some(doubt), _) if now < doubt.settled => return Step::Wait(doubt.settled),
        // A listing from before cannot tell what became of a request.
        (Some(doubt), Some(seen)) if seen.at < doubt.settled => return Step::List,
        (_, None) => return Step::List,
        (_, Some(seen)) => seen,
    };
    let count = seen.listing.revisions.len();
    let step = match goal {
        Goal::Stored(wanted) => store(knowledge, wanted, count, rules, now, Step::Upload),
        Goal::Committed(wanted) => store(knowledge, wanted, count, rules, now, Step::Commit),
        Goal::Staged(wanted) => staging::stage(knowledge, wanted, rules, now),
        Goal::AtRest => rest(knowledge, count, rules, now),
    };
    match step {
        // Somebody may have changed what is in the way since an older listing.
        Step::Blocked(_) if !knowledge.current => Step::List,
        step => step,
    }
}

/// `make` is how another version is made where there is none.
fn store(
    k: &Knowledge,
    wanted: &Wanted,
    count: usize,
    rules: &Rules,
    now: Moment,
    make: Step,
) -> Step {
    if k.is_seen_in_part() {
        return look_again(k, now + POLL, now);
    }
    if let Some(holder) = k.holder(wanted) {
        // Somebody may have deleted it since an older listing.
        return if k.current {
            Step::Stored(holder.clone())
        } else {
            Step::List
        };
    }
    if let Some(step) = find(k, wanted, rules, now) {
        return step;
    }
    let form = k.form.as_ref();
    let form = form.filter(|form| form.digest == wanted.digest && form.posts < MAX_POSTS);
    let form = form.filter(|form| !form.staging);
    if let Some(doubt) = k.doubt.filter(|doubt| now < doubt.shown && form.is_none()) {
        return look_again(k, doubt.shown, now);
    }
    if k.room_owed && k.quota_deletes(wanted.digest) >= MAX_QUOTA_DELETES {
        return Step::Blocked(Blocked::Contradiction);
    }
    // The service's word counts for more than the listing: it may count versions that it does not list yet.
    if count >= rules.policy.cap || k.room_owed {
        let mut protected = k.protected.clone();
        if wanted.replaces {
            protected.present = None;
        }
        return make_room(k, &protected, rules, now);
    }
    match form {
        // It is not listed, so its slot is taken when its code arrives.
        Some(form) => Step::Post(form.revision.clone()),
        None if k.tries(wanted.digest) >= MAX_UPLOADS => Step::Blocked(Blocked::Fruitless),
        None => make,
    }
}

/// The edit is safe already, so what cannot be done here waits for the next one.
fn rest(k: &Knowledge, count: usize, rules: &Rules, now: Moment) -> Step {
    if !rules.policy.may_delete() || k.deletes_off.is_some() {
        return Step::AtRest;
    }
    if k.is_seen_in_part() {
        return look_again(k, now + POLL, now);
    }
    if k.has_suspects() && !k.looked {
        return Step::List;
    }
    if let Some(doubt) = k.doubt.filter(|doubt| now < doubt.shown) {
        return look_again(k, doubt.shown, now);
    }
    if let Some(step) = reclaim(k, rules, now) {
        return step;
    }
    if count <= rules.policy.at_rest() {
        return Step::AtRest;
    }
    make_room(k, &k.protected, rules, now)
}

/// Looks among the marked versions for one that holds the bytes; reads back what is not proven.
fn find(k: &Knowledge, wanted: &Wanted, rules: &Rules, now: Moment) -> Option<Step> {
    for listed in k.versions() {
        let revision = &listed.revision;
        if k.is_out(revision, wanted) {
            continue;
        }
        let mark = Mark::read(&listed.description);
        let Some(mark) = mark.filter(|mark| mark.is_for(wanted.digest)) else {
            continue;
        };
        let form = k.form.as_ref().filter(|form| form.revision == *revision);
        match (k.contents.get(revision), form) {
            (Some(Content::Holds(_)), _) if mark.instance == rules.instance => {
                return Some(Step::Blocked(Blocked::OtherBytes(revision.clone())));
            }
            (Some(Content::Holds(_)), _) => {}
            (None, Some(form)) if !form.sent => return Some(Step::Post(revision.clone())),
            (None, _) => return Some(Step::ReadBack(revision.clone())),
            (Some(Content::Nothing), Some(form)) if form.posts < MAX_POSTS => {
                return Some(Step::Post(revision.clone()));
            }
            (Some(Content::Nothing), _) => {
                if let Some(step) = orphan(k, revision, &mark, rules, now) {
                    return Some(step);
                }
            }
        }
    }
    None
}

/// What to do about a version that reads back without code: it may only be late to show. `None` if it is to be left.
fn orphan(
    k: &Knowledge,
    revision: &Revision,
    mark: &Mark,
    rules: &Rules,
    now: Moment,
) -> Option<Step> {
    let since = k.empty_since.get(revision).copied().unwrap_or(now);
    let shown = since + rules.lag;
    if now < shown {
        return Some(Step::Wait(shown.min(now + POLL)));
    }
    let listing = k.listing()?;
    let ours = mark.instance == rules.instance;
    let may_go = ours && k.deletes_off.is_none();
    (may_go && rules.policy.may_reclaim(listing, revision, &k.protected))
        .then(|| delete(k, revision, Why::Orphan, now))
}

/// Clears away what uploads in doubt have left: versions without code, and second versions of the same bytes.
fn reclaim(k: &Knowledge, rules: &Rules, now: Moment) -> Option<Step> {
    let listing = k.listing()?;
    let may_go = |revision: &Revision| rules.policy.may_reclaim(listing, revision, &k.protected);
    // What stays anyway comes first, so that of two with the same bytes the other one goes; and what may be gone at any
    // moment comes last.
    let mut suspects: Vec<_> = k
        .versions()
        .filter_map(|listed| Some((&listed.revision, Mark::read(&listed.description)?)))
        .filter(|(_, mark)| k.is_suspect(mark, &rules.instance))
        .collect();
    suspects.sort_by_key(|(revision, _)| (k.is_doomed(revision), may_go(revision)));
    let mut kept = BTreeSet::new();
    for (revision, mark) in suspects {
        match k.contents.get(revision) {
            None => return Some(Step::ReadBack(revision.clone())),
            Some(Content::Nothing) => {
                if let Some(step) = orphan(k, revision, &mark, rules, now) {
                    return Some(step);
                }
            }
            Some(Content::Holds(digest)) if kept.contains(digest) && may_go(revision) => {
                return Some(if k.saved.contains(revision) {
                    delete(k, revision, Why::Duplicate, now)
                } else {
                    Step::Save(revision.clone())
                });
            }
            Some(Content::Holds(digest)) if !k.is_doomed(revision) => {
                kept.insert(*digest);
            }
            Some(Content::Holds(_)) => {}
        }
    }
    None
}

fn make_room(k: &Knowledge, protected: &Protected, rules: &Rules, now: Moment) -> Step {
    let (Some(listing), Some(_)) = (k.listing(), k.listing_age(now)) else {
        return Step::List;
    };
    if let Some(reason) = &k.deletes_off {
        return Step::Blocked(Blocked::Refused(Refusal::Off(reason.clone())));
    }
    if let Some(step) = reclaim(k, rules, now) {
        return step;
    }
    for (revision, deleted) in k.deleted.iter().filter(|(_, deleted)| deleted.confirmed) {
        let shown = deleted.at + rules.lag;
        if now < shown {
            return look_again(k, shown, now);
        }
        if deleted.tries >= MAX_DELETES {
            return Step::Blocked(Blocked::StillListed(revision.clone()));
        }
    }
    match rules.policy.victim(listing, protected) {
        Err(refusal) => Step::Blocked(Blocked::Refused(refusal)),
        Ok(None) => Step::Blocked(all_protected(listing, protected, &rules.policy)),
        Ok(Some(victim)) => {
            let revision = victim.revision.clone();
            if k.saved.contains(&revision) {
                delete(k, &revision, Why::Oldest, now)
            } else {
                Step::Save(revision)
            }
        }
    }
}

/// What may be deleted is deleted by a fresh look only.
fn delete(k: &Knowledge, revision: &Revision, why: Why, now: Moment) -> Step {
    match k.listing_age(now) {
        Some(age) if age <= FRESH => Step::Delete(revision.clone(), why),
        _ => Step::List,
    }
}

/// Lists again, but not more often than once in [`POLL`], until something must have shown.
fn look_again(k: &Knowledge, shown: Moment, now: Moment) -> Step {
    let next = k
        .listing
        .as_ref()
        .map_or(now, |seen| (seen.at + POLL).min(shown));
    if now < next {
        Step::Wait(next)
    } else {
        Step::List
    }
}

/// Who holds the slots, the oldest first.
fn all_protected(listing: &Listing, protected: &Protected, policy: &Policy) -> Blocked {
    let fates = match policy.fates(listing, protected) {
        Err(refusal) => return Blocked::Refused(refusal),
        Ok(fates) => fates,
    };
    let fates = listing.revisions.iter().zip(fates);
    let mut stay: Vec<(Revision, Stays)> = fates
        .filter_map(|(listed, fate)| match fate {
            Fate::Stays(stays) => Some((listed.revision.clone(), stays)),
            Fate::MayGo(_) => None,
        })
        .collect();
    stay.sort_by_key(|(revision, _)| revision.number());
    Blocked::AllProtected(stay)
}
