//! The shell: Amazon's APIs, translated into the model. ECS by the SDK; EC2 and the load balancers by their query
//! APIs (`query`), since their SDK crates would double the build for a handful of fields.

mod answers;
mod identity;
mod query;
mod queue;
mod read;

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, error::Error, net::IpAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use aws_config::{
    BehaviorVersion, ConfigLoader, Region, SdkConfig, retry::RetryConfig, timeout::TimeoutConfig,
};
use aws_credential_types::provider::{SharedCredentialsProvider, error::CredentialsError};
use aws_sdk_ecs::{
    Client,
    config::IdentityCache,
    error::{DisplayErrorContext, ProvideErrorMetadata, SdkError},
    types::{DesiredStatus, ServiceField},
};
use aws_smithy_http_client::{
    Builder,
    tls::{Provider, rustls_provider::CryptoMode},
};

pub(super) use self::queue::Sqs;

use self::{
    answers::Answered as _,
    identity::{Identity, Shared, no_credentials},
    query::Query,
};
use super::{
    DEADLINE, EcsConfig,
    api::{Api, Described, Failure, FailureKind, Page, cut},
    asking::{PAGES, endless},
    model::{Classic, Definition, Group, Listener, Service, Task, last},
};

/// Until a connection stands.
const CONNECT: Duration = Duration::from_secs(3);
/// ARNs a page, the most there are.
const PAGE: i32 = 100;
/// Load balancers that `DescribeLoadBalancers` takes.
const BALANCERS: usize = 20;

/// One cluster at Amazon.
pub(super) struct Aws {
    cluster: String,
    ecs: Client,
    query: Query,
    identity: Arc<Identity>,
}

// === impl Aws ===

impl Aws {
    /// Finds region, credentials and endpoints, as Amazon's own tools do.
    pub(super) async fn connect(config: &EcsConfig) -> Result<Self, Failure> {
        let (found, identity) = found(config.region(), config.endpoint.as_deref()).await?;
        Ok(Self {
            cluster: config.cluster.clone(),
            ecs: Client::new(&found),
            query: Query::new(&found, Arc::clone(&identity))?,
            identity,
        })
    }

    /// What a failure of the SDK means.
    fn failure<E>(&self, call: &str, error: &SdkError<E>) -> Failure
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        let failure = failure(call, error);
        if failure.kind == FailureKind::Doubted {
            self.identity.doubt();
        }
        failure
    }
}

/// Region, credentials and endpoints, where nothing else is said.
async fn found(
    region: Option<&str>,
    endpoint: Option<&str>,
) -> Result<(SdkConfig, Arc<Identity>), Failure> {
    let mut loader = loader();
    if let Some(region) = region {
        loader = loader.region(Region::new(region.to_owned()));
    }
    if let Some(endpoint) = endpoint {
        loader = loader.endpoint_url(endpoint);
    }
    let found = tokio::time::timeout(3 * DEADLINE, loader.load()).await;
    let found = found.map_err(|_| Failure::passing("the configuration of AWS takes too long"))?;
    let Some(region) = found.region() else {
        return Err(Failure::passing(
            "no region is known: give --ecs-region, or AWS_REGION, or a region in the profile",
        ));
    };
    let identity = Identity::new(region.clone());
    let provider = SharedCredentialsProvider::new(Shared(Arc::clone(&identity)));
    let found = found
        .into_builder()
        .credentials_provider(provider)
        .identity_cache(IdentityCache::no_cache())
        .build();
    Ok((found, identity))
}

/// The configuration as Amazon's own tools find it.
fn loader() -> ConfigLoader {
    let http = Builder::new()
        .tls_provider(Provider::Rustls(CryptoMode::Ring))
        .build_https();
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(CONNECT)
        .operation_timeout(DEADLINE)
        .build();
    aws_config::defaults(BehaviorVersion::latest())
        .http_client(http)
        .timeout_config(timeouts)
        // What failed is asked again when the reader says so.
        .retry_config(RetryConfig::disabled())
}

#[async_trait]
impl Api for Aws {
    async fn list_services(&self, page: Option<String>) -> Result<Page, Failure> {
        let asked = self.ecs.list_services().cluster(&self.cluster);
        let answer = asked.max_results(PAGE).set_next_token(page).send().await;
        let answer = answer.map_err(|error| self.failure("ListServices", &error))?;
        Ok(read::page(answer.service_arns, answer.next_token))
    }

    async fn services(&self, arns: &[Arc<str>]) -> Result<Described<Service>, Failure> {
        let asked = self.ecs.describe_services().cluster(&self.cluster);
        let asked = asked.set_services(Some(texts(arns)));
        let answer = asked.include(ServiceField::Tags).send().await;
        let answer = answer.map_err(|error| self.failure("DescribeServices", &error))?;
        let missing = read::missing("DescribeServices", answer.failures)?;
        Ok(read::services(answer.services.unwrap_or_default(), missing))
    }

    async fn list_tasks(&self, stopped: bool, page: Option<String>) -> Result<Page, Failure> {
        let status = if stopped {
            DesiredStatus::Stopped
        } else {
            DesiredStatus::Running
        };
        let asked = self.ecs.list_tasks().cluster(&self.cluster);
        let asked = asked.desired_status(status).max_results(PAGE);
        let answer = asked.set_next_token(page).send().await;
        let answer = answer.map_err(|error| self.failure("ListTasks", &error))?;
        Ok(read::page(answer.task_arns, answer.next_token))
    }

    async fn tasks(&self, arns: &[Arc<str>]) -> Result<Described<Task>, Failure> {
        let asked = self.ecs.describe_tasks().cluster(&self.cluster);
        let answer = asked.set_tasks(Some(texts(arns))).send().await;
        let answer = answer.map_err(|error| self.failure("DescribeTasks", &error))?;
        Ok(Described {
            missing: read::missing("DescribeTasks", answer.failures)?,
            found: read::tasks(answer.tasks.unwrap_or_default()),
        })
    }

    async fn instances(&self, arns: &[Arc<str>]) -> Result<Described<String>, Failure> {
        let asked = self.ecs.describe_container_instances();
        let asked = asked.cluster(&self.cluster);
        let asked = asked.set_container_instances(Some(texts(arns)));
        let answer = asked.send().await;
        let answer = answer.map_err(|error| self.failure("DescribeContainerInstances", &error))?;
        let missing = read::missing("DescribeContainerInstances", answer.failures)?;
        Ok(Described {
            found: read::instances(answer.container_instances.unwrap_or_default()),
            missing,
        })
    }

    async fn definition(&self, arn: &str) -> Result<Definition, Failure> {
        let asked = self.ecs.describe_task_definition().task_definition(arn);
        let answer = asked.send().await;
        let answer = answer.map_err(|error| self.failure("DescribeTaskDefinition", &error))?;
        let definition = answer.task_definition.ok_or_else(|| {
            Failure::passing("DescribeTaskDefinition: the answer has no task definition")
        })?;
        Ok(read::definition(definition))
    }

    async fn addresses(&self, ids: &[String]) -> Result<BTreeMap<String, Vec<IpAddr>>, Failure> {
        let mut found = BTreeMap::new();
        let mut page = None;
        for _ in 0..PAGES {
            let mut words = vec![("Filter.1.Name".to_owned(), "instance-id".to_owned())];
            words.extend(numbered("Filter.1.Value.", ids.iter().map(String::as_str)));
            words.extend(page.map(|token| ("NextToken".to_owned(), token)));
            let answer: answers::Instances = self
                .query
                .ask(query::EC2, "DescribeInstances", words)
                .await?;
            page = answer.next_page();
            found.extend(answer.addresses());
            if page.is_none() {
                return Ok(found);
            }
        }
        Err(endless("DescribeInstances"))
    }

    async fn classic(&self, name: &str) -> Result<Classic, Failure> {
        let words = numbered("LoadBalancerNames.member.", [name]);
        let answer: answers::Classics = self
            .query
            .ask(query::CLASSIC, "DescribeLoadBalancers", words)
            .await?;
        let mut classic = answer.read(name)?;
        let words = vec![("LoadBalancerName".to_owned(), name.to_owned())];
        let asked = self
            .query
            .ask(query::CLASSIC, "DescribeLoadBalancerAttributes", words);
        match unless_refused(asked.await)? {
            Ok(attributes) => answers::ClassicAttributes::read(attributes, &mut classic.manner),
            Err(why) => classic.manner.refused = Some(why),
        }
        Ok(classic)
    }

    async fn group(&self, arn: &str) -> Result<Group, Failure> {
        let words = numbered("TargetGroupArns.member.", [arn]);
        let answer: answers::Groups = self
            .query
            .ask(query::NEW, "DescribeTargetGroups", words)
            .await?;
        let (mut group, balancers) = answer.read(last_but_one(arn))?;
        let words = vec![("TargetGroupArn".to_owned(), arn.to_owned())];
        let asked = self
            .query
            .ask(query::NEW, "DescribeTargetGroupAttributes", words);
        match unless_refused(asked.await)? {
            Ok(attributes) => answers::Attributes::read(attributes, &mut group),
            Err(why) => group.manner.refused = Some(why),
        }
        for some in balancers.chunks(BALANCERS) {
            let words = numbered("LoadBalancerArns.member.", some.iter().map(String::as_str));
            let described: answers::Balancers = self
                .query
                .ask(query::NEW, "DescribeLoadBalancers", words)
                .await?;
            for balancer in described.read() {
                let listeners = self.listeners(&balancer.arn).await?;
                let before = group.listeners.len();
                for listener in listeners {
                    listener.read(arn, &balancer, &mut group);
                }
                if group.listeners.len() == before && balancer.is_application {
                    group.manner.notes.push(format!(
                        "{} chooses it by a rule on host or path, if at all, which needs the payload; it stands under \
                         its own name instead",
                        balancer.name
                    ));
                }
            }
        }
        group.listeners.sort_by(|a: &Listener, b| {
            (&a.balancer, a.port, &a.protocol).cmp(&(&b.balancer, b.port, &b.protocol))
        });
        Ok(group)
    }
}

impl Aws {
    async fn listeners(&self, balancer: &str) -> Result<Vec<answers::Listener>, Failure> {
        let mut all = Vec::new();
        let mut page = None;
        for _ in 0..PAGES {
            let mut words = vec![("LoadBalancerArn".to_owned(), balancer.to_owned())];
            words.extend(page.map(|marker| ("Marker".to_owned(), marker)));
            let mut answer: answers::Listeners = self
                .query
                .ask(query::NEW, "DescribeListeners", words)
                .await?;
            page = answer.next_page();
            all.append(&mut answer.result.listeners.member);
            if page.is_none() {
                return Ok(all);
            }
        }
        Err(endless("DescribeListeners"))
    }
}

/// What can be done without: why it is refused is no failure.
fn unless_refused<T>(asked: Result<T, Failure>) -> Result<Result<T, String>, Failure> {
    match asked {
        Err(failure) if failure.kind == FailureKind::Refused => Ok(Err(failure.reason)),
        other => other.map(Ok),
    }
}

/// `web-tg` of `arn:aws:...:targetgroup/web-tg/0123456789abcdef`.
fn last_but_one(arn: &str) -> &str {
    let head = arn.rsplit_once('/').map_or(arn, |(head, _)| head);
    last(head)
}

fn texts(arns: &[Arc<str>]) -> Vec<String> {
    arns.iter().map(|arn| arn.to_string()).collect()
}

/// `NAME1=..&NAME2=..`, as a list is sent.
fn numbered<'a>(name: &str, values: impl IntoIterator<Item = &'a str>) -> Vec<(String, String)> {
    let values = values.into_iter().enumerate();
    values
        .map(|(n, value)| (format!("{name}{}", n + 1), value.to_owned()))
        .collect()
}

/// What a failure of the SDK means.
fn failure<E>(call: &str, error: &SdkError<E>) -> Failure
where
    E: ProvideErrorMetadata + Error + 'static,
{
    match error {
        SdkError::ServiceError(said) => {
            let status = said.raw().status().as_u16();
            let code = said.err().code().unwrap_or("an error without a code");
            let message = said.err().message().unwrap_or_default();
            Failure::of_answer(call, status, code, message)
        }
        SdkError::TimeoutError(_) => {
            Failure::passing(format!("{call}: no answer within {} s", DEADLINE.as_secs()))
        }
        other => {
            if let Some(error) = unidentified(other) {
                return no_credentials(error);
            }
            let status = other.raw_response().map(|raw| raw.status().as_u16());
            let reason = cut(&DisplayErrorContext(other).to_string());
            match status {
                Some(429) => Failure::of_answer(call, 429, "429", &reason),
                _ => Failure::passing(format!("{call}: {reason}")),
            }
        }
    }
}

/// The cause of a failure, where there were no credentials.
fn unidentified<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e CredentialsError> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        cause = error.source();
    }
    None
}
