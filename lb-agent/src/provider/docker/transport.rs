//! How an engine is reached: its socket, or TCP, with TLS where there is an authority to trust. One connection a request.

use std::{
    fs, io,
    net::{IpAddr, UdpSocket},
    path::{Path, PathBuf},
    sync::Arc,
};

use hyper::{
    Request, Response, Uri,
    body::{Body, Incoming},
    client::conn::http1,
    header,
};
use hyper_util::rt::TokioIo;
use reqwest::Url;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream, lookup_host},
};
use tokio_rustls::TlsConnector;

use super::Tls;

/// One engine's place.
#[derive(Clone)]
pub(super) struct Transport(Arc<Place>);

enum Place {
    Socket(PathBuf),
    Tcp {
        host: String,
        port: u16,
        tls: Option<(TlsConnector, ServerName<'static>)>,
    },
}

// === impl Transport ===

impl Transport {
    /// Nothing is sent; the files are read anew each time, since certificates are renewed.
    ///
    /// # Errors
    /// It is no `unix:///PATH` and no `tcp://HOST:PORT`, or a file cannot be used.
    pub(super) fn new(socket: &str, tls: Option<&Tls>) -> Result<Self, String> {
        if let Some(path) = socket.strip_prefix("unix://") {
            return Ok(Self(Arc::new(Place::Socket(path.into()))));
        }
        let url = Url::parse(socket).map_err(|e| format!("{socket} is no address: {e}"))?;
        let host = url.host_str().map(|host| host.trim_matches(['[', ']']));
        let (Some(host), Some(port)) = (host, url.port()) else {
            return Err(format!("{socket} is not tcp://HOST:PORT"));
        };
        let secured = |tls: &Tls| {
            let name = ServerName::try_from(host.to_owned())
                .map_err(|e| format!("{host:?} is no name that a certificate may have: {e}"))?;
            let connector = TlsConnector::from(Arc::new(trust(tls)?));
            Ok::<_, String>((connector, name))
        };
        Ok(Self(Arc::new(Place::Tcp {
            host: host.to_owned(),
            port,
            tls: tls.map(secured).transpose()?,
        })))
    }

    /// The addresses of the node that the engine stands on, at most one of each family; `None`: this node.
    ///
    /// # Errors
    /// Its name cannot be resolved.
    pub(super) async fn node(&self) -> io::Result<Option<Vec<IpAddr>>> {
        let Place::Tcp { host, port, .. } = &*self.0 else {
            return Ok(None);
        };
        let found = lookup_host((host.as_str(), *port)).await?;
        let found: Vec<IpAddr> = found.map(|at| at.ip().to_canonical()).collect();
        // An address that can be bound is this node's.
        let is_ours = |addr: &IpAddr| addr.is_loopback() || UdpSocket::bind((*addr, 0)).is_ok();
        if found.iter().any(is_ours) {
            return Ok(None);
        }
        let first = |v6: bool| found.iter().copied().find(|addr| addr.is_ipv6() == v6);
        Ok(Some([false, true].into_iter().filter_map(first).collect()))
    }

    /// Asks, and gives what comes back as soon as its head is there.
    ///
    /// # Errors
    /// It cannot be reached, is not who it should be, or does not speak HTTP.
    pub(super) async fn send<B>(&self, request: Request<B>) -> io::Result<Response<Incoming>>
    where
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        match &*self.0 {
            Place::Socket(path) => {
                exchange(UnixStream::connect(path).await?, request, "docker").await
            }
            Place::Tcp { host, port, tls } => {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                stream.set_nodelay(true)?;
                let authority = match host.contains(':') {
                    true => format!("[{host}]:{port}"),
                    false => format!("{host}:{port}"),
                };
                match tls {
                    None => exchange(stream, request, &authority).await,
                    Some((connector, name)) => {
                        let stream = connector.connect(name.clone(), stream).await?;
                        exchange(stream, request, &authority).await
                    }
                }
            }
        }
    }
}

/// One request and its answer.
async fn exchange<B>(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<B>,
    host: &str,
) -> io::Result<Response<Incoming>>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (mut head, body) = request.into_parts();
    // Servers want the path alone, RFC 9112 section 3.2.1.
    if let Some(path) = head.uri.path_and_query() {
        head.uri = Uri::from(path.clone());
    }
    let host = host.parse().map_err(io::Error::other)?;
    head.headers.insert(header::HOST, host);
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    // It ends with the answer, or when nobody wants the rest of that.
    tokio::spawn(connection);
    let request = Request::from_parts(head, body);
    sender.send_request(request).await.map_err(io::Error::other)
}

/// Trusts that authority alone, and shows our certificate if there is one.
fn trust(tls: &Tls) -> Result<ClientConfig, String> {
    // rustls panics without one.
    if CryptoProvider::get_default().is_none() {
        return Err("no TLS crypto provider is installed in this process".to_owned());
    }
    let mut roots = RootCertStore::empty();
    for authority in certificates(&tls.ca_file)? {
        let refused = |e| format!("cannot use CA file {}: {e}", tls.ca_file.display());
        roots.add(authority).map_err(refused)?;
    }
    let config = ClientConfig::builder().with_root_certificates(roots);
    let Some((chain, key)) = &tls.certificate else {
        return Ok(config.with_no_client_auth());
    };
    let secret = pem(key)?;
    let secret = PrivateKeyDer::from_pem_slice(&secret)
        .map_err(|e| format!("{} holds no private key: {e}", key.display()))?;
    let both = config.with_client_auth_cert(certificates(chain)?, secret);
    both.map_err(|e| format!("cannot use {} with {}: {e}", chain.display(), key.display()))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let found = CertificateDer::pem_slice_iter(&pem(path)?).collect::<Result<Vec<_>, _>>();
    match found {
        Ok(found) if found.is_empty() => Err(format!("{} holds no certificate", path.display())),
        Ok(found) => Ok(found),
        Err(e) => Err(format!(
            "cannot read a certificate in {}: {e}",
            path.display()
        )),
    }
}

fn pem(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|e| format!("cannot read {}: {e}", path.display()))
}
