//! Repositories made by hand, and made by git itself where it is there.

use std::process::Command;

use super::*;

const HASH: &str = "3f2a9c1b00112233445566778899aabbccddeeff";
const OTHER: &str = "0123456789abcdef0123456789abcdef01234567";

/// What `HEAD` holds, other files beside it, and what is said then.
type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str);

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// What is said of `src/hello.js`, in short.
fn said(top: &Path) -> String {
    let code = Code::new(b"// hello\n".to_vec());
    let long = Instant::now() + Duration::from_secs(60);
    let found = look(&top.join("src/hello.js"), &code, long);
    found.map_or_else(
        || "nothing".into(),
        |found| {
            let commit = found.commit.map(|it| it.to_string());
            format!("{} on {}", commit.unwrap_or_default(), found.branch)
        },
    )
}

/// A working tree with an entry, whose repository is made by hand.
fn tree(head: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("src/hello.js"), "// hello\n");
    write(&dir.path().join(".git/HEAD"), head);
    dir
}

#[test]
fn the_commit_is_the_one_that_head_leads_to_and_none_where_it_leads_nowhere() {
    let packed = format!(
        "# pack-refs with: peeled\n{OTHER} refs/heads/ma\n{HASH} refs/heads/main\n^{OTHER}\n"
    );
    #[rustfmt::skip]
    let cases: [Case<'_>; 14] = [
        ("ref: refs/heads/main\n", &[("refs/heads/main", HASH)], "3f2a9c1b+ on main"),
        ("ref: refs/heads/main\n", &[("packed-refs", &packed)], "3f2a9c1b+ on main"),
        ("ref: refs/heads/main", &[("packed-refs", &packed), ("refs/heads/main", OTHER)], "01234567+ on main"),
        ("ref: refs/heads/a/b", &[("refs/heads/a/b", HASH)], "3f2a9c1b+ on a/b"),
        ("ref: refs/heads/link", &[("refs/heads/link", "ref: refs/heads/main"), ("refs/heads/main", HASH)], "3f2a9c1b+ on link"),
        ("ref: refs/heads/a", &[("refs/heads/a", "ref: refs/heads/a")], " on a"),
        ("ref: refs/heads/new", &[], " on new"),
        ("ref: refs/heads/../../secret", &[("secret", HASH)], " on "),
        ("ref: refs/heads/main", &[("refs/heads/main", "not a hash")], " on main"),
        ("ref: refs/heads/main", &[("refs/heads/main", "\u{0}\u{ff}")], " on main"),
        ("ref: refs/heads/.invalid", &[("reftable/tables.list", "x")], " on "),
        (HASH, &[], "3f2a9c1b+ on "),
        ("", &[], " on "),
        ("ref: elsewhere", &[("elsewhere", HASH)], " on "),
    ];
    for (head, files, expected) in cases {
        let dir = tree(head);
        for (name, text) in files {
            write(&dir.path().join(".git").join(name), text);
        }
        assert_eq!(said(dir.path()), expected, "{head} {files:?}");
    }
    let bare = tempfile::tempdir().unwrap();
    write(&bare.path().join("src/hello.js"), "// hello\n");
    assert_eq!(said(bare.path()), "nothing");
    write(&bare.path().join(".git"), "neither a directory nor a name");
    assert_eq!(said(bare.path()), "nothing");
    assert_eq!(said(&bare.path().join("gone")), "nothing");
}

#[test]
fn a_further_working_tree_and_a_submodule_have_a_head_of_their_own() {
    let dir = tree(OTHER);
    let git = dir.path().join(".git");
    write(&git.join("refs/heads/topic"), HASH);
    let own = git.join("worktrees/second");
    write(&own.join("HEAD"), "ref: refs/heads/topic\n");
    write(&own.join("commondir"), "../..\n");
    let second = tempfile::tempdir().unwrap();
    write(&second.path().join("src/hello.js"), "// hello\n");
    write(
        &second.path().join(".git"),
        &format!("gitdir: {}\n", own.display()),
    );
    assert_eq!(said(second.path()), "3f2a9c1b+ on topic");

    let module = git.join("modules/lib");
    write(&module.join("HEAD"), HASH);
    write(&dir.path().join("lib/src/hello.js"), "// hello\n");
    write(
        &dir.path().join("lib/.git"),
        "gitdir: ../.git/modules/lib\n",
    );
    assert_eq!(said(&dir.path().join("lib")), "3f2a9c1b+ on ");
}

/// Runs git where it is there; says that it is skipped where not.
fn git(dir: &Path, arguments: &[&str]) -> bool {
    let mut command = Command::new("git");
    command.args(["-c", "user.name=t", "-c", "user.email=t@example.com"]);
    command.args([
        "-c",
        "commit.gpgsign=false",
        "-c",
        "protocol.file.allow=always",
    ]);
    command.args(arguments).current_dir(dir);
    command.env("GIT_CONFIG_GLOBAL", "/dev/null");
    command.env("GIT_CONFIG_SYSTEM", "/dev/null");
    match command.output() {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "git {arguments:?}: {said}");
            true
        }
        Err(_) => {
            use std::io::Write as _;
            let _ = writeln!(std::io::stderr(), "SKIPPED: there is no git here");
            false
        }
    }
}

/// A repository with a commit of the entry and of some more.
fn committed(init: &[&str]) -> Option<tempfile::TempDir> {
    let dir = tempfile::tempdir().unwrap();
    let top = dir.path();
    if !git(top, &[&["init", "-q", "-b", "main"], init].concat()) {
        return None;
    }
    write(&top.join("src/hello.js"), "// hello\n");
    write(&top.join("src/other.js"), "// other\n");
    write(&top.join("README"), "read me\n");
    git(top, &["add", "."]);
    git(top, &["commit", "-q", "-m", "first"]);
    Some(dir)
}

/// What is behind the digits.
fn sign(top: &Path) -> String {
    let said = said(top);
    let (commit, branch) = said.split_once(" on ").unwrap();
    assert_eq!((branch, commit.len() > 7), ("main", true), "{said}");
    commit[8..].to_owned()
}

#[test]
fn the_sign_behind_a_commit_tells_whether_it_holds_the_bytes() {
    for init in [&[][..], &["--object-format=sha256"]] {
        let Some(dir) = committed(init) else {
            return;
        };
        let top = dir.path();
        for version in ["2", "4"] {
            git(top, &["update-index", "--index-version", version]);
            assert_eq!(sign(top), "", "index {version} {init:?}");
        }
        // What other files hold is no business of the entry.
        write(&top.join("src/other.js"), "// changed\n");
        write(&top.join("new.js"), "// new\n");
        assert_eq!(sign(top), "");
        // What git has of the entry is something else than what goes up.
        write(&top.join("src/hello.js"), "// staged\n");
        git(top, &["commit", "-q", "-m", "second", "src/hello.js"]);
        assert_eq!(sign(top), "+");
        // The index has it, and no commit.
        write(&top.join("src/hello.js"), "// hello\n");
        git(top, &["add", "src/hello.js"]);
        assert_eq!(sign(top), "+");
        git(top, &["commit", "-q", "-m", "third", "src/hello.js"]);
        assert_eq!(sign(top), "");
        git(top, &["add", "new.js"]);
        assert_eq!(sign(top), "", "what waits in another directory");
        git(top, &["gc", "-q"]);
        assert_eq!(sign(top), "", "packed references");
        git(top, &["rm", "-q", "--cached", "src/hello.js"]);
        assert_eq!(sign(top), "+", "git does not have it any more");
        git(top, &["reset", "-q", "--hard"]);
        assert_eq!(sign(top), "");
        fs::write(top.join(".git/index"), b"DIRC").unwrap();
        assert_eq!(sign(top), "?");
    }
}

#[test]
fn of_an_entry_that_git_ignores_all_other_files_are_asked() {
    let Some(dir) = committed(&[]) else {
        return;
    };
    let top = dir.path();
    git(top, &["rm", "-q", "--cached", "src/hello.js"]);
    git(top, &["commit", "-q", "-m", "not this one"]);
    assert_eq!(sign(top), "+", "it is neither had nor ignored");
    write(&top.join("src/.gitignore"), "hello.*\n");
    git(top, &["add", "."]);
    assert_eq!(sign(top), "+", "something waits");
    git(top, &["commit", "-q", "-m", "ignored"]);
    assert_eq!(sign(top), "");
    // Written anew with the same bytes is not changed.
    write(&top.join("README"), "read me\n");
    assert_eq!(sign(top), "");
    write(&top.join("README"), "read it\n");
    assert_eq!(sign(top), "+");
    git(top, &["checkout", "-q", "README"]);
    assert_eq!(sign(top), "");
    let code = Code::new(b"// hello\n".to_vec());
    let late = look(&top.join("src/hello.js"), &code, Instant::now()).unwrap();
    assert_eq!(late.commit.unwrap().holds, Holds::Unknown);
    fs::remove_file(top.join("src/other.js")).unwrap();
    assert_eq!(sign(top), "+");
}

#[test]
fn working_trees_submodules_and_links_of_git_itself_are_read() {
    let (Some(dir), Some(outer)) = (committed(&[]), committed(&[])) else {
        return;
    };
    let second = outer.path().join("second");
    git(
        dir.path(),
        &[
            "worktree",
            "add",
            "-q",
            "-b",
            "topic",
            second.to_str().unwrap(),
        ],
    );
    let said_there = said(&second);
    assert!(
        said_there.ends_with(" on topic") && !said_there.contains('+'),
        "{said_there}"
    );
    let url = dir.path().to_str().unwrap();
    git(
        outer.path(),
        &["submodule", "--quiet", "add", url, "module"],
    );
    assert_eq!(sign(&outer.path().join("module")), "");
    let linked = outer.path().join("linked");
    std::os::unix::fs::symlink(dir.path(), &linked).unwrap();
    assert_eq!(sign(&linked), "");
}

#[tokio::test(start_paused = true)]
async fn a_file_system_that_does_not_answer_costs_one_wait_and_no_more() {
    let dir = tree(HASH);
    let (git, entry) = (Git::default(), dir.path().join("src/hello.js"));
    let code = Code::new(b"x".to_vec());
    assert!(git.ask(&entry, &code).await.commit.is_some());
    // An earlier question is still on its way.
    git.busy.store(true, Ordering::Release);
    assert_eq!(git.ask(&entry, &code).await, Found::default());
}
