//! Puts code on staging, and makes a version of what is there.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use crate::clock::{self, Moment};
use crate::cloud::Fetched;
use crate::cloud::error::CloudError;
use crate::config::Upload;
use crate::revision::intent::Intent;
use crate::revision::mark::Mark;
use crate::revision::protocol::{Content, Goal, Step, Wanted};
use crate::routine::{Code, Digest, Revision};

use super::{DeployError, Happened, How, MAX_STEPS, Pass, Session, Stored, steps};

/// Why no version can be made of what is on staging.
#[derive(Debug, thiserror::Error)]
pub enum Uncommittable {
    /// Nothing was ever uploaded there.
    #[error("nothing is on staging")]
    Empty,
    /// An upload that never finished.
    #[error("what is on staging has no code: its upload never finished")]
    NoCode,
    /// It was not this er-dev that put it there.
    #[error("what is on staging was not uploaded by this er-dev")]
    Foreign,
    /// Its mark and its code disagree.
    #[error("what is on staging is not what this er-dev uploaded there last")]
    OtherBytes,
    /// The service gives no code for it, and nothing here proves what it is.
    #[error("the service does not tell what is on staging, and this er-dev has no proof of it")]
    Unproven,
}

impl Session {
    /// The code that was put on staging last, if older code could still come to lie over it.
    pub fn staged(&self) -> Option<Code> {
        self.staged.clone()
    }

    /// When staging is to be looked at again, if older code could still come to lie over what is there.
    pub fn staging_look(&self) -> Option<Moment> {
        let digest = self.staged.as_ref()?.digest();
        let rules = &self.settings.rules;
        self.knowledge.staging_look(digest, rules, clock::now())
    }

    /// The addresses of the nodes that run what is on staging.
    pub async fn staging_addresses(&self) -> Result<Vec<IpAddr>, CloudError> {
        self.cloud.staging_addresses().await
    }
}

impl Pass<'_> {
    /// Leads to staging that provably runs the code. With `force` it is uploaded even if it runs there already.
    pub async fn stage(&mut self, code: &Code, force: bool) -> Result<Stored, DeployError> {
        let mut wanted = Wanted {
            digest: code.digest(),
            normalised: code.normalised(),
            besides: BTreeSet::new(),
            replaces: true,
        };
        if force {
            if self.session.forced.is_none() {
                self.list().await?;
                let knowledge = &mut self.session.knowledge;
                knowledge.unstage();
                let there = knowledge.staging_slot().map(|slot| slot.revision.clone());
                self.session.forced = Some(there.into_iter().collect());
            }
            wanted.besides = self.session.forced.clone().unwrap_or_default();
        }
        for _ in 0..MAX_STEPS {
            match self.next(Goal::Staged(&wanted)) {
                Step::Stored(revision) => {
                    let stored = self.stored(revision, &wanted);
                    self.session.staged = Some(code.clone());
                    if self.session.staging_look().is_none() {
                        self.session.staged = None;
                    }
                    return Ok(stored);
                }
                Step::Stage if self.session.settings.dry_run => return Ok(self.plan_staging(code)),
                Step::Stage => self.upload(code, Upload::Staging).await?,
                Step::Post(revision) => self.post(revision, code).await?,
                step => self.carry_out(step).await?,
            }
        }
        Err(DeployError::Endless(self.last_error.take()))
    }

    /// Forgets what can come no more; returns when staging is to be looked at again.
    pub fn settle_staging(&mut self) -> Option<Moment> {
        let session = &mut *self.session;
        session
            .knowledge
            .tidied(&session.settings.rules, clock::now());
        let look = session.staging_look();
        if look.is_none() {
            session.staged = None;
        }
        self.write_down();
        look
    }

    fn plan_staging(&mut self, code: &Code) -> Stored {
        let (digest, bytes) = (code.digest().short(), code.bytes().len());
        let detail = format!("{digest} ({bytes} bytes) to staging");
        self.happened.push(Happened::Planned("upload", detail));
        Stored {
            revision: Revision::staging(),
            how: How::Planned,
            calls: self.calls,
            slots: self.session.knowledge.slots(),
            cap: self.session.settings.rules.policy.cap,
        }
    }

    /// Leads to a version that holds what is on staging. It has to be what this er-dev uploaded there, and is called
    /// by these words.
    pub async fn commit(&mut self, words: &str) -> Result<(Stored, Digest), DeployError> {
        let wanted = self.on_staging().await?;
        for _ in 0..MAX_STEPS {
            match self.next(Goal::Committed(&wanted)) {
                Step::Stored(revision) => {
                    return Ok((self.stored(revision, &wanted), wanted.digest));
                }
                Step::Commit => self.commit_staging(words, wanted.digest).await?,
                step => self.carry_out(step).await?,
            }
        }
        Err(DeployError::Endless(self.last_error.take()))
    }

    /// What is on staging, read back and found to be what was uploaded.
    async fn on_staging(&mut self) -> Result<Wanted, DeployError> {
        let knowledge = &self.session.knowledge;
        let settled = knowledge.doubt().map(|doubt| doubt.settled);
        if let Some(settled) = settled.filter(|settled| clock::now() < *settled) {
            return Err(DeployError::Unsettled(settled));
        }
        let put = knowledge.put_on_staging();
        // Told by a look of its own, since anybody may have put something else there.
        self.list().await?;
        self.look().await?;
        let found = self.found_on_staging().await;
        // The service may be late to show what was put there just now.
        let shown = put.map(|put| (put.digest, put.at + self.session.settings.rules.lag));
        match (&found, shown) {
            (Ok(found), Some((digest, _))) if found.digest == digest => {}
            (Ok(_) | Err(DeployError::Uncommittable(_)), Some((_, shown)))
                if clock::now() < shown =>
            {
                return Err(DeployError::Unsettled(shown));
            }
            _ => {}
        }
        found
    }

    async fn found_on_staging(&mut self) -> Result<Wanted, DeployError> {
        let session = &mut *self.session;
        let Some(slot) = session.knowledge.staging_slot() else {
            return Err(Uncommittable::Empty.into());
        };
        let slot = slot.clone();
        self.calls += 1;
        let name = session.routine.name.clone();
        let fetched = session.cloud.fetch(&name, &slot.revision).await;
        let knowledge = &mut session.knowledge;
        let code = match fetched {
            Ok(Fetched::Code(code)) => code,
            Ok(Fetched::Nothing) => return Err(Uncommittable::NoCode.into()),
            Err(error) if slot.revision.is_staging() && steps::is_final(&error) => {
                tracing::info!(%error, "the staging slot cannot be read back");
                knowledge.staging_is_unreadable();
                // What is proven has stood against the listing: the mark is this er-dev's, and for these bytes.
                let proven = knowledge.staged_digest().ok_or(Uncommittable::Unproven)?;
                return Ok(of(proven, proven));
            }
            Err(error) => return Err(error.into()),
        };
        let (read, rules) = (code.digest(), &session.settings.rules);
        let mark = Mark::read(&slot.description);
        let ours = mark.as_ref().filter(|mark| mark.instance == rules.instance);
        // The service may have changed line ends, and the mark is about what was uploaded.
        let proven = knowledge.staged_digest();
        let told = proven.filter(|proven| ours.is_some_and(|mark| mark.is_for(*proven)));
        let digest = match ours {
            Some(mark) if mark.fits(&code) => told.unwrap_or(read),
            _ if proven == Some(read) => read,
            Some(_) => return Err(Uncommittable::OtherBytes.into()),
            // It is a version already.
            None if slot.revision.number().is_some() => read,
            None => return Err(Uncommittable::Foreign.into()),
        };
        let content = Content::Holds(read);
        if slot.revision.is_staging() {
            knowledge.read_staging(content);
        } else {
            knowledge.read_back(slot.revision, content, rules, clock::now());
        }
        Ok(of(digest, read))
    }

    async fn commit_staging(&mut self, words: &str, sha256: Digest) -> Result<(), DeployError> {
        let patience = self.session.settings.timeouts.api + self.session.settings.margin;
        let intent = Intent::Commit { sha256 };
        let cloud = Arc::clone(&self.session.cloud);
        let permit = cloud.permit().await;
        self.note(intent.clone(), patience);
        let sent = clock::now();
        self.calls += 1;
        let session = &mut *self.session;
        let description = session.describe_with(words, sha256);
        let name = &session.routine.name;
        session.knowledge.committing(sha256);
        let committed = cloud.commit_staging(permit, name, &description).await;
        match committed {
            Ok(revision) => {
                session.sent = Some(sha256);
                // What it holds is told by reading it back, since staging may have changed meanwhile.
                let now = clock::now();
                session.knowledge.made(revision, description, now);
                self.write_down();
                Ok(())
            }
            Err(error) => {
                if !error.answered || error.code.is_none() {
                    session.sent = Some(sha256);
                }
                self.not_made(error, sha256, &intent, sent, patience)
            }
        }
    }
}

fn of(digest: Digest, read: Digest) -> Wanted {
    Wanted {
        digest,
        normalised: read,
        besides: BTreeSet::new(),
        // The entry may have other bytes by now.
        replaces: false,
    }
}
