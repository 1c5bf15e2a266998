//! What the two sides offered each other, for the message when they have no algorithm in common; libssh2 only says that it is so.

use std::fmt;

/// Much more than any server's version, notices and lists of algorithms.
const LIMIT: usize = 64 * 1024;

/// `SSH_MSG_KEXINIT` (RFC 4253, section 7.1).
const KEXINIT: u8 = 20;

/// Longer lists are cut off in a message.
const MAX_SHOWN: usize = 400;

/// The lists of a KEXINIT in their order, up to the last that has to meet one of the other side.
const LISTS: [&str; 8] = [
    "KexAlgorithms",
    "HostKeyAlgorithms",
    "Ciphers",
    "Ciphers",
    "MACs",
    "MACs",
    "Compression",
    "Compression",
];

/// The first bytes each way, which are not encrypted.
#[derive(Debug, Default)]
pub(crate) struct Beginning {
    ours: Vec<u8>,
    theirs: Vec<u8>,
}

/// Two lists without a common name.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mismatch {
    /// The option that they go by.
    pub(crate) option: &'static str,
    ours: String,
    theirs: String,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { option, ours, theirs } = self;
        write!(f, "{option}: the server has {}; libssh2 offers {}", shown(theirs), shown(ours))
    }
}

fn shown(list: &str) -> String {
    match list.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => format!("{}...", list.get(..end).unwrap_or_default()),
        None if list.is_empty() => "none".to_owned(),
        None => list.to_owned(),
    }
}

impl Beginning {
    pub(crate) fn sent(&mut self, data: &[u8]) {
        keep(&mut self.ours, data);
    }

    pub(crate) fn received(&mut self, data: &[u8]) {
        keep(&mut self.theirs, data);
    }

    /// The first words of a server that did not say that it speaks SSH.
    pub(crate) fn instead_of_ssh(&self) -> Option<String> {
        let mut lines = self.theirs.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii);
        let mut first = None;
        for line in lines.by_ref().filter(|line| !line.is_empty()) {
            if line.starts_with(b"SSH-") {
                return None;
            }
            first = first.or(Some(line));
        }
        let shown = first?.get(..MAX_SHOWN.min(first?.len()))?;
        Some(String::from_utf8_lossy(shown).into_owned())
    }

    /// The first two lists that do not meet, if the beginning is understood.
    pub(crate) fn mismatch(&self) -> Option<Mismatch> {
        let (ours, theirs) = (lists(&self.ours)?, lists(&self.theirs)?);
        let mut ciphers = Vec::new();
        for (index, (option, (ours, theirs))) in
            LISTS.into_iter().zip(ours.into_iter().zip(theirs)).enumerate()
        {
            // These ciphers bring their own.
            let is_needed = |cipher: &String| !cipher.contains("gcm@") && !cipher.contains("poly1305@");
            if option == "MACs" && ciphers.get(index - 4).is_some_and(|cipher| !is_needed(cipher)) {
                continue;
            }
            let common = ours.split(',').find(|name| theirs.split(',').any(|other| other == *name));
            match common.filter(|name| !name.is_empty()) {
                Some(name) if option == "Ciphers" => ciphers.push(name.to_owned()),
                Some(_) => {}
                None => return Some(Mismatch { option, ours, theirs }),
            }
        }
        None
    }
}

fn keep(kept: &mut Vec<u8>, data: &[u8]) {
    let room = LIMIT.saturating_sub(kept.len());
    kept.extend_from_slice(data.get(..room.min(data.len())).unwrap_or_default());
}

/// The names in the KEXINIT that follows on the version.
fn lists(mut rest: &[u8]) -> Option<Vec<String>> {
    loop {
        let end = rest.iter().position(|&byte| byte == b'\n')?;
        let (line, after) = rest.split_at_checked(end + 1)?;
        rest = after;
        // A server may say something before its version.
        if line.starts_with(b"SSH-") {
            break;
        }
    }
    // Lengths of packet and padding, the message's number, a cookie.
    let (head, mut rest) = rest.split_at_checked(4 + 1 + 1 + 16)?;
    if head.get(5) != Some(&KEXINIT) {
        return None;
    }
    let mut list = || {
        let (length, after) = rest.split_first_chunk::<4>()?;
        let (list, after) = after.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
        rest = after;
        // What is no algorithm but says what else is understood.
        let names = String::from_utf8_lossy(list);
        let names = names
            .split(',')
            .filter(|name| !name.starts_with("ext-info-") && !name.starts_with("kex-strict-"));
        Some(names.collect::<Vec<_>>().join(","))
    };
    LISTS.iter().map(|_| list()).collect()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn beginning(before: &str, lists: [&str; 8]) -> Vec<u8> {
        let mut bytes = format!("{before}SSH-2.0-test\r\n").into_bytes();
        bytes.extend([0, 0, 1, 0, 4, KEXINIT]);
        bytes.extend([7; 16]);
        for list in lists {
            bytes.extend(u32::try_from(list.len()).unwrap().to_be_bytes());
            bytes.extend(list.as_bytes());
        }
        bytes
    }

    const OURS: [&str; 8] = ["k,ext-info-c", "h", "a-gcm@x,c", "a-gcm@x,c", "m", "m", "none", "none"];

    #[rstest]
    #[case::agreed(["k", "h", "c", "c", "m", "m", "none", "none"], None)]
    #[case::key_exchange(["q", "h", "c", "c", "m", "m", "none", "none"], Some("KexAlgorithms: the server has q; libssh2 offers k"))]
    #[case::only_pseudo(["ext-info-c", "h", "c", "c", "m", "m", "none", "none"], Some("KexAlgorithms: the server has none; libssh2 offers k"))]
    #[case::second_direction(["k", "h", "c", "x", "m", "m", "none", "none"], Some("Ciphers: the server has x; libssh2 offers a-gcm@x,c"))]
    #[case::mac(["k", "h", "c", "c", "m", "n", "none", "none"], Some("MACs: the server has n; libssh2 offers m"))]
    #[case::no_mac_needed(["k", "h", "a-gcm@x", "a-gcm@x", "n", "n", "none", "none"], None)]
    fn the_lists_that_do_not_meet(#[case] theirs: [&str; 8], #[case] expected: Option<&str>) {
        let beginning = Beginning { ours: beginning("", OURS), theirs: beginning("hello\r\n", theirs) };
        assert_eq!(beginning.mismatch().map(|mismatch| mismatch.to_string()).as_deref(), expected);
    }

    #[test]
    fn what_is_not_whole_says_nothing() {
        let whole = beginning("", OURS);
        for end in 0..whole.len() {
            let beginning = Beginning { ours: whole.clone(), theirs: whole[..end].to_vec() };
            assert_eq!(beginning.mismatch(), None, "{end}");
        }
    }
}
