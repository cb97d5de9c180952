//! What the operator says about one Marathon.

use std::{fmt, path::PathBuf, time::Duration};

use reqwest::{
    RequestBuilder, Url,
    header::{AUTHORIZATION, HeaderValue},
};

use super::{edge::Edge, login::Credentials, secret::Secret};
use crate::provider::backoff::Steps;

/// One Marathon and how to read it.
#[derive(Clone, Debug)]
pub struct MarathonConfig {
    /// Its URLs, `http://10.0.0.11:8080` or `https://master/service/marathon`, in order of
    /// preference. User and password in the first one are taken as [`Auth::Basic`].
    pub urls: Vec<Url>,
    /// The Mesos framework name, the name space of its VIPs; asked for (`GET /v2/info`) if absent.
    pub framework: Option<String>,
    /// How it knows us.
    pub auth: Auth,
    /// PEM file of the only authorities to trust; the system's if absent.
    pub ca_file: Option<PathBuf>,
    /// Which service ports stand at the node's addresses.
    pub edge: Edge,
    /// All times; the defaults are those of the specification.
    pub timings: Timings,
    /// The longest answer that is read, in bytes after decompression.
    pub max_body: usize,
}

/// How to authenticate.
#[derive(Clone, Default)]
pub enum Auth {
    /// Not at all.
    #[default]
    None,
    /// HTTP Basic (`--http_credentials`).
    Basic {
        /// User.
        user: String,
        /// Password.
        password: Secret,
    },
    /// A DC/OS authentication token: `Authorization: token=...`.
    Token(Secret),
    /// An account of DC/OS, which gives such tokens.
    Login(Credentials),
}

/// Times of the watcher.
#[derive(Clone, Copy, Debug)]
pub struct Timings {
    /// Until a connection stands.
    pub connect: Duration,
    /// Until the last byte of an answer: a large Marathon takes its time.
    pub request: Duration,
    /// Until the event stream stands, or somebody is logged in, at whichever URL: nothing is gathered for either.
    pub open: Duration,
    /// How long a connection may carry nothing, not even what its other end's kernel says of itself.
    pub unanswered: Duration,
    /// Longest silence of the event stream, and so how late a change may be seen whose event was lost with a connection
    /// that nobody closed. Marathon sends a heart-beat every 10 s, of which two may be late: 30 s is the least.
    pub silence: Duration,
    /// Silence after an event before a snapshot is taken.
    pub debounce: Duration,
    /// Longest time from the first event of a burst to its snapshot.
    pub debounce_at_most: Duration,
    /// Between snapshots without events; up to a tenth longer, so that agents spread.
    pub resync: Duration,
    /// After failures of snapshots and of the stream.
    pub backoff: Steps,
    /// A stream that lived so long makes the next failure the first again.
    pub stable_stream: Duration,
    /// An empty answer after a disturbance must be confirmed by another one so much later.
    pub confirm_empty: Duration,
    /// How long the first snapshot waits for the event stream.
    pub stream_first: Duration,
}

// === impl MarathonConfig ===

impl MarathonConfig {
    /// No authentication, the system's CAs, the framework name as Marathon says, default times.
    pub fn new(urls: Vec<Url>) -> Self {
        Self {
            urls,
            framework: None,
            auth: Auth::None,
            ca_file: None,
            edge: Edge::default(),
            timings: Timings::default(),
            max_body: 128 << 20,
        }
    }
}

// === impl Auth ===

impl Auth {
    /// Itself, or the credentials in `url` where nothing else is given.
    ///
    /// # Errors
    /// A token with characters that no header can hold.
    pub(super) fn or_of(&self, url: Option<&Url>) -> Result<Self, String> {
        match (self, url.map(|url| (url.username(), url.password()))) {
            (Self::None, Some((user, password))) if !user.is_empty() || password.is_some() => {
                let password = decoded(password.unwrap_or_default());
                Ok(Self::Basic {
                    user: decoded(user),
                    password: password.into(),
                })
            }
            (Self::Token(token), _) if HeaderValue::from_str(&token.reveal()).is_err() => {
                Err("the token has characters that no HTTP header can hold".to_owned())
            }
            _ => Ok(self.clone()),
        }
    }

    /// Adds `Authorization` to a request, with the secret as it is now. Whoever logs in adds his token himself.
    pub(super) fn apply(&self, request: RequestBuilder) -> RequestBuilder {
        match self {
            Self::None | Self::Login(_) => request,
            Self::Basic { user, password } => request.basic_auth(user, Some(password.reveal())),
            Self::Token(token) => {
                request.header(AUTHORIZATION, format!("token={}", token.reveal()))
            }
        }
    }
}

/// Undoes percent-encoding.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = tail
            .get(..2)
            .filter(|_| *first == b'%')
            .and_then(|h| str::from_utf8(h).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

impl fmt::Debug for Auth {
    /// Without secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Basic { user, .. } => write!(f, "Basic({user}:...)"),
            Self::Token(_) => f.write_str("Token(...)"),
            Self::Login(_) => f.write_str("Login(...)"),
        }
    }
}

// === impl Timings ===

impl Default for Timings {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(3),
            request: Duration::from_secs(45),
            open: Duration::from_secs(12),
            unanswered: Duration::from_secs(12),
            silence: Duration::from_secs(30),
            debounce: Duration::from_millis(100),
            debounce_at_most: Duration::from_secs(1),
            resync: Duration::from_secs(60),
            backoff: Steps {
                first: Duration::from_secs(1),
                factor: 1.5,
                cap: Duration::from_secs(15),
            },
            stable_stream: Duration::from_secs(600),
            confirm_empty: Duration::from_secs(5),
            stream_first: Duration::from_secs(4),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_of_a_url_count_where_nothing_else_is_given() {
        let url = Url::parse("http://us%65r:p%40ss%zz@m").unwrap();
        let Auth::Basic { user, password } = Auth::None.or_of(Some(&url)).unwrap() else {
            panic!("not basic");
        };
        assert_eq!((&*user, &*password.reveal()), ("user", "p@ss%zz"));
        let token = Auth::Token("t".into());
        assert!(matches!(token.or_of(Some(&url)).unwrap(), Auth::Token(_)));
        let bare = Url::parse("http://m").unwrap();
        assert!(matches!(Auth::None.or_of(Some(&bare)).unwrap(), Auth::None));
    }

    #[test]
    fn a_change_is_seen_within_35_s_be_its_event_lost_with_the_connection() {
        let Timings {
            silence, connect, ..
        } = Timings::default();
        let late = silence + connect;
        assert!(late < Duration::from_secs(35), "{late:?}");
        // Two heart-beats may be late.
        assert!(silence > 2 * Duration::from_secs(10), "{silence:?}");
    }

    #[test]
    fn within_35_s_of_the_end_of_an_outage_there_is_time_left_to_read() {
        let timings = Timings::default();
        // It ends just after somebody asked in vain, for the stream or anything else: that is given up, or its
        // connection is, and asked again after the longest wait.
        let asked_again = timings.open.max(timings.unanswered) + timings.backoff.cap;
        let left = Duration::from_secs(35).checked_sub(asked_again);
        assert!(left >= Some(Duration::from_secs(5)), "{left:?}");
    }

    #[test]
    fn secrets_are_never_printed() {
        let basic = Auth::Basic {
            user: "u".into(),
            password: "secret".into(),
        };
        for auth in [basic, Auth::Token("secret".into())] {
            assert!(!format!("{auth:?}").contains("secret"));
        }
        assert!(Auth::Token("a\nb".into()).or_of(None).is_err());
    }
}
