//! What is asked of AWS, call by call, and what can come of it.

use std::{collections::BTreeMap, fmt, net::IpAddr, sync::Arc};

use async_trait::async_trait;

use super::model::{Classic, Definition, Group, Service, Task};

/// One request each, with a deadline. Limits and pages are the caller's business.
#[async_trait]
pub(super) trait Api: Send + Sync {
    /// ARNs of services.
    async fn list_services(&self, page: Option<String>) -> Result<Page, Failure>;
    /// At most [`SERVICES`]. Deleted ones are `missing`.
    async fn services(&self, arns: &[Arc<str>]) -> Result<Described<Service>, Failure>;
    /// ARNs of tasks that are to run, or that are to be (or are) stopped.
    async fn list_tasks(&self, stopped: bool, page: Option<String>) -> Result<Page, Failure>;
    /// At most [`TASKS`].
    async fn tasks(&self, arns: &[Arc<str>]) -> Result<Described<Task>, Failure>;
    /// Ids of the hosts behind container instances: at most [`TASKS`].
    async fn instances(&self, arns: &[Arc<str>]) -> Result<Described<String>, Failure>;
    /// A task definition.
    async fn definition(&self, arn: &str) -> Result<Definition, Failure>;
    /// Addresses of EC2 instances by id, at most [`TASKS`]; those that do not exist are not in the answer.
    async fn addresses(&self, ids: &[String]) -> Result<BTreeMap<String, Vec<IpAddr>>, Failure>;
    /// A classic load balancer.
    async fn classic(&self, name: &str) -> Result<Classic, Failure>;
    /// A target group with its listeners (several requests).
    async fn group(&self, arn: &str) -> Result<Group, Failure>;
}

/// `DescribeServices` takes no more.
pub(super) const SERVICES: usize = 10;
/// `DescribeTasks` and `DescribeContainerInstances` take no more.
pub(super) const TASKS: usize = 100;

/// One page of a list.
#[derive(Clone, Debug, Default)]
pub(super) struct Page {
    /// ARNs.
    pub(super) arns: Vec<Arc<str>>,
    /// What asks for the next page.
    pub(super) next: Option<String>,
}

/// An answer about several things.
#[derive(Clone, Debug)]
pub(super) struct Described<T> {
    /// By ARN.
    pub(super) found: Vec<(Arc<str>, T)>,
    /// Those that do not exist.
    pub(super) missing: Vec<Arc<str>>,
}

/// Why a request came to nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// What to do about it.
    pub(super) kind: FailureKind,
    /// One sentence.
    pub(super) reason: String,
}

/// What to do about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FailureKind {
    /// Ask less often.
    Throttled,
    /// It does not exist or we may not know: to ask again soon is no use.
    Refused,
    /// Who we are is doubted, not what we may: a clock that is put right or new credentials mend it.
    Doubted,
    /// Ask again.
    Passing,
}

// === impl Failure ===

impl Failure {
    /// Ask again.
    pub(super) fn passing(reason: impl Into<String>) -> Self {
        Self {
            kind: FailureKind::Passing,
            reason: reason.into(),
        }
    }

    /// What an error answer of AWS means.
    pub(super) fn of_answer(call: &str, status: u16, code: &str, message: &str) -> Self {
        const DOUBTED: [&str; 9] = [
            "AuthFailure",
            "ExpiredToken",
            "ExpiredTokenException",
            "IncompleteSignature",
            "InvalidClientTokenId",
            "InvalidSignatureException",
            "RequestExpired",
            "SignatureDoesNotMatch",
            "UnrecognizedClientException",
        ];
        let throttled = status == 429
            || code.starts_with("Throttl")
            || matches!(
                code,
                "RequestLimitExceeded"
                    | "RequestThrottled"
                    | "TooManyRequestsException"
                    | "BandwidthLimitExceeded"
            );
        let kind = if throttled {
            FailureKind::Throttled
        } else if DOUBTED.contains(&code) {
            FailureKind::Doubted
        } else if (400..500).contains(&status) && status != 408 {
            FailureKind::Refused
        } else {
            FailureKind::Passing
        };
        let remedy = match code {
            "ClusterNotFoundException" => {
                "; name a cluster of this account and region (--ecs, --ecs-region)"
            }
            "AccessDenied" | "AccessDeniedException" | "UnauthorizedOperation" => {
                "; the role of this node must allow it (docs/ecs.md)"
            }
            "ExpiredToken" | "ExpiredTokenException" | "RequestExpired" => {
                "; renew the credentials, or set the clock"
            }
            "AWS.SimpleQueueService.NonExistentQueue" | "QueueDoesNotExist" => {
                "; name a queue of this account (--ecs-events)"
            }
            _ => "",
        };
        let said = if message.is_empty() {
            String::new()
        } else {
            format!(": {}", cut(message))
        };
        Self {
            kind,
            reason: format!("{call}: {code}{said}{remedy}"),
        }
    }
}

/// Foreign text of bearable length.
pub(super) fn cut(text: &str) -> String {
    const MOST: usize = 300;
    let mut short: String = text.trim().chars().take(MOST).collect();
    if short.len() < text.trim().len() {
        short.push_str("...");
    }
    short
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}
