//! A real `isolet dev` process on files of its own, its output, and a client.
#![allow(dead_code, reason = "each test binary uses a part")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Nothing here takes that long unless it is broken.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// What a process has printed so far.
#[derive(Default)]
pub(crate) struct Output {
    text: Mutex<String>,
    grown: Condvar,
}

impl Output {
    pub(crate) fn follow(self: &Arc<Self>, source: impl Read + Send + 'static) {
        let output = Arc::clone(self);
        std::thread::spawn(move || {
            for line in BufReader::new(source).lines().map_while(Result::ok) {
                let mut text = output.text.lock().unwrap_or_else(PoisonError::into_inner);
                text.push_str(&line);
                text.push('\n');
                output.grown.notify_all();
            }
        });
    }

    pub(crate) fn text(&self) -> String {
        self.text
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Waits until `check` finds what it looks for.
    pub(crate) fn wait<T>(&self, what: &str, check: impl Fn(&str) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        let mut text = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(found) = check(&text) {
                return found;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero(),
                "{what} did not come; the output was:\n{text}"
            );
            text = self.grown.wait_timeout(text, left).unwrap().0;
        }
    }

    pub(crate) fn wait_for(&self, part: &str) {
        self.wait(part, |text| text.contains(part).then_some(()));
    }
}

/// `isolet dev` on a folder.
pub(crate) struct Dev {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) output: Arc<Output>,
    pub(crate) child: Child,
    pub(crate) port: u16,
}

/// The whole answer to a request.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

impl Dev {
    /// Starts it on these files and waits until it serves.
    pub(crate) fn start(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            write(&folder.path().join(name), text);
        }
        let path = folder.path().to_owned();
        Self::start_on(folder, &[path])
    }

    pub(crate) fn start_on(folder: tempfile::TempDir, paths: &[PathBuf]) -> Self {
        let (child, output) = spawn(paths, &["--port", "0"]);
        let mut dev = Self {
            folder,
            output,
            child,
            port: 0,
        };
        dev.output.wait_for("Ready after");
        dev.port = dev.output.wait("a URL", |text| {
            let rest = text.split("http://localhost:").nth(1)?;
            rest.split('/').next()?.parse().ok()
        });
        dev
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        write(&self.folder.path().join(name), text);
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        get(self.port, path).expect("an answer")
    }

    /// Asks until the answer is as `check` wants it.
    pub(crate) fn until(&self, path: &str, what: &str, check: impl Fn(&Answer) -> bool) -> Answer {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = get(self.port, path);
            match answer {
                Some(answer) if check(&answer) => return answer,
                last => assert!(
                    Instant::now() < deadline,
                    "{what} did not come: {last:?}\n{}",
                    self.output.text()
                ),
            }
            std::thread::yield_now();
        }
    }

    pub(crate) fn worker(&self) -> Option<u32> {
        worker_of(self.child.id())
    }

    pub(crate) fn kill_worker(&self) -> u32 {
        kill_worker_of(self.child.id())
    }
}

/// The process id of an agent's worker.
pub(crate) fn worker_of(agent: u32) -> Option<u32> {
    let children = std::fs::read_dir(format!("/proc/{agent}/task")).ok()?;
    for task in children.flatten() {
        let list = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
        for child in list.split_whitespace() {
            let command = std::fs::read(format!("/proc/{child}/cmdline")).unwrap_or_default();
            if command.split(|byte| *byte == 0).nth(1) == Some(b"worker") {
                return child.parse().ok();
            }
        }
    }
    None
}

pub(crate) fn kill_worker_of(agent: u32) -> u32 {
    let pid = worker_of(agent).expect("a worker");
    let killed = Command::new("kill")
        .args(["-9", &pid.to_string()])
        .status()
        .unwrap();
    assert!(killed.success());
    pid
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("isolet dev printed:\n{}", self.output.text());
        }
    }
}

/// Starts `isolet dev` without waiting for anything.
pub(crate) fn spawn(paths: &[PathBuf], args: &[&str]) -> (Child, Arc<Output>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_isolet"));
    command.arg("dev").args(paths).args(args);
    follow(command)
}

/// Starts a command; what it prints, on both streams, is kept.
pub(crate) fn follow(mut command: Command) -> (Child, Arc<Output>) {
    let mut child = command
        .env_remove("RUST_LOG")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let output = Arc::new(Output::default());
    output.follow(child.stdout.take().unwrap());
    output.follow(child.stderr.take().unwrap());
    (child, output)
}

/// Writes as editors do: beside the file, then renamed.
pub(crate) fn write(path: &Path, text: &str) {
    let beside = path.with_extension("tmp");
    std::fs::write(&beside, text).unwrap();
    std::fs::rename(&beside, path).unwrap();
}

/// One request on a connection of its own; `None` where the connection broke.
pub(crate) fn get(port: u16, path: &str) -> Option<Answer> {
    request(
        port,
        &format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"),
    )
}

pub(crate) fn request(port: u16, text: &str) -> Option<Answer> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    stream.write_all(text.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some(Answer {
        status: head.split(' ').nth(1)?.parse().ok()?,
        body: body.to_owned(),
    })
}

/// A Function manifest.
pub(crate) fn function(name: &str, spec: &str, code: &str) -> String {
    let code: String = code.lines().map(|line| format!("      {line}\n")).collect();
    format!(
        "apiVersion: isolet.dev/v1alpha1\nkind: Function\nmetadata: {{ name: {name} }}\nspec:\n{spec}  source:\n    inline: |\n{code}"
    )
}

/// A handler that answers with an expression.
pub(crate) fn answers(expression: &str) -> String {
    format!(
        "export default {{\n  async fetch(request: Request, env, ctx) {{\n    return new Response({expression});\n  }}\n}}"
    )
}
