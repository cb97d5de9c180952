//! The watcher at a DC/OS that wants a token of its own.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use rustls::{SignatureScheme, crypto::ring};
use serde_json::{Value, json};

use super::{
    server::{Fake, LOGIN, Reply},
    watched::*,
};
use crate::provider::marathon::{Auth, Credentials, MarathonConfig};

const KEY: &str = include_str!("../fixtures/service-account.pem");
const PUBLIC_KEY: &[u8] = include_bytes!("../fixtures/service-account.der");

struct Dcos {
    fake: Fake,
    file: tempfile::NamedTempFile,
}

impl Dcos {
    async fn start() -> Self {
        _ = ring::default_provider().install_default();
        let dcos = Self {
            fake: Fake::start(json!([app_a()])).await,
            file: tempfile::NamedTempFile::new().unwrap(),
        };
        dcos.gives("one");
        dcos
    }

    /// The only token that counts from now on, and that a login gives.
    fn gives(&self, token: &str) {
        self.fake.wants(&format!("token={token}"));
        self.fake.set(LOGIN, Reply::Json(json!({ "token": token })));
    }

    fn config(&self, account: &Value) -> MarathonConfig {
        std::fs::write(self.file.path(), account.to_string()).unwrap();
        let mut config = config(&self.fake);
        config.auth = Auth::Login(Credentials::in_file(self.file.path()).unwrap());
        config
    }

    fn logins(&self) -> Vec<Value> {
        let seen = self.fake.seen(LOGIN);
        seen.iter()
            .map(|seen| serde_json::from_slice(&seen.body).unwrap())
            .collect()
    }
}

/// The claims of a token that is signed as RS256 by the account's key.
fn verified(token: &str) -> Value {
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let algorithms = ring::default_provider().signature_verification_algorithms;
    let rs256 = algorithms.mapping.iter();
    let mut rs256 = rs256.filter(|(scheme, _)| *scheme == SignatureScheme::RSA_PKCS1_SHA256);
    let signature = BASE64.decode(signature).unwrap();
    let (_, rs256) = rs256.next().unwrap();
    assert!(rs256.iter().any(|one| {
        let verified = one.verify_signature(PUBLIC_KEY, signed.as_bytes(), &signature);
        verified.is_ok()
    }));
    let part = |at| -> Value {
        let text = BASE64.decode(signed.split('.').nth(at).unwrap()).unwrap();
        serde_json::from_slice(&text).unwrap()
    };
    assert_eq!(part(0), json!({"alg": "RS256", "typ": "JWT"}));
    part(1)
}

#[tokio::test]
async fn a_service_account_logs_in_with_a_token_that_its_key_signed() {
    let dcos = Dcos::start().await;
    let account = json!({"uid": "lb", "private_key": KEY, "scheme": "RS256"});
    let mut watched = watch(dcos.config(&account));
    assert_eq!(watched.state().await, [A]);
    let logins = dcos.logins();
    assert_eq!(logins.len(), 1, "one token serves every request");
    assert_eq!(logins[0]["uid"], "lb");
    let claims = verified(logins[0]["token"].as_str().unwrap());
    assert_eq!(claims["uid"], "lb");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let left = claims["exp"].as_u64().unwrap() - now.unwrap().as_secs();
    assert!((30..=60).contains(&left), "{left} s");
    for path in ["/v2/events", "/v2/info", "/v2/apps", "/v2/pods/::status"] {
        let sent = &dcos.fake.seen(path)[0].headers["authorization"];
        assert_eq!(sent, "token=one", "{path}");
    }
}

#[tokio::test]
async fn a_user_logs_in_with_his_password_at_the_endpoint_that_is_given() {
    let dcos = Dcos::start().await;
    let other = Fake::start(json!([])).await;
    other.set("/login", Reply::Json(json!({"token": "one"})));
    let endpoint = format!("{}login", other.url());
    let account = json!({"uid": "joe", "password": "secret", "login_endpoint": endpoint});
    assert_eq!(watch(dcos.config(&account)).state().await, [A]);
    assert!(dcos.logins().is_empty());
    let body: Value = serde_json::from_slice(&other.seen("/login")[0].body).unwrap();
    assert_eq!(body, json!({"uid": "joe", "password": "secret"}));
}

#[tokio::test]
async fn a_token_that_is_refused_is_renewed_once_and_nothing_is_lost() {
    let dcos = Dcos::start().await;
    let account = json!({"uid": "joe", "password": "secret"});
    let mut watched = watch(dcos.config(&account));
    assert_eq!(watched.state().await, [A]);
    dcos.gives("two");
    dcos.fake.apps(json!([app_b()]));
    dcos.fake.event("status_update_event");
    let update = watched.next().await;
    assert_eq!(
        super::lines(&update.outcome.unwrap()),
        [B],
        "no failure in between"
    );
    assert_eq!(dcos.logins().len(), 2);

    // What a login gives does not count: that is said, and tried again later.
    dcos.fake.wants("token=three");
    dcos.fake.event("status_update_event");
    let asked = dcos.fake.seen("/v2/apps").len();
    let why = watched.failure(&[B]).await;
    assert!(why.contains("401"), "{why}");
    assert_eq!(dcos.fake.seen("/v2/apps").len(), asked + 2);
    dcos.gives("three");
    watched.until(&[B]).await;
}

#[tokio::test]
async fn a_login_that_fails_is_said_and_tried_again() {
    let dcos = Dcos::start().await;
    for (reply, expected) in [
        (
            Reply::Text(401, "{}".into()),
            "answered 401 Unauthorized to the login",
        ),
        (
            Reply::Text(200, "{}".into()),
            "the answer to the login has no token",
        ),
        (
            Reply::Text(200, "<html>".into()),
            "the answer to the login has no token",
        ),
        (
            Reply::Json(json!({"token": "a\nb"})),
            "the answer to the login has no token",
        ),
    ] {
        dcos.fake.set(LOGIN, reply);
        let mut watched = watch(dcos.config(&json!({"uid": "joe", "password": "secret"})));
        let why = watched.next().await.outcome.unwrap_err();
        assert!(why.contains(expected) && why.contains(LOGIN), "{why}");
        assert!(!why.contains("secret"), "{why}");
        dcos.gives("one");
        watched.until(&[A]).await;
    }
}

#[tokio::test]
async fn a_key_that_cannot_sign_is_said_before_anything_is_sent() {
    let dcos = Dcos::start().await;
    for (key, expected) in [
        (include_str!("../fixtures/elliptic.pem"), "it is no RSA key"),
        (
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
            "private_key of account",
        ),
    ] {
        let account = json!({"uid": "lb", "private_key": key}).to_string();
        std::fs::write(dcos.file.path(), account).unwrap();
        let why = Credentials::in_file(dcos.file.path()).unwrap_err();
        assert!(why.contains(expected), "{why}");
    }
    assert!(dcos.logins().is_empty());
}
