//! The real server on a real socket pair, against real servers on loopback.

mod connections;

use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::Full;
use hyper::client::conn::http2 as client;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::bundle::{Revision, testing};
use crate::egress::policy::PlatformPolicy;

struct Agent {
    sender: client::SendRequest<Full<Bytes>>,
    table: Arc<EgressTable>,
    /// The server ends with it.
    _egress: UnixStream,
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: String,
}

impl Answer {
    fn error(&self) -> String {
        let text = self
            .headers
            .get(EGRESS_ERROR_HEADER)
            .expect("an error")
            .to_str()
            .unwrap();
        percent_decode(text)
    }
}

fn percent_decode(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        if *first == b'%' {
            bytes.push(u8::from_str_radix(std::str::from_utf8(&after[..2]).unwrap(), 16).unwrap());
            rest = &after[2..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    String::from_utf8(bytes).unwrap()
}

/// An agent whose function `hello` has these rules, with loopback open to rules that name it.
async fn agent(rules: &[&str]) -> Agent {
    let policy = PlatformPolicy {
        loopback_by_rule: true,
        ..Default::default()
    };
    agent_with(policy, rules).await
}

async fn agent_with(policy: PlatformPolicy, rules: &[&str]) -> Agent {
    agent_by(Connector::new(policy).unwrap(), rules).await
}

async fn agent_by(connector: Connector, rules: &[&str]) -> Agent {
    let table = Arc::new(EgressTable::default());
    let revision = Arc::new(Revision {
        egress: rules.iter().map(|rule| (*rule).to_owned()).collect(),
        ..(*testing::revision("hello", "1", 1)).clone()
    });
    table.set(&revision.identity, [&revision]);
    let server = Arc::new(EgressServer::new(
        connector,
        table.clone(),
        Metrics::default(),
    ));
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    tokio::spawn(server.serve(theirs));
    handover::ask(&mut ours).await.unwrap();
    let connection = handover::receive(&ours).await.unwrap().unwrap();
    let (sender, connection) = client::handshake(TokioExecutor::new(), TokioIo::new(connection))
        .await
        .unwrap();
    tokio::spawn(connection);
    Agent {
        sender,
        table,
        _egress: ours,
    }
}

impl Agent {
    async fn send(&self, request: http::request::Builder, body: &str) -> Answer {
        let request = request
            .header(FUNCTION_HEADER, "uid-hello")
            .body(Full::new(Bytes::copy_from_slice(body.as_bytes())))
            .unwrap();
        self.answer(request).await
    }

    async fn answer(&self, request: Request<Full<Bytes>>) -> Answer {
        let mut sender = self.sender.clone();
        sender.ready().await.unwrap();
        let (parts, body) = sender.send_request(request).await.unwrap().into_parts();
        Answer {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap(),
        }
    }

    async fn fetch(&self, url: &str) -> Answer {
        self.send(Request::get(url), "").await
    }
}

/// A server that answers every connection with the text that `answer` makes of the request's head and body.
async fn server(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answer = Arc::new(answer);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let answer = answer.clone();
            tokio::spawn(async move { serve_one(stream, &*answer).await });
        }
    });
    address
}

async fn serve_one(mut stream: TcpStream, answer: &(dyn Fn(&str) -> String + Send + Sync)) {
    let mut request = String::new();
    let mut buffer = [0; 4096];
    loop {
        let complete = request.split_once("\r\n\r\n").is_some_and(|(head, body)| {
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .map_or(0, |length| length.parse().unwrap());
            if head.contains("transfer-encoding: chunked") {
                body.ends_with("0\r\n\r\n")
            } else {
                body.len() >= length
            }
        });
        if complete {
            break;
        }
        match stream.read(&mut buffer).await {
            Ok(bytes) if bytes > 0 => {
                request.push_str(std::str::from_utf8(&buffer[..bytes]).unwrap())
            }
            _ => return,
        }
    }
    let _ = stream.write_all(answer(&request).as_bytes()).await;
}

fn ok(body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn redirect(status: u16, to: &str) -> String {
    format!(
        "HTTP/1.1 {status} Moved\r\nconnection: close\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n"
    )
}

#[tokio::test]
async fn an_allowed_request_arrives_and_its_answer_comes_back() {
    let address = server(|request| ok(&request.replace("\r\n", "|"))).await;
    let agent = agent(&[&format!("localhost:{}", address.port())]).await;
    let url = format!("http://localhost:{}/a/b?c=d", address.port());
    let request = Request::post(&url)
        .header("x-mine", "1")
        .header(REDIRECT_HEADER, "manual");
    let answer = agent.send(request, "the body").await;
    assert_eq!(answer.status, 200);
    assert!(
        answer.body.starts_with("POST /a/b?c=d HTTP/1.1|"),
        "{}",
        answer.body
    );
    assert!(
        answer
            .body
            .contains(&format!("host: localhost:{}|", address.port()))
    );
    assert!(answer.body.contains("x-mine: 1|"));
    assert!(answer.body.ends_with("||the body"), "{}", answer.body);
    assert!(
        !answer.body.contains("isolet-"),
        "nothing internal leaves: {}",
        answer.body
    );
    assert_eq!(answer.headers[FINAL_URL_HEADER], url);
}

#[tokio::test]
async fn what_no_rule_names_is_refused_with_the_line_to_add() {
    let address = server(|_| ok("never")).await;
    let agent = agent(&["example.com"]).await;
    let answer = agent
        .fetch(&format!("http://localhost:{}/", address.port()))
        .await;
    assert_eq!(answer.status, 502);
    assert_eq!(
        answer.error(),
        format!(
            "egress to localhost:{0} is not allowed: add \"localhost:{0}\" to spec.egress.allow",
            address.port()
        )
    );
    let answer = agent.fetch("http://169.254.169.254/latest").await;
    assert!(
        answer.error().contains("add \"169.254.169.254:80\""),
        "{}",
        answer.error()
    );
}

#[tokio::test]
async fn in_a_cluster_a_name_for_a_private_address_is_refused() {
    let address = server(|_| ok("never")).await;
    let rule = format!("localhost:{}", address.port());
    let agent = agent_with(PlatformPolicy::default(), &[&rule]).await;
    let answer = agent
        .fetch(&format!("http://localhost:{}/", address.port()))
        .await;
    assert!(
        answer
            .error()
            .contains("a loopback address, which the platform's policy denies"),
        "{}",
        answer.error()
    );
}

#[tokio::test]
async fn odd_spellings_of_an_address_are_the_address() {
    let agent = agent(&["0.0.0.0/0"]).await;
    for host in [
        "0x7f.1",
        "2130706433",
        "0177.0.0.1",
        "127.1",
        "[::ffff:7f00:1]",
        "[::ffff:169.254.169.254]",
    ] {
        let answer = agent.fetch(&format!("http://{host}/")).await;
        assert_eq!(answer.status, 502, "{host}");
        assert!(
            answer.error().contains("is not allowed"),
            "{host}: {}",
            answer.error()
        );
    }
}

#[tokio::test]
async fn a_redirect_is_checked_like_a_request_of_its_own() {
    let secret = server(|_| ok("never")).await;
    let (secret_port, targets) = (
        secret.port(),
        server(move |request| {
            let port = secret.port();
            if request.starts_with("GET /name") {
                redirect(302, &format!("http://localhost:{port}/"))
            } else {
                redirect(302, "http://169.254.169.254/latest/meta-data/")
            }
        })
        .await,
    );
    let agent = agent(&[&format!("localhost:{}", targets.port()), "0.0.0.0/0"]).await;
    let answer = agent
        .fetch(&format!("http://localhost:{}/name", targets.port()))
        .await;
    assert!(
        answer
            .error()
            .contains(&format!("egress to localhost:{secret_port} is not allowed")),
        "{}",
        answer.error()
    );
    let answer = agent
        .fetch(&format!("http://localhost:{}/ip", targets.port()))
        .await;
    assert!(answer.error().contains("metadata"), "{}", answer.error());
}

#[tokio::test]
async fn redirects_follow_fetch() {
    let address = server(|request| {
        let line = request.lines().next().unwrap();
        match line.split(' ').nth(1).unwrap() {
            "/see-other" => redirect(303, "/final"),
            "/again" => redirect(307, "/final"),
            "/loop" => redirect(302, "/loop"),
            _ => ok(&format!(
                "{line} {}",
                request.split("\r\n\r\n").nth(1).unwrap_or("")
            )),
        }
    })
    .await;
    let base = format!("http://localhost:{}", address.port());
    let agent = agent(&[&format!("localhost:{}", address.port())]).await;
    let post = |path: &str| Request::post(format!("{base}{path}"));
    let answer = agent.send(post("/see-other"), "data").await;
    assert_eq!(answer.body, "GET /final HTTP/1.1 ");
    assert_eq!(answer.headers[FINAL_URL_HEADER], format!("{base}/final"));
    let answer = agent.send(post("/again"), "data").await;
    assert_eq!(answer.body, "POST /final HTTP/1.1 data");
    let manual = agent
        .send(post("/again").header(REDIRECT_HEADER, "manual"), "x")
        .await;
    assert_eq!(manual.status, 307);
    assert_eq!(manual.headers["location"], "/final");
    let error = agent
        .send(post("/again").header(REDIRECT_HEADER, "error"), "x")
        .await;
    assert!(
        error.error().contains("redirect is \"error\""),
        "{}",
        error.error()
    );
    let endless = agent.fetch(&format!("{base}/loop")).await;
    assert_eq!(endless.error(), "there were more than 20 redirects");
}

#[tokio::test]
async fn a_server_cannot_speak_as_the_agent() {
    let address = server(|_| {
        "HTTP/1.1 200 OK\r\nisolet-egress-error: forged\r\nisolet-url: http://forged/\r\nconnection: x-hop\r\nx-hop: 1\r\ncontent-length: 2\r\n\r\nok".into()
    })
    .await;
    let agent = agent(&[&format!("localhost:{}", address.port())]).await;
    let url = format!("http://localhost:{}/", address.port());
    let answer = agent.fetch(&url).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "ok"));
    assert!(!answer.headers.contains_key(EGRESS_ERROR_HEADER));
    assert!(!answer.headers.contains_key("x-hop"));
    assert_eq!(answer.headers[FINAL_URL_HEADER], url);
}

#[tokio::test]
async fn network_failures_say_what_failed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let agent = agent(&[&format!("localhost:{port}"), "nowhere.invalid", "127.0.0.1"]).await;
    let answer = agent.fetch(&format!("http://localhost:{port}/")).await;
    assert!(
        answer
            .error()
            .starts_with(&format!("failed to connect to localhost:{port}: ")),
        "{}",
        answer.error()
    );
    let answer = agent.fetch("http://nowhere.invalid/").await;
    assert!(
        answer
            .error()
            .starts_with("failed to resolve nowhere.invalid"),
        "{}",
        answer.error()
    );
}

#[tokio::test]
async fn huge_heads_are_errors_of_one_request_only() {
    let address = server(|request| {
        let bytes = request.split(' ').nth(1).unwrap()[1..].parse().unwrap();
        format!(
            "HTTP/1.1 200 OK\r\nx: {}\r\ncontent-length: 0\r\n\r\n",
            "y".repeat(bytes)
        )
    })
    .await;
    let agent = agent(&[&format!("localhost:{}", address.port())]).await;
    let base = format!("http://localhost:{}", address.port());
    for (bytes, error) in [
        (15_000, "larger than 12 KiB"),
        (50_000, "larger than 12 KiB"),
        (1_000_000, "failed to exchange"),
    ] {
        let answer = agent.fetch(&format!("{base}/{bytes}")).await;
        assert!(
            answer.error().contains(error),
            "{bytes}: {}",
            answer.error()
        );
    }
    let request = Request::get(format!("{base}/1")).header("x-big", "z".repeat(100_000));
    let answer = agent.send(request, "").await;
    assert!(
        answer.error().contains("larger than 64 KiB"),
        "{}",
        answer.error()
    );
    assert_eq!(agent.fetch(&format!("{base}/10000")).await.status, 200);
}

#[tokio::test]
async fn unsendable_requests_and_unknown_functions_are_refused() {
    let agent = agent(&["example.com"]).await;
    let answer = agent
        .send(
            Request::builder()
                .method("TRACE")
                .uri("http://example.com/"),
            "",
        )
        .await;
    assert!(answer.error().contains("TRACE"), "{}", answer.error());
    agent.table.remove("uid-hello");
    let answer = agent.fetch("http://example.com/").await;
    assert!(
        answer.error().contains("not served any more"),
        "{}",
        answer.error()
    );
}

#[tokio::test]
async fn a_body_is_streamed_and_holds_its_slot_until_it_ends() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let agent = agent(&[&format!("localhost:{port}")]).await;
    let request = Request::get(format!("http://localhost:{port}/"))
        .header(FUNCTION_HEADER, "uid-hello")
        .body(Full::default())
        .unwrap();
    let mut sender = agent.sender.clone();
    sender.ready().await.unwrap();
    let answer = tokio::spawn(sender.send_request(request));
    let (mut stream, _) = listener.accept().await.unwrap();
    stream
        .write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n")
        .await
        .unwrap();
    let mut body = answer.await.unwrap().unwrap().into_body();
    let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(
        first, "one",
        "the first piece is there while the server still holds the second"
    );
    let slots = agent.table.get("uid-hello").unwrap().slots.clone();
    assert_eq!(slots.available_permits(), MAX_AT_ONCE - 1);
    stream.write_all(b"3\r\ntwo\r\n0\r\n\r\n").await.unwrap();
    assert_eq!(body.collect().await.unwrap().to_bytes(), "two");
    let freed = tokio::time::timeout(
        Duration::from_secs(5),
        slots.acquire_many(MAX_AT_ONCE as u32),
    )
    .await;
    assert!(freed.is_ok(), "all slots are free again");
}

#[tokio::test]
async fn one_function_cannot_take_every_slot() {
    let address = server(|_| ok("x")).await;
    let agent = agent(&[&format!("localhost:{}", address.port())]).await;
    let slots = agent.table.get("uid-hello").unwrap().slots.clone();
    let held = slots.try_acquire_many(MAX_AT_ONCE as u32).unwrap();
    let url = format!("http://localhost:{}/", address.port());
    let answer = agent.fetch(&url).await;
    assert!(
        answer.error().contains("256 outbound requests under way"),
        "{}",
        answer.error()
    );
    drop(held);
    assert_eq!(agent.fetch(&url).await.status, 200);
}
