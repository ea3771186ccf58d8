//! Durations in Go's words: `1.5ms`, `1m30s`.

use std::fmt;

/// Nanoseconds, as Go prints a `time.Duration`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Duration(pub i64);

const UNITS: [(u64, usize, &str); 4] = [(1, 0, "ns"), (1_000, 3, "µs"), (1_000_000, 6, "ms"), (1_000_000_000, 9, "s")];

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanoseconds = self.0.unsigned_abs();
        if nanoseconds == 0 {
            return f.write_str("0s");
        }
        if self.0 < 0 {
            f.write_str("-")?;
        }
        let (unit, digits, name) = *UNITS.iter().rev().find(|(unit, ..)| nanoseconds >= *unit).unwrap_or(&UNITS[0]);
        let (mut whole, rest) = (nanoseconds / unit, nanoseconds % unit);
        if digits == 9 && whole >= 60 {
            if whole >= 3600 {
                write!(f, "{}h", whole / 3600)?;
            }
            write!(f, "{}m", whole / 60 % 60)?;
            whole %= 60;
        }
        write!(f, "{whole}")?;
        if rest > 0 {
            write!(f, ".{}", format!("{rest:0digits$}").trim_end_matches('0'))?;
        }
        f.write_str(name)
    }
}

#[cfg(test)]
mod tests {
    use super::Duration;

    #[test]
    fn durations_are_written_as_go_writes_them() {
        let cases = [
            (0, "0s"),
            (1, "1ns"),
            (1_100, "1.1µs"),
            (500_000, "500µs"),
            (2_200_000, "2.2ms"),
            (-1_000_000_000, "-1s"),
            (3_300_000_000, "3.3s"),
            (60_000_000_000, "1m0s"),
            (90_500_000_001, "1m30.500000001s"),
            (3_600_000_000_000, "1h0m0s"),
            (36_610_000_000_000, "10h10m10s"),
            (i64::MAX, "2562047h47m16.854775807s"),
            (i64::MIN, "-2562047h47m16.854775808s"),
        ];
        for (nanoseconds, text) in cases {
            assert_eq!(Duration(nanoseconds).to_string(), text);
        }
    }
}
