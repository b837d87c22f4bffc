//! What a version is called: the user's template, filled in, and the commit in it, both ways. Pure.
//!
//! A commit is written as git writes one in a name, `g` and the first digits of its hash, so that it is found again
//! wherever it stands in a text and no number or word is taken for it.

use std::fmt;

/// How many digits of a commit's hash are written.
const DIGITS: usize = 8;

/// What stands before them.
const SIGN: char = 'g';

/// What a template can name in braces, as [`crate::config::PLACEHOLDERS`] lists it. What is not known is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// `{file}`: the name of the entry's file.
    pub file: String,
    /// `{git}`: the commit that is checked out.
    pub commit: Option<Commit>,
    /// `{branch}`: its branch.
    pub branch: String,
    /// `{user}`: who uploads.
    pub user: String,
    /// `{host}`: the machine that uploads.
    pub host: String,
    /// `{time}`: when.
    pub time: String,
}

/// A commit, and whether it holds the bytes of a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// The first digits of its hash.
    digits: String,
    /// What is known of the bytes.
    pub holds: Holds,
}

/// Whether a commit holds the bytes of a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holds {
    /// As far as git knows.
    Yes,
    /// They were changed since, or git does not have them.
    No,
    /// It could not be told.
    Unknown,
}

impl Commit {
    /// The commit with this hash in hexadecimal; `None` for anything else.
    pub fn new(hash: &str, holds: Holds) -> Option<Self> {
        let digits = hash.get(..DIGITS)?;
        hash.bytes().all(is_digit).then(|| Self {
            digits: digits.to_owned(),
            holds,
        })
    }

    /// Finds the commit in the text of a version that er-dev made. Where there are several, none is meant.
    pub fn find(text: &str) -> Option<Self> {
        let words = text.split(|c: char| !c.is_alphanumeric() && !matches!(c, '+' | '?' | '_'));
        let mut found = None;
        for word in words {
            match (Self::read(word), &found) {
                (None, _) => {}
                (Some(commit), None) => found = Some(commit),
                (Some(commit), Some(before)) if commit == *before => {}
                (Some(_), Some(_)) => return None,
            }
        }
        found
    }

    fn read(word: &str) -> Option<Self> {
        let rest = word.strip_prefix(SIGN)?;
        let digits = rest.get(..DIGITS)?;
        let holds = match &rest[DIGITS..] {
            "" => Holds::Yes,
            "+" => Holds::No,
            "?" => Holds::Unknown,
            _ => return None,
        };
        digits.bytes().all(is_digit).then(|| Self {
            digits: digits.to_owned(),
            holds,
        })
    }
}

/// The digits, with `+` behind them where the commit does not hold the bytes, and `?` where that is not known.
impl fmt::Display for Commit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let holds = match self.holds {
            Holds::Yes => "",
            Holds::No => "+",
            Holds::Unknown => "?",
        };
        write!(f, "{}{holds}", self.digits)
    }
}

/// A template with what it names in place of the names. Around what is empty no two spaces are left.
pub fn fill(template: &str, facts: &Facts) -> String {
    let mut out = String::new();
    let mut left = template;
    while let Some((before, rest)) = left.split_once('{') {
        out.push_str(before);
        let named = rest.split_once('}');
        let Some((value, rest)) = named.and_then(|(name, rest)| Some((facts.get(name)?, rest)))
        else {
            out.push('{');
            left = rest;
            continue;
        };
        out.push_str(&value);
        let gap = value.is_empty() && (out.is_empty() || out.ends_with(' '));
        left = rest.strip_prefix(' ').filter(|_| gap).unwrap_or(rest);
    }
    out.push_str(left);
    out.truncate(out.trim_end().len());
    out
}

/// Whether a template names something.
pub fn names(template: &str, placeholder: &str) -> bool {
    template.contains(&format!("{{{placeholder}}}"))
}

/// The beginning of a text, in whole characters. A commit at the cut is left out, since a part of it would be another
/// one, or say of it what is not so.
pub fn shorten(text: &str, chars: usize) -> &str {
    let Some((cut, _)) = text.char_indices().nth(chars) else {
        return text;
    };
    let short = &text[..cut];
    match Commit::find(short) {
        Some(_) if Commit::find(short) != Commit::find(text) => {
            let word = short.rfind(SIGN).unwrap_or(cut);
            short[..word].trim_end()
        }
        _ => short,
    }
}

impl Facts {
    fn get(&self, placeholder: &str) -> Option<String> {
        let commit = || self.commit.as_ref().map(|it| format!("{SIGN}{it}"));
        match placeholder {
            "file" => Some(self.file.clone()),
            "git" => Some(commit().unwrap_or_default()),
            "branch" => Some(self.branch.clone()),
            "user" => Some(self.user.clone()),
            "host" => Some(self.host.clone()),
            "time" => Some(self.time.clone()),
            _ => None,
        }
    }
}

fn is_digit(byte: u8) -> bool {
    byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Just, prop_assert, prop_assert_eq, prop_oneof};

    use super::*;
    use crate::config::PLACEHOLDERS;

    const HASH: &str = "3f2a9c1b00112233445566778899aabbccddeeff";

    fn facts() -> Facts {
        Facts {
            file: "hello.js".into(),
            commit: Commit::new(HASH, Holds::No),
            branch: "main".into(),
            user: "ann".into(),
            host: "box".into(),
            time: "2026-11-27T09:41:14Z".into(),
        }
    }

    #[test]
    fn a_template_is_filled_with_what_is_known_and_leaves_no_gap_for_what_is_not() {
        let none = Facts {
            file: "hello.js".into(),
            ..Facts::default()
        };
        #[rustfmt::skip]
        let cases = [
            ("{file} {git} {branch}", "hello.js g3f2a9c1b+ main", "hello.js"),
            ("{git} {file}", "g3f2a9c1b+ hello.js", "hello.js"),
            ("{user}@{host} {time}", "ann@box 2026-11-27T09:41:14Z", "@"),
            ("a {branch} b", "a main b", "a b"),
            ("{} {x} {file", "{} {x} {file", "{} {x} {file"),
            ("", "", ""),
        ];
        for (template, known, unknown) in cases {
            assert_eq!(fill(template, &facts()), known);
            assert_eq!(fill(template, &none), unknown);
        }
        let branch = Facts {
            branch: "{user}".into(),
            ..facts()
        };
        assert_eq!(
            fill("{branch}", &branch),
            "{user}",
            "a value is no template"
        );
    }

    #[test]
    fn every_placeholder_that_a_configuration_may_hold_is_filled() {
        for placeholder in PLACEHOLDERS {
            let filled = fill(&format!("{{{placeholder}}}"), &facts());
            assert!(!filled.is_empty() && !filled.contains('{'), "{placeholder}");
        }
    }

    #[test]
    fn only_what_er_dev_writes_is_read_as_a_commit() {
        #[rustfmt::skip]
        let cases = [
            ("hello.js g3f2a9c1b+ main", Some("3f2a9c1b+")),
            ("(g3f2a9c1b)", Some("3f2a9c1b")),
            ("main-g3f2a9c1b?", Some("3f2a9c1b?")),
            ("g3f2a9c1b and g3f2a9c1b", Some("3f2a9c1b")),
            ("g3f2a9c1b and g3f2a9c1c", None),
            ("g3f2a9c1b and g3f2a9c1b+", None),
            ("3f2a9c1b", None),
            ("deadbeef 20261127", None),
            ("g3f2a9c1", None),
            ("g3f2a9c1b0", None),
            ("g3f2a9c1b++", None),
            ("G3F2A9C1B", None),
            ("xg3f2a9c1b", None),
            ("_g3f2a9c1b", None),
            ("g版本版本版本版本", None),
            ("", None),
        ];
        for (text, commit) in cases {
            let found = Commit::find(text).map(|it| it.to_string());
            assert_eq!(found.as_deref(), commit, "{text}");
        }
        assert_eq!(Commit::new("3f2a", Holds::Yes), None);
        assert_eq!(Commit::new("not a hash at all", Holds::Yes), None);
    }

    #[test]
    fn a_cut_never_makes_a_commit_clean_or_another_one() {
        let text = "hello.js g3f2a9c1b+ main";
        assert_eq!(shorten(text, 19), "hello.js g3f2a9c1b+");
        assert_eq!(shorten(text, 18), "hello.js");
        assert_eq!(shorten(text, 16), "hello.js g3f2a9c");
        assert_eq!(shorten(text, 100), text);
    }

    proptest::proptest! {
        #[test]
        fn what_was_written_of_a_commit_is_read_again(
            words in "[ a-z{}版-]{0,30}",
            hash in "[0-9a-f]{40}",
            holds in prop_oneof![Just(Holds::Yes), Just(Holds::No), Just(Holds::Unknown)],
            chars in 0_usize..60,
        ) {
            let commit = Commit::new(&hash, holds);
            let facts = Facts { commit: commit.clone(), ..Facts::default() };
            let text = fill(&format!("{words} {{git}} {words}"), &facts);
            prop_assert_eq!(Commit::find(&text), commit.clone());
            let short = shorten(&text, chars);
            prop_assert!(short.chars().count() <= chars && text.starts_with(short));
            let found = Commit::find(short);
            prop_assert!(found.is_none() || found == commit);
        }
    }
}
