//! Signals that end the agent, and the one that has it look again.

use std::io::{self, IsTerminal as _};

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::provider::Again;

/// Caught from its making on.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    /// Where somebody sits at a terminal, SIGHUP says that it is gone.
    attended: bool,
    again: Again,
}

// === impl Signals ===

impl Signals {
    pub(super) fn catch(again: Again) -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            attended: io::stdin().is_terminal() || io::stderr().is_terminal(),
            again,
        })
    }

    /// Waits until the agent is to end. Without a terminal, SIGHUP has everything read anew, as with other daemons.
    pub(super) async fn stop(mut self) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hangup.recv() => {
                    if self.attended {
                        return;
                    }
                    self.again.ask();
                }
            }
        }
    }
}
