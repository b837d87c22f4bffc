//! What the programs that er-dev starts get of its environment: what finding programs, logging in and reading text takes,
//! and nothing that could hold a secret. What is not listed is not handed on, so that a key in a variable that nobody
//! has thought of stays here.

/// The variables that are handed on, if they are set.
const HANDED_ON: [&str; 14] = [
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
];

/// Those that name proxies. Tools read them in either case.
const PROXIES: [&str; 8] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "ALL_PROXY",
    "all_proxy",
    "NO_PROXY",
    "no_proxy",
];

/// The environment of a program that is started, from this process's own. A proxy with a user and a password is left
/// out: that program may write down what it gets.
pub fn of_child(env: &dyn Fn(&str) -> Option<String>) -> Vec<(&'static str, String)> {
    let plain = HANDED_ON
        .iter()
        .filter_map(|name| Some((*name, env(name)?)));
    let proxies = PROXIES
        .iter()
        .filter_map(|name| Some((*name, env(name).filter(|value| !value.contains('@'))?)));
    plain.chain(proxies).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_listed_is_handed_on_and_no_proxy_with_a_password() {
        let set = [
            ("PATH", "/bin"),
            ("LANG", "C"),
            ("HTTPS_PROXY", "http://me:hunter2@proxy:3128"),
            ("https_proxy", "me:hunter2@proxy:3128"),
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
        let handed_on = of_child(&env);
        let names: Vec<&str> = handed_on.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["PATH", "LANG", "HTTP_PROXY", "NO_PROXY"]);
        assert!(!format!("{handed_on:?}").contains("hunter2"));
    }
}
