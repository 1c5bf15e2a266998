//! Nix's base 32: most significant digit first, over the bytes read as one little-endian number.

/// The 32 digits; `e`, `o`, `t` and `u` are left out.
const DIGITS: &[u8; 32] = b"0123456789abcdfghijklmnpqrsvwxyz";

/// How many characters `bytes` bytes take: `ceil(8 * bytes / 5)`.
pub const fn encoded_len(bytes: usize) -> usize {
    (bytes * 8).div_ceil(5)
}

/// Writes `bytes` in Nix's base 32.
pub fn encode(bytes: &[u8]) -> String {
    (0..encoded_len(bytes.len()))
        .rev()
        .map(|digit| {
            let bit = digit * 5;
            let low = bytes.get(bit / 8).copied().unwrap_or(0);
            let high = bytes.get(bit / 8 + 1).copied().unwrap_or(0);
            let value = u16::from_le_bytes([low, high]) >> (bit % 8);
            char::from(DIGITS.get(usize::from(value & 31)).copied().unwrap_or(b'0'))
        })
        .collect()
}

/// The value of one digit, if it is one.
pub(crate) fn digit(character: u8) -> Option<u8> {
    let position = DIGITS.iter().position(|&digit| digit == character)?;
    u8::try_from(position).ok()
}

/// Reads exactly `N` bytes. `None` for a wrong length, a foreign character, or set bits beyond the last byte.
pub fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != encoded_len(N) {
        return None;
    }
    let mut bytes = [0u8; N];
    for (index, character) in text.bytes().rev().enumerate() {
        let bit = index * 5;
        let [low, high] = (u16::from(digit(character)?) << (bit % 8)).to_le_bytes();
        *bytes.get_mut(bit / 8)? |= low;
        match bytes.get_mut(bit / 8 + 1) {
            Some(byte) => *byte |= high,
            None if high != 0 => return None,
            None => {}
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn digits_overflowing_the_last_byte_are_refused() {
        let valid = encode(&[0xff; 32]);
        assert!(valid.starts_with('1'));
        assert_eq!(decode::<32>(&valid), Some([0xff; 32]));
        assert_eq!(decode::<32>(&valid.replacen('1', "2", 1)), None);
    }

    #[test]
    fn letters_outside_the_alphabet_are_refused() {
        for letter in ["e", "o", "t", "u", "A", "-"] {
            assert_eq!(decode::<20>(&letter.repeat(32)), None, "{letter}");
        }
    }

    proptest! {
        #[test]
        fn every_sha256_round_trips(bytes: [u8; 32]) {
            prop_assert_eq!(decode::<32>(&encode(&bytes)), Some(bytes));
        }
    }
}
