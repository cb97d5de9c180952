//! Who the agent is to AWS: credentials from wherever Amazon's own tools find them.
//!
//! They are looked for anew before they expire, as soon as AWS doubts them, and from time to time where they never
//! expire, since a file of credentials may have been written anew. The SDK's own providers and their cache read files once.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use aws_config::Region;
use aws_credential_types::{
    Credentials,
    provider::{
        self, ProvideCredentials, error::CredentialsError, future::ProvideCredentials as Providing,
    },
};
use tokio::{sync::Mutex, time::timeout};

use super::{Failure, loader};
use crate::provider::{causes::with_causes, ecs::api::cut};

/// Credentials are renewed this long before they expire.
const RENEW: Duration = Duration::from_secs(300);
/// How long credentials are used that never expire.
const KEEP: Duration = Duration::from_secs(300);
/// Until they are looked for again where that failed and those that are held are still good.
const AGAIN: Duration = Duration::from_secs(10);
/// The longest search; less than a request may take, so that the request says what is missing.
const SEARCH: Duration = Duration::from_secs(8);

/// Who the agent is.
#[derive(Debug)]
pub(super) struct Identity {
    region: Region,
    held: Mutex<Option<Held>>,
    /// Whether AWS does not accept what is held.
    doubted: AtomicBool,
}

#[derive(Debug)]
struct Held {
    credentials: Credentials,
    /// Then others are looked for.
    until: SystemTime,
}

/// Why nothing can be asked.
pub(super) fn no_credentials(error: &CredentialsError) -> Failure {
    // The SDK's is a list of several lines.
    let why = with_causes(error);
    let why = cut(&why.split_whitespace().collect::<Vec<_>>().join(" "));
    Failure::passing(format!(
        "no credentials for AWS: {why}; give the agent a role, a profile or variables (docs/ecs.md)"
    ))
}

// === impl Identity ===

impl Identity {
    pub(super) fn new(region: Region) -> Arc<Self> {
        Arc::new(Self {
            region,
            held: Mutex::new(None),
            doubted: AtomicBool::new(false),
        })
    }

    /// What signs a request.
    pub(super) async fn credentials(&self) -> provider::Result {
        let mut held = self.held.lock().await;
        let now = SystemTime::now();
        let good = held
            .as_ref()
            .filter(|_| !self.doubted.load(Ordering::Relaxed));
        if let Some(held) = good.filter(|held| now < held.until) {
            return Ok(held.credentials.clone());
        }
        match self.look().await {
            Ok(credentials) => {
                let until = match credentials.expiry() {
                    Some(end) => end.checked_sub(RENEW).unwrap_or(now),
                    None => now + KEEP,
                };
                self.doubted.store(false, Ordering::Relaxed);
                *held = Some(Held {
                    credentials: credentials.clone(),
                    until,
                });
                Ok(credentials)
            }
            Err(error) => {
                let good = good.map(|held| held.credentials.clone());
                let end = good.as_ref().map(|good| good.expiry());
                match good.filter(|_| end.flatten().is_none_or(|end| now < end)) {
                    Some(credentials) => {
                        tracing::warn!(why = %with_causes(&error), "credentials for AWS cannot be renewed yet");
                        *held = Some(Held {
                            credentials: credentials.clone(),
                            until: now + AGAIN,
                        });
                        Ok(credentials)
                    }
                    None => Err(error),
                }
            }
        }
    }

    /// AWS does not accept them: others are looked for at the next request.
    pub(super) fn doubt(&self) {
        self.doubted.store(true, Ordering::Relaxed);
    }

    async fn look(&self) -> provider::Result {
        let search = async {
            let found = loader().region(self.region.clone()).load().await;
            let provider = found.credentials_provider();
            let provider =
                provider.ok_or_else(|| CredentialsError::not_loaded("nobody provides any"))?;
            provider.provide_credentials().await
        };
        let found = timeout(SEARCH, search).await;
        found.unwrap_or(Err(CredentialsError::provider_timed_out(SEARCH)))
    }
}

/// For the SDK.
#[derive(Clone, Debug)]
pub(super) struct Shared(pub(super) Arc<Identity>);

impl ProvideCredentials for Shared {
    fn provide_credentials<'a>(&'a self) -> Providing<'a>
    where
        Self: 'a,
    {
        Providing::new(self.0.credentials())
    }
}
