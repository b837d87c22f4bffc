//! Carries out one step of the protocol, and writes down what came of it before anything else is done.

use std::time::{Duration, Instant, SystemTime};

use crate::cloud::error::{Class, CloudError};
use crate::cloud::{Deletion, Environments, Fetched, Listing};
use crate::config::{Routine, Verify};
use crate::revision::mark::{self, Instance};
use crate::revision::protocol::{Content, Step, Why};
use crate::routine::{Code, Digest, Revision};

use super::{DeployError, Happened, MAX_UPLOADS, Pass, age_of};

/// The oldest a listing may be when a deletion that rests on it is sent. Usually it is some hundredths of a second.
const LONGEST_LOOK: Duration = Duration::from_secs(2);

impl Pass<'_> {
    pub(super) async fn carry_out(&mut self, step: Step) -> Result<(), DeployError> {
        match step {
            Step::Wait(until) => Err(DeployError::Unsettled(until)),
            Step::Blocked(blocked) => Err(blocked.into()),
            Step::List => self.list().await,
            Step::ReadBack(revision) => self.read_back(revision).await,
            Step::Save(revision) if self.session.settings.dry_run => {
                self.session.knowledge.saved(revision);
                Ok(())
            }
            Step::Delete(revision, _) if self.session.settings.dry_run => {
                self.happened
                    .push(Happened::Planned("rotate", revision.to_string()));
                self.session.knowledge.pretend_deleted(&revision);
                Ok(())
            }
            Step::Save(revision) => self.save(revision).await,
            Step::Delete(revision, why) => self.delete(revision, why).await,
            Step::Upload | Step::Stored(_) | Step::AtRest => Ok(()),
        }
    }

    pub(super) async fn list(&mut self) -> Result<(), DeployError> {
        self.calls += 1;
        let session = &mut *self.session;
        match session.cloud.list(&session.routine.name).await {
            Ok(listing) => {
                for revision in session.knowledge.listed(listing, Instant::now()) {
                    self.happened
                        .push(rotated(revision, "its deletion had got no answer"));
                }
                Ok(())
            }
            Err(error) if error.class == Class::Gone && session.routine.create => {
                self.create().await
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Makes the missing routine; the next step lists it.
    async fn create(&mut self) -> Result<(), DeployError> {
        if self.session.settings.dry_run {
            self.happened.push(Happened::Planned(
                "create",
                self.session.routine.name.to_string(),
            ));
            let nothing = Listing {
                revisions: Vec::new(),
                environments: Environments::Unknown("the routine does not exist yet".into()),
            };
            let _ = self.session.knowledge.listed(nothing, Instant::now());
            return Ok(());
        }
        self.calls += 1;
        self.session
            .cloud
            .create(&self.session.routine.name)
            .await?;
        self.happened.push(Happened::Created);
        Ok(())
    }

    async fn read_back(&mut self, revision: Revision) -> Result<(), DeployError> {
        self.calls += 1;
        let session = &mut *self.session;
        match session.cloud.fetch(&session.routine.name, &revision).await {
            Ok(fetched) => {
                let content = match fetched {
                    Fetched::Code(code) => Content::Holds(code.digest()),
                    Fetched::Nothing => Content::Nothing,
                };
                session
                    .knowledge
                    .read_back(revision, content, Instant::now());
                Ok(())
            }
            // It went away since it was listed.
            Err(error) if error.class == Class::Gone => {
                session.knowledge.forget_listing();
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Saves a version's code. One whose code cannot be read or kept stays, and the next oldest is looked at.
    async fn save(&mut self, revision: Revision) -> Result<(), DeployError> {
        self.calls += 1;
        let session = &mut *self.session;
        let fetched = session.cloud.fetch(&session.routine.name, &revision).await;
        let code = match fetched {
            Ok(Fetched::Code(code)) => Some(code),
            Ok(Fetched::Nothing) => None,
            Err(error) if is_final(&error) => {
                self.spare(revision, format!("its code could not be read: {error}"));
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        let Some(listing) = session.knowledge.listing() else {
            return Ok(());
        };
        let mut listed = listing.revisions.iter();
        if let Some(listed) = listed.find(|listed| listed.revision == revision) {
            let (name, now) = (&session.routine.name, jiff::Timestamp::now());
            let saved = session
                .vault
                .save(name, listed, &listing.environments, code.as_ref(), now);
            if let Err(error) = saved {
                self.spare(revision, format!("its code could not be saved: {error}"));
                return Ok(());
            }
        }
        session.knowledge.saved(revision);
        Ok(())
    }

    async fn delete(&mut self, revision: Revision, why: Why) -> Result<(), DeployError> {
        self.changing()?;
        self.calls += 1;
        let session = &mut *self.session;
        let age = session
            .knowledge
            .listing_age(Instant::now())
            .unwrap_or_default();
        let not_after = Instant::now() + LONGEST_LOOK.saturating_sub(age);
        let outcome = session
            .cloud
            .delete(&session.routine.name, &revision, not_after)
            .await;
        match outcome {
            Ok(Deletion::Done) => {
                session.knowledge.deleted(revision.clone(), true);
                let reason = match why {
                    Why::Oldest => "kept in the vault (the oldest that may go)",
                    Why::Orphan => "its code never arrived",
                };
                self.happened.push(rotated(revision, reason));
            }
            Ok(Deletion::TooLate) => session.knowledge.forget_listing(),
            // Somebody else deleted it, which is as good.
            Err(error) if error.class == Class::Gone => session.knowledge.deleted(revision, true),
            Err(error) if matches!(error.class, Class::Permanent | Class::UnknownServer) => {
                session.knowledge.forget_listing();
                self.spare(revision, format!("its deletion was refused: {error}"));
            }
            Err(error) => {
                session.knowledge.forget_listing();
                if error.class == Class::Ambiguous {
                    session.knowledge.deleted(revision, false);
                }
                return Err(error.into());
            }
        }
        Ok(())
    }

    fn spare(&mut self, revision: Revision, reason: String) {
        self.session
            .knowledge
            .spare(revision.clone(), reason.clone());
        self.happened.push(Happened::Spared(revision, reason));
    }

    /// Both steps of an upload. What is left open between them is written down before anything else is done.
    pub(super) async fn upload(&mut self, code: &Code, number: u32) -> Result<(), DeployError> {
        if number > MAX_UPLOADS {
            return Err(DeployError::Endless(self.last_error.take()));
        }
        self.changing()?;
        self.calls += 1;
        let session = &mut *self.session;
        session.sent = Some(code.digest());
        let description = describe(&session.routine, code.digest(), &session.settings.instance);
        let sent = Instant::now();
        let begun = session
            .cloud
            .begin_upload(&session.routine.name, &description)
            .await;
        let (revision, form) = match begun {
            Ok(begun) => begun,
            Err(error) if error.class == Class::Quota => {
                session.knowledge.quota_hit();
                return Ok(());
            }
            Err(error) => return self.doubtful(error, sent),
        };
        match session.cloud.post(&form, code).await {
            Ok(()) => {
                let proven = (session.settings.verify == Verify::Doubt).then(|| code.digest());
                session.knowledge.uploaded(revision, description, proven);
                Ok(())
            }
            Err(error) => {
                session.knowledge.uploaded(revision, description, None);
                if error.class == Class::FormExpired {
                    session.knowledge.in_doubt(Instant::now());
                    self.last_error = Some(error);
                    return Ok(());
                }
                self.doubtful(error, sent)
            }
        }
    }

    /// A listing tells what became of a request in doubt. One that got an answer, even a useless one, has been carried
    /// out or not by now; one without could still be.
    fn doubtful(&mut self, error: CloudError, sent: Instant) -> Result<(), DeployError> {
        let knowledge = &mut self.session.knowledge;
        if error.class != Class::Ambiguous {
            knowledge.forget_listing();
            return Err(error.into());
        }
        if error.answered {
            knowledge.in_doubt(Instant::now());
            self.last_error = Some(error);
            Ok(())
        } else {
            knowledge.in_doubt(sent + self.session.settings.settle);
            Err(error.into())
        }
    }

    /// Counts this pass as one that changes something, once and before the first change.
    fn changing(&mut self) -> Result<(), DeployError> {
        if !self.changed {
            self.lock.raise()?;
            self.session.generation = self.lock.generation();
            self.changed = true;
        }
        Ok(())
    }
}

/// The description of a version: the user's template, filled, and the content mark.
fn describe(routine: &Routine, digest: Digest, instance: &Instance) -> String {
    let file = routine
        .entry
        .file_name()
        .map(|name| name.to_string_lossy())
        .unwrap_or_default();
    mark::describe(
        &routine.description.replace("{file}", &file),
        digest,
        instance,
    )
}

/// Whether reading would fail in the same way again.
fn is_final(error: &CloudError) -> bool {
    let refused = matches!(
        error.class,
        Class::Permanent | Class::UnknownServer | Class::Gone
    );
    refused || (error.class == Class::Ambiguous && error.answered)
}

fn rotated(revision: Revision, reason: &str) -> Happened {
    let age = age_of(&revision, SystemTime::now());
    Happened::Rotated {
        revision,
        age,
        reason: reason.to_owned(),
    }
}
