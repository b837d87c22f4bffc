//! One entry becomes [`Code`]: whole, a plain file beneath its root, within bounds, text, and JavaScript that parses. What
//! goes up holds no key, either.
//!
//! All of it happens before the service is asked for anything, so a file that is refused here costs no revision. When
//! to read is not decided here.
//!
//! Symbolic links are resolved first and the result is then opened without following any, so a link that is swapped
//! between the two steps can make the reading fail and be tried again, but cannot lead it out of the root.

use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::Target;
use super::secrets::{self, Secret};
use super::snapshot::StatKey;
use super::syntax::{self, Caution, SyntaxError};
use crate::config::Kind;
use crate::routine::{Code, Digest, MAX_CODE_BYTES};

/// How often a file that changes under the reader is read before that is an error.
const TRIES: usize = 5;

/// Why an entry cannot go up.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// There is nothing at that path, or a link that leads nowhere.
    #[error("`{}` does not exist", path.display())]
    Missing {
        /// The entry.
        path: PathBuf,
    },
    /// It is something other than a file.
    #[error("`{}` is {kind}, not a file", path.display())]
    NotAFile {
        /// The entry.
        path: PathBuf,
        /// What it is, with its article.
        kind: &'static str,
    },
    /// It may not be read.
    #[error("`{}` may not be read", path.display())]
    Unreadable {
        /// The entry.
        path: PathBuf,
    },
    /// It lies, or a symbolic link leads, outside of the root.
    #[error("`{}` leads out of its root to `{}`", path.display(), to.display())]
    LeavesRoot {
        /// The entry.
        path: PathBuf,
        /// Where it leads.
        to: PathBuf,
    },
    /// Symbolic links go round in a circle.
    #[error("`{}` is a symbolic link that never ends", path.display())]
    Circle {
        /// The entry.
        path: PathBuf,
    },
    /// It has no bytes.
    #[error("`{}` is empty", path.display())]
    Empty {
        /// The entry.
        path: PathBuf,
    },
    /// It is larger than the service takes.
    #[error("`{}` has {bytes} bytes and the service takes at most {MAX_CODE_BYTES}", path.display())]
    TooLarge {
        /// The entry.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// It is not UTF-8.
    #[error("`{}` is not UTF-8 text: the first odd byte is in line {line}", path.display())]
    NotText {
        /// The entry.
        path: PathBuf,
        /// The line of the first byte that does not fit, counted from 1.
        line: usize,
    },
    /// It does not parse.
    #[error("`{}` does not parse: {error}", path.display())]
    Syntax {
        /// The entry.
        path: PathBuf,
        /// What is wrong, and where.
        error: SyntaxError,
    },
    /// A key stands in it.
    #[error("`{}` holds {} in line {}", path.display(), secret.what, secret.line)]
    Secret {
        /// The entry.
        path: PathBuf,
        /// Which, and where.
        secret: Secret,
    },
    /// It was written to each time it was read.
    #[error("`{}` changes while it is read", path.display())]
    Changing {
        /// The entry.
        path: PathBuf,
    },
    /// The system could not read it.
    #[error("`{}` cannot be read: {error}", path.display())]
    Io {
        /// The entry.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
}

impl SourceError {
    /// What to do about it: a lower-case fragment without a full stop.
    pub fn help(&self) -> String {
        match self {
            Self::Missing { .. } => {
                "create the file or correct `entry`; what is on the service stays as it is".into()
            }
            Self::NotAFile { .. } => "let `entry` name a plain file".into(),
            Self::Unreadable { .. } => "give the user of er-dev the right to read it".into(),
            Self::LeavesRoot { .. } => {
                "put the file into the directory of `entry`, let `entry` name the file itself, or set `follow = true`"
                    .into()
            }
            Self::Circle { .. } => "let the link point to the file".into(),
            Self::Empty { .. } => "save it again; a full disk leaves empty files behind".into(),
            Self::TooLarge { .. } => "minify it or leave out what it does not need".into(),
            Self::NotText { .. } => "save it as UTF-8".into(),
            Self::Syntax { error, .. } => error.advice.clone().unwrap_or_else(|| {
                "correct it and save, or set `check = false` to let the service decide".into()
            }),
            Self::Secret { .. } => {
                "take it out, and make it void if it is real, since others may have read it; `--allow-secrets` lets code with keys go up"
                    .into()
            }
            Self::Changing { .. } => "wait until its writer is done, or save it once more".into(),
            Self::Io { .. } => "look at the disk and the file's permissions".into(),
        }
    }
}

/// What is asked of code that is to go up, besides what its target says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Demands {
    /// The service that it is for.
    pub service: Kind,
    /// Whether keys may stand in it.
    pub secrets: bool,
}

/// Code that may go up.
#[derive(Debug)]
pub struct Source {
    /// The code.
    pub code: Code,
    /// What there is to say of it; nothing where the target asks for no check.
    pub cautions: Vec<Caution>,
}

/// Reads a routine's code as it is to go up, and refuses what should not.
///
/// It never waits for a writer or for the other end of a FIFO. A file that changes while it is read is read again a
/// few times at once.
pub fn examine(target: &Target, demands: Demands) -> Result<Source, SourceError> {
    let text = text(target)?;
    // Before the syntax, since the line of an error is shown.
    if let Some(secret) = secrets::find(&text).filter(|_| !demands.secrets) {
        let path = target.entry.clone();
        return Err(SourceError::Secret { path, secret });
    }
    let cautions = check(target, &text, Some(demands.service))?;
    let code = Code::new(text.into_bytes());
    Ok(Source { code, cautions })
}

/// Reads a routine's code, and checks whether it parses if the target asks for that. It waits for nothing, like
/// [`examine`].
pub fn read(target: &Target) -> Result<Code, SourceError> {
    let text = text(target)?;
    check(target, &text, None)?;
    Ok(Code::new(text.into_bytes()))
}

fn text(target: &Target) -> Result<String, SourceError> {
    let (bytes, _) = bytes(target)?;
    let path = || target.entry.clone();
    if bytes.is_empty() {
        return Err(SourceError::Empty { path: path() });
    }
    String::from_utf8(bytes).map_err(|error| {
        let fine = error
            .as_bytes()
            .iter()
            .take(error.utf8_error().valid_up_to());
        let line = fine.filter(|&&byte| byte == b'\n').count() + 1;
        SourceError::NotText { path: path(), line }
    })
}

fn check(target: &Target, text: &str, service: Option<Kind>) -> Result<Vec<Caution>, SourceError> {
    if !target.check {
        return Ok(Vec::new());
    }
    syntax::check(text, &target.entry, service).map_err(|error| SourceError::Syntax {
        path: target.entry.clone(),
        error,
    })
}

/// The digest of the bytes of an entry as they are now, whether they could go up or not.
pub fn digest(target: &Target) -> Result<Digest, SourceError> {
    let (bytes, _) = bytes(target)?;
    Ok(Digest::of(&bytes))
}

/// The bytes of an entry, none to [`MAX_CODE_BYTES`] of them, with the stat key that was the same before and after.
pub(super) fn bytes(target: &Target) -> Result<(Vec<u8>, StatKey), SourceError> {
    for _ in 0..TRIES {
        match try_bytes(target) {
            Err(SourceError::Changing { .. }) => {}
            done => return done,
        }
    }
    Err(SourceError::Changing {
        path: target.entry.clone(),
    })
}

fn try_bytes(target: &Target) -> Result<(Vec<u8>, StatKey), SourceError> {
    let path = || target.entry.clone();
    let file = open(target)?;
    let metadata = file.metadata().map_err(|error| refusal(target, error))?;
    plain(&metadata, &target.entry)?;
    if metadata.len() > MAX_CODE_BYTES {
        return Err(SourceError::TooLarge {
            path: path(),
            bytes: metadata.len(),
        });
    }
    // One byte more than there should be, to notice growth without following it.
    let mut bytes = Vec::new();
    (&file)
        .take(metadata.len() + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| refusal(target, error))?;
    let after = file.metadata().map_err(|error| refusal(target, error))?;
    let key = StatKey::of(&metadata);
    if key != StatKey::of(&after) || bytes.len() as u64 != metadata.len() {
        return Err(SourceError::Changing { path: path() });
    }
    Ok((bytes, key))
}

fn open(target: &Target) -> Result<File, SourceError> {
    let root = target.root.canonicalize();
    let root = root.map_err(|error| refusal(target, error))?;
    let real = target.entry.canonicalize();
    let real = real.map_err(|error| refusal(target, error))?;
    // Where links out of the root are followed, anything may be beneath what is opened, but still no link.
    let beneath = match target.follow {
        true => Path::new("/"),
        false => root.as_path(),
    };
    let Ok(inside) = real.strip_prefix(beneath) else {
        return Err(SourceError::LeavesRoot {
            path: target.entry.clone(),
            to: real,
        });
    };
    // Opening a device can have effects of its own, so its kind is looked at first.
    let metadata = std::fs::symlink_metadata(&real).map_err(|error| refusal(target, error))?;
    if !metadata.is_symlink() {
        plain(&metadata, &target.entry)?;
    }
    open_beneath(beneath, inside).map_err(|errno| match errno {
        Errno::ACCESS | Errno::PERM => SourceError::Unreadable {
            path: target.entry.clone(),
        },
        // What was resolved a moment ago is no longer so.
        Errno::LOOP | Errno::XDEV | Errno::AGAIN | Errno::NOENT | Errno::NOTDIR | Errno::NXIO => {
            SourceError::Changing {
                path: target.entry.clone(),
            }
        }
        errno => refusal(target, errno.into()),
    })
}

/// Opens a path beneath a directory, following no symbolic link below it.
fn open_beneath(root: &Path, inside: &Path) -> Result<File, Errno> {
    let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(root, directory, Mode::empty())?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::ResolveFlags;
        let resolve =
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        match rustix::fs::openat2(&root, inside, flags, Mode::empty(), resolve) {
            // Kernels before 5.6 lack the call, and some sandboxes deny it.
            Err(Errno::NOSYS | Errno::PERM) => {}
            opened => return opened.map(File::from),
        }
    }
    walk(root, inside, flags)
}

/// The same, one name at a time.
fn walk(root: rustix::fd::OwnedFd, inside: &Path, flags: OFlags) -> Result<File, Errno> {
    let mut directory = root;
    let mut names = inside.iter().peekable();
    while let Some(name) = names.next() {
        if names.peek().is_none() {
            let flags = flags | OFlags::NOFOLLOW;
            return rustix::fs::openat(&directory, name, flags, Mode::empty()).map(File::from);
        }
        let step = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        directory = rustix::fs::openat(&directory, name, step, Mode::empty())?;
    }
    Err(Errno::ISDIR)
}

fn plain(metadata: &Metadata, entry: &Path) -> Result<(), SourceError> {
    let file_type = metadata.file_type();
    let kind = if file_type.is_file() {
        return Ok(());
    } else if file_type.is_dir() {
        "a directory"
    } else if file_type.is_fifo() {
        "a FIFO"
    } else if file_type.is_socket() {
        "a socket"
    } else {
        "a device"
    };
    Err(SourceError::NotAFile {
        path: entry.to_path_buf(),
        kind,
    })
}

fn refusal(target: &Target, error: io::Error) -> SourceError {
    let path = target.entry.clone();
    match Errno::from_io_error(&error) {
        Some(Errno::NOENT | Errno::NOTDIR) => SourceError::Missing { path },
        Some(Errno::ACCESS | Errno::PERM) => SourceError::Unreadable { path },
        Some(Errno::LOOP) => SourceError::Circle { path },
        _ => SourceError::Io { path, error },
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::routine::RoutineName;
    use crate::watch::tests::directory;

    fn target(root: &Path, name: &str) -> Target {
        Target {
            routine: RoutineName::new("hello").unwrap(),
            entry: root.join(name),
            root: root.to_path_buf(),
            check: true,
            follow: false,
            glob: None,
        }
    }

    fn refused(root: &Path, name: &str) -> SourceError {
        let error = read(&target(root, name)).unwrap_err();
        assert!(!error.help().is_empty());
        assert!(error.to_string().contains(name), "{error}");
        error
    }

    #[test]
    fn bytes_go_up_exactly_as_they_are() {
        let dir = directory();
        let bytes = "\u{feff}let a = 'é\u{2028}';\r\n\r\n";
        fs::write(dir.path().join("index.js"), bytes).unwrap();
        let code = read(&target(dir.path(), "index.js")).unwrap();
        assert_eq!(code.bytes(), bytes.as_bytes());
    }

    #[test]
    fn every_refusal_says_what_it_is() {
        let dir = directory();
        let root = dir.path();
        assert!(matches!(
            refused(root, "gone.js"),
            SourceError::Missing { .. }
        ));
        assert!(matches!(
            refused(root, "gone/x.js"),
            SourceError::Missing { .. }
        ));

        fs::write(root.join("empty.js"), "").unwrap();
        assert!(matches!(
            refused(root, "empty.js"),
            SourceError::Empty { .. }
        ));

        fs::write(root.join("latin.js"), b"a;\n'\xe9'").unwrap();
        assert!(matches!(
            refused(root, "latin.js"),
            SourceError::NotText { line: 2, .. }
        ));

        fs::create_dir(root.join("dir.js")).unwrap();
        assert!(matches!(
            refused(root, "dir.js"),
            SourceError::NotAFile {
                kind: "a directory",
                ..
            }
        ));
        let _socket = UnixListener::bind(root.join("socket.js")).unwrap();
        assert!(matches!(
            refused(root, "socket.js"),
            SourceError::NotAFile {
                kind: "a socket",
                ..
            }
        ));
        symlink("b.js", root.join("a.js")).unwrap();
        symlink("a.js", root.join("b.js")).unwrap();
        assert!(matches!(refused(root, "a.js"), SourceError::Circle { .. }));
    }

    #[test]
    fn a_fifo_is_refused_without_waiting_for_its_other_end() {
        let dir = directory();
        let status = std::process::Command::new("mkfifo")
            .arg(dir.path().join("fifo.js"))
            .status()
            .unwrap();
        assert!(status.success());
        assert!(matches!(
            refused(dir.path(), "fifo.js"),
            SourceError::NotAFile { kind: "a FIFO", .. }
        ));
    }

    #[test]
    fn a_device_is_refused() {
        let mut device = target(Path::new("/dev"), "null");
        device.check = false;
        assert!(matches!(
            read(&device),
            Err(SourceError::NotAFile {
                kind: "a device",
                ..
            })
        ));
    }

    #[test]
    fn a_file_of_the_largest_size_goes_up_and_one_byte_more_is_not_even_read() {
        let dir = directory();
        let path = dir.path().join("big.js");
        let mut target = target(dir.path(), "big.js");
        target.check = false;
        let size = usize::try_from(MAX_CODE_BYTES).unwrap();
        fs::write(&path, vec![b' '; size]).unwrap();
        assert_eq!(read(&target).unwrap().bytes().len(), size);
        fs::write(&path, vec![b' '; size + 1]).unwrap();
        assert!(matches!(read(&target), Err(SourceError::TooLarge { .. })));
        let sparse = File::create(&path).unwrap();
        sparse.set_len(4 << 30).unwrap();
        assert!(matches!(
            read(&target),
            Err(SourceError::TooLarge {
                bytes: 4_294_967_296,
                ..
            })
        ));
    }

    #[cfg(feature = "syntax-check")]
    #[test]
    fn code_that_does_not_parse_is_refused_unless_the_check_is_off() {
        let dir = directory();
        fs::write(dir.path().join("index.js"), "let a = ;").unwrap();
        let mut target = target(dir.path(), "index.js");
        let Err(SourceError::Syntax { error, .. }) = read(&target) else {
            panic!("it was accepted");
        };
        assert_eq!(error.place.column, 9);
        target.check = false;
        assert!(read(&target).is_ok());
    }

    #[test]
    fn links_are_followed_within_the_root_and_refused_out_of_it() {
        let dir = directory();
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("dist")).unwrap();
        fs::write(root.join("dist/out.js"), "1").unwrap();
        fs::write(dir.path().join("secret.js"), "2").unwrap();
        symlink("dist/out.js", root.join("relative.js")).unwrap();
        symlink(root.join("dist/out.js"), root.join("absolute.js")).unwrap();
        symlink("../root/dist/out.js", root.join("detour.js")).unwrap();
        for name in ["relative.js", "absolute.js", "detour.js"] {
            assert_eq!(read(&target(&root, name)).unwrap().bytes(), b"1", "{name}");
        }
        symlink("../secret.js", root.join("up.js")).unwrap();
        symlink(dir.path(), root.join("parent")).unwrap();
        for name in ["up.js", "parent/secret.js", "../secret.js"] {
            assert!(
                matches!(refused(&root, name), SourceError::LeavesRoot { .. }),
                "{name}"
            );
        }
        for (name, bytes) in [
            ("up.js", b"2"),
            ("parent/secret.js", b"2"),
            ("relative.js", b"1"),
        ] {
            let mut target = target(&root, name);
            target.follow = true;
            assert_eq!(read(&target).unwrap().bytes(), bytes, "{name}");
        }
        // A root may itself be reached through a link.
        symlink("root", dir.path().join("link")).unwrap();
        let through = target(&dir.path().join("link"), "relative.js");
        assert_eq!(read(&through).unwrap().bytes(), b"1");
    }

    #[test]
    fn the_walk_for_old_kernels_follows_no_link_either() {
        let dir = directory();
        fs::create_dir(dir.path().join("real")).unwrap();
        fs::write(dir.path().join("real/a.js"), "1").unwrap();
        symlink("real", dir.path().join("link")).unwrap();
        symlink("a.js", dir.path().join("real/b.js")).unwrap();
        let open = |inside: &str| {
            let root = rustix::fs::open(dir.path(), OFlags::PATH, Mode::empty()).unwrap();
            walk(root, Path::new(inside), OFlags::RDONLY)
        };
        assert!(open("real/a.js").is_ok());
        assert!(open("link/a.js").is_err());
        assert!(open("real/b.js").is_err());
    }

    #[test]
    fn a_link_swapped_while_it_is_opened_never_leads_out() {
        let dir = directory();
        let root = dir.path().join("root");
        fs::create_dir(&root).unwrap();
        fs::create_dir(root.join("in")).unwrap();
        fs::create_dir(dir.path().join("out")).unwrap();
        fs::write(root.join("in/a.js"), "1").unwrap();
        fs::write(dir.path().join("out/a.js"), "2").unwrap();
        fs::write(root.join("plain.js"), "1").unwrap();
        symlink("in", root.join("dir")).unwrap();
        symlink("plain.js", root.join("file.js")).unwrap();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let swap = |to: &str, name: &str| {
                    symlink(to, root.join("next")).unwrap();
                    fs::rename(root.join("next"), root.join(name)).unwrap();
                };
                while !done.load(Ordering::Relaxed) {
                    swap("../out", "dir");
                    swap("../out/a.js", "file.js");
                    swap("in", "dir");
                    swap("plain.js", "file.js");
                }
            });
            let (mut inside, mut refused) = (0, 0);
            for _ in 0..4_000 {
                for name in ["dir/a.js", "file.js"] {
                    match read(&target(&root, name)) {
                        Ok(code) => {
                            assert_eq!(code.bytes(), b"1");
                            inside += 1;
                        }
                        Err(SourceError::LeavesRoot { .. } | SourceError::Changing { .. }) => {
                            refused += 1;
                        }
                        Err(other) => panic!("{other}"),
                    }
                }
            }
            done.store(true, Ordering::Relaxed);
            assert!(inside > 0 && refused > 0, "{inside} {refused}");
        });
    }
}
