//! Who gets an answer, and whether the table or an upstream gives it.

use std::{
    net::IpAddr,
    sync::{Arc, atomic::Ordering},
};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use hickory_server::{
    net::runtime::Time,
    proto::{
        op::{OpCode, ResponseCode},
        rr::{DNSClass, RecordType},
    },
    server::{Request, RequestHandler, ResponseHandler, ResponseInfo},
};
use ipnet::IpNet;

use super::{Answer, Stats, Table, answer, forward::Forwarder, reply};

/// Answers queries. Clones share everything.
#[derive(Clone)]
pub(super) struct Handler(Arc<Inner>);

struct Inner {
    table: Arc<ArcSwap<Table>>,
    forwarder: Arc<Forwarder>,
    allow: Arc<ArcSwap<Vec<IpNet>>>,
    stats: Arc<Stats>,
}

// === impl Handler ===

impl Handler {
    pub(super) fn new(
        table: Arc<ArcSwap<Table>>,
        forwarder: Arc<Forwarder>,
        allow: Arc<ArcSwap<Vec<IpNet>>>,
        stats: Arc<Stats>,
    ) -> Self {
        Self(Arc::new(Inner {
            table,
            forwarder,
            allow,
            stats,
        }))
    }

    pub(super) fn stats(&self) -> &Stats {
        &self.0.stats
    }

    /// Whether `client` is in the allowed prefixes.
    pub(super) fn allows(&self, client: IpAddr) -> bool {
        // A socket that serves both families shows IPv4 clients as `::ffff:a.b.c.d`.
        let client = client.to_canonical();
        self.0
            .allow
            .load()
            .iter()
            .any(|prefix| prefix.contains(&client))
    }

    async fn decide(&self, request: &Request) -> Answer {
        if !self.allows(request.src().ip()) {
            self.0.stats.refused.fetch_add(1, Ordering::Relaxed);
            return Answer::error(ResponseCode::Refused);
        }
        if request.metadata.op_code != OpCode::Query {
            return Answer::error(ResponseCode::NotImp);
        }
        if request.edns.as_ref().is_some_and(|edns| edns.version() > 0) {
            return Answer::error(ResponseCode::BADVERS);
        }
        let Ok(info) = request.request_info() else {
            return Answer::error(ResponseCode::FormErr);
        };
        let query = info.query.original();
        let transfer = matches!(query.query_type(), RecordType::AXFR | RecordType::IXFR);
        if transfer {
            return Answer::error(ResponseCode::Refused);
        }
        // The guard goes before the forward: held across it, it would pin an old table.
        let ours = answer(
            &self.0.table.load(),
            query.name(),
            query.query_type(),
            query.query_class(),
        );
        if let Some(answer) = ours {
            self.0.stats.answered.fetch_add(1, Ordering::Relaxed);
            return answer;
        }
        if !request.metadata.recursion_desired || query.query_class() != DNSClass::IN {
            return Answer::error(ResponseCode::Refused);
        }
        self.0.forwarder.forward(query).await
    }
}

#[async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(
        &self,
        request: &Request,
        response_handle: R,
    ) -> ResponseInfo {
        let answer = self.decide(request).await;
        reply::send(request, answer, response_handle).await
    }
}
