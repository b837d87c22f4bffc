//! Where control sockets lie: one directory a user, one socket a running `watch`.
//!
//! A socket has the name `<instance>.<pid>.sock`. It appears in its place only when it can be connected to, so that one
//! that refuses belongs to a process that was killed, and may be removed by whoever finds it.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};

/// The longest path of a socket, in bytes: the system's `sun_path` less the byte that ends it.
pub const MAX_PATH: usize = 107;

/// Why there can be no control socket.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// The directory, or the socket in it, cannot be made or used.
    #[error("{}: {error}", path.display())]
    Io {
        /// What could not be used.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// What lies there is not a directory.
    #[error("{} is not a directory", .0.display())]
    NotADirectory(PathBuf),
    /// The directory belongs to somebody else.
    #[error("{} belongs to another user", .0.display())]
    NotOurs(PathBuf),
    /// Others may enter the directory.
    #[error("{} is open to other users (mode {mode:o}, not 700)", path.display())]
    Open {
        /// The directory.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The path does not fit into the address of a socket.
    #[error("the path of the socket would have {} bytes and may have {MAX_PATH}: {}", .0.as_os_str().len(), .0.display())]
    TooLong(PathBuf),
    /// Another process answers under this very name.
    #[error("another er-dev answers at {}", .0.display())]
    Taken(PathBuf),
}

impl PlaceError {
    /// What to do about it.
    pub fn help(&self) -> String {
        let elsewhere = "set XDG_RUNTIME_DIR to a directory of your own";
        match self {
            Self::Open { path, .. } => format!(
                "run `chmod 700 {}`, or set `RuntimeDirectoryMode=0700` in the unit of the service",
                path.display()
            ),
            Self::TooLong(_) => "set XDG_RUNTIME_DIR to a directory with a shorter path".into(),
            Self::Taken(_) => {
                format!("give each er-dev a state directory of its own, or {elsewhere}")
            }
            Self::Io { .. } | Self::NotADirectory(_) | Self::NotOurs(_) => elsewhere.into(),
        }
    }
}

/// A socket that somebody answers at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its path.
    pub socket: PathBuf,
    /// The process that made it, by its name.
    pub pid: u32,
}

/// The directory of control sockets, for a user with this environment and state directory; `None` if it takes a state
/// directory and there is none.
pub fn directory(env: &dyn Fn(&str) -> Option<String>, state: Option<&Path>) -> Option<PathBuf> {
    let set = |name: &str| env(name).filter(|value| !value.is_empty());
    if let Some(list) = set("RUNTIME_DIRECTORY") {
        // The service manager lists several with colons between them; the first is ours.
        return Some(PathBuf::from(list.split(':').next().unwrap_or(&list)));
    }
    match set("XDG_RUNTIME_DIR") {
        Some(runtime) => Some(Path::new(&runtime).join("er-dev")),
        None => state.map(|state| state.join("run")),
    }
}

/// Makes the directory where it is missing, and checks that nobody else may enter it.
pub fn prepare(dir: &Path) -> Result<(), PlaceError> {
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o700);
    let made = builder.create(dir);
    // What stands in the way is told by the check, if it is there at all.
    match check(dir) {
        Err(PlaceError::Io { .. }) => made.map_err(|error| io_error(dir, error)),
        checked => checked,
    }
}

/// Checks that nobody else may enter the directory.
pub fn check(dir: &Path) -> Result<(), PlaceError> {
    let meta = fs::symlink_metadata(dir).map_err(|error| io_error(dir, error))?;
    if !meta.is_dir() {
        return Err(PlaceError::NotADirectory(dir.to_owned()));
    }
    if meta.uid() != rustix::process::geteuid().as_raw() {
        return Err(PlaceError::NotOurs(dir.to_owned()));
    }
    match meta.mode() & 0o777 {
        0o700 => Ok(()),
        mode => Err(PlaceError::Open {
            path: dir.to_owned(),
            mode,
        }),
    }
}

/// The sockets in a directory that somebody answers at, in the order of their names. Those that were left behind are
/// removed.
pub async fn living(dir: &Path) -> Result<Vec<Found>, PlaceError> {
    let entries = fs::read_dir(dir).map_err(|error| io_error(dir, error))?;
    let mut found: Vec<Found> = entries
        .flatten()
        .filter_map(|entry| {
            let pid = pid_in(entry.file_name().to_str()?)?;
            let socket = entry.path();
            Some(Found { socket, pid })
        })
        .collect();
    found.sort_by(|a, b| a.socket.cmp(&b.socket));
    let mut living = Vec::new();
    for found in found {
        if is_left_behind(&found.socket).await {
            tracing::info!(socket = %found.socket.display(), "removed the socket of an er-dev that was killed");
            let _ = fs::remove_file(&found.socket);
        } else {
            living.push(found);
        }
    }
    Ok(living)
}

/// The process in the name of a socket; `None` for what is not the name of one.
fn pid_in(name: &str) -> Option<u32> {
    let (instance, rest) = name.split_once('.')?;
    let is_instance = instance.len() == 8 && instance.bytes().all(|b| b.is_ascii_hexdigit());
    let pid = rest.strip_suffix(".sock")?.parse().ok()?;
    is_instance.then_some(pid)
}

async fn is_left_behind(socket: &Path) -> bool {
    let connected = UnixStream::connect(socket).await;
    matches!(connected, Err(error) if error.kind() == io::ErrorKind::ConnectionRefused)
}

/// Listens at a socket that only its owner can connect to. It appears when it can be connected to.
pub(super) fn listen(path: &Path) -> Result<UnixListener, PlaceError> {
    // A name of the same length, under which nobody looks for it.
    let new = path.with_extension("new");
    // What is there has this process's number in its name, and was left by another one of that number.
    let _ = fs::remove_file(&new);
    let listener = UnixListener::bind(&new).map_err(|error| io_error(&new, error))?;
    let placed = fs::set_permissions(&new, Permissions::from_mode(0o600))
        .and_then(|()| fs::rename(&new, path));
    if let Err(error) = placed {
        let _ = fs::remove_file(&new);
        return Err(io_error(path, error));
    }
    Ok(listener)
}

/// Makes a socket again that was removed, with its directory; `None` if it is there.
pub(super) fn listen_again(path: &Path) -> Result<Option<UnixListener>, PlaceError> {
    if fs::symlink_metadata(path).is_ok() {
        return Ok(None);
    }
    if let Some(dir) = path.parent() {
        prepare(dir)?;
    }
    listen(path).map(Some)
}

/// A socket that is listened at. Dropping it removes it.
#[derive(Debug)]
pub(super) struct Socket {
    path: PathBuf,
}

impl Socket {
    /// Makes a socket that only its owner can connect to.
    pub(super) async fn bind(
        dir: &Path,
        instance: &str,
        pid: u32,
    ) -> Result<(Self, UnixListener), PlaceError> {
        let path = dir.join(format!("{instance}.{pid}.sock"));
        if path.as_os_str().len() > MAX_PATH {
            return Err(PlaceError::TooLong(path));
        }
        if UnixStream::connect(&path).await.is_ok() {
            return Err(PlaceError::Taken(path));
        }
        let listener = listen(&path)?;
        Ok((Self { path }, listener))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes it, so that nobody else connects.
    pub(super) fn remove(&self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(%error, "the control socket is not removed");
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.remove();
    }
}

fn io_error(path: &Path, error: io::Error) -> PlaceError {
    PlaceError::Io {
        path: path.to_owned(),
        error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn the_service_managers_directory_comes_before_the_users_and_the_state_directory_last() {
        let state = Path::new("/s");
        let of = |pairs: &'static [(&str, &str)], state| {
            let env = move |name: &str| {
                let pair = pairs.iter().find(|(n, _)| *n == name);
                pair.map(|(_, value)| String::from(*value))
            };
            directory(&env, state)
        };
        let all = [
            ("RUNTIME_DIRECTORY", "/run/a:/run/b"),
            ("XDG_RUNTIME_DIR", "/x"),
        ];
        let all: &'static [(&str, &str)] = Box::leak(Box::new(all));
        let user = &[("RUNTIME_DIRECTORY", ""), ("XDG_RUNTIME_DIR", "/x")];
        assert_eq!(of(all, Some(state)), Some("/run/a".into()));
        assert_eq!(of(user, Some(state)), Some("/x/er-dev".into()));
        assert_eq!(of(&[], Some(state)), Some("/s/run".into()));
        assert_eq!(of(&[], None), None);
        assert_eq!(of(user, None), Some("/x/er-dev".into()));
    }

    #[test]
    fn only_the_name_of_a_socket_is_taken_for_one() {
        assert_eq!(pid_in("0a1b2c3d.77.sock"), Some(77));
        for odd in [
            "0a1b2c3d.77.new",
            "0a1b2c3d.sock",
            "0a1b2c.77.sock",
            "0a1b2c3x.77.sock",
            "0a1b2c3d.-7.sock",
            "0a1b2c3d..sock",
            "x",
        ] {
            assert_eq!(pid_in(odd), None, "{odd}");
        }
    }

    #[test]
    fn a_directory_that_others_may_enter_or_that_is_none_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("a/run");
        prepare(&run).unwrap();
        assert_eq!(mode(&run), 0o700);
        prepare(&run).unwrap();
        for open in [0o755, 0o701, 0o710, 0o777] {
            fs::set_permissions(&run, Permissions::from_mode(open)).unwrap();
            let error = prepare(&run).unwrap_err();
            assert!(matches!(error, PlaceError::Open { .. }), "{error}");
            assert!(error.help().contains("chmod 700"), "{}", error.help());
        }
        let (file, link) = (dir.path().join("file"), dir.path().join("link"));
        fs::write(&file, "").unwrap();
        fs::set_permissions(&run, Permissions::from_mode(0o700)).unwrap();
        std::os::unix::fs::symlink(&run, &link).unwrap();
        for odd in [&file, &link] {
            assert!(matches!(prepare(odd), Err(PlaceError::NotADirectory(_))));
        }
        let below = prepare(&file.join("run"));
        assert!(matches!(below, Err(PlaceError::Io { .. })));
    }

    #[tokio::test]
    async fn a_socket_is_its_owners_alone_and_goes_when_it_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let (socket, listener) = Socket::bind(dir.path(), "0a1b2c3d", 77).await.unwrap();
        let path = dir.path().join("0a1b2c3d.77.sock");
        assert_eq!(mode(&path), 0o600);
        let found = living(dir.path()).await.unwrap();
        assert_eq!((found.len(), found[0].pid), (1, 77));
        let second = Socket::bind(dir.path(), "0a1b2c3d", 77).await.unwrap_err();
        assert!(matches!(second, PlaceError::Taken(_)), "{second}");
        drop((socket, listener));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_socket_that_was_removed_with_its_directory_is_made_again() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("run");
        prepare(&run).unwrap();
        let (socket, _listener) = Socket::bind(&run, "0a1b2c3d", 77).await.unwrap();
        assert!(listen_again(socket.path()).unwrap().is_none());
        fs::remove_dir_all(&run).unwrap();
        let again = listen_again(socket.path()).unwrap();
        assert!(again.is_some());
        assert_eq!((mode(&run), mode(socket.path())), (0o700, 0o600));
        assert_eq!(living(&run).await.unwrap().len(), 1);
        drop(socket);
        assert_eq!(fs::read_dir(&run).unwrap().count(), 0);
        // Nobody else is to enter it.
        fs::set_permissions(&run, Permissions::from_mode(0o755)).unwrap();
        let refused = listen_again(&run.join("0a1b2c3d.77.sock")).unwrap_err();
        assert!(matches!(refused, PlaceError::Open { .. }), "{refused}");
    }

    #[tokio::test]
    async fn a_socket_that_nobody_listens_at_is_removed_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        drop(UnixListener::bind(path("0a1b2c3d.77.sock")).unwrap());
        // Somebody is about to listen here.
        drop(UnixListener::bind(path("0a1b2c3d.78.new")).unwrap());
        let _listener = UnixListener::bind(path("0a1b2c3d.79.sock")).unwrap();
        fs::write(path("other"), "").unwrap();
        let found = living(dir.path()).await.unwrap();
        assert_eq!((found.len(), found[0].pid), (1, 79));
        assert!(!path("0a1b2c3d.77.sock").exists());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
        // Its own name is free again.
        drop(UnixListener::bind(path("0a1b2c3d.80.sock")).unwrap());
        assert!(Socket::bind(dir.path(), "0a1b2c3d", 80).await.is_ok());
    }

    #[tokio::test]
    async fn a_path_that_does_not_fit_is_said_with_both_lengths() {
        let dir = tempfile::tempdir().unwrap();
        let long = dir.path().join("x".repeat(120));
        fs::create_dir(&long).unwrap();
        let error = Socket::bind(&long, "0a1b2c3d", 77).await.unwrap_err();
        assert!(matches!(error, PlaceError::TooLong(_)));
        assert!(error.to_string().contains("may have 107"), "{error}");
        // The longest that fits does.
        let room = MAX_PATH - dir.path().as_os_str().len() - "/".len() - "/0a1b2c3d.77.sock".len();
        let fits = dir.path().join("y".repeat(room));
        fs::create_dir(&fits).unwrap();
        assert!(Socket::bind(&fits, "0a1b2c3d", 77).await.is_ok());
    }
}
