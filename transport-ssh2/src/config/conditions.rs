//! The conditions of `Match`.

use std::process::{Command, Stdio};

use super::{Case, Origin, Raw, bad, expansion, line::pattern_list_matches, unsupported};
use crate::error::ConnectionError;

impl Raw<'_> {
    pub(super) fn matches(&mut self, words: &[String], origin: &Origin) -> Result<bool, ConnectionError> {
        let mut words = words.iter();
        let mut result = true;
        let mut all = false;
        let mut others = false;
        while let Some(word) = words.next() {
            let (word, negated) = word.strip_prefix('!').map_or((word.as_str(), false), |word| (word, true));
            let (criterion, mut value) =
                word.split_once('=').map_or((word, None), |(word, value)| (word, Some(value)));
            let criterion = criterion.to_ascii_lowercase();
            match criterion.as_str() {
                "all" => all = true,
                // Free of charge for the former, which holds in the second pass only.
                "canonical" => {}
                "final" => self.wants_final = true,
                _ => others = true,
            }
            let mut operand = || {
                value
                    .take()
                    .or_else(|| words.next().map(String::as_str))
                    .ok_or_else(|| bad(origin, format_args!("'Match {criterion}' without a value")))
            };
            let matched = match criterion.as_str() {
                "all" => true,
                "canonical" | "final" => self.is_final,
                "host" => {
                    let host = if self.is_final { self.host.clone() } else { self.host_name()? };
                    pattern_list_matches(operand()?, &host, Case::Ignored)
                }
                "originalhost" => pattern_list_matches(operand()?, &self.original_host, Case::Ignored),
                "user" => pattern_list_matches(operand()?, self.user().unwrap_or_default(), Case::Matters),
                "localuser" => {
                    let user = self.surroundings.local_user.as_deref().unwrap_or_default();
                    pattern_list_matches(operand()?, user, Case::Matters)
                }
                "tagged" => {
                    let tag = self.value("tag").and_then(|value| value.words.first());
                    pattern_list_matches(operand()?, tag.map_or("", String::as_str), Case::Matters)
                }
                // A copy runs a command, and on no terminal.
                "sessiontype" => pattern_list_matches(operand()?, "exec", Case::Matters),
                "exec" => {
                    let command = operand()?;
                    // What it does matters only if it decides.
                    result && self.succeeds(command, origin)?
                }
                // What cannot be decided could lift a restriction or add one. It does not matter if the line cannot apply anyway.
                other => {
                    let _ = operand();
                    if result {
                        return Err(unsupported(origin, format_args!("the condition 'Match {other}'")));
                    }
                    false
                }
            };
            result &= matched != negated;
        }
        if all && others {
            return Err(bad(origin, "'Match all' cannot be combined with other conditions"));
        }
        Ok(result)
    }

    /// Whether a command ends well, in the user's shell.
    fn succeeds(&self, command: &str, origin: &Origin) -> Result<bool, ConnectionError> {
        let host = if self.is_final { self.host.clone() } else { self.host_name()? };
        let user = self.user().map(str::to_owned);
        expansion::check_for_shell(
            [Some(host.as_str()), user.as_deref(), Some(&self.original_host)],
            origin,
        )?;
        let port = self.value("port").and_then(|value| value.words.first());
        let tokens = self.tokens(&host, port.map_or("22", String::as_str), user);
        let command = expansion::tokens(command, &tokens, origin)?;
        let status = Command::new(self.surroundings.shell())
            .arg("-c")
            .arg(&command)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        Ok(status
            .map_err(|error| bad(origin, format_args!("'Match exec' cannot start '{command}': {error}")))?
            .success())
    }
}
