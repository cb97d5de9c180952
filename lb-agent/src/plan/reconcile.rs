//! Reads the kernel's state, plans, applies; goes on with what does not rest on a failed operation.

use std::mem;

use anyhow::{Context, Result, anyhow};

use super::{KernelState, Limits, Op, Wanted, guard::Guard, maglev::Memo, plan_with};

/// The kernel's maps.
pub trait Kernel {
    /// What the pinned maps hold. May be answered from memory by an implementation that is their only
    /// writer and keeps [`KernelState::record`]; after an error it must read them again.
    fn state(&mut self) -> Result<KernelState>;

    /// Does one operation. An error may leave it done or not done, never half done.
    fn apply(&mut self, op: &Op) -> Result<()>;

    /// Does operations of one kind that do not depend on each other; one result for each. For many
    /// tables, one batch call waits for a single grace period.
    fn apply_all(&mut self, ops: &[Op]) -> Vec<Result<()>> {
        ops.iter().map(|op| self.apply(op)).collect()
    }

    /// Called once after the operations of a plan, for what an implementation derives from all of them.
    fn finish(&mut self) -> Result<()> {
        Ok(())
    }
}

/// What came of a plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Number of operations done.
    pub applied: usize,
    /// Operations that failed or were held back because another failed, and why.
    pub failed: Vec<(String, String)>,
    /// What was left out of the plan and why.
    pub problems: Vec<String>,
}

/// Brings the kernel to the wanted state as far as it goes; a later call does the rest.
///
/// If a map was full and the plan made room in it, a second plan follows at once.
///
/// # Errors
///
/// If the kernel's state cannot be read. Nothing was done then.
pub fn reconcile(
    kernel: &mut dyn Kernel,
    want: &Wanted,
    limits: &Limits,
    memo: &mut Memo,
) -> Result<Report> {
    let mut report = Report::default();
    let made_room = pass(kernel, want, limits, memo, &mut report)?;
    if made_room && !report.problems.is_empty() {
        report.problems.clear();
        pass(kernel, want, limits, memo, &mut report)?;
    }
    Ok(report)
}

/// One plan; tells whether it removed anything.
fn pass(
    kernel: &mut dyn Kernel,
    want: &Wanted,
    limits: &Limits,
    memo: &mut Memo,
    report: &mut Report,
) -> Result<bool> {
    let have = kernel
        .state()
        .context("cannot read the state of the pinned maps")?;
    let plan = plan_with(&have, want, limits, memo);
    report.problems.extend(plan.problems);
    let mut guard = Guard::new(have);
    let mut made_room = false;
    let mut ops = plan.ops.into_iter().peekable();
    while let Some(first) = ops.next() {
        let kind = mem::discriminant(&first);
        let mut batch = vec![first];
        while let Some(op) = ops.next_if(|op| mem::discriminant(op) == kind) {
            batch.push(op);
        }
        batch.retain(|op| match guard.objection(op) {
            Some(reason) => {
                report
                    .failed
                    .push((op.to_string(), format!("held back: {reason}")));
                false
            }
            None => true,
        });
        let mut results = kernel.apply_all(&batch).into_iter();
        for op in batch {
            match results.next().unwrap_or_else(|| Err(anyhow!("no result"))) {
                Ok(()) => {
                    report.applied += 1;
                    made_room |= op.removes();
                    guard.done(op);
                }
                Err(error) => report.failed.push((op.to_string(), format!("{error:#}"))),
            }
        }
    }
    if let Err(error) = kernel.finish() {
        report
            .failed
            .push(("finish".to_owned(), format!("{error:#}")));
    }
    Ok(made_room)
}
