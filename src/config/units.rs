//! Sizes, durations and port lists, as people write them. A value that was written as text reads back as the same
//! value.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

/// A number of bytes. Units: `b kb mb gb tb pb` in any case, powers of 1024; without a unit, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

const SIZE_UNITS: [(&str, u128); 6] =
    [("pb", 1 << 50), ("tb", 1 << 40), ("gb", 1 << 30), ("mb", 1 << 20), ("kb", 1 << 10), ("b", 1)];

impl FromStr for ByteSize {
    type Err = String;

    /// A fraction is allowed (`1.5kb`) and rounded to whole bytes.
    fn from_str(text: &str) -> Result<Self, String> {
        check_form::<Self>(text)?;
        let (digits, unit) = split_unit(text);
        let factor = match unit.to_ascii_lowercase().as_str() {
            "" => 1,
            unit => lookup(&SIZE_UNITS, unit).ok_or_else(|| {
                format!("`{text}`: unknown unit `{unit}`, use b, kb, mb, gb, tb or pb")
            })?,
        };
        let bytes = scale(digits, factor)
            .ok_or_else(|| format!("`{text}` is not a size, write for instance 128kb or 1.5gb"))?;
        u64::try_from(bytes).map(Self).map_err(|_| format!("`{text}` is too large"))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_with_unit(f, u128::from(self.0), &SIZE_UNITS, "b")
    }
}

/// A span of time, in whole microseconds. Units: `us ms s m h hr d w mo yr`; without a unit, seconds. A month is 30
/// days, a year 365.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TimeSpan(pub Duration);

const SECOND: u128 = 1_000_000;
const DAY: u128 = 86_400 * SECOND;

/// In microseconds. `h` comes after `hr`: it is read, but never written.
const TIME_UNITS: [(&str, u128); 10] = [
    ("yr", 365 * DAY),
    ("mo", 30 * DAY),
    ("w", 7 * DAY),
    ("d", DAY),
    ("hr", 3600 * SECOND),
    ("h", 3600 * SECOND),
    ("m", 60 * SECOND),
    ("s", SECOND),
    ("ms", 1000),
    ("us", 1),
];

/// The longest span that a key takes. It is so short that a timestamp cannot overflow.
const LONGEST: u128 = 100 * 365 * DAY;

impl FromStr for TimeSpan {
    type Err = String;

    /// A fraction is allowed (`1.5h`) and rounded to whole microseconds.
    fn from_str(text: &str) -> Result<Self, String> {
        check_form::<Self>(text)?;
        let (digits, unit) = split_unit(text);
        let factor = match unit.to_ascii_lowercase().as_str() {
            "" => SECOND,
            unit => lookup(&TIME_UNITS, unit).ok_or_else(|| {
                format!("`{text}`: unknown unit `{unit}`, use us, ms, s, m, h, hr, d, w, mo or yr")
            })?,
        };
        let micros = scale(digits, factor)
            .ok_or_else(|| format!("`{text}` is not a duration, write for instance 30s or 1.5h"))?;
        if micros > LONGEST {
            return Err(format!("`{text}` is longer than 100yr"));
        }
        let micros = u64::try_from(micros).expect("a hundred years of microseconds fit");
        Ok(Self(Duration::from_micros(micros)))
    }
}

impl fmt::Display for TimeSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_with_unit(f, self.0.as_micros(), &TIME_UNITS, "s")
    }
}

/// A set of ports, written as `2048`, `2048-2051` or `2048+3` (which is 2048-2051), joined by commas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortList(Vec<u16>);

impl PortList {
    /// The ports, ascending, each once. A list that was read from text is never empty.
    pub fn as_slice(&self) -> &[u16] {
        &self.0
    }

    /// Whether `port` is one of them.
    pub fn contains(&self, port: u16) -> bool {
        self.0.binary_search(&port).is_ok()
    }
}

impl FromIterator<u16> for PortList {
    fn from_iter<I: IntoIterator<Item = u16>>(ports: I) -> Self {
        let mut ports: Vec<u16> = ports.into_iter().collect();
        ports.sort_unstable();
        ports.dedup();
        Self(ports)
    }
}

impl FromStr for PortList {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let ranges: Vec<_> =
            text.split(',').map(|part| port_range(part.trim())).collect::<Result<_, _>>()?;
        Ok(ranges.into_iter().flatten().collect())
    }
}

fn port_range(part: &str) -> Result<RangeInclusive<u16>, String> {
    // As firewalls, other programs and typography write ranges.
    let with_hyphen = part.replace([':', '\u{2013}'], "-").replace("..", "-");
    if with_hyphen != part && port_range(&with_hyphen).is_ok() {
        return Err(format!("`{part}`: write the range with a hyphen, {with_hyphen}"));
    }
    let (first, last) = if let Some((first, last)) = part.split_once('-') {
        (parse_port(first)?, parse_port(last)?)
    } else if let Some((first, more)) = part.split_once('+') {
        let first = parse_port(first)?;
        let more: u16 = parse_digits(more.trim())
            .ok_or_else(|| format!("`{part}`: `{}` is not a number of ports", more.trim()))?;
        let last =
            first.checked_add(more).ok_or_else(|| format!("`{part}` goes beyond port 65535"))?;
        (first, last)
    } else {
        let port = parse_port(part)?;
        (port, port)
    };
    if first > last {
        return Err(format!("`{part}` ends before it starts"));
    }
    Ok(first..=last)
}

fn parse_port(text: &str) -> Result<u16, String> {
    parse_digits(text.trim())
        .filter(|port| *port != 0)
        .ok_or_else(|| format!("`{}` is not a port, ports are 1 to 65535", text.trim()))
}

/// Parses a number of decimal digits only. (`u16::from_str` would take a sign too.)
pub fn parse_digits<T: FromStr>(text: &str) -> Option<T> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

impl fmt::Display for PortList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_ports(f, &self.0)
    }
}

/// Writes ascending ports as ranges joined by commas.
fn write_ports(f: &mut fmt::Formatter<'_>, ports: &[u16]) -> fmt::Result {
    let runs = ports.chunk_by(|a, b| a.checked_add(1) == Some(*b));
    for (index, run) in runs.enumerate() {
        if index > 0 {
            f.write_str(",")?;
        }
        match run {
            [first, .., last] => write!(f, "{first}-{last}")?,
            [only] => write!(f, "{only}")?,
            [] => {}
        }
    }
    Ok(())
}

/// Refuses a sign, and spaces without which the text would be right.
fn check_form<T: FromStr>(text: &str) -> Result<(), String> {
    if text.starts_with('-') {
        return Err(format!("`{text}` is less than nothing, write it without the sign"));
    }
    let joined: String = text.split_whitespace().collect();
    if joined != text && joined.parse::<T>().is_ok() {
        return Err(format!("`{text}`: write it without the space, {joined}"));
    }
    Ok(())
}

fn split_unit(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    text.split_at(end)
}

fn lookup(units: &[(&str, u128)], name: &str) -> Option<u128> {
    units.iter().find(|(unit, _)| *unit == name).map(|(_, factor)| *factor)
}

/// `digits`, which may have a fraction, times `factor`, rounded to the nearest number. `None` for other text.
fn scale(digits: &str, factor: u128) -> Option<u128> {
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    if fraction.len() > 15 {
        return None;
    }
    let whole: u128 = u128::from(parse_digits::<u64>(whole)?);
    let part: u128 = parse_digits(fraction)?;
    let parts = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    Some(whole * factor + (part * factor + parts / 2) / parts)
}

/// Writes `value` with the largest unit that leaves no fraction.
fn write_with_unit(
    f: &mut fmt::Formatter<'_>,
    value: u128,
    units: &[(&str, u128)],
    unit_of_zero: &str,
) -> fmt::Result {
    let fitting = units.iter().find(|(_, factor)| value.is_multiple_of(*factor));
    match fitting {
        Some((unit, factor)) if value != 0 => write!(f, "{}{unit}", value / factor),
        Some(_) | None => write!(f, "0{unit_of_zero}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let cases = [
            ("0", 0),
            ("17", 17),
            ("17b", 17),
            ("128kb", 128 << 10),
            ("128KB", 128 << 10),
            ("1.5kb", 1536),
            ("0.3kb", 307),
            ("4Gb", 4 << 30),
            ("1tb", 1 << 40),
            ("1pb", 1 << 50),
        ];
        for (text, bytes) in cases {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
    }

    #[test]
    fn an_error_names_what_is_no_size() {
        for text in [
            "",
            "kb",
            "-1kb",
            "1,5kb",
            "1.kb",
            ".5kb",
            "1.2.3",
            "12eb",
            "5 kb",
            "1e3",
            "99999pb",
            "99999999999999999999",
        ] {
            let error = text.parse::<ByteSize>().unwrap_err();
            assert!(error.contains(text), "{text}: {error}");
        }
    }

    #[test]
    fn durations() {
        let cases = [
            ("0", Duration::ZERO),
            ("7us", Duration::from_micros(7)),
            ("100ms", Duration::from_millis(100)),
            ("30", Duration::from_secs(30)),
            ("5hr", Duration::from_secs(5 * 3600)),
            ("1.5h", Duration::from_secs(5400)),
            ("2m", Duration::from_secs(120)),
            ("1mo", Duration::from_secs(30 * 86_400)),
            ("1YR", Duration::from_secs(365 * 86_400)),
        ];
        for (text, span) in cases {
            assert_eq!(text.parse(), Ok(TimeSpan(span)), "{text}");
        }
        for text in ["", "s", "5hours", "5 hours", "101yr", "1s5"] {
            assert!(text.parse::<TimeSpan>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_people_write_is_answered_with_what_to_write() {
        let error = |text: &str| text.parse::<TimeSpan>().unwrap_err();
        assert_eq!(error("30 s"), "`30 s`: write it without the space, 30s");
        assert_eq!(error("-1s"), "`-1s` is less than nothing, write it without the sign");
        let error = |text: &str| text.parse::<ByteSize>().unwrap_err();
        assert_eq!(error("128 kb"), "`128 kb`: write it without the space, 128kb");
        let error = |text: &str| text.parse::<PortList>().unwrap_err();
        for range in ["49152:51200", "49152..51200", "49152\u{2013}51200"] {
            let expected = format!("`{range}`: write the range with a hyphen, 49152-51200");
            assert_eq!(error(&format!("1,{range}")), expected);
        }
    }

    #[test]
    fn ports() {
        let cases: [(&str, &[u16]); 5] = [
            ("2048", &[2048]),
            ("2048-2051", &[2048, 2049, 2050, 2051]),
            ("2048+3", &[2048, 2049, 2050, 2051]),
            ("10, 9,8-9 ,10", &[8, 9, 10]),
            ("65535", &[65535]),
        ];
        for (text, ports) in cases {
            assert_eq!(text.parse::<PortList>().unwrap().as_slice(), ports, "{text}");
        }
        for text in ["", "0", "70000", "5-", "9-8", "65530+10", "1-2-3", "+5", "a", "1,,2", "+1-2"]
        {
            assert!(text.parse::<PortList>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_written_value_reads_back_the_same() {
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..2000 {
            let size = ByteSize(random.u64(..) >> random.u32(..64));
            assert_eq!(size.to_string().parse(), Ok(size));
            let span = TimeSpan(Duration::from_micros(
                random.u64(..3_153_600_000_000_000) >> random.u32(..50),
            ));
            assert_eq!(span.to_string().parse(), Ok(span));
            let first = random.u16(1..);
            let ports: PortList = (0..40).map(|_| first.saturating_add(random.u16(..60))).collect();
            assert_eq!(ports.to_string().parse(), Ok(ports));
        }
    }

    #[test]
    fn defaults_are_written_as_people_write_them() {
        assert_eq!(ByteSize(128 << 10).to_string(), "128kb");
        assert_eq!(TimeSpan(Duration::from_secs(4 * 3600)).to_string(), "4hr");
        assert_eq!((49152..=51200).collect::<PortList>().to_string(), "49152-51200");
    }
}
