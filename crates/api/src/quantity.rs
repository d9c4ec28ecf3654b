//! Kubernetes quantities as bytes, and bytes for people.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// Reads quantities that mean bytes.
#[derive(Clone, Copy, Debug)]
pub struct Quota;

/// A quantity that is no number of bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    #[error("'{0}' is not a quantity; write a number with an optional suffix, such as 40Gi or 500M")]
    Malformed(String),
    #[error("'{0}' is negative; write a quantity of bytes of 0 or more, such as 40Gi")]
    Negative(String),
    #[error("'{0}' is more than 8Ei - 1 bytes; write a smaller quantity, such as 40Gi")]
    TooLarge(String),
}

/// Suffixes and their factors as (numerator, power of ten below one), longest first.
const SUFFIXES: &[(&str, u128)] = &[
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("Ti", 1 << 40),
    ("Pi", 1 << 50),
    ("Ei", 1 << 60),
    ("k", 1_000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("T", 1_000_000_000_000),
    ("P", 1_000_000_000_000_000),
    ("E", 1_000_000_000_000_000_000),
];

/// `10^exponent`, while it fits what is computed here.
fn power_of_ten(exponent: u32) -> Option<u128> {
    10_u128.checked_pow(exponent)
}

impl Quota {
    /// The quantity in bytes, fractions rounded up. The grammar is that of `resource.Quantity` in Kubernetes'
    /// apimachinery: an optional sign, digits with an optional point, and a suffix that is binary (`Ki` to `Ei`),
    /// decimal (`n`, `u`, `m`, none, `k` to `E`) or an exponent (`e3`, `E-2`).
    pub fn bytes(quantity: &Quantity) -> Result<u64, QuantityError> {
        parse(&quantity.0)
    }
}

fn parse(text: &str) -> Result<u64, QuantityError> {
    let malformed = || QuantityError::Malformed(text.to_owned());
    let too_large = || QuantityError::TooLarge(text.to_owned());

    let (negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
        return Err(malformed());
    }
    let (factor, mut divisor_digits) = factor(suffix).ok_or_else(malformed)?;
    // Beyond the scale of the smallest suffix nothing but rounding up is left of a fraction.
    let fraction = fraction.trim_end_matches('0');
    let digits = format!("{whole}{fraction}");
    divisor_digits += fraction.len() as u32;

    let digits: u128 = digits
        .trim_start_matches('0')
        .parse()
        .or_else(|error| empty_is_zero(&error, &digits))
        .map_err(|()| too_large())?;
    if negative && digits > 0 {
        return Err(QuantityError::Negative(text.to_owned()));
    }
    let scaled = factor.and_then(|factor| digits.checked_mul(factor)).ok_or_else(too_large)?;
    let bytes = match power_of_ten(divisor_digits) {
        Some(divisor) => scaled.div_ceil(divisor),
        None => u128::from(scaled > 0),
    };
    i64::try_from(bytes).map(i64::unsigned_abs).map_err(|_| too_large())
}

/// A number of zeros only is zero; every other failure to parse digits is one of size.
fn empty_is_zero(_: &std::num::ParseIntError, digits: &str) -> Result<u128, ()> {
    if digits.bytes().all(|digit| digit == b'0') { Ok(0) } else { Err(()) }
}

/// What a suffix multiplies by (`None` inside when that overflows), and the decimal digits that it divides by.
fn factor(suffix: &str) -> Option<(Option<u128>, u32)> {
    match suffix {
        "" => return Some((Some(1), 0)),
        "m" => return Some((Some(1), 3)),
        "u" => return Some((Some(1), 6)),
        "n" => return Some((Some(1), 9)),
        _ => {}
    }
    if let Some((_, factor)) = SUFFIXES.iter().find(|(name, _)| *name == suffix) {
        return Some((Some(*factor), 0));
    }
    let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
    if exponent < 0 {
        Some((Some(1), exponent.unsigned_abs()))
    } else {
        Some((power_of_ten(exponent.unsigned_abs()), 0))
    }
}

/// Bytes for people: three digits and a binary unit, `1.50GiB`.
pub fn human_bytes(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    // What would round to 1000 goes to the next unit, so that no more than three digits show.
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let decimals = match value {
        _ if unit == 0 => 0,
        v if v < 9.995 => 2,
        v if v < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.decimals$}{}", UNITS[unit])
}

/// `part` of `whole` in percent to one decimal; `None` when there is no whole. 100 only when nothing is missing.
pub(crate) fn percent(part: u64, whole: u64) -> Option<f64> {
    if whole == 0 {
        return None;
    }
    let tenths = (u128::from(part.min(whole)) * 1000 / u128::from(whole)) as u32;
    Some(f64::from(tenths) / 10.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_kubernetes_reads_them() {
        let table: &[(&str, Result<u64, ()>)] = &[
            ("0", Ok(0)),
            ("-0", Ok(0)),
            ("1", Ok(1)),
            ("+7", Ok(7)),
            ("40Gi", Ok(40 << 30)),
            ("1.5Gi", Ok(3 << 29)),
            (".5Ki", Ok(512)),
            ("5.Ki", Ok(5120)),
            ("500M", Ok(500_000_000)),
            ("10k", Ok(10_000)),
            ("1e3", Ok(1000)),
            ("1E3", Ok(1000)),
            ("2E", Ok(2_000_000_000_000_000_000)),
            ("1Ei", Ok(1 << 60)),
            ("15e-1", Ok(2)),
            ("100m", Ok(1)),
            ("1500m", Ok(2)),
            ("1n", Ok(1)),
            ("0.0000000000000000000000000000000000000000000001", Ok(1)),
            ("0000000000000000000000000000000000000000000000001", Ok(1)),
            ("9223372036854775807", Ok(i64::MAX as u64)),
            ("9223372036854775808", Err(())),
            ("8Ei", Err(())),
            ("1e99", Err(())),
            ("999999999999999999999999999999999999999999", Err(())),
            ("", Err(())),
            (".", Err(())),
            ("-1Gi", Err(())),
            ("Gi", Err(())),
            ("1GiB", Err(())),
            ("1 Gi", Err(())),
            ("1K", Err(())),
            ("1.2.3", Err(())),
            ("1e", Err(())),
            ("1e1.5", Err(())),
            ("0x10", Err(())),
        ];
        for (text, expected) in table {
            assert_eq!(Quota::bytes(&Quantity((*text).to_owned())).map_err(|_| ()), *expected, "{text}");
        }
    }

    #[test]
    fn a_refused_quantity_is_named_with_its_mend() {
        for text in ["40 Gi", "-1Gi", "8Ei"] {
            let message = Quota::bytes(&Quantity(text.to_owned())).unwrap_err().to_string();
            assert!(message.contains(text) && message.contains("40Gi"), "{message}");
        }
    }

    #[test]
    fn bytes_for_people_have_three_digits() {
        let table = [
            (0, "0B"),
            (999, "999B"),
            (1000, "0.98KiB"),
            (1024, "1.00KiB"),
            (1536, "1.50KiB"),
            (10 << 20, "10.0MiB"),
            (999 << 20, "999MiB"),
            (1000 << 20, "0.98GiB"),
            (40 << 30, "40.0GiB"),
            (1 << 40, "1.00TiB"),
            (u64::MAX, "16.0EiB"),
        ];
        for (bytes, expected) in table {
            assert_eq!(human_bytes(bytes), expected, "{bytes}");
        }
    }

    #[test]
    fn a_percentage_is_whole_only_when_all_is_there() {
        let table = [
            (0, 0, None),
            (0, 7, Some(0.0)),
            (1, 3, Some(33.3)),
            (999_999, 1_000_000, Some(99.9)),
            (5, 5, Some(100.0)),
        ];
        for (part, whole, expected) in table {
            assert_eq!(percent(part, whole), expected, "{part} of {whole}");
        }
    }
}
