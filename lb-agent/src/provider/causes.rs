//! What lies behind an error: libraries of HTTP say what happened only in their errors' sources.

use std::error::Error;

/// The error's text, and that of every cause which is not in it yet.
pub(in crate::provider) fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}
