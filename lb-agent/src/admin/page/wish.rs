//! Pure: the options behind a statistics URL, `;up;no-maint;scope=web;page=2;st=DONE`.

/// What a reader wants to see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::admin) struct Wish {
    /// No servers that are DOWN.
    pub(in crate::admin) up: bool,
    /// No servers that are in maintenance.
    pub(in crate::admin) no_maint: bool,
    /// Only proxies whose name contains this.
    pub(in crate::admin) scope: String,
    /// What came of an order.
    pub(in crate::admin) outcome: Option<String>,
    /// Which part of a long list, from 0 on.
    pub(in crate::admin) page: usize,
}

/// The longest text that is searched for, bytes.
const LONGEST: usize = 256;

// === impl Wish ===

impl Wish {
    /// The options of a raw request target; what is not known is left out. A form's `?scope=web` counts, too.
    pub(in crate::admin) fn read(target: &str) -> Self {
        let mut wish = Self::default();
        for option in target.split([';', '?', '&']).skip(1) {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            match name {
                "up" => wish.up = true,
                "no-maint" => wish.no_maint = true,
                "scope" => wish.scope = decoded(value),
                "st" => wish.outcome = Some(decoded(value)),
                "page" => wish.page = value.parse().unwrap_or(0).min(1_000_000),
                _ => {}
            }
        }
        wish
    }

    /// The address of the page with these options.
    pub(super) fn target(&self) -> String {
        let mut target = "/haproxy?stats".to_owned();
        if self.up {
            target.push_str(";up");
        }
        if self.no_maint {
            target.push_str(";no-maint");
        }
        if !self.scope.is_empty() {
            target.push_str(";scope=");
            for byte in self.scope.bytes() {
                match byte {
                    b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b':' => {
                        target.push(char::from(byte));
                    }
                    byte => target.push_str(&format!("%{byte:02X}")),
                }
            }
        }
        if self.page > 0 {
            target.push_str(&format!(";page={}", self.page));
        }
        target
    }
}

/// Percent signs and `+` of a form, RFC 3986 section 2.1; what is no UTF-8 becomes a replacement character.
fn decoded(text: &str) -> String {
    let text = text.as_bytes();
    let mut bytes = Vec::new();
    let mut at = 0;
    while at < text.len() && bytes.len() < LONGEST {
        let pair = text.get(at + 1..at + 3);
        let hex = pair.and_then(|pair| std::str::from_utf8(pair).ok());
        match (
            text[at],
            hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()),
        ) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                at += 2;
            }
            (b'+', _) => bytes.push(b' '),
            (byte, _) => bytes.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_wherever_they_stand() {
        let wish = Wish::read("/haproxy?stats;norefresh;up;scope=a%20b%3Cc;st=DONE;page=3");
        let expected = Wish {
            up: true,
            no_maint: false,
            scope: "a b<c".to_owned(),
            outcome: Some("DONE".to_owned()),
            page: 3,
        };
        assert_eq!(wish, expected);
        assert_eq!(wish.target(), "/haproxy?stats;up;scope=a%20b%3Cc;page=3");
        assert_eq!(Wish::read(&wish.target()).scope, wish.scope);
        assert_eq!(Wish::read("/haproxy?scope=a+b").scope, "a b");
        assert_eq!(Wish::read("/;no-maint").target(), "/haproxy?stats;no-maint");
    }

    #[test]
    fn odd_options_are_no_trouble() {
        let wish = Wish::read("/haproxy?stats;scope=%;page=-1;x=%zz;st=%ff");
        assert_eq!((wish.scope.as_str(), wish.page), ("%", 0));
        assert_eq!(wish.outcome.as_deref(), Some("\u{fffd}"));
        let long = "x".repeat(100_000);
        assert_eq!(
            Wish::read(&format!("/?stats;scope={long}")).scope.len(),
            LONGEST
        );
    }
}
