//! Whatever texts a peer sends as signatures: those that are kept come out of the database as they went in, where Nix joins
//! them by blanks and takes them apart at every blank; and each is what Nix takes for a signature.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ncc_store::{NarHash, PathInfo, Signature, StorePath};

// One text per zero byte.
fuzz_target!(|data: &[u8]| {
    let path = StorePath::from_base_name("nlhn6cma43vk5l44cgr8sw3ykiir1wmm-hi").unwrap();
    let mut sent = PathInfo::new(path, NarHash::new([0; 32]), 96);
    let texts: Vec<&[u8]> = data.split(|&byte| byte == 0).collect();
    sent.set_signatures(&texts);
    assert!(sent.signatures.len() + sent.malformed_signatures as usize <= texts.len());

    let words: Vec<String> = sent.signatures.iter().map(ToString::to_string).collect();
    let column = words.join(" ");
    let mut read = sent.clone();
    read.set_signatures(column.split(' ').filter(|word| !word.is_empty()));
    assert_eq!(read.signatures, sent.signatures);
    assert_eq!(read.malformed_signatures, 0);
    for word in column.split(' ').filter(|word| !word.is_empty()) {
        assert!(is_signature_to_nix(word), "{word:?}");
    }
    for text in texts.iter().filter_map(|text| std::str::from_utf8(text).ok()) {
        if let Err(error) = text.parse::<Signature>() {
            assert!(!error.to_string().contains(char::is_control), "{error}");
        }
    }
});

/// A name, a colon, base 64 of 64 bytes.
fn is_signature_to_nix(word: &str) -> bool {
    let Some((name, encoded)) = word.split_once(':') else { return false };
    let digits = encoded.trim_end_matches('=');
    let is_digit = |c: char| c.is_ascii_alphanumeric() || c == '+' || c == '/';
    !name.is_empty() && digits.len() == 86 && digits.chars().all(is_digit)
}
