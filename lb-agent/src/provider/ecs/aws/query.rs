//! A request to one of Amazon's query APIs: a form, signed (SigV4), answered in XML.

use std::time::{Duration, SystemTime};

use aws_config::SdkConfig;
use aws_credential_types::{
    Credentials,
    provider::{ProvideCredentials as _, SharedCredentialsProvider},
};
use aws_sigv4::{
    http_request::{SignableBody, SignableRequest, SigningSettings, sign},
    sign::v4,
};
use aws_types::service_config::ServiceConfigKey;
use reqwest::Url;
use serde::Deserialize;
use tokio::sync::Mutex;

use super::{CONNECT, DEADLINE, Failure, RENEW};
use crate::provider::ecs::api::cut;

/// How long credentials are used that never expire: a changed file counts from then on.
const KEEP: Duration = Duration::from_secs(300);
/// The longest answer that is read, bytes.
const MOST: usize = 8 << 20;
const FORM: &str = "application/x-www-form-urlencoded; charset=utf-8";

/// One of the APIs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Service {
    /// As the configuration of an endpoint names it: `AWS_ENDPOINT_URL_EC2`, `ec2` in a profile.
    id: &'static str,
    /// As signatures and host names have it.
    name: &'static str,
    version: &'static str,
}

/// EC2.
pub(super) const EC2: Service = Service {
    id: "EC2",
    name: "ec2",
    version: "2016-11-15",
};
/// Classic load balancers.
pub(super) const CLASSIC: Service = Service {
    id: "Elastic Load Balancing",
    name: "elasticloadbalancing",
    version: "2012-06-01",
};
/// Application and network load balancers.
pub(super) const NEW: Service = Service {
    id: "Elastic Load Balancing v2",
    name: "elasticloadbalancing",
    version: "2015-12-01",
};

/// Asks.
pub(super) struct Query {
    http: reqwest::Client,
    region: String,
    /// Where `AWS_ENDPOINT_URL`, `--ecs-endpoint` or the profile says, by service id.
    endpoints: Vec<(&'static str, String)>,
    credentials: Option<SharedCredentialsProvider>,
    held: Mutex<Option<(Credentials, SystemTime)>>,
}

/// What both kinds of error answers have in them.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct ErrorAnswer {
    #[serde(alias = "Errors")]
    errors: Errors,
    error: Option<Said>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Errors {
    error: Option<Said>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Said {
    code: String,
    message: String,
}

// === impl Query ===

impl Query {
    pub(super) fn new(found: &SdkConfig) -> Result<Self, Failure> {
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT)
            .timeout(DEADLINE)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build();
        let http = http.map_err(|error| Failure::passing(format!("no HTTP client: {error}")))?;
        let region = found.region().map(ToString::to_string).unwrap_or_default();
        let endpoints = [EC2, CLASSIC, NEW].into_iter().filter_map(|service| {
            let key = ServiceConfigKey::builder()
                .service_id(service.id)
                .env("AWS_ENDPOINT_URL")
                .profile("endpoint_url")
                .build();
            let config = found.service_config();
            let own = config.and_then(|config| config.load_config(key.ok()?));
            let url = own.or_else(|| found.endpoint_url().map(str::to_owned))?;
            Some((service.id, url))
        });
        Ok(Self {
            endpoints: endpoints.collect(),
            http,
            region,
            credentials: found.credentials_provider(),
            held: Mutex::new(None),
        })
    }

    /// Asks, and reads the answer.
    ///
    /// # Errors
    /// Also an answer that cannot be read.
    pub(super) async fn ask<T: serde::de::DeserializeOwned>(
        &self,
        service: Service,
        action: &str,
        words: Vec<(String, String)>,
    ) -> Result<T, Failure> {
        let asked = tokio::time::timeout(DEADLINE, self.send(service, action, words));
        let (status, text) = match asked.await {
            Ok(answer) => answer?,
            Err(_) => {
                let reason = format!("{action}: no answer within {} s", DEADLINE.as_secs());
                return Err(Failure::passing(reason));
            }
        };
        if status != 200 {
            return Err(refusal(action, status, &text));
        }
        quick_xml::de::from_str(&text).map_err(|error| {
            Failure::passing(format!("{action}: the answer cannot be read: {error}"))
        })
    }

    async fn send(
        &self,
        service: Service,
        action: &str,
        words: Vec<(String, String)>,
    ) -> Result<(u16, String), Failure> {
        let url = self.endpoint(service)?;
        let head = [("Action", action), ("Version", service.version)];
        let body = form(
            head.into_iter().chain(
                words
                    .iter()
                    .map(|(name, value)| (name.as_str(), value.as_str())),
            ),
        );
        let credentials = self.credentials().await?;
        let failed = |what: &str| Failure::passing(format!("{action}: {what}"));
        let identity = credentials.into();
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name(service.name)
            .time(SystemTime::now())
            .settings(SigningSettings::default())
            .build()
            .map_err(|error| failed(&format!("cannot be signed: {error}")))?;
        let request = SignableRequest::new(
            "POST",
            url.as_str(),
            [("content-type", FORM)].into_iter(),
            SignableBody::Bytes(body.as_bytes()),
        );
        let signed = request
            .and_then(|request| sign(request, &params.into()))
            .map_err(|error| failed(&format!("cannot be signed: {error}")))?;
        let (instructions, _) = signed.into_parts();
        let mut request = self.http.post(url.clone()).header("content-type", FORM);
        for (name, value) in instructions.headers() {
            request = request.header(name, value);
        }
        let unreachable = |error: reqwest::Error| failed(&reason(&error));
        let mut answer = request.body(body).send().await.map_err(unreachable)?;
        let status = answer.status().as_u16();
        let mut bytes = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(unreachable)? {
            if bytes.len() + chunk.len() > MOST {
                return Err(failed("the answer is too long"));
            }
            bytes.extend_from_slice(&chunk);
        }
        let text = String::from_utf8(bytes).map_err(|_| failed("the answer is no text"))?;
        Ok((status, text))
    }

    fn endpoint(&self, service: Service) -> Result<Url, Failure> {
        let own = self.endpoints.iter().find(|(id, _)| *id == service.id);
        let domain = if self.region.starts_with("cn-") {
            "amazonaws.com.cn"
        } else {
            "amazonaws.com"
        };
        let url = own.map_or_else(
            || format!("https://{}.{}.{domain}/", service.name, self.region),
            |(_, url)| url.clone(),
        );
        Url::parse(&url).map_err(|error| Failure::passing(format!("endpoint {url:?}: {error}")))
    }

    async fn credentials(&self) -> Result<Credentials, Failure> {
        let now = SystemTime::now();
        let mut held = self.held.lock().await;
        if let Some((credentials, until)) = &*held
            && now < *until
        {
            return Ok(credentials.clone());
        }
        let provider = self
            .credentials
            .as_ref()
            .ok_or_else(|| Failure::passing("no credentials for AWS are known"))?;
        let found = provider.provide_credentials().await.map_err(|error| {
            let error = aws_sdk_ecs::error::DisplayErrorContext(&error);
            Failure::passing(cut(&format!("no credentials for AWS: {error}")))
        })?;
        let until = found
            .expiry()
            .map(|end| end.checked_sub(RENEW).unwrap_or(now));
        *held = Some((found.clone(), until.unwrap_or(now + KEEP)));
        Ok(found)
    }
}

/// What an error answer means.
pub(super) fn refusal(action: &str, status: u16, text: &str) -> Failure {
    let read: ErrorAnswer = quick_xml::de::from_str(text).unwrap_or_default();
    let said = read.error.or(read.errors.error).unwrap_or_default();
    if said.code.is_empty() {
        let kind = format!("HTTP status {status}");
        return Failure::of_answer(action, status, &kind, text);
    }
    // `TargetGroupNotFound`, `Throttling`; some have a prefix.
    Failure::of_answer(action, status, &said.code, &said.message)
}

/// As the body of a form.
fn form<'a>(words: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    // What is behind a URL's question mark is written in the same way.
    let url = Url::parse_with_params("http://form/", words);
    let query = url.ok().and_then(|url| url.query().map(str::to_owned));
    query.unwrap_or_default()
}

/// With the causes, which the library's own text leaves out.
fn reason(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    cut(&text)
}
