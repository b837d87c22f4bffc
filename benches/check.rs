//! How long the check of an entry takes: that it parses, what there is to say of it, and whether a key stands in it.
//!
//! `cargo bench --bench check`. One part is a megabyte of code in the shape that people write, of a module, and of one
//! long line; the other the largest entry that the service takes.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use er_dev::config::Kind;
use er_dev::routine::RoutineName;
use er_dev::watch::Target;
use er_dev::watch::source::{Demands, examine};

const MEGABYTE: usize = 1_000_000;

/// How often each is timed; the median counts.
const TIMES: usize = 15;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Outcome<()> {
    let script =
        "addEventListener(\"fetch\", (event) => event.respondWith(part0(event.request)));\n";
    let module = "export default { fetch: part0 };\n";
    let shapes = [
        ("script", script, MEGABYTE, "\n"),
        ("module", module, MEGABYTE, "\n"),
        ("one line", script, MEGABYTE, ""),
        ("largest", script, 4 * MEGABYTE, "\n"),
    ];
    let mut out = io::stdout();
    writeln!(
        out,
        "{:>10} {:>9} {:>10} {:>10}",
        "shape", "bytes", "checked", "unchecked"
    )?;
    for (name, handler, size, end) in shapes {
        let dir = tempfile::tempdir()?;
        let entry = dir.path().join("index.js");
        let text = code(handler, size, end);
        fs::write(&entry, &text)?;
        let checked = median(&entry, true)?;
        let unchecked = median(&entry, false)?;
        writeln!(
            out,
            "{name:>10} {:>9} {:>7.1} ms {:>7.1} ms",
            text.len(),
            checked.as_secs_f64() * 1e3,
            unchecked.as_secs_f64() * 1e3,
        )?;
    }
    Ok(())
}

/// Functions of the usual kind up to a size, and a handler behind them.
fn code(handler: &str, size: usize, end: &str) -> String {
    let mut text = String::with_capacity(size + 1_000);
    for part in 0.. {
        if text.len() + handler.len() >= size {
            break;
        }
        let lines = [
            format!("async function part{part}(request, options = {{ retries: {part} }}) {{"),
            format!("  const url = new URL(request.url), key = `part-{part}:${{url.pathname}}`;"),
            "  for (const [name, value] of url.searchParams) {".into(),
            "    if (/^x-[a-z]+$/i.test(name) && value !== \"\") options[name] = value ?? null;"
                .into(),
            "  }".into(),
            format!(
                "  return options.retries > {part} ? part{part}(request, options) : new Response(key);"
            ),
            "}".into(),
        ];
        for line in lines {
            text.push_str(&line);
            text.push_str(end);
        }
    }
    text.push_str(handler);
    text
}

fn median(entry: &Path, check: bool) -> Outcome<Duration> {
    let root = entry.parent().ok_or("an entry has a directory")?;
    let target = Target {
        routine: RoutineName::new("hello")?,
        entry: entry.to_owned(),
        root: root.to_owned(),
        check,
        follow: false,
        glob: None,
    };
    let demands = Demands {
        service: Kind::Dcdn,
        secrets: false,
    };
    let mut times = Vec::new();
    for _ in 0..TIMES {
        let begun = Instant::now();
        let source = examine(&target, demands)?;
        times.push(begun.elapsed());
        drop(source);
    }
    times.sort();
    Ok(times[TIMES / 2])
}
