//! Which version a person means: its whole number, or the last digits of it if no other ends in them. Pure.

use crate::nearest;
use crate::routine::Revision;

/// A number has 19 digits; this many are shown in lines of output.
const SHOWN: &str = "...";

/// Why a text names no version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unclear {
    /// It cannot be a version's.
    #[error("`{0}` is not the number of a version, nor the end of one")]
    NotANumber(String),
    /// No version ends in it.
    #[error("no version ends in {0}")]
    Nobody(String),
    /// Several do.
    #[error("{} versions end in {text}: {}", among.len(), list(among))]
    Several {
        /// The text.
        text: String,
        /// The versions.
        among: Vec<Revision>,
    },
}

/// The version that a text names. `...7712`, as er-dev shows it, is good, too.
pub fn find<'a>(
    text: &str,
    among: impl IntoIterator<Item = &'a Revision>,
) -> Result<&'a Revision, Unclear> {
    let digits = text.strip_prefix(SHOWN).unwrap_or(text);
    let mut all = among.into_iter();
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        // The staging slot has a name instead of a number.
        let named = all.find(|revision| revision.as_str() == text && !text.is_empty());
        return named.ok_or_else(|| Unclear::NotANumber(text.to_owned()));
    }
    let matching: Vec<&Revision> = all
        .filter(|revision| revision.number().is_some() && revision.as_str().ends_with(digits))
        .collect();
    if let Some(whole) = matching.iter().find(|whole| whole.as_str() == digits) {
        return Ok(whole);
    }
    match matching[..] {
        [] => Err(Unclear::Nobody(digits.to_owned())),
        [one] => Ok(one),
        _ => Err(Unclear::Several {
            text: digits.to_owned(),
            among: matching.into_iter().cloned().collect(),
        }),
    }
}

/// The version whose number or end of it is these digits but for one slip, if there is one. Of fewer than three digits
/// everything would be.
pub fn nearest<'a>(
    digits: &str,
    among: impl IntoIterator<Item = &'a Revision>,
) -> Option<&'a Revision> {
    let all: Vec<&Revision> = among.into_iter().collect();
    let end = |revision: &&'a Revision| {
        let number = revision.as_str();
        let start = number.len().saturating_sub(digits.len());
        number.get(start..).unwrap_or(number)
    };
    let ends: Vec<&str> = all.iter().map(end).collect();
    let near = nearest::slip(digits, &ends).filter(|_| digits.len() >= 3)?;
    all.into_iter().find(|revision| end(revision) == near)
}

fn list(revisions: &[Revision]) -> String {
    let numbers: Vec<&str> = revisions.iter().map(Revision::as_str).collect();
    numbers.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_named_by_its_number_or_by_an_end_that_no_other_has() {
        let all = [
            "1790000000000000961",
            "1790000000000007712",
            "961",
            "unstable",
        ]
        .map(Revision::new);
        let found = |text: &str| find(text, &all).map(|revision| revision.as_str().to_owned());
        assert_eq!(found("7712").unwrap(), "1790000000000007712");
        assert_eq!(found("...7712").unwrap(), "1790000000000007712");
        assert_eq!(found("0961").unwrap(), "1790000000000000961");
        assert_eq!(found("961").unwrap(), "961", "a whole number is no end");
        assert_eq!(found("unstable").unwrap(), "unstable");
        assert_eq!(
            found("61").unwrap_err().to_string(),
            "2 versions end in 61: 1790000000000000961, 961"
        );
        assert_eq!(found("5"), Err(Unclear::Nobody("5".into())));
        for odd in ["", "...", "x", "77 12", "-1", "１"] {
            assert_eq!(found(odd), Err(Unclear::NotANumber(odd.into())), "{odd}");
        }
    }

    #[test]
    fn a_slip_of_one_digit_still_finds_the_version_that_was_meant() {
        let all = ["1790000000000000961", "1790000000000007712", "unstable"].map(Revision::new);
        let near = |digits| nearest(digits, &all).map(Revision::as_str);
        assert_eq!(near("7721"), Some("1790000000000007712"));
        assert_eq!(near("0960"), Some("1790000000000000961"));
        assert_eq!(near("1790000000000007702"), Some("1790000000000007712"));
        assert_eq!(near("4321"), None);
        assert_eq!(near("1790000000000000991"), Some("1790000000000000961"));
        assert_eq!(near("1790000000000000199"), None, "as long and not alike");
        assert_eq!(near("7"), None);
    }
}
