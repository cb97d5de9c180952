//! Signals that end the agent, and the one that has it look again.

use std::io::{self, IsTerminal as _};

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::provider::Again;

/// Caught from its making on.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    user: Signal,
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
            user: signal(SignalKind::user_defined1())?,
            attended: io::stdin().is_terminal() || io::stderr().is_terminal(),
            again,
        })
    }

    /// Waits until the agent is to end. SIGUSR1 has everything read anew, as with dockercloud/haproxy, and without a
    /// terminal SIGHUP, as with other daemons.
    pub(super) async fn stop(mut self) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.user.recv() => self.again.ask(),
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
