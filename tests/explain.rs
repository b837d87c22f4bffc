//! What `er-dev explain` says of a path, in a project as developers have them.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::common::{Ended, finish, has, say};
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;

const CONFIG: &str = "\
[watch]
ignore = [
  \"*.tmp\", # what the build leaves
  \"!keep.log\",
]

[[routine]]
name = \"hello\"
entry = \"src/hello.js\"

[[routine]]
name = \"linked\"
entry = \"src/linked.js\"

[[routine]]
name = \"broken\"
entry = \"edge/broken.js\"
";

/// A repository with three routines in two roots. No key, no service and no state directory are near.
struct Project(TempDir);

impl Project {
    fn new() -> Self {
        let project = Self(TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap());
        let files = [
            ("er-dev.toml", CONFIG),
            (".git/HEAD", "ref: refs/heads/main\n"),
            (".gitignore", "*.log\n/src/built\n"),
            ("src/.gitignore", "# maps\n*.map\nhello.js\n!keep.map\n"),
            ("src/.erignore", "local.*\n!keep.bak\n"),
            ("src/sub/.gitignore", "gen.js\n"),
            ("src/hello.js", "export default {};\n"),
            ("src/lib.js", "export const one = 1;\n"),
            ("src/dist/out.js", "export default {};\n"),
            ("edge/broken.js", "let a = ;\n"),
        ];
        for (file, text) in files {
            project.write(file, text);
        }
        symlink("dist/out.js", project.path("src/linked.js")).unwrap();
        project
    }

    fn path(&self, relative: &str) -> PathBuf {
        self.0.path().join(relative)
    }

    fn write(&self, file: &str, text: &str) {
        let path = self.path(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// The command in a directory of the project, with nothing of this process's environment.
    fn command(&self, directory: &str, arguments: &[impl AsRef<OsStr>]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_er-dev"));
        command
            .arg("explain")
            .args(arguments)
            .current_dir(self.path(directory))
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    async fn run(&self, arguments: &[&str]) -> Ended {
        finish(self.command("", arguments)).await
    }

    /// The text for one path.
    async fn text(&self, path: &str) -> String {
        let ended = self.run(&[path]).await;
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
        ended.stdout
    }

    /// The objects for these paths, in their order.
    async fn objects(&self, paths: &[&str]) -> Vec<Value> {
        let ended = self.run(&[&["--json"], paths].concat()).await;
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
        let objects = ended.events();
        assert_eq!(objects.len(), paths.len());
        for (object, path) in objects.iter().zip(paths) {
            assert_eq!(
                (&object["v"], &object["path"]),
                (&1.into(), &(*path).into())
            );
        }
        objects
    }

    async fn object(&self, path: &str) -> Value {
        self.objects(&[path]).await.remove(0)
    }
}

/// What decided about a path: the verdict, and the rule as `pattern file:line`, the file seen from the project.
fn decided(project: &Project, object: &Value) -> String {
    let verdict = object["verdict"].as_str().unwrap();
    let rule = &object["rule"];
    if rule.is_null() {
        return verdict.into();
    }
    let pattern = rule["pattern"].as_str().unwrap();
    match rule["file"].as_str() {
        None => format!("{verdict} {pattern} {}", rule["origin"].as_str().unwrap()),
        Some(file) => {
            let top = project.0.path().canonicalize().unwrap();
            let file = Path::new(file).strip_prefix(top).unwrap().display();
            format!("{verdict} {pattern} {file}:{}", rule["line"])
        }
    }
}

#[tokio::test]
async fn every_path_is_told_with_the_rule_that_decides_and_where_it_stands() {
    let project = Project::new();
    let table = [
        ("src/linked.js", "entry"),
        ("src/hello.js", "entry hello.js src/.gitignore:3"),
        ("src/dist/out.js", "target"),
        ("src/a.map", "ignored *.map src/.gitignore:2"),
        ("src/keep.map", "other !keep.map src/.gitignore:4"),
        ("src/local.js", "ignored local.* src/.erignore:1"),
        ("src/keep.bak", "other !keep.bak src/.erignore:2"),
        ("src/sub/gen.js", "ignored gen.js src/sub/.gitignore:1"),
        ("src/gen.js", "other"),
        ("src/x.log", "ignored *.log .gitignore:1"),
        ("src/built/a/b.js", "ignored /src/built .gitignore:2"),
        ("edge/built", "other"),
        ("edge/x.tmp", "ignored *.tmp er-dev.toml:3"),
        ("src/keep.log", "other !keep.log er-dev.toml:4"),
        ("src/node_modules/x/y.js", "ignored node_modules built-in"),
        ("edge/.broken.js.swp", "ignored .*.sw? built-in"),
        ("src/lib.js", "other"),
        ("src", "other"),
        ("README.md", "other"),
        ("x.log", "other"),
    ];
    let objects = project.objects(&table.map(|(path, _)| path)).await;
    for ((path, expected), object) in table.iter().zip(&objects) {
        assert_eq!(decided(&project, object), *expected, "{path}");
        assert!(!object["reason"].as_str().unwrap().is_empty());
    }
}

#[tokio::test]
async fn an_entry_is_told_with_its_place_in_the_configuration_and_whether_it_could_go_up() {
    let project = Project::new();
    let text = "src/hello.js
       Entry  of hello (er-dev.toml:9), whatever `hello.js` in src/.gitignore:3 says
       Ready  19 B, could go up now
     Belongs  to hello, linked
     Backend  inotify
";
    assert_eq!(project.text("src/hello.js").await, text);
    let text = "edge/broken.js
       Entry  of broken (er-dev.toml:17)
     Refused  edge/broken.js:1:9 unexpected token
              = help: correct it and save, or set `check = false` to let the service decide
     Belongs  to broken
     Backend  inotify
";
    assert_eq!(project.text("edge/broken.js").await, text);
    let entry = &project.object("edge/broken.js").await["entries"][0];
    assert_eq!(
        (&entry["routine"], &entry["line"]),
        (&"broken".into(), &17.into())
    );
    assert_eq!(entry["ready"], false);
    assert_eq!(entry["problem"]["class"], "source");
    std::fs::remove_file(project.path("edge/broken.js")).unwrap();
    let text = project.text("edge/broken.js").await;
    assert!(
        text.starts_with("edge/broken.js (does not exist)\n       Entry  of broken"),
        "{text}"
    );
    assert!(text.contains("= help: create the file"), "{text}");
}

#[tokio::test]
async fn an_entry_of_two_routines_is_told_for_both_as_each_checks_it() {
    let project = Project::new();
    let more = "[[routine]]\nname = \"second\"\nentry = \"edge/broken.js\"\ncheck = false\n";
    project.write("er-dev.toml", &format!("{CONFIG}\n{more}"));
    let text = "edge/broken.js
       Entry  of broken (er-dev.toml:17) and of second (er-dev.toml:21)
     Refused  broken: edge/broken.js:1:9 unexpected token
              = help: correct it and save, or set `check = false` to let the service decide
       Ready  second: 10 B, could go up now
     Belongs  to broken, second
     Backend  inotify
";
    assert_eq!(project.text("edge/broken.js").await, text);
}

#[tokio::test]
async fn a_link_is_told_with_where_it_leads_and_what_it_leads_to_is_told_with_the_link() {
    let project = Project::new();
    let text = "src/linked.js (a symbolic link)
       Entry  of linked (er-dev.toml:13)
       Leads  to src/dist/out.js, a file
       Ready  19 B, could go up now
     Belongs  to hello, linked
     Backend  inotify
";
    assert_eq!(project.text("src/linked.js").await, text);
    let object = project.object("src/dist/out.js").await;
    assert_eq!(object["target_of"], serde_json::json!(["linked"]));
    // Rules cannot switch off what an entry leads to.
    project.write("src/dist/.gitignore", "*\n");
    let text = project.text("src/dist/out.js").await;
    assert!(
        text.contains("      Target  of linked: the entry leads here"),
        "{text}"
    );

    std::fs::remove_file(project.path("src/linked.js")).unwrap();
    symlink("../../outside.js", project.path("src/linked.js")).unwrap();
    let text = project.text("src/linked.js").await;
    assert!(
        text.contains("outside.js, which leads nowhere\n     Refused  "),
        "{text}"
    );
    std::fs::remove_file(project.path("src/linked.js")).unwrap();
    symlink("../edge/broken.js", project.path("src/linked.js")).unwrap();
    let text = project.text("src/linked.js").await;
    assert!(
        text.contains("to edge/broken.js, a file\n     Refused  "),
        "{text}"
    );
    assert!(text.contains("leads out of its root"), "{text}");
}

#[tokio::test]
async fn what_starts_nothing_is_told_with_the_reason() {
    let project = Project::new();
    let table = [
        (
            "src/lib.js",
            "src/lib.js\n       Other  nothing happens when it changes, because it is no entry and no rule names it\n     Belongs  to hello, linked\n     Backend  inotify\n",
        ),
        (
            "src/new/a.js",
            "src/new/a.js (does not exist)\n       Other  nothing happens when it changes, because it is no entry and no rule names it\n     Belongs  to hello, linked\n     Backend  not watched\n",
        ),
        (
            "src/keep.map",
            "src/keep.map (does not exist)\n       Other  nothing happens when it changes, because it is no entry; `!keep.map` in src/.gitignore:4 keeps it from being ignored\n     Belongs  to hello, linked\n     Backend  inotify\n",
        ),
        (
            "src/built/a.js",
            "src/built/a.js (does not exist)\n     Ignored  by `/src/built` in .gitignore:2 for its directory src/built\n     Belongs  to hello, linked\n     Backend  not watched\n",
        ),
        (
            "edge",
            "edge (a directory)\n       Other  a directory never goes up; the entries in it do: broken\n     Belongs  to broken\n     Backend  inotify\n",
        ),
        (
            "README.md",
            "README.md (does not exist)\n       Other  nothing happens when it changes, because it lies in no routine's directory\n     Belongs  to no routine\n     Backend  inotify\n",
        ),
        (
            "/",
            "/ (a directory)\n       Other  a directory never goes up; the entries in it do: hello, linked, broken\n     Belongs  to no routine\n     Backend  not watched\n",
        ),
    ];
    for (path, text) in table {
        assert_eq!(project.text(path).await, text);
    }
    project.write(".gitignore", "/edge/\n");
    let text = project.text("edge").await;
    assert!(
        text.contains(
            "by `/edge/` in .gitignore:1; the entries in it count nevertheless: broken\n"
        ),
        "{text}"
    );
}

#[tokio::test]
async fn paths_are_taken_from_the_working_directory_and_may_go_up() {
    let project = Project::new();
    let arguments = ["../src/./hello.js", "../edge/broken.js", ".", "../src/"];
    let ended = finish(project.command("src/dist", &arguments)).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    // From `src/dist` these are other paths.
    assert!(
        ended
            .stdout
            .starts_with("../src/./hello.js (does not exist)\n"),
        "{}",
        ended.stdout
    );
    let arguments = ["../hello.js", "../../edge/broken.js"];
    let ended = finish(project.command("src/dist", &arguments)).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let blocks: Vec<&str> = ended.stdout.split("\n\n").collect();
    assert_eq!(blocks.len(), 2);
    assert!(
        blocks[0].starts_with("../hello.js\n       Entry  of hello ("),
        "{}",
        blocks[0]
    );
    assert!(blocks[1].starts_with("../../edge/broken.js\n       Entry  of broken ("));
    let absolute = project.path("src/hello.js");
    let object = project.object(absolute.to_str().unwrap()).await;
    assert_eq!(object["verdict"], "entry");
}

#[tokio::test]
async fn a_name_that_is_no_text_is_told_escaped() {
    let project = Project::new();
    let name = OsStr::from_bytes(b"src/\xff\x1b[2J\xe2\x80\xae.map");
    for format in ["text", "json"] {
        let mut command = project.command("", &[name]);
        command.env("ER_DEV_FORMAT", format);
        let ended = finish(command).await;
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        let raw = ended
            .stdout
            .chars()
            .any(|c| c == '\u{1b}' || c == '\u{202e}');
        assert!(!raw, "{:?}", ended.stdout);
        assert!(ended.stdout.contains("*.map"), "{}", ended.stdout);
    }
}

#[tokio::test]
async fn rules_above_the_root_count_only_within_a_repository() {
    let project = Project::new();
    std::fs::remove_dir_all(project.path(".git")).unwrap();
    // The project may itself lie in one, that of er-dev: then that one's rules hold, too.
    let repositories = project.0.path().ancestors().skip(1);
    if repositories.into_iter().any(|up| up.join(".git").exists()) {
        say("the tests are built within a repository, which is the project's then");
        std::fs::create_dir(project.path("src/.git")).unwrap();
    }
    let object = project.object("src/x.log").await;
    assert_eq!(decided(&project, &object), "other");
    let object = project.object("src/sub/gen.js").await;
    assert_eq!(
        decided(&project, &object),
        "ignored gen.js src/sub/.gitignore:1"
    );
}

#[tokio::test]
async fn an_ignore_file_counts_as_far_as_it_is_text_and_not_at_all_where_a_link_is_in_its_place() {
    let project = Project::new();
    std::fs::write(project.path("src/.erignore"), b"\xff\nlocal.*\n").unwrap();
    std::fs::remove_file(project.path("src/.gitignore")).unwrap();
    symlink("../rules", project.path("src/.gitignore")).unwrap();
    project.write("rules", "*\n");
    let object = project.object("src/local.js").await;
    assert_eq!(
        decided(&project, &object),
        "ignored local.* src/.erignore:2"
    );
    let object = project.object("src/lib.js").await;
    assert_eq!(decided(&project, &object), "other");
}

#[tokio::test]
async fn rules_decide_as_git_says_they_do() {
    if !has("git") {
        return say("SKIPPED: git is missing");
    }
    let project = Project::new();
    std::fs::remove_dir_all(project.path(".git")).unwrap();
    std::fs::remove_file(project.path("src/.erignore")).unwrap();
    project.write(
        "er-dev.toml",
        "[[routine]]\nname = \"a\"\nentry = \"src/in/index.js\"\n",
    );
    project.write(
        ".gitignore",
        "\u{feff}*.log\r\n/src/in/top.js\nin/deep/*/x\nout\n\\!odd\n\\#odd\nspace \\ \nend   \n",
    );
    project.write(
        "src/.gitignore",
        "!a.log\n/*.js\nbuild/\n!build/keep.js\nfoo/**\n**/bar\nq?x\n[ab]c\n[z-a\n",
    );
    project.write(
        "src/in/.gitignore",
        "/*\n!/in\n!/deep/\n*.map\n*.map\n!keep.map\n",
    );
    project.write("src/in/deep/.gitignore", "!out\n*.js\n!b.log\n");
    project.write("src/in/deep/foo/.gitignore", "!*\n");
    let directories = [
        "",
        "in/",
        "deep/",
        "deep/sub/",
        "deep/foo/",
        "deep/out/",
        "deep/build/",
        "out/",
        "deep/a/b/",
    ];
    let names = [
        "a.log",
        "b.log",
        "c.log",
        "top.js",
        "x",
        "out",
        "!odd",
        "#odd",
        "space  ",
        "space ",
        "end",
        "end   ",
        "keep.js",
        "foo",
        "bar",
        "qax",
        "ac",
        "[z-a",
        "in",
        "deep",
        "a.map",
        "keep.map",
        "build",
        "build/",
        "index.mjs",
    ];
    let paths: Vec<String> = directories
        .iter()
        .flat_map(|directory| names.map(|name| format!("src/in/{directory}{name}")))
        .collect();
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    project.write("paths", &paths.join("\0"));
    let git = |arguments: &[&str]| {
        let output = std::process::Command::new("git")
            .args(arguments)
            .current_dir(project.0.path())
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .stdin(std::fs::File::open(project.path("paths")).unwrap())
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    git(&["init", "-q"]);
    let said = git(&["check-ignore", "-v", "-n", "-z", "--no-index", "--stdin"]);
    // Source, line, pattern and path, each ended by a zero.
    let said: Vec<&str> = said.split_terminator('\0').collect();
    let said: Vec<&[&str]> = said.chunks(4).collect();
    assert_eq!(said.len(), paths.len());
    let mut ignored = 0;
    for (object, git) in project.objects(&paths).await.iter().zip(said) {
        let [source, line, pattern, path] = git else {
            panic!("{git:?}");
        };
        let verdict = match *pattern {
            "" => "other".into(),
            kept if kept.starts_with('!') => format!("other {pattern} {source}:{line}"),
            _ => format!("ignored {pattern} {source}:{line}"),
        };
        let mut ours = decided(&project, object);
        // Git does not name a rule that keeps only the directory.
        if object["verdict"] == "other" && object["rule"]["matches"] != object["absolute"] {
            ours = "other".into();
        }
        assert_eq!(ours, verdict, "{path}");
        ignored += usize::from(object["verdict"] == "ignored");
    }
    assert!(
        (50..paths.len() - 50).contains(&ignored),
        "{ignored} of {}",
        paths.len()
    );
}

#[tokio::test]
async fn wrong_use_is_2_and_a_broken_configuration_78() {
    let project = Project::new();
    let ended = project.run(&[]).await;
    assert_eq!(ended.code, Some(2));
    assert!(ended.stderr.contains("<PATH>..."), "{}", ended.stderr);
    project.write("er-dev.toml", "[watch]\nignore = [\"a\", \"{a\"]\n");
    let ended = project.run(&["src/hello.js"]).await;
    assert_eq!(ended.code, Some(78));
    assert!(
        ended.stderr.contains("er-dev.toml:2:16"),
        "{}",
        ended.stderr
    );
}

#[tokio::test]
async fn nothing_is_left_behind() {
    let project = Project::new();
    project.run(&["src/hello.js"]).await;
    let mut command = project.command("", &["src/hello.js"]);
    command.env("ER_DEV_STATE_DIR", project.path("state"));
    command.env("ER_DEV_JSON", "true");
    let ended = finish(command).await;
    assert_eq!(ended.events()[0]["verdict"], "entry");
    let mut names: Vec<_> = std::fs::read_dir(project.0.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, [".git", ".gitignore", "edge", "er-dev.toml", "src"]);
}
