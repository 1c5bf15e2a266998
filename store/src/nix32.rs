//! Nix's base 32: most significant digit first, over the bytes read as one little-endian number.

use std::sync::LazyLock;

use data_encoding::{BitOrder, Encoding, Specification};

/// The 32 digits; `e`, `o`, `t` and `u` are left out.
const DIGITS: &str = "0123456789abcdfghijklmnpqrsvwxyz";

/// The same, with the least significant digit first.
static REVERSED: LazyLock<Encoding> = LazyLock::new(|| {
    let mut specification = Specification::new();
    specification.symbols.push_str(DIGITS);
    specification.bit_order = BitOrder::LeastSignificantFirst;
    // Cannot fail: 32 different ASCII digits.
    specification.encoding().unwrap_or(data_encoding::BASE32_NOPAD)
});

/// Whether a byte is one of the digits.
static IS_DIGIT: [bool; 256] = {
    let mut table = [false; 256];
    let mut rest = DIGITS.as_bytes();
    while let [digit, others @ ..] = rest {
        #[expect(clippy::indexing_slicing, reason = "a byte, in a table of 256")]
        {
            table[*digit as usize] = true;
        }
        rest = others;
    }
    table
};

/// How many characters `bytes` bytes take: `ceil(8 * bytes / 5)`.
pub const fn encoded_len(bytes: usize) -> usize {
    (bytes * 8).div_ceil(5)
}

/// Writes `bytes` in Nix's base 32.
pub fn encode(bytes: &[u8]) -> String {
    REVERSED.encode(bytes).chars().rev().collect()
}

/// Reads digits. `None` for a length that no number of bytes has, a foreign character, or set bits beyond the last byte.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let mut digits = text.as_bytes().to_vec();
    digits.reverse();
    REVERSED.decode(&digits).ok()
}

/// Whether `character` is a digit.
pub(crate) fn is_digit(character: u8) -> bool {
    IS_DIGIT.get(usize::from(character)).is_some_and(|&is| is)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn digits_overflowing_the_last_byte_are_refused() {
        let valid = encode(&[0xff; 32]);
        assert!(valid.starts_with('1'));
        assert_eq!(decode(&valid), Some(vec![0xff; 32]));
        assert_eq!(decode(&valid.replacen('1', "2", 1)), None);
    }

    #[test]
    fn letters_outside_the_alphabet_are_refused() {
        for letter in ["e", "o", "t", "u", "A", "-", "="] {
            assert_eq!(decode(&letter.repeat(32)), None, "{letter}");
            assert!(!is_digit(letter.as_bytes()[0]));
        }
        assert!(DIGITS.bytes().all(is_digit));
    }

    /// The definition: digit `k` from the end has the bits from `5 * k` on.
    fn by_definition(bytes: &[u8]) -> String {
        let bit = |bit: usize| bytes.get(bit / 8).is_some_and(|byte| byte >> (bit % 8) & 1 == 1);
        let digit = |k: usize| (0..5).map(|i| usize::from(bit(5 * k + i)) << i).sum::<usize>();
        (0..encoded_len(bytes.len())).rev().map(|k| char::from(DIGITS.as_bytes()[digit(k)])).collect()
    }

    proptest! {
        #[test]
        fn bytes_are_written_as_defined_and_read_again(bytes: Vec<u8>) {
            let text = encode(&bytes);
            prop_assert_eq!(&text, &by_definition(&bytes));
            prop_assert_eq!(decode(&text), Some(bytes));
        }
    }
}
