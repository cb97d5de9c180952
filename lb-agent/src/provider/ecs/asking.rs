//! Asking for many things: page by page, so many at a time, and whether the answers are complete.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    sync::Arc,
};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::api::{Described, Failure, FailureKind, Page};

/// Requests under way at a time.
pub(super) const AT_ONCE: usize = 4;
/// Pages of one list; a server that never ends gets no further.
pub(super) const PAGES: usize = 1_000;

/// Such a list.
pub(super) fn endless(call: &str) -> Failure {
    Failure::passing(format!("{call}: more than {PAGES} pages"))
}

/// All pages of a list.
pub(super) async fn pages<F>(
    call: &str,
    ask: impl Fn(Option<String>) -> F,
) -> Result<BTreeSet<Arc<str>>, Failure>
where
    F: Future<Output = Result<Page, Failure>>,
{
    let mut all = BTreeSet::new();
    let mut next = None;
    for _ in 0..PAGES {
        let page = ask(next).await?;
        all.extend(page.arns);
        next = page.next;
        if next.is_none() {
            return Ok(all);
        }
    }
    Err(endless(call))
}

pub(super) fn chunks<T>(all: Vec<T>, size: usize) -> Vec<Vec<T>> {
    let mut parts = Vec::with_capacity(all.len().div_ceil(size));
    let mut all = all.into_iter();
    loop {
        let part: Vec<T> = all.by_ref().take(size).collect();
        if part.is_empty() {
            return parts;
        }
        parts.push(part);
    }
}

/// Describes all, so many at a time. Of those in `also` there may be no word: then they do not exist.
///
/// # Errors
/// Also an answer that says nothing of one that was asked for.
pub(super) async fn describe<T, F>(
    call: &str,
    arns: BTreeSet<Arc<str>>,
    also: BTreeSet<Arc<str>>,
    size: usize,
    ask: impl Fn(Vec<Arc<str>>) -> F,
) -> Result<BTreeMap<Arc<str>, T>, Failure>
where
    F: Future<Output = Result<Described<T>, Failure>>,
{
    let parts = chunks(arns.union(&also).cloned().collect(), size);
    let answers: Vec<Described<T>> = stream::iter(parts)
        .map(ask)
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;
    let (mut all, mut missing) = (BTreeMap::new(), BTreeSet::new());
    for answer in answers {
        all.extend(answer.found);
        missing.extend(answer.missing);
    }
    all.retain(|arn, _| arns.contains(arn) || also.contains(arn));
    let unanswered = arns
        .iter()
        .find(|arn| !all.contains_key(*arn) && !missing.contains(*arn));
    match unanswered {
        Some(arn) => Err(Failure::passing(format!(
            "{call}: the answer is incomplete: it says nothing of {arn}"
        ))),
        None => Ok(all),
    }
}

/// Asks about each, until AWS says that it is asked too much: then no more is begun, and about some there is no answer.
pub(super) async fn ask<T, F>(
    names: BTreeSet<Arc<str>>,
    act: impl Fn(Arc<str>) -> F,
) -> Vec<(Arc<str>, Result<T, Failure>)>
where
    F: Future<Output = Result<T, Failure>>,
{
    let asked = stream::iter(names).map(|name| {
        let answer = act(Arc::clone(&name));
        async move { (name, answer.await) }
    });
    let mut asked = asked.buffer_unordered(AT_ONCE);
    let mut answers = Vec::new();
    while let Some((name, answer)) = asked.next().await {
        let is_enough = matches!(&answer, Err(failure) if failure.kind == FailureKind::Throttled);
        answers.push((name, answer));
        if is_enough {
            break;
        }
    }
    answers
}
