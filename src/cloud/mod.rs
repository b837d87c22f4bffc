//! The remote service: list versions, upload, read back, delete, publish, create.
//!
//! [`Cloud`] is one service with one key at a time. Every request of its API passes the gate inside; none that changes
//! something is repeated, because only the caller knows whether that is safe. What an error means for the next try is in
//! its [`error::Class`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use crate::clock;
use crate::config::{Endpoint, Limits, Service};
use crate::routine::{Code, Revision, RoutineName};
use crate::traffic::Traffic;

pub mod credentials;
mod dcdn;
pub mod error;
pub mod form;
pub mod gate;
mod http;
mod rpc;
pub mod sign;
pub mod time;

/// What the slowest line that is waited for carries in a second, in bytes.
const SLOWEST_BYTES_PER_SECOND: u64 = 32 * 1024;

/// The service, its key, and the gate to it.
pub struct Cloud {
    rpc: rpc::Rpc,
    loopback: bool,
    /// The number of the key that each routine was listed with last.
    listed_with: Mutex<BTreeMap<RoutineName, u64>>,
}

/// How long answers are waited for, in total from the first byte sent to the last one read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For a call of the API.
    pub api: Duration,
    /// For the post of the code, besides a time that grows with its size.
    pub post: Duration,
}

/// What the service says of a routine.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Listing {
    /// Its versions, in the service's order, which is none. Each takes one of the ten slots.
    pub revisions: Vec<Listed>,
    /// What is live where.
    pub environments: Environments,
    /// Whether every version in the answer could be read. Otherwise that one is missing says nothing.
    pub whole: bool,
}

impl Listing {
    /// The environments that point at a version which is not there, with that version.
    pub fn dangling(&self) -> Vec<(&str, &Revision)> {
        let Environments::Known(live) = &self.environments else {
            return Vec::new();
        };
        let is_there = |revision: &Revision| {
            let mut all = self.revisions.iter();
            !self.whole
                || revision.number().is_none()
                || all.any(|listed| listed.revision == *revision)
        };
        live.iter()
            .filter_map(|(environment, revision)| Some((environment.as_str(), revision.as_ref()?)))
            .filter(|(_, revision)| !is_there(revision))
            .collect()
    }
}

/// One version in a listing.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Listed {
    /// Its number, or `unstable` for the staging slot.
    pub revision: Revision,
    /// When the service says it was made.
    pub created: Option<jiff::Timestamp>,
    /// Its description, decoded.
    pub description: String,
}

/// What is live where.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(untagged)]
pub enum Environments {
    /// The live version of every environment; `None` where no numbered version is live.
    Known(BTreeMap<String, Option<Revision>>),
    /// The answer could not be read without a guess, for this reason: nothing may be deleted.
    Unknown(String),
}

/// What a version holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fetched {
    /// Its code.
    Code(Code),
    /// The version exists, its code does not: the upload that made it never finished.
    Nothing,
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
#[error("the HTTP client could not be made: {0}")]
pub struct ClientError(#[source] reqwest::Error);

/// Certificate authorities that are trusted besides those of the system; by default none.
#[derive(Debug, Clone, Default)]
pub struct Authorities(Vec<reqwest::Certificate>);

/// Why a file holds no certificate authorities.
#[derive(Debug, thiserror::Error)]
pub enum AuthoritiesError {
    /// It cannot be read.
    #[error("the file of certificate authorities {path} cannot be read: {error}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        error: std::io::Error,
    },
    /// It holds no certificate.
    #[error("the file of certificate authorities {path} holds no certificate in PEM form", path = .0.display())]
    None(PathBuf),
    /// It holds something that claims to be a certificate.
    #[error("the file of certificate authorities {path} holds a broken certificate: {error}", path = path.display())]
    Broken {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        error: rustls::Error,
    },
}

impl Authorities {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Reads a file in PEM form.
    pub fn read(path: &Path) -> Result<Self, AuthoritiesError> {
        let bytes = std::fs::read(path).map_err(|error| AuthoritiesError::Io {
            path: path.to_owned(),
            error,
        })?;
        let none = || AuthoritiesError::None(path.to_owned());
        let certificates = reqwest::Certificate::from_pem_bundle(&bytes).map_err(|_| none())?;
        if certificates.is_empty() {
            return Err(none());
        }
        // What lies inside the armour is looked at no sooner than when a client is made, which can happen again later.
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&bytes) {
            let added = roots.add(certificate.map_err(|_| none())?);
            added.map_err(|error| AuthoritiesError::Broken {
                path: path.to_owned(),
                error,
            })?;
        }
        Ok(Self(certificates))
    }
}

impl Cloud {
    /// A client of a service. Makes no request. All that have the same `budget`, a directory, share
    /// one budget of requests.
    pub fn new(
        service: &Service,
        keys: Arc<credentials::keys::Keys>,
        limits: Limits,
        budget: &Path,
        timeouts: Timeouts,
        authorities: Authorities,
    ) -> Result<Self, ClientError> {
        let client =
            http::Client::new(service.endpoint.loopback, authorities).map_err(ClientError)?;
        let gate = gate::Gate::new(limits, budget, clock::now);
        let rpc = rpc::Rpc::new(client, service, keys, gate, timeouts);
        Ok(Self {
            rpc,
            loopback: service.endpoint.loopback,
            listed_with: Mutex::default(),
        })
    }

    /// A permit for a listing, or for a request that changes something. It is waited for before the time of that request
    /// is taken, since the wait may be long.
    pub async fn permit(&self) -> gate::Permit<'_> {
        self.rpc.permit().await
    }

    /// The same, ahead of the line.
    pub async fn urgent_permit(&self) -> gate::Permit<'_> {
        self.rpc.urgent_permit().await
    }

    /// Whether a routine was listed with another key than the present one, which may be another account's: what is known
    /// of it is worth nothing then. The present key is the one by now, also if nothing was sent with it yet.
    pub async fn is_of_another_key(&self, routine: &RoutineName) -> bool {
        self.rpc.keys.refresh().await;
        let listed_with = self.listed_with(routine);
        listed_with.is_some_and(|number| number != self.rpc.keys.present().number)
    }

    /// Whether a routine was listed with the present key, and no other one is due. Asks nobody.
    pub fn is_of_present_key(&self, routine: &RoutineName) -> bool {
        let keys = &self.rpc.keys;
        !keys.is_due() && self.listed_with(routine) == Some(keys.present().number)
    }

    fn listed_with(&self, routine: &RoutineName) -> Option<u64> {
        let all = self.listed_with.lock();
        let all = all.unwrap_or_else(PoisonError::into_inner);
        all.get(routine).copied()
    }

    /// What the gate has let through so far.
    pub fn usage(&self) -> gate::Usage {
        self.rpc.usage()
    }

    /// What was asked of the service so far, posts of code among the operations.
    pub fn traffic(&self) -> Traffic {
        self.rpc.client.traffic().clone()
    }

    /// How far this machine's clock is known to be off.
    pub fn clock_offset(&self) -> time::Offset {
        self.rpc.clock.offset()
    }

    /// How far this machine's clock was from the service's at its last answer; `None` before the first one. The service
    /// tells its time in whole seconds.
    pub fn clock_seen(&self) -> Option<time::Offset> {
        self.rpc.clock.seen()
    }

    /// The proxy of the environment that requests to an address go through, without its password; `None` if they go
    /// straight there.
    pub fn proxy_of(endpoint: &Endpoint) -> Option<String> {
        http::proxy_of(endpoint)
    }

    /// How the budget of requests stands that is shared with other processes.
    pub fn budget(&self) -> gate::State {
        self.rpc.budget()
    }
}

impl std::fmt::Debug for Cloud {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cloud").finish_non_exhaustive()
    }
}

impl Timeouts {
    /// For the post of this code: the larger it is, the longer a slow line needs for it.
    pub fn post_of(&self, code: &Code) -> Duration {
        let seconds = code.bytes().len() as u64 / SLOWEST_BYTES_PER_SECOND;
        self.post + Duration::from_secs(seconds)
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            api: Duration::from_secs(10),
            post: Duration::from_secs(30),
        }
    }
}
