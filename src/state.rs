//! The state directory: what er-dev keeps between runs, in one place of the user's own.
//!
//! ```text
//! <state>/instance                       which er-dev this is, eight hexadecimal digits
//! <state>/budget.d/                      what all er-dev of this user may still request, and what is under way
//! <state>/<endpoint>/<routine>/          one routine of one service: its locks and its vault
//! ```
//!
//! Nobody else may write here: what lies here decides what is deleted on the service.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::config::Endpoint;
use crate::revision::mark::Instance;
use crate::routine::RoutineName;

/// The state directory of this user.
#[derive(Debug, Clone)]
pub struct StateDir(PathBuf);

/// Why there is no usable state directory.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// It, or something in it, cannot be made, read or written.
    #[error("{path}: {error}", path = path.display())]
    Io {
        /// What could not be used.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// Somebody else could change what lies in it.
    #[error("{path} can be written by others", path = .0.display())]
    Unsafe(PathBuf),
    /// It cannot be told where it should be.
    #[error("no state directory: neither STATE_DIRECTORY, XDG_STATE_HOME nor HOME is set")]
    Nowhere,
}

impl StateError {
    /// What to do about it.
    pub fn help(&self) -> String {
        match self {
            Self::Io { .. } => "give a directory of your own with `--state-dir DIR`".into(),
            Self::Unsafe(path) => format!(
                "run `chmod 700 {}`, or give another one with `--state-dir DIR`",
                path.display()
            ),
            Self::Nowhere => "give one with `--state-dir DIR`".into(),
        }
    }
}

impl StateDir {
    /// Where the state directory is unless a flag says otherwise.
    pub fn usual(env: &dyn Fn(&str) -> Option<String>) -> Result<PathBuf, StateError> {
        let set = |name: &str| env(name).filter(|value| !value.is_empty());
        if let Some(list) = set("STATE_DIRECTORY") {
            // The service manager lists several with colons between them; the first is ours.
            return Ok(PathBuf::from(list.split(':').next().unwrap_or(&list)));
        }
        if let Some(home) = set("XDG_STATE_HOME") {
            return Ok(Path::new(&home).join("er-dev"));
        }
        match set("HOME") {
            Some(home) => Ok(Path::new(&home).join(".local/state/er-dev")),
            None => Err(StateError::Nowhere),
        }
    }

    /// Makes the directory where it is missing, and checks that only its owner can write to it.
    pub fn open(path: &Path) -> Result<Self, StateError> {
        make(path)?;
        let meta = fs::metadata(path).map_err(|error| io_error(path, error))?;
        let others_write = meta.mode() & 0o022 != 0;
        let ours = meta.uid() == rustix::process::geteuid().as_raw();
        if others_write || !ours {
            return Err(StateError::Unsafe(path.to_owned()));
        }
        let absolute = path.canonicalize().map_err(|error| io_error(path, error))?;
        Ok(Self(absolute))
    }

    /// Its path, absolute.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The directory of one routine of one service, made where it is missing.
    pub fn routine(
        &self,
        endpoint: &Endpoint,
        routine: &RoutineName,
    ) -> Result<PathBuf, StateError> {
        let host: String = endpoint
            .host
            .chars()
            .map(|c| {
                if c.is_ascii_alphanumeric() || matches!(c, '.' | '-') {
                    c
                } else {
                    '_'
                }
            })
            .collect();
        let path = self.0.join(host).join(routine.as_str());
        make(&path)?;
        Ok(path)
    }

    /// The directory of the budget of requests. The gate makes it, and goes on slowly where it cannot.
    pub fn budget(&self) -> PathBuf {
        self.0.join("budget.d")
    }

    /// Which er-dev this is; drawn once and kept.
    pub fn instance(&self) -> Result<Instance, StateError> {
        let path = self.0.join("instance");
        let failed = |error| io_error(&path, error);
        let mut options = OpenOptions::new();
        let file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600);
        let mut file: File = file.open(&path).map_err(failed)?;
        // Two processes that start at once must agree on one number.
        file.lock().map_err(failed)?;
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(failed)?;
        if let Some(instance) = Instance::parse(text.trim_end()) {
            return Ok(instance);
        }
        let instance = Instance::from_number(fastrand::u32(..));
        file.set_len(0).map_err(failed)?;
        rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(0))
            .map_err(|error| failed(error.into()))?;
        file.write_all(format!("{}\n", instance.as_str()).as_bytes())
            .map_err(failed)?;
        Ok(instance)
    }
}

fn make(path: &Path) -> Result<(), StateError> {
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder.create(path).map_err(|error| io_error(path, error))
}

fn io_error(path: &Path, error: io::Error) -> StateError {
    StateError::Io {
        path: path.to_owned(),
        error,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_instance_is_drawn_once_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(&dir.path().join("a/b")).unwrap();
        let first = state.instance().unwrap();
        assert_eq!(state.instance().unwrap(), first);
        fs::write(state.path().join("instance"), "torn").unwrap();
        let second = state.instance().unwrap();
        assert_eq!(state.instance().unwrap(), second);
    }

    #[test]
    fn a_directory_that_others_can_write_to_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        for mode in [0o777, 0o770, 0o702] {
            fs::set_permissions(dir.path(), fs::Permissions::from_mode(mode)).unwrap();
            let error = StateDir::open(dir.path()).unwrap_err();
            assert!(matches!(error, StateError::Unsafe(_)), "{mode:o}");
            assert!(error.help().contains("chmod 700"));
        }
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        assert!(StateDir::open(dir.path()).is_ok());
    }

    #[test]
    fn a_new_directory_is_its_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(&dir.path().join("new")).unwrap();
        let endpoint = Endpoint {
            url: "http://[::1]:5".into(),
            host: "[::1]:5".into(),
            loopback: true,
        };
        let routine = state
            .routine(&endpoint, &RoutineName::new("hello").unwrap())
            .unwrap();
        assert!(
            routine.ends_with("new/___1__5/hello"),
            "{}",
            routine.display()
        );
        for path in [state.path(), &routine] {
            assert_eq!(fs::metadata(path).unwrap().mode() & 0o777, 0o700);
        }
    }

    #[test]
    fn the_service_managers_directory_comes_before_the_users() {
        let env = |pairs: &'static [(&str, &str)]| {
            move |name: &str| {
                pairs
                    .iter()
                    .find(|(n, _)| *n == name)
                    .map(|(_, v)| String::from(*v))
            }
        };
        let all = env(&[
            ("STATE_DIRECTORY", "/var/lib/er-dev:/x"),
            ("XDG_STATE_HOME", "/s"),
            ("HOME", "/h"),
        ]);
        assert_eq!(StateDir::usual(&all).unwrap(), Path::new("/var/lib/er-dev"));
        let user = env(&[
            ("STATE_DIRECTORY", ""),
            ("XDG_STATE_HOME", "/s"),
            ("HOME", "/h"),
        ]);
        assert_eq!(StateDir::usual(&user).unwrap(), Path::new("/s/er-dev"));
        assert_eq!(
            StateDir::usual(&env(&[("HOME", "/h")])).unwrap(),
            Path::new("/h/.local/state/er-dev")
        );
        assert!(matches!(
            StateDir::usual(&env(&[])),
            Err(StateError::Nowhere)
        ));
    }
}
