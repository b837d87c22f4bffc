//! Carries out one step of the protocol, and writes down what came of it before anything else is done.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::clock::{self, Moment};
use crate::cloud::error::{Class, CloudError};
use crate::cloud::{Environments, Fetched, Listing};
use crate::config::{Upload, Verify};
use crate::revision::intent::Intent;
use crate::revision::mark::Mark;
use crate::revision::protocol::{Blocked, Content, Doubt, Late, MAX_DELETES, Rules, Step, Why};
use crate::revision::rotation::{Protected, Refusal, why_the_oldest};
use crate::revision::vault::{Kept, SaveError};
use crate::routine::{Code, Digest, Revision};

use super::{DeployError, Happened, Pass, Session, Trouble, age_of};

/// The longest time between asking for a listing and sending a deletion that rests on it. Usually it is some hundredths
/// of a second.
const LONGEST_LOOK: Duration = Duration::from_secs(2);

/// Why a second version of the same bytes goes.
const SAME_BYTES: &str = "a newer version holds the same bytes";

/// How often a pass looks again because that took longer.
const MAX_SLOW_LOOKS: u32 = 3;

/// How often the code of a version is asked for in vain, over all passes, before the next oldest is looked at.
const MAX_READS: u32 = 3;

impl Session {
    /// Whether code is what a version's mark says; one without a mark says nothing.
    fn is_as_marked(&self, revision: &Revision, code: &Code) -> bool {
        let listed = self.knowledge.listing().into_iter();
        let mut listed = listed.flat_map(|listing| &listing.revisions);
        let listed = listed.find(|listed| listed.revision == *revision);
        let mark = listed.and_then(|listed| Mark::read(&listed.description));
        mark.is_none_or(|mark| mark.fits(code))
    }

    /// Why this version goes and none of the older ones.
    fn why_this_one(&self, revision: &Revision) -> String {
        let Some(listing) = self.knowledge.listing() else {
            return String::new();
        };
        // An edit that needs the room takes what held the bytes before it for a version like any other.
        let protected = self.knowledge.protected();
        let without = Protected {
            present: None,
            ..protected.clone()
        };
        let policy = self.policy();
        let is_victim = |protected: &&Protected| match policy.victim(listing, protected) {
            Ok(Some(oldest)) => oldest.revision == *revision,
            _ => false,
        };
        match [protected, &without].into_iter().find(is_victim) {
            Some(protected) => {
                why_the_oldest(&policy.older_that_stay(listing, protected, revision))
            }
            None => SAME_BYTES.into(),
        }
    }
}

impl Pass<'_> {
    pub(super) async fn carry_out(&mut self, step: Step) -> Result<(), DeployError> {
        match step {
            Step::Wait(until) => Err(DeployError::Unsettled(until)),
            Step::Blocked(blocked) => {
                let knowledge = &mut self.session.knowledge;
                // The next pass comes after a long pause, and then the service may do better.
                match &blocked {
                    Blocked::Fruitless => knowledge.try_anew(),
                    Blocked::OtherBytes(revision) => {
                        knowledge.doubt_content(revision);
                        self.write_down();
                        self.happened.push(Happened::OtherBytes(revision.clone()));
                    }
                    _ => {}
                }
                Err(blocked.into())
            }
            Step::List => self.list().await,
            Step::ReadBack(revision) => self.read_back(revision).await,
            Step::Save(revision) if self.session.settings.dry_run => {
                self.session.knowledge.saved(revision);
                Ok(())
            }
            Step::Delete(revision, _) if self.session.settings.dry_run => {
                let reason = self.session.why_this_one(&revision);
                let detail = format!("{revision}: {reason}");
                self.happened.push(Happened::Planned("rotate", detail));
                self.session.knowledge.pretend_deleted(&revision);
                Ok(())
            }
            Step::Save(revision) => self.save(revision).await,
            Step::Delete(revision, why) => self.delete(revision, why).await,
            Step::Upload
            | Step::Stage
            | Step::Commit
            | Step::Post(_)
            | Step::Stored(_)
            | Step::AtRest => Ok(()),
        }
    }

    pub(super) async fn list(&mut self) -> Result<(), DeployError> {
        self.calls += 1;
        let cloud = Arc::clone(&self.session.cloud);
        let permit = cloud.permit().await;
        self.asked = clock::now();
        match cloud.list(permit, &self.session.routine.name).await {
            Ok(listing) => {
                self.listed(listing);
                Ok(())
            }
            Err(error) if self.may_ask_again(&error) => Ok(()),
            Err(error) if error.class == Class::Gone && self.session.routine.create => {
                self.create().await
            }
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn listed(&mut self, listing: Listing) {
        let rules = &self.session.settings.rules;
        let noticed = self.session.knowledge.listed(listing, rules, clock::now());
        for noticed in noticed {
            self.notice(noticed);
        }
        self.write_down();
    }

    /// Makes the missing routine; the next step lists it.
    async fn create(&mut self) -> Result<(), DeployError> {
        let name = self.session.routine.name.clone();
        if self.session.settings.dry_run {
            self.happened
                .push(Happened::Planned("create", name.to_string()));
            self.listed(Listing {
                revisions: Vec::new(),
                environments: Environments::Unknown("the routine does not exist yet".into()),
                whole: true,
            });
            return Ok(());
        }
        self.calls += 1;
        self.session.cloud.create(&name).await?;
        self.happened.push(Happened::Created);
        Ok(())
    }

    async fn read_back(&mut self, revision: Revision) -> Result<(), DeployError> {
        self.calls += 1;
        let session = &mut *self.session;
        let fetched = session.cloud.fetch(&session.routine.name, &revision).await;
        let (rules, now) = (&session.settings.rules, clock::now());
        match fetched {
            Ok(fetched) => {
                let content = match fetched {
                    Fetched::Code(code) => Content::Holds(code.digest()),
                    Fetched::Nothing => Content::Nothing,
                };
                if revision.is_staging() {
                    session.knowledge.read_staging(content);
                    self.write_down();
                    return Ok(());
                }
                session.knowledge.read_back(revision, content, rules, now);
                self.write_down();
                Ok(())
            }
            Err(error) if revision.is_staging() && is_final(&error) => {
                // Either it has just gone, or the service lists it and gives no code for it.
                if self.missed.insert(revision) {
                    session.knowledge.forget_listing();
                } else {
                    session.knowledge.staging_is_unreadable();
                }
                Ok(())
            }
            Err(error) if error.class == Class::Gone => {
                if self.missed.insert(revision.clone()) {
                    session.knowledge.not_there(revision, rules, now);
                } else {
                    // It is listed all the time, and there is nothing behind it.
                    let nothing = Content::Nothing;
                    session.knowledge.read_back(revision, nothing, rules, now);
                }
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Saves a version's code. One whose code cannot be read, or cannot be written although others could, stays, and the
    /// next oldest is looked at; where none could be written, nothing is deleted at all.
    async fn save(&mut self, revision: Revision) -> Result<(), DeployError> {
        let Some(fetched) = self.fetch_to_save(&revision).await else {
            self.spare(
                revision,
                "the service gives other code for it each time".into(),
            );
            return Ok(());
        };
        let session = &mut *self.session;
        let code = match fetched {
            Ok(Fetched::Code(code)) => Some(code),
            Ok(Fetched::Nothing) => {
                let (rules, now) = (&session.settings.rules, clock::now());
                let knowledge = &mut session.knowledge;
                knowledge.read_back(revision.clone(), Content::Nothing, rules, now);
                if !knowledge.is_empty_for_good(&revision) {
                    self.spare(revision, "the service gives no code for it".into());
                    return Ok(());
                }
                None
            }
            // It was deleted here, and is listed for longer than is usual.
            Err(error) if error.class == Class::Gone && session.knowledge.is_deleted(&revision) => {
                session.knowledge.deleted(revision, true, clock::now());
                self.write_down();
                return Ok(());
            }
            // Somebody deleted it, unless the next listing has it again.
            Err(error) if error.class == Class::Gone && self.missed.insert(revision.clone()) => {
                session.knowledge.forget_listing();
                return Ok(());
            }
            Err(error) if is_final(&error) || self.is_read_in_vain(&revision, &error) => {
                self.spare(revision, format!("its code could not be read: {error}"));
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        let session = &mut *self.session;
        session.unread.remove(&revision);
        let Some(listing) = session.knowledge.listing() else {
            return Ok(());
        };
        let mut listed = listing.revisions.iter();
        if let Some(listed) = listed.find(|listed| listed.revision == revision) {
            let (environments, now) = (&listing.environments, jiff::Timestamp::now());
            let reason = session.why_this_one(&revision);
            let kept = Kept::new(listed, environments, code.as_ref(), reason, now);
            match session.vault.save(&kept, code.as_ref()) {
                Ok(()) => {}
                Err(SaveError::Version(error)) => {
                    self.spare(revision, format!("its code could not be saved: {error}"));
                    return Ok(());
                }
                Err(SaveError::Place(error)) => {
                    self.do_with_less(Trouble::Vault(format!(
                        "the code of version {revision} could not be saved: {error}"
                    )));
                    return Ok(());
                }
            }
            if matches!(session.trouble, Some(Trouble::Vault(_))) {
                session.trouble = None;
            }
        }
        session.knowledge.saved(revision);
        Ok(())
    }

    /// Reads the code of a version that is about to be deleted. Where it is not what its mark says it is read once more;
    /// `None` if that gives something else, so that nobody knows what is to be saved.
    async fn fetch_to_save(&mut self, revision: &Revision) -> Option<Result<Fetched, CloudError>> {
        let (session, calls) = (&*self.session, &mut self.calls);
        let mut fetch = async || {
            *calls += 1;
            session.fetch(revision).await
        };
        let first = fetch().await;
        match &first {
            Ok(Fetched::Code(code)) if !session.is_as_marked(revision, code) => {
                let second = fetch().await;
                let differs = matches!((&first, &second), (Ok(one), Ok(other)) if one != other);
                (!differs).then_some(second)
            }
            _ => Some(first),
        }
    }

    /// Counts an answer without the code of a version. One that is never given must not keep the others from going.
    fn is_read_in_vain(&mut self, revision: &Revision, error: &CloudError) -> bool {
        if !error.answered || error.class != Class::Ambiguous {
            return false;
        }
        let unread = &mut self.session.unread;
        let knowledge = &self.session.knowledge;
        unread.retain(|unread, _| knowledge.is_listed(unread));
        let tries = unread.entry(revision.clone()).or_default();
        *tries += 1;
        *tries >= MAX_READS
    }

    async fn delete(&mut self, revision: Revision, why: Why) -> Result<(), DeployError> {
        let patience = self.session.settings.timeouts.api + self.session.settings.margin;
        let intent = Intent::Delete {
            revision: revision.clone(),
        };
        let cloud = Arc::clone(&self.session.cloud);
        let permit = cloud.urgent_permit().await;
        // The answer tells what was so at some moment after it was asked for, and this clock goes on while the machine
        // is suspended.
        if clock::now().since(self.asked) > LONGEST_LOOK {
            self.session.knowledge.forget_listing();
            self.slow_looks += u32::from(self.asked > Moment::BOOT);
            if self.slow_looks >= MAX_SLOW_LOOKS {
                let reason = "the service takes too long to tell what is live".to_owned();
                return Err(Blocked::Refused(Refusal::Off(reason)).into());
            }
            return Ok(());
        }
        if !self.note(intent.clone(), patience) {
            return Ok(());
        }
        let sent = clock::now();
        self.calls += 1;
        let session = &mut *self.session;
        let reason = match why {
            Why::Oldest => format!("{}; kept in the vault", session.why_this_one(&revision)),
            Why::Orphan => "its code never arrived".to_owned(),
            Why::Duplicate => format!("{SAME_BYTES}; kept in the vault"),
        };
        let outcome = cloud.delete(permit, &session.routine.name, &revision).await;
        let now = clock::now();
        match outcome {
            Ok(()) => {
                if matches!(session.trouble, Some(Trouble::Permission(_))) {
                    session.trouble = None;
                }
                let told = session.knowledge.is_deleted(&revision);
                session.knowledge.deleted(revision.clone(), true, now);
                // One that is listed after all is deleted once more, which is no news.
                if !told {
                    self.happened.push(rotated(revision, &reason));
                }
            }
            // Somebody else deleted it, which is as good.
            Err(error) if error.class == Class::Gone => {
                session.knowledge.deleted(revision, true, now);
            }
            Err(error) if error.is_permission() => {
                session.knowledge.forget_listing();
                self.do_with_less(Trouble::Permission(error));
            }
            Err(error) if matches!(error.class, Class::Permanent | Class::UnknownServer) => {
                session.knowledge.forget_listing();
                self.spare(revision, format!("its deletion was refused: {error}"));
            }
            Err(error) if self.may_ask_again(&error) => {}
            Err(error) => {
                let knowledge = &mut self.session.knowledge;
                if error.class == Class::Ambiguous {
                    knowledge.deleted(revision.clone(), false, now);
                }
                if error.answered && knowledge.delete_tries(&revision) >= MAX_DELETES {
                    // One that cannot be deleted must not keep the others from going.
                    knowledge.may_come_late(intent.late(), sent);
                    knowledge.forget_listing();
                    self.spare(revision, format!("its deletion did not succeed: {error}"));
                    self.write_down();
                    return Ok(());
                }
                return self.doubtful(error, &intent, sent, patience);
            }
        }
        self.write_down();
        Ok(())
    }

    /// Whether a request was refused only because of this machine's clock, which is right now: the protocol is asked
    /// again what to do, once in a pass.
    fn may_ask_again(&mut self, error: &CloudError) -> bool {
        error.clock_set && !std::mem::replace(&mut self.clock_set, true)
    }

    /// Lets a version stay in this pass. Why is told once, and not with each edit.
    fn spare(&mut self, revision: Revision, reason: String) {
        let Session {
            knowledge, spared, ..
        } = &mut *self.session;
        knowledge.spare(revision.clone(), reason.clone());
        spared.retain(|spared, _| knowledge.listing().is_none() || knowledge.is_listed(spared));
        if spared.insert(revision.clone(), reason.clone()).as_ref() == Some(&reason) {
            tracing::info!(%revision, reason, "stays, as before");
        } else {
            self.happened.push(Happened::Spared(revision, reason));
        }
    }

    /// The first step of an upload. From here on there may be a version without code.
    pub(super) async fn upload(&mut self, code: &Code, to: Upload) -> Result<(), DeployError> {
        let sha256 = code.digest();
        let patience = self.session.settings.timeouts.api + self.session.settings.margin;
        let intent = match to {
            Upload::Revision => Intent::Upload { sha256 },
            Upload::Staging => Intent::Stage { sha256 },
        };
        let cloud = Arc::clone(&self.session.cloud);
        let description = self.session.describe(code).await;
        let permit = cloud.permit().await;
        self.note(intent.clone(), patience);
        let sent = clock::now();
        self.calls += 1;
        let session = &mut *self.session;
        let name = &session.routine.name;
        let begun = match to {
            Upload::Revision => cloud.begin_upload(permit, name, &description).await,
            Upload::Staging => cloud.begin_staging(permit, name, &description).await,
        };
        // An answer that cannot be used may have made a version all the same.
        let unmade = |error: &CloudError| match error.class {
            Class::Ambiguous => false,
            Class::Permanent => error.code.is_some(),
            _ => true,
        };
        if !begun.as_ref().is_err_and(unmade) {
            session.sent = Some(sha256);
        }
        match begun {
            Ok((revision, form)) => {
                let (now, knowledge) = (clock::now(), &mut session.knowledge);
                match to {
                    Upload::Revision => knowledge.begun(revision.clone(), description, sha256, now),
                    Upload::Staging => {
                        knowledge.begun_on_staging(revision.clone(), description, sha256);
                    }
                }
                // It is written down together with the post that follows.
                session.form = Some((revision, form));
                Ok(())
            }
            Err(error) => self.not_made(error, sha256, &intent, sent, patience),
        }
    }

    /// A request that was to make a version did not succeed.
    pub(super) fn not_made(
        &mut self,
        error: CloudError,
        sha256: Digest,
        intent: &Intent,
        sent: Moment,
        patience: Duration,
    ) -> Result<(), DeployError> {
        let session = &mut *self.session;
        let refused = error.code.is_some() && error.class == Class::Permanent;
        if is_quota(&error, session.knowledge.slots(), &session.settings.rules) {
            session.knowledge.quota_hit(sha256);
        } else if refused && !session.mark_only {
            // How long a description may be is not documented; the mark is what matters of it.
            tracing::info!(%error, "refused with a description; the next try has only the mark");
            session.mark_only = true;
        } else if !self.may_ask_again(&error) {
            return self.doubtful(error, intent, sent, patience);
        }
        self.write_down();
        Ok(())
    }

    /// The second step of an upload.
    pub(super) async fn post(
        &mut self,
        revision: Revision,
        code: &Code,
    ) -> Result<(), DeployError> {
        let form = self.session.form.as_ref();
        let Some((_, form)) = form.filter(|(of, _)| *of == revision) else {
            self.session.knowledge.form_ended(clock::now());
            return Ok(());
        };
        let (form, sha256) = (form.clone(), code.digest());
        let patience = self.session.settings.timeouts.post_of(code) + self.session.settings.margin;
        let staging = self.session.knowledge.has_staging_form();
        let intent = if staging {
            Intent::PostStaged { sha256 }
        } else {
            Intent::Post {
                revision: revision.clone(),
                sha256,
            }
        };
        self.note(intent.clone(), patience);
        let sent = clock::now();
        let session = &mut *self.session;
        session.knowledge.posting();
        let posted = session.cloud.post(&form, code).await;
        let now = clock::now();
        match posted {
            Ok(()) => {
                let verify = session.settings.verify == Verify::Always;
                let knowledge = &mut session.knowledge;
                match (staging, verify) {
                    (false, true) => {}
                    // What was listed before cannot tell what is there now.
                    (true, true) if !knowledge.is_staging_unreadable() => {
                        knowledge.forget_listing();
                    }
                    (true, _) => {
                        knowledge.staged(sha256, now);
                        session.form = None;
                    }
                    (false, false) => {
                        knowledge.proven(revision, sha256, now);
                        session.form = None;
                    }
                }
                self.write_down();
                Ok(())
            }
            Err(mut error) => {
                // One new upload, and no more of them.
                if error.is_of_unknown_signer() && session.knowledge.tries(sha256) > 1 {
                    error.class = Class::Permanent;
                }
                match error.class {
                    Class::Ambiguous => {}
                    Class::NotSent | Class::Throttled => session.knowledge.not_posted(now),
                    _ => {
                        session.knowledge.form_ended(now);
                        session.form = None;
                    }
                }
                if error.class == Class::FormExpired {
                    self.last_error = Some(error);
                    self.write_down();
                    return Ok(());
                }
                self.doubtful(error, &intent, sent, patience)
            }
        }
    }

    /// A listing tells what became of a request in doubt. One that got an answer, even a useless one, has been carried
    /// out or not by now, and may only be late to show; one without could still be carried out.
    pub(super) fn doubtful(
        &mut self,
        error: CloudError,
        intent: &Intent,
        sent: Moment,
        patience: Duration,
    ) -> Result<(), DeployError> {
        let lag = self.session.settings.rules.lag;
        let knowledge = &mut self.session.knowledge;
        if error.class != Class::Ambiguous {
            if error.class == Class::Permanent {
                // The answer may have named a version although it was of no use.
                knowledge.may_come_late(intent.late(), sent);
            }
            knowledge.forget_listing();
            self.write_down();
            return Err(error.into());
        }
        let late = match intent.late() {
            // It has been answered, so nothing of it comes to lie over what is there later.
            Late::Staged(digest) if error.answered => Late::Upload(digest),
            late => late,
        };
        knowledge.may_come_late(late, sent);
        let now = clock::now();
        let (settled, shown) = if error.answered {
            (now, now + lag)
        } else {
            (sent + patience, sent + patience)
        };
        knowledge.in_doubt(Doubt { settled, shown });
        self.write_down();
        if error.answered {
            self.last_error = Some(error);
            Ok(())
        } else {
            Err(error.into())
        }
    }

    /// Writes down what is sent now, with the permit in hand so that nothing is waited for any more, and counts this
    /// pass as one that changes something, once and before the first change. `false` if that did not work, and then
    /// nothing may be deleted.
    pub(super) fn note(&mut self, intent: Intent, patience: Duration) -> bool {
        let counted = self.count_change();
        let session = &mut *self.session;
        let now = clock::now();
        let noted = session
            .journal
            .open(intent, patience, &session.knowledge, now);
        self.judge(counted.and(noted))
    }

    /// Writes down what is known now.
    pub(super) fn write_down(&mut self) {
        let session = &mut *self.session;
        let written = session.journal.update(&session.knowledge);
        self.judge(written);
    }

    fn judge(&mut self, written: std::io::Result<()>) -> bool {
        if let Err(error) = &written {
            self.do_with_less(Trouble::State(error.to_string()));
        }
        written.is_ok()
    }

    pub(super) fn count_change(&mut self) -> std::io::Result<()> {
        let Some(lock) = self.lock.as_mut().filter(|_| !self.changed) else {
            return Ok(());
        };
        lock.raise()?;
        self.session.generation = lock.generation();
        self.changed = true;
        Ok(())
    }
}

/// Whether an upload was refused because all slots are taken. Where the words are not the known ones, the listing has to
/// say so, too.
fn is_quota(error: &CloudError, slots: usize, rules: &Rules) -> bool {
    error.class == Class::Quota || (error.mentions_limit() && slots >= rules.policy.at_rest())
}

/// Whether reading would fail in the same way again: the service refuses it, or its own answer holds no code.
pub(super) fn is_final(error: &CloudError) -> bool {
    let refused = matches!(
        error.class,
        Class::Permanent | Class::UnknownServer | Class::Gone
    );
    let odd = error.class == Class::Ambiguous && error.code.is_none();
    refused || (odd && error.request_id.is_some())
}

pub(super) fn rotated(revision: Revision, reason: &str) -> Happened {
    let age = age_of(&revision, SystemTime::now());
    Happened::Rotated {
        revision,
        age,
        reason: reason.to_owned(),
    }
}
