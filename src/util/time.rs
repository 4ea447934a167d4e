//! Wall-clock time as milliseconds since 1970, and its two text forms.

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds of a day.
pub const DAY_MS: i64 = 86_400_000;

/// Milliseconds since 1970-01-01T00:00:00Z; 0 if the clock stands before that.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// RFC 3339 in UTC with milliseconds: `2026-11-23T16:08:00.000Z`.
pub fn rfc3339(ms: i64) -> String {
    let c = Civil::from_ms(ms);
    let mut text = String::with_capacity(24);
    let parts = [(c.year, 4, '-'), (c.month, 2, '-'), (c.day, 2, 'T'), (c.hour, 2, ':')];
    let more = [(c.minute, 2, ':'), (c.second, 2, '.'), (c.milli, 3, 'Z')];
    for (number, digits, end) in parts.into_iter().chain(more) {
        // By hand: every row of every list has such times, and formatting costs ten times this.
        for place in (0..digits).rev() {
            let digit = u8::try_from(number / 10_i64.pow(place) % 10).unwrap_or(0);
            text.push(char::from(b'0' + digit));
        }
        text.push(end);
    }
    text
}

struct Civil {
    year: i64,
    month: i64,
    day: i64,
    hour: i64,
    minute: i64,
    second: i64,
    milli: i64,
}

impl Civil {
    /// The proleptic Gregorian calendar in eras of 400 years that begin on 1 March, so that the
    /// leap day is the last of its year.
    fn from_ms(ms: i64) -> Civil {
        let (days, in_day) = (ms.div_euclid(DAY_MS), ms.rem_euclid(DAY_MS));
        let from_era0 = days + 719_468;
        let (era, day_of_era) = (from_era0.div_euclid(146_097), from_era0.rem_euclid(146_097));
        let year_of_era =
            (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted = (5 * day_of_year + 2) / 153;
        let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
        Civil {
            year: year_of_era + era * 400 + i64::from(month <= 2),
            month,
            day: day_of_year - (153 * shifted + 2) / 5 + 1,
            hour: in_day / 3_600_000,
            minute: in_day / 60_000 % 60,
            second: in_day / 1000 % 60,
            milli: in_day % 1000,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_written_in_utc_with_milliseconds() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(1_795_450_080_007), "2026-11-23T16:08:00.007Z");
        assert_eq!(rfc3339(951_782_400_000), "2000-02-29T00:00:00.000Z");
    }
}
