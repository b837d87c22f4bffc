//! Where keys come from: systemd's credential directory, then the environment, and nowhere else.
//!
//! The first place that has one half of a pair must have the other half too: to go on to the next place would sign with
//! a key the user did not mean. No error and no `Debug` shows a secret or a whole key id.

use std::fmt;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use secrecy::SecretString;

/// The largest credential file that is read, in bytes; a larger one is [`CredentialsError::TooLarge`].
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// The variable in which systemd tells a service where its credentials are.
const DIRECTORY: &str = "CREDENTIALS_DIRECTORY";

/// The variables that are looked at, in this order. The vendor's SDKs, its command line tool and its Terraform provider
/// read the same ones (the last two share the variable of the token).
const VARIABLES: [Variables; 3] = [
    Variables {
        prefix: "ALIBABA_CLOUD",
        id: "ALIBABA_CLOUD_ACCESS_KEY_ID",
        secret: "ALIBABA_CLOUD_ACCESS_KEY_SECRET",
        token: "ALIBABA_CLOUD_SECURITY_TOKEN",
    },
    Variables {
        prefix: "ALICLOUD",
        id: "ALICLOUD_ACCESS_KEY_ID",
        secret: "ALICLOUD_ACCESS_KEY_SECRET",
        token: "ALICLOUD_SECURITY_TOKEN",
    },
    Variables {
        prefix: "ALICLOUD",
        id: "ALICLOUD_ACCESS_KEY",
        secret: "ALICLOUD_SECRET_KEY",
        token: "ALICLOUD_SECURITY_TOKEN",
    },
];

struct Variables {
    prefix: &'static str,
    id: &'static str,
    secret: &'static str,
    token: &'static str,
}

/// A key that signs requests. `Debug` shows only what [`Credentials::shown_id`] does.
#[derive(Clone)]
pub struct Credentials {
    /// The access key id. It travels in every request, yet is shown only in part.
    pub id: String,
    /// Where the key was found.
    pub source: Source,
    secret: SecretString,
    token: Option<SecretString>,
}

/// Where a key was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Files in the directory that systemd made for the service.
    SystemdCredential,
    /// Environment variables that begin with this.
    Environment(&'static str),
    /// The emulator's own fixed key, which is no secret.
    Emulator,
}

/// Why there is no key to use. No value is ever part of it.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// No place has a key.
    #[error(
        "no credentials found; put them in one of these places:\n  \
         the environment: ALIBABA_CLOUD_ACCESS_KEY_ID and ALIBABA_CLOUD_ACCESS_KEY_SECRET, and for a temporary key \
         ALIBABA_CLOUD_SECURITY_TOKEN\n  \
         the environment: ALICLOUD_ACCESS_KEY_ID and ALICLOUD_ACCESS_KEY_SECRET, or ALICLOUD_ACCESS_KEY and \
         ALICLOUD_SECRET_KEY\n  \
         a systemd unit: LoadCredential=access_key_id:/etc/er-dev/access_key_id and \
         LoadCredential=access_key_secret:/etc/er-dev/access_key_secret\n\
         to try er-dev without any, run `er-dev watch --emulator`"
    )]
    NotFound,
    /// One half of a pair is there and the other is not.
    #[error("{present} is set but {missing} is not; set both or neither")]
    HalfPair {
        /// The variable or file that is there.
        present: String,
        /// The one that is not, or is empty.
        missing: String,
    },
    /// A value no key can have: keys are printable ASCII without spaces.
    #[error(
        "{0} holds a space, a line break or another character that no key has; look at how it was set"
    )]
    OddCharacter(String),
    /// A credential file is there and cannot be read.
    #[error("cannot read {}: {source}", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A link, a directory, a pipe or a device stands where a credential file should be.
    #[error("{} is not a regular file, and er-dev reads credentials from nothing else", .0.display())]
    NotAFile(PathBuf),
    /// The file is larger than any credential.
    #[error("{} is larger than {} KiB, so it is no credential", .0.display(), MAX_FILE_BYTES / 1024)]
    TooLarge(PathBuf),
    /// Others than the owner can read or change the file.
    #[error("{} is open to other users (mode {mode:04o}); run `chmod 400` on it", file.display())]
    OpenToOthers {
        /// The file.
        file: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A key of the cloud would be sent to a program on this machine.
    #[error(
        "the key {0} is one of the cloud, and the endpoint is this machine; use the emulator's own key there \
         (`er-dev watch --emulator` does), or the endpoint of the service"
    )]
    RealKeyAtLoopback(String),
}

impl Credentials {
    /// Looks for a key: files of `$CREDENTIALS_DIRECTORY` first, then the environment. `env` answers for a variable; an
    /// empty one counts as not set.
    ///
    /// # Errors
    ///
    /// [`CredentialsError::NotFound`] if there is none; the others say what is wrong with the first one there is.
    pub fn find(env: &dyn Fn(&str) -> Option<String>) -> Result<Self, CredentialsError> {
        let env = |name: &str| env(name).filter(|value| !value.is_empty());
        if let Some(dir) = env(DIRECTORY)
            && let Some(found) = Self::in_directory(Path::new(&dir))?
        {
            return Ok(found);
        }
        for names in &VARIABLES {
            let found = Self::from_pair(
                Source::Environment(names.prefix),
                (names.id.to_owned(), env(names.id)),
                (names.secret.to_owned(), env(names.secret)),
                (names.token.to_owned(), env(names.token)),
            )?;
            if let Some(found) = found {
                return Ok(found);
            }
        }
        Err(CredentialsError::NotFound)
    }

    /// The key that the emulator knows.
    pub fn emulator() -> Self {
        Self {
            id: "emulator-key-id".to_owned(),
            source: Source::Emulator,
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

    fn in_directory(dir: &Path) -> Result<Option<Self>, CredentialsError> {
        let file = |name: &str| {
            let path = dir.join(name);
            let value = read(&path)?.filter(|value| !value.is_empty());
            Ok((path.display().to_string(), value))
        };
        Self::from_pair(
            Source::SystemdCredential,
            file("access_key_id")?,
            file("access_key_secret")?,
            file("security_token")?,
        )
    }

    /// Makes a key of what one place has; each part comes with the name of its variable or file. A token without a key
    /// is no key.
    fn from_pair(
        source: Source,
        (id_name, id): (String, Option<String>),
        (secret_name, secret): (String, Option<String>),
        (token_name, token): (String, Option<String>),
    ) -> Result<Option<Self>, CredentialsError> {
        let half = |present, missing| Err(CredentialsError::HalfPair { present, missing });
        let (id, secret) = match (id, secret) {
            (Some(id), Some(secret)) => (id, secret),
            (None, None) => return Ok(None),
            (Some(_), None) => return half(id_name, secret_name),
            (None, Some(_)) => return half(secret_name, id_name),
        };
        let token = token.map(|token| checked(token_name, token)).transpose()?;
        Ok(Some(Self {
            id: checked(id_name, id)?,
            source,
            secret: checked(secret_name, secret)?.into(),
            token: token.map(SecretString::from),
        }))
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("id", &self.shown_id())
            .field("source", &self.source)
            .field("temporary", &self.token.is_some())
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::SystemdCredential => "systemd credential",
            Self::Environment(_) => "environment",
            Self::Emulator => "emulator",
        })
    }
}

fn checked(name: String, value: String) -> Result<String, CredentialsError> {
    if value.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(value)
    } else {
        Err(CredentialsError::OddCharacter(name))
    }
}

/// The text of a credential file without the line break that editors leave at its end; `None` if there is no file.
///
/// Links are not followed, and opening does not wait for the other end of a pipe.
fn read(path: &Path) -> Result<Option<String>, CredentialsError> {
    let unreadable = |source| CredentialsError::Unreadable {
        file: path.to_owned(),
        source,
    };
    let flags =
        OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(file) => std::fs::File::from(file),
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        // A link says LOOP, a socket NXIO.
        Err(rustix::io::Errno::LOOP | rustix::io::Errno::NXIO) => {
            return Err(CredentialsError::NotAFile(path.to_owned()));
        }
        Err(error) => return Err(unreadable(error.into())),
    };
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(CredentialsError::NotAFile(path.to_owned()));
    }
    if open_to_others(metadata.mode(), metadata.uid(), metadata.gid()) {
        return Err(CredentialsError::OpenToOthers {
            file: path.to_owned(),
            mode: metadata.mode() & 0o7777,
        });
    }
    let mut text = String::new();
    file.take(MAX_FILE_BYTES + 1)
        .read_to_string(&mut text)
        .map_err(unreadable)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(CredentialsError::TooLarge(path.to_owned()));
    }
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(Some(text))
}

/// Whether anybody but the owner may read or change a file.
///
/// For a service with a user of its own, systemd leaves the file to root and lets that one user in by an access control
/// list. The mode then shows the list's mask in the place of the group (0440), though no group may read the file. So
/// reading by the group is accepted where the file is root's and the group is root's too.
fn open_to_others(mode: u32, uid: u32, gid: u32) -> bool {
    let open = mode & 0o077;
    open != 0 && !(open == 0o040 && uid == 0 && gid == 0)
}

#[cfg(test)]
mod tests;
