//! The key in use: the place it comes from is asked again before it ends, when the service refuses it, and when its
//! files change.
//!
//! A key is replaced in one piece, so that a request is signed with the old one or with the new one. Where the place
//! cannot be asked, the old one is used as long as it holds, and none that has ended is ever sent.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Notify;

use crate::clock::{self, Moment};
use crate::cloud::Authorities;

use super::error::CredentialsError;
use super::file::Stamp;
use super::looks::Looks;
use super::place::{First, Looked, Place, Search};
use super::{Credentials, Env};

/// How often files are looked at while the service refuses the key.
const LOOK: Duration = Duration::from_secs(1);

/// How often the place is asked at most because the service refuses what it gave.
const ASKED_FOR_REFUSAL: Duration = Duration::from_secs(60);

/// One key, and its place in the order of those that were used.
#[derive(Debug, Clone)]
pub struct Key {
    /// The key.
    pub credentials: Credentials,
    /// How many there were before it.
    pub number: u64,
}

/// The key in use, and where to get the next one.
pub struct Keys {
    origin: Option<(Search, Place)>,
    /// Whether the endpoint is on this machine, where no key of the cloud may go.
    loopback: bool,
    held: Mutex<Held>,
    /// Held by whoever asks the place, so that nobody else does.
    asking: tokio::sync::Mutex<()>,
    /// Told when a key is refused.
    refusals: Notify,
}

struct Held {
    key: Arc<Key>,
    looks: Looks,
    stamps: Vec<Stamp>,
    /// The number of the key that the service refused last, or would have, until that is made good.
    refused: Option<u64>,
    /// When the place was asked last because of a refusal.
    asked: Option<Moment>,
    /// Why the place gave no key when it was last asked.
    error: Option<String>,
}

/// Why there is no key to sign with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the key has ended, and there is no other one yet{}", .0.as_ref().map(|why| format!(": {why}")).unwrap_or_default())]
pub struct Ended(Option<String>);

impl Keys {
    /// Looks for a key: files of `$CREDENTIALS_DIRECTORY`, the environment, the vendor's two files, the role of an ECS
    /// instance, a server. An empty variable counts as not set. `profile` is the one that the configuration names, and
    /// `loopback` whether the endpoint is on this machine; `authorities` are trusted by whoever asks a server for a key.
    ///
    /// # Errors
    ///
    /// [`CredentialsError::NotFound`] if there is none; the others say what is wrong with the first one there is.
    pub async fn find(
        env: Env,
        profile: Option<String>,
        loopback: bool,
        authorities: Authorities,
    ) -> Result<Self, CredentialsError> {
        Self::search(env, profile, loopback, authorities, &mut Vec::new()).await
    }

    /// The same, and what became of the search in each place is added to `looked`, in their order. What is there is
    /// there too if the search is given up before its end.
    ///
    /// # Errors
    ///
    /// Those of [`Keys::find`].
    pub async fn search(
        env: Env,
        profile: Option<String>,
        loopback: bool,
        authorities: Authorities,
        looked: &mut Vec<Looked>,
    ) -> Result<Self, CredentialsError> {
        let search = Search {
            env,
            profile,
            authorities,
        };
        let First { place, stamps, key } = search.first(looked).await?;
        key.check_endpoint(loopback)?;
        Ok(Self::new(key, Some((search, place)), stamps, loopback))
    }

    /// A key that stays as it is.
    pub fn fixed(credentials: Credentials) -> Self {
        Self::new(credentials, None, Vec::new(), true)
    }

    fn new(
        credentials: Credentials,
        origin: Option<(Search, Place)>,
        stamps: Vec<Stamp>,
        loopback: bool,
    ) -> Self {
        let looks = looks_of(&credentials, clock::now());
        let key = Key {
            credentials,
            number: 0,
        };
        Self {
            origin,
            loopback,
            held: Mutex::new(Held {
                key: Arc::new(key),
                looks,
                stamps,
                refused: None,
                asked: None,
                error: None,
            }),
            asking: tokio::sync::Mutex::new(()),
            refusals: Notify::new(),
        }
    }

    /// The present key, whether or not it still holds.
    pub fn present(&self) -> Arc<Key> {
        Arc::clone(&self.held().key)
    }

    /// The key to sign with.
    pub(in crate::cloud) fn usable(&self) -> Result<Arc<Key>, Ended> {
        let mut held = self.held();
        if held.looks.has_ended(clock::now()) {
            held.refused = Some(held.key.number);
            self.refusals.notify_one();
            return Err(Ended(held.error.clone()));
        }
        Ok(Arc::clone(&held.key))
    }

    /// Whether it is time to ask the place for another key, or its files have changed.
    pub(in crate::cloud) fn is_due(&self) -> bool {
        self.origin.as_ref().is_some_and(|(_, place)| {
            let stamps = place.stamps();
            let held = self.held();
            held.looks.is_due(clock::now()) || stamps != held.stamps
        })
    }

    /// Asks the place for another key if it is time to, or if its files have changed. While the old one holds, only one
    /// caller waits for that.
    pub(in crate::cloud) async fn refresh(&self) {
        if !self.is_due() {
            return;
        }
        let _asking = if self.held().looks.has_ended(clock::now()) {
            self.asking.lock().await
        } else {
            match self.asking.try_lock() {
                Ok(asking) => asking,
                Err(_) => return,
            }
        };
        if self.is_due() {
            self.ask().await;
        }
    }

    /// Takes note that the service refused a key. Returns whether there is another one now: the place is asked once, and
    /// again no sooner than after a while or when its files have changed.
    pub(in crate::cloud) async fn refused(&self, key: &Key) -> bool {
        let _asking = self.asking.lock().await;
        {
            let mut held = self.held();
            if held.key.number != key.number {
                // Somebody was here before, and replaced it.
                return held.refused != Some(held.key.number);
            }
            held.refused = Some(key.number);
            let now = clock::now();
            let since = held.asked.map(|asked| now.since(asked));
            let changed = self
                .origin
                .as_ref()
                .is_some_and(|(_, place)| place.stamps() != held.stamps);
            if since.is_some_and(|since| since < ASKED_FOR_REFUSAL) && !changed {
                held.looks = held.looks.refused(now);
                self.refusals.notify_one();
                return false;
            }
            held.asked = Some(now);
        }
        self.ask().await;
        self.refusals.notify_one();
        self.present().number != key.number
    }

    /// Waits until a key that was refused is replaced. Looks for another one as long as it is waited for.
    pub async fn replaced(&self) {
        loop {
            {
                let mut held = self.held();
                if held
                    .refused
                    .is_some_and(|refused| refused < held.key.number)
                {
                    held.refused = None;
                    return;
                }
            }
            if self.is_wanting() {
                tokio::time::sleep(LOOK).await;
                self.refresh().await;
            } else {
                self.refusals.notified().await;
            }
        }
    }

    /// Whether there is no key that can be used.
    fn is_wanting(&self) -> bool {
        let held = self.held();
        held.refused == Some(held.key.number)
    }

    /// Asks the place, and takes what it gives.
    async fn ask(&self) {
        let Some((search, place)) = &self.origin else {
            return;
        };
        let stamps = place.stamps();
        let loaded = match search.load(place).await {
            Ok(Some(found)) => match found.check_endpoint(self.loopback) {
                Ok(()) => Ok(found),
                Err(error) => Err(error.to_string()),
            },
            Ok(None) => Err("the place where the key was found has none any more".to_owned()),
            Err(error) => Err(error.to_string()),
        };
        let (now, jitter) = (clock::now(), fastrand::f64());
        let loaded = loaded.and_then(|found| match looks_of(&found, now) {
            looks if looks.has_ended(now) => Err("its source gave one that has ended".to_owned()),
            looks => Ok((found, looks)),
        });
        let mut held = self.held();
        held.stamps = stamps;
        if held.refused == Some(held.key.number) {
            held.asked = Some(now);
        }
        match loaded {
            Ok((found, looks)) => {
                held.error = None;
                held.looks = looks;
                if held.key.credentials.signs_like(&found) {
                    if held.refused == Some(held.key.number) {
                        held.looks = held.looks.refused(now);
                    }
                    return;
                }
                tracing::info!(key = found.shown_id(), source = %found.source, "another key");
                let number = held.key.number + 1;
                held.key = Arc::new(Key {
                    credentials: found,
                    number,
                });
            }
            Err(error) => {
                // The same is not said again and again.
                if held.error.as_ref() != Some(&error) {
                    tracing::warn!(%error, "no other key");
                }
                held.looks = held.looks.failed(now, jitter);
                held.error = Some(error);
            }
        }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys")
            .field("key", &self.present())
            .finish_non_exhaustive()
    }
}

/// When the place of a key is asked again. The end of a key is a time of the wall clock, which is looked at once: from
/// then on nobody can set it wrong.
fn looks_of(key: &Credentials, now: Moment) -> Looks {
    let ends = key.ends.map(|ends| {
        let left = Duration::try_from(ends.duration_since(Timestamp::now()));
        now + left.unwrap_or_default()
    });
    Looks::given(ends, now, fastrand::f64())
}
