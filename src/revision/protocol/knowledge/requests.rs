//! What came of a request, or may still come of it: uploads, readings, deletions, and those without an answer. Pure.

use crate::clock::Moment;
use crate::cloud::Listed;
use crate::revision::mark::{Instance, Mark};
use crate::routine::{Digest, Revision};

use crate::revision::protocol::staging::{self, STAGING, Staged};

use super::{Content, Deleted, Doubt, Form, Knowledge, LATEST, Late, Rules};

/// The most requests without an answer that are remembered; beyond it the oldest is forgotten.
const MAX_LATE: usize = 64;

impl Knowledge {
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

    pub(in super::super) fn quota_deletes(&self, digest: Digest) -> u32 {
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
    pub(in super::super) fn is_suspect(&self, mark: &Mark, instance: &Instance) -> bool {
        mark.instance == *instance
            && self
                .late
                .iter()
                .any(|(late, _)| matches!(late, Late::Upload(digest) | Late::Staged(digest) if mark.is_for(*digest)))
    }

    pub(in super::super) fn has_suspects(&self) -> bool {
        self.late
            .iter()
            .any(|(late, _)| matches!(late, Late::Upload(_) | Late::Staged(_)))
    }
}
