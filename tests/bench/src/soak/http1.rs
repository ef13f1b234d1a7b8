//! HTTP/1.1 on a raw socket, so that requests can be cut, pipelined, trickled and left half read.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpSocket;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::PATIENCE;
use super::asks::{Answer, Ask, Payload};

/// Receive buffer of a slow reader, so that what it does not read is not hidden in the kernel.
const SMALL_BUFFER: u32 = 8 << 10;

/// A connection.
pub(crate) struct Connection {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    /// When it was last used.
    pub(crate) used: Instant,
}

/// How the client behaves.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    Fast,
    /// Reads a few KiB at a time, with pauses.
    SlowReader,
    /// Writes a few bytes at a time, with pauses.
    SlowWriter,
}

/// A request as bytes: the head, and the body as it goes over the wire.
pub(crate) struct Bytes1 {
    pub(crate) head: Vec<u8>,
    pub(crate) body: Vec<u8>,
}

impl Bytes1 {
    pub(crate) fn of(ask: &Ask<'_>, expects_continue: bool) -> Self {
        if let Some(raw) = &ask.raw {
            return Self {
                head: raw.clone(),
                body: Vec::new(),
            };
        }
        let (host, path) = target(ask);
        let mut head = format!(
            "{} {path} HTTP/1.1\r\nhost: {host}\r\nx-nonce: {}\r\n",
            ask.method, ask.nonce
        );
        let body = match &ask.body {
            Payload::None => Vec::new(),
            Payload::Sized(bytes) => {
                head += &format!("content-length: {}\r\n", bytes.len());
                bytes.clone()
            }
            Payload::Chunked(pieces) => {
                head += "transfer-encoding: chunked\r\n";
                let mut body = Vec::new();
                for piece in pieces {
                    body.extend(format!("{:x}\r\n", piece.len()).as_bytes());
                    body.extend(piece);
                    body.extend(b"\r\n");
                }
                body.extend(b"0\r\n\r\n");
                body
            }
        };
        if expects_continue {
            head += "expect: 100-continue\r\n";
        }
        head += "\r\n";
        Self {
            head: head.into_bytes(),
            body,
        }
    }

    pub(crate) fn all(self) -> Vec<u8> {
        [self.head, self.body].concat()
    }
}

/// Host and path of a request.
pub(crate) fn target(ask: &Ask<'_>) -> (String, String) {
    let name = ask.tenant.map_or("nobody", |tenant| &tenant.name);
    if ask.by_host {
        (format!("{name}.default.localhost"), ask.path.clone())
    } else {
        ("soak".into(), format!("/fn/default/{name}{}", ask.path))
    }
}

impl Connection {
    pub(crate) async fn open(port: u16, pace: Pace) -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        if pace == Pace::SlowReader {
            socket.set_recv_buffer_size(SMALL_BUFFER)?;
        }
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let stream = in_time(socket.connect(address)).await?;
        stream.set_nodelay(true)?;
        let (reader, writer) = stream.into_split();
        Ok(Self {
            reader: BufReader::with_capacity(4 << 10, reader),
            writer,
            used: Instant::now(),
        })
    }

    /// Sends a request and reads its answer, which may come before all is sent.
    pub(crate) async fn exchange(&mut self, ask: &Ask<'_>, pace: Pace) -> io::Result<Answer> {
        let request = Bytes1::of(ask, false).all();
        self.send_and_read(&request, None, ask.method, pace).await
    }

    /// The same, but the body is sent only once the server asks for it, or has begun an answer that is no refusal: the
    /// function may have answered with what it is about to read.
    pub(crate) async fn exchange_continued(&mut self, ask: &Ask<'_>) -> io::Result<Answer> {
        let Bytes1 { head, body } = Bytes1::of(ask, true);
        self.write(&head).await?;
        let first = read_head(&mut self.reader).await?;
        if first.status >= 400 {
            return read_body(&mut self.reader, first, ask.method, Pace::Fast).await;
        }
        let answer = (first.status != 100).then_some(first);
        self.send_and_read(&body, answer, ask.method, Pace::Fast)
            .await
    }

    /// Sends and reads at the same time. The head of the answer may have come already.
    async fn send_and_read(
        &mut self,
        bytes: &[u8],
        head: Option<Head>,
        method: &str,
        pace: Pace,
    ) -> io::Result<Answer> {
        let Self { reader, writer, .. } = self;
        let write = async {
            // An answer may come all the same; if none does, reading says so.
            let _ = write_at(writer, bytes, pace).await;
            std::future::pending::<()>().await;
        };
        let read = async {
            let head = match head {
                Some(head) => head,
                None => read_head(reader).await?,
            };
            read_body(reader, head, method, pace).await
        };
        let answer = tokio::select! {
            answer = read => answer,
            () = write => unreachable!("it never ends"),
        };
        self.used = Instant::now();
        answer
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        in_time(self.writer.write_all(bytes)).await
    }

    /// Sends several requests at once and reads their answers, up to the first that fails.
    pub(crate) async fn pipelined(
        self,
        requests: &[u8],
        methods: &[&str],
    ) -> Vec<io::Result<Answer>> {
        let Self {
            mut reader,
            mut writer,
            ..
        } = self;
        let write = async {
            // An answer that does not come says so.
            let _ = write_at(&mut writer, requests, Pace::Fast).await;
            std::future::pending::<()>().await;
        };
        let read = async {
            let mut answers = Vec::new();
            for method in methods {
                let answer = async {
                    let head = read_head(&mut reader).await?;
                    read_body(&mut reader, head, method, Pace::Fast).await
                };
                let answer = answer.await;
                let goes_on = answer.as_ref().is_ok_and(|answer| answer.is_whole);
                answers.push(answer);
                if !goes_on {
                    break;
                }
            }
            answers
        };
        tokio::select! {
            answers = read => answers,
            () = write => unreachable!("it never ends"),
        }
    }

    /// Reads at most so many bytes, and throws them away.
    pub(crate) async fn read_some(&mut self, mut most: usize) -> io::Result<()> {
        let mut bytes = [0; 1024];
        while most > 0 {
            let length = most.min(bytes.len());
            let read = in_time(self.reader.read(&mut bytes[..length])).await?;
            if read == 0 {
                return Ok(());
            }
            most -= read;
        }
        Ok(())
    }

    /// Closes with a reset instead of an orderly end.
    pub(crate) fn reset(self) {
        // If it cannot be set the end is an orderly one.
        if let Ok(stream) = self.reader.into_inner().reunite(self.writer) {
            let _ = stream.set_zero_linger();
        }
    }
}

#[derive(Default)]
struct Head {
    status: u16,
    length: Option<usize>,
    is_chunked: bool,
    proof: Option<String>,
    retry_after: bool,
    closes: bool,
}

async fn write_at(writer: &mut OwnedWriteHalf, bytes: &[u8], pace: Pace) -> io::Result<()> {
    if pace != Pace::SlowWriter {
        return in_time(writer.write_all(bytes)).await;
    }
    // About 50 writes, whatever the size.
    for piece in bytes.chunks((bytes.len() / 50).max(1)) {
        in_time(writer.write_all(piece)).await?;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

async fn read_head(reader: &mut BufReader<OwnedReadHalf>) -> io::Result<Head> {
    let mut head = Head::default();
    let status_line = line(reader).await?;
    head.status = status_line
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3)?.parse().ok())
        .ok_or_else(|| broken(format!("this is no status line: {status_line:?}")))?;
    loop {
        let line = line(reader).await?;
        if line.is_empty() {
            return Ok(head);
        }
        let Some((name, value)) = line.split_once(':') else {
            return Err(broken(format!("this is no header: {line:?}")));
        };
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => head.length = value.parse().ok(),
            "transfer-encoding" => head.is_chunked = value == "chunked",
            "x-proof" => head.proof = Some(value.to_owned()),
            "retry-after" => head.retry_after = true,
            "connection" => head.closes = value.eq_ignore_ascii_case("close"),
            _ => {}
        }
    }
}

async fn read_body(
    reader: &mut BufReader<OwnedReadHalf>,
    head: Head,
    method: &str,
    pace: Pace,
) -> io::Result<Answer> {
    let mut answer = Answer {
        status: head.status,
        proof: head.proof,
        retry_after: head.retry_after,
        closes: head.closes,
        ..Answer::default()
    };
    let outcome = async {
        if method == "HEAD" {
            return Ok(());
        }
        if !head.is_chunked {
            let length = head.length.unwrap_or(0);
            return read_exactly(reader, length, &mut answer.body, pace).await;
        }
        loop {
            let line = line(reader).await?;
            let length = usize::from_str_radix(&line, 16)
                .map_err(|_| broken(format!("this is no length of a chunk: {line:?}")))?;
            if length == 0 {
                self::line(reader).await?;
                return Ok(());
            }
            read_exactly(reader, length, &mut answer.body, pace).await?;
            self::line(reader).await?;
        }
    };
    let outcome: io::Result<()> = outcome.await;
    match outcome {
        Ok(()) => answer.is_whole = true,
        // What arrived is judged.
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset
            ) => {}
        Err(error) => return Err(error),
    }
    Ok(answer)
}

async fn read_exactly(
    reader: &mut BufReader<OwnedReadHalf>,
    mut left: usize,
    into: &mut Vec<u8>,
    pace: Pace,
) -> io::Result<()> {
    while left > 0 {
        if pace == Pace::SlowReader {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let bytes = in_time(reader.fill_buf()).await?;
        if bytes.is_empty() {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let taken = bytes.len().min(left);
        into.extend_from_slice(&bytes[..taken]);
        reader.consume(taken);
        left -= taken;
    }
    Ok(())
}

/// A line without its end.
async fn line(reader: &mut BufReader<OwnedReadHalf>) -> io::Result<String> {
    let mut line = Vec::new();
    in_time(reader.read_until(b'\n', &mut line)).await?;
    if line.pop() != Some(b'\n') {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    line.pop_if(|byte| *byte == b'\r');
    String::from_utf8(line).map_err(|_| broken("a line is not UTF-8".into()))
}

async fn in_time<T>(action: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(PATIENCE, action)
        .await
        .map_err(|_| io::Error::from(ErrorKind::TimedOut))?
}

fn broken(text: String) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, text)
}
