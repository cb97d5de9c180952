//! The DevTools protocol over two pipes, as `--remote-debugging-pipe` speaks it: JSON, each message ended by a NUL.

use std::{
    fs::{File, create_dir_all},
    io::{BufRead as _, BufReader, Write as _},
    sync::mpsc,
    thread,
};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::{Value, json};

use super::PATIENCE;
use crate::lab::{Host, Process};

/// What chromium is started with: no window, no sandbox since it runs as root in the lab, nothing that calls home.
const FLAGS: &str = "--headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run \
                     --disable-background-networking --disable-component-update --disable-sync --disable-extensions \
                     --disable-features=Translate,MediaRouter,OptimizationHints --hide-scrollbars --mute-audio \
                     --force-color-profile=srgb --remote-debugging-pipe";

pub(super) struct Pipe {
    process: Process,
    orders: File,
    told: mpsc::Receiver<Value>,
    events: Vec<Value>,
    last: u64,
}

// === impl Pipe ===

impl Pipe {
    pub(super) fn start(host: &Host) -> Self {
        let dir = host.dir().join("chromium");
        create_dir_all(&dir).expect("a directory");
        let open = |name: &str| {
            let path = dir.join(name);
            mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a FIFO");
            // For both ways, so that neither side waits for the other to open it.
            let file = File::options().read(true).write(true).open(&path);
            (path.display().to_string(), file.expect("opened"))
        };
        let ((orders_at, orders), (answers_at, answers)) = (open("orders"), open("answers"));
        let profile = dir.join("profile").display().to_string();
        let home = dir.display().to_string();
        let script = format!(
            "exec chromium {FLAGS} --user-data-dir={profile} about:blank 3<{orders_at} 4>{answers_at}"
        );
        let home = format!("HOME={home}");
        let argv = ["env", &home, "sh", "-c", &script];
        let process = host.start("chromium", &argv).expect("chromium is started");
        let (tell, told) = mpsc::channel();
        thread::spawn(move || {
            let mut answers = BufReader::new(answers);
            let mut message = Vec::new();
            while answers
                .read_until(0, &mut message)
                .is_ok_and(|read| read > 0)
            {
                message.pop();
                let value = serde_json::from_slice(&message).unwrap_or_default();
                if tell.send(value).is_err() {
                    return;
                }
                message.clear();
            }
        });
        Self {
            process,
            orders,
            told,
            events: Vec::new(),
            last: 0,
        }
    }

    /// Sends a command and waits for its answer.
    pub(super) fn call(&mut self, session: Option<&str>, method: &str, params: Value) -> Value {
        self.last += 1;
        let mut order = json!({"id": self.last, "method": method, "params": params});
        if let Some(session) = session {
            order["sessionId"] = session.into();
        }
        let mut bytes = order.to_string().into_bytes();
        bytes.push(0);
        self.orders.write_all(&bytes).expect("chromium listens");
        loop {
            let answer = self.told.recv_timeout(PATIENCE).unwrap_or_else(|_| {
                panic!("{method}: no answer; chromium: {}", self.process.stderr())
            });
            if answer["id"] == self.last {
                assert!(answer["error"].is_null(), "{method}: {}", answer["error"]);
                return answer["result"].clone();
            }
            self.events.push(answer);
        }
    }

    /// What came without being asked for.
    pub(super) fn events(&mut self) -> Vec<Value> {
        self.events.extend(self.told.try_iter());
        std::mem::take(&mut self.events)
    }
}
