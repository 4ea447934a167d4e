//! Wall-clock time as milliseconds since 1970, and its text form.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Milliseconds of a day.
pub const DAY_MS: i64 = 86_400_000;

/// Milliseconds since 1970-01-01T00:00:00Z; 0 if the clock is set to an earlier time.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// RFC 3339 in UTC with milliseconds: `2026-11-23T16:08:00.000Z`, from 1970 to 9999.
pub fn rfc3339(ms: i64) -> String {
    let ms = ms.clamp(0, LAST_MS).unsigned_abs();
    let date = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_millis(ms));
    // `Mon, 23 Nov 2026 16:08:00 GMT`
    let mut words = date.split(' ').skip(1);
    let mut word = || words.next().unwrap_or_default();
    let (day, month, year, time) = (word(), word(), word(), word());
    let month = MONTHS.split_once(month).and_then(|(_, after)| after.get(..2)).unwrap_or_default();
    format!("{year}-{month}-{day}T{time}.{:03}Z", ms % 1000)
}

const MONTHS: &str = "Jan01Feb02Mar03Apr04May05Jun06Jul07Aug08Sep09Oct10Nov11Dec12";
/// The last moment of the year 9999.
const LAST_MS: i64 = 253_402_300_799_999;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_written_in_utc_with_milliseconds() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(1_795_450_080_007), "2026-11-23T16:08:00.007Z");
        assert_eq!(rfc3339(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(rfc3339(i64::MAX), "9999-12-31T23:59:59.999Z");
        assert_eq!(rfc3339(-1), "1970-01-01T00:00:00.000Z");
    }
}
