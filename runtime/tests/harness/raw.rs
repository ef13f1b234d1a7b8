//! HTTP/1.1 as bytes: for tests that say each of them themselves.

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::{PATIENCE, Worker};

/// A connection on which a test says every byte.
pub struct Raw(pub BufReader<TcpStream>);

/// What came back.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// The whole head, in lower case.
    pub headers: String,
    pub body: String,
}

impl Raw {
    pub async fn connect(worker: &Worker) -> Self {
        Self(BufReader::new(
            TcpStream::connect(worker.address).await.unwrap(),
        ))
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.get_mut().write_all(bytes.as_ref()).await.unwrap();
    }

    /// The next answer, an interim one too; none if the connection ends instead.
    pub async fn try_answer(&mut self) -> Option<Answer> {
        tokio::time::timeout(PATIENCE, self.read())
            .await
            .expect("an answer in time")
    }

    pub async fn answer(&mut self) -> Answer {
        self.try_answer().await.expect("an answer")
    }

    async fn read(&mut self) -> Option<Answer> {
        let mut headers = String::new();
        while !headers.ends_with("\r\n\r\n") {
            if self.0.read_line(&mut headers).await.ok()? == 0 {
                return None;
            }
        }
        let headers = headers.to_lowercase();
        let status = headers.split(' ').nth(1)?.parse().ok()?;
        let length = headers
            .lines()
            .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        let mut body = Vec::new();
        if headers.contains("transfer-encoding: chunked") {
            loop {
                let mut line = String::new();
                self.0.read_line(&mut line).await.ok()?;
                let length = usize::from_str_radix(line.trim(), 16).ok()?;
                let mut piece = vec![0; length + 2];
                self.0.read_exact(&mut piece).await.ok()?;
                body.extend_from_slice(&piece[..length]);
                if length == 0 {
                    break;
                }
            }
        } else {
            body = vec![0; length.unwrap_or(0)];
            self.0.read_exact(&mut body).await.ok()?;
        }
        Some(Answer {
            status,
            headers,
            body: String::from_utf8(body).unwrap(),
        })
    }

    /// Waits until the server has closed the connection; what came before that.
    pub async fn end(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        let end = async {
            // A reset is an end as well.
            let _ = self.0.read_to_end(&mut rest).await;
        };
        tokio::time::timeout(PATIENCE, end)
            .await
            .expect("the connection ends");
        rest
    }
}

/// A request of the Function `name` in namespace `default`.
pub fn head(method: &str, name: &str, path: &str, headers: &str) -> String {
    format!("{method} /fn/default/{name}{path} HTTP/1.1\r\nhost: test\r\n{headers}\r\n")
}
