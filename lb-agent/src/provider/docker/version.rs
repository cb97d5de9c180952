//! Which version of the engine's API is spoken: the newest that both know.
//!
//! Never a fixed one: Docker 20.10 refuses what is above 1.41, and Docker 29 what is below 1.44. It is agreed on at
//! each connection, and a refusal ends one, so that an engine that is upgraded is followed.

use std::{fmt, io};

use bollard::{API_DEFAULT_VERSION, ClientVersion};
use hyper::Uri;

use super::wire;

/// That of Docker 1.12. Before it containers have no health, and a Swarm no services.
const OLDEST: Version = Version {
    major: 1,
    minor: 24,
};
/// What bollard's models are made of.
const NEWEST: Version = Version {
    major: API_DEFAULT_VERSION.major_version,
    minor: API_DEFAULT_VERSION.minor_version,
};

/// A version of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version {
    major: usize,
    minor: usize,
}

// === impl Version ===

impl Version {
    /// The newest that we and an engine know that says this of itself.
    ///
    /// # Errors
    /// There is none; the reason says what helps.
    pub(super) fn agreed(said: &wire::Versions) -> Result<Self, String> {
        let newest = Self::read(&said.api_version)?;
        if newest < OLDEST {
            return Err(format!(
                "its API is of version {newest}, and at least {OLDEST} is needed: upgrade it to Docker 1.12 or later"
            ));
        }
        let spoken = newest.min(NEWEST);
        let least = said.min_api_version.as_deref();
        let least = least.filter(|text| !text.is_empty()).map(Self::read);
        match least.transpose()? {
            Some(least) if least > spoken => Err(format!(
                "it wants at least version {least} of its API, and this lb-agent knows none after {NEWEST}: \
                 upgrade lb-agent"
            )),
            _ => Ok(spoken),
        }
    }

    fn read(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.parse().ok();
        text.split_once('.')
            .and_then(|(major, minor)| {
                Some(Self {
                    major: number(major)?,
                    minor: number(minor)?,
                })
            })
            .ok_or_else(|| format!("it says that its API is of version {text:?}, which is none"))
    }

    /// The path of a request, in this version.
    pub(super) fn path(self, path: &str) -> String {
        format!("/v{self}{path}")
    }

    /// Marks a request of bollard's, which leaves the version to the engine: there is none in its paths.
    ///
    /// # Errors
    /// Its path is none.
    pub(super) fn mark(self, uri: &mut Uri) -> io::Result<()> {
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        *uri = self.path(path).parse().map_err(io::Error::other)?;
        Ok(())
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl From<Version> for ClientVersion {
    fn from(version: Version) -> Self {
        Self {
            major_version: version.major,
            minor_version: version.minor,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn agreed(said: serde_json::Value) -> Result<String, String> {
        let said = serde_json::from_value(said).expect("versions");
        Version::agreed(&said).map(|version| version.to_string())
    }

    #[test]
    fn the_newest_that_both_know_is_spoken() {
        let of = |newest: &str, least: &str| {
            agreed(json!({"ApiVersion": newest, "MinAPIVersion": least, "Version": "20.10.24"}))
        };
        // Docker 20.10, Docker 29, and one that is far ahead of us.
        assert_eq!(of("1.41", "1.12"), Ok("1.41".to_owned()));
        assert_eq!(of("1.52", "1.44"), Ok("1.52".to_owned()));
        assert_eq!(of("1.170", "1.44"), Ok(NEWEST.to_string()));
        assert_eq!(of("2.0", "1.44"), Ok(NEWEST.to_string()));
        // Not as numbers with a fraction: 1.9 is long before 1.24.
        assert!(of("1.9", "1.0").is_err());
        // Before Docker 1.13 nothing was said of the least.
        let silent = agreed(json!({"ApiVersion": "1.24"}));
        assert_eq!(silent, Ok("1.24".to_owned()));
        assert_eq!(of("1.25", ""), Ok("1.25".to_owned()));
    }

    #[test]
    fn without_a_version_that_both_know_it_is_said_who_is_to_be_upgraded() {
        let old = agreed(json!({"ApiVersion": "1.23", "MinAPIVersion": "1.12"}));
        let old = old.expect_err("too old");
        assert!(old.contains("1.23") && old.contains("1.24"), "{old}");
        assert!(old.ends_with("upgrade it to Docker 1.12 or later"), "{old}");
        let new = agreed(json!({"ApiVersion": "1.170", "MinAPIVersion": "1.160"}));
        let new = new.expect_err("too new");
        assert!(new.contains("at least version 1.160"), "{new}");
        assert!(new.contains(&NEWEST.to_string()), "{new}");
        assert!(new.ends_with("upgrade lb-agent"), "{new}");
    }

    #[test]
    fn what_is_no_version_is_named() {
        for said in [
            json!({}),
            json!({"ApiVersion": "41"}),
            json!({"ApiVersion": "1.x"}),
            json!({"ApiVersion": "1.41", "MinAPIVersion": "none"}),
        ] {
            let why = agreed(said.clone()).expect_err("no version");
            assert!(why.ends_with("which is none"), "{said}: {why}");
        }
    }

    #[test]
    fn every_path_has_the_version_before_it() {
        let version = Version::read("1.41").expect("a version");
        let mut uri = "http://docker/events?since=3".parse().expect("a URI");
        version.mark(&mut uri).expect("a path");
        assert_eq!(uri, "/v1.41/events?since=3");
    }
}
