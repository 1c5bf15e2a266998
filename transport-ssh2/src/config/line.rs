//! Lines and patterns.

/// A line with something on it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// In lower case.
    pub(crate) keyword: String,
    /// At least one.
    pub(crate) words: Vec<String>,
}

/// Options whose value is the rest of the line as it stands: a command.
const WHOLE_LINE: &[&str] = &["proxycommand", "localcommand", "remotecommand", "knownhostscommand"];

impl Line {
    /// `None` for blank lines and comments.
    pub(crate) fn parse(text: &str) -> Result<Option<Self>, String> {
        let text = text.trim();
        if text.is_empty() || text.starts_with('#') {
            return Ok(None);
        }
        let end =
            text.find(|character: char| character.is_whitespace() || character == '=').unwrap_or(text.len());
        let (keyword, rest) = text.split_at(end);
        let keyword = keyword.trim_matches('"').to_ascii_lowercase();
        let rest = rest.trim_start();
        let rest = rest.strip_prefix('=').unwrap_or(rest).trim_start();
        let words = if WHOLE_LINE.contains(&keyword.as_str()) {
            vec![rest.to_owned()]
        } else {
            split(rest).ok_or_else(|| format!("a quote of '{keyword}' is not closed"))?
        };
        if words.first().is_none_or(|word| word.is_empty() && words.len() == 1) {
            return Err(format!("'{keyword}' lacks its value"));
        }
        Ok(Some(Self { keyword, words }))
    }
}

/// Words with quotes and backslashes, up to a comment.
fn split(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match (character, quote) {
            ('\\', _) => {
                let escaped = characters
                    .next_if(|&next| matches!(next, '\'' | '"' | '\\') || quote.is_none() && next == ' ');
                word.get_or_insert_default().push(escaped.unwrap_or('\\'));
            }
            (_, Some(open)) if character == open => quote = None,
            ('"' | '\'', None) => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (' ' | '\t', None) => words.extend(word.take()),
            ('#', None) if word.is_none() => return Some(words),
            _ => word.get_or_insert_default().push(character),
        }
    }
    words.extend(word);
    quote.is_none().then_some(words)
}

/// Whether upper and lower case are the same. OpenSSH compares names of hosts so, but for the words of `Host` itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Case {
    Matters,
    Ignored,
}

/// Whether the words of a `Host` line match: one does, and none of those with `!` does.
pub(crate) fn matches_list<T: AsRef<str>>(patterns: &[T], name: &str, case: Case) -> bool {
    let mut matched = false;
    for pattern in patterns {
        match pattern.as_ref().strip_prefix('!') {
            Some(pattern) if matches(pattern, name, case) => return false,
            Some(_) => {}
            None => matched |= matches(pattern.as_ref(), name, case),
        }
    }
    matched
}

/// The same for patterns with commas between them.
pub(crate) fn pattern_list_matches(patterns: &str, name: &str, case: Case) -> bool {
    matches_list(&patterns.split(',').collect::<Vec<_>>(), name, case)
}

/// `*` and `?`.
fn matches(pattern: &str, name: &str, case: Case) -> bool {
    let same = |one: u8, other: u8| match case {
        Case::Matters => one == other,
        Case::Ignored => one.eq_ignore_ascii_case(&other),
    };
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut p, mut n) = (0, 0);
    // Where the last star is, and what it has eaten so far.
    let mut star: Option<(usize, usize)> = None;
    while let Some(byte) = name.get(n) {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(&expected) if expected == b'?' || same(expected, *byte) => {
                p += 1;
                n += 1;
            }
            _ => match star {
                Some((at, eaten)) => {
                    star = Some((at, eaten + 1));
                    p = at + 1;
                    n = eaten + 1;
                }
                None => return false,
            },
        }
    }
    pattern.get(p..).is_some_and(|rest| rest.iter().all(|&byte| byte == b'*'))
}
