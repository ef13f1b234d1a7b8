//! A real worker process with the agent's side of its sockets.
//!
//! ```ignore
//! let worker = worker().function("hello", SOURCE).start().await;
//! assert_eq!(worker.get("hello", "/").await.text(), "hello");
//! ```
#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    unused_imports,
    clippy::unwrap_used
)]

mod client;
mod function;
mod log;
pub mod raw;

use std::convert::Infallible;
use std::fs::File;
use std::io::{Seek, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use isolet_runtime::control::{
    BREADCRUMB_BYTES, BUNDLE_BYTES_HEADER, CHECKED_HEADER, CODE_BYTES_HEADER, LoadError, Loaded,
    STARTS_PATH, Starts,
};
use isolet_runtime::egress::handover;
use isolet_runtime::egress::server::EgressServer;
use tokio::net::UnixStream;
use tokio::task::{AbortHandle, JoinSet};

pub use client::{Answer, Exchange, Outgoing};
pub use function::Function;
pub use log::Log;

/// Longest wait for a condition: far more than anything takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at a condition.
const POLL: Duration = Duration::from_millis(1);

pub type EgressHandler = Arc<
    dyn Fn(Request<Incoming>) -> BoxFuture<'static, Response<BoxBody<Bytes, Infallible>>>
        + Send
        + Sync,
>;

/// A worker to be started.
pub struct Builder {
    functions: Vec<Function>,
    arguments: Vec<String>,
    egress: Egress,
    filter: &'static str,
}

/// The agent's side of the egress socket.
enum Egress {
    None,
    Handler(EgressHandler),
    Agent(Arc<EgressServer>),
}

/// A running worker. Killed when dropped.
pub struct Worker {
    pub address: SocketAddr,
    pub log: Log,
    pub pid: u32,
    child: Option<std::process::Child>,
    egress: AbortHandle,
    control: SendRequest<Full<Bytes>>,
    breadcrumb: File,
}

pub fn worker() -> Builder {
    Builder {
        functions: Vec::new(),
        arguments: Vec::new(),
        egress: Egress::None,
        filter: "info",
    }
}

impl Builder {
    /// A Function in namespace `default` with one JavaScript module.
    pub fn function(self, name: &str, source: &str) -> Self {
        self.with(Function::new(name, source))
    }

    pub fn with(mut self, function: Function) -> Self {
        self.functions.push(function);
        self
    }

    pub fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Each Function has one instance at most, however slow the machine: for tests that look at what one of them keeps. Else an
    /// event of more than a millisecond gives it another.
    pub fn one_instance_each(self) -> Self {
        self.argument("--threads=1")
    }

    pub fn log_filter(mut self, filter: &'static str) -> Self {
        self.filter = filter;
        self
    }

    /// What the agent answers to outbound requests.
    pub fn egress<F, R>(mut self, handler: F) -> Self
    where
        F: Fn(Request<Incoming>) -> R + Send + Sync + 'static,
        R: Future<Output = Response<BoxBody<Bytes, Infallible>>> + Send + 'static,
    {
        self.egress = Egress::Handler(Arc::new(move |request| Box::pin(handler(request))));
        self
    }

    /// Outbound requests go where the agent's own server sends them.
    pub fn agent(mut self, server: Arc<EgressServer>) -> Self {
        self.egress = Egress::Agent(server);
        self
    }

    pub async fn start(self) -> Worker {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (control, control_theirs) = StdUnixStream::pair().unwrap();
        let (egress, egress_theirs) = StdUnixStream::pair().unwrap();
        let snapshot = memory_file(snapshot());
        let breadcrumb = memory_file(&[0; BREADCRUMB_BYTES]);
        let lent = [
            lend(&listener),
            lend(&control_theirs),
            lend(&egress_theirs),
            lend(&snapshot),
            lend(&breadcrumb),
        ];
        let names = ["listener", "control", "egress", "snapshot", "breadcrumb"];
        let mut command = Command::new(env!("CARGO_BIN_EXE_isolet"));
        command
            .arg("worker")
            .env_clear()
            .env("RUST_LOG", self.filter);
        for (name, fd) in names.iter().zip(&lent) {
            command
                .arg(format!("--{name}-fd"))
                .arg(fd.as_raw_fd().to_string());
        }
        let mut child = command
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Log::read(child.stdout.take().unwrap());
        drop((lent, control_theirs, egress_theirs, listener));

        let egress = serve_egress(async_socket(egress), self.egress);
        let (control, connection) = hyper::client::conn::http2::handshake(
            TokioExecutor::new(),
            TokioIo::new(async_socket(control)),
        )
        .await
        .unwrap();
        tokio::spawn(connection);
        let worker = Worker {
            address,
            log,
            pid: child.id(),
            child: Some(child),
            egress,
            control,
            breadcrumb,
        };
        worker.log.line("worker ready").await;
        for function in &self.functions {
            worker.put(function).await.unwrap();
        }
        worker
    }
}

impl Worker {
    /// Breaks the connection by which Functions reach the agent.
    pub fn cut_egress(&self) {
        self.egress.abort();
    }

    /// Sends a revision, as the agent does.
    pub async fn put(&self, function: &Function) -> Result<Loaded, LoadError> {
        self.try_put(function).await.unwrap()
    }

    /// The same, for a revision that may end the worker.
    pub async fn try_put(&self, function: &Function) -> hyper::Result<Result<Loaded, LoadError>> {
        self.send(function, Request::builder(), &[]).await
    }

    /// Sends a revision that has loaded in an earlier worker, with what was compiled of it.
    pub async fn put_again(&self, function: &Function, code: &[u8]) -> Result<Loaded, LoadError> {
        let head = Request::builder()
            .header(CHECKED_HEADER, "true")
            .header(CODE_BYTES_HEADER, code.len());
        self.send(function, head, code).await.unwrap()
    }

    /// Sends a revision that is known to load, so that the worker does not try it.
    pub async fn put_checked(&self, function: &Function) {
        self.put_again(function, &[]).await.unwrap();
    }

    async fn send(
        &self,
        function: &Function,
        head: http::request::Builder,
        code: &[u8],
    ) -> hyper::Result<Result<Loaded, LoadError>> {
        let (bundle, secrets) = function.encode();
        let length = bundle.len();
        let body: Vec<u8> = [bundle, secrets, code.to_vec()].concat();
        let request = head
            .method("PUT")
            .uri(format!("http://worker/functions/{}", function.uid()))
            .header(BUNDLE_BYTES_HEADER, length)
            .body(Full::new(body.into()))
            .unwrap();
        let response = self.control.clone().send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        Ok(match status.as_u16() {
            200 => Ok(serde_json::from_slice(&body).unwrap()),
            422 => Err(serde_json::from_slice(&body).unwrap()),
            other => panic!("PUT answered {other}: {body:?}"),
        })
    }

    /// Waits for the first starts that the agent has not been told of.
    pub async fn starts(&self) -> Starts {
        let request = Request::get(format!("http://worker{STARTS_PATH}"))
            .body(Full::default())
            .unwrap();
        let answer = self.control.clone().send_request(request);
        let response = tokio::time::timeout(PATIENCE, answer)
            .await
            .expect("a start")
            .unwrap();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        serde_json::from_slice(&body).unwrap()
    }

    pub async fn delete(&self, uid: &str) {
        let request = Request::delete(format!("http://worker/functions/{uid}"))
            .body(Full::default())
            .unwrap();
        let response = self.control.clone().send_request(request).await.unwrap();
        assert_eq!(response.status(), 200);
    }

    pub async fn metrics(&self) -> String {
        let request = Request::get("http://worker/metrics")
            .body(Full::default())
            .unwrap();
        let response = self.control.clone().send_request(request).await.unwrap();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(body.into()).unwrap()
    }

    /// GET of a Function in namespace `default`.
    pub async fn get(&self, name: &str, path: &str) -> Answer {
        self.request(name, path).send().await
    }

    /// A request to a Function in namespace `default`.
    pub fn request(&self, name: &str, path: &str) -> Exchange {
        Exchange::new(self.address, format!("/fn/default/{name}{path}"))
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.pid as i32).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Waits until the process has ended.
    pub async fn ended(&mut self) -> ExitStatus {
        let mut child = self.child.take().unwrap();
        tokio::time::timeout(
            PATIENCE,
            tokio::task::spawn_blocking(move || child.wait().unwrap()),
        )
        .await
        .expect("the worker ends")
        .unwrap()
    }

    pub fn is_alive(&mut self) -> bool {
        self.child.as_mut().unwrap().try_wait().unwrap().is_none()
    }

    /// The UIDs in the breadcrumb.
    pub fn breadcrumb(&mut self) -> Vec<String> {
        let mut bytes = vec![0; BREADCRUMB_BYTES];
        self.breadcrumb.rewind().unwrap();
        std::io::Read::read_exact(&mut self.breadcrumb, &mut bytes).unwrap();
        bytes
            .chunks(64)
            .map(|slot| {
                String::from_utf8_lossy(slot.split(|byte| *byte == 0).next().unwrap()).into_owned()
            })
            .filter(|uid| !uid.is_empty())
            .collect()
    }

    /// Memory mappings of the process.
    pub fn mappings(&self) -> usize {
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", self.pid)).unwrap();
        maps.lines().count()
    }

    /// Resident memory of the process, in bytes.
    pub fn resident_bytes(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .unwrap();
        line.split_whitespace()
            .nth(1)
            .unwrap()
            .parse::<usize>()
            .unwrap()
            << 10
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A whole body of an answer.
pub fn full(text: impl Into<Bytes>) -> BoxBody<Bytes, Infallible> {
    Full::new(text.into()).boxed()
}

/// The sum of a metric's lines that begin so.
pub async fn metric(worker: &Worker, start: &str) -> usize {
    let metrics = worker.metrics().await;
    let lines = metrics.lines().filter(|line| line.starts_with(start));
    lines
        .map(|line| line.rsplit(' ').next().unwrap().parse::<usize>().unwrap())
        .sum()
}

/// Checks again until it holds.
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !holds().await {
            tokio::time::sleep(POLL).await;
        }
    };
    assert!(
        tokio::time::timeout(PATIENCE, wait).await.is_ok(),
        "never: {what}"
    );
}

fn serve_egress(socket: UnixStream, egress: Egress) -> AbortHandle {
    let serving = match egress {
        Egress::None => tokio::spawn(answer(socket, |_| {
            panic!("this test expects no outbound request")
        })),
        Egress::Handler(handler) => tokio::spawn(answer(socket, move |request| handler(request))),
        Egress::Agent(server) => tokio::spawn(server.serve(socket)),
    };
    serving.abort_handle()
}

/// Answers requests on the connections that the worker asks for.
async fn answer<F>(mut socket: UnixStream, handler: F)
where
    F: Fn(Request<Incoming>) -> BoxFuture<'static, Response<BoxBody<Bytes, Infallible>>>,
    F: Clone + Send + 'static,
{
    let mut connections = JoinSet::new();
    while handover::asked(&mut socket).await {
        let connection = handover::give(&socket).await.unwrap().unwrap();
        let handler = handler.clone();
        let service = hyper::service::service_fn(move |request| {
            let answer = handler(request);
            async move { Ok::<_, Infallible>(answer.await) }
        });
        connections.spawn(
            hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(connection), service),
        );
    }
}

fn async_socket(socket: StdUnixStream) -> UnixStream {
    socket.set_nonblocking(true).unwrap();
    UnixStream::from_std(socket).unwrap()
}

/// A copy of a descriptor that a child inherits.
fn lend(fd: &impl AsFd) -> OwnedFd {
    let copy = rustix::io::dup(fd).unwrap();
    rustix::io::fcntl_setfd(&copy, rustix::io::FdFlags::empty()).unwrap();
    copy
}

fn memory_file(content: &[u8]) -> File {
    let file = rustix::fs::memfd_create("isolet-test", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    let mut file = File::from(file);
    file.write_all(content).unwrap();
    file.rewind().unwrap();
    file
}

/// What `isolet compile` makes of a bundle.
pub fn compile(bundle: &[u8]) -> std::process::Output {
    let snapshot = memory_file(snapshot());
    let lent = lend(&snapshot);
    Command::new(env!("CARGO_BIN_EXE_isolet"))
        .arg("compile")
        .arg(format!("--snapshot-fd={}", lent.as_raw_fd()))
        .stdin(memory_file(bundle))
        .output()
        .unwrap()
}

/// The snapshot, made once by the program itself.
fn snapshot() -> &'static [u8] {
    static SNAPSHOT: OnceLock<Vec<u8>> = OnceLock::new();
    SNAPSHOT.get_or_init(|| {
        let made = Command::new(env!("CARGO_BIN_EXE_isolet"))
            // As `isolet agent` does.
            .args(["snapshot", "--seed=7"])
            .stderr(Stdio::inherit())
            .output()
            .unwrap();
        assert!(made.status.success(), "isolet snapshot failed");
        made.stdout
    })
}
