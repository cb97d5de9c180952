//! Builds with the feature `trace`: what the programs say of what they do goes to the log.

use std::{os::fd::AsFd as _, thread};

use anyhow::{Context as _, Result};
use aya::Ebpf;
use aya_log::EbpfLogger;
use rustix::event::{PollFd, PollFlags, poll};
use tracing::error;

/// Hands on what the programs of this object say for as long as the process runs, under the name of their module.
///
/// # Errors
///
/// If the object was built without words, or no thread can be had.
pub(super) fn forward(object: &mut Ebpf) -> Result<()> {
    let mut logger =
        EbpfLogger::init(object).context("cannot hear what the kernel programs say")?;
    thread::Builder::new()
        .name("kernel-words".to_owned())
        .spawn(move || {
            loop {
                let heard = {
                    let fd = logger.as_fd();
                    poll(&mut [PollFd::new(&fd, PollFlags::IN)], None)
                };
                match heard {
                    Ok(_) => logger.flush(),
                    Err(rustix::io::Errno::INTR) => {}
                    Err(error) => {
                        error!("what the kernel programs say is not logged any more: {error}");
                        return;
                    }
                }
            }
        })
        .context("cannot start a thread")?;
    Ok(())
}
