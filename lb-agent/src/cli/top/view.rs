//! Pure: the screen as it is drawn.

use ratatui::{
    Frame,
    layout::{Constraint, Layout},
    style::{Color, Modifier, Style, Stylize as _},
    text::{Line as Text, Span},
    widgets::{Cell, Row, Table, TableState},
};

use super::model::{Line, Sort, Top};

const KEYS: &str =
    "r/f/e/n sort  Tab services  / search  d drain  m maintenance  a bring back  q leave";

/// Draws everything.
pub(super) fn draw(frame: &mut Frame<'_>, top: &mut Top) {
    let [head, table, foot] = Layout::vertical([
        Constraint::Length(2),
        Constraint::Min(2),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    top.room = usize::from(table.height.saturating_sub(1));
    frame.render_widget(summary(top), head);
    let mut state = TableState::default().with_selected(top.chosen());
    frame.render_stateful_widget(lines(top), table, &mut state);
    frame.render_widget(foot_line(top), foot);
}

fn summary(top: &Top) -> ratatui::widgets::Paragraph<'static> {
    let stats = &top.stats;
    let backends = stats.services.iter().flat_map(|service| &service.backends);
    let (mut all, mut up) = (0, 0);
    for backend in backends {
        all += 1;
        up += u64::from(backend.status.starts_with("UP"));
    }
    let first = format!(
        "lb-agent {} on {}: {} services, {up} of {all} backends up, {} flows, {} new a second",
        stats.agent.version,
        stats.agent.node,
        stats.services.len(),
        stats.flows_active,
        stats.rate,
    );
    let by = match top.sort {
        Sort::Rate => "rate",
        Sort::Flows => "flows",
        Sort::Errors => "errors",
        Sort::Name => "name",
    };
    let mut second = vec![Span::from(format!("sorted by {by}")).dim()];
    if top.typing || !top.filter.is_empty() {
        let cursor = if top.typing { "_" } else { "" };
        second.push(Span::from(format!("  search: {}{cursor}", top.filter)).bold());
    }
    ratatui::widgets::Paragraph::new(vec![Text::from(first).bold(), Text::from(second)])
}

fn foot_line(top: &Top) -> Text<'static> {
    if let Some(action) = &top.doubt {
        return Text::from(action.question()).style(Style::new().bold().fg(Color::Yellow));
    }
    match top.message.is_empty() {
        true => Text::from(KEYS).dim(),
        false => Text::from(top.message.clone()).bold(),
    }
}

fn lines(top: &Top) -> Table<'static> {
    let right = |text: &str| Cell::from(Text::from(text.to_owned()).right_aligned());
    let head = [
        Cell::from("SERVICE"),
        Cell::from(if top.services { "" } else { "BACKEND" }),
        Cell::from("STATUS"),
        right("WEIGHT"),
        right("RATE"),
        right("FLOWS"),
        right("IN"),
        right("OUT"),
        right("ERRORS"),
        right("SHAKE"),
        Cell::from("WHY"),
    ];
    let widths = [
        Constraint::Fill(3),
        Constraint::Length(if top.services { 0 } else { 21 }),
        Constraint::Length(8),
        Constraint::Length(6),
        Constraint::Length(7),
        Constraint::Length(8),
        Constraint::Length(8),
        Constraint::Length(8),
        Constraint::Length(7),
        Constraint::Length(8),
        Constraint::Fill(2),
    ];
    Table::new(top.lines.iter().map(row), widths)
        .header(Row::new(head).style(Style::new().add_modifier(Modifier::REVERSED)))
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED))
        .column_spacing(1)
}

fn row(line: &Line) -> Row<'static> {
    let right = |text: String| Cell::from(Text::from(text).right_aligned());
    let known = |value: Option<String>| right(value.unwrap_or_else(|| "-".to_owned()));
    let backend = line.backend.map(|addr| addr.to_string());
    Row::new([
        Cell::from(line.service.clone()),
        Cell::from(backend.unwrap_or_default()),
        Cell::from(line.status.clone()).style(colour(&line.status)),
        right(line.weight.to_string()),
        right(line.rate.to_string()),
        right(line.flows.to_string()),
        known(line.bytes_in.map(bytes)),
        known(line.bytes_out.map(bytes)),
        right(line.errors.to_string()),
        known(line.connect_us.map(time)),
        Cell::from(line.why.clone()),
    ])
}

/// The words say the same; colour only helps.
fn colour(status: &str) -> Style {
    Style::new().fg(match status {
        "UP" => Color::Green,
        "MAINT" => Color::Yellow,
        "DRAIN" => Color::Blue,
        status if status.starts_with("DOWN") => Color::Red,
        _ => Color::Magenta,
    })
}

/// 1536 as `1.5K`, in at most six characters.
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [&str; 7] = ["", "K", "M", "G", "T", "P", "E"];
    let (mut value, mut unit) = (count as f64, 0);
    while value >= 1_024.0 && unit + 1 < UNITS.len() {
        value /= 1_024.0;
        unit += 1;
    }
    match unit {
        0 => count.to_string(),
        unit => format!("{value:.1}{}", UNITS[unit]),
    }
}

/// us as `0.4ms`.
pub(super) fn time(us: u64) -> String {
    match us {
        0..10_000 => format!("{:.1}ms", us as f64 / 1_000.0),
        10_000..10_000_000 => format!("{}ms", us / 1_000),
        _ => format!("{}s", us / 1_000_000),
    }
}
