//! Puts a version live, which is the one thing here that people who use the site see.
//!
//! Publishing is idempotent by nature, so it needs no record of what was sent. What it needs is care before: the version
//! has to be listed, its code has to read back, and be what its mark says. And a look after, since the service says
//! nothing of how long a publish takes.

use std::sync::Arc;
use std::time::Duration;

use crate::clock;
use crate::cloud::error::{Class, CloudError};
use crate::cloud::{Environments, Fetched};
use crate::revision::mark::Mark;
use crate::revision::protocol::is_of_every_routine;
use crate::routine::Revision;

use super::{DeployError, Happened, Pass, Session};

/// The longest pause between two looks at whether a publish shows.
const POLL: Duration = Duration::from_secs(1);

/// The most looks.
const MAX_LOOKS: u32 = 60;

/// A version that was put live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// The version.
    pub revision: Revision,
    /// Where it is live.
    pub environment: String,
    /// What was live there before.
    pub before: Option<Revision>,
}

/// Why a version cannot be put live.
#[derive(Debug, thiserror::Error)]
pub enum Unpublishable {
    /// It is not there.
    #[error("version {0} is not there any more")]
    NotThere(Revision),
    /// Its deletion was asked for, and may be carried out at any moment.
    #[error("version {0} is being deleted")]
    Doomed(Revision),
    /// It has no code.
    #[error("version {0} has no code: its upload never finished")]
    NoCode(Revision),
    /// It holds other code than its mark says.
    #[error("version {0} does not hold the code that it was made of")]
    OtherBytes(Revision),
    /// The routine has no such environment.
    #[error("the routine has no environment `{name}`; there are: {}", .known.join(", "))]
    NoEnvironment {
        /// The name that was asked for.
        name: String,
        /// The names there are.
        known: Vec<String>,
    },
    /// The service does not say what is live where.
    #[error("nothing is published while it cannot be told what is live: {0}")]
    Unknown(String),
    /// Somebody else published something while a person was asked.
    #[error("`{environment}` was changed meanwhile: {} is live there now", name(.live.as_ref()))]
    Changed {
        /// The environment.
        environment: String,
        /// What is live there.
        live: Option<Revision>,
    },
    /// The service took it, and does not show it.
    #[error("the service took version {revision} for `{environment}`, and shows {} there", name(.live.as_ref()))]
    NotShown {
        /// The version.
        revision: Revision,
        /// The environment.
        environment: String,
        /// What is live there by the last look.
        live: Option<Revision>,
    },
}

fn name(live: Option<&Revision>) -> String {
    live.map_or_else(|| "nothing".into(), ToString::to_string)
}

impl Session {
    /// What is live in an environment by the last listing, if there is one of that name. The two that every routine has
    /// may be left out by the service where nothing is live.
    pub fn live_in(&self, environment: &str) -> Result<Option<Revision>, Unpublishable> {
        let listing = self.knowledge.listing();
        match listing.map(|listing| &listing.environments) {
            Some(Environments::Known(live)) => match live.get(environment) {
                Some(live) => Ok(live.clone()),
                None if is_of_every_routine(environment) => Ok(None),
                None => Err(Unpublishable::NoEnvironment {
                    name: environment.to_owned(),
                    known: live.keys().cloned().collect(),
                }),
            },
            Some(Environments::Unknown(reason)) => Err(Unpublishable::Unknown(reason.clone())),
            None => Err(Unpublishable::Unknown("nothing is listed".into())),
        }
    }
}

impl Pass<'_> {
    /// Makes a version the live one of an environment, and waits until a listing says so. The version has to be there,
    /// and its code has to read back.
    ///
    /// `expected` is what a person was told is live there; if that is no longer so, nothing is done.
    pub async fn publish(
        &mut self,
        revision: &Revision,
        environment: &str,
        expected: Option<&Revision>,
    ) -> Result<(), DeployError> {
        self.look().await?;
        let live = self.session.live_in(environment)?;
        // An earlier try may have got there although its answer was lost.
        if live.as_ref() != expected && live.as_ref() != Some(revision) {
            return Err(Unpublishable::Changed {
                environment: environment.to_owned(),
                live,
            }
            .into());
        }
        self.check(revision).await?;
        self.put_live(revision, environment).await
    }

    /// Puts the version of the last upload live where the configuration says so, unless that is done already.
    pub async fn publish_owed(&mut self) -> Result<(), DeployError> {
        let Some(revision) = self
            .session
            .knowledge
            .owed()
            .map(|owed| owed.revision.clone())
        else {
            return Ok(());
        };
        self.look().await?;
        for environment in self.session.routine.publish_to.clone() {
            let live = self.session.live_in(&environment)?;
            let knowledge = &mut self.session.knowledge;
            if knowledge.is_overtaken(&environment, live.as_ref())
                || !knowledge.is_listed(&revision)
            {
                tracing::info!(%revision, environment, "somebody else has decided what is live there");
                continue;
            }
            self.write_down();
            self.put_live(&revision, &environment).await?;
        }
        self.session.knowledge.paid();
        self.write_down();
        Ok(())
    }

    async fn put_live(
        &mut self,
        revision: &Revision,
        environment: &str,
    ) -> Result<(), DeployError> {
        let before = self.session.live_in(environment)?;
        let published = Published {
            revision: revision.clone(),
            environment: environment.to_owned(),
            before,
        };
        if published.before.as_ref() == Some(revision) {
            self.happened.push(Happened::Published(published));
            return Ok(());
        }
        if self.session.settings.dry_run {
            let detail = format!("{revision} to {environment}");
            self.happened.push(Happened::Planned("publish", detail));
            return Ok(());
        }
        // Who comes after has to look again; that this cannot be written down keeps nobody from publishing.
        let _ = self.count_change();
        let cloud = Arc::clone(&self.session.cloud);
        self.calls += 1;
        self.session.knowledge.publishing(environment, revision);
        let name = self.session.routine.name.clone();
        let sent = clock::now();
        let doubt = match cloud.publish(&name, revision, &[environment]).await {
            Ok(()) => None,
            Err(error) if error.class == Class::Ambiguous => Some(error),
            Err(error) => return Err(error.into()),
        };
        let settings = &self.session.settings;
        let patience = match &doubt {
            Some(error) if !error.answered => settings.timeouts.api + settings.margin,
            _ => settings.rules.lag,
        };
        self.confirm(revision, environment, sent + patience, doubt)
            .await?;
        self.happened.push(Happened::Published(published));
        Ok(())
    }

    /// Whether a version can be put live: it is listed, stays, and holds the code that it was made of.
    async fn check(&mut self, revision: &Revision) -> Result<(), DeployError> {
        let knowledge = &self.session.knowledge;
        let mut listed = knowledge.newest_first();
        let Some(listed) = listed.find(|listed| listed.revision == *revision) else {
            return Err(Unpublishable::NotThere(revision.clone()).into());
        };
        let mark = Mark::read(&listed.description);
        if knowledge.is_doomed(revision) {
            return Err(Unpublishable::Doomed(revision.clone()).into());
        }
        self.calls += 1;
        let session = &*self.session;
        let fetched = session.cloud.fetch(&session.routine.name, revision).await;
        match fetched? {
            Fetched::Nothing => Err(Unpublishable::NoCode(revision.clone()).into()),
            Fetched::Code(code) => match mark {
                Some(mark) if !mark.fits(&code) => {
                    Err(Unpublishable::OtherBytes(revision.clone()).into())
                }
                _ => Ok(()),
            },
        }
    }

    /// Looks until the version is live there, or must be.
    async fn confirm(
        &mut self,
        revision: &Revision,
        environment: &str,
        until: clock::Moment,
        mut doubt: Option<CloudError>,
    ) -> Result<(), DeployError> {
        let pause = POLL.min(self.session.settings.rules.lag / 4);
        let mut live = None;
        for _ in 0..MAX_LOOKS {
            self.calls += 1;
            let session = &*self.session;
            let permit = session.cloud.permit().await;
            match session.cloud.list(permit, &session.routine.name).await {
                Ok(listing) => {
                    if let Environments::Known(all) = &listing.environments {
                        live = all.get(environment).cloned().flatten();
                    }
                    let shown = live.as_ref() == Some(revision);
                    if shown {
                        let knowledge = &mut self.session.knowledge;
                        knowledge.published(environment, revision);
                    }
                    self.listed(listing);
                    if shown {
                        return Ok(());
                    }
                }
                Err(error) => doubt = doubt.or(Some(error)),
            }
            if clock::now() >= until {
                break;
            }
            tokio::time::sleep(pause).await;
        }
        Err(match doubt {
            Some(error) => error.into(),
            None => Unpublishable::NotShown {
                revision: revision.clone(),
                environment: environment.to_owned(),
                live,
            }
            .into(),
        })
    }
}
