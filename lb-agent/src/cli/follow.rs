//! `trace` and `capture`: what goes on until somebody ends it.

use std::{
    fs::File,
    io::{self, IsTerminal as _, Write},
    path::Path,
    time::{Duration, Instant},
};

use super::{
    CliError,
    ask::{CaptureArgs, TraceArgs},
    client::{self, Stream},
    render,
};
use crate::look::{TraceReport, pcapng};

/// When it is over.
struct End {
    left: Option<u64>,
    at: Option<Instant>,
}

/// What came of one line.
#[derive(serde::Deserialize)]
struct Lost {
    lost: u64,
}

/// The whole of `lb-agent trace`.
pub(super) fn trace(
    socket: &Path,
    which: &TraceArgs,
    json: bool,
    out: &mut dyn Write,
) -> Result<(), CliError> {
    let mut end = End::of(which);
    let mut stream = client::stream(socket, "/v1/trace", &which.query())?;
    let (mut rest, mut begun) = (Vec::new(), false);
    loop {
        let Some(patience) = end.patience() else {
            return Ok(());
        };
        let Some(more) = stream.read(patience)? else {
            return Err(stream.broken().into());
        };
        rest.extend(more);
        let whole = rest.iter().rposition(|byte| *byte == b'\n');
        let Some(whole) = whole else { continue };
        let lines: Vec<u8> = rest.drain(..=whole).collect();
        for line in lines.split(|byte| *byte == b'\n') {
            if !begun {
                begun = true;
                tell("following; stop with Ctrl-C");
            }
            if line.is_empty() {
                continue;
            }
            if end.left == Some(0) {
                return Ok(out.flush()?);
            }
            print(line, json, &mut end, out)?;
        }
        out.flush()?;
        if end.left == Some(0) {
            return Ok(());
        }
    }
}

fn print(line: &[u8], json: bool, end: &mut End, out: &mut dyn Write) -> Result<(), CliError> {
    if let Ok(Lost { lost }) = serde_json::from_slice(line) {
        if json {
            out.write_all(line)?;
            writeln!(out)?;
        } else {
            tell(&format!(
                "{lost} more were not shown: they came too fast; filters and --sample make it fewer"
            ));
        }
        return Ok(());
    }
    if json {
        out.write_all(line)?;
        writeln!(out)?;
    } else {
        let report: TraceReport = serde_json::from_slice(line)?;
        out.write_all(render::traced(&report).as_bytes())?;
    }
    if let Some(left) = &mut end.left {
        *left -= 1;
    }
    Ok(())
}

/// The whole of `lb-agent capture`.
pub(super) fn capture(
    socket: &Path,
    args: &CaptureArgs,
    out: &mut dyn Write,
) -> Result<(), CliError> {
    let path = args.file.as_deref().filter(|path| *path != Path::new("-"));
    if args.file.is_none() && io::stdout().is_terminal() {
        return Err(CliError::Terminal);
    }
    let stream = client::stream(socket, "/v1/capture", &args.query())?;
    let end = End::of(&args.which);
    let Some(path) = path else {
        return packets(stream, end, out, CliError::Output).map(drop);
    };
    let wrong = |error| CliError::File {
        path: path.to_owned(),
        error,
    };
    let mut file = File::create(path).map_err(wrong)?;
    let written = packets(stream, end, &mut file, wrong)?;
    tell(&format!("{written} packets in {}", path.display()));
    Ok(())
}

/// Hands whole blocks on, so that what is written is a file at each moment; gives the number of packets.
fn packets(
    mut stream: Stream,
    mut end: End,
    out: &mut dyn Write,
    wrong: impl Fn(io::Error) -> CliError,
) -> Result<u64, CliError> {
    let (mut rest, mut written, mut begun) = (Vec::new(), 0, false);
    loop {
        let Some(patience) = end.patience() else {
            return Ok(written);
        };
        let Some(more) = stream.read(patience)? else {
            return Err(stream.broken().into());
        };
        rest.extend(more);
        let (found, len) = pcapng::packets(&rest, end.left.unwrap_or(u64::MAX));
        let blocks: Vec<u8> = rest.drain(..len).collect();
        out.write_all(&blocks)
            .and_then(|()| out.flush())
            .map_err(&wrong)?;
        if !begun && len > 0 {
            begun = true;
            tell("capturing; stop with Ctrl-C");
        }
        written += found;
        if let Some(left) = &mut end.left {
            *left -= found;
            if *left == 0 {
                return Ok(written);
            }
        }
    }
}

fn tell(text: &str) {
    // With standard error closed there is nobody left to tell.
    let _ = writeln!(io::stderr(), "lb-agent: {text}");
}

// === impl End ===

impl End {
    fn of(which: &TraceArgs) -> Self {
        let seconds = which.seconds.map(Duration::from_secs);
        Self {
            left: which.count,
            at: seconds.map(|seconds| Instant::now() + seconds),
        }
    }

    /// How long to wait for more; `None`: no longer.
    fn patience(&self) -> Option<Option<Duration>> {
        match self.at {
            None => Some(None),
            Some(at) => {
                let left = at.saturating_duration_since(Instant::now());
                (left > Duration::ZERO).then_some(Some(left))
            }
        }
    }
}
