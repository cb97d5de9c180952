//! Writes numbers: a page has millions of them.

/// Appends a number in decimal.
pub(super) fn push(out: &mut String, mut number: u64) {
    const LONGEST: usize = 20;
    let mut digits = [0_u8; LONGEST];
    let mut at = LONGEST;
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    // Digits are ASCII.
    out.push_str(std::str::from_utf8(&digits[at..]).unwrap_or_default());
}

/// Appends thousandths as a decimal fraction without zeros at its end: 1500 as `1.5`.
pub(super) fn push_thousandths(out: &mut String, number: u64) {
    push(out, number / 1_000);
    let rest = number % 1_000;
    if rest > 0 {
        out.push('.');
        let text = [rest / 100, rest / 10 % 10, rest % 10];
        let end = text.iter().rposition(|digit| *digit > 0).unwrap_or(0);
        for digit in &text[..=end] {
            push(out, *digit);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_the_standard_library_does() {
        for number in [0, 9, 10, 12_345, u64::MAX] {
            let mut out = String::new();
            push(&mut out, number);
            assert_eq!(out, number.to_string());
        }
        for (number, expected) in [
            (0, "0"),
            (1_500, "1.5"),
            (2_000, "2"),
            (7, "0.007"),
            (70, "0.07"),
        ] {
            let mut out = String::new();
            push_thousandths(&mut out, number);
            assert_eq!(out, expected);
        }
    }
}
