//! DNS over TCP with bounds: hickory's own loop takes connections without end, and spins when the agent
//! runs out of descriptors.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::Duration,
};

use async_trait::async_trait;
use hickory_server::{
    net::{NetError, runtime::TokioTime, xfer::Protocol},
    proto::{
        op::{Message, OpCode, ResponseCode},
        rr::Record,
        serialize::binary::BinEncoder,
    },
    server::{Request, RequestHandler, ResponseHandler, ResponseInfo},
    zone_handler::MessageResponse,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{sleep, timeout},
};

use super::handler::Handler;

/// Over all clients of one listener.
const MAX_CONNECTIONS: usize = 256;
/// Of one address, so that one client cannot keep all others out.
const MAX_PER_CLIENT: usize = 64;
/// RFC 7766 section 6.2.3 asks for some seconds.
const IDLE: Duration = Duration::from_secs(10);
/// For a client to take a reply.
const WRITE: Duration = Duration::from_secs(5);
/// After a failed accept, which out of descriptors fails again at once.
const PAUSE: Duration = Duration::from_secs(1);

/// Serves `listener` until dropped.
pub(super) async fn serve(listener: TcpListener, handler: Handler) {
    let connections = Connections::default();
    // Ends them all when dropped.
    let mut conversations = JoinSet::new();
    loop {
        while conversations.try_join_next().is_some() {}
        let (stream, client) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a DNS connection");
                sleep(PAUSE).await;
                continue;
            }
        };
        if !handler.allows(client.ip()) {
            handler.stats().refused.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        let Some(open) = connections.open(client.ip()) else {
            handler.stats().tcp_shed.fetch_add(1, Ordering::Relaxed);
            continue;
        };
        let handler = handler.clone();
        conversations.spawn(async move {
            let _open = open;
            if let Err(error) = converse(stream, client, &handler).await {
                tracing::debug!(%client, %error, "DNS connection ended");
            }
        });
    }
}

/// One query after the other, until the client closes, idles or sends what is no query.
async fn converse(mut stream: TcpStream, client: SocketAddr, handler: &Handler) -> io::Result<()> {
    stream.set_nodelay(true)?;
    loop {
        let Some(message) = timeout(IDLE, read_message(&mut stream)).await?? else {
            return Ok(());
        };
        let Some(reply) = respond(message, client, handler).await else {
            return Ok(());
        };
        timeout(WRITE, stream.write_all(&reply)).await??;
    }
}

/// RFC 1035 section 4.2.2: two bytes of length, then the message. `None` when the client is done.
async fn read_message(stream: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let len = match stream.read_u16().await {
        Ok(len) => len,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut message = vec![0; usize::from(len)];
    stream.read_exact(&mut message).await?;
    Ok(Some(message))
}

/// The reply with its length; `None` to what gets none, as hickory does on UDP.
async fn respond(message: Vec<u8>, client: SocketAddr, handler: &Handler) -> Option<Vec<u8>> {
    let id = u16::from_be_bytes([*message.first()?, *message.get(1)?]);
    // Shorter is not a header; the first bit says that it is a response.
    if message.len() < 12 || message[2] & 0x80 != 0 {
        return None;
    }
    let Ok(request) = Request::from_bytes(message, client, Protocol::Tcp) else {
        let error = Message::error_msg(id, OpCode::Query, ResponseCode::FormErr);
        return framed(&error.to_vec().ok()?);
    };
    let reply = Reply::default();
    handler
        .handle_request::<_, TokioTime>(&request, reply.clone())
        .await;
    framed(&reply.bytes())
}

fn framed(message: &[u8]) -> Option<Vec<u8>> {
    let len = u16::try_from(message.len()).ok().filter(|len| *len > 0)?;
    Some([&len.to_be_bytes(), message].concat())
}

/// Where the handler leaves its reply.
#[derive(Clone, Default)]
struct Reply(Arc<Mutex<Vec<u8>>>);

// === impl Reply ===

impl Reply {
    fn bytes(&self) -> Vec<u8> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[async_trait]
impl ResponseHandler for Reply {
    async fn send_response<'a>(
        &mut self,
        response: MessageResponse<
            '_,
            'a,
            impl Iterator<Item = &'a Record> + Send + 'a,
            impl Iterator<Item = &'a Record> + Send + 'a,
            impl Iterator<Item = &'a Record> + Send + 'a,
            impl Iterator<Item = &'a Record> + Send + 'a,
        >,
    ) -> Result<ResponseInfo, NetError> {
        let mut bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut encoder = BinEncoder::new(&mut bytes);
        encoder.set_max_size(u16::MAX);
        Ok(response.destructive_emit(&mut encoder)?)
    }
}

/// How many connections each client has open.
#[derive(Clone, Default)]
struct Connections(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// Counts as a connection until dropped.
struct Open {
    connections: Connections,
    client: IpAddr,
}

// === impl Connections ===

impl Connections {
    /// `None` if there are too many.
    fn open(&self, client: IpAddr) -> Option<Open> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let total: usize = counts.values().sum();
        let own = counts.get(&client).copied().unwrap_or_default();
        if total >= MAX_CONNECTIONS || own >= MAX_PER_CLIENT {
            return None;
        }
        counts.insert(client, own + 1);
        Some(Open {
            connections: self.clone(),
            client,
        })
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let counts = &self.connections.0;
        let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_client_cannot_keep_the_others_out() {
        let connections = Connections::default();
        let client = |n: u8| IpAddr::from([10, 0, 0, n]);
        let open = |n: u8, count: usize| -> Vec<Open> {
            (0..count)
                .map_while(|_| connections.open(client(n)))
                .collect()
        };
        let greedy = open(1, 1000);
        assert_eq!(greedy.len(), MAX_PER_CLIENT);
        let others: Vec<_> = (2..=4).map(|n| open(n, MAX_PER_CLIENT)).collect();
        assert!(others.iter().all(|open| open.len() == MAX_PER_CLIENT));
        assert!(
            connections.open(client(9)).is_none(),
            "the listener is full"
        );
        drop(greedy);
        assert!(connections.open(client(9)).is_some());
        drop(others);
        assert!(connections.0.lock().expect("no panic").is_empty());
    }
}
