//! Who may read and who may write over TCP.

use std::{fs, net::IpAddr, path::PathBuf};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq as _};
use tracing::warn;

/// The longest file of tokens or users that is read, bytes.
const LONGEST: u64 = 64 * 1_024;

/// Where secrets are, and what needs one. The files are read for every request that brings a secret, so that a renewed
/// one counts at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// Its first line is the token.
    pub token_file: Option<PathBuf>,
    /// A line `user:password` for each.
    pub users_file: Option<PathBuf>,
    /// Reading needs a secret, too.
    pub closed: bool,
    /// One more path of `/healthz`.
    pub health: Option<String>,
    /// Names that the node is called by in requests, besides its addresses, its host name and `localhost`.
    pub hosts: Vec<String>,
}

/// What a request brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Secret {
    /// Nothing.
    Missing,
    /// Something that is not right.
    Wrong,
    /// The token: no browser sends it by itself.
    Token,
    /// A user's password: a browser that knows it sends it along with everything.
    Password,
}

// === impl Access ===

impl Access {
    /// Whether there is any secret, so that somebody may write.
    pub(super) fn is_possible(&self) -> bool {
        self.token_file.is_some() || self.users_file.is_some()
    }

    /// What the header `Authorization` of a request is worth.
    pub(super) fn judge(&self, header: Option<&str>) -> Secret {
        let Some((scheme, value)) = header.and_then(|header| header.trim().split_once(' ')) else {
            return match header {
                None => Secret::Missing,
                Some(_) => Secret::Wrong,
            };
        };
        let value = value.trim();
        if scheme.eq_ignore_ascii_case("bearer") {
            return match self.is_token(value) {
                true => Secret::Token,
                false => Secret::Wrong,
            };
        }
        let decoded = scheme
            .eq_ignore_ascii_case("basic")
            .then(|| STANDARD.decode(value).ok())
            .flatten();
        match decoded {
            Some(pair) if self.is_user(&pair) => Secret::Password,
            _ => Secret::Wrong,
        }
    }

    fn is_token(&self, given: &str) -> bool {
        let Some(text) = self.token_file.as_ref().and_then(read) else {
            return false;
        };
        let token = text.lines().next().unwrap_or_default().trim();
        !token.is_empty() && bool::from(same(token.as_bytes(), given.as_bytes()))
    }

    /// All lines are looked at, so that the time does not tell which one it is.
    fn is_user(&self, given: &[u8]) -> bool {
        let Some(text) = self.users_file.as_ref().and_then(read) else {
            return false;
        };
        let lines = text.lines().map(str::trim);
        let users = lines.filter(|line| {
            let pair = line.split_once(':');
            !line.starts_with('#')
                && pair.is_some_and(|(user, word)| !user.is_empty() && !word.is_empty())
        });
        let found = users.fold(Choice::from(0), |found, line| {
            found | same(line.as_bytes(), given)
        });
        found.into()
    }

    /// Whether a request that names this host was meant for this node: a name that others may point here is not.
    /// `node`: the node's host name.
    pub(super) fn is_ours(&self, host: &str, node: &str) -> bool {
        let name = without_port(host);
        if name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok() {
            return true;
        }
        let name = name.trim_end_matches('.');
        let same = |other: &str| name.eq_ignore_ascii_case(other);
        let short = node.split('.').next().unwrap_or(node);
        same("localhost")
            || (!node.is_empty() && (same(node) || same(short)))
            || self.hosts.iter().any(|host| same(host))
    }
}

/// Whose password the header `Authorization` brings, for the log.
pub(super) fn user(header: &str) -> Option<String> {
    let (_, value) = header.trim().split_once(' ')?;
    let pair = STANDARD.decode(value.trim()).ok()?;
    let pair = String::from_utf8(pair).ok()?;
    Some(format!("user {}", pair.split_once(':')?.0))
}

/// A host without its port.
fn without_port(host: &str) -> &str {
    match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((addr, _)) => addr,
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    }
}

/// In a time that does not depend on where they differ, nor on how long they are.
fn same(one: &[u8], other: &[u8]) -> Choice {
    let (one, other) = (Sha256::digest(one), Sha256::digest(other));
    one.as_slice().ct_eq(other.as_slice())
}

/// `None`: it cannot be read, which the log says.
fn read(path: &PathBuf) -> Option<String> {
    let read = || -> std::io::Result<String> {
        if fs::metadata(path)?.len() > LONGEST {
            return Err(std::io::Error::other("it is too long"));
        }
        fs::read_to_string(path)
    };
    match read() {
        Ok(text) => Some(text),
        Err(error) => {
            warn!(
                "cannot read {}: {error}; nobody gets in by it",
                path.display()
            );
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn basic(pair: &str) -> String {
        format!("Basic {}", STANDARD.encode(pair))
    }

    #[test]
    fn only_the_right_secret_counts() {
        let dir = tempfile::tempdir().unwrap();
        let (token, users) = (dir.path().join("token"), dir.path().join("users"));
        fs::write(&token, "s3cret\nnot this\n").unwrap();
        fs::write(&users, "# who\nann:pass:word\nbob:\n:x\n").unwrap();
        let access = Access {
            token_file: Some(token.clone()),
            users_file: Some(users),
            ..Access::default()
        };
        let judge = |header: &str| access.judge(Some(header));
        assert_eq!(access.judge(None), Secret::Missing);
        assert_eq!(judge("Bearer s3cret"), Secret::Token);
        assert_eq!(judge("bearer  s3cret "), Secret::Token);
        for wrong in [
            "Bearer",
            "Bearer ",
            "Bearer not this",
            "Bearer s3cre",
            "Digest x",
            "s3cret",
        ] {
            assert_eq!(judge(wrong), Secret::Wrong, "{wrong}");
        }
        assert_eq!(judge(&basic("ann:pass:word")), Secret::Password);
        for wrong in ["ann:pass", "ann:", "bob:", ":x", "# who", "", "ann"] {
            assert_eq!(judge(&basic(wrong)), Secret::Wrong, "{wrong}");
        }
        assert_eq!(judge("Basic !!!"), Secret::Wrong);
        fs::write(&token, "\n").unwrap();
        assert_eq!(judge("Bearer "), Secret::Wrong);
        fs::write(&token, "renewed").unwrap();
        assert_eq!(judge("Bearer renewed"), Secret::Token);
        fs::remove_file(&token).unwrap();
        assert_eq!(judge("Bearer renewed"), Secret::Wrong);
        assert_eq!(Access::default().judge(Some("Bearer x")), Secret::Wrong);
    }

    #[test]
    fn names_that_others_may_point_here_are_not_ours() {
        let access = Access {
            hosts: vec!["lb.example".to_owned()],
            ..Access::default()
        };
        let ours = |host: &str| access.is_ours(host, "n1.cluster");
        for host in [
            "127.0.0.1",
            "10.0.0.1:9090",
            "[::1]:9090",
            "[::1]",
            "localhost",
            "LOCALHOST:9090",
            "n1",
            "N1.cluster:9090",
            "lb.example:9090",
            "lb.example.",
        ] {
            assert!(ours(host), "{host}");
        }
        for host in [
            "evil.example",
            "n1.evil.example",
            "127.0.0.1.evil.example",
            "",
            "localhost.evil",
        ] {
            assert!(!ours(host), "{host}");
        }
        assert!(!access.is_ours("", ""));
    }
}
