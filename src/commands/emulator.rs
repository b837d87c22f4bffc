//! `er-dev emulator`: the stand-in for the service alone.

use crate::cli;
use crate::emulator::world::Settings;
use crate::emulator::{Emulator, Options};
use crate::report::Report;

use super::Failure;
use super::signals::Signals;

/// Runs until a signal.
pub(super) async fn run(flags: cli::Emulator, report: &mut Report) -> Result<u8, Failure> {
    let mut settings = Settings::default();
    for switch in &flags.world {
        let set = settings.set(switch);
        set.map_err(|error| Failure::usage(error.to_string()))?;
    }
    let names: Vec<String> = flags.routines.iter().map(ToString::to_string).collect();
    let options = Options {
        listen: flags.listen,
        routines: flags.routines,
        history: flags.history,
        settings,
        faults: flags.faults,
    };
    let signals = Signals::listen()?;
    let stop = signals.at(1);
    let emulator = Emulator::start(options).await.map_err(Failure::other)?;
    report.print(&format!(
        "the emulator listens on {endpoint}; it ends with this program and forgets everything\n\
         routines: {routines}\n\n\
         put into er-dev.toml:\n    [service]\n    endpoint = \"{endpoint}\"\n\
         and into the environment:\n    \
         export ALIBABA_CLOUD_ACCESS_KEY_ID=emulator-key-id ALIBABA_CLOUD_ACCESS_KEY_SECRET=emulator-key-secret\n",
        endpoint = emulator.endpoint(),
        routines = if names.is_empty() { "none yet; `create = true` makes them".to_owned() } else { names.join(", ") },
    ));
    stop.await;
    emulator.stop().await;
    Ok(0)
}
