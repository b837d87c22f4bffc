//! `er-dev completions` and `er-dev man`: what shells and readers of manuals need, from the definition of the command line.
//!
//! What clap writes for a shell knows commands and flags. Names of routines and environments stand in a configuration,
//! so a few lines of shell ask er-dev for them with the hidden command `__names`, which reads that file and nothing else.

use clap::{Command, CommandFactory as _};
use clap_complete::aot;

use crate::cli::{self, Cli, Common, Shell, Wanted};
use crate::nearest::suggestion;
use crate::report::Report;

use super::{Failure, load};

/// What clap calls a routine on the command line.
const ROUTINE: &str = "NAME";

/// What clap calls an environment there.
const ENVIRONMENT: &str = "ENV";

/// Commands with a `NAME` that is no routine of the configuration.
const OTHER_NAMES: [&str; 1] = ["emulator"];

/// Environments that every routine has.
const ENVIRONMENTS: [&str; 2] = ["staging", "production"];

/// Writes a script for a shell.
pub(super) fn completions(flags: &cli::Completions, report: &mut Report) -> Result<u8, Failure> {
    let script = script(flags.shell)?;
    report.print(&script);
    Ok(0)
}

/// Writes a manual page.
pub(super) fn man(flags: &cli::Man, report: &mut Report) -> Result<u8, Failure> {
    let mut root = Cli::command();
    root.build();
    let mut command = &root;
    for word in &flags.command {
        let known: Vec<&str> = visible(command).map(Command::get_name).collect();
        command = command.find_subcommand(word).ok_or_else(|| {
            let help = suggestion(word, &known, "there are");
            Failure::usage(format!("there is no command `{word}`\n= help: {help}"))
        })?;
    }
    let mut page = Vec::new();
    let rendered = clap_mangen::Man::new(command.clone()).render(&mut page);
    rendered.map_err(Failure::other)?;
    report.print(&String::from_utf8_lossy(&page));
    Ok(0)
}

/// Writes names that stand in the configuration, one a line. Where there is none, a shell has nothing to offer.
pub(super) fn names(
    common: &Common,
    flags: &cli::Names,
    report: &mut Report,
) -> Result<u8, Failure> {
    let config = load(common);
    let mut names: Vec<String> = Vec::new();
    match flags.wanted {
        Wanted::Routines => {
            let config = config?;
            names.extend(
                config
                    .routines
                    .iter()
                    .map(|routine| routine.name.to_string()),
            );
        }
        Wanted::Environments => {
            names.extend(ENVIRONMENTS.map(String::from));
            let routines = config.into_iter().flat_map(|config| config.routines);
            names.extend(routines.flat_map(|routine| routine.publish_to));
        }
    }
    names.sort();
    names.dedup();
    names
        .iter()
        .for_each(|name| report.print(&format!("{name}\n")));
    Ok(0)
}

fn visible(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|it| !it.is_hide_set())
}

fn script(shell: Shell) -> Result<String, Failure> {
    let mut command = Cli::command();
    let mut script = Vec::new();
    let name = command.get_name().to_owned();
    match shell {
        Shell::Bash => aot::generate(aot::Bash, &mut command, name, &mut script),
        Shell::Zsh => aot::generate(aot::Zsh, &mut command, name, &mut script),
        Shell::Fish => aot::generate(aot::Fish, &mut command, name, &mut script),
    }
    let script = without_hidden(&String::from_utf8(script).map_err(Failure::other)?);
    Ok(match shell {
        // Clap writes the dash of the program's name in two ways here, and so never finds its own branches.
        Shell::Bash => script.replace("er__subcmd__dev", "er__dev") + &bash(&command),
        Shell::Zsh => zsh(&script),
        Shell::Fish => script + &fish(&command),
    })
}

/// Clap offers hidden commands like all others.
fn without_hidden(script: &str) -> String {
    let offers = ["-a \"__names\"", "'__names:"];
    let kept = script
        .lines()
        .filter(|line| !offers.iter().any(|offer| line.contains(offer)));
    kept.map(|line| line.replace(" __names ", " ") + "\n")
        .collect()
}

/// Commands that take routines of the configuration, and whether each takes several.
fn of_routines(root: &Command) -> Vec<(&str, bool)> {
    let commands = visible(root).filter(|command| !OTHER_NAMES.contains(&command.get_name()));
    let takes = commands.filter_map(|command| {
        let mut positionals = command.get_positionals();
        let first = positionals.next()?;
        let several = first.get_action().takes_values()
            && first
                .get_num_args()
                .is_some_and(|many| many.max_values() > 1);
        is_called(first, ROUTINE).then_some((command.get_name(), several))
    });
    takes.collect()
}

fn is_called(arg: &clap::Arg, value: &str) -> bool {
    let names = arg.get_value_names().unwrap_or_default();
    names.iter().any(|name| name.as_str() == value)
}

/// The long flags of any command whose value this is, or that take any value.
fn flags(root: &Command, value: Option<&str>) -> Vec<String> {
    let all = std::iter::once(root).chain(visible(root));
    let args = all.flat_map(|command| command.get_arguments());
    let takes = args.filter(|arg| match value {
        Some(value) => is_called(arg, value),
        None => arg.get_action().takes_values(),
    });
    let mut flags: Vec<String> = takes
        .filter_map(|arg| arg.get_long())
        .map(|long| format!("--{long}"))
        .collect();
    flags.sort();
    flags.dedup();
    flags
}

/// A function around clap's own, which answers where a name is wanted.
fn bash(root: &Command) -> String {
    let routines = of_routines(root).into_iter();
    let routines: Vec<String> = routines
        .map(|(name, several)| match several {
            true => format!("{name},*"),
            false => format!("{name},0"),
        })
        .collect();
    let hidden = root.get_arguments().filter(|arg| arg.is_hide_set());
    let hidden: Vec<String> = hidden
        .filter_map(|arg| Some(format!("--{}", arg.get_long()?)))
        .collect();
    format!(
        r#"
_er_dev_with_names() {{
    local cur="${{COMP_WORDS[COMP_CWORD]}}" prev="${{COMP_WORDS[COMP_CWORD-1]}}" word command="" wanted="" i given=0
    [[ $cur == "=" ]] && cur=""
    [[ $prev == "=" ]] && prev="${{COMP_WORDS[COMP_CWORD-2]}}"
    for ((i = 1; i < COMP_CWORD; i++)); do
        word="${{COMP_WORDS[i]}}"
        case "$word" in
            {valued})
                [[ ${{COMP_WORDS[i+1]}} == "=" ]] && i=$((i + 1))
                i=$((i + 1)) ;;
            -* | "=") ;;
            *) if [[ -z $command ]]; then command="$word"; else given=$((given + 1)); fi ;;
        esac
    done
    case "$prev" in
        {of_routine}) [[ $command != emulator ]] && wanted=routines ;;
        {of_environment}) wanted=environments ;;
        {valued}) ;;
        *) if [[ $cur != -* ]]; then
            case "$command,$given" in
                {routines}) wanted=routines ;;
            esac
        fi ;;
    esac
    if [[ -n $wanted ]]; then
        COMPREPLY=( $(compgen -W "$("$1" __names "$wanted" 2>/dev/null)" -- "$cur") )
        return 0
    fi
    _er__dev "$@"
    local kept=()
    for word in "${{COMPREPLY[@]}}"; do
        case "$word" in
            [\[\<]* | {hidden}) ;;
            *) kept+=("$word") ;;
        esac
    done
    COMPREPLY=("${{kept[@]}}")
}}
complete -F _er_dev_with_names -o bashdefault -o default er-dev
"#,
        valued = flags(root, None).join(" | "),
        of_routine = flags(root, Some(ROUTINE)).join(" | "),
        of_environment = flags(root, Some(ENVIRONMENT)).join(" | "),
        routines = routines.join(" | "),
        hidden = hidden.join(" | "),
    )
}

/// Clap's script with functions of its own where it offers files for a name.
fn zsh(script: &str) -> String {
    let mut out = String::new();
    let mut in_other = false;
    for line in script.lines() {
        // Within the branch of a command, as `(emulator)`, its arguments follow.
        if let Some(command) = line.trim().strip_prefix('(') {
            in_other = OTHER_NAMES.contains(&command.trim_end_matches(')'));
        }
        let is_routine = line.contains(":routine -- ") || line.contains("::routines -- ");
        let line = match in_other {
            true => line.to_owned(),
            false => line
                .replace(":NAME:_default", ":NAME:_er_dev_routines")
                .replace(":ENV:_default", ":ENV:_er_dev_environments"),
        };
        out.push_str(&match is_routine {
            true => line.replace(":_default'", ":_er_dev_routines'"),
            false => line,
        });
        out.push('\n');
        if out.ends_with("autoload -U is-at-least\n") {
            out.push_str(
                r#"
_er_dev_routines() {
    compadd -- ${(f)"$(er-dev __names routines 2>/dev/null)"}
}

_er_dev_environments() {
    compadd -- ${(f)"$(er-dev __names environments 2>/dev/null)"}
}
"#,
            );
        }
    }
    out
}

/// Lines beside clap's own, which answer where a name is wanted.
fn fish(root: &Command) -> String {
    let names = of_routines(root).into_iter();
    let names: Vec<&str> = names.map(|(name, _)| name).collect();
    let mut out = format!(
        "complete -c er-dev -n '__fish_seen_subcommand_from {}' -f -a '(er-dev __names routines 2>/dev/null)'\n",
        names.join(" ")
    );
    for (value, wanted) in [(ROUTINE, "routines"), (ENVIRONMENT, "environments")] {
        for flag in flags(root, Some(value)) {
            let flag = flag.trim_start_matches('-');
            let others = OTHER_NAMES.join(" ");
            out.push_str(&format!(
                "complete -c er-dev -n 'not __fish_seen_subcommand_from {others}' -l {flag} -x -a '(er-dev __names {wanted} 2>/dev/null)'\n"
            ));
        }
    }
    out
}
