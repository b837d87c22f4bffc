//! Drives the protocol: one [`Session`] a routine, one [`Pass`] an edit.
//!
//! A pass holds the step lock. [`Pass::store`] ends with a version that holds the bytes, which is when the edit is
//! done; [`Pass::trim`] then frees a slot. What happened on the way is kept in [`Pass::happened`], also when the pass
//! ends in an error, because a deletion is never silent.

mod steps;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::cloud::error::CloudError;
use crate::cloud::{Cloud, Listing};
use crate::config::{Revisions, Routine, Verify};
use crate::routine::{Code, Digest, Revision};

use super::lock::{self, LockError, StepLock};
use super::mark::Instance;
use super::protocol::{self, Blocked, Goal, Knowledge, Step};
use super::rotation::Policy;
use super::vault::Vault;

/// The most steps of one pass. A pass takes about ten; a service that never gets anywhere ends here.
const MAX_STEPS: usize = 80;

/// The most uploads of one pass: a form may end early, an orphan may have to be replaced.
const MAX_UPLOADS: u32 = 3;

/// How long after its time-out a request that got no answer could still be carried out.
pub const SETTLE_MARGIN: Duration = Duration::from_secs(10);

/// What all sessions of a run share.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The rules of rotation.
    pub policy: Policy,
    /// When the code of an upload is read back.
    pub verify: Verify,
    /// Which er-dev this is.
    pub instance: Instance,
    /// How long a step of another er-dev is waited for.
    pub lock_wait: Duration,
    /// How long a request that got no answer could still be carried out, from when it was sent.
    pub settle: Duration,
    /// Whether changing requests are only named and not sent.
    pub dry_run: bool,
}

impl Settings {
    /// The settings of a configuration.
    pub fn new(
        revisions: &Revisions,
        instance: Instance,
        lock_wait: Duration,
        settle: Duration,
    ) -> Self {
        Self {
            policy: Policy::new(revisions),
            verify: revisions.verify,
            instance,
            lock_wait,
            settle,
            dry_run: false,
        }
    }
}

/// One routine on the service, with what is known of it from edit to edit.
#[derive(Debug)]
pub struct Session {
    cloud: Arc<Cloud>,
    settings: Arc<Settings>,
    routine: Routine,
    dir: PathBuf,
    vault: Vault,
    knowledge: Knowledge,
    generation: u64,
    /// What was there when an upload of identical bytes was forced, until that upload is proven.
    forced: Option<BTreeSet<Revision>>,
    /// The digest of an upload that was sent and is not proven yet.
    sent: Option<Digest>,
}

/// One edit's way to the service. Holds the step lock until it is dropped.
#[derive(Debug)]
pub struct Pass<'a> {
    session: &'a mut Session,
    lock: StepLock,
    changed: bool,
    calls: u32,
    happened: Vec<Happened>,
    /// The last answer that only a listing could settle.
    last_error: Option<CloudError>,
}

/// The end of [`Pass::store`]: which version holds the bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The version.
    pub revision: Revision,
    /// How it came to hold them.
    pub how: How,
    /// API requests so far.
    pub calls: u32,
    /// Versions the routine holds now.
    pub slots: usize,
    /// Versions it may hold.
    pub cap: usize,
}

/// How a version came to hold the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// They were uploaded.
    Uploaded,
    /// The newest version held them already.
    Newest,
    /// An older version held them already.
    Older,
    /// They would have been uploaded, were this not a dry run. The version is none there is.
    Planned,
}

/// Something a pass did besides the upload, or would have done in a dry run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Happened {
    /// A version was deleted.
    Rotated {
        /// The version.
        revision: Revision,
        /// Its age.
        age: Option<Duration>,
        /// Why it went.
        reason: String,
    },
    /// The missing routine was made.
    Created,
    /// A step that a dry run did not take: "upload", "rotate" or "create", and of what.
    Planned(&'static str, String),
    /// A version could not be saved or deleted and stays for now.
    Spared(Revision, String),
}

/// Why a pass ended early.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    /// A request did not succeed.
    #[error(transparent)]
    Cloud(#[from] CloudError),
    /// Nothing can be done until somebody changes something.
    #[error(transparent)]
    Blocked(#[from] Blocked),
    /// Another er-dev is busy with the routine.
    #[error("the routine is locked: {0}")]
    Lock(#[from] LockError),
    /// An earlier request got no answer and could still be carried out until then.
    #[error("an earlier request got no answer and could still be carried out")]
    Unsettled(Instant),
    /// The state directory cannot be written.
    #[error("the state directory cannot be written: {0}")]
    State(#[from] std::io::Error),
    /// The service answers, but no version is ever proven to hold the bytes.
    #[error(
        "no proven version after {MAX_UPLOADS} uploads{}",
        .0.as_ref().map(|error| format!(": {error}")).unwrap_or_default()
    )]
    Endless(Option<CloudError>),
}

impl Session {
    /// A session of a routine whose state lies in this directory. Makes no request.
    pub fn new(cloud: Arc<Cloud>, settings: Arc<Settings>, routine: Routine, dir: PathBuf) -> Self {
        let vault = Vault::new(&dir);
        let generation = lock::generation(&dir);
        Self {
            cloud,
            settings,
            routine,
            dir,
            vault,
            knowledge: Knowledge::default(),
            generation,
            forced: None,
            sent: None,
        }
    }

    /// The routine.
    pub fn routine(&self) -> &Routine {
        &self.routine
    }

    /// What is known of its versions.
    pub fn knowledge(&self) -> &Knowledge {
        &self.knowledge
    }

    /// The rules its versions are rotated by.
    pub fn policy(&self) -> &Policy {
        &self.settings.policy
    }

    /// Which er-dev this is.
    pub fn instance(&self) -> &Instance {
        &self.settings.instance
    }

    /// Lists the versions. Takes no lock, since it changes nothing.
    pub async fn list(&mut self) -> Result<&Listing, CloudError> {
        let listing = self.cloud.list(&self.routine.name).await?;
        let _ = self.knowledge.listed(listing, Instant::now());
        match self.knowledge.listing() {
            Some(listing) => Ok(listing),
            None => unreachable!("a listing was just written down"),
        }
    }

    /// Begins a pass: takes the step lock, and lists again if another er-dev changed something meanwhile.
    pub async fn begin(&mut self) -> Result<Pass<'_>, DeployError> {
        let lock = lock::step(&self.dir, self.settings.lock_wait).await?;
        if lock.generation() != self.generation {
            self.knowledge.forget_listing();
            self.generation = lock.generation();
        }
        self.knowledge.begin();
        Ok(Pass {
            session: self,
            lock,
            changed: false,
            calls: 0,
            happened: Vec::new(),
            last_error: None,
        })
    }
}

impl Pass<'_> {
    /// What was done besides the upload since this was last asked.
    pub fn happened(&mut self) -> Vec<Happened> {
        std::mem::take(&mut self.happened)
    }

    /// Leads to a version that provably holds the code. With `force` a new one, even if there is one already.
    pub async fn store(&mut self, code: &Code, force: bool) -> Result<Stored, DeployError> {
        let mut goal = Goal {
            digest: code.digest(),
            instance: self.session.settings.instance.clone(),
            besides: BTreeSet::new(),
        };
        if force {
            if self.session.forced.is_none() {
                self.list().await?;
                let listing = self.session.knowledge.listing();
                let revisions = listing.into_iter().flat_map(|listing| &listing.revisions);
                let there = revisions.map(|listed| listed.revision.clone()).collect();
                self.session.forced = Some(there);
            }
            goal.besides = self.session.forced.clone().unwrap_or_default();
        }
        let mut uploads = 0;
        for _ in 0..MAX_STEPS {
            let step = protocol::store(
                &self.session.knowledge,
                &goal,
                &self.session.settings.policy,
                Instant::now(),
            );
            match step {
                Step::Stored(revision) => return Ok(self.stored(revision, goal.digest)),
                Step::Upload if self.session.settings.dry_run => return Ok(self.planned(code)),
                Step::Upload => {
                    uploads += 1;
                    self.upload(code, uploads).await?;
                }
                step => self.carry_out(step).await?,
            }
        }
        Err(DeployError::Endless(self.last_error.take()))
    }

    /// Frees slots until as many are free as the rules want at rest, or none can be freed. The edit is safe before
    /// this begins, so an error here is only worth a warning.
    pub async fn trim(&mut self) -> Result<(), DeployError> {
        for _ in 0..MAX_STEPS {
            match protocol::trim(
                &self.session.knowledge,
                &self.session.settings.policy,
                Instant::now(),
            ) {
                Step::AtRest => {
                    if self.session.settings.dry_run {
                        // What was only pretended must not be taken for true by the next edit.
                        self.session.knowledge.forget_listing();
                    }
                    return Ok(());
                }
                step => self.carry_out(step).await?,
            }
        }
        Err(DeployError::Endless(self.last_error.take()))
    }

    fn stored(&mut self, revision: Revision, digest: Digest) -> Stored {
        let session = &mut *self.session;
        session.forced = None;
        // An upload whose answer was lost is an upload all the same.
        let sent = session.sent.take() == Some(digest);
        let knowledge = &mut session.knowledge;
        knowledge.stored(revision.clone());
        let how = match knowledge.newest() {
            _ if sent => How::Uploaded,
            Some(newest) if *newest == revision => How::Newest,
            _ => How::Older,
        };
        let slots = knowledge
            .listing()
            .map_or(0, |listing| listing.revisions.len());
        Stored {
            revision,
            how,
            calls: self.calls,
            slots,
            cap: self.session.settings.policy.cap,
        }
    }

    fn planned(&mut self, code: &Code) -> Stored {
        let detail = format!("{} ({} bytes)", code.digest().short(), code.bytes().len());
        self.happened.push(Happened::Planned("upload", detail));
        let knowledge = &mut self.session.knowledge;
        // A number that no version has, newer than all of them.
        let revision = Revision::new(&u64::MAX.to_string());
        knowledge.pretend_uploaded(revision.clone());
        knowledge.stored(revision.clone());
        let slots = knowledge
            .listing()
            .map_or(0, |listing| listing.revisions.len());
        Stored {
            revision,
            how: How::Planned,
            calls: self.calls,
            slots,
            cap: self.session.settings.policy.cap,
        }
    }
}

/// The age of a version, from the time that its number is.
pub fn age_of(revision: &Revision, now: SystemTime) -> Option<Duration> {
    let made = UNIX_EPOCH + Duration::from_nanos(revision.number()?);
    Some(now.duration_since(made).unwrap_or_default())
}
