//! Pure: what is on the screen, and what keys do to it.

use std::net::{IpAddr, SocketAddr};

use clap::ValueEnum;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use serde::{Deserialize, Serialize};

/// The parts of `GET /v1/stats` that are shown.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Stats {
    pub(super) agent: Agent,
    #[serde(default)]
    pub(super) rate: u64,
    #[serde(default)]
    pub(super) flows_active: u64,
    pub(super) services: Vec<Service>,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Agent {
    pub(super) version: String,
    pub(super) node: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Service {
    pub(super) pxname: String,
    pub(super) name: Option<String>,
    pub(super) addrs: Vec<IpAddr>,
    pub(super) port: u16,
    pub(super) protocol: String,
    pub(super) status: String,
    pub(super) weight: u64,
    pub(super) rate: u64,
    pub(super) connect_us: Option<u64>,
    pub(super) failed: u64,
    #[serde(default)]
    pub(super) traffic: Traffic,
    pub(super) backends: Vec<Backend>,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Backend {
    pub(super) addr: Option<SocketAddr>,
    pub(super) status: String,
    pub(super) why: Option<String>,
    pub(super) weight: u64,
    #[serde(default)]
    pub(super) share: f64,
    pub(super) rate: u64,
    pub(super) connect_us: Option<u64>,
    pub(super) failed: u64,
    #[serde(default)]
    pub(super) traffic: Traffic,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub(super) struct Traffic {
    pub(super) flows_active: u64,
    pub(super) bytes_in: Option<u64>,
    pub(super) bytes_out: Option<u64>,
}

/// What comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Sort {
    /// Most new flows a second
    Rate,
    /// Most active flows
    Flows,
    /// Most connections that failed
    Errors,
    /// By name
    Name,
}

/// One line: a backend, or a whole service.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Line {
    pub(super) service: String,
    /// As an order names it.
    #[serde(skip)]
    asked: String,
    pub(super) backend: Option<SocketAddr>,
    pub(super) status: String,
    pub(super) why: String,
    pub(super) weight: u64,
    pub(super) rate: u64,
    pub(super) flows: u64,
    pub(super) bytes_in: Option<u64>,
    pub(super) bytes_out: Option<u64>,
    pub(super) errors: u64,
    pub(super) connect_us: Option<u64>,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Leave,
    Drain(Target),
    Maintenance(Target),
    Ready(Target),
}

/// A backend of one service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) service: String,
    pub(super) backend: SocketAddr,
}

/// The whole screen.
#[derive(Debug)]
pub(super) struct Top {
    pub(super) stats: Stats,
    pub(super) sort: Sort,
    /// Whole services instead of backends.
    pub(super) services: bool,
    pub(super) filter: String,
    pub(super) typing: bool,
    /// What waits for a yes.
    pub(super) doubt: Option<Action>,
    pub(super) message: String,
    pub(super) lines: Vec<Line>,
    chosen: usize,
    /// Lines of a page, as it was last drawn.
    pub(super) room: usize,
}

// === impl Action ===

impl Action {
    /// Page and query of the order.
    pub(super) fn order(&self) -> Option<(&'static str, Vec<(&'static str, String)>)> {
        let (page, target) = match self {
            Self::Leave => return None,
            Self::Drain(target) => ("/v1/drain", target),
            Self::Maintenance(target) => ("/v1/maintenance", target),
            Self::Ready(target) => ("/v1/ready", target),
        };
        let query = vec![
            ("backend", target.backend.to_string()),
            ("service", target.service.clone()),
        ];
        Some((page, query))
    }

    /// What is asked before it is done.
    pub(super) fn question(&self) -> String {
        let (act, target) = match self {
            Self::Leave => return String::new(),
            Self::Drain(target) => ("Drain", target),
            Self::Maintenance(target) => ("Take out for maintenance", target),
            Self::Ready(target) => ("Bring back", target),
        };
        format!("{act} {} of {}? y/n", target.backend, target.service)
    }
}

// === impl Top ===

impl Top {
    pub(super) fn new(sort: Sort) -> Self {
        Self {
            stats: Stats::default(),
            sort,
            services: false,
            filter: String::new(),
            typing: false,
            doubt: None,
            message: String::new(),
            lines: Vec::new(),
            chosen: 0,
            room: 1,
        }
    }

    /// Shows newer numbers; the chosen line stays chosen wherever it goes.
    pub(super) fn take(&mut self, stats: Stats) {
        self.stats = stats;
        self.arrange();
    }

    pub(super) fn say(&mut self, message: String) {
        self.message = message;
    }

    /// The place of the chosen line.
    pub(super) fn chosen(&self) -> Option<usize> {
        (!self.lines.is_empty()).then(|| self.chosen.min(self.lines.len() - 1))
    }

    fn arrange(&mut self) {
        let key = |line: &Line| (line.service.clone(), line.backend);
        let before = self.chosen().map(|at| key(&self.lines[at]));
        let services = self.stats.services.iter();
        let mut lines: Vec<Line> = match self.services {
            true => services.map(whole).collect(),
            false => services.flat_map(parts).collect(),
        };
        let wanted = self.filter.to_lowercase();
        lines.retain(|line| line.matches(&wanted));
        let by = self.sort;
        lines.sort_by(|a, b| {
            let name = || (&a.service, a.backend).cmp(&(&b.service, b.backend));
            let more = match by {
                Sort::Rate => b.rate.cmp(&a.rate),
                Sort::Flows => b.flows.cmp(&a.flows),
                Sort::Errors => b.errors.cmp(&a.errors),
                Sort::Name => std::cmp::Ordering::Equal,
            };
            more.then_with(name)
        });
        self.lines = lines;
        // Nobody who has not moved yet wants to be carried away from the top.
        if let Some(before) = before.filter(|_| self.chosen > 0) {
            let still = self.lines.iter().position(|line| key(line) == before);
            self.chosen = still.unwrap_or(self.chosen);
        }
    }

    /// What a key does here; the action that it asks for.
    pub(super) fn press(&mut self, key: KeyEvent) -> Option<Action> {
        let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
        if is_control && key.code == KeyCode::Char('c') {
            return Some(Action::Leave);
        }
        if let Some(action) = self.doubt.take() {
            return (key.code == KeyCode::Char('y')).then_some(action);
        }
        self.message.clear();
        if self.typing {
            self.type_key(key.code);
            return None;
        }
        match key.code {
            KeyCode::Char('q') | KeyCode::Esc => return Some(Action::Leave),
            KeyCode::Up | KeyCode::Char('k') => self.go(-1),
            KeyCode::Down | KeyCode::Char('j') => self.go(1),
            KeyCode::PageUp => self.go(-self.page()),
            KeyCode::PageDown => self.go(self.page()),
            KeyCode::Home | KeyCode::Char('g') => self.chosen = 0,
            KeyCode::End | KeyCode::Char('G') => self.chosen = self.lines.len().saturating_sub(1),
            KeyCode::Char('r') => self.sort_by(Sort::Rate),
            KeyCode::Char('f') => self.sort_by(Sort::Flows),
            KeyCode::Char('e') => self.sort_by(Sort::Errors),
            KeyCode::Char('n') => self.sort_by(Sort::Name),
            KeyCode::Tab => {
                self.services = !self.services;
                self.chosen = 0;
                self.arrange();
            }
            KeyCode::Char('/') => self.typing = true,
            KeyCode::Char('d') => self.ask(Action::Drain),
            KeyCode::Char('m') => self.ask(Action::Maintenance),
            KeyCode::Char('a') => self.ask(Action::Ready),
            _ => {}
        }
        None
    }

    fn type_key(&mut self, code: KeyCode) {
        match code {
            KeyCode::Char(c) => self.filter.push(c),
            KeyCode::Backspace => {
                self.filter.pop();
            }
            KeyCode::Esc => {
                self.filter.clear();
                self.typing = false;
            }
            KeyCode::Enter => self.typing = false,
            _ => {}
        }
        self.arrange();
    }

    fn page(&self) -> isize {
        isize::try_from(self.room.max(1)).unwrap_or(1)
    }

    fn go(&mut self, by: isize) {
        let last = self.lines.len().saturating_sub(1);
        self.chosen = self.chosen.min(last).saturating_add_signed(by).min(last);
    }

    fn sort_by(&mut self, sort: Sort) {
        self.sort = sort;
        self.chosen = 0;
        self.arrange();
    }

    fn ask(&mut self, action: impl FnOnce(Target) -> Action) {
        let line = self.chosen().map(|at| &self.lines[at]);
        match line.and_then(|line| Some((line.asked.clone(), line.backend?))) {
            Some((service, backend)) => self.doubt = Some(action(Target { service, backend })),
            None => self.say("Choose a backend: Tab shows them".to_owned()),
        }
    }
}

// === impl Line ===

impl Line {
    fn matches(&self, wanted: &str) -> bool {
        let backend = self.backend.map(|addr| addr.to_string());
        let texts = [&self.service, &self.status, &self.why];
        let mut texts = texts.into_iter().chain(backend.as_ref());
        wanted.is_empty() || texts.any(|text| text.to_lowercase().contains(wanted))
    }
}

/// As the page and the stats socket name it, so that what one says another can take back.
fn asked(service: &Service) -> String {
    let at = match (&service.name, service.addrs.first()) {
        (Some(name), _) => format!("{name}:{}", service.port),
        (None, Some(addr)) => SocketAddr::new(*addr, service.port).to_string(),
        (None, None) => String::new(),
    };
    format!("{at}/{}", service.protocol)
}

fn whole(service: &Service) -> Line {
    let take = service.backends.iter().filter(|one| one.share > 0.0);
    let take = take.count();
    Line {
        service: service.pxname.clone(),
        asked: asked(service),
        backend: None,
        status: service.status.clone(),
        why: format!("{take} of {} take flows", service.backends.len()),
        weight: service.weight,
        rate: service.rate,
        flows: service.traffic.flows_active,
        bytes_in: service.traffic.bytes_in,
        bytes_out: service.traffic.bytes_out,
        errors: service.failed,
        connect_us: service.connect_us,
    }
}

fn parts(service: &Service) -> impl Iterator<Item = Line> + '_ {
    service.backends.iter().map(|backend| Line {
        service: service.pxname.clone(),
        asked: asked(service),
        backend: backend.addr,
        status: backend.status.clone(),
        why: backend.why.clone().unwrap_or_default(),
        weight: backend.weight,
        rate: backend.rate,
        flows: backend.traffic.flows_active,
        bytes_in: backend.traffic.bytes_in,
        bytes_out: backend.traffic.bytes_out,
        errors: backend.failed,
        connect_us: backend.connect_us,
    })
}
