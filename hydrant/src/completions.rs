//! `hydrant completions`: scripts that complete commands, options and, asking the server, the names of sources.
//!
//! What enters: a shell's name; from the script, what has been typed. What leaves: the script; the names of sources that go on what has
//! been typed. Names that a shell would take for more than a name are left out: somebody else has chosen them.

use std::io;
use std::time::Duration;

use clap::{CommandFactory, Parser};
use clap_complete::Shell as Kind;
use tokio::time::timeout;

use crate::cli::{Cli, Failure, runtime, say};
use crate::client::Controller;
use crate::overview;

/// Nobody waits longer for a completion.
const WITHIN: Duration = Duration::from_millis(500);
/// Names offered at most.
const OFFERED: usize = 200;

/// What is added for Bash: the script's own function first, then sources where one belongs.
const BASH: &str = r#"
_hydrant_with_sources() {
    _hydrant "$@"
    local word="${COMP_WORDS[COMP_CWORD]}" before="${COMP_WORDS[COMP_CWORD-1]}" sources
    case "${COMP_WORDS[1]}" in
        tail | sources) if [[ "$word" == -* || ( "$before" == -* && "$before" != --source ) ]]; then return; fi ;;
        explain-loss | query) if [[ "$word" == -* || "$before" != --source ]]; then return; fi ;;
        *) return ;;
    esac
    sources="$("${COMP_WORDS[0]}" complete-sources --line "$COMP_LINE" -- "$word" 2>/dev/null)"
    if [[ -n "$sources" ]]; then mapfile -t COMPREPLY <<<"$sources"; fi
}
complete -F _hydrant_with_sources -o bashdefault -o default hydrant
"#;

const ZSH: &str = r#"_hydrant_live_sources() {
    local -a sources
    sources=("${(@f)$(hydrant complete-sources --line "$BUFFER" -- "$PREFIX" 2>/dev/null)}")
    compadd -a sources
}

"#;

const FISH: &str = r#"
complete -c hydrant -n "__fish_seen_subcommand_from tail sources" -f -a "(hydrant complete-sources --line (commandline -cp | string collect) -- (commandline -ct) 2>/dev/null)"
complete -c hydrant -n "__fish_seen_subcommand_from explain-loss query" -l source -x -a "(hydrant complete-sources --line (commandline -cp | string collect) -- (commandline -ct) 2>/dev/null)"
"#;

/// A shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// Arguments of `hydrant completions`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The shell
    shell: Shell,
}

/// Arguments of `hydrant complete-sources`.
#[derive(Debug, clap::Args)]
pub(crate) struct Sources {
    /// How the names begin
    #[arg(default_value = "")]
    prefix: String,
    /// The line that is being typed: its options say where the server is
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    line: String,
}

/// Runs `hydrant completions`.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    say(&mut io::stdout(), script(args.shell).trim_end());
    Ok(())
}

fn script(shell: Shell) -> String {
    let kind = match shell {
        Shell::Bash => Kind::Bash,
        Shell::Zsh => Kind::Zsh,
        Shell::Fish => Kind::Fish,
    };
    let mut bytes = Vec::new();
    clap_complete::generate(kind, &mut Cli::command(), "hydrant", &mut bytes);
    let script = String::from_utf8_lossy(&bytes).into_owned();
    match shell {
        Shell::Bash => script + BASH,
        Shell::Fish => script + FISH,
        Shell::Zsh => {
            let lines = script.lines().map(|line| {
                let names = ["::sources -- ", "::only -- ", ":SOURCE:"].iter().any(|of| line.contains(of));
                let begins = if line.starts_with("if [ \"$funcstack[1]\"") { ZSH } else { "" };
                let line = if names { line.replace(":_default'", ":_hydrant_live_sources'") } else { line.to_owned() };
                format!("{begins}{line}\n")
            });
            lines.collect()
        }
    }
}

/// Runs `hydrant complete-sources`: prints names, or, whatever is wrong, nothing.
pub(crate) fn complete(args: &Sources) -> Result<(), Failure> {
    let Ok(Connection { at }) = Connection::try_parse_from(connection(&args.line)) else { return Ok(()) };
    let asked = async {
        let mut client = overview::client(at.connect().await.ok()?);
        overview::get(&mut client).await.ok()
    };
    let runtime = runtime()?;
    let reply = runtime.block_on(async { timeout(WITHIN, asked).await.ok().flatten() });
    runtime.shutdown_background();
    let sources = reply.map(|reply| reply.sources).unwrap_or_default();
    let names = offered(sources.iter().map(|source| source.source_id.as_str()), &args.prefix);
    if !names.is_empty() {
        say(&mut io::stdout(), &names.join("\n"));
    }
    Ok(())
}

fn offered<'a>(ids: impl Iterator<Item = &'a str>, prefix: &str) -> Vec<&'a str> {
    let plain = |char: char| char.is_ascii_alphanumeric() || "._:@+-/".contains(char);
    let mut names: Vec<&str> = ids
        .filter(|id| id.starts_with(prefix) && id.chars().all(plain) && !id.starts_with('-'))
        .take(OFFERED)
        .collect();
    names.sort_unstable();
    names
}

/// The options of a connection alone.
#[derive(Debug, clap::Parser)]
#[command(no_binary_name = true)]
struct Connection {
    #[command(flatten)]
    at: Controller,
}

/// What a line says of the connection.
fn connection(line: &str) -> Vec<String> {
    const OPTIONS: [&str; 6] = ["--server", "--ca", "--cert", "--key", "--server-name", "--token-file"];
    let mut found = Vec::new();
    let mut words = line.split_whitespace();
    while let Some(word) = words.next() {
        let (name, value) = word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
        if OPTIONS.contains(&name)
            && let Some(value) = value.or_else(|| words.next())
        {
            found.push(format!("{name}={value}"));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_script_asks_for_sources() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = script(shell);
            assert!(script.contains("complete-sources") && script.contains("explain-loss"), "{script}");
            assert!(script.contains("query"), "{script}");
        }
        let zsh = script(Shell::Zsh);
        assert!(zsh.matches(":_hydrant_live_sources'").count() >= 2, "{zsh}");
        let at = |text: &str| zsh.find(text).expect("in the script");
        assert!(at("_hydrant_live_sources() {") < at("if [ \"$funcstack[1]\""));
    }

    #[test]
    fn what_a_shell_would_obey_is_not_offered() {
        let ids = ["shop-2", "shop-1", "shop$(reboot)", "shop 3", "-shop", "app"];
        assert_eq!(offered(ids.into_iter(), "shop"), ["shop-1", "shop-2"]);
        assert_eq!(offered(ids.into_iter(), ""), ["app", "shop-1", "shop-2"]);
    }

    #[test]
    fn a_line_says_where_the_server_is() {
        let line = "hydrant tail --server 127.0.0.1:5 --ca=/a.pem --include x --key";
        assert_eq!(connection(line), ["--server=127.0.0.1:5", "--ca=/a.pem"]);
        let parsed = Connection::try_parse_from(connection(line)).expect("options");
        assert_eq!(parsed.at.server.to_string(), "127.0.0.1:5");
    }
}
