//! YAML text -> a tree in which everything knows its place, and from there to types, with every fault told. Pure.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_saphyr::{Location, Spanned};

/// Where and what is wrong.
pub(super) type Wrong = (Location, String);

/// A value and where it stands.
pub(super) struct Node {
    pub(super) at: Location,
    pub(super) value: Value,
}

/// What YAML has.
pub(super) enum Value {
    /// Nothing, `~` or `null`.
    Nothing,
    /// A scalar, as it is written.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// A map, in the order of the text.
    Map(Vec<(Spanned<String>, Node)>),
}

/// What is wrong with the form of a text: none of it can be trusted then.
#[derive(Default)]
pub(super) struct Faults(pub(super) Vec<Wrong>);

/// What can be made of a node. `key` is what stands before it, for messages.
pub(super) trait FromNode: Sized {
    /// `None`: it cannot, and why is in `faults`.
    fn from_node(node: Node, key: &str, faults: &mut Faults) -> Option<Self>;
}

/// One text or a list of them.
pub(super) struct OneOrMany(pub(super) Vec<String>);

/// Reads a whole text.
///
/// # Errors
/// It is not YAML: where, and why.
pub(super) fn read(text: &str) -> Result<Node, (Option<Location>, String)> {
    let options = serde_saphyr::options! { with_snippet: false };
    let raw: Spanned<Raw> = serde_saphyr::from_str_with_options(text, options)
        .map_err(|e| (e.location(), sentence(&e)))?;
    Ok(Node::new(raw, text))
}

/// The parser's sentence without the place, which the location says.
fn sentence(error: &serde_saphyr::Error) -> String {
    let text = error.without_snippet().to_string();
    text.rsplit_once(" at line ")
        .map_or(text.as_str(), |(sentence, _)| sentence)
        .to_owned()
}

/// What the parser gives.
enum Raw {
    Nothing,
    Text(String),
    /// A scalar that YAML takes for a number or a truth value; this text is one way to write it.
    Typed(String),
    List(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<String>, Spanned<Raw>)>),
}

/// Makes a struct whose fields are the keys of a map, `max_flows` for `max-flows`, each of which may be missing. A key that
/// it does not have is a fault.
macro_rules! keys {
    ($(#[$meta:meta])* $vis:vis struct $name:ident { $($field:ident: $kind:ty,)+ }) => {
        $(#[$meta])*
        #[derive(Default)]
        $vis struct $name { $($field: Option<$kind>,)+ }

        impl $name {
            /// Its keys, with underscores.
            pub(super) const KEYS: &[&str] = &[$(stringify!($field)),+];
        }

        impl $crate::provider::file::node::FromNode for $name {
            fn from_node(
                node: $crate::provider::file::node::Node,
                key: &str,
                faults: &mut $crate::provider::file::node::Faults,
            ) -> Option<Self> {
                let mut read = Self::default();
                for (name, node) in faults.map(node, key)? {
                    if matches!(node.value, $crate::provider::file::node::Value::Nothing) {
                        faults.known(&name, Self::KEYS);
                        continue;
                    }
                    $(if $crate::provider::file::node::is_key(stringify!($field), &name.value) {
                        read.$field = $crate::provider::file::node::FromNode::from_node(
                            node, &name.value, faults);
                    } else)+ {
                        faults.known(&name, Self::KEYS);
                    }
                }
                Some(read)
            }
        }
    };
}
pub(super) use keys;

/// Whether `key` is how the field is written.
pub(super) fn is_key(field: &str, key: &str) -> bool {
    let dashed = |byte: u8| if byte == b'_' { b'-' } else { byte };
    field.len() == key.len() && field.bytes().map(dashed).eq(key.bytes())
}

// === impl Faults ===

impl Faults {
    /// Takes down a fault.
    pub(super) fn add(&mut self, at: Location, what: String) {
        self.0.push((at, what));
    }

    /// The entries of a map.
    pub(super) fn map(&mut self, node: Node, key: &str) -> Option<Vec<(Spanned<String>, Node)>> {
        match node.value {
            Value::Map(entries) => Some(entries),
            other => {
                self.add(
                    node.at,
                    of(key, &format!("a map belongs here, not {other}")),
                );
                None
            }
        }
    }

    /// Takes down a key that is not among these.
    pub(super) fn known(&mut self, key: &Spanned<String>, keys: &[&str]) {
        let name = &key.value;
        if keys.iter().any(|known| is_key(known, name)) {
            return;
        }
        let written: Vec<String> = keys.iter().map(|key| key.replace('_', "-")).collect();
        let remedy = match nearest(name, &written) {
            Some(meant) => format!("did you mean {meant}?"),
            None => format!("there are {}", written.join(", ")),
        };
        self.add(key.referenced, format!("unknown key {name}; {remedy}"));
    }
}

/// The word that was probably meant.
fn nearest<'a>(word: &str, words: &'a [String]) -> Option<&'a String> {
    const ALIKE: f64 = 0.7;
    /// To compare it takes time with the product of both lengths.
    const LONGEST: usize = 64;
    if word.len() > LONGEST {
        return None;
    }
    let alike = |known: &'a String| {
        let same = strsim::damerau_levenshtein(&word.to_ascii_lowercase(), known) <= 2;
        let score = strsim::jaro_winkler(word, known);
        (same || score > ALIKE).then_some((score, known))
    };
    let found = words.iter().filter_map(alike);
    found
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, known)| known)
}

fn of(key: &str, what: &str) -> String {
    if key.is_empty() {
        what.to_owned()
    } else {
        format!("key {key}: {what}")
    }
}

// === impl Node ===

impl Node {
    fn new(raw: Spanned<Raw>, text: &str) -> Self {
        let Spanned {
            value,
            referenced: at,
            defined,
        } = raw;
        let value = match value {
            Raw::Nothing => Value::Nothing,
            Raw::Text(text) => Value::Text(text),
            Raw::Typed(usual) => Value::Text(written(text, defined).unwrap_or(usual)),
            Raw::List(items) => {
                Value::List(items.into_iter().map(|raw| Self::new(raw, text)).collect())
            }
            Raw::Map(entries) => {
                let entry = |(key, raw)| (key, Self::new(raw, text));
                Value::Map(entries.into_iter().map(entry).collect())
            }
        };
        Self { at, value }
    }
}

/// `1.10` and not 1.1: the text of a scalar without quotes.
fn written(text: &str, at: Location) -> Option<String> {
    let (start, length) = (at.span().byte_offset()?, at.span().byte_len()?);
    let start = usize::try_from(start).ok()?;
    let end = start.checked_add(usize::try_from(length).ok()?)?;
    let scalar = text.get(start..end)?.trim();
    (!scalar.is_empty()).then(|| scalar.to_owned())
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nothing => "nothing",
            Self::Text(_) => "a single value",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
        })
    }
}

impl FromNode for String {
    fn from_node(node: Node, key: &str, faults: &mut Faults) -> Option<Self> {
        match node.value {
            Value::Text(text) => Some(text),
            other => {
                faults.add(
                    node.at,
                    of(key, &format!("one value belongs here, not {other}")),
                );
                None
            }
        }
    }
}

impl<T: FromNode> FromNode for Spanned<T> {
    fn from_node(node: Node, key: &str, faults: &mut Faults) -> Option<Self> {
        let at = node.at;
        T::from_node(node, key, faults).map(|value| Self::new(value, at, at))
    }
}

impl<T: FromNode> FromNode for Vec<T> {
    fn from_node(node: Node, key: &str, faults: &mut Faults) -> Option<Self> {
        match node.value {
            Value::List(items) => {
                let each = items.into_iter();
                Some(
                    each.filter_map(|item| T::from_node(item, key, faults))
                        .collect(),
                )
            }
            other => {
                faults.add(
                    node.at,
                    of(key, &format!("a list belongs here, not {other}")),
                );
                None
            }
        }
    }
}

impl FromNode for OneOrMany {
    fn from_node(node: Node, key: &str, faults: &mut Faults) -> Option<Self> {
        match node.value {
            Value::List(_) => Vec::from_node(node, key, faults).map(Self),
            _ => String::from_node(node, key, faults).map(|one| Self(vec![one])),
        }
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Anything)
    }
}

struct Anything;

impl<'de> Visitor<'de> for Anything {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value, a list or a map")
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Nothing)
    }

    fn visit_str<E>(self, text: &str) -> Result<Raw, E> {
        Ok(Raw::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Raw, E> {
        Ok(Raw::Text(text))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Typed(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Raw, E> {
        Ok(Raw::Typed(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw::Typed(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Raw, E> {
        Ok(Raw::Typed(value.to_string()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Raw, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(Raw::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Raw::Map(entries))
    }
}
