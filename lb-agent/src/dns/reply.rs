//! Puts an answer on the wire: EDNS, and truncation before hickory would do it.

use hickory_server::{
    net::xfer::Protocol,
    proto::{
        op::{Edns, Header, HeaderCounts, Metadata},
        rr::{RData, Record},
        serialize::binary::BinEncoder,
    },
    server::{Request, ResponseHandler, ResponseInfo},
    zone_handler::MessageResponseBuilder,
};

use super::Answer;

/// RFC 1035 section 4.2.1: a UDP message without EDNS; also the least that EDNS may say (RFC 6891 6.2.3).
const MIN_PAYLOAD: u16 = 512;
/// What passes the common path without fragments (DNS flag day 2020).
const MAX_PAYLOAD: u16 = 1232;

/// The OPT record of the reply, if the client sent one.
///
/// hickory takes its payload size as the limit of a UDP reply, so the client's is not echoed.
pub(super) fn edns(request: &Request) -> Option<Edns> {
    let asked = request.edns.as_ref()?;
    let mut edns = Edns::new();
    edns.set_version(0);
    edns.set_max_payload(asked.max_payload().clamp(MIN_PAYLOAD, MAX_PAYLOAD));
    // RFC 3225 section 3: the bit is copied.
    edns.set_dnssec_ok(asked.flags().dnssec_ok);
    Some(edns)
}

/// Sends `answer`, or TC and nothing if it does not fit.
pub(super) async fn send<R: ResponseHandler>(
    request: &Request,
    mut answer: Answer,
    mut response_handle: R,
) -> ResponseInfo {
    let edns = edns(request);
    let mut metadata = Metadata::response_from_request(&request.metadata);
    metadata.response_code = answer.code;
    metadata.authoritative = answer.authoritative;
    metadata.recursion_available = true;
    let limit = match request.protocol() {
        Protocol::Udp => edns.as_ref().map_or(MIN_PAYLOAD, Edns::max_payload),
        _ => u16::MAX,
    };
    // hickory 0.26.3 truncates by leaving half a record and no OPT at the end.
    if !fits(request, metadata, &answer, edns.as_ref(), limit) {
        metadata.truncation = true;
        // RFC 2181 section 9: a client must not use part of a set of records.
        answer.answers.clear();
        answer.authority.clear();
    }
    let response = MessageResponseBuilder::new(&request.queries, edns.as_ref()).build(
        metadata,
        &answer.answers,
        &answer.authority,
        [],
        [],
    );
    match response_handle.send_response(response).await {
        Ok(sent) => sent,
        Err(error) => {
            tracing::debug!(%error, client = %request.src(), "cannot send a DNS reply");
            ResponseInfo::from(Header {
                metadata,
                counts: HeaderCounts::default(),
            })
        }
    }
}

fn fits(
    request: &Request,
    metadata: Metadata,
    answer: &Answer,
    edns: Option<&Edns>,
    limit: u16,
) -> bool {
    if upper_bound(request, answer).is_some_and(|bound| bound <= usize::from(limit)) {
        return true;
    }
    let mut bytes = Vec::with_capacity(usize::from(MAX_PAYLOAD));
    let mut encoder = BinEncoder::new(&mut bytes);
    encoder.set_max_size(u16::MAX);
    let response = MessageResponseBuilder::new(&request.queries, edns).build(
        metadata,
        &answer.answers,
        &answer.authority,
        [],
        [],
    );
    let encoded = response.destructive_emit(&mut encoder);
    encoded.is_ok_and(|info| !info.truncation) && bytes.len() <= usize::from(limit)
}

/// A size that the reply does not exceed, for the replies of our own zone; saves most of them a second
/// encoding.
fn upper_bound(request: &Request, answer: &Answer) -> Option<usize> {
    /// Header, and an OPT record without options.
    const FIXED: usize = 12 + 11;
    /// Type, class, TTL and length of a record.
    const RECORD: usize = 10;
    /// The longest data in our zone but that of SRV: its SOA, uncompressed.
    const DATA: usize = 80;
    if !answer.authoritative {
        return None;
    }
    let records = answer.answers.iter().chain(&answer.authority);
    let data = |record: &Record| match &record.data {
        RData::SRV(srv) => 6 + srv.target.len() + 2,
        _ => DATA,
    };
    let bound = |record: &Record| RECORD + record.name.len() + 2 + data(record);
    let records: usize = records.map(bound).sum();
    Some(FIXED + request.queries.as_bytes().len() + records)
}
