//! From a NAME in a label to the canonical name, byte for byte as DC/OS does it.

use std::{collections::BTreeSet, fmt, sync::Arc};

/// The zone that named VIPs live in, without the trailing dot.
pub const ZONE: &str = "l4lb.thisdcos.directory";

/// The name space, beside those of frameworks, of VIPs that have names in domains of others.
pub const OF_DOMAINS: &str = "docker";

/// The label of a VIP's name that stands for `*`: every name below the rest (RFC 4592).
pub const ANY: &str = "any--name";

/// RFC 1035 section 2.3.4: octets in a label.
const MAX_LABEL: usize = 63;
/// RFC 1035 section 2.3.4, as characters of the dotted form without the trailing dot.
const MAX_FQDN: usize = 253;

/// A canonical name without zone: `dcos-101app2.marathon`.
///
/// Two or more labels of `a-z`, `0-9` and inner dashes; it fits a DNS name with the zone appended.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VipName(Arc<str>);

/// Why a NAME cannot become a DNS name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// No letter or digit is left of a piece between two dots, or there is no piece at all.
    #[error("nothing of {piece:?} can be part of a DNS name: it has no ASCII letter or digit")]
    EmptyLabel {
        /// The piece as written.
        piece: String,
    },
    /// The name with its zone would be longer than DNS allows.
    #[error("the DNS name would have {len} characters, {MAX_FQDN} are allowed")]
    TooLong {
        /// Characters, without the trailing dot.
        len: usize,
    },
}

// === impl VipName ===

impl VipName {
    /// The canonical name of `name` as declared in `framework`'s name space.
    ///
    /// Slashes vanish and letter case is folded, so several NAMEs share one canonical name.
    pub fn mangle(name: &str, framework: &str) -> Result<Self, NameError> {
        let mut canonical = String::with_capacity(name.len() + framework.len() + 1);
        mangle_fragment(name, &mut canonical)?;
        mangle_fragment(framework, &mut canonical)?;
        let len = canonical.len() + 1 + ZONE.len();
        if len > MAX_FQDN {
            return Err(NameError::TooLong { len });
        }
        Ok(Self(canonical.into()))
    }

    /// `None` unless `canonical` is already in the form that [`Self::mangle`] gives.
    pub fn from_canonical(canonical: &str) -> Option<Self> {
        let (name, framework) = canonical.split_once('.')?;
        let mangled = Self::mangle(name, framework).ok()?;
        (mangled.as_str() == canonical).then_some(mangled)
    }

    /// The name without zone or trailing dot, ASCII lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name with its zone, without the trailing dot.
    pub fn fqdn(&self) -> String {
        format!("{}.{ZONE}", self.0)
    }
}

impl fmt::Display for VipName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether DNS knows a VIP by this host name, which must be one that needs no mangling, in one of these `domains`.
pub fn is_in_domains(host: &str, domains: &BTreeSet<String>) -> bool {
    let within = |domain: &String| {
        let above = host.strip_suffix(domain.as_str());
        above.is_some_and(|above| above.is_empty() || above.ends_with('.'))
    };
    let whole = format!("{host}.{OF_DOMAINS}");
    let mangled = VipName::mangle(host, OF_DOMAINS);
    domains.iter().any(within) && mangled.is_ok_and(|name| *name.as_str() == whole)
}

/// `text` as one label of such a name; `None` if nothing of it can stay.
pub fn label(text: &str) -> Option<String> {
    let label = mangle_label(&text.replace('.', "-"));
    (!label.is_empty()).then_some(label)
}

/// Appends the labels of `fragment` to `out`. Dots survive as separators, empty pieces do not.
fn mangle_fragment(fragment: &str, out: &mut String) -> Result<(), NameError> {
    let empty = |piece: &str| NameError::EmptyLabel {
        piece: piece.to_owned(),
    };
    let mut pieces = fragment.split('.').filter(|piece| !piece.is_empty());
    let first = pieces.next().ok_or_else(|| empty(fragment))?;
    for piece in std::iter::once(first).chain(pieces) {
        let label = mangle_label(piece);
        if label.is_empty() {
            return Err(empty(piece));
        }
        if !out.is_empty() {
            out.push('.');
        }
        out.push_str(&label);
    }
    Ok(())
}

/// One label of at most [`MAX_LABEL`] characters; empty if nothing of `piece` can stay.
///
/// At the limit dcos-net strips trailing dashes and fills the room with letters and digits alone, which
/// is why a dash is dropped from then on.
fn mangle_label(piece: &str) -> String {
    let mut label = String::with_capacity(piece.len().min(MAX_LABEL));
    let mut refilling = false;
    for byte in piece.bytes() {
        if label.len() == MAX_LABEL {
            if refilling || !label.ends_with('-') {
                break;
            }
            strip_dashes(&mut label);
            refilling = true;
        }
        match byte.to_ascii_lowercase() {
            byte @ (b'a'..=b'z' | b'0'..=b'9') => label.push(char::from(byte)),
            b'-' | b'_' if !label.is_empty() && !refilling => label.push('-'),
            _ => {}
        }
    }
    strip_dashes(&mut label);
    label
}

fn strip_dashes(label: &mut String) {
    label.truncate(label.trim_end_matches('-').len());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn canonical(name: &str, framework: &str) -> String {
        VipName::mangle(name, framework)
            .expect("a usable name")
            .to_string()
    }

    #[test]
    fn names_mangle_as_dcos_does() {
        for (name, framework, expected) in [
            ("/dcos-101/app2", "marathon", "dcos-101app2.marathon"),
            ("/mygroup/myapp", "marathon", "mygroupmyapp.marathon"),
            ("dispatcher.spark", "marathon", "dispatcher.spark.marathon"),
            ("/My_App.V2/x", "marathon-user", "my-app.v2x.marathon-user"),
            ("..a..b.", "c.d", "a.b.c.d"),
            ("__a__", "f", "a.f"),
            ("a%$ é-b", "f", "a-b.f"),
            ("1.2.3", "f", "1.2.3.f"),
        ] {
            assert_eq!(canonical(name, framework), expected, "{name} {framework}");
        }
    }

    #[test]
    fn a_label_ends_at_63_characters() {
        let long = "a".repeat(70);
        assert_eq!(mangle_label(&long), "a".repeat(63));
    }

    #[test]
    fn dashes_at_the_limit_make_room_for_letters_alone() {
        let piece = format!("{}--b-_c/defg", "a".repeat(61));
        assert_eq!(mangle_label(&piece), format!("{}bc", "a".repeat(61)));
        let short = format!("{}---", "a".repeat(61));
        assert_eq!(mangle_label(&short), "a".repeat(61));
        let few = format!("{}--b", "a".repeat(61));
        assert_eq!(mangle_label(&few), format!("{}b", "a".repeat(61)));
    }

    #[test]
    fn a_piece_of_which_nothing_is_left_is_refused() {
        for name in ["", "/", "...", "a./.b", "--", "ünïcödé.é"] {
            assert!(
                matches!(
                    VipName::mangle(name, "marathon"),
                    Err(NameError::EmptyLabel { .. })
                ),
                "{name:?}"
            );
        }
        assert!(VipName::mangle("a", "").is_err());
    }

    #[test]
    fn the_longest_name_has_253_characters() {
        let label = "a".repeat(63);
        // 3 * 64 + 27 + ".f" + "." + the zone = 253
        let rest = MAX_FQDN - ZONE.len() - 1 - 2 - 3 * 64;
        let longest = format!("{label}.{label}.{label}.{}", "b".repeat(rest));
        let name = VipName::mangle(&longest, "f").expect("253 characters are allowed");
        assert_eq!(name.fqdn().len(), 253);
        assert_eq!(
            VipName::mangle(&format!("{longest}b"), "f"),
            Err(NameError::TooLong { len: 254 })
        );
    }

    #[test]
    fn only_canonical_names_are_taken_for_canonical() {
        assert!(VipName::from_canonical("dcos-101app2.marathon").is_some());
        for name in ["", "a", ".a", "a.", "A.b", "a..b", "a/b.c", "-a.b", "a-.b"] {
            assert_eq!(VipName::from_canonical(name), None, "{name:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_accepted_is_a_dns_name(name in any::<String>(), framework in "[ -~]{1,40}") {
            if let Ok(mangled) = VipName::mangle(&name, &framework) {
                prop_assert!(mangled.fqdn().len() <= MAX_FQDN);
                for label in mangled.as_str().split('.') {
                    prop_assert!((1..=MAX_LABEL).contains(&label.len()));
                    prop_assert!(!label.starts_with('-') && !label.ends_with('-'));
                    prop_assert!(label.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-')));
                }
                prop_assert_eq!(VipName::from_canonical(mangled.as_str()), Some(mangled));
            }
        }

        #[test]
        fn a_leading_slash_and_letter_case_make_no_difference(name in "[a-zA-Z0-9][a-zA-Z0-9/._-]{0,90}") {
            let plain = VipName::mangle(&name, "marathon");
            prop_assert_eq!(
                VipName::mangle(&format!("/{name}"), "Marathon").ok(),
                plain.clone().ok()
            );
            prop_assert_eq!(VipName::mangle(&name.to_uppercase(), "marathon").ok(), plain.ok());
        }
    }
}
