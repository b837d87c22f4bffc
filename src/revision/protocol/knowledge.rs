//! What is known of one routine on the service, and how each thing that happens changes it. Pure.
//!
//! Whoever carries a step out writes down here what came of it; [`super::decide`] reads it. It survives from edit to
//! edit. Losing it costs requests, never code: everything in it can be had again from a listing and from reading back.
//! [`listing`] has what a listing changes, [`requests`] what every other request does.

mod listing;
mod requests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Moment;
use crate::cloud::{Environments, Listed, Listing};
use crate::revision::rotation::Protected;
use crate::routine::{Digest, Revision};

use super::staging::{Staged, Staging};
use super::{MAX_IN_PART, Rules, Wanted};
pub use listing::{Noticed, is_of_every_routine};

/// How long a request that got no answer could still be carried out in the worst case: the service may accept a time
/// stamp that is this old, and a form lives shorter than that.
pub const LATEST: Duration = Duration::from_secs(31 * 60);

/// The pause before what could not be cleared away is looked for again.
const LOOK_AGAIN: Duration = Duration::from_secs(300);

/// The most deleted versions that are remembered to notice one that was published meanwhile.
const MAX_GONE: usize = 64;

/// What a version holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Content {
    /// Code with this digest.
    Holds(Digest),
    /// No code: its upload never finished.
    Nothing,
}

/// Something was sent whose outcome is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Doubt {
    /// From here on it cannot be carried out any more, as far as anybody waits for that.
    pub settled: Moment,
    /// From here on a listing shows what it did; that one lacks it proves nothing before.
    pub shown: Moment,
}

/// What a request without an answer may do much later than anybody waits for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Late {
    /// Make a version of these bytes.
    Upload(Digest),
    /// Put these bytes on staging, over whatever has been put there since.
    Staged(Digest),
    /// Delete this version, so that nothing may rest on it.
    Delete(Revision),
}

/// The form of a version that was made and whose code is not known to have arrived.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Form {
    pub(super) revision: Revision,
    pub(super) digest: Digest,
    description: String,
    /// How often it was posted.
    pub(super) posts: u32,
    /// Whether a post may have arrived.
    pub(super) sent: bool,
    /// Whether its code goes to staging and makes no version.
    pub(super) staging: bool,
}

/// What is known of one routine on the service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Knowledge {
    pub(super) listing: Option<Seen>,
    /// How many listings in a row could not be read whole.
    pub(super) in_part: u32,
    /// What was live where when that was last told.
    live: BTreeMap<String, Revision>,
    pub(super) contents: BTreeMap<Revision, Content>,
    /// Since when a version has been read back without code.
    pub(super) empty_since: BTreeMap<Revision, Moment>,
    /// Whether the listing was taken, or a version added to it, by the present pass.
    pub(super) current: bool,
    /// Whether the listing was taken by the present pass, and after whatever it made.
    pub(super) looked: bool,
    pub(super) doubt: Option<Doubt>,
    late: Vec<(Late, Moment)>,
    pub(super) form: Option<Form>,
    /// Versions that were made here, and when: a listing may be late to show them.
    made: BTreeMap<Revision, (Listed, Moment)>,
    /// Uploads of one digest in a row of which none was proven.
    pub(super) tried: Option<(Digest, u32)>,
    pub(super) saved: BTreeSet<Revision>,
    /// Versions whose deletion was asked for and that may still be listed.
    pub(super) deleted: BTreeMap<Revision, Deleted>,
    /// The last versions that were deleted here.
    gone: Vec<Revision>,
    /// What is still to be put live.
    owed: Option<Owed>,
    /// What was asked to be put live from here, and is not known to be so.
    publishing: BTreeMap<String, Revision>,
    /// The environments that were told to point at a version that is not there.
    pub(super) told_gone: BTreeMap<String, Revision>,
    /// How many of the last listings lacked an environment of which something is known.
    absent: BTreeMap<String, u32>,
    /// What the last listing held.
    known: Option<BTreeSet<Revision>>,
    /// The versions that an earlier run knew, so that those of others are told once.
    earlier: Option<BTreeSet<Revision>>,
    pub(super) protected: Protected,
    /// Why nothing may be deleted for now.
    pub(super) deletes_off: Option<String>,
    /// How many versions went because it was said of an upload of this digest that all slots are taken.
    quota_deletes: Option<(Digest, u32)>,
    /// The service said that all slots are taken, and none was freed since.
    pub(super) room_owed: bool,
    /// What is known of the staging slot beyond what is listed.
    pub(super) staging: Staging,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Seen {
    pub(super) listing: Listing,
    pub(super) at: Moment,
    /// A version was added since; the rest of it may serve as long as nothing is deleted by it.
    pub(super) extended: bool,
    /// Versions that were made here and that the service did not list.
    unlisted: BTreeSet<Revision>,
}

/// What listings showed over time, and none that comes will tell again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Past {
    /// What is live where, by the last listing that told.
    pub live: BTreeMap<String, Revision>,
    /// What was live there before.
    pub was_live: BTreeMap<String, Revision>,
    /// The last versions that were deleted here.
    pub gone: Vec<Revision>,
    /// The version that holds the entry's bytes since the last edit.
    #[serde(default)]
    pub present: Option<Revision>,
    /// What is still to be put live.
    #[serde(default)]
    pub owed: Option<Owed>,
    /// How many of the last listings lacked an environment of which something is known.
    #[serde(default)]
    pub absent: BTreeMap<String, u32>,
    /// What is proven to have been put on staging.
    #[serde(default)]
    pub staged: Option<Staged>,
    /// The versions of the last listing, so that those that others make are told once.
    #[serde(default)]
    pub known: Option<BTreeSet<Revision>>,
}

/// A version that is to be put live where the configuration says so.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Owed {
    /// The version.
    pub revision: Revision,
    /// What was live in an environment at the first try. If that changes, somebody has chosen something else meanwhile.
    pub seen: BTreeMap<String, Option<Revision>>,
}

/// A deletion that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Deleted {
    pub(super) at: Moment,
    /// Whether the service said that it was carried out.
    pub(super) confirmed: bool,
    pub(super) tries: u32,
}

impl Knowledge {
    /// The last listing, with what was uploaded since.
    pub fn listing(&self) -> Option<&Listing> {
        self.listing.as_ref().map(|seen| &seen.listing)
    }

    /// Whether the last listing holds a version.
    pub fn is_listed(&self, revision: &Revision) -> bool {
        let listed = self.listing().into_iter();
        let mut listed = listed.flat_map(|listing| &listing.revisions);
        listed.any(|listed| listed.revision == *revision)
    }

    /// Whether the last listing could not be read whole, which may be a passing trouble.
    pub(super) fn is_seen_in_part(&self) -> bool {
        self.listing().is_some_and(|listing| !listing.whole) && self.in_part < MAX_IN_PART
    }

    /// Whether the present pass took the listing, and after whatever it made.
    pub fn is_current(&self) -> bool {
        self.looked && self.listing.is_some()
    }

    /// How many versions the routine holds, as far as that is known.
    pub fn slots(&self) -> usize {
        self.listing().map_or(0, |listing| listing.revisions.len())
    }

    /// What protects versions beyond the listing.
    pub fn protected(&self) -> &Protected {
        &self.protected
    }

    /// What is in doubt.
    pub fn doubt(&self) -> Option<Doubt> {
        self.doubt
    }

    /// The requests without an answer that could still be carried out, and when they were sent.
    pub fn late(&self) -> &[(Late, Moment)] {
        &self.late
    }

    /// The versions that provably hold something, and what.
    pub fn confirmed(&self) -> impl Iterator<Item = (&Revision, Digest)> {
        self.contents
            .iter()
            .filter_map(|(revision, content)| match content {
                Content::Holds(digest) => Some((revision, *digest)),
                Content::Nothing => None,
            })
    }

    /// What listings showed over time.
    pub fn past(&self) -> Past {
        Past {
            live: self.live.clone(),
            was_live: self.protected.was_live.clone(),
            gone: self.gone.clone(),
            present: self.protected.present.clone(),
            owed: self.owed.clone(),
            absent: self.absent.clone(),
            staged: self.staging.proven,
            known: self.known.as_ref().or(self.earlier.as_ref()).cloned(),
        }
    }

    /// What an earlier run, or another er-dev, saw of that in its last listing.
    pub fn recall_past(&mut self, past: Past) {
        self.live = past.live;
        self.protected.was_live = past.was_live;
        self.gone = past.gone;
        self.gone.truncate(MAX_GONE);
        self.protected.present = past.present;
        self.owed = past.owed;
        self.absent = past.absent;
        self.staging.proven = past.staged;
        self.earlier = past.known;
    }

    /// Whether something is wrong, or still to be done, that only a pass can put right or find mended.
    pub fn wants_a_pass(&self) -> bool {
        self.owed.is_some() || !self.told_gone.is_empty()
    }

    /// When a pass finds everything that uploads without an answer could still make; `None` if there are none.
    pub fn all_come(&self, rules: &Rules, now: Moment) -> Option<Moment> {
        let uploads = self.late.iter();
        let uploads = uploads.filter(|(late, _)| matches!(late, Late::Upload(_)));
        let last = uploads.map(|(_, sent)| *sent + LATEST + rules.lag).max()?;
        Some(if last <= now { now + LOOK_AGAIN } else { last })
    }

    /// Forgets everything that somebody else may have changed since. What was seen to be live stays protected.
    pub fn forget_listing(&mut self) {
        self.listing = None;
    }

    /// A pass begins: what was refused may be tried again.
    pub fn begin(&mut self) {
        // Somebody may have made room, so the service is asked once more.
        self.room_owed = false;
        self.protected.spared.clear();
        // That a version had no code to save is true for the moment only.
        self.saved.clear();
        self.deletes_off = None;
        self.current = false;
        self.looked = false;
        // Code that was missing may have come since.
        self.contents
            .retain(|_, content| *content != Content::Nothing);
    }

    /// These versions were pinned by a person.
    pub fn pin(&mut self, pinned: BTreeSet<Revision>) {
        self.protected.pinned = pinned;
    }

    /// What is live in an environment, by the last listing.
    pub fn live_in(&self, environment: &str) -> Option<&Revision> {
        self.live.get(environment)
    }

    /// This version holds the wanted bytes. If they are the entry's, it stays from now on.
    pub fn stored(&mut self, revision: Revision, wanted: &Wanted) {
        self.tried = None;
        self.quota_deletes = None;
        // Whatever else came of what was in doubt, it is known where the bytes are.
        self.doubt = None;
        if wanted.replaces {
            self.protected.present = Some(revision);
        }
    }

    /// A version is to be put live wherever the configuration says so; what was to be before is overtaken by that.
    pub fn owe(&mut self, revision: Revision) {
        self.owed = Some(Owed {
            revision,
            seen: BTreeMap::new(),
        });
    }

    /// What is still to be put live.
    pub fn owed(&self) -> Option<&Owed> {
        self.owed.as_ref()
    }

    /// Whether somebody has put something else live since the first try to pay what is owed.
    pub fn is_overtaken(&mut self, environment: &str, live: Option<&Revision>) -> bool {
        let Some(owed) = &mut self.owed else {
            return false;
        };
        let seen = owed.seen.entry(environment.to_owned());
        let seen = seen.or_insert_with(|| live.cloned());
        live != seen.as_ref() && live != Some(&owed.revision)
    }

    /// Nothing is owed any more.
    pub fn paid(&mut self) {
        self.owed = None;
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

    /// How old the listing is; `None` without one that was taken whole.
    pub fn listing_age(&self, now: Moment) -> Option<Duration> {
        let seen = self.listing.as_ref().filter(|seen| !seen.extended)?;
        Some(now.since(seen.at))
    }

    /// The version that provably holds the wanted bytes and will go on doing so: a live one before others, then the
    /// newest.
    pub fn holder(&self, wanted: &Wanted) -> Option<&Revision> {
        let holds = |revision: &Revision| match self.contents.get(revision) {
            Some(Content::Holds(digest)) => wanted.accepts(*digest),
            _ => false,
        };
        let mut holders: Vec<&Revision> = self
            .versions()
            .map(|listed| &listed.revision)
            .filter(|revision| !self.is_out(revision, wanted) && holds(revision))
            .collect();
        holders.sort_by_key(|revision| !self.is_live(revision));
        holders.first().copied()
    }

    /// Whether a version does not count, whatever it holds.
    pub(super) fn is_out(&self, revision: &Revision, wanted: &Wanted) -> bool {
        wanted.besides.contains(revision) || self.is_doomed(revision)
    }

    /// The newest numbered version.
    pub fn newest(&self) -> Option<&Revision> {
        self.newest_first().next().map(|listed| &listed.revision)
    }

    /// The numbered versions, the newest first.
    pub fn newest_first(&self) -> impl Iterator<Item = &Listed> {
        self.versions()
            .filter(|listed| listed.revision.number().is_some())
    }

    /// All versions but the staging slot, the newest first. Those whose number cannot be counted come last: how old they
    /// are cannot be told, and they can hold code all the same.
    pub(super) fn versions(&self) -> impl Iterator<Item = &Listed> {
        let listed = self.listing().into_iter();
        let listed = listed.flat_map(|listing| &listing.revisions);
        let mut versions: Vec<&Listed> = listed
            .filter(|listed| !listed.revision.is_staging())
            .collect();
        versions.sort_by_key(|listed| std::cmp::Reverse(listed.revision.number()));
        versions.into_iter()
    }

    fn is_live(&self, revision: &Revision) -> bool {
        match self.listing().map(|listing| &listing.environments) {
            Some(Environments::Known(live)) => {
                live.values().any(|live| live.as_ref() == Some(revision))
            }
            _ => false,
        }
    }
}
