//! Drives the protocol: one [`Session`] a routine, one [`Pass`] an edit.
//!
//! A pass holds the step lock, unless the state directory cannot be used: then it goes on without, and deletes nothing.
//! [`Pass::store`] ends with a version that holds the bytes, which is when the edit is
//! done; [`Pass::trim`] then frees a slot. What happened on the way is kept in [`Pass::happened`], also when the pass
//! ends in an error, because a deletion is never silent.

mod describe;
mod publish;
mod staging;
mod steps;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::clock::{self, Moment};
use crate::cloud::error::CloudError;
use crate::cloud::form::Form;
use crate::cloud::{Cloud, Fetched, Listing, Timeouts};
use crate::config::{Revisions, Routine, Upload, Verify};
use crate::routine::{Code, Digest, Revision};

use super::git::Git;
use super::intent::Journal;
use super::lock::{self, LockError, StepLock, WatchLock};
use super::mark::Instance;
pub use publish::{Published, Unpublishable};
pub use staging::Uncommittable;

use super::pins::Pins;
use super::protocol::{Blocked, Doubt, Goal, Knowledge, Noticed, Rules, Step, Wanted, decide};
use super::rotation::Policy;
use super::vault::{Vault, Vaults};

/// The most steps of one pass. A pass takes about ten; a service that never gets anywhere ends here.
const MAX_STEPS: usize = 80;

/// After a suspend that lasted longer, anything may have happened on the service.
const LONGEST_SUSPEND: Duration = Duration::from_secs(10);

/// A version of another er-dev that is younger than this tells that it is at work at the same time.
const YOUNG: Duration = Duration::from_secs(600);

/// What all sessions of a run share.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The rules of versions.
    pub rules: Rules,
    /// When the code of an upload is read back.
    pub verify: Verify,
    /// How long a step of another er-dev is waited for.
    pub lock_wait: Duration,
    /// How long answers are waited for.
    pub timeouts: Timeouts,
    /// How long after its time-out a request that got no answer could still be carried out, as far as that is waited
    /// for.
    pub margin: Duration,
    /// Whether changing requests are only named and not sent.
    pub dry_run: bool,
    /// Where the code of what is deleted is kept.
    pub vaults: Vaults,
}

impl Settings {
    /// The settings of a configuration. The margin is also how late the service is expected to show what it did.
    pub fn new(
        revisions: &Revisions,
        instance: Instance,
        lock_wait: Duration,
        timeouts: Timeouts,
        margin: Duration,
        vaults: Vaults,
    ) -> Self {
        Self {
            rules: Rules {
                policy: Policy::new(revisions),
                instance,
                lag: margin,
            },
            verify: revisions.verify,
            lock_wait,
            timeouts,
            margin,
            dry_run: false,
            vaults,
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
    pins: Pins,
    journal: Journal,
    knowledge: Knowledge,
    /// The form that the knowledge speaks of. It is kept in memory only.
    form: Option<(Revision, Form)>,
    generation: u64,
    /// Whether a pass has begun before.
    begun: bool,
    /// Whether the service has refused a description with more than the mark.
    mark_only: bool,
    /// What stands in descriptions before the mark, if it is not what the configuration says.
    words: Option<String>,
    git: Git,
    /// What listings outside of a pass showed, to be told by the next one.
    noticed: Vec<Noticed>,
    /// How long the machine had been suspended in all when the last pass began.
    asleep: Duration,
    /// Why the last pass had to do with less safety.
    trouble: Option<Trouble>,
    /// What was there when an upload of identical bytes was forced, until that upload is proven.
    forced: Option<BTreeSet<Revision>>,
    /// The digest of an upload that was sent and is not proven yet.
    sent: Option<Digest>,
    /// The code that was put on staging last, as long as older code could still come to lie over it.
    staged: Option<Code>,
    /// Versions whose code is to be saved and was not given, and how often.
    unread: BTreeMap<Revision, u32>,
    /// Versions that could not be saved or deleted, and what was told of it.
    spared: BTreeMap<Revision, String>,
    /// The right to watch it.
    watch: Option<WatchLock>,
}

/// One edit's way to the service. Holds the step lock until it is dropped.
#[derive(Debug)]
pub struct Pass<'a> {
    session: &'a mut Session,
    /// `None` where the state directory does not allow for one.
    lock: Option<StepLock>,
    changed: bool,
    calls: u32,
    happened: Vec<Happened>,
    /// The last answer that only a listing could settle.
    last_error: Option<CloudError>,
    /// When the last listing of this pass was asked for.
    asked: Moment,
    /// How often it was too old by the time a deletion could be sent.
    slow_looks: u32,
    /// Versions that the service listed and then did not know.
    missed: BTreeSet<Revision>,
    /// Whether a request was asked for again because this machine's clock was wrong.
    clock_set: bool,
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
    /// Somebody else made a version, another er-dev if it is named.
    Foreign {
        /// The version.
        revision: Revision,
        /// Its age.
        age: Option<Duration>,
        /// Which er-dev made it.
        by: Option<Instance>,
    },
    /// A version that er-dev made of some bytes holds others.
    OtherBytes(Revision),
    /// A version was put live.
    Published(Published),
    /// Somebody else put a version live.
    Republished {
        /// The version.
        revision: Revision,
        /// Where it is live now.
        environment: String,
        /// What was live there before.
        before: Option<Revision>,
    },
    /// An environment points at a version that is not there.
    LiveAndGone {
        /// The version.
        revision: Revision,
        /// The environment.
        environment: String,
        /// Whether er-dev deleted it while somebody published it.
        deleted: bool,
        /// Whether its code lies in the vault.
        kept: bool,
    },
    /// An environment that did so points at one that is there.
    Mended(String),
}

/// Why a pass deletes nothing although it goes on.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Trouble {
    /// The state directory cannot be used.
    #[error("the state directory cannot be used: {0}")]
    State(String),
    /// The code of what is to be deleted cannot be kept there.
    #[error("{0}")]
    Vault(String),
    /// The key may not delete.
    #[error(transparent)]
    Permission(CloudError),
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
    /// What an earlier request did, or will still do, is known at that moment at the latest.
    #[error("what an earlier request did is not known yet")]
    Unsettled(Moment),
    /// A version cannot be put live.
    #[error(transparent)]
    Unpublishable(#[from] Unpublishable),
    /// No version can be made of what is on staging.
    #[error(transparent)]
    Uncommittable(#[from] Uncommittable),
    /// The service answers, and nothing ever comes of it.
    #[error(
        "no end in sight after {MAX_STEPS} steps{}",
        .0.as_ref().map(|error| format!(": {error}")).unwrap_or_default()
    )]
    Endless(Option<CloudError>),
}

impl Session {
    /// A session of a routine whose state lies in this directory. Makes no request.
    pub fn new(cloud: Arc<Cloud>, settings: Arc<Settings>, routine: Routine, dir: PathBuf) -> Self {
        let vault = settings.vaults.of(&dir);
        let pins = Pins::new(&dir);
        let journal = Journal::new(&dir);
        let generation = lock::generation(&dir);
        Self {
            cloud,
            settings,
            routine,
            dir,
            vault,
            pins,
            journal,
            knowledge: Knowledge::default(),
            form: None,
            generation,
            begun: false,
            mark_only: false,
            words: None,
            git: Git::default(),
            noticed: Vec::new(),
            asleep: clock::asleep(),
            trouble: None,
            forced: None,
            sent: None,
            staged: None,
            unread: BTreeMap::new(),
            spared: BTreeMap::new(),
            watch: None,
        }
    }

    /// Keeps the watch lock of the routine for as long as there is this session.
    pub fn keep(&mut self, lock: Option<WatchLock>) {
        self.watch = lock;
    }

    /// The routine.
    pub fn routine(&self) -> &Routine {
        &self.routine
    }

    /// What is known of its versions.
    pub fn knowledge(&self) -> &Knowledge {
        &self.knowledge
    }

    /// Whether nothing that is known here speaks against a version that was proven to be there: the last listing has it,
    /// and since then no other er-dev changed anything, the key is the same, and the machine was not suspended for long.
    /// Makes no request; that somebody deleted it elsewhere shows at the next listing. What is on staging is no version,
    /// and anybody may have put something else there.
    pub fn holds(&self, revision: &Revision) -> bool {
        self.routine.upload == Upload::Revision
            && self.knowledge.is_listed(revision)
            && self.knowledge.doubt().is_none()
            && !self.knowledge.wants_a_pass()
            && lock::generation(&self.dir) == self.generation
            && clock::asleep() <= self.asleep + LONGEST_SUSPEND
            && self.cloud.is_of_present_key(&self.routine.name)
    }

    /// The rules its versions are rotated by.
    pub fn policy(&self) -> &Policy {
        &self.settings.rules.policy
    }

    /// Which er-dev this is.
    pub fn instance(&self) -> &Instance {
        &self.settings.rules.instance
    }

    /// Why the last pass had to do with less safety, if it had to: nothing was deleted then.
    pub fn trouble(&self) -> Option<&Trouble> {
        self.trouble.as_ref()
    }

    /// The directory of its state.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Reads the code of a version back.
    pub async fn fetch(&self, revision: &Revision) -> Result<Fetched, CloudError> {
        self.cloud.fetch(&self.routine.name, revision).await
    }

    /// The code of what was deleted.
    pub fn vault(&self) -> &Vault {
        &self.vault
    }

    /// The versions that a person has pinned.
    pub fn pins(&self) -> &Pins {
        &self.pins
    }

    /// Lets the versions that this session makes be described in these words instead of the configured ones.
    pub fn describe_as(&mut self, text: String) {
        self.words = Some(text);
    }

    /// Lists the versions. Takes no lock, since it changes nothing: what another er-dev writes down from here on tells
    /// the next pass that the listing is old.
    pub async fn list(&mut self) -> Result<&Listing, CloudError> {
        self.journal.recall(&mut self.knowledge, clock::now());
        match self.pins.read() {
            Ok(pinned) => self.knowledge.pin(pinned),
            Err(error) => {
                let path = self.pins.path().display();
                tracing::warn!(
                    "{path} cannot be read, so nothing is deleted until it can: {error}"
                );
            }
        }
        let listing = match self.look().await {
            Err(error) if error.clock_set => self.look().await?,
            looked => looked?,
        };
        let noticed = self
            .knowledge
            .listed(listing, &self.settings.rules, clock::now());
        self.noticed.extend(noticed);
        match self.knowledge.listing() {
            Some(listing) => Ok(listing),
            None => unreachable!("a listing was just written down"),
        }
    }

    async fn look(&self) -> Result<Listing, CloudError> {
        let permit = self.cloud.permit().await;
        self.cloud.list(permit, &self.routine.name).await
    }

    /// Begins a pass: takes the step lock, lists again if another er-dev changed something meanwhile, and recalls what
    /// was sent and is not known.
    pub async fn begin(&mut self) -> Result<Pass<'_>, DeployError> {
        let (lock, mut trouble) = match lock::step(&self.dir, self.settings.lock_wait).await {
            Ok(lock) => (Some(lock), None),
            Err(error @ LockError::Held(_)) => return Err(error.into()),
            Err(error @ LockError::Io { .. }) => (None, Some(error.to_string())),
        };
        if let Some(lock) = lock.as_ref().filter(|l| l.generation() != self.generation) {
            self.knowledge.forget_listing();
            self.generation = lock.generation();
        }
        let asleep = clock::asleep();
        if asleep > std::mem::replace(&mut self.asleep, asleep) + LONGEST_SUSPEND {
            self.knowledge.forget_listing();
        }
        self.knowledge.begin();
        let now = clock::now();
        if self.journal.recall(&mut self.knowledge, now) {
            self.knowledge.forget_listing();
        }
        // What could not be saved or deleted is over when that has worked again, and this when it works now.
        if matches!(self.trouble, Some(Trouble::State(_))) {
            self.trouble = None;
            self.journal.write_again();
        }
        if let Err(error) = self.journal.update(&self.knowledge) {
            trouble = trouble.or(Some(error.to_string()));
        }
        if !std::mem::replace(&mut self.begun, true) && trouble.is_some() {
            // Without a record nobody knows whether an earlier run left something on its way.
            let timeouts = self.settings.timeouts;
            let settled = now + timeouts.api.max(timeouts.post) + self.settings.margin;
            self.knowledge.in_doubt(Doubt {
                settled,
                shown: settled,
            });
        }
        match self.pins.read() {
            Ok(pinned) => self.knowledge.pin(pinned),
            Err(error) => {
                let path = self.pins.path().display();
                trouble = trouble.or(Some(format!("{path} cannot be read: {error}")));
            }
        }
        let noticed = std::mem::take(&mut self.noticed);
        let mut pass = Pass {
            session: self,
            lock,
            changed: false,
            calls: 0,
            happened: Vec::new(),
            last_error: None,
            asked: Moment::BOOT,
            slow_looks: 0,
            missed: BTreeSet::new(),
            clock_set: false,
        };
        for noticed in noticed {
            pass.notice(noticed);
        }
        if let Some(trouble) = trouble {
            pass.do_with_less(Trouble::State(trouble));
        }
        Ok(pass)
    }
}

impl Pass<'_> {
    /// What was done besides the upload since this was last asked.
    pub fn happened(&mut self) -> Vec<Happened> {
        std::mem::take(&mut self.happened)
    }

    /// Lists the versions, unless this pass has done so already.
    pub async fn look(&mut self) -> Result<(), DeployError> {
        for _ in 0..MAX_STEPS {
            if self.session.knowledge.is_current() {
                return Ok(());
            }
            self.list().await?;
        }
        Err(DeployError::Endless(self.last_error.take()))
    }

    /// What is known of the versions.
    pub fn knowledge(&self) -> &Knowledge {
        &self.session.knowledge
    }

    /// The rules the versions are rotated by.
    pub fn policy(&self) -> &Policy {
        &self.session.settings.rules.policy
    }

    /// Leads to a version that provably holds the code. With `force` a new one, even if there is one already.
    pub async fn store(&mut self, code: &Code, force: bool) -> Result<Stored, DeployError> {
        let mut wanted = Wanted {
            digest: code.digest(),
            normalised: code.normalised(),
            besides: BTreeSet::new(),
            // What is restored is code of its own, and the entry's stays what it is.
            replaces: self.session.words.is_none(),
        };
        if force {
            if self.session.forced.is_none() {
                self.list().await?;
                let listing = self.session.knowledge.listing();
                let revisions = listing.into_iter().flat_map(|listing| &listing.revisions);
                let there = revisions.map(|listed| listed.revision.clone()).collect();
                self.session.forced = Some(there);
            }
            wanted.besides = self.session.forced.clone().unwrap_or_default();
        }
        for _ in 0..MAX_STEPS {
            match self.next(Goal::Stored(&wanted)) {
                Step::Stored(revision) => return Ok(self.stored(revision, &wanted)),
                Step::Upload if self.session.settings.dry_run => {
                    return Ok(self.planned(code, wanted));
                }
                Step::Upload => self.upload(code, Upload::Revision).await?,
                Step::Post(revision) => self.post(revision, code).await?,
                step => self.carry_out(step).await?,
            }
        }
        Err(DeployError::Endless(self.last_error.take()))
    }

    /// Frees slots until as many are free as the rules want at rest, or none can be freed. The edit is safe before
    /// this begins, so an error here is only worth a warning.
    ///
    /// Returns when it is to be done again, if a request without an answer could still leave something behind.
    pub async fn trim(&mut self) -> Result<Option<Moment>, DeployError> {
        for _ in 0..MAX_STEPS {
            match self.next(Goal::AtRest) {
                Step::AtRest => {
                    if self.session.settings.dry_run {
                        // What was only pretended must not be taken for true by the next edit.
                        self.session.knowledge.forget_listing();
                    }
                    return Ok(self.tidied());
                }
                step => self.carry_out(step).await?,
            }
        }
        Err(DeployError::Endless(self.last_error.take()))
    }

    fn tidied(&mut self) -> Option<Moment> {
        let (session, now) = (&mut *self.session, clock::now());
        let rules = &session.settings.rules;
        session.knowledge.tidied(rules, now);
        session.knowledge.all_come(rules, now)
    }

    /// When what uploads without an answer could still make is to be cleared away, if there were any; or what they could
    /// still put on staging is to be looked for.
    pub fn all_come(&self) -> Option<Moment> {
        let session = &*self.session;
        if session.routine.upload == Upload::Staging {
            return session.staging_look();
        }
        session
            .knowledge
            .all_come(&session.settings.rules, clock::now())
    }

    fn next(&self, goal: Goal<'_>) -> Step {
        let session = &*self.session;
        decide(
            &session.knowledge,
            goal,
            &session.settings.rules,
            clock::now(),
        )
    }

    fn stored(&mut self, revision: Revision, wanted: &Wanted) -> Stored {
        let session = &mut *self.session;
        session.forced = None;
        // An upload whose answer was lost is an upload all the same.
        let sent = session.sent.take() == Some(wanted.digest);
        let knowledge = &mut session.knowledge;
        let before = knowledge.protected().present.clone();
        knowledge.stored(revision.clone(), wanted);
        let how = match knowledge.newest() {
            _ if sent => How::Uploaded,
            _ if revision.is_staging() => How::Newest,
            Some(newest) if *newest == revision => How::Newest,
            _ => How::Older,
        };
        // What somebody else put live stays so until the entry has other bytes.
        let news = wanted.replaces && (sent || before.as_ref() != Some(&revision));
        let publishes = !session.routine.publish_to.is_empty() && !session.settings.dry_run;
        if news && publishes {
            knowledge.owe(revision.clone());
        }
        let slots = knowledge.slots();
        self.write_down();
        Stored {
            revision,
            how,
            calls: self.calls,
            slots,
            cap: self.session.settings.rules.policy.cap,
        }
    }

    /// Goes on without deleting anything.
    fn do_with_less(&mut self, trouble: Trouble) {
        self.session.knowledge.no_deletes(trouble.to_string());
        self.session.trouble = Some(trouble);
    }

    /// Keeps what a listing showed besides the versions.
    fn notice(&mut self, noticed: Noticed) {
        let now = SystemTime::now();
        match noticed {
            Noticed::Gone(revision) => self
                .happened
                .push(steps::rotated(revision, "its deletion had got no answer")),
            Noticed::Foreign {
                revision,
                by,
                first,
            } => {
                let age = age_of(&revision, now);
                // What was there before this program looked is only news if another er-dev is at it now.
                let news = by.is_some() && age.is_some_and(|age| age < YOUNG);
                if !first || news {
                    self.happened.push(Happened::Foreign { revision, age, by });
                }
            }
            Noticed::Republished {
                revision,
                environment,
                before,
            } => self.happened.push(Happened::Republished {
                revision,
                environment,
                before,
            }),
            Noticed::LiveAndGone {
                revision,
                environment,
                deleted,
            } => {
                let kept = self.session.vault.list().unwrap_or_default();
                self.happened.push(Happened::LiveAndGone {
                    kept: kept.iter().any(|kept| kept.revision == revision),
                    revision,
                    environment,
                    deleted,
                });
            }
            Noticed::Mended(environment) => self.happened.push(Happened::Mended(environment)),
        }
    }

    fn planned(&mut self, code: &Code, wanted: Wanted) -> Stored {
        let detail = format!("{} ({} bytes)", code.digest().short(), code.bytes().len());
        self.happened.push(Happened::Planned("upload", detail));
        for environment in &self.session.routine.publish_to {
            let detail = format!("it to {environment}");
            self.happened.push(Happened::Planned("publish", detail));
        }
        let knowledge = &mut self.session.knowledge;
        // A number that no version has, newer than all of them.
        let revision = Revision::new(&u64::MAX.to_string());
        knowledge.pretend_uploaded(revision.clone());
        // A version that is none must not be remembered for one.
        let wanted = Wanted {
            replaces: false,
            ..wanted
        };
        knowledge.stored(revision.clone(), &wanted);
        let slots = knowledge.slots();
        Stored {
            revision,
            how: How::Planned,
            calls: self.calls,
            slots,
            cap: self.session.settings.rules.policy.cap,
        }
    }
}

/// The age of a version, from the time that its number is.
pub fn age_of(revision: &Revision, now: SystemTime) -> Option<Duration> {
    let made = UNIX_EPOCH + Duration::from_nanos(revision.number()?);
    Some(now.duration_since(made).unwrap_or_default())
}
