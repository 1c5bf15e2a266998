//! `%` tokens, `${VARIABLES}` and `~` in values.

use std::path::PathBuf;

use super::{Origin, Surroundings, bad, surroundings::home_of};
use crate::error::ConnectionError;

/// What a token stands for; `None` if that is not known here, which matters only if it is used.
pub(crate) type Token = (char, Option<String>);

/// Replaces tokens.
pub(crate) fn tokens(text: &str, tokens: &[Token], origin: &Origin) -> Result<String, ConnectionError> {
    replace(text, tokens, None, origin)
}

/// Replaces `~`, tokens and variables in the name of a file.
pub(crate) fn path(
    word: &str,
    tokens: &[Token],
    surroundings: &Surroundings,
    origin: &Origin,
) -> Result<PathBuf, ConnectionError> {
    let replaced = |text: &str| replace(text, tokens, Some(surroundings.environment), origin);
    if word.starts_with('~') {
        // What a token brings in is no `~` of the user's, and what is in the home directory's name no token.
        let (first, rest) = word.split_once('/').unwrap_or((word, ""));
        return Ok(home(first, surroundings, origin)?.join(replaced(rest)?.trim_start_matches('/')));
    }
    Ok(replaced(word)?.into())
}

/// Replaces `~` or `~user` at the beginning.
pub(crate) fn home(
    word: &str,
    surroundings: &Surroundings,
    origin: &Origin,
) -> Result<PathBuf, ConnectionError> {
    let (first, rest) = word.split_once('/').unwrap_or((word, ""));
    let home = match first.strip_prefix('~') {
        Some("") => surroundings.home(origin)?.to_owned(),
        Some(user) => home_of(user)
            .ok_or_else(|| bad(origin, format_args!("the home directory of '{user}' is not known")))?,
        None => return Ok(word.into()),
    };
    Ok(if rest.is_empty() { home } else { home.join(rest.trim_start_matches('/')) })
}

/// One pass: what a token or a variable brings in is not looked at again.
fn replace(
    text: &str,
    tokens: &[Token],
    environment: Option<fn(&str) -> Option<String>>,
    origin: &Origin,
) -> Result<String, ConnectionError> {
    let mut result = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['%', '$']) {
        let (before, after) = rest.split_at(at);
        result.push_str(before);
        if let Some(after) = after.strip_prefix('%') {
            let letter = after.chars().next().ok_or_else(|| bad(origin, "'%' at the end"))?;
            match tokens.iter().find(|(known, _)| *known == letter) {
                _ if letter == '%' => result.push('%'),
                Some((_, Some(value))) => result.push_str(value),
                Some((_, None)) => {
                    return Err(bad(origin, format_args!("what '%{letter}' stands for is not known")));
                }
                None => return Err(bad(origin, format_args!("'%{letter}' is not supported there"))),
            }
            rest = after.get(letter.len_utf8()..).unwrap_or_default();
        } else if let (Some(environment), Some(after)) = (environment, after.strip_prefix("${")) {
            let (name, after) = after
                .split_once('}')
                .ok_or_else(|| bad(origin, format_args!("'${{' without '}}' in '{text}'")))?;
            let value = environment(name)
                .ok_or_else(|| bad(origin, format_args!("the environment has no variable '{name}'")))?;
            result.push_str(&value);
            rest = after;
        } else {
            result.push('$');
            rest = after.get(1..).unwrap_or_default();
        }
    }
    result.push_str(rest);
    Ok(result)
}

/// Fails if one of these names, which a shell is going to see, could be more than a word to it.
pub(crate) fn check_for_shell(names: [Option<&str>; 3], origin: &Origin) -> Result<(), ConnectionError> {
    if names.into_iter().flatten().all(is_word_to_a_shell) {
        return Ok(());
    }
    Err(bad(origin, "a host or user name with special characters cannot be used in a command"))
}

fn is_word_to_a_shell(name: &str) -> bool {
    !name.starts_with('-')
        && !name.chars().any(|character| {
            character.is_control() || character.is_whitespace() || "'`\"$\\;&<>|(){}#!*?~".contains(character)
        })
}
