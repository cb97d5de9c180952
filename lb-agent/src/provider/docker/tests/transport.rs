//! An engine behind TCP, with TLS and without.

use std::{fs, path::PathBuf, sync::Arc};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{RootCertStore, ServerConfig, pki_types::PrivateKeyDer, server::WebPkiClientVerifier};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

use super::{
    super::{Tls, client::Client, engine::Seat},
    *,
};

/// Authority, its server's certificate for 127.0.0.1, and a client's.
struct Papers {
    dir: PathBuf,
    authority: CertifiedIssuer<'static, KeyPair>,
}

impl Papers {
    fn new(name: &str) -> Self {
        _ = rustls::crypto::ring::default_provider().install_default();
        let dir = std::env::temp_dir().join(format!("lb-docker-{}-{name}", std::process::id()));
        fs::create_dir_all(&dir).expect("a folder");
        let mut params = CertificateParams::new(Vec::new()).expect("valid");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let authority = CertifiedIssuer::self_signed(params, key).expect("an authority");
        let papers = Self { dir, authority };
        papers.write("ca.pem", &papers.authority.pem());
        papers
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.join(name);
        fs::write(&path, text).expect("written");
        path
    }

    fn signed(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec![name.to_owned()]).expect("valid");
        let cert = params.signed_by(&key, &self.authority).expect("signed");
        (cert, key)
    }

    /// Files of a client.
    fn tls(&self, client: bool) -> Tls {
        let (cert, key) = self.signed("client");
        let own = (
            self.write("cert.pem", &cert.pem()),
            self.write("key.pem", &key.serialize_pem()),
        );
        Tls {
            ca_file: self.dir.join("ca.pem"),
            certificate: client.then_some(own),
        }
    }

    /// Asks each client for a certificate of its own, as an engine with `--tlsverify` does.
    fn acceptor(&self) -> TlsAcceptor {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.der().clone()).expect("a root");
        let verifier = WebPkiClientVerifier::builder(Arc::new(roots));
        let (cert, key) = self.signed("127.0.0.1");
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        let config = ServerConfig::builder()
            .with_client_cert_verifier(verifier.build().expect("valid"))
            .with_single_cert(vec![cert.der().clone()], key)
            .expect("valid");
        TlsAcceptor::from(Arc::new(config))
    }
}

impl Drop for Papers {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// An engine that manages a Swarm without services, as far as the client asks; its address.
async fn engine_at(acceptor: Option<TlsAcceptor>, tasks: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let addr = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                match acceptor {
                    None => answer(stream, tasks).await,
                    Some(acceptor) => {
                        if let Ok(stream) = acceptor.accept(stream).await {
                            answer(stream, tasks).await;
                        }
                    }
                }
            });
        }
    });
    format!("tcp://{addr}")
}

async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, tasks: &str) {
    let mut asked = Vec::new();
    while !asked.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => asked.push(byte),
            Err(_) => return,
        }
    }
    let asked = String::from_utf8_lossy(&asked).to_lowercase();
    assert!(asked.contains("host: "), "{asked}");
    let path = asked.split_whitespace().nth(1).unwrap_or_default();
    let path = match path.strip_prefix("/v1.41") {
        Some(path) => path,
        None if path == "/version" => path,
        None => "without a version",
    };
    let (status, body) = match path {
        "/version" => ("200 OK", r#"{"ApiVersion": "1.41"}"#),
        "/info" => (
            "200 OK",
            r#"{"Swarm": {"NodeID": "n1", "ControlAvailable": true}}"#,
        ),
        "/services" | "/nodes" => ("200 OK", "[]"),
        "/tasks" if tasks.is_empty() => (
            "503 Service Unavailable",
            r#"{"message": "The swarm does not have a leader."}"#,
        ),
        "/tasks" => ("200 OK", tasks),
        _ => ("404 Not Found", "{}"),
    };
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nContent-Type: application/json\r\n\r\n{body}",
        body.len()
    );
    let _ = stream.write_all(answer.as_bytes()).await;
    let _ = stream.shutdown().await;
}

fn at(socket: &str, tls: Option<Tls>) -> DockerConfig {
    DockerConfig {
        tls,
        ..DockerConfig::new(socket)
    }
}

async fn refusal(config: &DockerConfig) -> String {
    match Client::connect(config).await {
        Ok(_) => panic!("it is accepted"),
        Err(why) => why,
    }
}

#[tokio::test]
async fn an_engine_behind_tcp_is_read() {
    let socket = engine_at(None, "[]").await;
    let client = Client::connect(&at(&socket, None))
        .await
        .expect("connected");
    let seat = client.swarm().await.expect("read");
    assert!(matches!(seat, Seat::Manager(_)), "{seat:?}");
    let socket = engine_at(None, "").await;
    let client = Client::connect(&at(&socket, None))
        .await
        .expect("connected");
    assert_eq!(
        client.swarm().await,
        Err(
            "cannot read /tasks: 503 Service Unavailable The swarm does not have a leader."
                .to_owned()
        )
    );
    let socket = engine_at(None, "[{").await;
    let client = Client::connect(&at(&socket, None))
        .await
        .expect("connected");
    let why = client.swarm().await.expect_err("half an answer");
    assert!(why.starts_with("cannot read /tasks: "), "{why}");
}

#[tokio::test]
async fn an_engine_behind_tls_knows_us_and_we_know_it() {
    let papers = Papers::new("known");
    let socket = engine_at(Some(papers.acceptor()), "[]").await;
    let client = Client::connect(&at(&socket, Some(papers.tls(true)))).await;
    let seat = client.expect("connected").swarm().await.expect("read");
    assert!(matches!(seat, Seat::Manager(_)), "{seat:?}");
    // Without our certificate, with another authority, and in the clear.
    let why = refusal(&at(&socket, Some(papers.tls(false)))).await;
    assert!(why.contains("CertificateRequired"), "{why}");
    let stranger = Papers::new("stranger");
    let why = refusal(&at(&socket, Some(stranger.tls(true)))).await;
    assert!(why.contains("invalid peer certificate"), "{why}");
    refusal(&at(&socket, None)).await;
    // A name that its certificate does not have.
    let elsewhere = socket.replace("127.0.0.1", "localhost");
    let why = refusal(&at(&elsewhere, Some(papers.tls(true)))).await;
    assert!(why.contains("certificate"), "{why}");
}

#[tokio::test]
async fn files_that_are_no_certificates_are_named() {
    let papers = Papers::new("files");
    let good = papers.tls(true);
    let (cert, key) = good.certificate.clone().expect("both");
    let empty = papers.write("empty.pem", "nothing\n");
    let (_, other) = papers.signed("client");
    let other = papers.write("other.pem", &other.serialize_pem());
    let tls = |ca_file: &PathBuf, cert: &PathBuf, key: &PathBuf| Tls {
        ca_file: ca_file.clone(),
        certificate: Some((cert.clone(), key.clone())),
    };
    for (tls, words) in [
        (tls(&empty, &cert, &key), "empty.pem holds no certificate"),
        (
            tls(&papers.dir.join("none"), &cert, &key),
            "none: No such file",
        ),
        (
            tls(&good.ca_file, &empty, &key),
            "empty.pem holds no certificate",
        ),
        (
            tls(&good.ca_file, &cert, &empty),
            "empty.pem holds no private key",
        ),
        (tls(&good.ca_file, &cert, &other), "cannot use"),
    ] {
        let why = refusal(&at("tcp://127.0.0.1:1", Some(tls))).await;
        assert!(
            why.contains(words) && why.starts_with("cannot connect to Docker at tcp://127.0.0.1:1"),
            "{why}"
        );
    }
}
