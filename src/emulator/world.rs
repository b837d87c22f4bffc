//! The remote as a state machine: which changes of routines and versions are possible, and when.
//!
//! It knows no sockets, clock or chance: times are arguments, and numbers come from them. The wire shapes of the
//! API are in `operations`, those of object storage in `storage`, what people do past both in `actors`. What the
//! service leaves undocumented is a field of [`Settings`], so that a test can run under each answer.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::action::Action;
use super::fault::Hit;
use super::gateway::Gateway;
use super::history::{self, Decision, History, Record};
use super::lag::Views;
use super::reply::Refusal;
use super::routines::{
    ENVIRONMENTS, Environment, RoutineState, Version, no_such_revision, no_such_routine, store_text,
};
use super::staging::{self, Staging};
use super::switches::{DescriptionForm, EnvConf, RateScope, RevisionForm};
use crate::routine::{Code, Revision, RoutineName};

/// How many numbers of versions are remembered; beyond it the oldest is forgotten, which lets it be seeded again. As
/// many forms are remembered to have been posted.
const MAX_NUMBERS: usize = 1_000_000;

/// When an upload takes its place among the versions of a routine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slot {
    /// When the form is asked for: the version is listed before it has any code.
    AtUpload,
    /// When object storage calls back: an upload that is never posted leaves nothing behind.
    AtCallback,
}

/// How the emulated service behaves where the real one gives no word. [`Settings::set`] turns each by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `alloc`: when an upload takes its slot.
    pub slot: Slot,
    /// `guard`: whether deleting a version that is live somewhere is refused. Where it is not, the environment goes on
    /// naming the version that is gone.
    pub guard: bool,
    /// `delete_unknown`: whether deleting a version that is not there is answered with OK.
    pub delete_unknown_is_ok: bool,
    /// `delete_works`: whether a delete that is answered with OK deletes anything.
    pub delete_works: bool,
    /// `desc`: whether descriptions of more than 48 characters are refused.
    pub short_descriptions: bool,
    /// `desc_form`: how descriptions are stored and told.
    pub description_form: DescriptionForm,
    /// `desc_mangle`: whether descriptions come back cut to 20 characters.
    pub mangled_descriptions: bool,
    /// `lag`: how long after a change the describing operations tell it.
    pub lag: Duration,
    /// `form_reuse`: whether a form can be posted again while it lives.
    pub form_reuse: bool,
    /// `form_ttl`: how long a form may be posted, counted in whole seconds.
    pub form_life: Duration,
    /// `envconf`: what of the environments is told.
    pub envconf: EnvConf,
    /// `rate_scope`: what the limit of calls a second is about.
    pub rate_scope: RateScope,
    /// `code_bytes`: whether line ends become LF and a byte order mark is dropped.
    pub normalised_code: bool,
    /// `cap`: how many versions a routine may have, whatever their kind.
    pub cap: usize,
    /// `clock`: how far the service's clock is off the machine's.
    pub clock: SignedDuration,
    /// `revision_form`: how the numbers of versions stand in answers.
    pub revision_form: RevisionForm,
    /// `content`: whether a missing routine is described by an answer without content instead of an error.
    pub content_missing: bool,
    /// `staging`: where a staging upload puts its code.
    pub staging: Staging,
    /// `staging_name`: whether the answer to a staging upload names a number, though its code goes to the one slot.
    pub staging_is_numbered: bool,
    /// `staging_read`: whether the code of the slot can be read back.
    pub staging_is_readable: bool,
    /// `commit_form`: whether the answer to a commit is a bare number.
    pub commit_is_bare: bool,
    /// `seed`: where the chance of faults comes from.
    pub seed: u64,
}

/// The two clocks at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// The service's wall clock, for time stamps, expiry and the numbers of versions. It may step.
    pub wall: Timestamp,
    /// Since the emulator started, on a clock that never steps back.
    pub elapsed: Duration,
}

/// How a request came.
#[derive(Debug, Clone, Copy)]
pub struct Visit<'a> {
    /// When it began to come, on the clock of `now.elapsed`.
    pub arrived: Duration,
    /// When it is handled: it was complete then.
    pub now: Now,
    /// What goes wrong with it on purpose.
    pub hit: Option<&'a Hit>,
}

/// All that the emulated service holds.
#[derive(Debug)]
pub struct World {
    pub(super) settings: Settings,
    /// The time of the present step.
    pub(super) now: Now,
    /// Scheme, host and port under which the emulator is reached.
    pub(super) origin: String,
    pub(super) routines: BTreeMap<RoutineName, RoutineState>,
    pub(super) gateway: Gateway,
    pub(super) history: History,
    views: Views,
    /// Every number given to a version, listed or not, so that none is given twice.
    given: BTreeSet<u64>,
    /// The numbers of the versions whose form was posted.
    posted: BTreeSet<u64>,
    /// The numbers that were given for staging, where each upload takes a slot of its own.
    pub(super) staged: BTreeSet<u64>,
    requests: u64,
}

impl Default for Settings {
    /// What the service documents, and where it does not, the answer that helps a client less.
    fn default() -> Self {
        Self {
            slot: Slot::AtUpload,
            guard: false,
            delete_unknown_is_ok: false,
            delete_works: true,
            short_descriptions: false,
            description_form: DescriptionForm::JsonBase64,
            mangled_descriptions: false,
            lag: Duration::ZERO,
            form_reuse: true,
            form_life: Duration::from_secs(300),
            envconf: EnvConf::Full,
            rate_scope: RateScope::Operation,
            normalised_code: false,
            cap: 10,
            clock: SignedDuration::ZERO,
            revision_form: RevisionForm::Text,
            content_missing: false,
            staging: Staging::Overwrite,
            staging_is_numbered: false,
            staging_is_readable: true,
            commit_is_bare: false,
            seed: 0,
        }
    }
}

impl Visit<'_> {
    /// What the record of every request holds.
    pub(super) fn record(&self, op: &'static str) -> Record {
        let delay = match self.hit.map(|hit| &hit.action) {
            Some(Action::Delay(ms)) => Duration::from_millis(*ms),
            _ => Duration::ZERO,
        };
        Record {
            t: history::nanoseconds(self.arrived),
            ended: history::nanoseconds(self.now.elapsed.saturating_add(delay)),
            op,
            fault: self.hit.map(|hit| hit.text.clone()),
            ..Record::default()
        }
    }
}

impl World {
    /// A service without routines. `origin` is scheme, host and port under which it is reached.
    pub fn new(settings: Settings, origin: &str) -> Self {
        Self {
            settings,
            now: Now {
                wall: Timestamp::UNIX_EPOCH,
                elapsed: Duration::ZERO,
            },
            origin: origin.to_owned(),
            routines: BTreeMap::new(),
            gateway: Gateway::default(),
            history: History::default(),
            views: Views::default(),
            given: BTreeSet::new(),
            posted: BTreeSet::new(),
            staged: BTreeSet::new(),
            requests: 0,
        }
    }

    /// A routine, if it is there.
    pub fn routine(&self, name: &RoutineName) -> Option<&RoutineState> {
        self.routines.get(name)
    }

    /// What was asked so far.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// How the service behaves.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Changes how the service behaves from now on. What is not told yet because of a lag is told at once.
    pub fn configure(&mut self, settings: Settings) {
        self.settings = settings;
        self.views = Views::default();
        for (name, state) in &self.routines {
            self.views.note(name, state, Duration::ZERO);
        }
    }

    /// Makes a routine with all of [`ENVIRONMENTS`] and no version. Fails if it is there already.
    pub fn create_routine(
        &mut self,
        name: &RoutineName,
        description: &str,
        made: Timestamp,
    ) -> Result<(), Refusal> {
        if self.routines.contains_key(name) {
            return Err(Refusal::general(format!("routine {name} exists already")));
        }
        let state = RoutineState {
            created: made,
            description: description.to_owned(),
            environments: ENVIRONMENTS.map(Environment::new).to_vec(),
            versions: Vec::new(),
        };
        self.views.note(name, &state, Duration::ZERO);
        self.routines.insert(name.clone(), state);
        Ok(())
    }

    /// Gives out the number of a new version, and with [`Slot::AtUpload`] lists it at once, without code.
    pub fn begin_upload(
        &mut self,
        name: &RoutineName,
        description: &str,
        now: Timestamp,
    ) -> Result<Revision, Refusal> {
        let Settings { slot, cap, .. } = self.settings;
        let revision = self.next_number(now);
        let stored_description = self.store_text(description);
        let routine = self.routine_mut(name)?;
        if slot == Slot::AtUpload {
            let version = Version {
                revision: revision.clone(),
                stored_description,
                code: None,
            };
            routine.add(version, cap)?;
        }
        Ok(revision)
    }

    /// Takes the code that was posted for a version, and with [`Slot::AtCallback`] lists the version.
    ///
    /// Where a form can be posted again while it lives, the later bytes count. After a delete it brings the
    /// version back under [`Slot::AtCallback`], where only the callback makes one, and fails under
    /// [`Slot::AtUpload`].
    pub fn register(
        &mut self,
        name: &RoutineName,
        revision: &Revision,
        stored_description: &str,
        code: Code,
    ) -> Result<(), Refusal> {
        let code = if self.settings.normalised_code {
            normalised(&code)
        } else {
            code
        };
        let Settings { slot, cap, .. } = self.settings;
        let is_staged = revision
            .number()
            .is_none_or(|number| self.staged.contains(&number));
        let routine = self.routine_mut(name)?;
        let version = Version {
            revision: revision.clone(),
            stored_description: stored_description.to_owned(),
            code: Some(code),
        };
        if is_staged {
            return staging::register(routine, version, cap);
        }
        if let Some(there) = routine
            .versions
            .iter_mut()
            .find(|v| v.revision == *revision)
        {
            *there = version;
            return Ok(());
        }
        match slot {
            Slot::AtUpload => Err(no_such_revision(revision)),
            Slot::AtCallback => routine.add(version, cap).map(|_| ()),
        }
    }

    /// Lists a version with a number of its own time that no other has.
    pub(super) fn add_version(
        &mut self,
        name: &RoutineName,
        code: Option<Code>,
        description: &str,
        made: Timestamp,
    ) -> Result<Revision, Refusal> {
        let cap = self.settings.cap;
        let mut number = nanoseconds(made);
        while self.given.contains(&number) {
            number += 1;
        }
        let version = Version {
            revision: self.give(number),
            stored_description: self.store_text(description),
            code,
        };
        self.routine_mut(name)?.add(version, cap)
    }

    pub(super) fn set_live(
        &mut self,
        name: &RoutineName,
        revision: &Revision,
        environments: &[&str],
    ) -> Result<(), Refusal> {
        let routine = self.routine_mut(name)?;
        let version = routine
            .version(revision)
            .filter(|version| !version.revision.is_staging())
            .ok_or_else(|| no_such_revision(revision))?;
        if version.code.is_none() {
            return Err(Refusal::general(format!(
                "code revision {revision} has no code"
            )));
        }
        let known = |env: &&str| routine.environments.iter().any(|e| e.name == *env);
        if let Some(odd) = environments.iter().find(|env| !known(env)) {
            return Err(Refusal::general(format!("no such environment: {odd}")));
        }
        for environment in &mut routine.environments {
            if environments.contains(&environment.name) {
                environment.live = Some(revision.clone());
            }
        }
        Ok(())
    }

    /// Why a version may not be removed.
    pub(super) fn removable(&self, name: &RoutineName, revision: &Revision) -> Result<(), Refusal> {
        let routine = self
            .routine(name)
            .ok_or_else(|| no_such_routine(name.as_str()))?;
        if routine.version(revision).is_none() {
            return Err(no_such_revision(revision));
        }
        match routine.live_in(revision).first() {
            Some(env) if self.settings.guard => {
                let cause = format!("code revision {revision} is in use in {env}");
                Err(Refusal::general(cause))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn remove(
        &mut self,
        name: &RoutineName,
        revision: &Revision,
    ) -> Result<(), Refusal> {
        let routine = self.routine_mut(name)?;
        routine.versions.retain(|v| v.revision != *revision);
        Ok(())
    }

    /// What the describing operations tell of a routine.
    pub(super) fn told(&self, name: &RoutineName) -> Option<&RoutineState> {
        let present = self.routines.get(name)?;
        if self.settings.lag.is_zero() {
            return Some(present);
        }
        self.views.told(name, self.now.elapsed).or(Some(present))
    }

    /// Whether the form of a version is posted for the first time. It counts as posted from now on.
    pub(super) fn first_post(&mut self, revision: &Revision) -> bool {
        if self.posted.len() >= MAX_NUMBERS {
            self.posted.pop_first();
        }
        revision
            .number()
            .is_none_or(|number| self.posted.insert(number))
    }

    pub(super) fn is_live(&self, name: &RoutineName, revision: &Revision) -> bool {
        self.routine(name)
            .is_some_and(|routine| !routine.live_in(revision).is_empty())
    }

    pub(super) fn store_text(&self, text: &str) -> String {
        store_text(text, self.settings.description_form)
    }

    pub(super) fn routine_mut(&mut self, name: &RoutineName) -> Result<&mut RoutineState, Refusal> {
        self.routines
            .get_mut(name)
            .ok_or_else(|| no_such_routine(name.as_str()))
    }

    /// Keeps the record of a request that the service carried out, or refused.
    pub(super) fn enter(
        &mut self,
        mut record: Record,
        status: u16,
        refusal: Option<&Refusal>,
        hit: Option<&Hit>,
    ) {
        record.decision = match (hit, refusal) {
            (Some(_), _) => Decision::Fault,
            (None, Some(refusal)) if refusal.code.starts_with("Throttling") => Decision::Throttled,
            (None, Some(_)) => Decision::Refused,
            (None, None) => Decision::Ok,
        };
        record.code = refusal.map(|refusal| refusal.code.to_string());
        record.status = hit.map_or(status, |hit| hit.action.status_after(status));
        self.keep(record);
    }

    /// Keeps a record as it is, and what it did to its routine for those who are told late.
    pub(super) fn keep(&mut self, mut record: Record) {
        if let Some((name, routine)) = record
            .routine
            .as_ref()
            .and_then(|name| self.routines.get_key_value(name))
        {
            record.slots = Some(routine.versions.len());
            let now = self.now.elapsed;
            if !self.settings.lag.is_zero() {
                self.views.note(name, routine, now + self.settings.lag);
                self.views.forget(name, now);
            }
        }
        self.history.push(record);
    }

    /// Tells all of a routine's changes from now on, however far answers lag.
    pub(super) fn tell(&mut self, name: &RoutineName) {
        if let Some(routine) = self.routines.get(name) {
            self.views.note(name, routine, self.now.elapsed);
        }
    }

    /// A fresh id in the shape of the service's own; it counts, since nothing here is left to chance.
    pub(super) fn next_request_id(&mut self) -> String {
        self.requests += 1;
        format!("E0000000-0000-4000-8000-{:012X}", self.requests)
    }

    /// Host and port under which the emulator is reached.
    pub(super) fn host(&self) -> &str {
        self.origin.rsplit("//").next().unwrap_or_default()
    }

    /// A number that is newer than all others.
    pub(super) fn next_number(&mut self, now: Timestamp) -> Revision {
        let newest = self.given.last().copied().unwrap_or(0);
        self.give(nanoseconds(now).max(newest + 1))
    }

    fn give(&mut self, number: u64) -> Revision {
        self.given.insert(number);
        if self.given.len() > MAX_NUMBERS {
            self.given.pop_first();
        }
        Revision::new(&number.to_string())
    }
}

fn nanoseconds(time: Timestamp) -> u64 {
    u64::try_from(time.as_nanosecond()).unwrap_or(0)
}

/// Code as a service would keep it that takes it for text.
fn normalised(code: &Code) -> Code {
    let bytes = code.bytes();
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut kept = Vec::with_capacity(bytes.len());
    for (index, byte) in bytes.iter().enumerate() {
        if *byte != b'\r' || bytes.get(index + 1) != Some(&b'\n') {
            kept.push(*byte);
        }
    }
    Code::new(kept)
}

#[cfg(test)]
mod tests;
