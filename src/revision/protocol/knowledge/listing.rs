//! What a listing changes about what is known, and what in it is worth telling. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::clock::Moment;
use crate::cloud::{Environments, Listed, Listing};
use crate::revision::mark::{Instance, Mark};
use crate::routine::Revision;

use super::{Knowledge, LATEST, Late, MAX_GONE, Rules, Seen};

/// How many listings in a row have to lack an environment before it is taken for removed.
const MAX_ABSENT: u32 = 3;

/// Something in a listing that is worth telling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Noticed {
    /// A version whose deletion had got no answer is gone.
    Gone(Revision),
    /// A version that this er-dev did not make appeared.
    Foreign {
        /// The version.
        revision: Revision,
        /// Which er-dev made it, if one did.
        by: Option<Instance>,
        /// Whether nothing is known of the time before, so that it may have been there for long.
        first: bool,
    },
    /// Somebody else published a version.
    Republished {
        /// The version.
        revision: Revision,
        /// Where it is live now.
        environment: String,
        /// What was live there before, if anything was.
        before: Option<Revision>,
    },
    /// An environment points at a version that is not there.
    LiveAndGone {
        /// The version.
        revision: Revision,
        /// Where it is live.
        environment: String,
        /// Whether it was deleted here, so that somebody published it in between.
        deleted: bool,
    },
    /// An environment that pointed at a version that was not there does so no more.
    Mended(String),
}

/// Whether every routine has an environment of this name, named or not where nothing is live in it.
pub fn is_of_every_routine(environment: &str) -> bool {
    matches!(environment, "production" | "staging")
}

impl Knowledge {
    /// A listing came.
    pub fn listed(&mut self, mut listing: Listing, rules: &Rules, now: Moment) -> Vec<Noticed> {
        // Who made a version comes before what was done with it.
        let mut noticed = Vec::new();
        if listing.whole {
            // What was made long enough ago would be listed if it were there.
            self.made
                .retain(|_, (_, made)| now.since(*made) < rules.lag);
            noticed = self.notice_foreign(&listing, &rules.instance);
        }
        noticed.extend(self.notice_live(&listing));
        if !listing.whole {
            self.listed_in_part(listing, now);
            return noticed;
        }
        self.in_part = 0;
        self.look_at_staging(&listing, rules, now);
        let mut there: BTreeSet<Revision> = listing
            .revisions
            .iter()
            .map(|listed| listed.revision.clone())
            .collect();
        for (revision, deleted) in std::mem::take(&mut self.deleted) {
            if there.contains(&revision) {
                if deleted.confirmed || now.since(deleted.at) < LATEST {
                    self.deleted.insert(revision, deleted);
                } else {
                    self.protected.worthless.remove(&revision);
                }
            } else {
                self.remember_gone(revision.clone());
                if !deleted.confirmed {
                    noticed.push(Noticed::Gone(revision));
                }
            }
        }
        let mut unlisted = BTreeSet::new();
        for (revision, (listed, _)) in &self.made {
            if there.insert(revision.clone()) {
                listing.revisions.push(listed.clone());
                unlisted.insert(revision.clone());
                // Either the listing is late or somebody deleted it; reading back tells.
                self.contents.remove(revision);
            }
        }
        self.contents.retain(|revision, _| there.contains(revision));
        self.empty_since
            .retain(|revision, _| there.contains(revision));
        self.protected
            .worthless
            .retain(|revision| there.contains(revision));
        self.saved.retain(|revision| there.contains(revision));
        self.known = Some(there);
        (self.current, self.looked) = (true, true);
        self.doubt = self.doubt.filter(|doubt| now < doubt.shown);
        self.late.retain(|(late, sent)| match late {
            // An upload is remembered until somebody has looked for what it left.
            Late::Upload(_) => true,
            Late::Staged(_) => now.since(*sent) < LATEST + rules.lag,
            Late::Delete(_) if now.since(*sent) < LATEST => true,
            Late::Delete(stays) => {
                // It counts again.
                self.protected.worthless.remove(stays);
                false
            }
        });
        self.listing = Some(Seen {
            listing,
            at: now,
            extended: false,
            unlisted,
        });
        noticed
    }

    /// A listing came of which something could not be read: what it lacks may be there.
    fn listed_in_part(&mut self, mut listing: Listing, now: Moment) {
        self.in_part = self.in_part.saturating_add(1);
        for (revision, (listed, _)) in &self.made {
            if !listing.revisions.iter().any(|l| l.revision == *revision) {
                listing.revisions.push(listed.clone());
            }
        }
        (self.current, self.looked) = (true, true);
        self.listing = Some(Seen {
            listing,
            at: now,
            extended: false,
            unlisted: BTreeSet::new(),
        });
    }

    fn notice_live(&mut self, listing: &Listing) -> Vec<Noticed> {
        let Environments::Known(live) = &listing.environments else {
            return Vec::new();
        };
        let mut noticed = Vec::new();
        for (environment, revision) in live {
            let before = self.live.get(environment).cloned();
            if before != *revision {
                self.set_live(environment, revision.clone());
                // What was live before er-dev first looked is no news.
                let ours = self.publishing.remove(environment);
                let news = (before.is_some() || self.known.is_some()) && ours != *revision;
                if let Some(revision) = revision.clone().filter(|_| news) {
                    noticed.push(Noticed::Republished {
                        revision,
                        environment: environment.clone(),
                        before,
                    });
                }
            }
            let told = self.told_gone.get(environment).cloned();
            match revision.as_ref().filter(|live| self.is_gone(live, listing)) {
                Some(revision) if told.as_ref() != Some(revision) => {
                    let environment = environment.clone();
                    self.told_gone.insert(environment.clone(), revision.clone());
                    noticed.push(Noticed::LiveAndGone {
                        revision: revision.clone(),
                        environment,
                        deleted: self.was_deleted(revision),
                    });
                }
                None if told.is_some() => {
                    self.told_gone.remove(environment);
                    noticed.push(Noticed::Mended(environment.clone()));
                }
                _ => {}
            }
        }
        noticed.extend(self.notice_removed(live));
        noticed
    }

    /// Forgets environments that several listings in a row have lacked, so that what was live there protects nothing for
    /// ever. The two that every routine has are left out by the service where nothing is live: what was live there
    /// before stays.
    fn notice_removed(&mut self, live: &BTreeMap<String, Option<Revision>>) -> Vec<Noticed> {
        let known = self.live.keys().chain(self.protected.was_live.keys());
        let known = known.chain(self.told_gone.keys());
        let absent = known.filter(|environment| !live.contains_key(*environment));
        let absent: BTreeSet<String> = absent.cloned().collect();
        self.absent
            .retain(|environment, _| absent.contains(environment));
        let mut noticed = Vec::new();
        for environment in absent {
            let times = self.absent.entry(environment.clone()).or_default();
            *times = (*times + 1).min(MAX_ABSENT);
            if *times < MAX_ABSENT {
                continue;
            }
            if !is_of_every_routine(&environment) {
                self.live.remove(&environment);
                self.protected.was_live.remove(&environment);
                self.absent.remove(&environment);
            }
            if self.told_gone.remove(&environment).is_some() {
                noticed.push(Noticed::Mended(environment));
            }
        }
        noticed
    }

    /// A version was published from here, so that finding it live is no news.
    pub fn published(&mut self, environment: &str, revision: &Revision) {
        self.publishing.remove(environment);
        if self.live.get(environment) != Some(revision) {
            self.set_live(environment, Some(revision.clone()));
        }
    }

    pub(super) fn set_live(&mut self, environment: &str, revision: Option<Revision>) {
        let before = match revision {
            Some(revision) => self.live.insert(environment.to_owned(), revision),
            None => self.live.remove(environment),
        };
        if let Some(before) = before {
            self.protected
                .was_live
                .insert(environment.to_owned(), before);
        }
    }

    fn was_deleted(&self, revision: &Revision) -> bool {
        self.gone.contains(revision) || self.deleted.contains_key(revision)
    }

    /// Whether a version is not there any more, or soon will not be.
    fn is_gone(&self, revision: &Revision, listing: &Listing) -> bool {
        let mut listed = listing.revisions.iter().map(|listed| &listed.revision);
        let known = listed.any(|it| it == revision) || self.made.contains_key(revision);
        self.was_deleted(revision) || listing.whole && revision.number().is_some() && !known
    }

    fn notice_foreign(&self, listing: &Listing, instance: &Instance) -> Vec<Noticed> {
        let mut noticed = Vec::new();
        let mut oldest_first: Vec<&Listed> = listing.revisions.iter().collect();
        oldest_first.sort_by_key(|listed| listed.revision.number());
        for listed in oldest_first {
            let revision = &listed.revision;
            let before = self.known.as_ref().or(self.earlier.as_ref());
            let known = before.is_some_and(|known| known.contains(revision));
            let by = Mark::read(&listed.description).map(|mark| mark.instance);
            let ours = by.as_ref() == Some(instance) || self.made.contains_key(revision);
            if !known && !ours && revision.number().is_some() {
                noticed.push(Noticed::Foreign {
                    revision: revision.clone(),
                    by,
                    first: before.is_none(),
                });
            }
        }
        noticed
    }

    fn remember_gone(&mut self, revision: Revision) {
        if self.gone.len() >= MAX_GONE {
            self.gone.remove(0);
        }
        self.gone.push(revision);
    }
}
