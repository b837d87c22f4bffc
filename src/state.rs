//! The state directory: what er-dev keeps between runs, in one place of the user's own.
//!
//! ```text
//! <state>/version                        the form of what lies here, a number
//! <state>/instance                       which er-dev this is, eight hexadecimal digits
//! <state>/budget.d/                      what all er-dev of this user may still request, and what is under way
//! <state>/run/                           control sockets, where the environment names no other place for them
//! <state>/<endpoint>/<routine>/          one routine of one service: its locks, the record of requests in doubt, its vault
//! ```
//!
//! Nobody else may write here: what lies here decides what is deleted on the service. A directory that cannot be written,
//! as on a full disk, is no reason to stop: whoever needs it says so, and goes on with less safety.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::config::Endpoint;
use crate::revision::mark::Instance;
use crate::routine::{Digest, RoutineName};

/// The form of what this program keeps.
const VERSION: &str = "1";

/// What is kept of one routine, besides its vault.
const OF_A_ROUTINE: [&str; 5] = [
    "pins.json",
    "journal.0.json",
    "journal.1.json",
    "watch.lock",
    "step.lock",
];

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
    /// Everybody could put another directory in its place.
    #[error("{path} can be written by everybody, who could put another directory in the place of the one in it", path = .0.display())]
    UnsafeAbove(PathBuf),
    /// It belongs to somebody else.
    #[error("{path} belongs to another user", path = .0.display())]
    NotOurs(PathBuf),
    /// Another version of er-dev has written it, in a form this one does not know.
    #[error("{path} is of another version of er-dev: its form is {found:?}, and this one knows {VERSION:?}", path = path.display())]
    Form {
        /// The directory.
        path: PathBuf,
        /// The form it has.
        found: String,
    },
    /// er-dev has not made it, so nothing in it is er-dev's to remove.
    #[error("{path} is no state directory of er-dev", path = .0.display())]
    NotAStateDirectory(PathBuf),
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
            Self::UnsafeAbove(_) => "give one that lies elsewhere with `--state-dir DIR`".into(),
            Self::NotOurs(_) => "give one of your own with `--state-dir DIR`".into(),
            Self::Form { .. } => {
                "use that version of er-dev, or give another directory with `--state-dir DIR`"
                    .into()
            }
            Self::NotAStateDirectory(_) => "give the right one with `--state-dir DIR`".into(),
            Self::Nowhere => "give one with `--state-dir DIR`".into(),
        }
    }
}

impl StateDir {
    /// Where the state directory is unless a flag says otherwise.
    pub fn usual(env: &dyn Fn(&str) -> Option<String>) -> Result<PathBuf, StateError> {
        Self::usual_by(env).map(|(path, _)| path)
    }

    /// The same, and the variable that says so.
    pub fn usual_by(
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<(PathBuf, &'static str), StateError> {
        let set = |name: &str| env(name).filter(|value| !value.is_empty());
        if let Some(list) = set("STATE_DIRECTORY") {
            // The service manager lists several with colons between them; the first is ours.
            let first = PathBuf::from(list.split(':').next().unwrap_or(&list));
            return Ok((first, "STATE_DIRECTORY"));
        }
        if let Some(home) = set("XDG_STATE_HOME") {
            return Ok((Path::new(&home).join("er-dev"), "XDG_STATE_HOME"));
        }
        match set("HOME") {
            Some(home) => Ok((Path::new(&home).join(".local/state/er-dev"), "HOME")),
            None => Err(StateError::Nowhere),
        }
    }

    /// Makes the directory where it is missing, and checks that only its owner can write to it and to what lies in it,
    /// and that it is in a form this program knows.
    pub fn open(path: &Path) -> Result<Self, StateError> {
        make(path)?;
        check_owner(path)?;
        let absolute = path.canonicalize().map_err(|error| io_error(path, error))?;
        check_above(&absolute)?;
        let state = Self(absolute);
        state.check_form()?;
        Ok(state)
    }

    /// Whether the directory that is at this path could be used, and what is wrong if not. Changes nothing.
    pub fn examine(path: &Path) -> Result<(), StateError> {
        check_owner(path)?;
        check_above(&path.canonicalize().map_err(|error| io_error(path, error))?)?;
        match fs::read_to_string(path.join("version")) {
            Ok(text) if text.trim().is_empty() || text.trim() == VERSION => {}
            Ok(text) => return Err(form_error(path, &text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(io_error(path, error)),
        }
        rustix::fs::access(path, rustix::fs::Access::WRITE_OK)
            .map_err(|error| io_error(path, error.into()))
    }

    fn check_form(&self) -> Result<(), StateError> {
        let path = self.0.join("version");
        match fs::read_to_string(&path) {
            Ok(text) if text.trim() == VERSION => Ok(()),
            // A write that a full disk cut short left this; what else lies here says what it is by itself.
            Ok(text) if text.trim().is_empty() => Ok(()),
            Ok(text) => Err(form_error(&self.0, &text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if let Err(error) = write(&path, VERSION) {
                    tracing::debug!(path = %path.display(), %error, "not written");
                }
                Ok(())
            }
            Err(error) => Err(io_error(&path, error)),
        }
    }

    /// Its path, absolute.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The directory of one routine of one service, made where it is missing and that is possible. Fails only if others
    /// could write to it.
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
        let service = self.0.join(host);
        let path = service.join(routine.as_str());
        if let Err(error) = make(&path) {
            tracing::debug!(%error, "a routine's directory is not made");
            return Ok(path);
        }
        check_owner(&service)?;
        check_owner(&path)?;
        Ok(path)
    }

    /// The state directory that is at this path already. Makes and changes nothing, and takes no directory for one that
    /// er-dev has not made.
    pub fn existing(path: &Path) -> Result<Self, StateError> {
        let absolute = path.canonicalize().map_err(|error| io_error(path, error))?;
        check_owner(&absolute)?;
        let state = Self(absolute);
        let read = |name: &str| fs::read_to_string(state.0.join(name)).unwrap_or_default();
        let ours = Instance::parse(read("instance").trim_end()).is_some();
        if !ours || read("version").trim() != VERSION {
            return Err(StateError::NotAStateDirectory(state.0));
        }
        Ok(state)
    }

    /// The directories of all routines that something is kept of, with the names of service and routine as they stand here.
    pub fn routines(&self) -> Result<Vec<(String, String, PathBuf)>, StateError> {
        let mut routines = Vec::new();
        for service in directories(&self.0)? {
            for routine in directories(&service)? {
                // Whatever is kept of a routine, its lock was taken for.
                if routine.join("step.lock").is_file() {
                    routines.push((name_of(&service), name_of(&routine), routine));
                }
            }
        }
        routines.sort();
        Ok(routines)
    }

    /// Removes what er-dev keeps here besides vaults, by the names that it gives, and the directories that are empty then.
    /// What it did not make stays, for the directory may be one with other things in it.
    pub fn remove(&self) -> Result<(), StateError> {
        for (_, _, routine) in self.routines()? {
            for name in OF_A_ROUTINE {
                remove(&routine.join(name))?;
            }
            let _ = fs::remove_dir(&routine);
            let _ = routine.parent().map(fs::remove_dir);
        }
        let is_socket = |name: &str| {
            name.contains('.') && Instance::parse(&name[..name.find('.').unwrap_or(0)]).is_some()
        };
        remove_in(&self.0.join("run"), is_socket)?;
        let is_budget = |name: &str| matches!(name, "budget" | "line") || name.starts_with("slot-");
        remove_in(&self.budget(), is_budget)?;
        let is_lock = |name: &str| {
            let hex = name.strip_suffix(".lock").unwrap_or_default();
            hex.len() == 16 && hex.bytes().all(|byte| byte.is_ascii_hexdigit())
        };
        remove_in(&self.0.join("builds"), is_lock)?;
        for name in ["instance", "version"] {
            remove(&self.0.join(name))?;
        }
        let _ = fs::remove_dir(&self.0);
        Ok(())
    }

    /// The directory of the budget of requests. The gate makes it, and goes on slowly where it cannot.
    pub fn budget(&self) -> PathBuf {
        self.0.join("budget.d")
    }

    /// The file whose lock a run of this command in this directory holds. The run makes it.
    pub fn build_lock(&self, dir: &Path, command: &str) -> PathBuf {
        let digest = Digest::of(format!("{}\0{command}", dir.display()).as_bytes());
        self.0
            .join("builds")
            .join(format!("{}.lock", &digest.hex()[..16]))
    }

    /// Which er-dev this is; drawn once and kept. Where it cannot be kept, it is another one each time, which costs
    /// nothing but that what was left unfinished is not recognised as one's own.
    pub fn instance(&self) -> Instance {
        let drawn = Instance::from_number(fastrand::u32(..));
        self.kept_instance(&drawn).unwrap_or_else(|error| {
            tracing::debug!(%error, "the instance is not kept");
            drawn
        })
    }

    fn kept_instance(&self, drawn: &Instance) -> io::Result<Instance> {
        let path = self.0.join("instance");
        let read = |mut file: &File| {
            let mut text = String::new();
            file.read_to_string(&mut text)?;
            Ok::<_, io::Error>(Instance::parse(text.trim_end()))
        };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = match options.mode(0o600).open(&path) {
            Ok(file) => file,
            // It may be there although nothing can be written any more.
            Err(error) => return read(&File::open(&path)?)?.ok_or(error),
        };
        // Two processes that start at once must agree on one number.
        file.lock()?;
        if let Some(instance) = read(&file)? {
            return Ok(instance);
        }
        file.set_len(0)?;
        file.rewind()?;
        file.write_all(format!("{}\n", drawn.as_str()).as_bytes())?;
        Ok(drawn.clone())
    }
}

fn form_error(path: &Path, text: &str) -> StateError {
    StateError::Form {
        path: path.to_owned(),
        found: text.trim().chars().take(20).collect(),
    }
}

/// Writes a small file that is either whole or not there.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    writeln!(file, "{text}")?;
    file.persist(path)?;
    Ok(())
}

fn directories(path: &Path) -> Result<Vec<PathBuf>, StateError> {
    let failed = |error| io_error(path, error);
    let mut directories = Vec::new();
    for entry in fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_type().map_err(failed)?.is_dir() {
            directories.push(entry.path());
        }
    }
    Ok(directories)
}

fn name_of(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// Removes a file; one that is not there is as good as removed.
fn remove(path: &Path) -> Result<(), StateError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(|error| io_error(path, error)),
    }
}

/// Removes the files with such names in a directory, and the directory if nothing else is in it.
fn remove_in(dir: &Path, is_ours: impl Fn(&str) -> bool) -> Result<(), StateError> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(|error| io_error(dir, error))?,
    };
    for entry in entries {
        let path = entry.map_err(|error| io_error(dir, error))?.path();
        if is_ours(&name_of(&path)) {
            remove(&path)?;
        }
    }
    let _ = fs::remove_dir(dir);
    Ok(())
}

fn check_owner(path: &Path) -> Result<(), StateError> {
    let meta = fs::metadata(path).map_err(|error| io_error(path, error))?;
    if meta.uid() != rustix::process::geteuid().as_raw() {
        return Err(StateError::NotOurs(path.to_owned()));
    }
    if meta.mode() & 0o022 != 0 {
        return Err(StateError::Unsafe(path.to_owned()));
    }
    Ok(())
}

/// Checks that nobody else can take the directory away. In one such as `/tmp` nobody can touch what belongs to another.
fn check_above(path: &Path) -> Result<(), StateError> {
    let Some(above) = path.parent() else {
        return Ok(());
    };
    let meta = fs::metadata(above).map_err(|error| io_error(above, error))?;
    match meta.mode() & 0o1002 {
        0o0002 => Err(StateError::UnsafeAbove(above.to_owned())),
        _ => Ok(()),
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
        let first = state.instance();
        assert_eq!(state.instance(), first);
        fs::write(state.path().join("instance"), "torn").unwrap();
        let second = state.instance();
        assert_eq!(state.instance(), second);
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
    fn t15_a_directory_that_everybody_could_put_another_one_in_the_place_of_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        let mode = |mode| fs::set_permissions(dir.path(), fs::Permissions::from_mode(mode));
        mode(0o777).unwrap();
        let error = StateDir::open(&state).unwrap_err();
        assert!(matches!(error, StateError::UnsafeAbove(_)), "{error}");
        assert!(StateDir::examine(&state).is_err());
        assert!(error.help().contains("--state-dir"));
        for safe in [0o1777, 0o775, 0o755] {
            mode(safe).unwrap();
            assert!(StateDir::open(&state).is_ok(), "{safe:o}");
            assert!(StateDir::examine(&state).is_ok(), "{safe:o}");
        }
    }

    #[test]
    fn what_er_dev_did_not_make_survives_a_removal_whatever_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let write = |name: &str| {
            fs::create_dir_all(path(name).parent().unwrap()).unwrap();
            fs::write(path(name), "1").unwrap();
        };
        let others = [
            "notes/mine/vault/diary.md",
            "h/hello/letter",
            "run/mine.txt",
            "budget.d/household",
            "builds/plan.lock",
            "photos/cat.jpg",
        ];
        others.iter().for_each(|name| write(name));
        let not_ours = StateDir::existing(dir.path()).unwrap_err();
        assert!(matches!(not_ours, StateError::NotAStateDirectory(_)));
        let state = StateDir::open(dir.path()).unwrap();
        let instance = state.instance();
        let socket = format!("run/{}.17.sock", instance.as_str());
        let ours = [
            "h/hello/step.lock",
            "h/hello/journal.0.json",
            "budget.d/slot-3",
            "builds/0123456789abcdef.lock",
            &socket,
        ];
        ours.iter().for_each(|name| write(name));
        let state = StateDir::existing(dir.path()).unwrap();
        let routines = state.routines().unwrap();
        assert_eq!(routines.len(), 1, "{routines:?}");
        state.remove().unwrap();
        assert!(others.iter().all(|name| path(name).is_file()));
        let gone = ours.iter().chain(&["instance", "version"]);
        assert!(gone.into_iter().all(|name| !path(name).exists()));
    }

    #[test]
    fn a_directory_in_another_form_is_refused_and_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        let version = state.path().join("version");
        assert_eq!(fs::read_to_string(&version).unwrap(), "1\n");
        fs::write(&version, "").unwrap();
        assert!(StateDir::open(dir.path()).is_ok(), "a full disk left it");
        fs::write(&version, "2\n").unwrap();
        let error = StateDir::open(dir.path()).unwrap_err();
        assert!(matches!(error, StateError::Form { .. }), "{error}");
        assert_eq!(fs::read_to_string(&version).unwrap(), "2\n");
    }

    #[test]
    fn where_nothing_can_be_written_there_is_still_an_instance_and_a_path() {
        let dir = tempfile::tempdir().unwrap();
        // A file in the place of a directory cannot be written into by anybody, root included.
        fs::write(dir.path().join("file"), "").unwrap();
        let state = StateDir(dir.path().join("file"));
        let _ = state.instance();
        let endpoint = Endpoint {
            url: "http://h".into(),
            host: "h".into(),
            loopback: false,
        };
        let routine = state.routine(&endpoint, &RoutineName::new("hello").unwrap());
        assert!(routine.unwrap().ends_with("file/h/hello"));
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
