//! Logging in to DC/OS: an account's key or password for a token, which every request carries until it ends.
//!
//! A service account proves itself by a JSON web token (RFC 7519) that it signs with its RSA key (RS256, RFC 7518
//! section 3.3). The TLS provider of the process signs: it can, and is there.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use reqwest::{StatusCode, Url};
use rustls::{
    SignatureScheme,
    crypto::CryptoProvider,
    pki_types::{PrivateKeyDer, pem::PemObject as _},
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::client::Failure;

/// Where DC/OS logs in.
const PATH: &str = "/acs/api/v1/auth/login";
/// How long our proof counts.
const PROOF: Duration = Duration::from_secs(60);
/// How long before its end a token is renewed.
const EARLY: Duration = Duration::from_secs(300);
/// The longest answer, bytes.
const MOST_BYTES: usize = 64 << 10;

/// A file that holds an account, as `DCOS_SERVICE_ACCOUNT_CREDENTIAL` does: `uid` with `private_key` or `password`, and
/// maybe `login_endpoint`. It is read whenever somebody logs in, so that a renewed one counts.
#[derive(Clone, Debug)]
pub struct Credentials {
    path: PathBuf,
}

#[derive(Deserialize)]
struct Account {
    uid: String,
    private_key: Option<String>,
    password: Option<String>,
    login_endpoint: Option<Url>,
}

/// The token that is sent, shared by all requests.
#[derive(Debug)]
pub(super) struct Login {
    credentials: Credentials,
    /// Held while somebody logs in: the others wait for his token.
    held: Mutex<Option<Held>>,
}

struct Held {
    token: String,
    renew: Option<SystemTime>,
}

// === impl Credentials ===

impl Credentials {
    /// # Errors
    /// The file cannot be used now: it cannot be read, is no such JSON, or its key is none that can sign.
    pub fn in_file(path: &Path) -> Result<Self, String> {
        let credentials = Self {
            path: path.to_owned(),
        };
        credentials.read()?.body(SystemTime::now())?;
        Ok(credentials)
    }

    fn read(&self) -> Result<Account, String> {
        let path = self.path.display();
        let text = fs::read(&self.path).map_err(|e| format!("cannot read {path}: {e}"))?;
        // What serde says of a wrong value repeats it, and it may be the secret.
        let account: Account = serde_json::from_slice(&text).map_err(|e| {
            let (line, column) = (e.line(), e.column());
            format!(
                "{path} is no DC/OS account (line {line}, column {column}): it must be JSON with uid, and private_key or \
                 password"
            )
        })?;
        match (&account.private_key, &account.password) {
            (Some(_), None) | (None, Some(_)) => Ok(account),
            _ => Err(format!(
                "{path}: it must have either private_key or password"
            )),
        }
    }
}

// === impl Account ===

impl Account {
    /// What is posted to log in.
    fn body(&self, now: SystemTime) -> Result<Value, String> {
        let Self { uid, .. } = self;
        match (&self.private_key, &self.password) {
            (Some(key), _) => Ok(json!({"uid": uid, "token": proof(uid, key, now)?})),
            (None, password) => Ok(json!({"uid": uid, "password": password})),
        }
    }
}

/// A token that says who we are, for a minute.
fn proof(uid: &str, key: &str, now: SystemTime) -> Result<String, String> {
    let wrong = |why: &dyn std::fmt::Display| format!("private_key of account {uid:?}: {why}");
    let provider = CryptoProvider::get_default()
        .ok_or_else(|| wrong(&"no TLS crypto provider is installed in this process"))?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
        .map_err(|e| wrong(&format_args!("it is no PEM: {e}")))?;
    let key = provider.key_provider.load_private_key(key);
    let key = key.map_err(|e| wrong(&e))?;
    let signer = key
        .choose_scheme(&[SignatureScheme::RSA_PKCS1_SHA256])
        .ok_or_else(|| wrong(&"it is no RSA key, which RS256 needs"))?;
    let end = now + PROOF;
    let end = end.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let part = |value: Value| BASE64.encode(value.to_string());
    let signed = format!(
        "{}.{}",
        part(json!({"alg": "RS256", "typ": "JWT"})),
        part(json!({"uid": uid, "exp": end}))
    );
    let signature = signer.sign(signed.as_bytes()).map_err(|e| wrong(&e))?;
    Ok(format!("{signed}.{}", BASE64.encode(signature)))
}

// === impl Login ===

impl Login {
    /// Nobody is logged in yet.
    pub(super) fn new(credentials: &Credentials) -> Self {
        Self {
            credentials: credentials.clone(),
            held: Mutex::default(),
        }
    }

    /// The token to send to `base`; a new one if there is none, if it ends soon, or if it is the one that was `refused`.
    pub(super) async fn token(
        &self,
        client: &reqwest::Client,
        base: &Url,
        refused: Option<&str>,
        patience: Duration,
    ) -> Result<String, Failure> {
        let mut held = self.held.lock().await;
        if let Some(Held { token, renew }) = &*held
            && Some(token.as_str()) != refused
            && renew.is_none_or(|renew| SystemTime::now() < renew)
        {
            return Ok(token.clone());
        }
        let new = self.log_in(client, base, patience).await?;
        let token = new.token.clone();
        *held = Some(new);
        Ok(token)
    }

    async fn log_in(
        &self,
        client: &reqwest::Client,
        base: &Url,
        patience: Duration,
    ) -> Result<Held, Failure> {
        let mut url = base.clone();
        url.set_path(PATH);
        url.set_query(None);
        let now = SystemTime::now();
        let account = self.credentials.read();
        let account = account.and_then(|account| Ok((account.body(now)?, account.login_endpoint)));
        let (body, endpoint) = account.map_err(|why| Failure::of_login(&url, None, why))?;
        if let Some(endpoint) = endpoint {
            url = endpoint;
        }
        let request = client.post(url.clone()).json(&body).timeout(patience);
        let mut answer = request
            .send()
            .await
            .map_err(|e| Failure::transport(&url, &e))?;
        if answer.status() != StatusCode::OK {
            let status = answer.status();
            let why = format!("DC/OS answered {status} to the login");
            return Err(Failure::of_login(&url, Some(status), why));
        }
        let mut text = Vec::new();
        while let Some(chunk) = answer
            .chunk()
            .await
            .map_err(|e| Failure::transport(&url, &e))?
        {
            text.extend_from_slice(&chunk);
            if text.len() > MOST_BYTES {
                break;
            }
        }
        Held::of(&text, now).ok_or_else(|| {
            let why = "the answer to the login has no token".to_owned();
            Failure::of_login(&url, None, why)
        })
    }
}

// === impl Held ===

impl Held {
    fn of(answer: &[u8], now: SystemTime) -> Option<Self> {
        let answer: Value = serde_json::from_slice(answer).ok()?;
        let token = answer["token"].as_str()?;
        reqwest::header::HeaderValue::from_str(token).ok()?;
        Some(Self {
            token: token.to_owned(),
            renew: renewal(token, now),
        })
    }
}

/// When a token that says its end is to be renewed; one that ends within minutes, when half of its life is over.
fn renewal(token: &str, now: SystemTime) -> Option<SystemTime> {
    let claims = BASE64.decode(token.split('.').nth(1)?).ok()?;
    let claims: Value = serde_json::from_slice(&claims).ok()?;
    let end = UNIX_EPOCH.checked_add(Duration::from_secs(claims["exp"].as_u64()?))?;
    let left = end.duration_since(now).unwrap_or_default();
    Some(now + left.saturating_sub(EARLY).max(left / 2))
}

impl std::fmt::Debug for Held {
    /// Never the token.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Held").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_renewed_before_its_end_if_it_says_one() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000);
        let token = |exp: u64| format!("e30.{}.x", BASE64.encode(json!({"exp": exp}).to_string()));
        let after =
            |token: &str| renewal(token, now).map(|at| at.duration_since(now).unwrap().as_secs());
        assert_eq!(after(&token(1_432_000)), Some(432_000 - 300));
        assert_eq!(after(&token(1_000_100)), Some(50));
        assert_eq!(after(&token(900_000)), Some(0));
        for none in ["opaque", "a.b.c", "e30.e30.x", "a.!.c"] {
            assert_eq!(after(none), None, "{none}");
        }
    }

    #[test]
    fn a_file_that_is_no_account_is_refused_without_its_secret() {
        _ = rustls::crypto::ring::default_provider().install_default();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("account.json");
        let refused = |text: &str| {
            fs::write(&path, text).unwrap();
            let why = Credentials::in_file(&path).unwrap_err();
            assert!(!why.contains("hunter2"), "{why}");
            why
        };
        assert!(refused("hunter2").contains("is no DC/OS account"));
        assert!(refused(r#"{"uid": 1, "password": "hunter2"}"#).contains("is no DC/OS account"));
        assert!(refused(r#"{"uid": "a"}"#).contains("either private_key or password"));
        let both = r#"{"uid": "a", "password": "hunter2", "private_key": "hunter2"}"#;
        assert!(refused(both).contains("either private_key or password"));
        assert!(refused(r#"{"uid": "a", "private_key": "hunter2"}"#).contains("it is no PEM"));
        fs::remove_file(&path).unwrap();
        assert!(
            Credentials::in_file(&path)
                .unwrap_err()
                .contains("cannot read")
        );
    }
}
