//! Where a role keeps what it is to find at its next start, when the configuration does not say.
//!
//! The environment enters, a directory leaves: that of systemd, else that of the user. Without one that can be used, nothing is kept.

use std::ffi::OsString;
use std::path::PathBuf;

use tracing::info;

use crate::config::Config;

/// Gives the adapters, and an agent that reads files, a directory if they have none.
pub(crate) fn set(config: &mut Config) {
    if config.agent.file_reading.state_dir.is_none() && !config.agent.files.is_empty() {
        config.agent.file_reading.state_dir = usual(|name| std::env::var_os(name));
    }
    if config.adapters.state_dir.is_some() {
        return;
    }
    let Some(dir) = usual(|name| std::env::var_os(name)) else { return };
    match adapters::can_keep_drains(&dir) {
        Ok(()) => config.adapters.state_dir = Some(dir),
        Err(error) => info!(%error, "No drains can be added while it runs, as they could not be kept"),
    }
}

fn usual(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let path = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    // systemd gives several, separated by colons, to a unit that asks for several.
    let systemd = variable("STATE_DIRECTORY").and_then(|value| std::env::split_paths(&value).next());
    systemd
        .filter(|dir| dir.is_absolute())
        .or_else(|| path("XDG_STATE_HOME").map(|dir| dir.join("hydrant")))
        .or_else(|| path("HOME").map(|dir| dir.join(".local/state/hydrant")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_comes_before_the_user() {
        let of = |variables: &[(&str, &str)]| {
            let found = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into());
            usual(found).map(|dir| dir.display().to_string())
        };
        let home = ("HOME", "/home/me");
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[home]).as_deref(), Some("/home/me/.local/state/hydrant"));
        assert_eq!(of(&[home, ("XDG_STATE_HOME", "/s")]).as_deref(), Some("/s/hydrant"));
        assert_eq!(of(&[home, ("XDG_STATE_HOME", "")]).as_deref(), Some("/home/me/.local/state/hydrant"));
        assert_eq!(of(&[home, ("STATE_DIRECTORY", "/var/lib/a:/var/lib/b")]).as_deref(), Some("/var/lib/a"));
    }
}
