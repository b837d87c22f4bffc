//! The report's manners towards the place it writes to.

use std::sync::{Arc, Mutex};

use super::*;

/// A place to write to that remembers what came and can refuse it.
#[derive(Clone, Default)]
struct Place {
    refuse: Arc<Mutex<Option<io::ErrorKind>>>,
    written: Arc<Mutex<Vec<u8>>>,
}

impl Place {
    fn report(&self, format: Format) -> Report {
        Report::new(format, Look::PLAIN, TimeZone::UTC, Box::new(self.clone()))
    }

    fn refuse(&self, kind: Option<io::ErrorKind>) {
        *self.refuse.lock().unwrap() = kind;
    }

    fn text(&self) -> String {
        String::from_utf8(self.written.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Place {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(kind) = *self.refuse.lock().unwrap() {
            return Err(kind.into());
        }
        self.written.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_closed_pipe_is_no_error_and_ends_the_output() {
    let place = Place::default();
    let mut report = place.report(Format::Json);
    report.tell(&Event::Created { routine: hello() });
    place.refuse(Some(io::ErrorKind::BrokenPipe));
    report.tell(&uploaded());
    place.refuse(None);
    report.tell(&uploaded());
    report.print("a table\n");
    assert!(report.broken().is_none());
    assert_eq!(place.text().lines().count(), 1);
    assert!(place.text().contains(r#""event":"created""#));
}

#[test]
fn a_full_disk_is_remembered_and_tried_again() {
    let place = Place::default();
    let mut report = place.report(Format::Text);
    place.refuse(Some(io::ErrorKind::StorageFull));
    report.tell(&uploaded());
    place.refuse(Some(io::ErrorKind::TimedOut));
    report.tell(&uploaded());
    place.refuse(None);
    report.tell(&Event::Created { routine: hello() });
    assert_eq!(
        report.broken().map(io::Error::kind),
        Some(io::ErrorKind::StorageFull)
    );
    assert!(
        place
            .text()
            .ends_with("     Created  hello  the routine was missing and was made\n")
    );
}

#[test]
fn what_a_build_prints_is_shown_while_it_comes_where_somebody_looks_and_nowhere_else() {
    let table = [
        (
            Format::Text,
            TERMINAL,
            "                 | bundled \\u{7} 3 files\n",
        ),
        (Format::Text, Look::PLAIN, ""),
        (Format::Json, TERMINAL, ""),
    ];
    for (format, look, expected) in table {
        let place = Place::default();
        let out = Box::new(place.clone());
        Report::new(format, look, TimeZone::UTC, out).stream("bundled \u{7} 3 files");
        assert_eq!(place.text(), expected);
    }
}
