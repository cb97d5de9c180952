//! Marathon over https, with an authority of its own.

use std::{net::SocketAddr, sync::Arc};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{ServerConfig, pki_types::PrivateKeyDer};
use serde_json::json;
use tempfile::NamedTempFile;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::{
    server::Fake,
    watched::{A, Watched, app_a, config, eventually, watch},
};

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    _ = rustls::crypto::ring::default_provider().install_default();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A way to `to` over TLS, with a certificate for 127.0.0.1; where it begins.
async fn over_tls(authority: &Authority, to: SocketAddr) -> SocketAddr {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let cert = params.signed_by(&key, authority).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // A client that does not trust the certificate goes at once.
                let Ok(mut inside) = acceptor.accept(stream).await else {
                    return;
                };
                let mut outside = TcpStream::connect(to).await.unwrap();
                // However it ends, both ends see it.
                let _ = tokio::io::copy_bidirectional(&mut inside, &mut outside).await;
            });
        }
    });
    at
}

/// Watches the fake over TLS with a certificate of `signer`, and trusts `trusted` alone, which stands in the file.
async fn watch_over_tls(
    fake: &Fake,
    signer: &Authority,
    trusted: &Authority,
) -> (Watched, NamedTempFile) {
    let file = NamedTempFile::new().unwrap();
    std::fs::write(file.path(), trusted.pem()).unwrap();
    let at = over_tls(signer, fake.addr).await;
    let mut config = config(fake);
    config.urls = vec![format!("https://{at}").parse().unwrap()];
    config.ca_file = Some(file.path().to_owned());
    (watch(config), file)
}

#[tokio::test]
async fn it_is_read_and_heard_over_tls_with_the_authority_of_a_file() {
    let fake = Fake::start(json!([app_a()])).await;
    let authority = authority();
    let (mut watched, _file) = watch_over_tls(&fake, &authority, &authority).await;
    watched.until(&[A]).await;
    eventually("it listens", || !fake.seen("/v2/events").is_empty()).await;
}

#[tokio::test]
async fn whom_another_authority_signed_is_asked_nothing() {
    let fake = Fake::start(json!([app_a()])).await;
    let (mut watched, _file) = watch_over_tls(&fake, &authority(), &authority()).await;
    let why = watched.failure(&[]).await;
    assert!(why.contains("certificate"), "{why}");
    for path in ["/v2/apps", "/v2/events", "/v2/info"] {
        assert!(fake.seen(path).is_empty(), "{path}");
    }
}
