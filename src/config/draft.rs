//! A first configuration: what is found in a project becomes the text of an `er-dev.toml`. Pure.
//!
//! Only keys that are meant are written, each with a sentence, in the order of `config.example.toml`; everything else
//! has a default. Nothing here is clever: what is not plain is left to whoever wrote the project.

use serde_json::Value;

use crate::routine::RoutineName;

/// The most routines that are written. A project with more has a layout that nobody can guess.
pub const MAX_ROUTINES: usize = 50;

/// Names of files that say nothing; the project's own name says more.
const PLAIN_NAMES: [&str; 5] = ["index", "main", "worker", "edge", "app"];

/// What a shell command names its output by.
const OUTPUT_FLAGS: [&str; 3] = ["--outfile", "--output-file", "-o"];

/// A first configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// The routines, at least one.
    pub routines: Vec<Drafted>,
    /// Whether routines that are missing on the service are made there.
    pub create: bool,
}

/// A routine of a first configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drafted {
    /// Its name.
    pub name: RoutineName,
    /// Its entry, relative to the configuration.
    pub entry: String,
    /// The command that makes the entry, if there is one.
    pub build: Option<String>,
}

/// A build script of a project whose output can be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    /// The file that it writes.
    pub output: String,
    /// The command that runs it.
    pub command: String,
}

/// The directory that a bundler's sources lie in.
pub const SOURCES: &str = "src";

/// Whether a text looks like the code of a routine: it registers a handler of requests.
pub fn is_entry(code: &str) -> bool {
    let listens = code
        .match_indices("addEventListener")
        .map(|(at, word)| code[at + word.len()..].trim_start());
    let listens = listens
        .filter_map(|rest| rest.strip_prefix('('))
        .any(|rest| {
            let rest = rest.trim_start();
            ["\"fetch\"", "'fetch'", "`fetch`"]
                .iter()
                .any(|word| rest.starts_with(word))
        });
    listens || (code.contains("export default") && code.contains("fetch("))
}

/// Whether a path can stand in a configuration as it is, and is no test.
pub fn is_plain(path: &str) -> bool {
    let odd = |c: char| c.is_control() || "*?[]{}!\\".contains(c);
    let is_test = [".test.js", ".spec.js", ".min.js"];
    path.ends_with(".js") && !path.contains(odd) && !is_test.iter().any(|end| path.ends_with(end))
}

/// The build script of a `package.json`, if its output can be told. `runner` is what runs scripts, such as `npm`.
pub fn script(package: &Value, runner: &str) -> Option<Script> {
    let build = package["scripts"]["build"].as_str()?;
    let mut words = build.split_whitespace();
    let mut named = None;
    while let Some(word) = words.next() {
        let (flag, value) = word.split_once('=').unwrap_or((word, ""));
        if OUTPUT_FLAGS.contains(&flag) {
            named = match value {
                "" => words.next(),
                value => Some(value),
            };
        }
    }
    let output = named.or_else(|| package["main"].as_str())?;
    let output = output.trim_matches(['"', '\'']);
    let output = output.strip_prefix("./").unwrap_or(output);
    let outside = output.starts_with('/') || output.split('/').any(|part| part == "..");
    let is_made = is_plain(output) && !outside && !output.starts_with("src/");
    is_made.then(|| Script {
        output: output.to_owned(),
        command: format!("{runner} run build"),
    })
}

/// Makes routines of entries and of a build script. `project` is the name of the project, as its `package.json` or its
/// directory has it. What the build reads is no entry of its own.
pub fn routines(entries: &[String], script: Option<&Script>, project: &str) -> Vec<Drafted> {
    let is_source = |entry: &&String| {
        script.is_some_and(|script| {
            **entry == script.output || entry.starts_with(&format!("{SOURCES}/"))
        })
    };
    let built = script.map(|script| (&script.output, Some(script.command.clone())));
    let plain = entries.iter().filter(|entry| !is_source(entry));
    let mut drafted: Vec<Drafted> = Vec::new();
    for (entry, build) in built.into_iter().chain(plain.map(|entry| (entry, None))) {
        let name = (1..).find_map(|nth| {
            let name = name(entry, project, nth)?;
            let taken = drafted.iter().any(|other| other.name == name);
            (!taken).then_some(name)
        });
        if let Some(name) = name.filter(|_| drafted.len() < MAX_ROUTINES) {
            drafted.push(Drafted {
                name,
                entry: entry.clone(),
                build,
            });
        }
    }
    drafted
}

/// What a routine could be called; the second of a name is its second.
fn name(entry: &str, project: &str, nth: usize) -> Option<RoutineName> {
    let file = entry.rsplit('/').next().unwrap_or(entry);
    let stem = file.strip_suffix(".js").unwrap_or(file);
    let base = match PLAIN_NAMES.contains(&stem) {
        // A scope, as in `@me/project`, is no part of the name.
        true => project.rsplit('/').next().unwrap_or(project),
        false => stem,
    };
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let plain: String = base
        .chars()
        .map(|c| if fits(c) { c } else { '-' })
        .take(40)
        .collect();
    let plain = match plain.trim_matches('-') {
        "" => "routine",
        plain => plain,
    };
    let name = match nth {
        1 => plain.to_owned(),
        nth => format!("{plain}-{nth}"),
    };
    RoutineName::new(&name).ok()
}

impl Draft {
    /// The text of the file.
    pub fn text(&self) -> String {
        let mut text = String::from(
            "# What er-dev keeps in step with the service. Every other key has a default; config.example.toml of er-dev shows\n\
             # them all. Paths are relative to this file, and credentials never stand here.\n",
        );
        for routine in &self.routines {
            text.push_str(&routine.text(self.create));
        }
        text
    }
}

impl Drafted {
    fn text(&self, create: bool) -> String {
        let mut text = format!(
            "\n[[routine]]\n\
             # The name of the routine on the service.\n\
             name = {}\n\
             # The file that is its code.\n\
             entry = {}\n",
            quoted(self.name.as_str()),
            quoted(&self.entry),
        );
        if create {
            text.push_str(
                "# The routine is made on the service when it is missing there.\ncreate = true\n",
            );
        }
        if let Some(command) = &self.build {
            text.push_str(&format!(
                "# The command that makes the entry, run at the start and when what it reads changes.\n\
                 build = {{ command = {}, watch = [{}] }}\n",
                quoted(command),
                quoted(SOURCES),
            ));
        }
        text
    }
}

/// A text in quotes. What JSON escapes, TOML reads.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn drafted(entries: &[&str], script: Option<&Script>) -> Vec<(String, String)> {
        let entries: Vec<String> = entries.iter().map(|entry| (*entry).to_owned()).collect();
        let all = routines(&entries, script, "@me/my site");
        let pair = |drafted: Drafted| (drafted.name.to_string(), drafted.entry);
        all.into_iter().map(pair).collect()
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        let owned = |(name, entry): &(&str, &str)| ((*name).to_owned(), (*entry).to_owned());
        pairs.iter().map(owned).collect()
    }

    #[test]
    fn what_registers_a_handler_is_an_entry_and_nothing_else_is() {
        for code in [
            "addEventListener('fetch', e => 1)",
            "addEventListener(\n  \"fetch\", x)",
            "export default { async fetch(request) {} }",
        ] {
            assert!(is_entry(code), "{code}");
        }
        for code in [
            "",
            "module.exports = {}",
            "addEventListener('click', go)",
            "fetch('/x')",
        ] {
            assert!(!is_entry(code), "{code}");
        }
    }

    #[test]
    fn a_routine_is_called_after_its_file_or_its_project() {
        let found = drafted(
            &["index.js", "src/api gw.js", "b/hello.js", "c/hello.js"],
            None,
        );
        let expected = [
            ("my-site", "index.js"),
            ("api-gw", "src/api gw.js"),
            ("hello", "b/hello.js"),
            ("hello-2", "c/hello.js"),
        ];
        assert_eq!(found, pairs(&expected));
    }

    #[test]
    fn what_a_build_writes_is_an_entry_and_what_it_reads_is_none() {
        let script = Script {
            output: "dist/index.js".into(),
            command: "npm run build".into(),
        };
        let entries = ["dist/index.js", "src/index.js", "other/gw.js"];
        let found = drafted(&entries, Some(&script));
        let expected = [("my-site", "dist/index.js"), ("gw", "other/gw.js")];
        assert_eq!(found, pairs(&expected));
    }

    #[test]
    fn the_output_of_a_build_is_told_by_its_script_or_not_at_all() {
        let output = |build: &str, main: Value| {
            let package = json!({"scripts": {"build": build}, "main": main});
            script(&package, "pnpm").map(|script| script.output)
        };
        let none = Value::Null;
        let told = Some("dist/a.js".to_owned());
        let by_flag = "esbuild src/a.ts --bundle --outfile=dist/a.js";
        assert_eq!(output(by_flag, none.clone()), told);
        assert_eq!(output("rollup -c -o ./dist/a.js", none.clone()), told);
        assert_eq!(output("vite build", "./dist/a.js".into()), told);
        assert_eq!(output("tsc", none.clone()), None);
        assert_eq!(output("x -o", none.clone()), None);
        for outside in ["/tmp/a.js", "../a.js", "src/a.js", "dist/a.css"] {
            assert_eq!(output("vite build", outside.into()), None, "{outside}");
        }
        let package = json!({"scripts": {"build": by_flag}});
        assert_eq!(script(&package, "pnpm").unwrap().command, "pnpm run build");
        assert_eq!(script(&json!({"main": "dist/a.js"}), "npm"), None);
        assert_eq!(script(&json!([1]), "npm"), None);
    }

    #[test]
    fn what_is_written_loads_as_it_was_meant() {
        let draft = Draft {
            routines: routines(&["a \"b\".js".to_owned(), "index.js".to_owned()], None, "é"),
            create: true,
        };
        let text = draft.text();
        let file = std::path::Path::new("/p/er-dev.toml");
        let config = super::super::parse(&text, file, "er-dev.toml", &[]).unwrap();
        let routine = &config.routines[0];
        assert_eq!(routine.entry, std::path::Path::new("/p/a \"b\".js"));
        assert!(config.routines.iter().all(|routine| routine.create));
        assert_eq!(config.routines[1].name.as_str(), "routine");
    }

    #[test]
    fn a_build_is_written_with_what_it_reads() {
        let built = Draft {
            routines: vec![Drafted {
                name: RoutineName::new("hello").unwrap(),
                entry: "dist/hello.js".into(),
                build: Some("npm run build".into()),
            }],
            create: false,
        };
        let text = built.text();
        assert!(!text.contains("create"), "{text}");
        assert!(
            text.lines().all(|line| line.chars().count() <= 120),
            "{text}"
        );
        let file = std::path::Path::new("/p/er-dev.toml");
        let config = super::super::parse(&text, file, "er-dev.toml", &[]).unwrap();
        let build = config.routines[0].build.as_ref().unwrap();
        assert_eq!(build.command, "npm run build");
    }
}
