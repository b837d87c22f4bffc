//! The promises of the whole room: what is accepted, what is refused, and that a refusal shows the place and no secret.

use std::fs;

use proptest::prelude::{Just, ProptestConfig, Strategy as _, any, prop_oneof, proptest};

use super::*;

const ROUTINE: &str = "[[routine]]\nname = \"hello\"\nentry = \"hello.js\"\n";

fn parsed(text: &str) -> Result<Config, String> {
    parse(text, Path::new("/project/er-dev.toml"), "er-dev.toml", &[])
        .map_err(|error| error.to_string())
}

fn refusal(text: &str) -> String {
    match parsed(text) {
        Ok(_) => panic!("accepted: {text}"),
        Err(error) => error,
    }
}

/// What is wrong with a file that sets `line` in `table` and is complete otherwise.
fn refusal_of(table: &str, line: &str) -> String {
    refusal(&with(table, line))
}

fn with(table: &str, line: &str) -> String {
    if table == "[[routine]]" {
        format!("{ROUTINE}{line}\n")
    } else {
        format!("{table}\n{line}\n{ROUTINE}")
    }
}

fn key_id() -> String {
    format!("{}{}", "LTAI", "5tQ7canary0123456789abcd")
}

#[test]
fn a_mistyped_key_is_shown_with_the_key_that_was_meant() {
    let text = format!("{ROUTINE}\n\n\n\n\n\n\n[watch]\ndebouce = \"100ms\"\n");
    insta::assert_snapshot!(refusal(&text), @r#"
    er-dev.toml:12:1: unknown key `debouce` in [watch]
       |
    12 | debouce = "100ms"
       | ^^^^^^^
       = help: did you mean `debounce`?
    "#);
}

#[test]
fn a_mistake_is_shown_where_it_is_with_a_way_out() {
    #[rustfmt::skip]
    let cases = [
        ("[watsch]", "1:2", "unknown key `watsch` at the top level", "did you mean `watch`?"),
        ("colour = 1", "1:1", "unknown key `colour` at the top level", "known are `service`, `limits`"),
        ("limits.burts = 1", "1:8", "unknown key `burts` in [limits]", "did you mean `burst`?"),
        ("limits = { burst = 1, x = 2 }", "1:23", "unknown key `x` in [limits]", "known are"),
        ("[[routine]]\nnam = 'a'", "2:1", "unknown key `nam` in [[routine]]", "did you mean `name`?"),
        ("[[routine]]\nname = 'a'\nentry = 'a'\n[routine.build]\nrun = 'x'", "5:1", "unknown key `run` in [routine.build]", "known are `command`, `watch`, `timeout`"),
        ("[[routine]]\nname = 'a'\nentry = 'a'\n[[routine]]\nname = 'b'", "4:1", "a `routine` has no `entry`", "add `entry"),
        ("[routine]\nname = 'a'", "1:1", "`routine` must be a list", "`[[routine]]`"),
        ("service = 1", "1:11", "`service` must be a table", ""),
        ("[revisions]\nrotate = 'owm'", "2:10", "`rotate` cannot be `owm`", "did you mean `own`?"),
        ("[revisions]\nverify = 'sometimes'", "2:10", "`verify` cannot be `sometimes`", "it can be `doubt`, `always`"),
        ("[revisions]\nrotate = 3", "2:10", "`rotate` must be a text in quotes", ""),
        ("[revisions]\ncap = '10'", "2:7", "`cap` must be a whole number", ""),
        ("[revisions]\ncap = 9.5", "2:7", "`cap` must be a whole number", ""),
        ("[revisions]\npin = ['a', 2]", "2:13", "`pin` must be a text in quotes", ""),
        ("[revisions]\npin = 'a'", "2:7", "`pin` must be a list", ""),
        ("[watch]\ndebounce = 100", "2:12", "`debounce` must be a duration such as \"100ms\" or \"2s\"", ""),
        ("[watch]\ndebounce = '100'", "2:12", "`debounce` must be a duration", ""),
        ("[watch]\ndebounce = '-1s'", "2:12", "`debounce` must be a duration", ""),
        ("[[routine]]\nname = 'a'\nentry = 'a'\ncheck = 'yes'", "4:9", "`check` must be true or false", ""),
        ("[service\nkind = 1", "1:9", "unclosed table", ""),
        ("[limits]\nburst = 1\nburst = 2", "3:1", "duplicate key", ""),
        ("# \u{7248}\u{672c}\n\t\t[x", "2:5", "unclosed table", ""),
    ];
    for (text, place, message, help) in cases {
        let error = refusal(text);
        let first = error.lines().next().unwrap();
        assert!(
            first.starts_with(&format!("er-dev.toml:{place}: {message}")),
            "{text}\n{error}"
        );
        assert!(error.contains(help), "{text}\n{error}");
    }
}

#[test]
fn a_value_beyond_its_bounds_is_refused_with_the_bounds() {
    #[rustfmt::skip]
    let cases = [
        ("[limits]", "requests_per_second = 0", "`requests_per_second` is 0", "1 to 99"),
        ("[limits]", "burst = 0", "`burst` is 0", "1 to 99"),
        ("[limits]", "max_in_flight = -1", "`max_in_flight` is -1", "1 to 99"),
        ("[limits]", "burst = 9223372036854775807", "`burst` is 9223372036854775807", "1 to 99"),
        ("[limits]", "burst = 12", "80 + burst 12 + max_in_flight 8 = 100, and 99", "lower them by 1"),
        ("[revisions]", "cap = 0", "`cap` is 0", "1 to 10"),
        ("[revisions]", "cap = 11", "`cap` is 11", "1 to 10"),
        ("[revisions]", "reserve = -1", "`reserve` is -1", "0 to 10"),
        ("[revisions]", "reserve = 10", "reserve is 10, and must be smaller than cap, which is 10", "defaults"),
        ("[revisions]", "cap = 1", "reserve is 1, and must be smaller than cap, which is 1", "defaults"),
        ("[revisions]", "keep_newest = 9", "keep_newest is 9, and must be smaller than cap - reserve, which is 9", "rotation"),
        ("[revisions]", "cap = 4", "keep_newest is 3, and must be smaller than cap - reserve, which is 3", "rotation"),
        ("[watch]", "debounce = '9ms'", "`debounce` is 9ms", "\"10ms\" to \"1m\""),
        ("[watch]", "debounce = '61s'", "`debounce` is 1m 1s", "\"10ms\" to \"1m\""),
        ("[watch]", "debounce = '3s'", "max_wait is 2s, shorter than debounce, which is 3s", "at least \"3s\""),
        ("[watch]", "max_wait = '99ms'", "max_wait is 99ms, shorter than debounce", "at least \"100ms\""),
        ("[watch]", "max_wait = '11m'", "`max_wait` is 11m", "\"10ms\" to \"10m\""),
        ("[watch]", "rescan = '999ms'", "`rescan` is 999ms", "\"1s\" to \"1h\""),
        ("[watch]", "rescan = '2h'", "`rescan` is 2h", "\"1s\" to \"1h\""),
        ("[watch]", "poll_interval = '49ms'", "`poll_interval` is 49ms", "\"50ms\" to \"1m\""),
        ("[watch]", "ignore = ['{a']", "not a pattern", ""),
        ("[daemon]", "drain = '61m'", "`drain` is 1h 1m", "\"0s\" to \"1h\""),
        ("[daemon]", "listen = 'here'", "not an address with a port", "127.0.0.1:9477"),
        ("[daemon]", "listen = '0.0.0.0:9477'", "this machine only", "127.0.0.1"),
        ("[revisions]", "pin = ['[a']", "not a pattern", ""),
        ("[revisions]", "pin = ['']", "not a pattern", ""),
        ("[service]", "profile = ''", "a profile has a name", ""),
        ("[service]", "endpoint = 'https://example.com'", "`example.com` is neither", "--allow-endpoint example.com"),
        ("[[routine]]", "description = '{fiel}'", "unknown placeholder `{fiel}`", "did you mean `{file}`?"),
        ("[[routine]]", "description = '{tim}'", "unknown placeholder `{tim}`", "did you mean `{time}`?"),
        ("[[routine]]", "description = '{commit}'", "unknown placeholder `{commit}`", "known are `{file}`, `{git}`, `{branch}`"),
        ("[[routine]]", "description = 'a{file'", "has no `}`", "`{file}`"),
        ("[[routine]]", "description = \"a\\nb\"", "one line", ""),
        ("[[routine]]", "publish_to = ['production']", "er-dev never publishes to `production` by itself", "by hand"),
        ("[[routine]]", "publish_to = ['staging', 'canary_1']", "er-dev never publishes to `canary_1` by itself", "by hand"),
        ("[[routine]]", "build = { command = ' ' }", "a build has a command", "npm run build"),
        ("[[routine]]", "build = { command = 'make' }", "a build says what it reads", "watch = ["),
        ("[[routine]]", "build = { command = 'make', watch = ['!src'] }", "not only what it does not", "\"!src/generated\""),
        ("[[routine]]", "build = { command = 'make', watch = [''] }", "with names", ""),
        ("[[routine]]", "build = { command = 'make', watch = ['[a'] }", "not a pattern", ""),
        ("[[routine]]", "build = { command = 'make', watch = ['a', '!'] }", "with names", ""),
        ("[[routine]]", "build = { command = 'make', watch = ['a'], timeout = '0s' }", "`timeout` is 0s", "\"1s\" to \"1h\""),
    ];
    for (table, line, message, help) in cases {
        let error = refusal_of(table, line);
        assert!(
            error.contains(message) && error.contains(help),
            "{line}\n{error}"
        );
        assert!(error.contains(line), "the line is shown: {line}\n{error}");
    }
    let long = format!("description = '{}'", "\u{7248}".repeat(201));
    assert!(refusal_of("[[routine]]", &long).contains("at most 200 characters"));
}

#[test]
fn a_value_at_its_bound_is_accepted() {
    #[rustfmt::skip]
    let cases = [
        ("[limits]", "requests_per_second = 1\nburst = 1\nmax_in_flight = 97"),
        ("[limits]", "burst = 11"),
        ("[revisions]", "cap = 1\nreserve = 0\nkeep_newest = 0"),
        ("[revisions]", "reserve = 6"),
        ("[revisions]", "keep_newest = 8"),
        ("[watch]", "debounce = '10ms'\nmax_wait = '10ms'"),
        ("[watch]", "debounce = '60s'\nmax_wait = '10m'"),
        ("[watch]", "rescan = '1s'"),
        ("[watch]", "rescan = '1h'"),
        ("[daemon]", "drain = '0s'"),
        ("[daemon]", "drain = '60m'"),
        ("[service]", "profile = 'work'"),
    ];
    for (table, line) in cases {
        if let Err(error) = parsed(&with(table, line)) {
            panic!("{line}\n{error}");
        }
    }
}

#[test]
fn a_pattern_as_an_entry_makes_a_routine_of_each_file_with_the_settings_of_its_table() {
    let text = "[[routine]]\nname = 'edge-{stem}'\nentry = 'src/edge/**/*.js'\ncreate = true";
    let config = parsed(text).unwrap();
    assert!(config.routines.is_empty());
    let [glob] = &config.globs[..] else {
        panic!("{:?}", config.globs);
    };
    assert_eq!(glob.pattern.text, "src/edge/**/*.js");
    assert_eq!(glob.pattern.line, 3);
    let dir = config.file.parent().unwrap();
    let file = dir.join("src/edge/sub/a.js");
    let routine = glob.routine(&file).unwrap();
    assert_eq!(routine.name.as_str(), "edge-a");
    assert_eq!(routine.shown, "src/edge/sub/a.js");
    assert_eq!(routine.root, dir.join("src/edge"));
    assert_eq!((routine.entry, routine.glob), (file, Some(0)));
    assert!(routine.create);
    assert!(glob.routine(&dir.join("src/edge/a.b.js")).is_err());
}

#[test]
fn a_pattern_and_a_stem_need_each_other() {
    let cases = [
        ("name = 'a'\nentry = 'edge/?.js'", "would have the name `a`"),
        ("name = 'a'\nentry = 'edge/[ab].js'", "would have the name"),
        ("name = 'a'\nentry = '{a,b}.js'", "would have the name"),
        ("name = 'a-{stem}'\nentry = 'a.js'", "`entry` is none"),
        ("name = '{stem}{stem}'\nentry = '*.js'", "twice"),
        ("name = 'a.{stem}'\nentry = '*.js'", "`.` cannot stand"),
        ("name = '{stem}'\nentry = 'edge/[.js'", "not a pattern"),
        (
            "name = '{stem}'\nentry = 'edge/*/../a.js'",
            "names no files",
        ),
    ];
    for (routine, words) in cases {
        let error = refusal(&format!("[[routine]]\n{routine}"));
        assert!(error.contains(words), "{routine}\n{error}");
        assert!(error.contains('^'), "{routine}\n{error}");
    }
}

#[test]
fn what_goes_to_staging_makes_no_version_that_could_be_published() {
    let both = "upload = 'staging'\npublish_to = ['staging']";
    let error = refusal(&with("[[routine]]", both));
    assert!(error.contains("an upload makes none"), "{error}");
    assert!(error.contains("= help: leave it out"), "{error}");
    let config = parsed(&with("[[routine]]", "upload = 'staging'\npublish_to = []")).unwrap();
    assert_eq!(config.routines[0].upload, Upload::Staging);
}

#[test]
fn what_is_still_to_come_says_so_and_its_default_is_accepted() {
    #[rustfmt::skip]
    let cases = [
        ("[service]", "kind = 'esa'", "kind = 'dcdn'"),
    ];
    for (table, line, default) in cases {
        let error = refusal_of(table, line);
        assert!(error.contains("not available yet"), "{line}\n{error}");
        assert!(error.contains("= help: "), "{line}\n{error}");
        if let Err(error) = parsed(&with(table, default)) {
            panic!("{default}\n{error}");
        }
    }
}

fn pattern(text: &str, line: usize) -> Pattern {
    let text = text.into();
    Pattern { text, line }
}

#[test]
fn entries_and_ignore_patterns_know_their_lines() {
    let text = "\u{feff}[watch]\r\nignore = [\r\n  '*.map', # one\r\n\r\n  'tmp',\r\n]\r\n[[routine]]\r\nname = 'a'\r\n\r\nentry = 'a.js'\r\n";
    let config = parsed(text).unwrap();
    assert_eq!(
        config.watch.ignore,
        [pattern("*.map", 3), pattern("tmp", 5)]
    );
    assert_eq!(config.routines[0].line, 10);
}

#[test]
fn what_is_written_is_what_is_used() {
    let text = "
        service = { endpoint = 'http://127.0.0.1:9480', signature = 'acs3-hmac-sha256' }
        limits = { requests_per_second = 20, burst = 5, max_in_flight = 2 }
        watch = { debounce = '50ms', max_wait = '1m 30s', rescan = '1m', backend = 'poll', poll_interval = '1s', ignore = ['*.map', '!keep.map'] }
        revisions = { cap = 8, reserve = 2, keep_newest = 1, rotate = 'own', pin = ['release*'], verify = 'always' }
        daemon.drain = '3s'
        [[routine]]
        name = 'one'
        entry = 'a.js'
        [[routine]]
        name = 'two'
        entry = 'a.js'
        description = 'v2 of {file} at {git} {branch} by {user} on {host} {time}'
        check = false
        follow = true
        create = true";
    let config = parsed(text).unwrap();
    assert_eq!(config.service.endpoint.url, "http://127.0.0.1:9480");
    assert_eq!(config.service.signature, Signature::Acs3HmacSha256);
    assert_eq!(
        config.limits,
        Limits {
            requests_per_second: 20,
            burst: 5,
            max_in_flight: 2
        }
    );
    assert_eq!(
        config.watch,
        Watch {
            debounce: Duration::from_millis(50),
            max_wait: Duration::from_secs(90),
            rescan: Duration::from_secs(60),
            backend: Backend::Poll,
            poll_interval: Duration::from_secs(1),
            ignore: vec![pattern("*.map", 4), pattern("!keep.map", 4)],
        }
    );
    assert_eq!(
        config.revisions,
        Revisions {
            cap: 8,
            reserve: 2,
            keep_newest: 1,
            rotate: Rotate::Own,
            pin: vec!["release*".into()],
            verify: Verify::Always,
        }
    );
    assert_eq!(config.daemon.drain, Duration::from_secs(3));
    let [one, two] = &config.routines[..] else {
        panic!("{:?}", config.routines);
    };
    assert_eq!(
        (one.name.as_str(), one.check, one.follow, one.create),
        ("one", true, false, false)
    );
    assert_eq!(one.description, "{file}");
    assert_eq!(
        (two.name.as_str(), two.check, two.follow, two.create),
        ("two", false, true, true)
    );
    assert_eq!(
        two.description,
        "v2 of {file} at {git} {branch} by {user} on {host} {time}"
    );
    assert_eq!(one.entry, two.entry);
}

#[test]
fn an_entry_is_absolute_and_plain_and_its_directory_is_the_root() {
    #[rustfmt::skip]
    let cases = [
        ("hello.js", "/project/hello.js", "/project"),
        ("./src/hello.js", "/project/src/hello.js", "/project/src"),
        ("src//x/../hello.js", "/project/src/hello.js", "/project/src"),
        ("../other/a.js", "/other/a.js", "/other"),
        ("../../../../a.js", "/a.js", "/"),
        ("/srv/a.js", "/srv/a.js", "/srv"),
        ("\u{7248}\u{672c} 1.js", "/project/\u{7248}\u{672c} 1.js", "/project"),
    ];
    for (written, entry, root) in cases {
        let config = parsed(&format!("[[routine]]\nname = 'a'\nentry = '{written}'")).unwrap();
        let routine = &config.routines[0];
        assert_eq!(routine.entry, Path::new(entry), "{written}");
        assert_eq!(routine.root, Path::new(root), "{written}");
        assert_eq!(routine.shown, written);
    }
    for odd in [
        "",
        ".",
        "..",
        "/",
        "src/",
        "src/.",
        "src/..",
        "a\\u0000.js",
        "a\\n.js",
    ] {
        let error = refusal(&format!("[[routine]]\nname = 'a'\nentry = \"{odd}\""));
        assert!(
            error.starts_with("er-dev.toml:3:9: an entry "),
            "{odd}\n{error}"
        );
    }
}

#[test]
fn there_is_at_least_one_routine_and_no_name_twice() {
    for text in ["", "\n# nothing\n", "routine = []"] {
        assert!(
            refusal(text).starts_with("er-dev.toml: no [[routine]]"),
            "{text}"
        );
    }
    let error = refusal(&format!("{ROUTINE}{}", ROUTINE.replace("hello.js", "b.js")));
    assert!(
        error.starts_with("er-dev.toml:5:8: two routines are named `hello`"),
        "{error}"
    );
    let error = refusal("[[routine]]\nname = 'a b'\nentry = 'a'");
    assert!(
        error.starts_with("er-dev.toml:2:8: ` ` cannot stand in a routine name"),
        "{error}"
    );
}

#[test]
fn a_key_that_looks_like_a_credential_is_named_and_its_value_is_not_shown() {
    #[rustfmt::skip]
    let cases = [
        ("access_key_id = 'hunter2'", "1:1", "access_key_id"),
        ("[service]\naccess_key_secret = 'hunter2'", "2:1", "access_key_secret"),
        ("[service]\nAccess-Key-Secret = 'hunter2'", "2:1", "Access-Key-Secret"),
        ("[service]\nsecret = '''\nhunter2'''", "2:1", "secret"),
        ("[secret]\nvalue = 'hunter2'", "1:2", "secret"),
        ("[[routine]]\nname = 'a'\nTOKEN = 'hunter2'", "3:1", "TOKEN"),
        ("[watch]\nignore = [{ password = 'hunter2' }]", "2:13", "password"),
        ("service = { token = 'hunter2', secret = 'hunter2' }", "1:13", "token"),
        ("limits.sts_token = 'hunter2'", "1:8", "sts_token"),
        ("\"\\u0074oken\" = 'hunter2'", "1:1", "token"),
        ("x = 1\nsecurity-token = 'hunter2'", "2:1", "security-token"),
        // A file that does not parse is looked at as well.
        ("[service]\naccess_key_secret = hunter2", "2:1", "access_key_secret"),
        ("secret = 'hunter2", "1:1", "secret"),
        ("api-key: hunter2", "1:1", "api-key"),
    ];
    for (text, place, key) in cases {
        let error = refusal(text);
        let first = format!("er-dev.toml:{place}: `{key}` looks like a credential");
        assert!(error.starts_with(&first), "{text}\n{error}");
        assert!(!error.contains("hunter2"), "{text}\n{error}");
        assert!(error.contains("ALIBABA_CLOUD_ACCESS_KEY_SECRET"), "{error}");
        assert!(error.contains("systemd credentials"), "{error}");
    }
}

#[test]
fn what_looks_like_a_key_id_is_refused_and_never_shown() {
    let id = key_id();
    #[rustfmt::skip]
    let cases = [
        (format!("[service]\nprofile = '{id}'"), "2:1"),
        (format!("[revisions]\npin = ['a', 'x {id}']"), "2:1"),
        (format!("[[routine]]\nname = '{id}'\nentry = 'a.js'"), "2:1"),
        (format!("'{id}' = 'hunter2'"), "1:1"),
        (format!("watch = {{ debouce = '1s', x = '{}{}' }}", "\\u004cTAI", &id[4..]) .replace('\'', "\""), "1:27"),
    ];
    for (text, place) in cases {
        let error = refusal(&text);
        assert!(
            error.starts_with(&format!(
                "er-dev.toml:{place}: what looks like an access key id"
            )),
            "{text}\n{error}"
        );
        assert!(
            !error.contains(&id[4..]) && !error.contains("hunter2"),
            "{text}\n{error}"
        );
    }
}

#[test]
fn what_a_project_must_not_decide_names_the_flag_or_variable_that_does() {
    #[rustfmt::skip]
    let cases = [
        ("ca_file", "--ca-file"),
        ("ca-file", "--ca-file"),
        ("state_dir", "--state-dir"),
        ("allow_endpoint", "--allow-endpoint"),
        ("allow_secrets", "--allow-secrets"),
        ("proxy", "HTTPS_PROXY"),
        ("https_proxy", "HTTPS_PROXY"),
    ];
    for (key, help) in cases {
        for table in ["", "[service]", "[[routine]]"] {
            let error = refusal_of(table, &format!("{key} = 'http://me:hunter2@proxy'"));
            assert!(
                error.contains(&format!("`{key}` may not be set in this file")),
                "{error}"
            );
            assert!(error.contains(help), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}

fn example() -> (PathBuf, String) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config.example.toml");
    let text = fs::read_to_string(&path).unwrap();
    (path, text)
}

#[test]
fn the_example_holds_the_defaults() {
    let (path, _) = example();
    let loaded = load(&path, &[]).unwrap();
    let minimal = "[[routine]]\nname = 'hello'\nentry = 'examples/hello.js'";
    let mut minimal = parse(minimal, &path, "f", &[]).unwrap();
    // The example has a sentence for every key before it.
    minimal.routines[0].line = loaded.routines[0].line;
    assert_eq!(loaded, minimal);
    assert!(loaded.routines[0].entry.is_file());
    assert_eq!(loaded.limits.requests_per_second, 80);
    assert_eq!(loaded.service.endpoint.host, "dcdn.aliyuncs.com");
}

#[test]
fn the_example_sets_every_key_there_is_once_it_is_uncommented() {
    let (_, text) = example();
    let uncommented: String = text
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(rest)
                if rest
                    .split_once(" = ")
                    .is_some_and(|(key, _)| !key.contains(' ')) =>
            {
                rest
            }
            _ => line,
        })
        .fold(String::new(), |text, line| text + line + "\n");
    let document: toml::Table = toml::from_str(&uncommented).unwrap();
    let mut keys = 0;
    for table in [
        "",
        "service",
        "limits",
        "watch",
        "revisions",
        "daemon",
        "routine",
    ] {
        let error = match table {
            "" => refusal("no-such-thing-anywhere = 1"),
            "routine" => refusal("[[routine]]\nno-such-thing-anywhere = 1"),
            _ => refusal(&format!("[{table}]\nno-such-thing-anywhere = 1")),
        };
        let (_, known) = error
            .split_once("known are ")
            .unwrap_or_else(|| panic!("{error}"));
        for key in known.split('`').skip(1).step_by(2) {
            let there = match table {
                "" => document.contains_key(key),
                "routine" => document[table][0].get(key).is_some(),
                _ => document[table].get(key).is_some(),
            };
            assert!(there, "{key} in [{table}]");
            keys += 1;
        }
    }
    assert_eq!(keys, 6 + 4 + 3 + 6 + 6 + 2 + 9);
}

#[test]
fn the_file_is_found_here_or_in_the_nearest_directory_above() {
    let dir = tempfile::tempdir().unwrap();
    let deep = dir.path().join("a/b/c");
    fs::create_dir_all(&deep).unwrap();
    fs::create_dir(deep.join(FILE_NAME)).unwrap();
    let above = dir.path().join("a").join(FILE_NAME);
    fs::write(&above, ROUTINE).unwrap();
    fs::write(dir.path().join(FILE_NAME), ROUTINE).unwrap();

    assert_eq!(
        find(None, &deep).unwrap(),
        above,
        "a directory of that name is passed by"
    );
    assert_eq!(find(None, &dir.path().join("a")).unwrap(), above);
    let given = Path::new("elsewhere.toml");
    assert_eq!(find(Some(given), &deep).unwrap(), given);

    fs::remove_file(&above).unwrap();
    fs::remove_file(dir.path().join(FILE_NAME)).unwrap();
    let error = find(None, &deep).unwrap_err();
    assert!(matches!(error, ConfigError::NotFound(_)));
    assert!(error.to_string().contains("--config"), "{error}");
}

#[test]
fn only_a_regular_file_of_a_sensible_size_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("c.toml");
    assert!(matches!(load(&file, &[]), Err(ConfigError::Read { .. })));
    assert!(matches!(
        load(dir.path(), &[]),
        Err(ConfigError::NotAFile(_))
    ));
    let pipe = dir.path().join("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, Mode::from_raw_mode(0o600)).unwrap();
    assert!(matches!(load(&pipe, &[]), Err(ConfigError::NotAFile(_))));

    let mut text = format!("{ROUTINE}#");
    text.push_str(&"x".repeat(1024 * 1024 - text.len()));
    fs::write(&file, &text).unwrap();
    assert!(load(&file, &[]).is_ok());
    fs::write(&file, text + "x").unwrap();
    assert!(matches!(load(&file, &[]), Err(ConfigError::TooLarge(_))));

    fs::write(&file, b"# a\n\xff").unwrap();
    let error = load(&file, &[]).unwrap_err().to_string();
    assert!(error.ends_with("line 2 is not UTF-8"), "{error}");
}

#[test]
fn a_byte_order_mark_and_windows_line_ends_change_nothing() {
    let windows = format!(
        "\u{feff}[limits]\r\nburst = 3\r\n{}",
        ROUTINE.replace('\n', "\r\n")
    );
    assert_eq!(
        parsed(&windows),
        parsed(&windows.replace(['\r', '\u{feff}'], ""))
    );
    assert!(refusal("\u{feff}x = 1\r\n").starts_with("er-dev.toml:1:1: "));
}

#[test]
fn an_error_of_a_file_names_it_as_the_user_does() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("c.toml");
    fs::write(&file, "\nx = 1").unwrap();
    let error = load(&file, &[]).unwrap_err().to_string();
    assert!(
        error.starts_with(&format!("{}:2:1: ", file.display())),
        "{error}"
    );
}

proptest! {
    // A stored failure would put a text into the tree that looks like a key id.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is broken in a file, and wherever a key id got into it, no error shows that id.
    #[test]
    fn no_error_shows_a_key_id(
        places in proptest::collection::vec((any::<proptest::sample::Index>(), prop_oneof![
            Just(key_id()),
            Just(format!("\n{} = 1\n", key_id())),
            Just(format!("\nx = \"{}\"\n", key_id())),
            Just(format!("\naccess_key_id = {}\n", key_id())),
            Just(format!("# {}", key_id())),
            "[\\PC\n\t\"'\\[\\]{}=.#]{0,6}".prop_map(String::from),
        ]), 1..5),
    ) {
        let (_, mut text) = example();
        let mut places: Vec<_> = places
            .into_iter()
            .map(|(at, piece)| (text.floor_char_boundary(at.index(text.len())), piece))
            .collect();
        // From the end, so that no piece falls into another one and cuts an id in two.
        places.sort();
        for (at, piece) in places.iter().rev() {
            text.insert_str(*at, piece);
        }
        if let Err(error) = parsed(&text) {
            assert!(!error.contains(&key_id()[4..]), "{error}");
        }
    }
}

#[test]
fn two_routines_that_say_the_same_have_the_same_build() {
    let routines = |first: &str, second: &str| {
        let one = |name, build| {
            format!("[[routine]]\nname = '{name}'\nentry = '{name}.js'\nbuild = {{ {build} }}\n")
        };
        parsed(&format!("{}{}", one("a", first), one("b", second)))
    };
    let same = "command = 'make', watch = ['src', '!src/a']";
    let config = routines(same, &format!("{same}, timeout = '1m'")).unwrap();
    let [made] = &config.builds()[..] else {
        panic!("they have different builds")
    };
    let (timeout, both) = (made.build.timeout, made.routines.len());
    assert_eq!((timeout, both), (Duration::from_secs(60), 2));
    // The last pattern that names a file decides, so their order counts.
    for other in [
        "command = 'make', watch = ['!src/a', 'src']",
        "command = 'make all', watch = ['src', '!src/a']",
    ] {
        assert_eq!(routines(same, other).unwrap().builds().len(), 2);
    }
    let late = "command = 'make', watch = ['a'], timeout = '2m'";
    let error = routines("command = 'make', watch = ['a']", late).unwrap_err();
    assert!(
        error.contains("8:9: the same build stands above with another `timeout`"),
        "{error}"
    );
}
