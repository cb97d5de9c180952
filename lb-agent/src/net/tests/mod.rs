//! Against the kernel, each test in a network namespace of its own. They need root.

mod changes;
mod neighbours;
mod node;
mod reach;
mod sockets;

use std::{future::Future, process::Command, thread};

use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Runs `test` in a thread that has a network namespace for itself, with `lo` up; it is gone with the
/// thread.
fn in_a_namespace<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    let run = move || {
        // SAFETY: a new network namespace for this thread; descriptor tables stay shared.
        #[allow(unsafe_code)]
        let left = unsafe { unshare_unsafe(UnshareFlags::NEWNET) };
        left.expect("a network namespace of its own: run the tests as root");
        ip("link set lo up");
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_all().build().unwrap().block_on(test());
    };
    if let Err(panic) = thread::spawn(run).join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs `ip` with these words in the thread's namespace and gives its output.
fn ip(words: &str) -> String {
    let output = Command::new("ip")
        .args(words.split_whitespace())
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {words}: {error}");
    String::from_utf8(output.stdout).unwrap()
}
