//! A parser for server-sent events: bytes in any split -> events.
//!
//! Follows the event stream section of the HTML standard: lines end with CRLF, LF or CR, a blank line
//! dispatches, `data` lines are joined with LF. Memory is bounded whatever the server sends.

/// Bytes kept of one line or of one event's data; the rest is dropped and the event marked.
const KEPT: usize = 1 << 20;

/// One event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Event {
    /// The `event` field; empty if absent.
    pub(super) name: String,
    /// The `data` lines, joined with LF.
    pub(super) data: Vec<u8>,
    /// Part of it was dropped because it was too long.
    pub(super) cut: bool,
}

/// The state between two reads.
#[derive(Debug, Default)]
pub(super) struct Parser {
    line: Vec<u8>,
    after_cr: bool,
    past_first_line: bool,
    has_data: bool,
    event: Event,
}

// === impl Parser ===

impl Parser {
    /// Takes the next bytes and hands on every event they complete.
    pub(super) fn feed(&mut self, mut bytes: &[u8], mut each: impl FnMut(Event)) {
        if std::mem::take(&mut self.after_cr) && bytes.first() == Some(&b'\n') {
            bytes = &bytes[1..];
        } else if bytes.is_empty() {
            return;
        }
        while let Some(end) = bytes.iter().position(|b| matches!(b, b'\r' | b'\n')) {
            self.append(&bytes[..end]);
            if let Some(event) = self.end_of_line() {
                each(event);
            }
            let is_cr = bytes[end] == b'\r';
            bytes = &bytes[end + 1..];
            match bytes.first() {
                Some(b'\n') if is_cr => bytes = &bytes[1..],
                None => self.after_cr = is_cr,
                _ => {}
            }
        }
        self.append(bytes);
    }

    fn append(&mut self, bytes: &[u8]) {
        let room = KEPT - self.line.len().min(KEPT);
        self.event.cut |= bytes.len() > room;
        self.line.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn end_of_line(&mut self) -> Option<Event> {
        let line = std::mem::take(&mut self.line);
        let first = !std::mem::replace(&mut self.past_first_line, true);
        let line = line
            .strip_prefix(b"\xEF\xBB\xBF")
            .filter(|_| first)
            .unwrap_or(&line);
        if line.is_empty() {
            let event = std::mem::take(&mut self.event);
            return std::mem::take(&mut self.has_data).then_some(event);
        }
        let colon = line.iter().position(|b| *b == b':').unwrap_or(line.len());
        let (field, value) = line.split_at(colon);
        let value = value.strip_prefix(b":").unwrap_or(value);
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"event" => self.event.name = String::from_utf8_lossy(value).into_owned(),
            b"data" => self.append_data(value),
            _ => {}
        }
        None
    }

    fn append_data(&mut self, value: &[u8]) {
        let data = &mut self.event.data;
        if std::mem::replace(&mut self.has_data, true) {
            data.push(b'\n');
        }
        let room = KEPT - data.len().min(KEPT);
        self.event.cut |= value.len() > room;
        data.extend_from_slice(&value[..value.len().min(room)]);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STREAM: &[u8] = include_bytes!("fixtures/09-events.sse");

    fn parse<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Event> {
        let mut parser = Parser::default();
        let mut events = Vec::new();
        for piece in pieces {
            parser.feed(piece, |event| events.push(event));
        }
        events
    }

    fn event(name: &str, data: &str) -> Event {
        Event {
            name: name.to_owned(),
            data: data.into(),
            cut: false,
        }
    }

    fn replaced(from: &str, to: &str) -> Vec<u8> {
        std::str::from_utf8(STREAM)
            .unwrap()
            .replace(from, to)
            .into_bytes()
    }

    #[test]
    fn the_recorded_stream_holds_25_events_that_agree_with_the_json_list() {
        let list: Vec<serde_json::Value> =
            serde_json::from_str(include_str!("fixtures/09-events.json")).unwrap();
        let events = parse([STREAM]);
        assert_eq!(events.len(), 25);
        for (event, expected) in events.iter().zip(&list) {
            let data: serde_json::Value = serde_json::from_slice(&event.data).unwrap();
            assert_eq!(&data, expected);
            assert_eq!(event.name, expected["eventType"]);
        }
    }

    #[test]
    fn single_bytes_and_every_cut_in_two_give_the_same_events() {
        let whole = parse([STREAM]);
        assert_eq!(parse(STREAM.chunks(1)), whole);
        for at in 0..STREAM.len() {
            let (head, tail) = STREAM.split_at(at);
            assert_eq!(parse([head, tail]), whole, "cut at byte {at}");
        }
    }

    #[test]
    fn lf_or_cr_alone_give_the_same_events() {
        let whole = parse([STREAM]);
        for ending in ["\n", "\r"] {
            let stream = replaced("\r\n", ending);
            assert_eq!(parse([&stream[..]]), whole);
            assert_eq!(parse(stream.chunks(1)), whole);
        }
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_events(sizes in prop::collection::vec(1_usize..700, 1..60)) {
            let mut rest = STREAM;
            let mut pieces = Vec::new();
            for size in sizes.iter().cycle() {
                let (piece, tail) = rest.split_at((*size).min(rest.len()));
                pieces.push(piece);
                rest = tail;
                if rest.is_empty() { break; }
            }
            prop_assert_eq!(parse(pieces), parse([STREAM]));
        }

        #[test]
        fn no_bytes_make_it_fail(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let ones = parse(bytes.chunks(1));
            prop_assert_eq!(ones, parse([&bytes[..]]));
        }
    }

    #[test]
    fn fields_follow_the_standard() {
        let text = b"\xEF\xBB\xBFevent:a\ndata: 1\ndata:2\ndata\n\n: comment\n\nid: 7\nretry: 3\nfoo: bar\n\ndata:  x\n\n";
        assert_eq!(parse([&text[..]]), [event("a", "1\n2\n"), event("", " x")]);
    }

    #[test]
    fn an_event_without_data_or_without_its_blank_line_is_no_event() {
        assert_eq!(parse([&b"event: a\n\n"[..]]), []);
        assert_eq!(parse([&b"event: a\ndata: 1\n"[..]]), []);
        assert_eq!(parse([&b"event: a\n\ndata: 1\n\n"[..]]), [event("", "1")]);
    }

    #[test]
    fn an_endless_line_takes_bounded_memory_and_the_next_event_is_whole() {
        let mut parser = Parser::default();
        let mut events = Vec::new();
        parser.feed(b"event: big\ndata: ", |e| events.push(e));
        for _ in 0..64 {
            parser.feed(&vec![b'x'; 65_536], |e| events.push(e));
        }
        assert!(parser.line.capacity() <= 2 * KEPT);
        parser.feed(b"\ndata: more\n\nevent: b\ndata: 1\n\n", |e| events.push(e));
        assert!(events[0].cut && events[0].name == "big" && events[0].data.len() <= KEPT + 2);
        assert_eq!(events[1..], [event("b", "1")]);
    }
}
