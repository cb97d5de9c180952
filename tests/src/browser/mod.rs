//! Debian's chromium without a window, in a host of the lab, driven over the DevTools protocol.
#![allow(clippy::expect_used, reason = "a test says what it expects")]

mod pipe;

use std::{env, fs, path::PathBuf, time::Duration};

use serde_json::{Value, json};

use self::pipe::Pipe;
use crate::lab::{Host, wait_until};

/// How long a page may take for anything.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A browser with one page open; it ends when this is dropped.
pub struct Browser {
    pipe: Pipe,
    session: String,
}

/// What the window is like.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// CSS pixels.
    pub width: u32,
    /// CSS pixels.
    pub height: u32,
    /// The reader's system prefers dark colours.
    pub dark: bool,
    /// A phone: touch, and the page's own viewport.
    pub mobile: bool,
}

// === impl Window ===

impl Window {
    /// A wide window in light colours.
    pub const WIDE: Self = Self {
        width: 1440,
        height: 900,
        dark: false,
        mobile: false,
    };
    /// A phone held upright.
    pub const PHONE: Self = Self {
        width: 390,
        height: 844,
        dark: false,
        mobile: true,
    };

    /// The same in dark colours.
    #[must_use]
    pub fn dark(self) -> Self {
        Self { dark: true, ..self }
    }
}

// === impl Browser ===

impl Browser {
    /// Starts a browser on `host`, with an empty page.
    pub fn start(host: &Host) -> Self {
        let mut pipe = Pipe::start(host);
        let target = pipe.call(None, "Target.createTarget", json!({"url": "about:blank"}));
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let session = pipe.call(None, "Target.attachToTarget", attach);
        let session = session["sessionId"].as_str().expect("a session").to_owned();
        let mut browser = Self { pipe, session };
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        browser
    }

    /// One command of the protocol to the page.
    pub fn call(&mut self, method: &str, params: Value) -> Value {
        self.pipe.call(Some(&self.session), method, params)
    }

    /// Sets the window.
    pub fn window(&mut self, window: Window) {
        let Window {
            width,
            height,
            dark,
            mobile,
        } = window;
        let metrics =
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile});
        self.call("Emulation.setDeviceMetricsOverride", metrics);
        let scheme = if dark { "dark" } else { "light" };
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.call("Emulation.setEmulatedMedia", features);
    }

    /// Sends a name and a password with every request, as a browser does whose user has logged in.
    pub fn log_in(&mut self, header: &str) {
        let headers = json!({"headers": {"Authorization": header}});
        self.call("Network.setExtraHTTPHeaders", headers);
    }

    /// Has requests for these addresses wait for [`Browser::decline_login`].
    pub fn watch_logins(&mut self, pattern: &str) {
        let watch = json!({"patterns": [{"urlPattern": pattern}], "handleAuthRequests": true});
        self.call("Fetch.enable", watch);
    }

    /// Waits until the browser asks its user for a password, and gives none.
    pub fn decline_login(&mut self) {
        let mut asked = false;
        let declined = wait_until("it asks for a password", PATIENCE, || {
            for event in self.pipe.events() {
                let id = &event["params"]["requestId"];
                if event["method"] == "Fetch.requestPaused" {
                    self.call("Fetch.continueRequest", json!({"requestId": id}));
                } else if event["method"] == "Fetch.authRequired" {
                    let none = json!({"response": "CancelAuth"});
                    let answer = json!({"requestId": id, "authChallengeResponse": none});
                    self.call("Fetch.continueWithAuth", answer);
                    asked = true;
                }
            }
            asked
        });
        declined.expect("a question");
        self.call("Fetch.disable", json!({}));
    }

    /// Leaves the page for another one, and waits until that has loaded.
    pub fn open(&mut self, url: &str) {
        self.call("Page.navigate", json!({"url": "about:blank"}));
        self.wait("location.href === 'about:blank'");
        let gone = self.call("Page.navigate", json!({"url": url}));
        assert!(gone["errorText"].is_null(), "{url}: {gone}");
        self.wait("location.href !== 'about:blank' && document.readyState === 'complete'");
    }

    /// The value of an expression in the page; a promise is waited for.
    pub fn eval(&mut self, expression: &str) -> Value {
        let params = json!({"expression": expression, "awaitPromise": true, "returnByValue": true});
        let answer = self.call("Runtime.evaluate", params);
        let thrown = &answer["exceptionDetails"];
        assert!(thrown.is_null(), "{expression}: {thrown}");
        answer["result"]["value"].clone()
    }

    /// Waits until an expression is true.
    pub fn wait(&mut self, expression: &str) {
        let held = wait_until(expression, PATIENCE, || {
            let told = format!("Boolean({expression})");
            self.eval(&told) == Value::Bool(true)
        });
        if let Err(late) = held {
            let shown = self.eval("document.body.innerText.slice(0, 2000)");
            panic!(
                "{late}; the page shows: {shown}; it complained: {:?}",
                self.complaints()
            );
        }
    }

    /// Clicks the middle of the first element that `selector` finds, as a mouse does.
    pub fn click(&mut self, selector: &str) {
        let selector = serde_json::to_string(selector).expect("text");
        let place = self.eval(&format!(
            "(() => {{ const node = document.querySelector({selector}); node.scrollIntoView({{block: 'center'}}); \
             const box = node.getBoundingClientRect(); \
             return [box.x + box.width / 2, box.y + box.height / 2]; }})()"
        ));
        for kind in ["mousePressed", "mouseReleased"] {
            let event = json!({
                "type": kind, "x": place[0], "y": place[1], "button": "left", "clickCount": 1
            });
            self.call("Input.dispatchMouseEvent", event);
        }
    }

    /// Types a text where the focus is.
    pub fn type_text(&mut self, text: &str) {
        self.call("Input.insertText", json!({"text": text}));
    }

    /// Presses and releases a key: `/`, `Escape`, `Tab`.
    pub fn press(&mut self, key: &str) {
        // Those that a browser itself does something at have numbers, as Windows gave them.
        let (number, text) = match key {
            "Backspace" => (8, ""),
            "Tab" => (9, ""),
            "Enter" => (13, "\r"),
            "Escape" => (27, ""),
            " " => (32, " "),
            "ArrowUp" => (38, ""),
            "ArrowDown" => (40, ""),
            key => (0, key),
        };
        let down = if text.is_empty() {
            "rawKeyDown"
        } else {
            "keyDown"
        };
        for kind in [down, "keyUp"] {
            let mut event = json!({"type": kind, "key": key, "windowsVirtualKeyCode": number});
            if kind == "keyDown" {
                event["text"] = text.into();
            }
            self.call("Input.dispatchKeyEvent", event);
        }
    }

    /// A picture of what the window shows, as PNG, kept as `NAME.png` where `LB_PICTURES` says.
    pub fn picture(&mut self, name: &str) {
        let Some(dir) = env::var_os("LB_PICTURES").filter(|dir| !dir.is_empty()) else {
            return;
        };
        let shot = self.call("Page.captureScreenshot", json!({"format": "png"}));
        let text = shot["data"].as_str().expect("a picture");
        let file = PathBuf::from(dir).join(format!("{name}.png"));
        fs::write(&file, base64(text)).expect("kept");
    }

    /// Whatever the page complained of since it was last asked: exceptions, errors of the console, what the policy or
    /// the server refused.
    pub fn complaints(&mut self) -> Vec<String> {
        let complaint = |event: &Value| {
            let params = &event["params"];
            match event["method"].as_str()? {
                "Runtime.exceptionThrown" => Some(params["exceptionDetails"].to_string()),
                "Runtime.consoleAPICalled" if params["type"] == "error" => {
                    Some(params["args"].to_string())
                }
                "Log.entryAdded" if params["entry"]["level"] == "error" => {
                    Some(params["entry"].to_string())
                }
                _ => None,
            }
        };
        self.pipe.events().iter().filter_map(complaint).collect()
    }
}

/// RFC 4648, without a crate for one use.
fn base64(text: &str) -> Vec<u8> {
    let value = |byte: u8| match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let (mut out, mut bits, mut have) = (Vec::new(), 0_u32, 0);
    for byte in text.bytes().filter(|byte| *byte != b'=') {
        bits = bits << 6 | u32::from(value(byte));
        have += 6;
        if have >= 8 {
            have -= 8;
            out.push((bits >> have) as u8);
        }
    }
    out
}
