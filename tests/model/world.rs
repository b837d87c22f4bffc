//! The world of the model: one service, the er-devs that use it, people, and everything that may go wrong between them.
//!
//! The clock stands still while anybody is at work and jumps when somebody waits, so that states coincide. A request
//! without an answer is on its way until it has settled: it may be carried out at any moment before, which covers a
//! lost request, a lost answer and a late one alike. A crash between the record of a request and its outcome is the
//! same to the service, and to the er-dev the loss of all it had in memory.

use std::collections::BTreeSet;
use std::time::Duration;

use er_dev::cloud::{Environments, Listing};
use er_dev::config::{Revisions, Rotate, Verify};
use er_dev::revision::mark::Mark;
use er_dev::revision::protocol::{Content, Late, Rules, Step, Why};
use er_dev::revision::rotation::Policy;
use er_dev::routine::Revision;
use stateright::{Model, Property};

use super::daemon::{self, Daemon, Dir, Job, Phase};
use super::service::{self, Manners, Reply, Request, Service, bit, digest, moment, revision};

/// How long a request without an answer is waited for, in seconds.
const PATIENCE: u8 = 3;

/// The second at which it begins, so that what was there before is old.
const START: u8 = 10;

/// How many steps in a row er-dev may take of which none answers to anything from outside.
const PATIENCE_WITH_ER_DEV: u8 = 70;

/// A promise, by the name of its property.
pub(crate) mod promise {
    pub(crate) const CAP: &str = "there are never more versions than slots";
    pub(crate) const LIVE: &str = "a live version is never deleted";
    pub(crate) const NEWEST: &str = "the newest version is safe even while it is being published";
    pub(crate) const PROOF: &str = "what is reported as stored is there";
    pub(crate) const SAVED: &str = "what is deleted was saved or has no code";
    pub(crate) const FOREIGN: &str = "with `own` nothing foreign is deleted";
    pub(crate) const STORED: &str = "at rest the newest code is stored";
    pub(crate) const ROOM: &str = "at rest a slot is free";
    pub(crate) const ONCE: &str = "at rest nothing is there twice";
    pub(crate) const END: &str = "er-dev comes to an end";
    pub(crate) const PLACE: &str = "where nothing can be saved nothing is deleted";
    pub(crate) const FREE: &str = "er-dev is blocked only where versions are protected";
}

/// Something that protects, and that a test takes away from around the product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Guard {
    Lookup,
    ReadBack,
    LiveCheck,
    Lock,
    Settle,
    Save,
    FreshLook,
    StagingLook,
    NextOldest,
}

/// What may go wrong with a step, once for each fault in the budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Fault {
    /// A changing request gets no answer.
    Silence,
    /// A reading request gets no answer.
    Unread,
    /// A request does not leave this machine.
    NotSent,
    /// A changing request is carried out, and its answer says nothing.
    OddDone,
    /// A changing request is not carried out, and its answer says nothing.
    OddLost,
    /// A form has ended.
    FormEnded,
    /// A reading request shows the service as it was.
    Stale,
    /// A version cannot be saved, and others could.
    Unsaved,
    /// Nothing can be saved in this pass.
    NoPlace,
}

/// What people may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum People {
    Upload,
    Publish,
    Delete,
}

/// One small world.
#[derive(Debug, Clone)]
pub(crate) struct World {
    /// Versions of people at the start, of which the first ones are live, one an environment.
    pub(crate) foreign: u8,
    pub(crate) environments: u8,
    pub(crate) manners: Manners,
    pub(crate) rotate: Rotate,
    pub(crate) keep_newest: usize,
    /// The host of each er-dev; those of one host share a state directory.
    pub(crate) hosts: Vec<usize>,
    /// How many codes the user of the first host goes through, and how often.
    pub(crate) codes: u8,
    pub(crate) edits: u8,
    pub(crate) faults: (u8, &'static [Fault]),
    /// How often an er-dev may crash.
    pub(crate) crashes: u8,
    pub(crate) people: (u8, &'static [People]),
    /// How often an er-dev takes its time between two steps.
    pub(crate) dawdles: u8,
    /// How many requests may be carried out after they should have settled.
    pub(crate) very_late: u8,
    pub(crate) without: Option<Guard>,
    /// Whether uploads go to staging.
    pub(crate) staging: bool,
}

/// A request without an answer that may still be carried out.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Flying {
    request: Request,
    /// When it should have settled; `None` if it has not by then.
    until: Option<u8>,
    by: usize,
}

/// Whether something was carried out after anybody waits for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Surprise {
    None,
    /// It was, and no pass has begun since.
    New,
    /// A pass has begun since, and at its end nothing may be left of it.
    Looking,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct State {
    now: u8,
    service: Service,
    dirs: Vec<Dir>,
    daemons: Vec<Daemon>,
    flying: Vec<Flying>,
    /// Versions whose deletion got no answer: nothing rests on them.
    doomed: BTreeSet<u8>,
    surprised: Surprise,
    left: Left,
    /// Steps since something came from outside.
    calm: u8,
    /// The promises that were broken by the last step.
    broken: Vec<&'static str>,
}

/// What may still happen.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Left {
    edits: u8,
    faults: u8,
    crashes: u8,
    people: u8,
    dawdles: u8,
    very_late: u8,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// The user saves this code.
    Edit(u8),
    Begin(usize),
    /// An er-dev takes its next step, and all is well.
    Step(usize, Step),
    Fault(usize, Step, Fault),
    /// An er-dev dies with its next request sent.
    CrashAfter(usize, Step),
    /// An er-dev dies before it does anything about its next step.
    CrashBefore(usize, Step),
    /// What was on its way is carried out.
    Land(Request),
    /// Nobody has anything to do before this second. With `kept`, what should have settled has not.
    Wait {
        until: u8,
        kept: bool,
    },
    /// An er-dev that is at work takes a second for it.
    Dawdle,
    Upload,
    Publish(u8, usize),
    Delete(u8),
}

impl World {
    /// A world with one er-dev, no trouble, and a service that takes a slot at the upload.
    pub(crate) fn new() -> Self {
        Self {
            foreign: 2,
            environments: 1,
            manners: Manners {
                cap: 3,
                at_callback: false,
                enforced: true,
                lag: 0,
            },
            rotate: Rotate::Any,
            keep_newest: 1,
            hosts: vec![0],
            codes: 2,
            edits: 1,
            faults: (0, &[]),
            crashes: 0,
            people: (0, &[]),
            dawdles: 0,
            very_late: 0,
            without: None,
            staging: false,
        }
    }

    fn rules(&self, host: usize) -> Rules {
        Rules {
            policy: Policy::new(&Revisions {
                cap: 3,
                reserve: 1,
                keep_newest: self.keep_newest,
                rotate: self.rotate,
                pin: Vec::new(),
                verify: Verify::Doubt,
            }),
            instance: service::instance(host_id(host)),
            lag: Duration::from_secs(u64::from(self.manners.lag)),
        }
    }

    fn lacks(&self, guard: Guard) -> bool {
        self.without == Some(guard)
    }

    fn patience(&self) -> u8 {
        if self.lacks(Guard::Settle) {
            0
        } else {
            PATIENCE
        }
    }

    fn has(&self, people: People) -> bool {
        self.people.1.contains(&people)
    }

    /// Whether nothing but er-dev itself keeps versions from being deleted, or takes them away.
    fn is_alone(&self) -> bool {
        self.people.0 == 0 && self.hosts.iter().all(|host| *host == 0)
    }
}

impl Model for World {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let hosts = self.hosts.iter().max().map_or(1, |most| most + 1);
        // The second host works on a code of its own.
        let dirs: Vec<Dir> = (0..hosts).map(|host| Dir::new(host_id(host) * 4)).collect();
        let daemons = self
            .hosts
            .iter()
            .map(|host| Daemon::new(*host, &dirs[*host], self.staging));
        vec![State {
            now: START,
            service: Service::new(self.foreign, self.environments),
            daemons: daemons.collect(),
            dirs,
            flying: Vec::new(),
            doomed: BTreeSet::new(),
            surprised: Surprise::None,
            left: Left {
                edits: self.edits,
                faults: self.faults.0,
                crashes: self.crashes,
                people: self.people.0,
                dawdles: self.dawdles,
                very_late: self.very_late,
            },
            calm: 0,
            broken: Vec::new(),
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        // What follows on a broken promise says nothing new.
        if !state.broken.is_empty() || state.calm > PATIENCE_WITH_ER_DEV {
            return;
        }
        for (d, daemon) in state.daemons.iter().enumerate() {
            let locked = state.dirs[daemon.dir].locked && !self.lacks(Guard::Lock);
            match daemon.phase {
                Phase::Ready(_) if !locked => actions.push(Action::Begin(d)),
                Phase::Storing | Phase::Trimming => self.steps(state, d, actions),
                _ => {}
            }
        }
        actions.extend(
            state
                .flying
                .iter()
                .map(|flying| Action::Land(flying.request)),
        );
        actions.extend(state.wait(self));
        let working = |host: usize| {
            let daemons = state.daemons.iter();
            daemons.filter(|d| d.dir == host).any(Daemon::in_pass)
        };
        // The file is read when a pass begins, so an edit amid one is as good as one at its end.
        if state.left.edits > 0 && !working(0) {
            let others = (0..self.codes).filter(|code| *code != state.dirs[0].disk);
            actions.extend(others.map(Action::Edit));
        }
        if state.left.dawdles > 0 && state.daemons.iter().any(Daemon::in_pass) {
            actions.push(Action::Dawdle);
        }
        if state.left.people > 0 {
            self.people(state, actions);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        state.calm += 1;
        match action {
            Action::Begin(d) => state.begin(d, self),
            Action::Step(d, step) => state.step(d, step, None, self),
            Action::Wait { until, kept } => state.pass_time(until, kept, self),
            outside => {
                state.calm = 0;
                state.befall(outside, self);
            }
        }
        state.flying.sort();
        state.judge(self);
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        macro_rules! kept {
            ($promise:expr) => {
                Property::always($promise, |_, state: &State| {
                    !state.broken.contains(&$promise)
                })
            };
        }
        vec![
            kept!(promise::CAP),
            kept!(promise::LIVE),
            kept!(promise::NEWEST),
            kept!(promise::PROOF),
            kept!(promise::SAVED),
            kept!(promise::FOREIGN),
            kept!(promise::STORED),
            kept!(promise::ROOM),
            kept!(promise::ONCE),
            kept!(promise::END),
            kept!(promise::PLACE),
            kept!(promise::FREE),
        ]
    }
}

impl World {
    /// What may come of an er-dev's next step.
    fn steps(&self, state: &State, d: usize, actions: &mut Vec<Action>) {
        let step = state.next(d, self);
        let posts = matches!(step, Step::Post(_));
        let changes = posts || matches!(step, Step::Upload | Step::Stage | Step::Delete(..));
        if state.left.faults > 0 {
            let may = |fault: &&Fault| match fault {
                Fault::Silence | Fault::OddDone | Fault::OddLost => changes,
                Fault::NotSent => changes,
                Fault::FormEnded => posts,
                Fault::Unread | Fault::Stale => !changes,
                Fault::Unsaved | Fault::NoPlace => matches!(step, Step::Save(_)),
            };
            let faults = self.faults.1.iter().filter(may);
            actions.extend(faults.map(|fault| Action::Fault(d, step.clone(), *fault)));
        }
        if state.left.crashes > 0 && changes {
            actions.push(Action::CrashBefore(d, step.clone()));
            actions.push(Action::CrashAfter(d, step.clone()));
        }
        actions.push(Action::Step(d, step));
    }

    fn people(&self, state: &State, actions: &mut Vec<Action>) {
        let versions = &state.service.versions;
        if self.has(People::Upload) && versions.len() < self.manners.cap {
            actions.push(Action::Upload);
        }
        for version in versions {
            let number = version.number;
            let live = state.service.is_live(number, None, state.now);
            if self.has(People::Delete) && !live {
                actions.push(Action::Delete(number));
            }
            if self.has(People::Publish) && version.code.is_some() {
                let environments = 0..usize::from(self.environments);
                actions
                    .extend(environments.map(|environment| Action::Publish(number, environment)));
            }
        }
    }
}

impl State {
    /// What comes from outside.
    fn befall(&mut self, action: Action, world: &World) {
        let manners = &world.manners;
        match action {
            Action::Edit(code) => {
                self.left.edits -= 1;
                self.dirs[0].disk = code;
                for daemon in self.daemons.iter_mut().filter(|daemon| daemon.dir == 0) {
                    daemon.edited(&self.dirs[0]);
                }
            }
            Action::Fault(d, step, fault) => {
                self.left.faults -= 1;
                self.step(d, step, Some(fault), world);
            }
            Action::CrashBefore(d, _) => self.crash(d),
            Action::CrashAfter(d, step) => {
                self.step(d, step, Some(Fault::Silence), world);
                self.crash(d);
            }
            Action::Land(request) => {
                let Some(at) = self.flying.iter().position(|f| f.request == request) else {
                    return;
                };
                let flying = self.flying.remove(at);
                if flying.until.is_none() {
                    self.surprised = Surprise::New;
                }
                self.carry_out(request, flying.by, world);
                if flying.until.is_none() && world.staging && !world.lacks(Guard::StagingLook) {
                    self.look_at_staging(world);
                }
            }
            Action::Dawdle => {
                self.left.dawdles -= 1;
                self.now += 1;
            }
            Action::Upload => {
                self.left.people -= 1;
                self.service.upload_by_hand(manners, self.now);
            }
            Action::Publish(number, environment) => {
                self.left.people -= 1;
                self.service.publish(number, environment, self.now);
            }
            Action::Delete(number) => {
                self.left.people -= 1;
                let request = Request::Delete { number };
                let _ = self.service.carry_out(request, manners, self.now, u8::MAX);
            }
            Action::Begin(_) | Action::Step(..) | Action::Wait { .. } => {}
        }
        // What is blocked is looked at again now and then, and something has changed.
        for d in 0..self.daemons.len() {
            let daemon = &mut self.daemons[d];
            if daemon.blocked && daemon.phase == Phase::Rest && daemon.synced != Some(daemon.wanted)
            {
                daemon.phase = Phase::Ready(Job::Deploy);
            }
        }
    }

    /// The jumps that time may make, if nobody has anything to do.
    fn wait(&self, world: &World) -> Vec<Action> {
        let busy = |daemon: &Daemon| daemon.in_pass() || matches!(daemon.phase, Phase::Ready(_));
        if self.daemons.iter().any(busy) {
            return Vec::new();
        }
        let waiting = self.daemons.iter().filter_map(|daemon| match daemon.phase {
            Phase::Waiting(until, _) => (self.now + 1..=u8::MAX).find(|s| moment(*s) >= until),
            _ => None,
        });
        let settling = self.flying.iter().filter_map(|flying| flying.until);
        let Some(until) = waiting.chain(settling.clone()).min() else {
            return Vec::new();
        };
        let due = settling.filter(|at| *at <= until).count();
        let kept = due > 0 && due <= usize::from(self.left.very_late);
        let mut jumps = vec![Action::Wait { until, kept: false }];
        if kept && world.very_late > 0 {
            jumps.push(Action::Wait { until, kept: true });
        }
        jumps
    }

    fn pass_time(&mut self, until: u8, kept: bool, world: &World) {
        self.now = until;
        let due = |flying: &Flying| flying.until.is_some_and(|at| at <= until);
        if kept {
            for flying in self.flying.iter_mut().filter(|flying| due(flying)) {
                flying.until = None;
                self.left.very_late -= 1;
            }
        }
        self.flying.retain(|flying| !due(flying));
        for daemon in &mut self.daemons {
            if let Phase::Waiting(moment_, job) = daemon.phase
                && moment_ <= moment(until)
            {
                daemon.phase = Phase::Ready(job);
            }
        }
        self.service.forget(&world.manners, until);
    }

    fn begin(&mut self, d: usize, world: &World) {
        let daemon = &mut self.daemons[d];
        let dir = &mut self.dirs[daemon.dir];
        let Phase::Ready(job) = daemon.phase else {
            return;
        };
        dir.locked = true;
        if self.surprised == Surprise::New {
            self.surprised = Surprise::Looking;
        }
        daemon.begin(job, dir, moment(self.now));
        self.think(d, world);
    }

    fn next(&self, d: usize, world: &World) -> Step {
        let daemon = &self.daemons[d];
        daemon.next(&world.rules(daemon.dir), moment(self.now))
    }

    /// Follows the decisions that touch nothing but the er-dev itself.
    fn think(&mut self, d: usize, world: &World) {
        while self.daemons[d].in_pass() {
            let step = self.next(d, world);
            let daemon = &mut self.daemons[d];
            let dir = &mut self.dirs[daemon.dir];
            let storing = daemon.phase == Phase::Storing;
            match step {
                Step::Stored(revision) if storing => {
                    let number = service::number(&revision);
                    let holds = if world.staging {
                        self.service.slot.and_then(|slot| slot.code)
                    } else {
                        self.service.version(number).and_then(|v| v.code)
                    };
                    let wanted = daemon.wanted;
                    if holds != Some(wanted) && !self.service.went_unseen(number, d) {
                        self.broken.push(promise::PROOF);
                    }
                    let goal = daemon.goal();
                    daemon.knowledge.stored(revision, &goal);
                    daemon.synced = Some(wanted);
                    daemon.phase = Phase::Trimming;
                    if world.staging {
                        daemon.write_down(dir);
                        daemon.end(dir, Phase::Rest);
                        if self.surprised == Surprise::Looking {
                            self.surprised = Surprise::None;
                        }
                    }
                }
                Step::AtRest => {
                    daemon.end(dir, Phase::Rest);
                    if self.surprised == Surprise::Looking {
                        self.surprised = Surprise::None;
                    }
                }
                Step::Wait(until) if storing => {
                    daemon.synced = None;
                    daemon.end(dir, Phase::Waiting(until, Job::Deploy));
                }
                Step::Wait(until) => daemon.end(dir, Phase::Waiting(until, Job::Tidy)),
                Step::Blocked(_) => {
                    daemon.blocked = true;
                    if storing {
                        daemon.synced = None;
                    }
                    daemon.end(dir, Phase::Rest);
                }
                _ => return,
            }
        }
    }

    fn step(&mut self, d: usize, step: Step, fault: Option<Fault>, world: &World) {
        match step {
            Step::List | Step::ReadBack(_) | Step::Save(_) if fault == Some(Fault::Unread) => {
                let daemon = &mut self.daemons[d];
                daemon.fail(&mut self.dirs[daemon.dir]);
            }
            Step::List => self.list(d, fault, world),
            Step::ReadBack(revision) => self.read_back(d, revision, fault, world),
            Step::Save(revision) => self.save(d, revision, fault, world),
            Step::Delete(revision, why) => self.delete(d, revision, why, fault, world),
            Step::Upload | Step::Stage => self.upload(d, fault, world),
            Step::Post(revision) => self.post(d, revision, fault, world),
            Step::Commit | Step::Wait(_) | Step::Stored(_) | Step::AtRest | Step::Blocked(_) => {}
        }
        self.think(d, world);
    }

    fn list(&mut self, d: usize, fault: Option<Fault>, world: &World) {
        let stale = fault == Some(Fault::Stale);
        let mut listing = self.service.listing(&world.manners, self.now, stale);
        strip(&mut listing, world);
        self.service.seen_by(d, &world.manners, self.now);
        let daemon = &mut self.daemons[d];
        let fresher = u8::from(world.lacks(Guard::FreshLook));
        let _ = daemon.knowledge.listed(
            listing,
            &world.rules(daemon.dir),
            moment(self.now + fresher),
        );
        daemon.write_down(&mut self.dirs[daemon.dir]);
    }

    fn read(&self, revision: &Revision, fault: Option<Fault>, world: &World) -> Option<Option<u8>> {
        let stale = fault == Some(Fault::Stale);
        let number = service::number(revision);
        self.service.read(number, &world.manners, self.now, stale)
    }

    fn read_back(&mut self, d: usize, revision: Revision, fault: Option<Fault>, world: &World) {
        let found = self.read(&revision, fault, world);
        let version = self.service.version(service::number(&revision));
        let mark = match self.service.slot {
            Some(slot) if revision.is_staging() => Some(slot.mark),
            _ => version.and_then(|v| v.mark),
        };
        let claimed = mark.map(|mark| mark.code);
        let daemon = &mut self.daemons[d];
        let (rules, now) = (world.rules(daemon.dir), moment(self.now));
        match found {
            Some(code) => {
                let code = if world.lacks(Guard::ReadBack) {
                    claimed
                } else {
                    code
                };
                let content = code.map_or(Content::Nothing, |code| Content::Holds(digest(code)));
                if revision.is_staging() {
                    daemon.knowledge.read_staging(content);
                } else {
                    daemon.knowledge.read_back(revision, content, &rules, now);
                }
                daemon.write_down(&mut self.dirs[daemon.dir]);
            }
            None => daemon.knowledge.not_there(revision, &rules, now),
        }
    }

    fn save(&mut self, d: usize, revision: Revision, fault: Option<Fault>, world: &World) {
        let found = self.read(&revision, fault, world);
        let daemon = &mut self.daemons[d];
        let (mut one, mut all) = (fault == Some(Fault::Unsaved), fault == Some(Fault::NoPlace));
        if one && world.lacks(Guard::NextOldest) {
            (one, all) = (false, true);
        }
        if all {
            daemon.placeless = fault == Some(Fault::NoPlace);
            daemon.knowledge.no_deletes("nothing can be saved".into());
            return;
        }
        match found {
            Some(_) if one => daemon
                .knowledge
                .spare(revision, "it cannot be saved".into()),
            Some(code) => {
                if !world.lacks(Guard::Save) {
                    let vault = &mut self.dirs[daemon.dir].vault;
                    vault.insert(service::number(&revision), code);
                }
                daemon.knowledge.saved(revision);
            }
            None => daemon.knowledge.spare(revision, "it is not there".into()),
        }
    }

    /// The promises about deletions are judged by what was true when one was asked for.
    fn delete(
        &mut self,
        d: usize,
        revision: Revision,
        why: Why,
        fault: Option<Fault>,
        world: &World,
    ) {
        let number = service::number(&revision);
        self.judge_delete(d, number, why, world);
        let late = Late::Delete(revision.clone());
        let now = moment(self.now);
        let settled = self.note(d, late.clone(), world);
        let request = Request::Delete { number };
        let reply = self.send(d, request, fault, world);
        if reply.is_none() && fault != Some(Fault::NotSent) {
            self.doomed.insert(number);
        }
        let daemon = &mut self.daemons[d];
        let dir = &mut self.dirs[daemon.dir];
        match (reply, fault) {
            (Some(_), _) => {
                daemon.knowledge.deleted(revision, true, now);
                daemon.write_down(dir);
            }
            (None, Some(Fault::NotSent)) => daemon.unsent(dir),
            (None, Some(Fault::OddDone | Fault::OddLost)) => {
                daemon.knowledge.deleted(revision, false, now);
                daemon.misanswered(late, world.rules(daemon.dir).lag, dir, now);
            }
            (None, _) => {
                daemon.knowledge.deleted(revision, false, now);
                daemon.unanswered(late, settled, dir, now);
            }
        }
    }

    fn upload(&mut self, d: usize, fault: Option<Fault>, world: &World) {
        let now = moment(self.now);
        let (code, host) = (self.daemons[d].wanted, host_id(self.daemons[d].dir));
        let late = Late::Upload(digest(code));
        let settled = self.note(d, late.clone(), world);
        let request = if world.staging {
            Request::Stage { code, host }
        } else {
            Request::Upload { code, host }
        };
        let reply = self.send(d, request, fault, world);
        let daemon = &mut self.daemons[d];
        let dir = &mut self.dirs[daemon.dir];
        match (reply, fault) {
            (Some(Reply::Made(number)), _) => {
                let description = service::description(service::Mark { code, host });
                if world.staging {
                    let slot = Revision::staging();
                    let knowledge = &mut daemon.knowledge;
                    knowledge.begun_on_staging(slot, description, digest(code));
                } else {
                    let made = revision(number);
                    daemon.knowledge.begun(made, description, digest(code), now);
                }
                daemon.form = Some(number);
            }
            (Some(_), _) => {
                daemon.knowledge.quota_hit(digest(code));
                daemon.write_down(dir);
            }
            (None, Some(Fault::NotSent)) => daemon.unsent(dir),
            (None, Some(Fault::OddDone | Fault::OddLost)) => {
                daemon.misanswered(late, world.rules(daemon.dir).lag, dir, now);
            }
            (None, _) => daemon.unanswered(late, settled, dir, now),
        }
    }

    fn post(&mut self, d: usize, made: Revision, fault: Option<Fault>, world: &World) {
        let now = moment(self.now);
        let number = service::number(&made);
        if self.daemons[d].form != Some(number) {
            self.daemons[d].knowledge.form_ended(now);
            return;
        }
        let (code, host) = (self.daemons[d].wanted, host_id(self.daemons[d].dir));
        let (late, request) = if world.staging {
            let late = Late::Staged(digest(code));
            (late, Request::PostStaged { code, host })
        } else {
            let late = Late::Upload(digest(code));
            (late, Request::Post { number, code, host })
        };
        let settled = self.note(d, late.clone(), world);
        self.daemons[d].knowledge.posting();
        let reply = self.send(d, request, fault, world);
        // What got an answer does not come later.
        let answered = Late::Upload(digest(code));
        let daemon = &mut self.daemons[d];
        let dir = &mut self.dirs[daemon.dir];
        let lag = world.rules(daemon.dir).lag;
        match (reply, fault) {
            (Some(Reply::Done | Reply::Made(_)), _) => {
                if world.staging {
                    daemon.knowledge.staged(digest(code), now);
                } else {
                    daemon.knowledge.proven(made, digest(code), now);
                }
                daemon.form = None;
                daemon.write_down(dir);
            }
            // Object storage has the code, and the callback came to nothing.
            (Some(Reply::Full | Reply::Missing), _)
            | (None, Some(Fault::OddDone | Fault::OddLost)) => {
                daemon.misanswered(answered, lag, dir, now);
            }
            (None, Some(Fault::NotSent)) => {
                daemon.knowledge.not_posted(now);
                daemon.unsent(dir);
            }
            (None, Some(Fault::FormEnded)) => {
                daemon.knowledge.form_ended(now);
                daemon.form = None;
                daemon.write_down(dir);
            }
            (None, _) => daemon.unanswered(late, settled, dir, now),
        }
    }

    /// Writes down what is about to be sent; returns when it has settled, should it get no answer.
    fn note(&mut self, d: usize, late: Late, world: &World) -> er_dev::clock::Moment {
        let settled = daemon::settled(self.now, world.patience());
        let daemon = &mut self.daemons[d];
        let dir = &mut self.dirs[daemon.dir];
        daemon.note(d, late, settled, dir, moment(self.now));
        settled
    }

    /// The answer to a changing request, if there is one that says something.
    fn send(
        &mut self,
        d: usize,
        request: Request,
        fault: Option<Fault>,
        world: &World,
    ) -> Option<Reply> {
        match fault {
            None => Some(self.carry_out(request, d, world)),
            Some(Fault::OddDone) => {
                self.carry_out(request, d, world);
                None
            }
            Some(Fault::Silence) => {
                self.flying.push(Flying {
                    request,
                    until: Some(self.now + PATIENCE),
                    by: d,
                });
                None
            }
            Some(_) => None,
        }
    }

    fn carry_out(&mut self, request: Request, by: usize, world: &World) -> Reply {
        let of_this_host = |d: &usize| self.daemons[*d].dir == self.daemons[by].dir;
        let daemons = 0..self.daemons.len();
        let others = daemons.filter(|d| !of_this_host(d)).map(bit).sum();
        let now = self.now;
        self.service.carry_out(request, &world.manners, now, others)
    }

    /// The look that is due as long as older code could come to lie over what is on staging.
    fn look_at_staging(&mut self, world: &World) {
        let now = moment(self.now);
        for daemon in &mut self.daemons {
            let rules = world.rules(daemon.dir);
            let due = daemon.synced.and_then(|code| {
                let knowledge = &daemon.knowledge;
                knowledge.staging_look(digest(code), &rules, now)
            });
            if daemon.phase == Phase::Rest && due.is_some() {
                daemon.phase = Phase::Ready(Job::Tidy);
            }
        }
    }

    fn crash(&mut self, d: usize) {
        self.left.crashes -= 1;
        let at = self.daemons[d].dir;
        self.dirs[at].locked = false;
        self.daemons[d] = Daemon::new(at, &self.dirs[at], self.daemons[d].staging);
    }

    fn judge_delete(&mut self, d: usize, number: u8, why: Why, world: &World) {
        let service = &self.service;
        if service.is_live(number, Some(d), self.now) {
            self.broken.push(promise::LIVE);
        }
        if service.is_live(number, None, self.now) && service.newest() == Some(number) {
            self.broken.push(promise::NEWEST);
        }
        let Some(version) = service.version(number) else {
            return;
        };
        let host = self.daemons[d].dir;
        let saved = self.dirs[host].vault.get(&number);
        // No look can foresee what comes after it: the code of somebody else between the saving and the deletion of
        // one pass, or of a post that nobody waits for any more. Such a post may also bring back what was deleted, and
        // that was saved then.
        let theirs = version.mark.is_some_and(|mark| mark.host != host_id(host));
        let empty_then = saved == Some(&None) && theirs;
        let unforeseen =
            empty_then || self.surprised != Surprise::None && saved.is_none_or(Option::is_none);
        if version.code.is_some() && saved != Some(&version.code) && !unforeseen {
            self.broken.push(promise::SAVED);
        }
        if self.daemons[d].placeless {
            self.broken.push(promise::PLACE);
        }
        if world.rotate == Rotate::Own && version.mark.is_none() && why == Why::Oldest {
            self.broken.push(promise::FOREIGN);
        }
    }

    /// What must hold after every step, and what must hold once nothing is left to do.
    fn judge(&mut self, world: &World) {
        let versions = &self.service.versions;
        let there = |number: &u8| versions.iter().any(|v| v.number == *number);
        self.doomed.retain(there);
        for dir in &mut self.dirs {
            dir.vault.retain(|number, _| there(number));
        }
        if self.service.taken() > world.manners.cap {
            self.broken.push(promise::CAP);
        }
        if self.calm > PATIENCE_WITH_ER_DEV {
            self.broken.push(promise::END);
        }
        let stays = |v: &service::Version| {
            let live = self.service.is_live(v.number, None, self.now);
            let present = self.daemons.iter().any(|d| v.code == Some(d.wanted));
            let unsaved = self.daemons.iter().any(|d| d.cannot_save(v.number));
            live || present || unsaved || self.service.newest() == Some(v.number)
        };
        let blocked = self.daemons.iter().any(|d| d.blocked);
        // A service that lags may show what is gone and hide what is there, until it does not.
        let told = world.manners.lag == 0;
        if blocked && told && world.people.0 == 0 && world.is_alone() && !versions.iter().all(stays)
        {
            self.broken.push(promise::FREE);
        }
        let settled = self.flying.iter().all(|flying| flying.until.is_none());
        if settled && self.daemons.iter().all(|d| d.phase == Phase::Rest) {
            self.judge_rest(world);
        }
    }

    fn judge_rest(&mut self, world: &World) {
        let versions = &self.service.versions;
        let blocked = self.daemons.iter().any(|d| d.blocked);
        let alone =
            world.is_alone() || !world.has(People::Delete) && world.hosts.iter().all(|h| *h == 0);
        if world.staging {
            let runs = self.service.slot.and_then(|slot| slot.code);
            if !blocked && runs != Some(self.dirs[0].disk) {
                self.broken.push(promise::STORED);
            }
            return;
        }
        let holds = |code: u8| versions.iter().any(|v| v.code == Some(code));
        if alone && !blocked && !holds(self.dirs[0].disk) {
            self.broken.push(promise::STORED);
        }
        let blocked = blocked || self.daemons.iter().any(|d| d.placeless);
        let most = world.manners.cap - 1;
        let uninvited = world.has(People::Upload) || world.hosts.iter().any(|host| *host != 0);
        if !blocked && !uninvited && self.surprised == Surprise::None && versions.len() > most {
            self.broken.push(promise::ROOM);
        }
        let counts = |v: &&service::Version| v.code.is_some() && !self.doomed.contains(&v.number);
        let ours = versions.iter().filter(counts).filter_map(|v| v.mark);
        let mut marks: Vec<(u8, u8)> = ours.map(|mark| (mark.code, mark.host)).collect();
        let all = marks.len();
        marks.sort_unstable();
        marks.dedup();
        if all - marks.len() > usize::from(self.surprised != Surprise::None) {
            self.broken.push(promise::ONCE);
        }
    }
}

/// Takes from a listing what a missing guard would have looked at.
fn strip(listing: &mut Listing, world: &World) {
    if world.lacks(Guard::LiveCheck) {
        listing.environments = Environments::Known(std::collections::BTreeMap::new());
    }
    if world.lacks(Guard::Lookup) {
        for listed in &mut listing.revisions {
            if Mark::read(&listed.description).is_some() {
                listed.description.clear();
            }
        }
    }
}

fn host_id(host: usize) -> u8 {
    u8::try_from(host).unwrap()
}
