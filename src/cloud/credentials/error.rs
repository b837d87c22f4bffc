//! Why there is no key to use. No value of a credential is ever part of it: texts are made of names of places, of what a
//! place calls its profiles, and of er-dev's own words.

use std::io;
use std::path::PathBuf;

use super::file::MAX_FILE_BYTES;

/// Why there is no key to use.
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
         LoadCredential=access_key_secret:/etc/er-dev/access_key_secret\n  \
         a profile of the aliyun command line tool: `aliyun configure`, which writes ~/.aliyun/config.json\n  \
         a section of ~/.alibabacloud/credentials\n  \
         the role of an ECS instance, by its name: ALIBABA_CLOUD_ECS_METADATA\n  \
         a server that hands keys out: ALIBABA_CLOUD_CREDENTIALS_URI\n\
         to try er-dev without any, run `er-dev watch --emulator`"
    )]
    NotFound,
    /// A profile was asked for by its name, and no file has it.
    #[error(
        "there is no profile `{name}` in {looked}; name another one with `service.profile` or ALIBABA_CLOUD_PROFILE, or \
         make it with `aliyun configure --profile {name}`"
    )]
    NoProfile {
        /// Its name.
        name: String,
        /// The files that were looked into.
        looked: String,
    },
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
    /// Others than the owner can put another file into the directory of a credential file.
    #[error("{} can be written by other users (mode {mode:04o}), who could put another key there; run `chmod go-w` on it", dir.display())]
    OpenDirectory {
        /// The directory.
        dir: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file belongs to somebody who could put another key there.
    #[error("{} belongs to another user, who could put another key there; make it your own", .0.display())]
    OtherOwner(PathBuf),
    /// A place is there, and what it says is no key.
    #[error("{place}: {what}")]
    Unusable {
        /// The place.
        place: String,
        /// What is wrong with it, and the way out.
        what: String,
    },
    /// A key of the cloud would be sent to a program on this machine.
    #[error(
        "the key {0} is one of the cloud, and the endpoint is this machine; use the emulator's own key there \
         (`er-dev watch --emulator` does), or the endpoint of the service"
    )]
    RealKeyAtLoopback(String),
}
