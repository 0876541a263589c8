//! Numbers and times as people read them.

/// A whole number with commas: `1,204,000`.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A rate: with tenths below ten, so that one in some seconds is not none.
pub(super) fn rate(per_second: f64) -> String {
    if per_second > 0.0 && per_second < 10.0 {
        format!("{per_second:.1}")
    } else {
        grouped(per_second.round() as u64)
    }
}

/// Bytes in units of 1,024, as the settings count them.
pub(super) fn bytes(bytes: f64) -> String {
    let mut amount = bytes;
    for unit in ["B", "kB", "MB", "GB"] {
        if amount < 1024.0 {
            let decimals = usize::from(unit != "B" && amount < 100.0);
            return format!("{amount:.decimals$} {unit}");
        }
        amount /= 1024.0;
    }
    format!("{amount:.1} TB")
}

/// A time that something took, in the unit that fits.
pub(super) fn short_time(seconds: f64) -> String {
    let (amount, unit) = match seconds {
        s if s < 1e-3 => (s * 1e6, "us"),
        s if s < 1.0 => (s * 1e3, "ms"),
        s => (s, "s"),
    };
    let decimals = usize::from(amount < 10.0);
    let text = format!("{amount:.decimals$}");
    format!("{} {unit}", text.strip_suffix(".0").unwrap_or(&text))
}

/// A long time by its two largest units: `2 d 3 h`, `12 min 5 s`.
pub(super) fn long_time(seconds: u64) -> String {
    let units = [(86_400, "d"), (3600, "h"), (60, "min"), (1, "s")];
    let first = units.iter().position(|(length, _)| seconds >= *length).unwrap_or(3);
    let mut left = seconds;
    let shown = units.iter().skip(first).take(2).filter_map(|(length, unit)| {
        let count = left / length;
        left %= length;
        (count > 0 || seconds == 0).then(|| format!("{count} {unit}"))
    });
    shown.collect::<Vec<_>>().join(" ")
}

/// A time since 1970 as date and time.
pub(super) fn date(seconds: u64) -> String {
    let (mut year, mut days) = (1970, seconds / 86_400);
    let is_leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    while days >= 365 + u64::from(is_leap(year)) {
        days -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let mut month = 1;
    for length in [31, 28 + u64::from(is_leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    let (hour, minute) = (seconds / 3600 % 24, seconds / 60 % 60);
    format!("{year}-{month:02}-{:02} {hour:02}:{minute:02} UTC", days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_204_000, "1,204,000")] {
            assert_eq!(grouped(number), text);
        }
        for (number, text) in [(0.0, "0"), (0.26, "0.3"), (10.4, "10"), (1234.5, "1,235")] {
            assert_eq!(rate(number), text);
        }
    }

    #[test]
    fn sizes() {
        for (size, text) in [
            (0.0, "0 B"),
            (1023.0, "1023 B"),
            (1536.0, "1.5 kB"),
            (3e8, "286 MB"),
            (2e13, "18.2 TB"),
        ] {
            assert_eq!(bytes(size), text);
        }
    }

    #[test]
    fn times() {
        for (seconds, text) in
            [(2.5e-6, "2.5 us"), (0.001, "1 ms"), (0.025, "25 ms"), (1.5, "1.5 s")]
        {
            assert_eq!(short_time(seconds), text);
        }
        for (seconds, text) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (725, "12 min 5 s"),
            (183_600, "2 d 3 h"),
            (86_401, "1 d"),
        ] {
            assert_eq!(long_time(seconds), text);
        }
    }

    #[test]
    fn dates_are_those_of_date_1() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00 UTC"),
            (951_782_400, "2000-02-29 00:00 UTC"),
            (1_767_225_599, "2025-12-31 23:59 UTC"),
            (1_795_653_000, "2026-11-26 00:30 UTC"),
            (4_107_542_400, "2100-03-01 00:00 UTC"),
        ] {
            assert_eq!(date(seconds), text);
        }
    }
}
