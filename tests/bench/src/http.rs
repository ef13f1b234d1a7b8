//! A blocking HTTP/1.1 client on one kept connection: one system call to send, the clock around the exchange.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

/// One connection to a server on loopback.
pub(crate) struct Connection {
    reader: BufReader<TcpStream>,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
    /// From the request's first byte to the answer's last.
    pub(crate) took: Duration,
}

impl Connection {
    /// Connects; later each read waits at most `patience`.
    pub(crate) fn open(port: u16, patience: Duration) -> anyhow::Result<Self> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(patience))?;
        Ok(Self {
            reader: BufReader::with_capacity(64 << 10, stream),
        })
    }

    /// GET of a path.
    pub(crate) fn get(&mut self, path: &str) -> anyhow::Result<Answer> {
        self.exchange(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes())
    }

    /// POST of a JSON text.
    pub(crate) fn post(&mut self, path: &str, json: &str) -> anyhow::Result<Answer> {
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            json.len()
        );
        self.exchange((head + json).as_bytes())
    }

    fn exchange(&mut self, request: &[u8]) -> anyhow::Result<Answer> {
        let started = Instant::now();
        self.reader.get_mut().write_all(request)?;
        let status_line = self.line()?;
        let status = status_line
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .with_context(|| format!("this is no status line: {status_line:?}"))?;
        let (mut length, mut chunked) = (None, false);
        loop {
            let line = self.line()?.to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            match line.split_once(':') {
                Some(("content-length", value)) => length = value.trim().parse().ok(),
                Some(("transfer-encoding", value)) => chunked = value.trim() == "chunked",
                _ => {}
            }
        }
        let body = match (chunked, length) {
            (true, _) => self.chunks()?,
            (false, Some(length)) => self.bytes(length)?,
            (false, None) => bail!("the answer has no length"),
        };
        Ok(Answer {
            status,
            body,
            took: started.elapsed(),
        })
    }

    fn chunks(&mut self) -> anyhow::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.line()?;
            let length = usize::from_str_radix(line.trim(), 16)
                .with_context(|| format!("this is no length of a chunk: {line:?}"))?;
            body.extend(self.bytes(length)?);
            self.line()?;
            if length == 0 {
                return Ok(body);
            }
        }
    }

    fn bytes(&mut self, length: usize) -> anyhow::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.reader.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        if self.reader.read_line(&mut line)? == 0 {
            bail!("the server closed the connection");
        }
        Ok(line.trim_end().to_owned())
    }
}

impl Answer {
    /// An error unless the answer is 200 with this body.
    pub(crate) fn expect(&self, body: &[u8]) -> anyhow::Result<()> {
        if self.status == 200 && self.body == body {
            return Ok(());
        }
        let start = &self.body[..self.body.len().min(200)];
        bail!(
            "wrong answer: status {}, {} bytes, {:?}",
            self.status,
            self.body.len(),
            String::from_utf8_lossy(start)
        )
    }
}
