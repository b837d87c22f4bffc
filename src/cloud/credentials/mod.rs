//! The key that signs requests: where it comes from, and what may be shown of it.
//!
//! No error and no `Debug` shows a secret or a whole key id. The places and their order are in `place`; the key in use,
//! which may end and be replaced, is in [`keys`].

mod answer;
mod command;
mod document;
pub mod error;
mod file;
pub mod keys;
mod looks;
mod means;
pub mod place;
mod role;
mod server;

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use secrecy::{ExposeSecret as _, SecretString};

use self::error::CredentialsError;
use self::means::Part;
use crate::secrets::{self, Text};

/// Answers for a variable of the environment.
pub type Env = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// A key that signs requests. `Debug` shows only what [`Credentials::shown_id`] does.
#[derive(Clone)]
pub struct Credentials {
    /// The access key id. It travels in every request, yet is shown only in part.
    pub id: String,
    /// Where the key was found.
    pub source: Source,
    /// When it ends, where its source says so.
    pub ends: Option<Timestamp>,
    secret: SecretString,
    token: Option<SecretString>,
}

/// Where a key was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Files in the directory that systemd made for the service.
    SystemdCredential,
    /// Environment variables that begin with this.
    Environment(&'static str),
    /// The profile of this name in one of the vendor's files.
    Profile(String),
    /// The role of the ECS instance that this is.
    EcsRole,
    /// A server that hands keys out.
    CredentialsUri,
    /// The emulator's own fixed key, which is no secret.
    Emulator,
}

impl Credentials {
    /// The key that the emulator knows.
    pub fn emulator() -> Self {
        Self {
            id: "emulator-key-id".to_owned(),
            source: Source::Emulator,
            ends: None,
            secret: "emulator-key-secret".into(),
            token: None,
        }
    }

    /// What signs.
    pub fn secret(&self) -> &SecretString {
        &self.secret
    }

    /// What goes with a temporary key in each request.
    pub fn token(&self) -> Option<&SecretString> {
        self.token.as_ref()
    }

    /// The id as people may see it: its first and last four characters, or stars if it is too short to leave any out.
    pub fn shown_id(&self) -> String {
        let chars: Vec<char> = self.id.chars().collect();
        if chars.len() <= 12 {
            return "****".to_owned();
        }
        let (head, tail) = (&chars[..4], &chars[chars.len() - 4..]);
        format!("{}...{}", String::from_iter(head), String::from_iter(tail))
    }

    /// What kind of key it is, in words.
    pub fn kind(&self) -> &'static str {
        match self.token {
            Some(_) => "temporary key",
            None => "access key",
        }
    }

    /// Refuses to send a key of the cloud to a program on this machine. `loopback` is whether the endpoint is one.
    ///
    /// # Errors
    ///
    /// [`CredentialsError::RealKeyAtLoopback`] for an id that begins as the cloud's ids do: `LTAI`, or `STS.` for
    /// temporary ones (facts of the service).
    pub fn check_endpoint(&self, loopback: bool) -> Result<(), CredentialsError> {
        let real = self.id.starts_with("LTAI") || self.id.starts_with("STS.");
        if loopback && real {
            return Err(CredentialsError::RealKeyAtLoopback(self.shown_id()));
        }
        Ok(())
    }

    /// Whether another one signs in the same way.
    fn signs_like(&self, other: &Self) -> bool {
        let token = self.token.as_ref().map(|token| token.expose_secret());
        self.id == other.id
            && self.secret.expose_secret() == other.secret.expose_secret()
            && token == other.token.as_ref().map(|token| token.expose_secret())
    }

    /// Makes a key of what one place has; each part comes with the name of its variable or file. A token without a key
    /// is no key.
    fn from_pair(
        source: Source,
        (id_name, id): Part,
        (secret_name, secret): Part,
        (token_name, token): Part,
    ) -> Result<Option<Self>, CredentialsError> {
        let half = |present, missing| Err(CredentialsError::HalfPair { present, missing });
        let (id, secret) = match (id, secret) {
            (Some(id), Some(secret)) => (id, secret),
            (None, None) => return Ok(None),
            (Some(_), None) => return half(id_name, secret_name),
            (None, Some(_)) => return half(secret_name, id_name),
        };
        let token = token.map(|token| checked(token_name, token)).transpose()?;
        let (id, secret) = (checked(id_name, id)?, checked(secret_name, secret)?);
        let parts = [Some(&id), Some(&secret), token.as_ref()];
        parts
            .into_iter()
            .flatten()
            .for_each(|part| secrets::learn(part));
        Ok(Some(Self {
            id: id.to_string(),
            source,
            ends: None,
            secret: secret.as_str().into(),
            token: token.map(|token| token.as_str().into()),
        }))
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("id", &self.shown_id())
            .field("source", &self.source)
            .field("temporary", &self.token.is_some())
            .field("ends", &self.ends)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SystemdCredential => f.pad("systemd credential"),
            Self::Environment(_) => f.pad("environment"),
            Self::Profile(name) => write!(f, "profile {name}"),
            Self::EcsRole => f.pad("ECS role"),
            Self::CredentialsUri => f.pad("credentials URI"),
            Self::Emulator => f.pad("emulator"),
        }
    }
}

fn checked(name: String, value: Text) -> Result<Text, CredentialsError> {
    if value.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(value)
    } else {
        Err(CredentialsError::OddCharacter(name))
    }
}

#[cfg(test)]
mod tests;
