//! The pages over TLS, and what becomes of certificates that are renewed.

use std::{fs, path::Path, sync::Arc, time::SystemTime};

use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, pki_types::ServerName};

use super::*;

/// A certificate for 127.0.0.1 that is its own authority, in the two files; what its clients trust.
fn renew(chain: &Path, key: &Path) -> RootCertStore {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    fs::write(chain, made.cert.pem()).unwrap();
    fs::write(key, made.signing_key.serialize_pem()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    roots
}

/// The agent's process id over TLS, or why there is none.
fn ask(site: &Site, roots: &RootCertStore) -> std::io::Result<String> {
    let config = ClientConfig::builder()
        .with_root_certificates(roots.clone())
        .with_no_client_auth();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let session = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut stream = StreamOwned::new(session, site.connect());
    stream.write_all(b"GET /_haproxy_getpids HTTP/1.0\r\n\r\n")?;
    let mut answer = Vec::new();
    // HTTP/1.0 ends with the connection, whether TLS is told so or not.
    let ended = stream.read_to_end(&mut answer);
    if answer.is_empty() {
        ended?;
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// The files were last written at another moment than before.
fn touch(chain: &Path, after: u64) {
    let file = fs::File::options().append(true).open(chain).unwrap();
    let then = SystemTime::now() + Duration::from_secs(after);
    file.set_modified(then).unwrap();
}

#[test]
fn a_renewed_certificate_counts_from_the_next_connection_on_and_a_damaged_one_never() {
    let dir = tempfile::tempdir().unwrap();
    let (chain, key) = (dir.path().join("chain.pem"), dir.path().join("key.pem"));
    let first = renew(&chain, &key);
    let certificate = Certificate::load(&chain, &key).unwrap();
    let site = Site::with(|_| {}, Some(certificate), |_| {});
    let answer = ask(&site, &first).unwrap();
    assert!(
        answer.starts_with("HTTP/1.0 200 OK\r\n") && answer.ends_with("\r\n42\n"),
        "{answer}"
    );
    // Who does not speak TLS gets nothing that he could take for an answer.
    let (head, body) = site.get("/_haproxy_getpids", "");
    assert!(!head.starts_with("HTTP/") && !body.contains("42"), "{head}");

    let second = renew(&chain, &key);
    touch(&chain, 1);
    assert!(ask(&site, &second).unwrap().ends_with("42\n"));
    ask(&site, &first).expect_err("the certificate is another one");

    fs::write(&chain, "-----BEGIN CERTIFICATE-----\nAAAA\n").unwrap();
    touch(&chain, 2);
    assert!(ask(&site, &second).unwrap().ends_with("42\n"));
}

#[test]
fn certificate_and_key_that_do_not_fit_end_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    renew(&path("a.pem"), &path("a.key"));
    renew(&path("b.pem"), &path("b.key"));
    fs::write(path("empty.pem"), "").unwrap();
    for (chain, key, why) in [
        ("a.pem", "b.key", "cannot be used together"),
        ("empty.pem", "a.key", "holds no certificate in PEM form"),
        ("missing.pem", "a.key", "cannot read the certificate"),
        ("a.pem", "a.pem", "cannot read the key"),
    ] {
        let error = Certificate::load(&path(chain), &path(key)).unwrap_err();
        assert!(format!("{error:#}").contains(why), "{error:#}");
    }
}

#[test]
fn a_handshake_that_fails_or_never_ends_is_said_and_keeps_nobody_out() {
    let dir = tempfile::tempdir().unwrap();
    let (chain, key) = (dir.path().join("chain.pem"), dir.path().join("key.pem"));
    let roots = renew(&chain, &key);
    let certificate = Certificate::load(&chain, &key).unwrap();
    let site = Site::with(|_| {}, Some(certificate), |_| {});
    let mut silent = site.connect();
    silent.set_read_timeout(Some(3 * PATIENCE)).unwrap();
    let mut begun = site.connect();
    // The head of a record of 16,384 bytes, RFC 8446 section 5.1.
    begun.write_all(&[22, 3, 1, 64, 0]).unwrap();
    let mut wrong = site.connect();
    wrong.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let who = |stream: &TcpStream| format!("peer={}", stream.local_addr().unwrap());
    site.logged(&["WARN", &who(&wrong), "refused: a TLS handshake failed"]);
    assert!(ask(&site, &roots).unwrap().ends_with("42\n"));
    for stream in [&silent, &begun] {
        let late = "refused: a TLS handshake took too long";
        site.logged(&["WARN", &who(stream), late]);
    }
    assert_eq!(silent.read(&mut [0]).unwrap(), 0, "it is cut off");
}
