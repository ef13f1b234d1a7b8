//! Encrypted connections, and connections that are used again.

use std::sync::atomic::{AtomicUsize, Ordering};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use super::*;

const AUTHORITY: &[u8] = include_bytes!("../../../../tests/fixtures/tls/ca.pem");
const CERTIFICATE: &[u8] = include_bytes!("../../../../tests/fixtures/tls/localhost.pem");
const KEY: &[u8] = include_bytes!("../../../../tests/fixtures/tls/localhost.key");

/// A server that answers each connection once, encrypted.
async fn encrypted() -> u16 {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let certificates = vec![CertificateDer::from_pem_slice(CERTIFICATE).unwrap()];
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(certificates, PrivateKeyDer::from_pem_slice(KEY).unwrap())
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(mut stream) = acceptor.accept(stream).await else {
                continue;
            };
            let mut request = [0; 4096];
            let bytes = stream.read(&mut request).await.unwrap();
            assert!(request[..bytes].starts_with(b"GET /secret HTTP/1.1\r\n"));
            stream.write_all(ok("encrypted").as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
        }
    });
    port
}

fn dev_policy() -> PlatformPolicy {
    PlatformPolicy {
        loopback_by_rule: true,
        ..Default::default()
    }
}

#[tokio::test]
async fn https_trusts_its_authorities_and_no_others() {
    let port = encrypted().await;
    let rules = [format!("localhost:{port}"), format!("127.0.0.1:{port}")];
    let rules: Vec<_> = rules.iter().map(String::as_str).collect();
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(AUTHORITY).unwrap())
        .unwrap();
    let connector = Connector::with_roots(dev_policy(), roots).unwrap();
    let trusting = agent_by(connector, &rules).await;
    let answer = trusting
        .fetch(&format!("https://localhost:{port}/secret"))
        .await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "encrypted"));

    let other_name = trusting
        .fetch(&format!("https://127.0.0.1:{port}/secret"))
        .await;
    assert!(
        other_name
            .error()
            .contains(&format!("failed to connect to 127.0.0.1:{port} with TLS")),
        "{}",
        other_name.error()
    );
    let wary = agent(&rules).await;
    let unknown = wary
        .fetch(&format!("https://localhost:{port}/secret"))
        .await;
    assert!(
        unknown.error().contains("UnknownIssuer"),
        "{}",
        unknown.error()
    );
}

/// A server that keeps connections open and counts them; `/close` is answered, then the connection is closed.
async fn keeping() -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let number = counted.fetch_add(1, Ordering::SeqCst) + 1;
            tokio::spawn(async move {
                let mut request = [0; 4096];
                loop {
                    let bytes = stream.read(&mut request).await.unwrap_or(0);
                    if bytes == 0 {
                        return;
                    }
                    let body = format!("connection {number}");
                    let answer = format!(
                        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
                        body.len()
                    );
                    if stream.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                    if request[..bytes].starts_with(b"GET /close") {
                        return;
                    }
                }
            });
        }
    });
    (port, count)
}

impl Agent {
    /// Fetches in the name of a Function.
    async fn fetch_as(&self, name: &str, url: &str) -> Answer {
        let request = Request::get(url)
            .header(FUNCTION_HEADER, format!("uid-{name}"))
            .body(Full::default())
            .unwrap();
        self.answer(request).await
    }
}

fn allow(agent: &Agent, name: &str, rule: &str) {
    let revision = Arc::new(Revision {
        egress: vec![rule.to_owned()],
        ..(*testing::revision(name, "1", 1)).clone()
    });
    agent.table.set(&revision.identity, [&revision]);
}

#[tokio::test]
async fn a_connection_is_used_again_but_only_by_its_function_and_only_while_the_rules_allow() {
    let (port, count) = keeping().await;
    let rule = format!("localhost:{port}");
    let agent = agent(&[&rule]).await;
    allow(&agent, "other", &rule);
    let url = format!("http://localhost:{port}/");
    // A connection is idle a moment after its response was read, so a request may still open another.
    let mut used_again = false;
    for fetched in 1..=50 {
        assert_eq!(agent.fetch(&url).await.status, 200);
        used_again |= count.load(Ordering::SeqCst) < fetched;
    }
    assert!(used_again, "50 requests took 50 connections");

    let before = count.load(Ordering::SeqCst);
    let answer = agent.fetch_as("other", &url).await;
    assert_eq!(
        answer.body,
        format!("connection {}", before + 1),
        "another Function's own"
    );

    allow(&agent, "hello", "example.com");
    let refused = agent.fetch(&url).await;
    assert!(
        refused.error().contains("is not allowed"),
        "{}",
        refused.error()
    );
}

#[tokio::test]
async fn nothing_is_left_of_a_request_while_its_connection_waits_for_the_next() {
    let (port, _) = keeping().await;
    let agent = agent(&[&format!("localhost:{port}")]).await;
    let url = format!("http://localhost:{port}/");
    for _ in 0..200 {
        assert_eq!(agent.fetch(&url).await.status, 200);
    }
    let tasks = tokio::runtime::Handle::current()
        .metrics()
        .num_alive_tasks();
    assert!(tasks < 50, "{tasks} tasks are left of 200 requests");
}

#[tokio::test]
async fn a_connection_that_the_server_closed_is_replaced() {
    let (port, _) = keeping().await;
    let agent = agent(&[&format!("localhost:{port}")]).await;
    for _ in 0..20 {
        for path in ["close", ""] {
            let answer = agent
                .fetch(&format!("http://localhost:{port}/{path}"))
                .await;
            assert_eq!(answer.status, 200);
        }
    }
}
