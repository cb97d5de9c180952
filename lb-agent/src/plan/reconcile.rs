//! Reads the kernel's state, plans, applies; goes on with what does not rest on a failed operation.

use std::{
    mem,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};

use super::{
    KernelState, Limits, Op, Plan, Wanted, delta::delta, guard::Guard, known::Known, maglev::Memo,
    plan_with,
};

/// The kernel's maps.
pub trait Kernel {
    /// Reads what the pinned maps hold.
    fn state(&mut self) -> Result<KernelState>;

    /// Does one operation. An error may leave it done or not done, never half done.
    fn apply(&mut self, op: &Op) -> Result<()>;

    /// Does operations of one kind that do not depend on each other; one result for each. For many
    /// tables, one batch call waits for a single grace period.
    fn apply_all(&mut self, ops: &[Op]) -> Vec<Result<()>> {
        ops.iter().map(|op| self.apply(op)).collect()
    }

    /// Called after the operations of a plan for everything, with what the maps then hold, for what an
    /// implementation derives from addresses and node settings.
    fn finish(&mut self, _state: &KernelState) -> Result<()> {
        Ok(())
    }
}

/// What is remembered from plan to plan, so that a small change is a small plan.
///
/// It belongs to one [`Kernel`], of which it must be the only writer. After an operation that failed it
/// remembers nothing and the maps are read again.
#[derive(Debug, Default)]
pub struct Planner {
    memo: Memo,
    known: Option<Known>,
}

/// What came of a plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Number of operations done.
    pub applied: usize,
    /// Of these: on filters of destinations, sources and peers.
    pub filters: usize,
    /// How long those and what is derived from them took.
    pub filtering: Duration,
    /// Operations that failed or were held back because another failed, and why.
    pub failed: Vec<(String, String)>,
    /// What was left out of the plan and why.
    pub problems: Vec<String>,
    /// Whether everything was compared, and not only what changed.
    pub whole: bool,
}

// === impl Planner ===

impl Planner {
    /// What the maps hold; read only if that is not known.
    ///
    /// # Errors
    ///
    /// They cannot be read.
    pub fn state(&mut self, kernel: &mut dyn Kernel) -> Result<&KernelState> {
        self.known(kernel).map(|known| known.state())
    }

    /// Makes the next plan read the maps rather than trust what was written.
    pub fn distrust(&mut self) {
        self.known = None;
    }

    fn known(&mut self, kernel: &mut dyn Kernel) -> Result<&mut Known> {
        let known = match self.known.take() {
            Some(known) => known,
            None => {
                let read = kernel.state();
                Known::new(read.context("cannot read the state of the pinned maps")?)
            }
        };
        Ok(self.known.insert(known))
    }

    /// As [`reconcile`] where only services' backends changed; `None`: the whole must be looked at.
    fn small(&mut self, kernel: &mut dyn Kernel, want: &Wanted, limits: &Limits) -> Option<Report> {
        let Self { memo, known } = self;
        let known = known.as_mut()?;
        let mut delta = delta(known, want, limits, memo)?;
        let before = known.unsettle()?;
        let mut report = Report::default();
        let plan = mem::take(&mut delta.plan);
        carry_out(kernel, plan, known, &mut report);
        if report.failed.is_empty() {
            known.settle_again(before, want, &delta);
        }
        Some(report)
    }

    /// One plan for everything; tells whether it removed anything.
    fn pass(
        &mut self,
        kernel: &mut dyn Kernel,
        want: &Wanted,
        limits: &Limits,
        report: &mut Report,
    ) -> Result<bool> {
        self.known(kernel)?;
        let Self { memo, known } = self;
        let known = known.as_mut().context("the maps were just read")?;
        known.unsettle();
        let mut plan = plan_with(known.state(), want, limits, memo);
        report.problems.append(&mut plan.problems);
        let made_room = carry_out(kernel, plan, known, report);
        let began = Instant::now();
        if let Err(error) = kernel.finish(known.state()) {
            let failed = ("finish".to_owned(), format!("{error:#}"));
            report.failed.push(failed);
        }
        report.filtering += began.elapsed();
        Ok(made_room)
    }
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
    planner: &mut Planner,
) -> Result<Report> {
    let report = match planner.small(kernel, want, limits) {
        Some(report) => report,
        None => {
            let mut report = Report {
                whole: true,
                ..Report::default()
            };
            let made_room = planner.pass(kernel, want, limits, &mut report)?;
            if made_room && !report.problems.is_empty() {
                if !report.failed.is_empty() {
                    planner.distrust();
                }
                report.problems.clear();
                planner.pass(kernel, want, limits, &mut report)?;
            }
            if let Some(known) = &mut planner.known
                && report.problems.is_empty()
                && report.failed.is_empty()
            {
                known.settle(want, limits);
            }
            report
        }
    };
    if !report.failed.is_empty() {
        planner.distrust();
    }
    Ok(report)
}

/// Applies a plan, like operations together; tells whether it removed anything.
fn carry_out(kernel: &mut dyn Kernel, plan: Plan, known: &mut Known, report: &mut Report) -> bool {
    let mut guard = Guard::new(known);
    let mut made_room = false;
    let mut ops = plan.ops.into_iter().peekable();
    while let Some(first) = ops.next() {
        let kind = mem::discriminant(&first);
        let (filters, began) = (first.is_of_filters(), Instant::now());
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
                    report.filters += usize::from(filters);
                    made_room |= op.removes();
                    guard.done(op);
                }
                Err(error) => report.failed.push((op.to_string(), format!("{error:#}"))),
            }
        }
        if filters {
            report.filtering += began.elapsed();
        }
    }
    made_room
}
