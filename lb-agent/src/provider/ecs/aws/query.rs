//! A request to one of Amazon's query APIs: a form, signed (SigV4), answered in XML.

use std::{sync::Arc, time::SystemTime};

use aws_config::SdkConfig;
use aws_sigv4::{
    http_request::{SignableBody, SignableRequest, SigningSettings, sign},
    sign::v4,
};
use aws_types::service_config::ServiceConfigKey;
use reqwest::Url;
use serde::{Deserialize, de::DeserializeOwned};

use super::{CONNECT, DEADLINE, Failure, FailureKind, Identity, no_credentials};
use crate::provider::{causes::with_causes, ecs::api::cut};

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

/// Queues, which are asked at their own addresses.
pub(super) const QUEUES: Service = Service {
    id: "SQS",
    name: "sqs",
    version: "2012-11-05",
};

/// Asks.
pub(super) struct Query {
    http: reqwest::Client,
    region: String,
    /// Where `--ecs-endpoint`, `AWS_ENDPOINT_URL` or the profile says, by service id.
    endpoints: Vec<(&'static str, String)>,
    identity: Arc<Identity>,
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
    pub(super) fn new(found: &SdkConfig, identity: Arc<Identity>) -> Result<Self, Failure> {
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
            // As with the SDK: `--ecs-endpoint` over a variable for one service, and that over one for all.
            let given = found.get_origin("endpoint_url").is_client_config();
            let config = found.service_config().filter(|_| !given);
            let own = config.and_then(|config| config.load_config(key.ok()?));
            let url = own.or_else(|| found.endpoint_url().map(str::to_owned))?;
            Some((service.id, url))
        });
        Ok(Self {
            endpoints: endpoints.collect(),
            http,
            region,
            identity,
        })
    }

    /// Asks, and reads the answer.
    ///
    /// # Errors
    /// Also an answer that cannot be read.
    pub(super) async fn ask<T: DeserializeOwned>(
        &self,
        service: Service,
        action: &str,
        words: Vec<(String, String)>,
    ) -> Result<T, Failure> {
        let url = self.endpoint(service)?;
        self.ask_at(&url, service, action, words).await
    }

    /// As [`Self::ask`], at an address of its own.
    ///
    /// # Errors
    /// Also an answer that cannot be read.
    pub(super) async fn ask_at<T: DeserializeOwned>(
        &self,
        url: &Url,
        service: Service,
        action: &str,
        words: Vec<(String, String)>,
    ) -> Result<T, Failure> {
        let asked = tokio::time::timeout(DEADLINE, self.send(url, service, action, words));
        let (status, text) = match asked.await {
            Ok(answer) => answer?,
            Err(_) => {
                let reason = format!("{action}: no answer within {} s", DEADLINE.as_secs());
                return Err(Failure::passing(reason));
            }
        };
        if status != 200 {
            let failure = refusal(action, status, &text);
            if failure.kind == FailureKind::Doubted {
                self.identity.doubt();
            }
            return Err(failure);
        }
        quick_xml::de::from_str(&text).map_err(|error| {
            Failure::passing(format!("{action}: the answer cannot be read: {error}"))
        })
    }

    async fn send(
        &self,
        url: &Url,
        service: Service,
        action: &str,
        words: Vec<(String, String)>,
    ) -> Result<(u16, String), Failure> {
        let head = [("Action", action), ("Version", service.version)];
        let body = form(
            head.into_iter().chain(
                words
                    .iter()
                    .map(|(name, value)| (name.as_str(), value.as_str())),
            ),
        );
        let credentials = self.identity.credentials().await;
        let credentials = credentials.map_err(|error| no_credentials(&error))?;
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
        let unreachable = |error: reqwest::Error| failed(&cut(&with_causes(&error)));
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

    /// Where a service is asked, if it has no address of its own.
    pub(super) fn endpoint(&self, service: Service) -> Result<Url, Failure> {
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
