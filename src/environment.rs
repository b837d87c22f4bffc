//! The variables of er-dev's own environment that a program gets which it starts. Pure.
//!
//! What may be passed is listed, and nothing else is: a list of what may not would miss the secret with a name that
//! nobody thought of.

use std::path::Path;

/// What any program may need to find its files, to speak a language and to reach a network.
pub const COMMON: [&str; 17] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TZ",
    "TMPDIR",
    "XDG_CONFIG_HOME",
    "XDG_CACHE_HOME",
    "XDG_DATA_HOME",
    "XDG_RUNTIME_DIR",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
];

/// The variables of a program that prints a key: what of the common ones is set, but for the address of a proxy with a
/// user or a password in it, which that program could write down.
pub fn of_command(env: impl Fn(&str) -> Option<String>) -> Vec<(&'static str, String)> {
    let set = COMMON.iter().filter_map(|name| Some((*name, env(name)?)));
    set.filter(|(name, value)| !(name.ends_with("_PROXY") && value.contains('@')))
        .collect()
}

/// What a build may need besides: how it is to be made, and where its tools keep themselves.
const BUILDS: [&str; 22] = [
    "LC_COLLATE",
    "LC_MESSAGES",
    "LC_NUMERIC",
    "LC_TIME",
    "TERM",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "CI",
    "SOURCE_DATE_EPOCH",
    "NODE_ENV",
    "NODE_OPTIONS",
    "NODE_PATH",
    "NODE_EXTRA_CA_CERTS",
    "NVM_DIR",
    "VOLTA_HOME",
    "PNPM_HOME",
    "COREPACK_HOME",
    "CARGO_HOME",
    "RUSTUP_HOME",
    "GOPATH",
    "JAVA_HOME",
];

/// Where programs are looked for if the environment does not say.
const USUAL_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// The variables of a build in this directory, absolute: what of the lists is set, but for the address of a proxy with a
/// user or a password in it, and before everything else on `PATH` the programs of the project's own packages, its
/// parents' too, as npm has them.
pub fn of_build(dir: &Path, env: impl Fn(&str) -> Option<String>) -> Vec<(&'static str, String)> {
    let listed = COMMON.iter().chain(&BUILDS).copied();
    let mut variables: Vec<(&'static str, String)> = listed
        .filter(|name| *name != "PATH")
        .filter_map(|name| Some((name, env(name)?)))
        .filter(|(name, value)| !(name.to_lowercase().ends_with("_proxy") && value.contains('@')))
        .collect();
    let mut path = String::new();
    for parent in dir.ancestors() {
        // A directory with a colon in its name cannot be said there.
        if let Some(parent) = parent.to_str().filter(|parent| !parent.contains(':')) {
            path.push_str(&format!(
                "{}/node_modules/.bin:",
                parent.trim_end_matches('/')
            ));
        }
    }
    path.push_str(&env("PATH").unwrap_or_else(|| USUAL_PATH.into()));
    variables.push(("PATH", path));
    variables
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_listed_is_handed_on_and_no_proxy_with_a_password() {
        let set = [
            ("PATH", "/bin"),
            ("LANG", "C"),
            ("HTTPS_PROXY", "me:hunter2@proxy:3128"),
            ("HTTP_PROXY", "http://proxy:3128"),
            ("NO_PROXY", "localhost"),
            ("ALIBABA_CLOUD_ACCESS_KEY_SECRET", "hunter2"),
            ("CREDENTIALS_DIRECTORY", "/run/credentials"),
            ("SOME_TOKEN", "hunter2"),
        ];
        let env = |name: &str| {
            let found = set.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        let handed_on = of_command(env);
        let names: Vec<&str> = handed_on.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["PATH", "LANG", "HTTP_PROXY", "NO_PROXY"]);
        assert!(!format!("{handed_on:?}").contains("hunter2"));
    }

    #[test]
    fn a_build_gets_what_is_listed_and_nothing_that_could_be_a_secret() {
        let every = |name: &str| Some(format!("{name} is set"));
        let passed = of_build(Path::new("/"), every);
        assert_eq!(passed.len(), COMMON.len() + BUILDS.len());
        for (name, _) in passed {
            let odd = [
                "KEY",
                "SECRET",
                "TOKEN",
                "PASS",
                "AUTH",
                "ALIBABA",
                "ALICLOUD",
                "CREDENTIAL",
                "NOTIFY",
                "ER_DEV",
            ];
            assert!(!odd.iter().any(|odd| name.contains(odd)), "{name}");
        }
        assert_eq!(of_build(Path::new("/"), |_| None).len(), 1);
    }

    #[test]
    fn a_proxy_with_a_password_is_left_out() {
        for name in ["HTTP_PROXY", "https_proxy"] {
            let with = |value: &'static str| {
                let env = move |asked: &str| (asked == name).then(|| value.to_owned());
                of_build(Path::new("/"), env)
                    .iter()
                    .any(|(is, _)| *is == name)
            };
            assert!(with("http://proxy:3128"));
            assert!(!with("http://me:word@proxy:3128"));
            assert!(!with("me@proxy"));
        }
    }

    #[test]
    fn programs_of_the_projects_packages_come_first() {
        let path = |dir: &str, own: Option<&str>| {
            let env = |name: &str| own.filter(|_| name == "PATH").map(str::to_owned);
            of_build(Path::new(dir), env).pop().unwrap().1
        };
        assert_eq!(
            path("/a/b", Some("/opt:/bin")),
            "/a/b/node_modules/.bin:/a/node_modules/.bin:/node_modules/.bin:/opt:/bin"
        );
        assert_eq!(
            path("/a:b", None),
            format!("/node_modules/.bin:{USUAL_PATH}")
        );
    }
}
