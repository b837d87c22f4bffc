//! The remote as a state machine: which changes of routines and versions are possible, and when.
//!
//! It knows no sockets, clock or chance: times are arguments, and numbers come from them. The wire shapes of the
//! API are in `operations`, those of object storage in `storage`. What the service leaves undocumented is a field of
//! [`Settings`], so that a test can run under each answer.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;

use super::gateway::Gateway;
use super::history::History;
use super::reply::Refusal;
use super::routines::{
    ENVIRONMENTS, Environment, RoutineState, Version, no_such_revision, no_such_routine, store_text,
};
use crate::routine::{Code, Revision, RoutineName};

/// How many numbers of versions are remembered; beyond it the oldest is forgotten, which lets it be seeded again.
const MAX_NUMBERS: usize = 1_000_000;

/// When an upload takes its place among the versions of a routine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Slot {
    /// When the form is asked for: the version is listed before it has any code.
    AtUpload,
    /// When object storage calls back: an upload that is never posted leaves nothing behind.
    AtCallback,
}

/// How the emulated service behaves where the real one gives no word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// When an upload takes its slot.
    pub slot: Slot,
    /// Whether deleting a version that is live somewhere is refused. Where it is not, the environment goes on naming
    /// the version that is gone.
    pub guard: bool,
    /// How many versions a routine may have, whatever their kind.
    pub cap: usize,
    /// How long a form may be posted, counted in whole seconds.
    pub form_life: Duration,
}

/// The two clocks at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// The wall clock, for time stamps, expiry and the numbers of versions. It may step.
    pub wall: Timestamp,
    /// Since the emulator started, on a clock that never steps back.
    pub elapsed: Duration,
}

/// All that the emulated service holds.
#[derive(Debug)]
pub struct World {
    pub(super) settings: Settings,
    /// Scheme, host and port under which the emulator is reached.
    pub(super) origin: String,
    pub(super) routines: BTreeMap<RoutineName, RoutineState>,
    pub(super) gateway: Gateway,
    pub(super) history: History,
    /// Every number given to a version, listed or not, so that none is given twice.
    given: BTreeSet<u64>,
    requests: u64,
}

impl Default for Settings {
    /// What the service documents, and where it does not, the answer that helps a client less.
    fn default() -> Self {
        Self {
            slot: Slot::AtUpload,
            guard: false,
            cap: 10,
            form_life: Duration::from_secs(300),
        }
    }
}

impl World {
    /// A service without routines. `origin` is scheme, host and port under which it is reached.
    pub fn new(settings: Settings, origin: &str) -> Self {
        Self {
            settings,
            origin: origin.to_owned(),
            routines: BTreeMap::new(),
            gateway: Gateway::default(),
            history: History::default(),
            given: BTreeSet::new(),
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
        self.routines.insert(name.clone(), state);
        Ok(())
    }

    /// Puts a version there as somebody else's upload would, made at the given time. Without `code` it is an upload
    /// that was never posted. Fails if the routine is missing or full.
    pub fn seed(
        &mut self,
        name: &RoutineName,
        code: Option<&[u8]>,
        description: &str,
        made: Timestamp,
    ) -> Result<Revision, Refusal> {
        let cap = self.settings.cap;
        let mut number = nanoseconds(made);
        while self.given.contains(&number) {
            number += 1;
        }
        let revision = self.give(number);
        let version = Version {
            revision,
            stored_description: store_text(description),
            code: code.map(|bytes| Code::new(bytes.to_vec())),
        };
        self.routine_mut(name)?.add(version, cap)
    }

    /// Gives out the number of a new version, and with [`Slot::AtUpload`] lists it at once, without code.
    pub fn begin_upload(
        &mut self,
        name: &RoutineName,
        description: &str,
        now: Timestamp,
    ) -> Result<Revision, Refusal> {
        let Settings { slot, cap, .. } = self.settings;
        let newest = self.given.last().copied().unwrap_or(0);
        let revision = self.give(nanoseconds(now).max(newest + 1));
        let routine = self.routine_mut(name)?;
        if slot == Slot::AtUpload {
            let version = Version {
                revision: revision.clone(),
                stored_description: store_text(description),
                code: None,
            };
            routine.add(version, cap)?;
        }
        Ok(revision)
    }

    /// Takes the code that was posted for a version, and with [`Slot::AtCallback`] lists the version.
    ///
    /// A form can be posted again while it lives, and then the later bytes count. After a delete it brings the
    /// version back under [`Slot::AtCallback`], where only the callback makes one, and fails under
    /// [`Slot::AtUpload`].
    pub fn register(
        &mut self,
        name: &RoutineName,
        revision: &Revision,
        stored_description: &str,
        code: Code,
    ) -> Result<(), Refusal> {
        let Settings { slot, cap, .. } = self.settings;
        let routine = self.routine_mut(name)?;
        let version = Version {
            revision: revision.clone(),
            stored_description: stored_description.to_owned(),
            code: Some(code),
        };
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

    /// Makes a version live in environments, in all of them or in none. Fails if one of them or the version is
    /// unknown, or the version has no code.
    pub fn publish(
        &mut self,
        name: &RoutineName,
        revision: &Revision,
        environments: &[&str],
    ) -> Result<(), Refusal> {
        let routine = self.routine_mut(name)?;
        let version = routine
            .version(revision)
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

    /// Removes a version. Fails if it is unknown, or live while [`Settings::guard`] is on.
    pub fn delete(&mut self, name: &RoutineName, revision: &Revision) -> Result<(), Refusal> {
        let guard = self.settings.guard;
        let routine = self.routine_mut(name)?;
        if routine.version(revision).is_none() {
            return Err(no_such_revision(revision));
        }
        if guard && let Some(env) = routine.live_in(revision).first() {
            let cause = format!("code revision {revision} is in use in {env}");
            return Err(Refusal::general(cause));
        }
        routine.versions.retain(|v| v.revision != *revision);
        Ok(())
    }

    pub(super) fn routine_mut(&mut self, name: &RoutineName) -> Result<&mut RoutineState, Refusal> {
        self.routines
            .get_mut(name)
            .ok_or_else(|| no_such_routine(name.as_str()))
    }

    fn give(&mut self, number: u64) -> Revision {
        self.given.insert(number);
        if self.given.len() > MAX_NUMBERS {
            self.given.pop_first();
        }
        Revision::new(&number.to_string())
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
}

fn nanoseconds(time: Timestamp) -> u64 {
    u64::try_from(time.as_nanosecond()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use proptest::prelude::*;

    use super::*;

    fn noon() -> Timestamp {
        "2026-02-03T12:00:00Z".parse().unwrap()
    }

    fn hello() -> RoutineName {
        RoutineName::new("hello").unwrap()
    }

    fn world(slot: Slot) -> World {
        let settings = Settings {
            slot,
            ..Settings::default()
        };
        let mut world = World::new(settings, "http://127.0.0.1:1");
        world.create_routine(&hello(), "", noon()).unwrap();
        world
    }

    fn seed(world: &mut World, code: &str) -> Revision {
        world
            .seed(&hello(), Some(code.as_bytes()), "seeded", noon())
            .unwrap()
    }

    fn post(world: &mut World, revision: &Revision, code: &str) -> Result<(), Refusal> {
        world.register(
            &hello(),
            revision,
            &store_text("posted"),
            Code::new(code.into()),
        )
    }

    fn count(world: &World) -> usize {
        world.routine(&hello()).unwrap().versions().len()
    }

    fn said(outcome: Result<impl Sized, Refusal>) -> String {
        outcome.map_or_else(|refusal| refusal.to_string(), |_| "ok".into())
    }

    #[test]
    fn the_eleventh_upload_gets_no_form_when_the_form_takes_the_slot() {
        let mut world = world(Slot::AtUpload);
        for _ in 0..10 {
            world.begin_upload(&hello(), "d", noon()).unwrap();
        }
        assert_eq!(count(&world), 10, "an upload without code counts");
        let refused = said(world.begin_upload(&hello(), "d", noon()));
        assert!(
            refused.contains("you got upper limit of code revisions"),
            "{refused}"
        );
    }

    #[test]
    fn the_eleventh_upload_fails_at_its_callback_when_the_callback_takes_the_slot() {
        let mut world = world(Slot::AtCallback);
        let given: Vec<Revision> = (0..11)
            .map(|_| world.begin_upload(&hello(), "d", noon()).unwrap())
            .collect();
        assert_eq!(count(&world), 0, "a form that is not posted leaves nothing");
        for revision in &given[..10] {
            post(&mut world, revision, "x").unwrap();
        }
        let refused = said(post(&mut world, &given[10], "x"));
        assert!(
            refused.contains("you got upper limit of code revisions"),
            "{refused}"
        );
        assert_eq!(
            said(post(&mut world, &given[0], "again")),
            "ok",
            "no second place is needed"
        );
        assert_eq!(count(&world), 10);
    }

    #[test]
    fn numbers_rise_even_when_the_clock_stands_or_steps_back() {
        let mut world = world(Slot::AtUpload);
        let first = world.begin_upload(&hello(), "d", noon()).unwrap();
        let second = world.begin_upload(&hello(), "d", noon()).unwrap();
        let third = world
            .begin_upload(&hello(), "d", noon() - SignedDuration::from_hours(1))
            .unwrap();
        assert_eq!(first.as_str(), "1770120000000000000");
        assert_eq!(second.as_str(), "1770120000000000001");
        assert_eq!(third.as_str(), "1770120000000000002");
    }

    #[test]
    fn versions_seeded_for_one_moment_keep_apart_and_old_ones_sort_first() {
        let mut world = world(Slot::AtUpload);
        let fresh = world.begin_upload(&hello(), "d", noon()).unwrap();
        let old = noon() - SignedDuration::from_hours(48);
        let a = world.seed(&hello(), None, "a", old).unwrap();
        let b = world.seed(&hello(), Some(b"b"), "b", old).unwrap();
        let routine = world.routine(&hello()).unwrap();
        let order: Vec<&Revision> = routine.versions().iter().map(|v| &v.revision).collect();
        assert_eq!(order, [&a, &b, &fresh]);
        assert_eq!(routine.version(&a).unwrap().created(), Some(old));
        assert_eq!(routine.version(&b).unwrap().bytes(), Some(&b"b"[..]));
    }

    #[test]
    fn a_live_version_is_deleted_only_without_the_guard() {
        for guard in [true, false] {
            let mut world = world(Slot::AtUpload);
            world.settings.guard = guard;
            let live = seed(&mut world, "live");
            let idle = seed(&mut world, "idle");
            world
                .publish(&hello(), &live, &["presetCanaryZhejiang"])
                .unwrap();
            assert_eq!(said(world.delete(&hello(), &idle)), "ok");
            assert_eq!(world.delete(&hello(), &live).is_err(), guard);
            assert_eq!(count(&world), usize::from(guard));
            let routine = world.routine(&hello()).unwrap();
            assert_eq!(
                routine.live("presetCanaryZhejiang"),
                Some(&live),
                "the environment goes on naming it"
            );
            assert!(world.delete(&hello(), &idle).is_err(), "it is gone");
        }
    }

    #[test]
    fn a_publish_changes_all_its_environments_or_none() {
        let mut world = world(Slot::AtUpload);
        let old = seed(&mut world, "old");
        let new = seed(&mut world, "new");
        let orphan = world.seed(&hello(), None, "orphan", noon()).unwrap();
        world
            .publish(&hello(), &old, &["production", "staging"])
            .unwrap();
        let odd_case = ["staging", "Production"];
        assert!(
            said(world.publish(&hello(), &new, &odd_case))
                .contains("no such environment: Production")
        );
        assert!(said(world.publish(&hello(), &orphan, &["staging"])).contains("has no code"));
        assert!(
            said(world.publish(&hello(), &Revision::new("7"), &["staging"]))
                .contains("no such code revision")
        );
        assert_eq!(
            world.routine(&hello()).unwrap().live_in(&old),
            ["production", "staging"]
        );
        world.publish(&hello(), &new, &["staging"]).unwrap();
        assert_eq!(
            world.routine(&hello()).unwrap().live_in(&old),
            ["production"]
        );
    }

    #[test]
    fn a_form_posted_after_its_version_was_deleted_makes_one_only_at_the_callback() {
        for (slot, versions) in [(Slot::AtUpload, 0), (Slot::AtCallback, 1)] {
            let mut world = world(slot);
            let revision = world.begin_upload(&hello(), "d", noon()).unwrap();
            post(&mut world, &revision, "first").unwrap();
            world.delete(&hello(), &revision).unwrap();
            let again = post(&mut world, &revision, "late");
            assert_eq!(again.is_ok(), versions == 1, "{slot:?}");
            assert_eq!(count(&world), versions, "{slot:?}");
        }
    }

    #[test]
    fn a_missing_routine_is_told_in_every_answer() {
        let mut world = World::new(Settings::default(), "http://127.0.0.1:1");
        let (name, revision) = (hello(), Revision::new("1"));
        for outcome in [
            said(world.begin_upload(&name, "d", noon())),
            said(world.seed(&name, None, "d", noon())),
            said(world.publish(&name, &revision, &["staging"])),
            said(world.delete(&name, &revision)),
            said(post(&mut world, &revision, "x")),
        ] {
            assert!(
                outcome.contains("routine hello does not exist"),
                "{outcome}"
            );
        }
    }

    #[derive(Debug, Clone)]
    enum Deed {
        Begin,
        Post(usize),
        Seed,
        Delete(usize),
    }

    fn deed() -> impl Strategy<Value = Deed> {
        prop_oneof![
            4 => Just(Deed::Begin),
            4 => (0_usize..30).prop_map(Deed::Post),
            1 => Just(Deed::Seed),
            2 => (0_usize..30).prop_map(Deed::Delete),
        ]
    }

    proptest! {
        #[test]
        fn no_order_of_deeds_gives_an_eleventh_version_or_a_number_twice(
            deeds in prop::collection::vec(deed(), 0..60),
            at_upload in any::<bool>(),
        ) {
            let mut world = world(if at_upload { Slot::AtUpload } else { Slot::AtCallback });
            let mut given: Vec<Revision> = Vec::new();
            for deed in deeds {
                match deed {
                    Deed::Begin => given.extend(world.begin_upload(&hello(), "d", noon())),
                    Deed::Seed => given.extend(world.seed(&hello(), None, "d", noon())),
                    Deed::Post(i) => {
                        if let Some(revision) = given.get(i) {
                            let _ = post(&mut world, revision, "x");
                        }
                    }
                    Deed::Delete(i) => {
                        if let Some(revision) = given.get(i) {
                            let _ = world.delete(&hello(), revision);
                        }
                    }
                }
                let versions = world.routine(&hello()).unwrap().versions();
                prop_assert!(versions.len() <= 10);
            }
            let distinct: BTreeSet<&Revision> = given.iter().collect();
            prop_assert_eq!(distinct.len(), given.len());
        }
    }
}
