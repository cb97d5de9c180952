//! What can be asked about single flows and packets, and the answers: the bodies of `/v1/flows`, `/v1/explain`,
//! `/v1/trace` and `/v1/capture`.
//!
//! Plain values; who asks is in `cli` and `admin`, what reads the kernel's maps is in `datapath`.

mod explain;
mod filter;
mod flow;
pub mod pcapng;
mod trace;
pub mod walk;

pub use self::{
    explain::{
        Candidate, Choice, Explanation, Passed, Question, Refusal, ServiceView, SourceView, Whose,
    },
    filter::{BadSpot, Filter, LIMIT, MOST, Spot},
    flow::{FlowReport, FlowState, FlowsReport, Way},
    trace::{Age, Outcome, Place, Seen, Told, TraceFilter, TraceReport, TraceWish},
};
