//! The variables of er-dev's own environment that a program gets which it starts. Pure.
//!
//! What may be passed is listed, and nothing else is: a list of what may not would miss the secret with a name that
//! nobody thought of.

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
}
