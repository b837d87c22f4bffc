//! What somebody may have meant: the nearest of the words there are. Pure.

/// The longest unknown word that is compared with the known ones, since comparing takes memory by its length.
const MAX_GUESSED_BYTES: usize = 64;

/// The nearest of the known words, if one is near: a third of its letters may be other ones, missing or too many.
pub fn nearest<'a>(unknown: &str, known: &[&'a str]) -> Option<&'a str> {
    within(unknown, known, |word| 1.max(word.chars().count() / 3))
}

/// The known word that this is but for one slip, if there is one. Numbers are alike without being meant alike.
pub fn slip<'a>(unknown: &str, known: &[&'a str]) -> Option<&'a str> {
    within(unknown, known, |_| 1)
}

fn within<'a>(unknown: &str, known: &[&'a str], most: impl Fn(&str) -> usize) -> Option<&'a str> {
    known
        .iter()
        .filter(|_| unknown.len() <= MAX_GUESSED_BYTES)
        .map(|word| (strsim::damerau_levenshtein(unknown, word), *word))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, word)| *distance <= most(word))
        .map(|(_, word)| word)
}

/// A question whether the nearest word was meant, or all of them behind `all` where none is near.
pub fn suggestion(unknown: &str, known: &[&str], all: &str) -> String {
    match nearest(unknown, known) {
        Some(word) => format!("did you mean `{word}`?"),
        None if known.is_empty() => "there is none yet".into(),
        None => format!("{all} `{}`", known.join("`, `")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_told_from_another_word() {
        let known = ["hello", "api-gateway", "a"];
        for (unknown, meant) in [
            ("helo", Some("hello")),
            ("hlelo", Some("hello")),
            ("Hello", Some("hello")),
            ("api-gatway", Some("api-gateway")),
            ("world", None),
        ] {
            assert_eq!(nearest(unknown, &known), meant, "{unknown:?}");
        }
        assert_eq!(slip("12345678", &["12345687"]), Some("12345687"));
        assert_eq!(slip("12345678", &["12345699"]), None);
        assert_eq!(nearest(&"a".repeat(65), &known), None);
        assert_eq!(nearest("a", &[]), None);
    }

    #[test]
    fn where_no_word_is_near_all_are_told() {
        let told = suggestion("world", &["hello", "api"], "there are");
        assert_eq!(told, "there are `hello`, `api`");
        let told = suggestion("ap", &["hello", "api"], "there are");
        assert_eq!(told, "did you mean `api`?");
        assert_eq!(suggestion("ap", &[], "there are"), "there is none yet");
    }
}
