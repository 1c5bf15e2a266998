//! Bytes for people.

/// Each is 1024 of the one before.
const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

/// A number of bytes in binary units: `96 B`, `4.2 KiB`, `512.0 MiB`. Never four digits before the point, so that
/// columns stay narrow.
pub(crate) fn human(bytes: u64) -> String {
    let mut unit = 0;
    let mut unit_size = 1_u128;
    let tenths = |unit_size: u128| (u128::from(bytes) * 10 + unit_size / 2) / unit_size;
    while unit + 1 < UNITS.len() && tenths(unit_size) >= 10_000 {
        unit += 1;
        unit_size <<= 10;
    }
    let tenths = tenths(unit_size);
    if unit == 0 { format!("{bytes} B") } else { format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::human;

    #[test]
    fn sizes_read_as_people_write_them() {
        for (bytes, text) in [
            (0, "0 B"),
            (96, "96 B"),
            (999, "999 B"),
            (1000, "1.0 KiB"),
            (4300, "4.2 KiB"),
            (1023 * 1024, "1.0 MiB"),
            (36_175_872, "34.5 MiB"),
            (5 << 30, "5.0 GiB"),
            (u64::MAX, "16384.0 PiB"),
        ] {
            assert_eq!(human(bytes), text, "{bytes}");
        }
    }
}
