//! Pure: the options behind a statistics URL, `;up;no-maint;scope=web;page=2;st=DONE`.

use crate::admin::web::decoded;

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

/// The longest text that is searched for, letters.
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
                "scope" => wish.scope = decoded(value).chars().take(LONGEST).collect(),
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
