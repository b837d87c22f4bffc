//! The command line: argv becomes a [`Cli`]. Nothing is read or checked here beyond its form.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::parser::ValueSource;
use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use crate::emulator::fault::Fault;
use crate::emulator::switches::SwitchError;
use crate::emulator::world::Settings;
use crate::report::class::Class;
use crate::report::{ColourChoice, Format};
use crate::routine::RoutineName;

/// Keeps Alibaba Cloud EdgeRoutine code in step with the files on your disk.
#[derive(Debug, Parser)]
#[command(
    name = "er-dev",
    version,
    max_term_width = 100,
    propagate_version = true
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// What holds for every command.
    #[command(flatten)]
    pub common: Common,
}

/// What holds for every command.
#[derive(Debug, Args)]
pub struct Common {
    /// The configuration; by default er-dev.toml in this directory or one of its parents.
    #[arg(long, global = true, value_name = "FILE", env = "ER_DEV_CONFIG")]
    pub config: Option<PathBuf>,
    /// Where er-dev keeps its locks and what rotation deleted.
    #[arg(long, global = true, value_name = "DIR", env = "ER_DEV_STATE_DIR")]
    pub state_dir: Option<PathBuf>,
    /// Accept this host as an endpoint, although it is none of the service's.
    #[arg(
        long,
        global = true,
        value_name = "HOST",
        env = "ER_DEV_ALLOW_ENDPOINT",
        value_delimiter = ','
    )]
    pub allow_endpoint: Vec<String>,
    /// Certificate authorities to trust besides the system's, in PEM form; for a network that opens secure connections.
    #[arg(long, global = true, value_name = "FILE", env = "ER_DEV_CA_FILE")]
    pub ca_file: Option<PathBuf>,
    /// How events are written to standard output.
    #[arg(long, global = true, value_enum, default_value_t = Format::Text, env = "ER_DEV_FORMAT")]
    pub format: Format,
    /// Whether text is coloured.
    #[arg(long, global = true, value_enum, default_value_t = ColourChoice::Auto, value_name = "WHEN", env = "ER_DEV_COLOR")]
    pub color: ColourChoice,
    /// What is logged to standard error, as in "debug" or "er_dev::watch=trace".
    #[arg(
        long,
        global = true,
        value_name = "FILTER",
        default_value = "warn",
        env = "ER_DEV_LOG"
    )]
    pub log: String,
    /// How long a step of another er-dev on the same routine is waited for.
    #[arg(long, global = true, value_name = "TIME", default_value = "30s", env = "ER_DEV_LOCK_WAIT", value_parser = humantime::parse_duration)]
    pub lock_wait: Duration,
    /// How long an answer of the API is waited for.
    #[arg(long, global = true, hide = true, value_name = "TIME", default_value = "10s", env = "ER_DEV_API_TIMEOUT", value_parser = humantime::parse_duration)]
    pub api_timeout: Duration,
    /// How long an answer of object storage is waited for, besides a time that grows with the code.
    #[arg(long, global = true, hide = true, value_name = "TIME", default_value = "30s", env = "ER_DEV_POST_TIMEOUT", value_parser = humantime::parse_duration)]
    pub post_timeout: Duration,
    /// How long after its time-out a request could still be carried out.
    #[arg(long, global = true, hide = true, value_name = "TIME", default_value = "10s", env = "ER_DEV_SETTLE_MARGIN", value_parser = humantime::parse_duration)]
    pub settle_margin: Duration,
    /// Where the journal takes entries.
    #[arg(
        long,
        global = true,
        hide = true,
        value_name = "SOCKET",
        default_value = "/run/systemd/journal/socket",
        env = "ER_DEV_JOURNAL_SOCKET"
    )]
    pub journal_socket: PathBuf,
    /// The same flags as they were given, by [`Cli::read`] only.
    #[arg(skip)]
    pub given: Vec<Given>,
}

/// A flag that holds for every command, and where its value is from.
#[derive(Debug, Clone)]
pub struct Given {
    /// Its name, without dashes.
    pub flag: String,
    /// The variable of the environment that stands for it.
    pub variable: String,
    /// Its value; empty where there is none.
    pub value: String,
    /// Where that is from.
    pub origin: Origin,
}

/// Where the value of a flag is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// The command line.
    Flag,
    /// The environment.
    Environment,
    /// Neither.
    Default,
}

impl Cli {
    /// Reads the command line of this process.
    ///
    /// # Errors
    ///
    /// It is wrong, or asks for help; [`refusal`] tells which.
    pub fn read() -> Result<Self, clap::Error> {
        let matches = Self::command().try_get_matches()?;
        let mut cli = Self::from_arg_matches(&matches)?;
        cli.common.given = given(&matches);
        Ok(cli)
    }
}

/// The flags that hold for every command, without those that nobody has to know unless they were given.
fn given(matches: &ArgMatches) -> Vec<Given> {
    let command = Cli::command();
    let one = |arg: &clap::Arg| {
        let origin = match matches.value_source(arg.get_id().as_str()) {
            Some(ValueSource::CommandLine) => Origin::Flag,
            Some(ValueSource::EnvVariable) => Origin::Environment,
            _ => Origin::Default,
        };
        if arg.is_hide_set() && origin == Origin::Default {
            return None;
        }
        let values = matches.get_raw(arg.get_id().as_str()).into_iter().flatten();
        let values: Vec<_> = values.map(|value| value.to_string_lossy()).collect();
        Some(Given {
            flag: arg.get_long()?.to_owned(),
            variable: arg.get_env()?.to_string_lossy().into_owned(),
            value: values.join(","),
            origin,
        })
    };
    command.get_arguments().filter_map(one).collect()
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Watch the files and upload each settled edit as a new version.
    Watch(Watch),
    /// Upload what differs, once.
    Push(Push),
    /// List the versions of a routine: what is live, why each one stays, and which goes next.
    Revisions(Revisions),
    /// Say how every running watch stands: state, pending edits, last success, slots, budget.
    Status(Status),
    /// Wait until every edit made before this call is on the service.
    Sync(Sync),
    /// Say what a path is to er-dev, and why: an entry, ignored by which rule, or nothing.
    ///
    /// For each path: whether a change of it makes a routine upload, and if not, which rule of which line ignores it; the
    /// routines it belongs to; how it is watched; and of an entry whether it could go up as it is now. The paths need not
    /// exist. Nothing is uploaded, and neither a key nor the network is needed.
    Explain(Explain),
    /// Put a version live in an environment.
    Publish(Publish),
    /// Make a version of what is on staging.
    ///
    /// It has to be what this er-dev uploaded there, which is read back first. Where a version holds the same bytes
    /// already, no other one is made.
    Commit(Commit),
    /// Put the version live that was live before.
    Rollback(Rollback),
    /// Rotate now: delete the oldest versions that may go, their code saved first.
    Prune(Prune),
    /// Keep a version out of rotation.
    Pin(Pin),
    /// Let rotation take a pinned version again.
    Unpin(Pin),
    /// Upload a version again that rotation deleted.
    Restore(Restore),
    /// Compare a routine's file with a version: exit 0 if they are the same, 1 if not, 2 and more if that cannot be told.
    Diff(Diff),
    /// List what er-dev keeps on this machine, or remove it.
    Purge(Purge),
    /// Run a stand-in for the service on this machine.
    Emulator(Emulator),
    /// Look at the configuration.
    #[command(subcommand)]
    Config(Config),
    /// Write a commented er-dev.toml for what lies in this directory, and a first routine where there is none.
    ///
    /// Entries are JavaScript files that register a handler of requests, and what the build script of package.json
    /// writes, if that can be told. Nothing is overwritten, and nothing is asked of the service.
    Init(Init),
    /// Write what a shell needs to complete commands, flags, and names of routines and environments.
    ///
    /// bash: `er-dev completions bash >~/.local/share/bash-completion/completions/er-dev`; zsh: write it as `_er-dev` into
    /// a directory of `fpath`; fish: `er-dev completions fish >~/.config/fish/completions/er-dev.fish`.
    Completions(Completions),
    /// Write the manual page of er-dev, or of one of its commands, as in `er-dev man watch | man -l -`.
    Man(Man),
    /// Write names that stand in the configuration, for completions.
    #[command(name = "__names", hide = true)]
    Names(Names),
    /// Say what is right and what is not: configuration, key, service, permissions, routines, this machine.
    Doctor(Doctor),
}

/// `er-dev watch`
#[derive(Debug, Args)]
pub struct Watch {
    /// Start an emulator and work on that: no account, no network, a state directory for this run only.
    #[arg(long, env = "ER_DEV_EMULATOR")]
    pub emulator: bool,
    /// Bring every routine up to date, then exit.
    #[arg(long, env = "ER_DEV_ONCE")]
    pub once: bool,
    /// Only this routine; may be given several times.
    #[arg(long = "routine", value_name = "NAME", env = "ER_DEV_ROUTINE", value_delimiter = ',', value_parser = routine_name)]
    pub routines: Vec<RoutineName>,
    /// Say what would be uploaded and deleted, and do neither.
    #[arg(long, env = "ER_DEV_DRY_RUN")]
    pub dry_run: bool,
    /// Let code go up in which a key stands.
    #[arg(long, env = "ER_DEV_ALLOW_SECRETS")]
    pub allow_secrets: bool,
}

/// `er-dev push`
#[derive(Debug, Args)]
pub struct Push {
    /// The routines; all by default.
    #[arg(value_name = "NAME", value_parser = routine_name)]
    pub routines: Vec<RoutineName>,
    /// Make a new version even of bytes that are there already.
    #[arg(long)]
    pub force: bool,
    /// How long to go on trying.
    #[arg(long, value_name = "TIME", default_value = "60s", env = "ER_DEV_TIMEOUT", value_parser = humantime::parse_duration)]
    pub timeout: Duration,
    /// Let code go up in which a key stands.
    #[arg(long, env = "ER_DEV_ALLOW_SECRETS")]
    pub allow_secrets: bool,
}

/// `er-dev revisions`
#[derive(Debug, Args)]
pub struct Revisions {
    /// The routine; all by default.
    #[arg(value_name = "NAME", value_parser = routine_name)]
    pub routine: Option<RoutineName>,
    /// Write one JSON object a routine.
    #[arg(long, env = "ER_DEV_JSON")]
    pub json: bool,
    /// Show descriptions in full, and when each version was made.
    #[arg(long, env = "ER_DEV_WIDE")]
    pub wide: bool,
}

/// `er-dev publish`
#[derive(Debug, Args)]
pub struct Publish {
    /// The routine.
    #[arg(value_name = "NAME", value_parser = routine_name)]
    pub routine: RoutineName,
    /// The version, by its number or the end of it; by default the one that holds the present bytes of the file, else the
    /// newest.
    #[arg(value_name = "REV")]
    pub revision: Option<String>,
    /// The environment, such as staging, production, or a canary by its exact name.
    #[arg(long, value_name = "ENV", env = "ER_DEV_ENV")]
    pub env: String,
    /// Do not ask.
    #[arg(long)]
    pub yes: bool,
    /// Say what would be done, and do nothing.
    #[arg(long, env = "ER_DEV_DRY_RUN")]
    pub dry_run: bool,
    /// How long to go on trying.
    #[arg(long, value_name = "TIME", default_value = "60s", env = "ER_DEV_TIMEOUT", value_parser = humantime::parse_duration)]
    pub timeout: Duration,
}

/// `er-dev commit`
#[derive(Debug, Args)]
pub struct Commit {
    /// The routine.
    #[arg(value_name = "NAME", value_parser = routine_name)]
    pub routine: RoutineName,
    /// What the version is called; what goes beyond 120 characters is cut.
    #[arg(short, long, value_name = "TEXT", env = "ER_DEV_MESSAGE", value_parser = message)]
    pub message: String,
    /// Write JSON.
    #[arg(long, env = "ER_DEV_JSON")]
    pub json: bool,
    /// How long to go on trying.
    #[arg(long, value_name = "TIME", default_value = "60s", env = "ER_DEV_TIMEOUT", value_parser = humantime::parse_duration)]
    pub timeout: Duration,
}

/// `er-dev rollback`
#[derive(Debug, Args)]
pub struct Rollback {
    /// The routine.
    #[arg(value_name = "NAME", value_parser = routine_name)]
    pub routine: RoutineName,
    /// The environment.
    #[arg(long, value_name = "ENV", env = "ER_DEV_ENV")]
    pub env: String,
    /// Do not ask.
    #[arg(long)]
    pub yes: bool,
    /// Say what would be done, and do nothing.
    #[arg(long, env = "ER_DEV_DRY_RUN")]
    pub dry_run: bool,
    /// How long to go on trying.
    #[arg(long, value_name = "TIME", default_value = "60s", env = "ER_DEV_TIMEOUT", value_parser = humantime::parse_duration)]
    pub timeout: Duration,
}

/// `er-dev prune`
#[derive(Debug, Args)]
pub struct Prune {
    /// The routine; all by default.
    #[arg(value_name = "NAME", value_parser = routine_name)]
    pub routine: Option<RoutineName>,
    /// Leave this many versions, if the rules let so many go; by default as many as are left after an upload.
    #[arg(long, value_name = "N", env = "ER_DEV_KEEP")]
    pub keep: Option<usize>,
    /// Say what would go and why, and delete nothing.
    #[arg(long, env = "ER_DEV_DRY_RUN")]
    pub dry_run: bool,
    /// How long to go on trying.
    #[arg(long, value_name = "TIME", default_value = "60s", env = "ER_DEV_TIMEOUT", value_parser = humantime::parse_duration)]
    pub timeout: Duration,
}

/// `er-dev pin` and `er-dev unpin`
#[derive(Debug, Args)]
pub struct Pin {
    /// The routine.
    #[arg(value_name = "NAME", value_parser = routine_name)]
    pub routine: RoutineName,
    /// The version, by its number or the end of it.
    #[arg(value_name = "REV")]
    pub revision: String,
}

/// `er-dev restore`
#[derive(Debug, Args)]
pub struct Restore {
    /// The routine.
    #[arg(value_name = "NAME", value_parser = routine_name)]
    pub routine: RoutineName,
    /// The version that is gone, by its number or the end of it.
    #[arg(value_name = "REV", required_unless_present = "list")]
    pub revision: Option<String>,
    /// Only show what can be restored.
    #[arg(long, env = "ER_DEV_LIST", conflicts_with = "revision")]
    pub list: bool,
    /// With --list, write one JSON object a version.
    #[arg(long, env = "ER_DEV_JSON")]
    pub json: bool,
    /// How long to go on trying.
    #[arg(long, value_name = "TIME", default_value = "60s", env = "ER_DEV_TIMEOUT", value_parser = humantime::parse_duration)]
    pub timeout: Duration,
}

/// `er-dev diff`
#[derive(Debug, Args)]
pub struct Diff {
    /// The routine.
    #[arg(value_name = "NAME", value_parser = routine_name)]
    pub routine: RoutineName,
    /// The version, by its number or the end of it; by default what is live in production, else the newest.
    #[arg(value_name = "REV")]
    pub revision: Option<String>,
}

/// `er-dev purge`
#[derive(Debug, Args)]
pub struct Purge {
    /// Remove all of it.
    #[arg(long)]
    pub yes: bool,
    /// Write JSON.
    #[arg(long, env = "ER_DEV_JSON")]
    pub json: bool,
}

/// `er-dev explain`
#[derive(Debug, Args)]
pub struct Explain {
    /// Files or directories, there or not; one that is not there counts as a directory if it ends in "/".
    #[arg(value_name = "PATH", required = true)]
    pub paths: Vec<PathBuf>,
    /// Write one JSON object a path.
    #[arg(long, env = "ER_DEV_JSON")]
    pub json: bool,
}

/// `er-dev status`
///
/// It asks the running watches of the configuration, or all of this user where no configuration is found. Exit code 0
/// means that all is well, 1 that something is not, 75 that no watch runs.
#[derive(Debug, Args)]
pub struct Status {
    /// Write one JSON object.
    #[arg(long, env = "ER_DEV_JSON")]
    pub json: bool,
    /// Go on until interrupted: a terminal is drawn anew each second, elsewhere only what has changed is written.
    #[arg(long, env = "ER_DEV_WATCH")]
    pub watch: bool,
}

/// `er-dev sync`
///
/// It asks the running watches of the configuration, or all of this user where no configuration is found. Exit code 0
/// means that every edit is on the service, 1 that one cannot go up, 75 that it was not so in time or that no watch runs.
#[derive(Debug, Args)]
pub struct Sync {
    /// How long to wait.
    #[arg(long, value_name = "TIME", default_value = "60s", env = "ER_DEV_TIMEOUT", value_parser = humantime::parse_duration)]
    pub timeout: Duration,
    /// Write one JSON object.
    #[arg(long, env = "ER_DEV_JSON")]
    pub json: bool,
}

/// `er-dev emulator`
#[derive(Debug, Args)]
pub struct Emulator {
    /// Where to listen; an address of this machine only.
    #[arg(
        long,
        value_name = "ADDR",
        default_value = "127.0.0.1:9480",
        env = "ER_DEV_LISTEN"
    )]
    pub listen: SocketAddr,
    /// A routine to start with; may be given several times.
    #[arg(long = "routine", value_name = "NAME", env = "ER_DEV_ROUTINE", value_delimiter = ',', value_parser = routine_name)]
    pub routines: Vec<RoutineName>,
    /// Write one JSON object a request to this file.
    #[arg(long, value_name = "FILE", env = "ER_DEV_HISTORY")]
    pub history: Option<PathBuf>,
    /// How the stand-in behaves where the service gives no word, as in "alloc=callback"; may be given several times.
    #[arg(long, value_name = "SWITCH=VALUE", env = "ER_DEV_WORLD", value_delimiter = ',', value_parser = switch)]
    pub world: Vec<String>,
    /// What goes wrong, as in "UploadRoutineCode:2:drop_after"; may be given several times, in the variable one a line.
    #[arg(long = "fault", value_name = "FAULT", env = "ER_DEV_FAULT", value_delimiter = '\n', value_parser = Fault::parse)]
    pub faults: Vec<Fault>,
}

/// `er-dev config`
#[derive(Debug, Subcommand)]
pub enum Config {
    /// Check the configuration and say what it holds.
    Check,
    /// Print what is in force, as a file that means the same, with where each value is from.
    Show(Show),
}

/// `er-dev config show`
///
/// What is no default has the line of the file behind it. Below come the flags, where the key was looked for and what
/// became of that.
#[derive(Debug, Args)]
pub struct Show {
    /// Say of defaults, too, that they are defaults.
    #[arg(long, env = "ER_DEV_ORIGIN")]
    pub origin: bool,
    /// Write one JSON object.
    #[arg(long, env = "ER_DEV_JSON")]
    pub json: bool,
}

/// `er-dev doctor`
///
/// One line a check: what it found, and the cure where something is wrong. Nothing is changed, and what cannot be known
/// without changing something is called unknown. Exit code 0 means that nothing is wrong, 1 that something is.
#[derive(Debug, Args)]
pub struct Doctor {
    /// Write one JSON object.
    #[arg(long, env = "ER_DEV_JSON")]
    pub json: bool,
}

/// `er-dev init`
#[derive(Debug, Args)]
pub struct Init {
    /// Make routines on the service that are missing there, at their first upload.
    #[arg(long, env = "ER_DEV_CREATE")]
    pub create: bool,
    /// Do not ask, and take the defaults.
    #[arg(long)]
    pub yes: bool,
}

/// `er-dev completions`
#[derive(Debug, Args)]
pub struct Completions {
    /// The shell.
    #[arg(value_enum, value_name = "SHELL")]
    pub shell: Shell,
}

/// A shell that can complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    /// GNU bash.
    Bash,
    /// The Z shell.
    Zsh,
    /// The friendly interactive shell.
    Fish,
}

/// `er-dev man`
#[derive(Debug, Args)]
pub struct Man {
    /// The command, as in "config check"; er-dev as a whole by default.
    #[arg(value_name = "COMMAND")]
    pub command: Vec<String>,
}

/// `er-dev __names`
#[derive(Debug, Args)]
pub struct Names {
    /// Whose names.
    #[arg(value_enum)]
    pub wanted: Wanted,
}

/// What names a shell asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Wanted {
    /// Routines.
    Routines,
    /// Environments.
    Environments,
}

/// What is wrong with a command line, in the shape of every other error; `None` if it asks for help instead.
pub fn refusal(error: &clap::Error) -> Option<String> {
    use clap::error::ErrorKind;
    if !error.use_stderr() || error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return None;
    }
    let text = error.render().to_string();
    let mut parts = text.split("\n\n");
    let what: Vec<&str> = parts.next()?.lines().map(str::trim).collect();
    let what = what.join(" ").replace('[', "(").replace(']', ")");
    let what = what.strip_prefix("error: ").unwrap_or(&what);
    let (mut tips, mut usage) = (Vec::new(), None);
    for line in parts.flat_map(str::lines) {
        match line.trim().split_once(": ") {
            Some(("tip", tip)) => tips.push(tip.to_owned()),
            Some(("Usage", line)) => usage = Some(line.to_owned()),
            _ => {}
        }
    }
    if tips.is_empty() {
        tips.push(match usage {
            // The command comes first in it, and what it takes behind that.
            Some(usage) => {
                let words = usage.split(' ');
                let command: Vec<&str> = words
                    .take_while(|word| word.starts_with(|c: char| c.is_ascii_lowercase()))
                    .collect();
                format!("`{} --help` says how it is used", command.join(" "))
            }
            None => "the same command with `--help` says how it is used".into(),
        });
    }
    Some(format!(
        "{what} [{}]\n= help: {}",
        Class::Usage,
        tips.join("; ")
    ))
}

fn routine_name(text: &str) -> Result<RoutineName, crate::routine::NameError> {
    RoutineName::new(text)
}

fn message(text: &str) -> Result<String, &'static str> {
    match text.trim() {
        "" => Err("a version has to be called something"),
        text => Ok(text.to_owned()),
    }
}

fn switch(text: &str) -> Result<String, SwitchError> {
    Settings::default().set(text).map(|()| text.to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_of_the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_flag_but_yes_and_force_has_its_environment_variable() {
        fn check(command: &clap::Command) {
            for arg in command.get_arguments().filter(|arg| !arg.is_positional()) {
                let Some(long) = arg
                    .get_long()
                    .filter(|long| !matches!(*long, "yes" | "force" | "help" | "version"))
                else {
                    continue;
                };
                let expected = format!("ER_DEV_{}", long.to_uppercase().replace('-', "_"));
                assert_eq!(
                    arg.get_env().and_then(|env| env.to_str()),
                    Some(expected.as_str()),
                    "--{long}"
                );
            }
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }

    #[test]
    fn a_wrong_command_line_is_told_in_the_shape_of_every_other_error() {
        let table: [(&[&str], &str, &str); 9] = [
            (&["push", "--forse"], "'--forse'", "'--force'"),
            (&["psh"], "'psh'", "'push'"),
            (&["config", "chek"], "'chek'", "'check'"),
            (
                &["--format", "jsn", "push"],
                "possible values: text, json, logfmt",
                "'json'",
            ),
            (&["push", "--timeout", "x"], "'x'", "`--help`"),
            (&["push", "he llo"], "'he llo'", "`--help`"),
            (
                &["publish", "hello"],
                "--env <ENV>",
                "`er-dev publish --help`",
            ),
            (&["restore"], "<NAME>", "`er-dev restore --help`"),
            (&["explain", "--zzz", "x"], "'--zzz'", ""),
        ];
        for (words, what, help) in table {
            let argv = ["er-dev"].iter().chain(words);
            let text = refusal(&Cli::try_parse_from(argv).unwrap_err()).unwrap();
            let (first, rest) = text.split_once('\n').unwrap();
            assert!(
                first.ends_with(" [usage]") && first.contains(what),
                "{text}"
            );
            assert!(
                rest.starts_with("= help: ") && rest.contains(help),
                "{text}"
            );
            assert_eq!(rest.lines().count(), 1, "{text}");
        }
        for asks in ["--help", "--version", "help"] {
            let error = Cli::try_parse_from(["er-dev", asks]).unwrap_err();
            assert_eq!(refusal(&error), None, "{asks}");
        }
        assert_eq!(refusal(&Cli::try_parse_from(["er-dev"]).unwrap_err()), None);
    }

    #[test]
    fn f09_no_flag_takes_a_secret() {
        fn check(command: &clap::Command) {
            for arg in command.get_arguments() {
                let name = arg.get_id().as_str().replace('-', "_");
                let takes_a_value = arg.get_action().takes_values();
                let of_secrets = ["key", "secret", "token", "password", "credential"];
                let is_one = of_secrets.iter().any(|word| name.contains(word));
                assert!(!is_one || !takes_a_value, "{name}");
            }
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }

    #[test]
    fn a_name_that_is_none_is_refused_by_the_command_line() {
        let parse = |name| Cli::try_parse_from(["er-dev", "push", name]);
        assert!(parse("hello").is_ok());
        assert_eq!(parse("he llo").unwrap_err().exit_code(), 2);
    }
}
