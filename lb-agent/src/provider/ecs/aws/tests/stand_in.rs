//! An AWS on this machine, with what gives credentials, and a client in a process of its own, since its environment
//! says who it is.

use std::{
    collections::BTreeMap,
    path::Path,
    process::Command,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant, SystemTime},
};

use aws_sdk_ecs::primitives::{DateTime, DateTimeFormat};
use axum::{
    Router,
    body::Bytes,
    extract::State as Shared,
    http::{HeaderMap, Method, StatusCode, Uri},
};
use serde_json::json;

use super::*;
use crate::provider::ecs::events::Queue as _;

/// What the container's and the instance's endpoints want to see.
pub(super) const TOKEN: &str = "token-of-the-stand-in";
const ROLE: &str = "lb-node";
pub(super) const GROUP: &str =
    "arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/web-tg/0123456789abcdef";
/// As `--ecs-endpoint`; the stand-in, if a variable does not say other.
pub(super) const ENDPOINT: &str = "LB_TEST_ENDPOINT";
/// Where the stand-in has a queue.
pub(super) const QUEUE: &str = "/123456789012/lb";
const WORDS: &str = "LB_TEST_WORDS";
/// What a process says begins with this.
const SAYS: &str = "said: ";
const PATIENCE: Duration = Duration::from_secs(30);

/// An AWS on this machine.
pub(super) struct StandIn {
    pub(super) url: String,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
pub(super) struct State {
    /// What roles are given, the last one for ever: a key, and the seconds for which it is good. `None`: an error.
    pub(super) keys: Vec<Option<(&'static str, u64)>>,
    /// How often that was asked for.
    pub(super) searches: usize,
    /// Keys that have expired, as AWS has it.
    pub(super) expired: Vec<&'static str>,
    /// Answers of the query APIs, by action, and by action and page (`DescribeListeners 2`).
    pub(super) answers: BTreeMap<&'static str, (u16, String)>,
    /// The actions that were asked for.
    pub(super) actions: Vec<String>,
}

async fn answer(
    Shared(state): Shared<Arc<Mutex<State>>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, [(&'static str, &'static str); 1], String) {
    let mut state = state.lock().unwrap();
    let header = |name: &str| {
        let value = headers.get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default()
    };
    let metadata = "/latest/meta-data";
    let role = format!("{metadata}/iam/security-credentials/");
    let (status, text) = match uri.path() {
        "/" | QUEUE => state.asked(header, &body),
        "/role" if header("authorization") == TOKEN => state.role(),
        "/latest/api/token" if method == Method::PUT => (200, TOKEN.to_owned()),
        path if !path.starts_with(metadata) => (404, String::new()),
        _ if header("x-aws-ec2-metadata-token") != TOKEN => (401, String::new()),
        path if path == format!("{metadata}/placement/region") => (200, "eu-north-1".to_owned()),
        path if path == role => (200, ROLE.to_owned()),
        path if path == format!("{role}{ROLE}") => state.role(),
        _ => (404, String::new()),
    };
    // Of the metadata's token.
    let life = [("x-aws-ec2-metadata-token-ttl-seconds", "21600")];
    (StatusCode::from_u16(status).unwrap(), life, text)
}

// === impl State ===

impl State {
    fn role(&mut self) -> (u16, String) {
        let most = self.keys.len() - 1;
        let given = self.keys[self.searches.min(most)];
        self.searches += 1;
        let Some((key, seconds)) = given else {
            return (403, "{}".to_owned());
        };
        let end = DateTime::from(SystemTime::now() + Duration::from_secs(seconds));
        let end = end.fmt(DateTimeFormat::DateTime).unwrap();
        let answer = json!({"Code": "Success", "Type": "AWS-HMAC", "LastUpdated": end, "AccessKeyId": key,
            "SecretAccessKey": "secret", "Token": "session", "Expiration": end});
        (200, answer.to_string())
    }

    /// ECS lists who signed, for where and for what, as if that were tasks; the query APIs say so in an error.
    fn asked<'h>(&mut self, header: impl Fn(&str) -> &'h str, body: &[u8]) -> (u16, String) {
        let scope = header("authorization").split_once("Credential=").unwrap().1;
        let scope: Vec<_> = scope.split(',').next().unwrap().split('/').collect();
        let [key, _, region, service, _] = scope[..] else {
            panic!("{scope:?}");
        };
        let session = header("x-amz-security-token");
        let signed = format!("{key} {region} {service} {session}");
        if service == "ecs" {
            if self.expired.contains(&key) {
                let error = json!({"__type": "ExpiredTokenException", "message": "The security token is expired"});
                return (400, error.to_string());
            }
            return (200, json!({"taskArns": [signed.trim_end()]}).to_string());
        }
        let body = std::str::from_utf8(body).unwrap();
        let action = body
            .split('&')
            .find_map(|word| word.strip_prefix("Action="));
        let action = action.unwrap();
        self.actions.push(action.to_owned());
        let page = body.split('&').find_map(|word| {
            let marker = word.strip_prefix("Marker=");
            marker.or_else(|| word.strip_prefix("NextToken="))
        });
        let key = page.map_or_else(|| action.to_owned(), |page| format!("{action} {page}"));
        if let Some(answer) = self.answers.get(key.as_str()) {
            return answer.clone();
        }
        let error = format!(
            "<ErrorResponse><Error><Code>LoadBalancerNotFound</Code><Message>{signed}</Message></Error></ErrorResponse>"
        );
        (400, error)
    }
}

// === impl StandIn ===

impl StandIn {
    pub(super) async fn start() -> Self {
        let state = Arc::<Mutex<State>>::default();
        let app = Router::new()
            .fallback(answer)
            .with_state(Arc::clone(&state));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        // It ends with the runtime of its test.
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { url, state }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// What a client with nothing but these variables says to each of the words.
    pub(super) async fn ask(
        &self,
        home: &Path,
        variables: &[(&str, &str)],
        words: &str,
    ) -> Vec<String> {
        let mut client = Command::new(std::env::current_exe().unwrap());
        client
            .args(["--ignored", "--exact", "--nocapture"])
            .arg("provider::ecs::aws::tests::stand_in::helper_that_asks")
            .env_clear()
            .env("HOME", home)
            .env(ENDPOINT, &self.url)
            .env(WORDS, words)
            .envs(variables.iter().copied());
        let done = tokio::task::spawn_blocking(move || client.output());
        let done = done.await.unwrap().unwrap();
        let text = String::from_utf8(done.stdout).unwrap();
        let errors = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{text}{errors}");
        let said = text.lines().filter_map(|line| line.split_once(SAYS));
        said.map(|(_, said)| said.to_owned()).collect()
    }
}

#[tokio::test]
#[ignore = "no test: others run it as a process of its own, with an environment of its own"]
async fn helper_that_asks() {
    // As `main` does.
    _ = rustls::crypto::ring::default_provider().install_default();
    let mut config = EcsConfig::new("c");
    config.endpoint = std::env::var(ENDPOINT).ok().filter(|url| !url.is_empty());
    let aws = match Aws::connect(&config).await {
        Ok(aws) => aws,
        Err(failure) => return println!("{SAYS}{failure}"),
    };
    let tasks = async || match aws.list_tasks(false, None).await {
        Ok(page) => page.arns[0].to_string(),
        Err(failure) => failure.reason,
    };
    for word in std::env::var(WORDS).unwrap().split(',') {
        let said = match word.split_once('=') {
            None if word == "tasks" => tasks().await,
            None if word == "classic" => told(aws.classic("elb").await),
            None if word == "group" => told(aws.group(GROUP).await),
            None if word == "addresses" => {
                told(aws.addresses(&["i-1".to_owned(), "i-2".to_owned()]).await)
            }
            None if word == "events" => {
                let url = format!("{}{QUEUE}", std::env::var(ENDPOINT).unwrap());
                told(Sqs::new(url.parse().unwrap(), None).receive().await)
            }
            Some(("until", text)) => {
                let end = Instant::now() + PATIENCE;
                loop {
                    let said = tasks().await;
                    if said.contains(text) || Instant::now() > end {
                        break said;
                    }
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
            Some(("write", key)) => {
                let path = std::env::var("AWS_SHARED_CREDENTIALS_FILE").unwrap();
                std::fs::write(path, profile(key)).unwrap();
                continue;
            }
            _ => panic!("{word}"),
        };
        println!("{SAYS}{said}");
    }
}

/// A file of credentials.
pub(super) fn profile(key: &str) -> String {
    format!("[lb]\naws_access_key_id = {key}\naws_secret_access_key = secret\n")
}

fn told<T: std::fmt::Debug>(outcome: Result<T, Failure>) -> String {
    match outcome {
        Ok(found) => format!("{found:?}"),
        Err(failure) => format!("{:?}: {failure}", failure.kind),
    }
}
