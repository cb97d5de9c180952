//! One connection: a line with commands and their answers, or, after `prompt`, many of them.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{
        UnixListener, UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{
    Level, StatsSocket,
    commands::{self, Reply},
};
use crate::admin::{accept::Room, server::Admin, socket::who};

/// Connections at a time.
const CONNECTIONS: u16 = 64;
/// The longest line, bytes: HAProxy's buffer.
const LONGEST: u64 = 16 * 1_024;
/// A client that says nothing for so long is cut off, unless it asks for another time.
const IDLE: Duration = Duration::from_secs(10);
/// Whoever takes nothing of an answer for so long is cut off.
const STALLED: Duration = Duration::from_secs(20);
/// Parts of an answer are sent when they are this long, bytes.
const PIECE: usize = 64 * 1_024;

/// What one connection has set.
pub(super) struct Session {
    pub(super) admin: Admin,
    pub(super) level: Level,
    pub(super) idle: Duration,
    pub(super) interactive: bool,
    /// Who is at the other end.
    pub(super) by: String,
    writer: OwnedWriteHalf,
}

/// Serves until `stop`, then removes the socket.
///
/// # Errors
///
/// The socket cannot be handed to the runtime.
pub async fn serve(socket: StatsSocket, admin: Admin, stop: CancellationToken) -> io::Result<()> {
    let listener = UnixListener::from_std(socket.listener.try_clone()?)?;
    let room = Room::new(CONNECTIONS, "the stats socket");
    let begin = |stream, taken| {
        let (admin, level) = (admin.clone(), socket.level);
        let talking = async move {
            let by = who(&stream, "the stats socket");
            match talk(stream, admin, level, by.clone()).await {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    warn!(by, "refused: {error}");
                }
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                    warn!(by, "refused: too slow to take an answer");
                }
                Err(error) => debug!(by, "a connection to the stats socket ended: {error}"),
            }
            drop(taken);
        };
        tokio::spawn(stop.clone().run_until_cancelled_owned(talking));
    };
    stop.run_until_cancelled(room.fill(&listener, begin)).await;
    Ok(())
}

async fn talk(stream: UnixStream, admin: Admin, level: Level, by: String) -> io::Result<()> {
    let (reader, writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    let mut session = Session {
        admin,
        level,
        idle: IDLE,
        interactive: false,
        by,
        writer,
    };
    loop {
        let Some(line) = line(&mut reader, session.idle).await? else {
            return Ok(());
        };
        let was_interactive = session.interactive;
        for command in line.split(';') {
            match commands::run(&mut session, command.trim()).await? {
                Reply::End => return session.writer.shutdown().await,
                Reply::Done => {}
            }
        }
        if !was_interactive && !session.interactive {
            return session.writer.shutdown().await;
        }
    }
}

/// The next line without its end; `None`: there is none, or not in time.
async fn line(reader: &mut BufReader<OwnedReadHalf>, idle: Duration) -> io::Result<Option<String>> {
    let mut bytes = Vec::new();
    let mut limited = reader.take(LONGEST);
    let read = timeout(idle, limited.read_until(b'\n', &mut bytes)).await;
    match read {
        Ok(read) => read?,
        Err(_) if bytes.is_empty() => return Ok(None),
        Err(_) => return Err(wrong(format!("no whole line within {} s", idle.as_secs()))),
    };
    if bytes.is_empty() {
        return Ok(None);
    }
    if bytes.last() != Some(&b'\n') && bytes.len() as u64 == LONGEST {
        return Err(wrong(format!("a line of more than {LONGEST} bytes")));
    }
    let text = String::from_utf8_lossy(&bytes);
    Ok(Some(text.trim_end_matches(['\n', '\r']).to_owned()))
}

fn wrong(line: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, line)
}

// === impl Session ===

impl Session {
    /// Sends a part of an answer.
    pub(super) async fn send(&mut self, text: &str) -> io::Result<()> {
        timeout(STALLED, self.writer.write_all(text.as_bytes())).await?
    }

    /// Sends what was collected if it is long enough.
    pub(super) async fn send_piece(&mut self, text: &mut String) -> io::Result<()> {
        if text.len() >= PIECE {
            self.send(text).await?;
            text.clear();
        }
        Ok(())
    }

    /// Ends an answer: with an empty line, and the prompt if there is one.
    pub(super) async fn end(&mut self) -> io::Result<()> {
        let end = if self.interactive { "\n> " } else { "\n" };
        self.send(end).await
    }
}
