//! Why a packet was dropped, refused or left alone: one enum, a per-CPU counter each.

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $text:literal;)+) => {
        /// Index into the counter map. Numbers are part of the pinned map's meaning: add at the end.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        pub enum Reason { $($(#[$doc])* $name = $number,)+ }

        impl Reason {
            /// Every reason, in the order of its number.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// The name shown to people and machines.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text),+ }
            }
        }
    };
}

reasons! {
    /// A header is cut short or contradicts itself; passed to the stack untouched.
    Malformed = 0, "malformed";
    /// No service at this address, port and protocol; refused by the stack.
    NoService = 1, "no_service";
    /// The service has no usable backend; refused by the stack.
    NoBackend = 2, "no_backend";
    /// A TCP segment that belongs to no flow; refused by the stack with a reset.
    NoFlow = 3, "no_flow";
    /// The node has no SNAT address of this family; refused by the stack.
    NoSnatAddress = 4, "no_snat_address";
    /// The source may not use this service; dropped, where the service does not say otherwise. Of a process: the call fails.
    SourceNotAllowed = 5, "source_not_allowed";
    /// An IP fragment for a VIP; dropped.
    Fragment = 6, "fragment";
    /// No free source port for full NAT after all tries; dropped.
    NoSnatPort = 7, "no_snat_port";
    /// The flow table refused an entry; dropped.
    FlowTableFull = 8, "flow_table_full";
    /// Two flows of one client would be alike on the backend's side; dropped, the client retries.
    FlowCollision = 9, "flow_collision";
    /// A flow's backend is gone or down; reset (TCP) or chosen afresh (UDP).
    BackendGone = 10, "backend_gone";
    /// The next hop is not known to the fast path; handed to the tc program untouched. Not a drop.
    ToSlowPath = 11, "to_slow_path";
    /// A socket's `connect` or `sendmsg` was refused because no service stands at the port.
    SockNoService = 12, "sock_no_service";
    /// A socket's `connect` or `sendmsg` was refused because no backend takes new flows.
    SockNoBackend = 13, "sock_no_backend";
    /// A socket's translation could not be remembered; the call fails.
    SockTableFull = 14, "sock_table_full";
    /// A `bind` to a VIP was refused.
    BindRefused = 15, "bind_refused";
    /// A packet for a VIP was kept from a socket of the node.
    LocalSocketGuarded = 16, "local_socket_guarded";
    /// More new flows a second than a CPU may open; dropped, the client sends again.
    NewFlowGuard = 17, "new_flow_guard";
    /// The device refused to redirect a translated packet; dropped.
    NotSent = 18, "not_sent";
    /// A backend has as many flows as it may; another one is taken. Not a drop.
    BackendFull = 19, "backend_full";
    /// The service has as many flows as it may; refused by the stack.
    ServiceFull = 20, "service_full";
    /// The service is given more new flows a second than it may; dropped, the client sends again. Of a process: the call
    /// fails.
    ServiceRate = 21, "service_rate";
    /// One source opens more flows a second than it may; as above.
    SourceRate = 22, "source_rate";
    /// An ICMP error to a VIP, or about a packet to a peer, and about no flow that there is; left to the stack, which
    /// ignores it.
    IcmpUnknown = 23, "icmp_unknown";
    /// A packet that was to be sent on had no hop left; answered with *time exceeded* or dropped.
    TtlExceeded = 24, "ttl_exceeded";
    /// A packet was too long for the way out; answered with *fragmentation needed* or *packet too big*.
    TooBig = 25, "too_big";
    /// More ICMP errors a second than a CPU may send; the packet is dropped unanswered.
    AnswerGuard = 26, "answer_guard";
    /// More refusals a second than a CPU may leave to the stack; dropped unanswered.
    RefusalGuard = 27, "refusal_guard";
    /// A packet of our Geneve network from an address that is no peer's; dropped as it came.
    PeerUnknown = 28, "peer_unknown";
    /// A peer's packet for a backend that is not this node's, or not of that service; dropped as it came.
    PeerBackend = 29, "peer_backend";
    /// A packet of our Geneve network that no agent makes; dropped as it came.
    PeerMalformed = 30, "peer_malformed";
    /// A backend refused a connection, or cannot be reached, and another one can take it: the refusal is dropped, and
    /// the client's next SYN goes there.
    BackendRefused = 31, "backend_refused";
    /// A SYN came again since the backend was silent: another backend is taken. Not a drop.
    BackendSilent = 32, "backend_silent";
    /// A backend became suspect: new flows go elsewhere for a while. Not a drop.
    BackendSuspect = 33, "backend_suspect";
    /// A router says that a packet which held a client's does not reach the peer or backend that it was for; the client
    /// is told. Not a drop.
    OuterUnreachable = 34, "outer_unreachable";
    /// The source may not use this service, which says so to those; refused by the stack.
    SourceRefused = 35, "source_refused";
    /// More new flows a second than a CPU may open, and the packet's backend follows from its hash: it is sent there,
    /// and nothing is kept. Not a drop.
    WithoutState = 36, "without_state";
}

/// Whether a packet that gets no flow for this reason, given by its number, is left to the stack, which
/// answers it; others are dropped.
#[inline(always)]
pub const fn is_refused(reason: u32) -> bool {
    const LAST: u32 = Reason::NoSnatAddress as u32;
    reason <= LAST || reason == Reason::ServiceFull as u32 || reason == Reason::SourceRefused as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_stands_at_the_index_of_its_number() {
        for (index, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(index, *reason as usize, "{}", reason.as_str());
        }
    }
}
