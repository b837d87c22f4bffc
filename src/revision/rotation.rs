//! Which versions may go, and why each other one stays. Pure.
//!
//! The rules only ever look at one complete listing. Age is the version's number, compared as an integer. Whatever
//! cannot be judged stays: a listing that contradicts itself, or that does not say what is live where, lets nothing go.

use std::collections::{BTreeMap, BTreeSet};

use globset::{Glob, GlobSet, GlobSetBuilder};

use crate::cloud::{Environments, Listed, Listing};
use crate::config::{Revisions, Rotate};
use crate::routine::Revision;

use super::mark::{Mark, text_of, without_note};

/// The rules of one configuration.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Versions a routine may hold.
    pub cap: usize,
    /// Slots kept free at rest.
    pub reserve: usize,
    keep_newest: usize,
    rotate: Rotate,
    pins: GlobSet,
}

/// What is known beyond a listing, and protects.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Protected {
    /// The version that was live in an environment before the present one, as far as er-dev has seen.
    pub was_live: BTreeMap<String, Revision>,
    /// The version that holds the present bytes of the entry.
    pub present: Option<Revision>,
    /// Versions that a person has pinned.
    pub pinned: BTreeSet<Revision>,
    /// Versions that could not be saved or deleted, with the reason.
    pub spared: BTreeMap<Revision, String>,
    /// Versions that are proven to hold no code, or whose deletion was asked for. They do not count among the newest.
    pub worthless: BTreeSet<Revision>,
}

/// Why a version stays.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Stays {
    /// It is live in these environments.
    Live(Vec<String>),
    /// It was live in this environment before the present one.
    WasLive(String),
    /// A person has pinned it.
    Pinned,
    /// Its description matches a pattern of the configuration.
    PinnedByPattern,
    /// It is among the newest.
    Newest,
    /// It holds the present bytes of the entry.
    Present,
    /// It has no number, as the staging slot has none.
    Unnumbered,
    /// `rotate = "own"` and er-dev did not make it.
    Foreign,
    /// It could not be saved or deleted before.
    Spared(String),
}

impl std::fmt::Display for Stays {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Live(environments) => write!(f, "live in {}", environments.join(", ")),
            Self::WasLive(environment) => write!(f, "was live in {environment}"),
            Self::Pinned => f.write_str("pinned"),
            Self::PinnedByPattern => f.write_str("pinned by a pattern"),
            Self::Newest => f.write_str("newest"),
            Self::Present => f.write_str("holds the present bytes"),
            Self::Unnumbered => f.write_str("staging slot"),
            Self::Foreign => f.write_str("not made by er-dev"),
            Self::Spared(reason) => f.write_str(reason),
        }
    }
}

/// What may become of one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It stays.
    Stays(Stays),
    /// It may go, in this place of the order, counted from zero.
    MayGo(usize),
}

/// Why nothing at all may be deleted.
#[derive(Debug, Clone, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// Something that deleting needs does not work.
    #[error("{0}")]
    Off(String),
    /// `rotate = "never"`.
    #[error("`rotate = \"never\"`: er-dev deletes nothing")]
    Never,
    /// What is live cannot be told.
    #[error("{0}")]
    LiveUnknown(String),
    /// The listing names a version twice.
    #[error("version {0} is listed twice")]
    Twice(Revision),
    /// Numbers and times of two versions disagree about which is older.
    #[error("versions {0} and {1} are in one order by number and in another by time")]
    Order(Revision, Revision),
}

impl Policy {
    /// The rules of a checked configuration. Patterns that are none, which the configuration refuses, pin nothing.
    pub fn new(revisions: &Revisions) -> Self {
        let mut pins = GlobSetBuilder::new();
        for glob in revisions
            .pin
            .iter()
            .filter_map(|pattern| Glob::new(pattern).ok())
        {
            pins.add(glob);
        }
        Self {
            cap: revisions.cap,
            reserve: revisions.reserve,
            keep_newest: revisions.keep_newest,
            rotate: revisions.rotate,
            pins: pins.build().unwrap_or_default(),
        }
    }

    /// The most versions a routine holds at rest.
    pub fn at_rest(&self) -> usize {
        self.cap.saturating_sub(self.reserve)
    }

    /// Whether anything may be deleted at all.
    pub fn may_delete(&self) -> bool {
        self.rotate != Rotate::Never
    }

    /// The fate of every listed version, in the order of the listing.
    pub fn fates(&self, listing: &Listing, protected: &Protected) -> Result<Vec<Fate>, Refusal> {
        let live = self.check(listing)?;
        let newest = newest(listing, self.keep_newest, &protected.worthless);
        let stays = |listed: &Listed| self.stays(listed, live, &newest, protected);
        let mut going: Vec<u64> = listing
            .revisions
            .iter()
            .filter(|listed| stays(listed).is_none())
            .filter_map(|listed| listed.revision.number())
            .collect();
        going.sort_unstable();
        let fates = listing.revisions.iter().map(|listed| match stays(listed) {
            Some(reason) => Fate::Stays(reason),
            None => {
                let number = listed.revision.number();
                Fate::MayGo(
                    going
                        .iter()
                        .position(|going| Some(*going) == number)
                        .unwrap_or(0),
                )
            }
        });
        Ok(fates.collect())
    }

    /// The version that goes next, if any may go.
    pub fn victim<'a>(
        &self,
        listing: &'a Listing,
        protected: &Protected,
    ) -> Result<Option<&'a Listed>, Refusal> {
        let fates = self.fates(listing, protected)?;
        let next = fates.iter().position(|fate| *fate == Fate::MayGo(0));
        Ok(next.and_then(|index| listing.revisions.get(index)))
    }

    /// The versions older than this one, oldest first, and why each of them stays.
    pub fn older_that_stay(
        &self,
        listing: &Listing,
        protected: &Protected,
        than: &Revision,
    ) -> Vec<(Revision, Stays)> {
        let fates = self.fates(listing, protected).unwrap_or_default();
        let mut older: Vec<(u64, Revision, Stays)> = listing
            .revisions
            .iter()
            .zip(fates)
            .filter_map(|(listed, fate)| match (fate, listed.revision.number()) {
                (Fate::Stays(stays), Some(number)) if Some(number) < than.number() => {
                    Some((number, listed.revision.clone(), stays))
                }
                _ => None,
            })
            .collect();
        older.sort_by_key(|(number, ..)| *number);
        let older = older.into_iter();
        older
            .map(|(_, revision, stays)| (revision, stays))
            .collect()
    }

    /// Whether a version that is of no worth, since it has no code or its bytes are there twice, may go: that it is among
    /// the newest, or holds the present bytes, is no reason to keep it then.
    pub fn may_reclaim(
        &self,
        listing: &Listing,
        revision: &Revision,
        protected: &Protected,
    ) -> bool {
        let Ok(live) = self.check(listing) else {
            return false;
        };
        let protected = Protected {
            present: None,
            ..protected.clone()
        };
        let mut all = listing.revisions.iter();
        all.find(|listed| listed.revision == *revision)
            .is_some_and(|listed| {
                self.stays(listed, live, &BTreeSet::new(), &protected)
                    .is_none()
            })
    }

    /// Whether a pattern matches a description, with or without what er-dev itself has added to it.
    fn is_pinned(&self, description: &str) -> bool {
        let text = text_of(description);
        let texts = [description, text, without_note(text)];
        texts.iter().any(|text| self.pins.is_match(text))
    }

    fn check<'a>(
        &self,
        listing: &'a Listing,
    ) -> Result<&'a BTreeMap<String, Option<Revision>>, Refusal> {
        if self.rotate == Rotate::Never {
            return Err(Refusal::Never);
        }
        let live = match &listing.environments {
            Environments::Known(live) => live,
            Environments::Unknown(reason) => return Err(Refusal::LiveUnknown(reason.clone())),
        };
        let mut seen = BTreeSet::new();
        if let Some(twice) = listing
            .revisions
            .iter()
            .find(|listed| !seen.insert(&listed.revision))
        {
            return Err(Refusal::Twice(twice.revision.clone()));
        }
        let mut numbered: Vec<(u64, &Listed)> = listing
            .revisions
            .iter()
            .filter_map(|listed| Some((listed.revision.number()?, listed)))
            .collect();
        numbered.sort_by_key(|(number, _)| *number);
        // Two texts may spell one number, with zeros in front; neither can be told from the other by age.
        if let Some(pair) = numbered.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(Refusal::Twice(pair[1].1.revision.clone()));
        }
        let timed: Vec<&Listed> = numbered
            .iter()
            .map(|(_, listed)| *listed)
            .filter(|listed| listed.created.is_some())
            .collect();
        match timed
            .windows(2)
            .find(|pair| pair[0].created > pair[1].created)
        {
            Some(pair) => Err(Refusal::Order(
                pair[0].revision.clone(),
                pair[1].revision.clone(),
            )),
            None => Ok(live),
        }
    }

    fn stays(
        &self,
        listed: &Listed,
        live: &BTreeMap<String, Option<Revision>>,
        newest: &BTreeSet<&Revision>,
        protected: &Protected,
    ) -> Option<Stays> {
        let revision = &listed.revision;
        let number = revision.number();
        let same =
            |other: &Revision| other == revision || (number.is_some() && other.number() == number);
        let live_in: Vec<String> = live
            .iter()
            .filter(|(_, revision)| revision.as_ref().is_some_and(same))
            .map(|(environment, _)| environment.clone())
            .collect();
        if !live_in.is_empty() {
            return Some(Stays::Live(live_in));
        }
        if number.is_none() {
            return Some(Stays::Unnumbered);
        }
        if let Some((environment, _)) = protected
            .was_live
            .iter()
            .find(|(_, revision)| same(revision))
        {
            return Some(Stays::WasLive(environment.clone()));
        }
        if protected.pinned.iter().any(same) {
            return Some(Stays::Pinned);
        }
        if self.is_pinned(&listed.description) {
            return Some(Stays::PinnedByPattern);
        }
        if newest.contains(revision) {
            return Some(Stays::Newest);
        }
        if protected.present.as_ref().is_some_and(same) {
            return Some(Stays::Present);
        }
        if self.rotate == Rotate::Own && Mark::read(&listed.description).is_none() {
            return Some(Stays::Foreign);
        }
        protected.spared.get(revision).cloned().map(Stays::Spared)
    }
}

/// Why the oldest version that may go does, in words: what is older stays for these reasons.
pub fn why_the_oldest(older: &[(Revision, Stays)]) -> String {
    let stays = |(revision, stays): &(Revision, Stays)| format!("{} ({stays})", revision.short());
    match older {
        [] => "the oldest".into(),
        [one] => format!("the oldest but {}, which stays", stays(one)),
        [first, second] => format!(
            "the oldest but {} and {}, which stay",
            stays(first),
            stays(second)
        ),
        [first, second, others @ ..] => format!(
            "the oldest but {}, {} and {} more, which stay",
            stays(first),
            stays(second),
            others.len()
        ),
    }
}

fn newest<'a>(
    listing: &'a Listing,
    count: usize,
    worthless: &BTreeSet<Revision>,
) -> BTreeSet<&'a Revision> {
    let mut numbered: Vec<(u64, &Revision)> = listing
        .revisions
        .iter()
        .filter(|listed| !worthless.contains(&listed.revision))
        .filter_map(|listed| Some((listed.revision.number()?, &listed.revision)))
        .collect();
    numbered.sort_unstable_by(|a, b| b.cmp(a));
    numbered
        .into_iter()
        .take(count)
        .map(|(_, revision)| revision)
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, proptest};

    use super::*;

    fn policy(cap: usize, keep_newest: usize, rotate: Rotate, pin: &[&str]) -> Policy {
        Policy::new(&Revisions {
            cap,
            reserve: 1,
            keep_newest,
            rotate,
            pin: pin.iter().map(|p| String::from(*p)).collect(),
            verify: crate::config::Verify::Doubt,
        })
    }

    fn listed(number: u64, description: &str) -> Listed {
        Listed {
            revision: Revision::new(&number.to_string()),
            created: None,
            description: description.into(),
        }
    }

    fn live(pairs: &[(&str, &str)]) -> Environments {
        let map = pairs.iter().map(|(environment, revision)| {
            (
                String::from(*environment),
                (!revision.is_empty()).then(|| Revision::new(revision)),
            )
        });
        Environments::Known(map.collect())
    }

    fn listing(revisions: Vec<Listed>, environments: Environments) -> Listing {
        Listing {
            revisions,
            environments,
            whole: true,
        }
    }

    fn victim(policy: &Policy, listing: &Listing, protected: &Protected) -> Option<u64> {
        policy
            .victim(listing, protected)
            .unwrap()
            .and_then(|listed| listed.revision.number())
    }

    #[test]
    fn the_oldest_goes_first_by_number_and_not_by_text() {
        let listing = listing(
            [100, 20, 3, 1_000, 999].map(|n| listed(n, "")).into(),
            live(&[("production", "")]),
        );
        let policy = policy(10, 1, Rotate::Any, &[]);
        assert_eq!(victim(&policy, &listing, &Protected::default()), Some(3));
    }

    #[test]
    fn a_live_version_stays_even_as_the_oldest_and_spelt_otherwise() {
        let policy = policy(10, 1, Rotate::Any, &[]);
        for spelling in ["3", "03"] {
            let listing = listing(
                [3, 20, 100].map(|n| listed(n, "")).into(),
                live(&[("presetCanaryZhejiang", spelling)]),
            );
            assert_eq!(victim(&policy, &listing, &Protected::default()), Some(20));
        }
    }

    #[test]
    fn every_reason_to_stay_is_told() {
        let mut revisions: Vec<Listed> = (1..=7).map(|n| listed(n, "")).collect();
        revisions[2].description = "release 4".into();
        revisions.push(Listed {
            revision: Revision::new("unstable"),
            created: None,
            description: String::new(),
        });
        let listing = listing(revisions, live(&[("production", "1"), ("staging", "1")]));
        let protected = Protected {
            was_live: BTreeMap::from([("production".into(), Revision::new("2"))]),
            present: Some(Revision::new("4")),
            spared: BTreeMap::from([(Revision::new("5"), "it could not be saved".into())]),
            ..Protected::default()
        };
        let fates = policy(10, 1, Rotate::Any, &["release*"])
            .fates(&listing, &protected)
            .unwrap();
        let told: Vec<String> = fates
            .iter()
            .map(|fate| match fate {
                Fate::Stays(stays) => stays.to_string(),
                Fate::MayGo(place) => format!("goes {place}"),
            })
            .collect();
        assert_eq!(
            told,
            [
                "live in production, staging",
                "was live in production",
                "pinned by a pattern",
                "holds the present bytes",
                "it could not be saved",
                "goes 0",
                "newest",
                "staging slot"
            ]
        );
    }

    #[test]
    fn own_spares_what_er_dev_did_not_make() {
        let mark = "a er1.0123456789abcdef0123456789abcdef.01234567";
        let listing = listing(
            vec![
                listed(1, "by hand"),
                listed(2, mark),
                listed(3, "by hand"),
                listed(4, mark),
            ],
            live(&[]),
        );
        assert_eq!(
            victim(
                &policy(10, 1, Rotate::Own, &[]),
                &listing,
                &Protected::default()
            ),
            Some(2)
        );
    }

    #[test]
    fn a_listing_that_cannot_be_trusted_lets_nothing_go() {
        let refused = |listing: &Listing, rotate| {
            policy(10, 1, rotate, &[])
                .victim(listing, &Protected::default())
                .unwrap_err()
        };
        let revisions = || [1, 2, 3].map(|n| listed(n, "")).to_vec();
        let fine = listing(revisions(), live(&[]));
        assert_eq!(refused(&fine, Rotate::Never), Refusal::Never);
        let blind = listing(revisions(), Environments::Unknown("x".into()));
        assert_eq!(
            refused(&blind, Rotate::Any),
            Refusal::LiveUnknown("x".into())
        );
        let mut twice = fine.clone();
        twice.revisions.push(listed(2, ""));
        assert_eq!(
            refused(&twice, Rotate::Any),
            Refusal::Twice(Revision::new("2"))
        );
        let mut zero = fine.clone();
        zero.revisions.push(Listed {
            revision: Revision::new("02"),
            ..listed(2, "")
        });
        assert_eq!(
            refused(&zero, Rotate::Any),
            Refusal::Twice(Revision::new("02"))
        );
        let mut order = fine;
        order.revisions[0].created = jiff::Timestamp::from_second(9).ok();
        order.revisions[2].created = jiff::Timestamp::from_second(8).ok();
        assert_eq!(
            refused(&order, Rotate::Any),
            Refusal::Order(Revision::new("1"), Revision::new("3"))
        );
    }

    fn listings() -> impl Strategy<Value = (Listing, Protected)> {
        let numbers = proptest::collection::btree_set(1u64..40, 0..12);
        let shuffled = numbers
            .prop_map(|set| set.into_iter().collect::<Vec<_>>())
            .prop_shuffle();
        shuffled
            .prop_flat_map(|numbers| {
                let count = numbers.len();
                let descriptions = proptest::collection::vec(
                    proptest::sample::select(vec![
                        "",
                        "release",
                        "er1.0123456789abcdef0123456789abcdef.01234567",
                    ]),
                    count,
                );
                let live = proptest::collection::vec(proptest::option::of(0u64..40), 0..4);
                (
                    Just(numbers),
                    descriptions,
                    live,
                    any::<bool>(),
                    proptest::option::of(0u64..40),
                )
            })
            .prop_map(|(numbers, descriptions, envs, unstable, present)| {
                let mut revisions: Vec<Listed> = numbers
                    .iter()
                    .zip(descriptions)
                    .map(|(n, d)| listed(*n, d))
                    .collect();
                if unstable {
                    revisions.insert(
                        revisions.len() / 2,
                        Listed {
                            revision: Revision::new("unstable"),
                            created: None,
                            description: String::new(),
                        },
                    );
                }
                let live = envs
                    .iter()
                    .enumerate()
                    .map(|(i, n)| (format!("env{i}"), n.map(|n| Revision::new(&n.to_string()))))
                    .collect();
                let present = present.map(|n| Revision::new(&n.to_string()));
                (
                    listing(revisions, Environments::Known(live)),
                    Protected {
                        present,
                        ..Protected::default()
                    },
                )
            })
    }

    proptest! {
        #[test]
        fn rotation_takes_the_oldest_and_never_a_live_pinned_newest_or_present_one(
            (listing, protected) in listings(),
            keep_newest in 0usize..6,
            own: bool,
        ) {
            let rotate = if own { Rotate::Own } else { Rotate::Any };
            let policy = policy(10, keep_newest, rotate, &["release"]);
            let Environments::Known(live) = &listing.environments else { panic!() };
            let mut left = listing.clone();
            let mut last = 0;
            while let Some(victim) = policy.victim(&left, &protected).unwrap().cloned() {
                let number = victim.revision.number().unwrap();
                prop_assert!(number > last, "the oldest goes first");
                last = number;
                prop_assert!(!live.values().any(|revision| revision.as_ref() == Some(&victim.revision)));
                prop_assert!(victim.description != "release");
                prop_assert!(protected.present.as_ref() != Some(&victim.revision));
                prop_assert!(!own || Mark::read(&victim.description).is_some());
                let newer = left.revisions.iter().filter(|l| l.revision.number() > Some(number)).count();
                prop_assert!(newer >= keep_newest, "the newest stay");
                left.revisions.retain(|listed| listed.revision != victim.revision);
            }
            // Whatever is left has a reason to be.
            for fate in policy.fates(&left, &protected).unwrap() {
                prop_assert!(matches!(fate, Fate::Stays(_)));
            }
        }

        #[test]
        fn the_places_of_what_may_go_are_its_order_by_age((listing, protected) in listings()) {
            let fates = policy(10, 2, Rotate::Any, &[]).fates(&listing, &protected).unwrap();
            let mut going: Vec<(usize, u64)> = fates
                .iter()
                .zip(&listing.revisions)
                .filter_map(|(fate, listed)| match fate {
                    Fate::MayGo(place) => Some((*place, listed.revision.number().unwrap())),
                    Fate::Stays(_) => None,
                })
                .collect();
            going.sort_unstable();
            prop_assert!(going.windows(2).all(|pair| pair[0].1 < pair[1].1));
            let places: Vec<usize> = going.iter().map(|(place, _)| *place).collect();
            prop_assert_eq!(places, (0..going.len()).collect::<Vec<_>>());
        }
    }
}
