//! The classes of what can go wrong: the word in brackets behind a message, and the exit code that goes with it.

use std::fmt;

use serde::{Serialize, Serializer};

/// What kind of thing went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// The file cannot go up as it is.
    Source,
    /// The file is not there. Its word is that of any other file that cannot go up.
    Absent,
    /// The file has no bytes. Its word is that of any other file that cannot go up.
    Empty,
    /// The command that makes the file failed, or does not come to rest.
    Build,
    /// File events cannot be had, or not of everything.
    Watch,
    /// The service could not be reached.
    Network,
    /// It is not known whether a request was carried out.
    InDoubt,
    /// The service asked for fewer requests.
    Throttled,
    /// The clocks of this machine and the service disagree.
    Clock,
    /// There is no key, or it is wrong, ended, or not allowed to do this.
    Credentials,
    /// All slots for versions are taken.
    Slots,
    /// The routine does not exist.
    Missing,
    /// The service refused the request and would refuse it again.
    Refused,
    /// The service answered with words that are not known.
    Service,
    /// Another er-dev is busy with the routine.
    Locked,
    /// The state directory cannot be used.
    State,
    /// The configuration is wrong.
    Config,
    /// The command line asks for something that is not there.
    Usage,
}

impl Class {
    /// A class for every word, in the order README lists them.
    pub const ALL: [Self; 16] = [
        Self::Source,
        Self::Build,
        Self::Watch,
        Self::Network,
        Self::InDoubt,
        Self::Throttled,
        Self::Clock,
        Self::Credentials,
        Self::Slots,
        Self::Missing,
        Self::Refused,
        Self::Service,
        Self::Locked,
        Self::State,
        Self::Config,
        Self::Usage,
    ];

    /// The class in one word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Source | Self::Absent | Self::Empty => "source",
            Self::Build => "build",
            Self::Watch => "watch",
            Self::Network => "network",
            Self::InDoubt => "in-doubt",
            Self::Throttled => "throttled",
            Self::Clock => "clock",
            Self::Credentials => "credentials",
            Self::Slots => "slots",
            Self::Missing => "missing",
            Self::Refused => "refused",
            Self::Service => "service",
            Self::Locked => "locked",
            Self::State => "state",
            Self::Config => "config",
            Self::Usage => "usage",
        }
    }

    /// The exit code of a command that ends with it.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Source | Self::Absent | Self::Empty => 65,
            Self::Network | Self::InDoubt => 69,
            Self::Throttled | Self::Locked => 75,
            Self::Credentials => 77,
            Self::Config | Self::State => 78,
            Self::Usage => 2,
            Self::Build
            | Self::Watch
            | Self::Clock
            | Self::Slots
            | Self::Missing
            | Self::Refused
            | Self::Service => 1,
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

impl Serialize for Class {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.word())
    }
}
