//! The NAR of one regular file. (The crate for NARs stands above this one.)

/// The NAR of a regular file, not executable.
pub fn file_nar(content: &[u8]) -> Vec<u8> {
    let mut nar = Vec::with_capacity(content.len().saturating_add(128));
    for text in [b"nix-archive-1".as_slice(), b"(", b"type", b"regular", b"contents", content, b")"] {
        put(&mut nar, text);
    }
    nar
}

/// The content of the regular file, executable or not, that is all of `nar`; `None` if it is anything else.
pub fn file_content(nar: &[u8]) -> Option<&[u8]> {
    let mut rest = nar;
    for expected in [b"nix-archive-1".as_slice(), b"(", b"type", b"regular"] {
        (take(&mut rest)? == expected).then_some(())?;
    }
    let mut token = take(&mut rest)?;
    if token == b"executable" {
        take(&mut rest)?.is_empty().then_some(())?;
        token = take(&mut rest)?;
    }
    (token == b"contents").then_some(())?;
    let content = take(&mut rest)?;
    (take(&mut rest)? == b")" && rest.is_empty()).then_some(content)
}

fn put(nar: &mut Vec<u8>, text: &[u8]) {
    nar.extend_from_slice(&(text.len() as u64).to_le_bytes());
    nar.extend_from_slice(text);
    nar.resize(nar.len().next_multiple_of(8), 0);
}

fn take<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, behind) = rest.split_first_chunk::<8>()?;
    let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
    let (text, behind) = behind.split_at_checked(length)?;
    let padding = length.checked_next_multiple_of(8)?.checked_sub(length)?;
    let (padding, behind) = behind.split_at_checked(padding)?;
    padding.iter().all(|&byte| byte == 0).then_some(())?;
    *rest = behind;
    Some(text)
}
