//! A `[[routine]]` whose entry is a pattern: every file that fits it is a routine of its own, named after the file.
//!
//! Which files there are is not asked here; they come and go.

use std::path::{Path, PathBuf};

use globset::GlobBuilder;
use toml::Spanned;

use super::check::bad_pattern;
use super::error::{Fault, line_of};
use super::{Build, Pattern, Routine, raw, routine};
use crate::routine::{NameError, RoutineName};

/// What stands for a file's name without its extension.
const STEM: &str = "{stem}";

/// A `[[routine]]` whose entry is a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob {
    /// The pattern and where it stands.
    pub pattern: Pattern,
    /// What stands before `{stem}` in the name.
    before: String,
    /// What stands behind it.
    after: String,
    /// The directory of the configuration, absolute.
    dir: PathBuf,
    /// The settings that all its routines share. The name and the entry of this one are stand-ins.
    shared: Routine,
}

impl Glob {
    /// The routine that a file is, whose path is absolute.
    ///
    /// # Errors
    ///
    /// [`NameError`] if the service would not take the name.
    pub fn routine(&self, file: &Path) -> Result<Routine, NameError> {
        let stem = file.file_stem().unwrap_or_default().to_string_lossy();
        let shown = file.strip_prefix(&self.dir).unwrap_or(file);
        Ok(Routine {
            name: RoutineName::new(&format!("{}{stem}{}", self.before, self.after))?,
            entry: file.to_path_buf(),
            shown: shown.to_string_lossy().into_owned(),
            ..self.shared.clone()
        })
    }

    /// The build that makes the files, if there is one.
    pub fn build(&self) -> Option<&Build> {
        self.shared.build.as_ref()
    }

    /// The directory of the configuration, which the pattern is relative to.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

/// The directories at the beginning of a pattern that hold no wildcard, and what follows them.
pub fn split(text: &str) -> (&str, &str) {
    const WILD: [char; 4] = ['*', '?', '[', '{'];
    // A backslash takes the meaning of what follows it away; without any such it is part of a name.
    let Some(wild) = text.find(WILD) else {
        return (text, "");
    };
    let wild = text.find('\\').map_or(wild, |escape| escape.min(wild));
    text.split_at(text[..wild].rfind('/').map_or(0, |slash| slash + 1))
}

/// Checks a routine that has a pattern or `{stem}`; `None` if it has neither. `number` is the one that it will have.
pub(super) fn check(
    raw: &raw::Routine,
    text: &str,
    dir: &Path,
    number: usize,
) -> Result<Option<Glob>, Fault> {
    let (name, entry) = (raw.name.get_ref(), raw.entry.get_ref());
    let (prefix, wild) = split(entry);
    let Some((before, after)) = name.split_once(STEM) else {
        if wild.is_empty() {
            return Ok(None);
        }
        let message = format!("every file that fits `{entry}` would have the name `{name}`");
        return Err(Fault::at(raw.name.span(), message)
            .help("let `{stem}` stand for the name of the file: name = \"{stem}\""));
    };
    if wild.is_empty() {
        let message =
            "`{stem}` stands for the name of a file that fits a pattern, and `entry` is none";
        return Err(Fault::at(raw.name.span(), message)
            .help("write a pattern, such as entry = \"edge/*.js\", or the whole name"));
    }
    if after.contains(STEM) {
        return Err(
            Fault::at(raw.name.span(), "`{stem}` stands twice in the name").help("once is enough"),
        );
    }
    let built = GlobBuilder::new(wild).literal_separator(true).build();
    built.map_err(|error| bad_pattern(&raw.entry, &error))?;
    if wild.split('/').any(|name| matches!(name, "" | "..")) {
        return Err(bad_pattern(&raw.entry, &"it names no files"));
    }
    let stand_in = |text: String, place: &Spanned<String>| Spanned::new(place.span(), text);
    let raw = raw::Routine {
        name: stand_in(format!("{before}stem{after}"), &raw.name),
        entry: stand_in(format!("{prefix}stem"), &raw.entry),
        ..raw.clone()
    };
    let line = line_of(text, raw.entry.span().start);
    let shared = Routine {
        glob: Some(number),
        ..routine::check(raw, text, dir)?
    };
    Ok(Some(Glob {
        pattern: Pattern {
            text: entry.clone(),
            line,
        },
        before: before.to_owned(),
        after: after.to_owned(),
        dir: dir.to_path_buf(),
        shared,
    }))
}
