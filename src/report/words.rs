//! How sizes, times, counts and foreign text read in a line of output. Pure.
//!
//! What a line is made of is `text.rs`'s concern. Foreign text is whatever er-dev did not write itself: file names,
//! source lines, the service's answers. A terminal obeys some characters and hides others, so [`escape`] is the only
//! way such text reaches one; it turns them into a form that can be seen and that does nothing.

use std::time::Duration;

use unicode_width::UnicodeWidthStr;

/// The most bytes one foreign text may take in a line. What is longer ends in `...`.
pub const MAX_FIELD_BYTES: usize = 512;

const ELLIPSIS: &str = "...";

/// A size in decimal units: `980 B`, `1.9 kB`, `4.2 MB`.
pub fn size(bytes: u64) -> String {
    let tenths = |unit: u64| bytes.saturating_add(unit / 20) / (unit / 10);
    if bytes < 1_000 {
        return format!("{bytes} B");
    }
    let (tenths, unit) = match tenths(1_000) {
        below if below < 10_000 => (below, "kB"),
        _ => (tenths(1_000_000), "MB"),
    };
    format!("{}.{} {unit}", tenths / 10, tenths % 10)
}

/// An age in its largest unit, cut and not rounded: `40s`, `12m`, `3h`, `6d`.
pub fn age(age: Duration) -> String {
    let (count, unit) = largest_unit(age);
    format!("{count}{}", &unit[..1])
}

/// An age in words, in the same unit that [`age`] picks: `40 seconds`, `1 day`.
pub fn age_in_words(age: Duration) -> String {
    let (count, unit) = largest_unit(age);
    plural(count, unit)
}

/// A time somebody waited or will wait: `0.21s`, `1.2s`, `10s`, and from a minute on as [`span`].
pub fn seconds(time: Duration) -> String {
    let millis = time.as_millis();
    let (hundredths, tenths) = ((millis + 5) / 10, (millis + 50) / 100);
    if hundredths < 100 {
        format!("0.{hundredths:02}s")
    } else if tenths >= 600 {
        span(time)
    } else if tenths % 10 == 0 {
        format!("{}s", tenths / 10)
    } else {
        format!("{}.{}s", tenths / 10, tenths % 10)
    }
}

/// Whether a repetition is worth a line: the first, the tenth, the hundredth and so on.
pub fn is_power_of_ten(times: u32) -> bool {
    std::iter::successors(Some(1_u32), |n| n.checked_mul(10)).any(|n| n == times)
}

/// A long time in its two largest units: `40s`, `12m 5s`, `2h 11m`, `3d 4h`. A second unit of zero is left out.
pub fn span(time: Duration) -> String {
    let whole = time.as_secs();
    let (large, small) = match whole {
        0..60 => return format!("{whole}s"),
        60..3_600 => ((whole / 60, 'm'), (whole % 60, 's')),
        3_600..86_400 => ((whole / 3_600, 'h'), (whole % 3_600 / 60, 'm')),
        _ => ((whole / 86_400, 'd'), (whole % 86_400 / 3_600, 'h')),
    };
    match small {
        (0, _) => format!("{}{}", large.0, large.1),
        _ => format!("{}{} {}{}", large.0, large.1, small.0, small.1),
    }
}

/// A count with its noun in the right number: `1 save`, `2 saves`, `3 directories`.
pub fn plural(count: u64, noun: &str) -> String {
    if count == 1 {
        return format!("{count} {noun}");
    }
    match noun.strip_suffix('y') {
        Some(stem) if !stem.ends_with(['a', 'e', 'o', 'u']) => format!("{count} {stem}ies"),
        _ => format!("{count} {noun}s"),
    }
}

/// Foreign text, safe to show: characters that [`is_hidden`] names become `\u{..}`, and what goes beyond
/// [`MAX_FIELD_BYTES`] becomes `...`. Escaping twice changes nothing.
pub fn escape(text: &str) -> String {
    bounded(text, |out, c| {
        if is_hidden(c) {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    })
}

/// Foreign text cut at [`MAX_FIELD_BYTES`] and otherwise as it is, for a format with an escaping of its own.
pub fn clip(text: &str) -> String {
    bounded(text, String::push)
}

/// Whether a terminal would obey a character or show nothing for it: controls (C0, DEL, C1), line and paragraph
/// separators, everything that steers writing direction, and characters without a width of their own that are no
/// accent. Combining accents stay, because names in many languages are written with them.
pub fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c,
            // Soft hyphen, joiners, fillers.
            '\u{ad}' | '\u{34f}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200d}' | '\u{2060}'..='\u{2064}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}'
            // Direction.
            | '\u{61c}' | '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{206f}'
            // Separators that some programs take for line ends.
            | '\u{2028}'..='\u{2029}'
            // Variation selectors, annotation marks, shorthand and musical format marks, tags.
            | '\u{fe00}'..='\u{fe0f}' | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// How many terminal columns escaped text takes.
pub fn columns(text: &str) -> usize {
    text.width()
}

fn largest_unit(age: Duration) -> (u64, &'static str) {
    match age.as_secs() {
        s @ 0..60 => (s, "second"),
        s @ 60..3_600 => (s / 60, "minute"),
        s @ 3_600..86_400 => (s / 3_600, "hour"),
        s => (s / 86_400, "day"),
    }
}

fn bounded(text: &str, put: impl Fn(&mut String, char)) -> String {
    let mut out = String::with_capacity(text.len().min(MAX_FIELD_BYTES));
    // The longest beginning after which the ellipsis still finds room.
    let mut cut = 0;
    for c in text.chars() {
        put(&mut out, c);
        if out.len() > MAX_FIELD_BYTES {
            out.truncate(cut);
            out.push_str(ELLIPSIS);
            return out;
        }
        if out.len() + ELLIPSIS.len() <= MAX_FIELD_BYTES {
            cut = out.len();
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop, prop_assert, prop_assert_eq, proptest};

    use super::*;

    #[test]
    fn a_size_is_rounded_in_decimal_units() {
        let table = [
            (0, "0 B"),
            (980, "980 B"),
            (999, "999 B"),
            (1_000, "1.0 kB"),
            (1_899, "1.9 kB"),
            (999_949, "999.9 kB"),
            (999_950, "1.0 MB"),
            (4_194_304, "4.2 MB"),
            (268_435_456, "268.4 MB"),
        ];
        for (bytes, text) in table {
            assert_eq!(size(bytes), text);
        }
        assert!(size(u64::MAX).ends_with(" MB"));
    }

    #[test]
    fn an_age_never_claims_a_unit_that_is_not_full() {
        let table = [
            (0, "0s", "0 seconds"),
            (1, "1s", "1 second"),
            (59, "59s", "59 seconds"),
            (60, "1m", "1 minute"),
            (3_599, "59m", "59 minutes"),
            (3 * 3_600, "3h", "3 hours"),
            (86_399, "23h", "23 hours"),
            (6 * 86_400 + 86_399, "6d", "6 days"),
        ];
        for (secs, short, long) in table {
            assert_eq!(age(Duration::from_secs(secs)), short);
            assert_eq!(age_in_words(Duration::from_secs(secs)), long);
        }
    }

    #[test]
    fn a_wait_is_as_precise_as_it_is_short() {
        let table = [
            (0, "0.00s"),
            (42, "0.04s"),
            (214, "0.21s"),
            (996, "1s"),
            (1_200, "1.2s"),
            (1_960, "2s"),
            (10_000, "10s"),
            (59_940, "59.9s"),
            (60_000, "1m"),
            (7_860_000, "2h 11m"),
        ];
        for (millis, text) in table {
            assert_eq!(seconds(Duration::from_millis(millis)), text);
        }
    }

    #[test]
    fn a_span_has_at_most_two_units() {
        let table = [
            (40, "40s"),
            (725, "12m 5s"),
            (720, "12m"),
            (7_860, "2h 11m"),
            (86_400 * 3 + 4 * 3_600 + 59, "3d 4h"),
        ];
        for (secs, text) in table {
            assert_eq!(span(Duration::from_secs(secs)), text);
        }
    }

    #[test]
    fn only_one_is_singular() {
        assert_eq!(plural(0, "save"), "0 saves");
        assert_eq!(plural(1, "save"), "1 save");
        assert_eq!(plural(2, "save"), "2 saves");
        assert_eq!(plural(1, "directory"), "1 directory");
        assert_eq!(plural(3, "directory"), "3 directories");
        assert_eq!(plural(6, "day"), "6 days");
    }

    #[test]
    fn what_a_terminal_obeys_or_hides_is_shown_as_its_number() {
        let table = [
            ("\u{1b}[2J", "\\u{1b}[2J"),
            ("a\r\nb\tc\0", "a\\u{d}\\u{a}b\\u{9}c\\u{0}"),
            ("\u{7f}\u{9b}31m", "\\u{7f}\\u{9b}31m"),
            ("abc\u{202e}sj.exe", "abc\\u{202e}sj.exe"),
            (
                "\u{2066}\u{2069}\u{200f}\u{61c}",
                "\\u{2066}\\u{2069}\\u{200f}\\u{61c}",
            ),
            ("a\u{200b}b\u{feff}\u{ad}", "a\\u{200b}b\\u{feff}\\u{ad}"),
            ("\u{2028}\u{e0041}", "\\u{2028}\\u{e0041}"),
        ];
        for (raw, shown) in table {
            assert_eq!(escape(raw), shown);
        }
    }

    #[test]
    fn readable_text_of_any_language_stays_as_it_is() {
        for text in [
            "unexpected token `}`",
            "größe 日本語 हिन्दी",
            "e\u{301}",
            "🦀",
            "C:\\x",
        ] {
            assert_eq!(escape(text), text);
        }
    }

    #[test]
    fn a_text_of_exactly_the_bound_is_whole_and_one_byte_more_is_cut() {
        let whole = "x".repeat(MAX_FIELD_BYTES);
        assert_eq!(escape(&whole), whole);
        let cut = escape(&format!("{whole}y"));
        assert_eq!(cut, format!("{}...", "x".repeat(MAX_FIELD_BYTES - 3)));
    }

    proptest! {
        #[test]
        fn escaped_text_is_bounded_visible_and_stable(
            chars in prop::collection::vec(prop::char::ranges(std::borrow::Cow::Borrowed(&['\0'..='\u{ff}', '\u{2000}'..='\u{2070}', '\0'..=char::MAX])), 0..600),
        ) {
            let raw: String = chars.into_iter().collect();
            let shown = escape(&raw);
            prop_assert!(shown.len() <= MAX_FIELD_BYTES);
            prop_assert!(!shown.chars().any(is_hidden));
            prop_assert_eq!(escape(&shown), shown);
        }

        #[test]
        fn clipped_text_is_a_beginning_of_the_text(raw in any::<String>(), times in 1_usize..40) {
            let raw = raw.repeat(times);
            let clipped = clip(&raw);
            prop_assert!(clipped.len() <= MAX_FIELD_BYTES);
            prop_assert!(raw == clipped || raw.starts_with(clipped.trim_end_matches('.')));
        }
    }
}
