//! The worker's log, line by line.

use std::io::{BufRead, BufReader};
use std::process::ChildStdout;
use std::sync::{Arc, Mutex};

use tokio::sync::watch;

use super::PATIENCE;

#[derive(Clone)]
pub struct Log {
    lines: Arc<Mutex<Vec<String>>>,
    count: watch::Receiver<usize>,
}

impl Log {
    pub fn read(output: ChildStdout) -> Self {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (counted, count) = watch::channel(0);
        let log = Self {
            lines: Arc::clone(&lines),
            count,
        };
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let mut lines = lines.lock().unwrap();
                lines.push(line);
                counted.send_replace(lines.len());
            }
        });
        log
    }

    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    /// The first line that contains the text, now or later.
    pub async fn line(&self, text: &str) -> String {
        let mut count = self.count.clone();
        let wait = async {
            loop {
                if let Some(line) = self.lines().into_iter().find(|line| line.contains(text)) {
                    return Some(line);
                }
                if count.changed().await.is_err() {
                    return self.lines().into_iter().find(|line| line.contains(text));
                }
            }
        };
        match tokio::time::timeout(PATIENCE, wait).await {
            Ok(Some(line)) => line,
            _ => panic!("no log line with {text:?} in:\n{}", self.lines().join("\n")),
        }
    }

    /// The same, parsed.
    pub async fn json(&self, text: &str) -> serde_json::Value {
        serde_json::from_str(&self.line(text).await).unwrap()
    }
}
