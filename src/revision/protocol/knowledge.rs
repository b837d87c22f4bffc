//! What is known of one routine on the service, and how each thing that happens changes it. Pure.
//!
//! Whoever carries a step out writes down here what came of it; [`super::decide`] reads it. It survives from edit to
//! edit. Losing it costs requests, never code: everything in it can be had again from a listing and from reading back.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Moment;
use crate::cloud::{Environments, Listed, Listing};
use crate::revision::mark::{Instance, Mark};
use crate::revision::rotation::Protected;
use crate::routine::{Digest, Revision};

use super::staging::{self, STAGING, Staged, Staging};
use super::{MAX_IN_PART, Rules, Wanted};

/// How long a request that got no answer could still be carried out in the worst case: the service may accept a time
/// stamp that is this old, and a form lives shorter than that.
pub const LATEST: Duration = Duration::from_secs(31 * 60);

/// The pause before what could not be cleared away is looked for again.
const LOOK_AGAIN: Duration = Duration::from_secs(300);

/// The most requests without an answer that are remembered; beyond it the oldest is forgotten.
const MAX_LATE: usize = 64;

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

/// Something in a listing that is worth telling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Noticed {
    /// A version whose deletion had got no answer is gone.
    Gone(Revision),
    /// A version that this er-dev did not make appeared.
    Foreign {
        /// The version.
        revision: Revision,
        /// Which er-dev made it, if one did.
        by: Option<Instance>,
        /// Whether nothing is known of the time before, so that it may have been there for long.
        first: bool,
    },
    /// Somebody else published a version.
    Republished {
        /// The version.
        revision: Revision,
        /// Where it is live now.
        environment: String,
        /// What was live there before, if anything was.
        before: Option<Revision>,
    },
    /// An environment points at a version that is not there.
    LiveAndGone {
        /// The version.
        revision: Revision,
        /// Where it is live.
        environment: String,
        /// Whether it was deleted here, so that somebody published it in between.
        deleted: bool,
    },
    /// An environment that pointed at a version that was not there does so no more.
    Mended(String),
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
    told_gone: BTreeMap<String, Revision>,
    /// What the last listing held.
    known: Option<BTreeSet<Revision>>,
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
    /// What is proven to have been put on staging.
    #[serde(default)]
    pub staged: Option<Staged>,
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
            staged: self.staging.proven,
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
        self.staging.proven = past.staged;
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

    /// A version is asked to be put live from here. Should the answer be lost, finding it live is no news.
    pub fn publishing(&mut self, environment: &str, revision: &Revision) {
        let (environment, revision) = (environment.to_owned(), revision.clone());
        self.publishing.insert(environment, revision);
    }

    /// What was left of uploads that had no answer is cleared away. Those that can bring nothing any more are forgotten.
    pub fn tidied(&mut self, rules: &Rules, now: Moment) {
        if self.deletes_off.is_some() {
            return;
        }
        self.late.retain(|(late, sent)| {
            matches!(late, Late::Delete(_)) || now.since(*sent) < LATEST + rules.lag
        });
    }

    /// A listing came.
    pub fn listed(&mut self, mut listing: Listing, rules: &Rules, now: Moment) -> Vec<Noticed> {
        let mut noticed = self.notice_live(&listing);
        if !listing.whole {
            self.listed_in_part(listing, now);
            return noticed;
        }
        self.in_part = 0;
        self.look_at_staging(&listing, rules, now);
        noticed.extend(self.notice_foreign(&listing, &rules.instance));
        let mut there: BTreeSet<Revision> = listing
            .revisions
            .iter()
            .map(|listed| listed.revision.clone())
            .collect();
        for (revision, deleted) in std::mem::take(&mut self.deleted) {
            if there.contains(&revision) {
                if deleted.confirmed || now.since(deleted.at) < LATEST {
                    self.deleted.insert(revision, deleted);
                } else {
                    self.protected.worthless.remove(&revision);
                }
            } else {
                self.remember_gone(revision.clone());
                if !deleted.confirmed {
                    noticed.push(Noticed::Gone(revision));
                }
            }
        }
        self.made
            .retain(|_, (_, made)| now.since(*made) < rules.lag);
        let mut unlisted = BTreeSet::new();
        for (revision, (listed, _)) in &self.made {
            if there.insert(revision.clone()) {
                listing.revisions.push(listed.clone());
                unlisted.insert(revision.clone());
                // Either the listing is late or somebody deleted it; reading back tells.
                self.contents.remove(revision);
            }
        }
        self.contents.retain(|revision, _| there.contains(revision));
        self.empty_since
            .retain(|revision, _| there.contains(revision));
        self.protected
            .worthless
            .retain(|revision| there.contains(revision));
        self.saved.retain(|revision| there.contains(revision));
        self.known = Some(there);
        (self.current, self.looked) = (true, true);
        self.doubt = self.doubt.filter(|doubt| now < doubt.shown);
        self.late.retain(|(late, sent)| match late {
            // An upload is remembered until somebody has looked for what it left.
            Late::Upload(_) => true,
            Late::Staged(_) => now.since(*sent) < LATEST + rules.lag,
            Late::Delete(_) if now.since(*sent) < LATEST => true,
            Late::Delete(stays) => {
                // It counts again.
                self.protected.worthless.remove(stays);
                false
            }
        });
        self.listing = Some(Seen {
            listing,
            at: now,
            extended: false,
            unlisted,
        });
        noticed
    }

    /// A listing came of which something could not be read: what it lacks may be there.
    fn listed_in_part(&mut self, mut listing: Listing, now: Moment) {
        self.in_part = self.in_part.saturating_add(1);
        for (revision, (listed, _)) in &self.made {
            if !listing.revisions.iter().any(|l| l.revision == *revision) {
                listing.revisions.push(listed.clone());
            }
        }
        (self.current, self.looked) = (true, true);
        self.listing = Some(Seen {
            listing,
            at: now,
            extended: false,
            unlisted: BTreeSet::new(),
        });
    }

    fn notice_live(&mut self, listing: &Listing) -> Vec<Noticed> {
        let Environments::Known(live) = &listing.environments else {
            return Vec::new();
        };
        let mut noticed = Vec::new();
        for (environment, revision) in live {
            let before = self.live.get(environment).cloned();
            if before != *revision {
                self.set_live(environment, revision.clone());
                // What was live before er-dev first looked is no news.
                let ours = self.publishing.remove(environment);
                let news = (before.is_some() || self.known.is_some()) && ours != *revision;
                if let Some(revision) = revision.clone().filter(|_| news) {
                    noticed.push(Noticed::Republished {
                        revision,
                        environment: environment.clone(),
                        before,
                    });
                }
            }
            let told = self.told_gone.get(environment).cloned();
            match revision.as_ref().filter(|live| self.is_gone(live, listing)) {
                Some(revision) if told.as_ref() != Some(revision) => {
                    let environment = environment.clone();
                    self.told_gone.insert(environment.clone(), revision.clone());
                    noticed.push(Noticed::LiveAndGone {
                        revision: revision.clone(),
                        environment,
                        deleted: self.was_deleted(revision),
                    });
                }
                None if told.is_some() => {
                    self.told_gone.remove(environment);
                    noticed.push(Noticed::Mended(environment.clone()));
                }
                _ => {}
            }
        }
        noticed
    }

    /// A version was published from here, so that finding it live is no news.
    pub fn published(&mut self, environment: &str, revision: &Revision) {
        self.publishing.remove(environment);
        if self.live.get(environment) != Some(revision) {
            self.set_live(environment, Some(revision.clone()));
        }
    }

    fn set_live(&mut self, environment: &str, revision: Option<Revision>) {
        let before = match revision {
            Some(revision) => self.live.insert(environment.to_owned(), revision),
            None => self.live.remove(environment),
        };
        if let Some(before) = before {
            self.protected
                .was_live
                .insert(environment.to_owned(), before);
        }
    }

    fn was_deleted(&self, revision: &Revision) -> bool {
        self.gone.contains(revision) || self.deleted.contains_key(revision)
    }

    /// Whether a version is not there any more, or soon will not be.
    fn is_gone(&self, revision: &Revision, listing: &Listing) -> bool {
        let mut listed = listing.revisions.iter().map(|listed| &listed.revision);
        let known = listed.any(|it| it == revision) || self.made.contains_key(revision);
        self.was_deleted(revision) || listing.whole && revision.number().is_some() && !known
    }

    fn notice_foreign(&self, listing: &Listing, instance: &Instance) -> Vec<Noticed> {
        let mut noticed = Vec::new();
        for listed in &listing.revisions {
            let revision = &listed.revision;
            let known = self
                .known
                .as_ref()
                .is_some_and(|known| known.contains(revision));
            let by = Mark::read(&listed.description).map(|mark| mark.instance);
            let ours = by.as_ref() == Some(instance) || self.made.contains_key(revision);
            if !known && !ours && revision.number().is_some() {
                noticed.push(Noticed::Foreign {
                    revision: revision.clone(),
                    by,
                    first: self.known.is_none(),
                });
            }
        }
        noticed
    }

    /// A version's code was read.
    pub fn read_back(&mut self, revision: Revision, content: Content, rules: &Rules, now: Moment) {
        match content {
            Content::Holds(_) => {
                self.empty_since.remove(&revision);
                self.protected.worthless.remove(&revision);
                if self
                    .form
                    .as_ref()
                    .is_some_and(|form| form.revision == revision)
                {
                    self.form = None;
                }
            }
            Content::Nothing => {
                let since = *self.empty_since.entry(revision.clone()).or_insert(now);
                if now.since(since) >= rules.lag {
                    self.protected.worthless.insert(revision.clone());
                }
            }
        }
        self.contents.insert(revision, content);
    }

    /// The service does not know a version that it listed, or that was made here.
    pub fn not_there(&mut self, revision: Revision, rules: &Rules, now: Moment) {
        let unlisted = self
            .listing
            .as_ref()
            .is_some_and(|seen| seen.unlisted.contains(&revision));
        if unlisted {
            self.read_back(revision, Content::Nothing, rules, now);
        } else {
            self.listing = None;
        }
    }

    /// A version was confirmed by an earlier run. What is not listed any more is forgotten with the next listing.
    pub fn remember_confirmed(&mut self, revision: Revision, digest: Digest) {
        self.contents
            .entry(revision)
            .or_insert(Content::Holds(digest));
    }

    /// The service gave a version and the form to post its code with.
    pub fn begun(&mut self, revision: Revision, description: String, digest: Digest, now: Moment) {
        self.tried = Some((digest, self.tries(digest) + 1));
        self.form = Some(Form {
            revision: revision.clone(),
            digest,
            description: description.clone(),
            posts: 0,
            sent: false,
            staging: false,
        });
        self.made(revision, description, now);
    }

    /// The service gave a form to post code with that is to run on staging, and named this with it.
    pub fn begun_on_staging(&mut self, named: Revision, description: String, digest: Digest) {
        self.tried = Some((digest, self.tries(digest) + 1));
        self.form = Some(Form {
            revision: named,
            digest,
            description,
            posts: 0,
            sent: false,
            staging: true,
        });
        (self.current, self.looked) = (true, false);
    }

    /// The service confirmed that it has the posted code, and runs it on staging from now on.
    pub fn staged(&mut self, digest: Digest, now: Moment) {
        self.staging.proven = Some(Staged { digest, at: now });
        let Some(form) = self.form.take() else {
            return;
        };
        if self.live.contains_key(STAGING) {
            self.set_live(STAGING, None);
        }
        if form.revision.number().is_some() {
            // Where each staging upload is a version of its own, finding it live is no news.
            self.publishing(STAGING, &form.revision);
        }
        if let Some(seen) = &mut self.listing {
            staging::put(&mut seen.listing, form.description);
            seen.extended = true;
        }
        (self.current, self.looked) = (true, false);
    }

    /// What is about to be committed is tried once more.
    pub fn committing(&mut self, digest: Digest) {
        self.tried = Some((digest, self.tries(digest) + 1));
    }

    /// A version was made, which the listing may lack.
    pub fn made(&mut self, revision: Revision, description: String, now: Moment) {
        let listed = Listed {
            revision: revision.clone(),
            created: None,
            description,
        };
        if let Some(seen) = &mut self.listing
            && !seen
                .listing
                .revisions
                .iter()
                .any(|there| there.revision == revision)
        {
            seen.listing.revisions.push(listed.clone());
            seen.extended = true;
        }
        self.made.insert(revision, (listed, now));
        (self.current, self.looked) = (true, false);
    }

    /// The code of the version that was begun is about to be posted. That it had none before tells nothing any more.
    pub fn posting(&mut self) {
        if let Some(form) = &mut self.form {
            form.posts += 1;
            form.sent = true;
            self.contents.remove(&form.revision);
            self.empty_since.remove(&form.revision);
            self.protected.worthless.remove(&form.revision);
        }
    }

    /// The service confirmed that it has the posted code.
    pub fn proven(&mut self, revision: Revision, digest: Digest, now: Moment) {
        // Where a version takes its slot when its code arrives, no listing could show it before.
        if let Some(form) = self.form.take().filter(|form| form.revision == revision) {
            self.made(revision.clone(), form.description, now);
        }
        self.contents.insert(revision, Content::Holds(digest));
    }

    /// The post did not leave this machine, or was refused without being looked at: the form is as good as before, but
    /// the version has no code yet.
    pub fn not_posted(&mut self, now: Moment) {
        if let Some(form) = &mut self.form {
            form.posts = form.posts.saturating_sub(1);
            form.sent = form.posts > 0;
            let left = Late::Upload(form.digest);
            self.may_come_late(left, now);
        }
    }

    /// The form cannot be used any more; the version it was for may be left without code.
    pub fn form_ended(&mut self, now: Moment) {
        if let Some(form) = self.form.take() {
            self.may_come_late(Late::Upload(form.digest), now);
        }
    }

    /// Uploads of these bytes so far of which none was proven.
    pub fn tries(&self, digest: Digest) -> u32 {
        match self.tried {
            Some((tried, tries)) if tried == digest => tries,
            _ => 0,
        }
    }

    /// Uploads of these bytes may be tried anew although none has been proven so far.
    pub fn try_anew(&mut self) {
        self.tried = None;
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

    /// Something was sent whose outcome is not known. What was listed before cannot tell.
    pub fn in_doubt(&mut self, doubt: Doubt) {
        self.listing = None;
        let known = self.doubt.unwrap_or(doubt);
        self.doubt = Some(Doubt {
            settled: known.settled.max(doubt.settled),
            shown: known.shown.max(doubt.shown),
        });
    }

    /// What is in doubt by the record that all er-dev of this machine keep. One that closed it knows the outcome.
    pub fn recall_doubt(&mut self, doubt: Option<Doubt>) {
        if doubt.is_some() {
            self.listing = None;
        }
        self.doubt = doubt;
    }

    /// What was sent in doubt may be carried out late.
    pub fn may_come_late(&mut self, late: Late, sent: Moment) {
        self.late.retain(|(known, _)| *known != late);
        if let Late::Delete(doomed) = &late {
            self.protected.worthless.insert(doomed.clone());
        }
        if self.late.len() >= MAX_LATE {
            self.late.remove(0);
        }
        self.late.push((late, sent));
    }

    /// The service said of an upload of these bytes that all slots are taken.
    pub fn quota_hit(&mut self, digest: Digest) {
        self.quota_deletes = Some((digest, self.quota_deletes(digest)));
        self.room_owed = true;
        self.listing = None;
    }

    pub(super) fn quota_deletes(&self, digest: Digest) -> u32 {
        match self.quota_deletes {
            Some((of, deletes)) if of == digest => deletes,
            _ => 0,
        }
    }

    /// What a version was read to hold is to be read anew.
    pub fn doubt_content(&mut self, revision: &Revision) {
        self.contents.remove(revision);
    }

    /// Whether a version has been without code for so long that none will come.
    pub fn is_empty_for_good(&self, revision: &Revision) -> bool {
        self.contents.get(revision) == Some(&Content::Nothing)
            && self.protected.worthless.contains(revision)
    }

    /// A version's code lies in the vault, or it has none to save.
    pub fn saved(&mut self, revision: Revision) {
        self.saved.insert(revision);
    }

    /// A version cannot be saved or deleted for now; the next oldest is tried.
    pub fn spare(&mut self, revision: Revision, reason: String) {
        self.protected.spared.insert(revision, reason);
    }

    /// Nothing can be deleted in this pass, for this reason.
    pub fn no_deletes(&mut self, reason: String) {
        self.deletes_off = Some(reason);
    }

    /// A deletion was asked for and may have been carried out. `confirmed` tells whether the service said so.
    pub fn deleted(&mut self, revision: Revision, confirmed: bool, now: Moment) {
        let tries = self.deleted.get(&revision).map_or(0, |d| d.tries);
        let deleted = Deleted {
            at: now,
            confirmed,
            tries: tries + 1,
        };
        self.made.remove(&revision);
        self.protected.worthless.insert(revision.clone());
        self.deleted.insert(revision, deleted);
        if let Some((_, deletes)) = self.quota_deletes.as_mut().filter(|_| self.room_owed) {
            *deletes += 1;
        }
        self.room_owed = false;
        self.listing = None;
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

    /// How often a version's deletion was asked for that is still listed.
    pub fn delete_tries(&self, revision: &Revision) -> u32 {
        self.deleted.get(revision).map_or(0, |d| d.tries)
    }

    /// Whether the service confirmed that a version is deleted, and it is still listed.
    pub fn is_deleted(&self, revision: &Revision) -> bool {
        self.deleted.get(revision).is_some_and(|d| d.confirmed)
    }

    /// Whether a version's deletion was asked for and may still be carried out.
    pub fn is_doomed(&self, revision: &Revision) -> bool {
        self.deleted.contains_key(revision)
            || self
                .late
                .iter()
                .any(|(late, _)| matches!(late, Late::Delete(doomed) if doomed == revision))
    }

    /// Whether a version is one that an upload in doubt may have made, now or long after it was sent.
    pub(super) fn is_suspect(&self, mark: &Mark, instance: &Instance) -> bool {
        mark.instance == *instance
            && self
                .late
                .iter()
                .any(|(late, _)| matches!(late, Late::Upload(digest) | Late::Staged(digest) if mark.is_for(*digest)))
    }

    pub(super) fn has_suspects(&self) -> bool {
        self.late
            .iter()
            .any(|(late, _)| matches!(late, Late::Upload(_) | Late::Staged(_)))
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

    fn remember_gone(&mut self, revision: Revision) {
        if self.gone.len() >= MAX_GONE {
            self.gone.remove(0);
        }
        self.gone.push(revision);
    }
}
