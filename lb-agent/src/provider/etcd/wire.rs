//! The JSON of etcd's gateway: keys and values in base 64, 64-bit numbers as text, and nothing that is zero.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// A key or a value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Bytes(pub(super) Vec<u8>);

/// A revision; 0: none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Revision(pub(super) i64);

/// `/v3/kv/range`: a page of the keys from `key` to before `range_end`.
#[derive(Serialize)]
pub(super) struct RangeRequest {
    pub(super) key: Bytes,
    pub(super) range_end: Bytes,
    pub(super) limit: Revision,
    pub(super) revision: Revision,
    pub(super) keys_only: bool,
}

/// Its answer.
#[derive(Debug, Deserialize)]
pub(super) struct RangeAnswer {
    pub(super) header: Header,
    #[serde(default)]
    pub(super) kvs: Vec<KeyValue>,
    #[serde(default)]
    pub(super) more: bool,
}

/// What every answer begins with.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Header {
    #[serde(default)]
    pub(super) revision: Revision,
}

/// A key and what it holds.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct KeyValue {
    pub(super) key: Bytes,
    #[serde(default)]
    pub(super) mod_revision: Revision,
    #[serde(default)]
    pub(super) value: Bytes,
}

/// `/v3/watch`.
#[derive(Serialize)]
pub(super) struct WatchRequest {
    pub(super) create_request: WatchCreate,
}

/// What is watched.
#[derive(Serialize)]
pub(super) struct WatchCreate {
    pub(super) key: Bytes,
    pub(super) range_end: Bytes,
    pub(super) start_revision: Revision,
    pub(super) progress_notify: bool,
}

/// A line of a stream.
#[derive(Debug, Deserialize)]
pub(super) struct Line {
    pub(super) result: Option<WatchAnswer>,
    pub(super) error: Option<Refusal>,
}

/// What a watch tells.
#[derive(Debug, Default, Deserialize)]
pub(super) struct WatchAnswer {
    #[serde(default)]
    pub(super) created: bool,
    #[serde(default)]
    pub(super) canceled: bool,
    #[serde(default)]
    pub(super) compact_revision: Revision,
    #[serde(default)]
    pub(super) cancel_reason: String,
    #[serde(default)]
    pub(super) events: Vec<Event>,
}

/// A change of one key.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Event {
    /// `DELETE`, or nothing for a put.
    #[serde(default, rename = "type")]
    pub(super) kind: String,
    pub(super) kv: KeyValue,
}

/// Why etcd does not do it.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Refusal {
    #[serde(default)]
    pub(super) message: String,
    /// The streams of etcd 3.4 have it here.
    #[serde(default)]
    pub(super) error: String,
    #[serde(default, alias = "grpc_code")]
    pub(super) code: i64,
}

/// `/v3/auth/authenticate`.
#[derive(Serialize)]
pub(super) struct LoginRequest<'a> {
    pub(super) name: &'a str,
    pub(super) password: &'a str,
}

/// Its answer.
#[derive(Deserialize)]
pub(super) struct LoginAnswer {
    pub(super) token: String,
}

/// `/v3/kv/txn`: puts both if neither key is there.
#[derive(Serialize)]
pub(super) struct ClaimRequest {
    compare: [Absent; 2],
    success: [Put; 2],
}

#[derive(Serialize)]
struct Absent {
    key: Bytes,
    target: &'static str,
    result: &'static str,
    create_revision: Revision,
}

#[derive(Serialize)]
struct Put {
    request_put: KeyAndValue,
}

#[derive(Serialize)]
struct KeyAndValue {
    key: Bytes,
    value: Bytes,
    #[serde(skip_serializing_if = "Option::is_none")]
    lease: Option<String>,
}

/// `/v3/lease/grant`: what is put with it goes by itself when so many seconds are over.
#[derive(Serialize)]
pub(super) struct LeaseRequest {
    #[serde(rename = "TTL")]
    ttl: String,
}

/// Its answer.
#[derive(Deserialize)]
pub(super) struct LeaseAnswer {
    #[serde(rename = "ID")]
    pub(super) id: String,
}

/// `/v3/kv/txn`: removes all keys if each says what it is thought to say.
#[derive(Serialize)]
pub(super) struct ReleaseRequest {
    compare: Vec<Says>,
    success: Vec<Delete>,
}

#[derive(Serialize)]
struct Says {
    key: Bytes,
    target: &'static str,
    result: &'static str,
    value: Bytes,
}

#[derive(Serialize)]
struct Delete {
    request_delete_range: Key,
}

#[derive(Serialize)]
struct Key {
    key: Bytes,
}

/// `/v3/kv/txn`: puts or removes one key, whatever it holds.
#[derive(Serialize)]
pub(super) struct WriteRequest {
    compare: [Absent; 0],
    success: [Write; 1],
}

#[derive(Serialize)]
#[serde(untagged)]
enum Write {
    Put(Put),
    Delete(Delete),
}

/// The answer to each.
#[derive(Debug, Deserialize)]
pub(super) struct ClaimAnswer {
    #[serde(default)]
    pub(super) succeeded: bool,
}

// === impl ClaimRequest ===

impl ClaimRequest {
    /// Two keys and their values.
    pub(super) fn new(pairs: [(String, String); 2]) -> Self {
        let absent = |(key, _): &(String, String)| Absent {
            key: key.as_str().into(),
            target: "CREATE",
            result: "EQUAL",
            create_revision: Revision(0),
        };
        let put = |(key, value): &(String, String)| Put {
            request_put: KeyAndValue {
                key: key.as_str().into(),
                value: value.as_str().into(),
                lease: None,
            },
        };
        Self {
            compare: pairs.each_ref().map(absent),
            success: pairs.each_ref().map(put),
        }
    }
}

// === impl ReleaseRequest ===

impl ReleaseRequest {
    /// Keys and what they say.
    pub(super) fn new(pairs: &[(String, String)]) -> Self {
        let says = |(key, value): &(String, String)| Says {
            key: key.as_str().into(),
            target: "VALUE",
            result: "EQUAL",
            value: value.as_str().into(),
        };
        let delete = |(key, _): &(String, String)| Delete {
            request_delete_range: Key {
                key: key.as_str().into(),
            },
        };
        Self {
            compare: pairs.iter().map(says).collect(),
            success: pairs.iter().map(delete).collect(),
        }
    }
}

// === impl WriteRequest ===

impl WriteRequest {
    /// `None`: it is removed.
    pub(super) fn new(key: &str, value: Option<&str>) -> Self {
        let key = key.into();
        let write = match value {
            Some(value) => Write::Put(Put {
                request_put: KeyAndValue {
                    key,
                    value: value.into(),
                    lease: None,
                },
            }),
            None => Write::Delete(Delete {
                request_delete_range: Key { key },
            }),
        };
        Self {
            compare: [],
            success: [write],
        }
    }

    /// What goes with a lease.
    pub(super) fn leased(key: &str, value: &str, lease: String) -> Self {
        let request_put = KeyAndValue {
            key: key.into(),
            value: value.into(),
            lease: Some(lease),
        };
        Self {
            compare: [],
            success: [Write::Put(Put { request_put })],
        }
    }
}

// === impl LeaseRequest ===

impl LeaseRequest {
    /// In whole seconds.
    pub(super) fn of(time: Duration) -> Self {
        Self {
            ttl: time.as_secs().to_string(),
        }
    }
}

// === impl Refusal ===

impl Refusal {
    /// What etcd says.
    pub(super) fn text(&self) -> &str {
        if self.message.is_empty() {
            &self.error
        } else {
            &self.message
        }
    }
}

// === impl Event ===

impl Event {
    /// Whether the key is gone.
    pub(super) fn is_delete(&self) -> bool {
        self.kind == "DELETE"
    }
}

// === impl Bytes ===

impl From<&str> for Bytes {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }
}

impl Bytes {
    /// The first key after all that begin with this one.
    pub(super) fn end_of_prefix(&self) -> Self {
        let mut end = self.0.clone();
        while let Some(last) = end.pop() {
            if last < u8::MAX {
                end.push(last + 1);
                return Self(end);
            }
        }
        // All keys: etcd's way to write it.
        Self(vec![0])
    }

    /// The next key.
    pub(super) fn next(&self) -> Self {
        let mut next = self.0.clone();
        next.push(0);
        Self(next)
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map(Self).map_err(D::Error::custom)
    }
}

impl Serialize for Revision {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.to_string())
    }
}

impl<'de> Deserialize<'de> for Revision {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Text(String),
            Number(i64),
        }
        match Either::deserialize(deserializer)? {
            Either::Text(text) => text.parse().map(Self).map_err(D::Error::custom),
            Either::Number(number) => Ok(Self(number)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_before_the_next_key_that_does_not_begin_with_it() {
        let end = |text: &[u8]| Bytes(text.to_vec()).end_of_prefix().0;
        assert_eq!(end(b"/lb/"), b"/lb0");
        assert_eq!(end(b"a\xff"), b"b");
        assert_eq!(end(b""), b"\0");
    }

    #[test]
    fn what_etcd_writes_is_read() {
        let answer: RangeAnswer = serde_json::from_str(
            r#"{"header":{"cluster_id":"1","revision":"5"},"kvs":[{"key":"L2E=","create_revision":"2",
            "mod_revision":"4","version":"2"}],"more":true,"count":"2"}"#,
        )
        .unwrap();
        assert_eq!(answer.header.revision, Revision(5));
        assert_eq!(
            (answer.kvs[0].key.clone(), answer.more),
            ("/a".into(), true)
        );
        let line: Line = serde_json::from_str(
            r#"{"result":{"header":{"revision":"6"},"events":[{"type":"DELETE","kv":{"key":"L2E=",
            "mod_revision":"6"}},{"kv":{"key":"L2I=","mod_revision":"6","value":"eA=="}}]}}"#,
        )
        .unwrap();
        let events = line.result.unwrap().events;
        assert_eq!(
            (events[0].is_delete(), events[1].is_delete()),
            (true, false)
        );
        assert_eq!(events[1].kv.value, "x".into());
    }
}
