//! How new what a reader gets is.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use super::*;

/// Statistics of which each sample takes so long, and has a number in the place of the agent's.
fn stats(takes: Duration) -> Stats {
    let number = AtomicU32::new(0);
    let count: Count = Arc::new(move |report: &mut StatusReport| {
        std::thread::sleep(takes);
        report.agent.pid = number.fetch_add(1, Ordering::Relaxed) + 1;
        Ok(())
    });
    Stats::start(Arc::default(), count, Events::default())
}

#[tokio::test]
async fn whoever_comes_back_does_not_wait_for_a_sample_that_takes_its_time() {
    // Less than the rest after a sample that nobody waits for.
    const PATIENCE: Duration = Duration::from_secs(5);
    let stats = stats(2 * QUICK);
    // After two the first tick is over.
    stats.next().await;
    let before = stats.next().await;
    assert!(!stats.inner.is_watched());
    let latest = stats.latest().await;
    assert_eq!(latest.report.agent.pid, before.report.agent.pid);
    assert!(stats.inner.is_watched());
    let newer = async {
        while stats.sample().report.agent.pid == latest.report.agent.pid {
            tokio::time::sleep(QUICK).await;
        }
    };
    let newer = tokio::time::timeout(PATIENCE, newer).await;
    assert!(newer.is_ok(), "one is on its way for whoever looks next");
}

#[tokio::test]
async fn whoever_comes_back_gets_a_new_sample_where_that_is_quick() {
    let stats = stats(Duration::ZERO);
    let mut before = stats.next().await;
    // On a machine that is busy none may be quick at first.
    while before.cost > QUICK {
        before = stats.next().await;
    }
    let latest = stats.latest().await;
    assert!(latest.report.agent.pid > before.report.agent.pid);
}
