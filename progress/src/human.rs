//! Numbers as people read them.

use std::time::Duration;

const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

/// `34.5 MiB`.
pub fn bytes(count: u64) -> String {
    let unit = unit_of(count);
    format!("{} {}", in_unit(count, unit), UNITS[unit])
}

/// The size of a NAR. No NAR has 0 bytes: that stands for a size that nobody has recorded.
pub fn nar(size: u64) -> String {
    if size == 0 { "unknown size".to_owned() } else { bytes(size) }
}

/// The size of several: `34.5 MiB`, `at least 34.5 MiB` where that of some is not known.
pub fn nars(sizes: impl IntoIterator<Item = u64>) -> String {
    let (mut sum, mut all_known) = (0_u64, true);
    for size in sizes {
        sum = sum.saturating_add(size);
        all_known &= size != 0;
    }
    match (sum, all_known) {
        (_, true) => bytes(sum),
        (0, false) => nar(0),
        (_, false) => format!("at least {}", bytes(sum)),
    }
}

/// `34.5/120.3 MiB`: both in the unit of the second, so that the eye need not convert.
pub(crate) fn bytes_of(count: u64, total: u64) -> String {
    let unit = unit_of(total);
    format!("{}/{} {}", in_unit(count, unit), in_unit(total, unit), UNITS[unit])
}

/// The largest unit that gives at least 1, and never four digits before the point.
fn unit_of(count: u64) -> usize {
    let mut unit = 0;
    // 999.95 KiB would be shown as 1000.0.
    while unit + 1 < UNITS.len() && value(count, unit) >= 999.95 {
        unit += 1;
    }
    unit
}

#[expect(clippy::cast_precision_loss, reason = "one digit behind the point is shown")]
fn value(count: u64, unit: usize) -> f64 {
    count as f64 / 1024_f64.powi(i32::try_from(unit).unwrap_or(0))
}

fn in_unit(count: u64, unit: usize) -> String {
    if unit == 0 { count.to_string() } else { format!("{:.1}", value(count, unit)) }
}

/// `0.3 s`, `16 s`, `2 min 05 s`, `1 h 04 min`.
pub fn duration(duration: Duration) -> String {
    if duration < Duration::from_secs(10) {
        return format!("{:.1} s", duration.as_secs_f64());
    }
    whole_seconds(duration)
}

/// The same without tenths, for what is redrawn all the time.
pub(crate) fn whole_seconds(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} min", seconds / 3600, seconds / 60 % 60),
    }
}

/// `1 path`, `2 paths`.
pub fn paths(count: usize) -> String {
    if count == 1 { "1 path".to_owned() } else { format!("{count} paths") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_that_is_not_recorded_is_no_size() {
        assert_eq!((nar(0), nar(456)), ("unknown size".to_owned(), "456 B".to_owned()));
        for (sizes, text) in [
            (&[][..], "0 B"),
            (&[456, 456], "912 B"),
            (&[456, 0], "at least 456 B"),
            (&[0, 0], "unknown size"),
            (&[u64::MAX, u64::MAX], "16384.0 PiB"),
        ] {
            assert_eq!(nars(sizes.iter().copied()), text);
        }
    }

    #[test]
    fn bytes_have_one_digit_and_a_unit() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(1000), "1.0 KiB");
        assert_eq!(bytes(1023 * 1024), "1.0 MiB");
        assert_eq!(bytes(36_175_872), "34.5 MiB");
        assert_eq!(bytes(u64::MAX), "16384.0 PiB");
        assert_eq!(bytes_of(512, 3 << 20), "0.0/3.0 MiB");
        assert_eq!(bytes_of(36_175_872, 126_143_693), "34.5/120.3 MiB");
    }

    #[test]
    fn durations_get_coarser_as_they_grow() {
        assert_eq!(duration(Duration::from_millis(3240)), "3.2 s");
        assert_eq!(duration(Duration::from_secs(16)), "16 s");
        assert_eq!(duration(Duration::from_secs(125)), "2 min 05 s");
        assert_eq!(duration(Duration::from_secs(64 * 60)), "1 h 04 min");
        assert_eq!(whole_seconds(Duration::from_millis(3240)), "3 s");
    }
}
