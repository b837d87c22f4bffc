//! The service as the model sees it: versions, what is live, and what each request does to them.
//!
//! Codes and numbers are small integers here and become the product's words only where er-dev looks at them.

use std::sync::LazyLock;

use er_dev::clock::Moment;
use er_dev::cloud::{Environments, Listed, Listing};
use er_dev::revision::mark::{self, Instance};
use er_dev::routine::{Digest, Revision};

/// The first of the codes that no er-dev uploads.
pub(crate) const FOREIGN: u8 = 8;

const CODES: u8 = 16;

static DIGESTS: LazyLock<Vec<Digest>> =
    LazyLock::new(|| (0..CODES).map(|code| Digest::of(&[code])).collect());

static REVISIONS: LazyLock<Vec<Revision>> = LazyLock::new(|| {
    (0..=u8::MAX)
        .map(|n| Revision::new(&n.to_string()))
        .collect()
});

static DESCRIPTIONS: LazyLock<Vec<[String; 2]>> = LazyLock::new(|| {
    let describe = |digest: &Digest, host| mark::describe("", *digest, &instance(host));
    DIGESTS
        .iter()
        .map(|digest| [0, 1].map(|host| describe(digest, host)))
        .collect()
});

/// What a description says: which code, and the er-dev of which host made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Mark {
    pub(crate) code: u8,
    pub(crate) host: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Version {
    pub(crate) number: u8,
    /// `None` for what a person made.
    pub(crate) mark: Option<Mark>,
    pub(crate) code: Option<u8>,
    made: u8,
    coded: u8,
}

/// What is on staging.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Slot {
    pub(crate) mark: Mark,
    pub(crate) code: Option<u8>,
}

/// A version that is gone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Gone {
    version: Version,
    at: u8,
    /// The daemons, one bit each, that had no part in it and have not listed since.
    unseen: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Live {
    number: u8,
    since: u8,
    /// The daemons that have not listed since.
    unseen: u8,
}

/// The manners of the service.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Manners {
    pub(crate) cap: usize,
    /// Whether an upload takes its slot when the code arrives, and not when the form is asked for.
    pub(crate) at_callback: bool,
    /// Whether it refuses what would be one version too many.
    pub(crate) enforced: bool,
    /// How late it may show what it did, in seconds.
    pub(crate) lag: u8,
}

/// Something that changes the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Request {
    Upload { code: u8, host: u8 },
    Post { number: u8, code: u8, host: u8 },
    Stage { code: u8, host: u8 },
    PostStaged { code: u8, host: u8 },
    Delete { number: u8 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reply {
    Done,
    /// The number of the version that was made, or will be when its code arrives.
    Made(u8),
    Full,
    Missing,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Service {
    pub(crate) versions: Vec<Version>,
    /// The one that is overwritten by each upload to staging.
    pub(crate) slot: Option<Slot>,
    gone: Vec<Gone>,
    live: Vec<Option<Live>>,
    next: u8,
}

pub(crate) fn digest(code: u8) -> Digest {
    DIGESTS[usize::from(code)]
}

pub(crate) fn revision(number: u8) -> Revision {
    REVISIONS[usize::from(number)].clone()
}

/// The number of a version; 0 for the staging slot, which no version has.
pub(crate) fn number(revision: &Revision) -> u8 {
    if revision.is_staging() {
        return 0;
    }
    revision.as_str().parse().unwrap()
}

pub(crate) fn instance(host: u8) -> Instance {
    Instance::from_number(u32::from(host) + 1)
}

pub(crate) fn description(mark: Mark) -> String {
    DESCRIPTIONS[usize::from(mark.code)][usize::from(mark.host)].clone()
}

/// A second of the model, long after the boot.
pub(crate) fn moment(second: u8) -> Moment {
    Moment::after_boot(std::time::Duration::from_secs(10_000 + u64::from(second)))
}

impl Service {
    /// A service with versions that people made. The first ones are live, one an environment.
    pub(crate) fn new(foreign: u8, environments: u8) -> Self {
        let version = |n| Version {
            number: n + 1,
            mark: None,
            code: Some(FOREIGN + n),
            made: 0,
            coded: 0,
        };
        let live = |n: u8| Live {
            number: n + 1,
            since: 0,
            unseen: 0,
        };
        Self {
            versions: (0..foreign).map(version).collect(),
            slot: None,
            gone: Vec::new(),
            live: (0..environments)
                .map(|n| (n < foreign).then(|| live(n)))
                .collect(),
            next: foreign + 1,
        }
    }

    pub(crate) fn version(&self, number: u8) -> Option<&Version> {
        self.versions.iter().find(|v| v.number == number)
    }

    /// The newest version with code.
    pub(crate) fn newest(&self) -> Option<u8> {
        let coded = self.versions.iter().filter(|v| v.code.is_some());
        coded.map(|v| v.number).max()
    }

    /// Whether a version is live. With `known_to`, only if that daemon could know: it has listed since, or it would
    /// have, did it look as often as it should.
    pub(crate) fn is_live(&self, number: u8, known_to: Option<usize>, now: u8) -> bool {
        let could_know =
            |live: &Live, daemon: usize| live.unseen & bit(daemon) == 0 || live.since < now;
        self.live
            .iter()
            .flatten()
            .any(|live| live.number == number && known_to.is_none_or(|d| could_know(live, d)))
    }

    /// Whether a version with this code went without a daemon's doing since it last listed.
    pub(crate) fn went_unseen(&self, number: u8, daemon: usize) -> bool {
        let unseen = |gone: &Gone| gone.version.number == number && gone.unseen & bit(daemon) != 0;
        self.gone.iter().any(unseen)
    }

    /// Does what a request asks for. `others` are the daemons that have no part in it.
    pub(crate) fn carry_out(
        &mut self,
        request: Request,
        manners: &Manners,
        now: u8,
        others: u8,
    ) -> Reply {
        let full = manners.enforced && self.taken() >= manners.cap;
        match request {
            Request::Upload { .. } if full && !manners.at_callback => Reply::Full,
            Request::Upload { code, host } => {
                let number = self.next;
                self.next += 1;
                if !manners.at_callback {
                    self.add(number, Some(Mark { code, host }), None, now);
                }
                Reply::Made(number)
            }
            Request::Post { number, code, host } => {
                let there = self.versions.iter_mut().find(|v| v.number == number);
                match there {
                    Some(version) => {
                        if version.code.is_none() {
                            (version.code, version.coded) = (Some(code), now);
                        }
                        Reply::Done
                    }
                    None if !manners.at_callback => Reply::Missing,
                    None if full => Reply::Full,
                    None => {
                        self.add(number, Some(Mark { code, host }), Some(code), now);
                        Reply::Done
                    }
                }
            }
            Request::Stage { .. } if manners.at_callback => Reply::Made(0),
            Request::Stage { .. } | Request::PostStaged { .. } if full && self.slot.is_none() => {
                Reply::Full
            }
            // The words are the new ones at once, and the code is the old one until the new one comes.
            Request::Stage { code, host } => {
                let mark = Mark { code, host };
                let code = self.slot.and_then(|slot| slot.code);
                self.slot = Some(Slot { mark, code });
                Reply::Made(0)
            }
            Request::PostStaged { code, host } => {
                let (mark, code) = (Mark { code, host }, Some(code));
                self.slot = Some(Slot { mark, code });
                Reply::Done
            }
            Request::Delete { number } => {
                let Some(at) = self.versions.iter().position(|v| v.number == number) else {
                    return Reply::Missing;
                };
                let version = self.versions.remove(at);
                self.gone.push(Gone {
                    version,
                    at: now,
                    unseen: others,
                });
                self.forget(manners, now);
                Reply::Done
            }
        }
    }

    /// A person uploads something.
    pub(crate) fn upload_by_hand(&mut self, manners: &Manners, now: u8) {
        if self.versions.len() < manners.cap {
            let number = self.next;
            self.next += 1;
            self.add(number, None, Some(CODES - 1), now);
        }
    }

    /// A person publishes a version.
    pub(crate) fn publish(&mut self, number: u8, environment: usize, now: u8) {
        self.live[environment] = Some(Live {
            number,
            since: now,
            unseen: u8::MAX,
        });
    }

    /// What a daemon is told. With `stale` the service lags as far behind as it may.
    pub(crate) fn listing(&self, manners: &Manners, now: u8, stale: bool) -> Listing {
        let shown = |at: u8| !stale || at + manners.lag <= now;
        let there = self.versions.iter().filter(|v| shown(v.made));
        let gone = self
            .gone
            .iter()
            .filter(|gone| !shown(gone.at) && shown(gone.version.made));
        let mut versions: Vec<&Version> = there.chain(gone.map(|gone| &gone.version)).collect();
        versions.sort_by_key(|v| v.number);
        let staging = self.slot.map(|slot| Listed {
            revision: Revision::staging(),
            created: None,
            description: description(slot.mark),
        });
        let listed = |v: &Version| Listed {
            revision: revision(v.number),
            created: None,
            description: v.mark.map(description).unwrap_or_default(),
        };
        let live = |(at, live): (usize, &Option<Live>)| {
            (
                format!("env{at}"),
                live.as_ref().map(|live| revision(live.number)),
            )
        };
        Listing {
            revisions: versions.into_iter().map(listed).chain(staging).collect(),
            environments: Environments::Known(self.live.iter().enumerate().map(live).collect()),
            whole: true,
        }
    }

    /// How many slots are taken.
    pub(crate) fn taken(&self) -> usize {
        self.versions.len() + usize::from(self.slot.is_some())
    }

    /// What reading a version back gives: no version, or one with or without code.
    pub(crate) fn read(
        &self,
        number: u8,
        manners: &Manners,
        now: u8,
        stale: bool,
    ) -> Option<Option<u8>> {
        if number == 0 {
            return self.slot.map(|slot| slot.code);
        }
        let shown = |at: u8| !stale || at + manners.lag <= now;
        let version = self.version(number).filter(|v| shown(v.made))?;
        Some(version.code.filter(|_| shown(version.coded)))
    }

    /// A daemon has listed.
    pub(crate) fn seen_by(&mut self, daemon: usize, manners: &Manners, now: u8) {
        for live in self.live.iter_mut().flatten() {
            live.unseen &= !bit(daemon);
        }
        for gone in &mut self.gone {
            gone.unseen &= !bit(daemon);
        }
        self.forget(manners, now);
    }

    /// Forgets what makes no difference any more, so that equal states are equal.
    pub(crate) fn forget(&mut self, manners: &Manners, now: u8) {
        self.gone
            .retain(|gone| gone.unseen != 0 || gone.at + manners.lag > now);
        for version in &mut self.versions {
            for at in [&mut version.made, &mut version.coded] {
                if *at + manners.lag <= now {
                    *at = 0;
                }
            }
        }
    }

    fn add(&mut self, number: u8, mark: Option<Mark>, code: Option<u8>, now: u8) {
        self.versions.push(Version {
            number,
            mark,
            code,
            made: now,
            coded: now,
        });
        self.versions.sort_by_key(|v| v.number);
    }
}

pub(crate) fn bit(daemon: usize) -> u8 {
    1 << daemon
}
