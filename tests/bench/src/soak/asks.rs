//! What is asked of each kind, and what exactly must come back.

use std::sync::atomic::Ordering;

use super::random::{Random, fnv, generated};
use super::tenants::{Kind, SMALL_BODY, Tenant};

/// One request and its only right answer.
pub(crate) struct Ask<'t> {
    pub(crate) kind: Kind,
    /// None for kinds without tenants.
    pub(crate) tenant: Option<&'t Tenant>,
    pub(crate) method: &'static str,
    /// As the function sees it, with its query.
    pub(crate) path: String,
    pub(crate) nonce: String,
    pub(crate) body: Payload,
    pub(crate) expected: Expected,
    /// By the built-in host instead of `/fn/…`.
    pub(crate) by_host: bool,
    /// What is sent instead of all that, for what is no HTTP.
    pub(crate) raw: Option<Vec<u8>>,
}

/// A request's body.
pub(crate) enum Payload {
    None,
    /// With `Content-Length`.
    Sized(Vec<u8>),
    /// In chunks.
    Chunked(Vec<Vec<u8>>),
}

/// What must come back.
pub(crate) enum Expected {
    /// 200, the tenant's proof, this body.
    Right(Content),
    /// 200 and the proof; then the body breaks off, at the latest after the tenant's line.
    Broken,
    /// One of the runtime's own errors: status and reason.
    Error(&'static [(u16, &'static str)]),
    /// This status, without one of our own texts; the connection is closed.
    Refused(u16),
}

/// Body of a right answer.
pub(crate) enum Content {
    /// The tenant's line.
    Line,
    /// The tenant's line, then this.
    LineAnd(String),
    /// The tenant's line, then so many bytes generated from it.
    Generated(usize),
    /// Exactly this.
    Bytes(Vec<u8>),
    /// None, as HEAD demands.
    None,
}

/// An answer as it arrived.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) proof: Option<String>,
    pub(crate) retry_after: bool,
    /// The server says that it closes the connection.
    pub(crate) closes: bool,
    /// HTTP/2's stream was reset before the head.
    pub(crate) was_reset: bool,
    pub(crate) body: Vec<u8>,
    /// The body ended as its framing says.
    pub(crate) is_whole: bool,
}

/// How an answer is to be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Right,
    /// An error, and the one that was to come.
    ExpectedError,
    /// A hog was sent away because of the load.
    TooBusy,
}

impl<'t> Ask<'t> {
    /// Something to ask a tenant of this kind.
    pub(crate) fn new(
        kind: Kind,
        tenant: Option<&'t Tenant>,
        nonce: String,
        random: &mut Random,
    ) -> Self {
        let mut ask = Self {
            kind,
            tenant,
            method: "GET",
            path: "/".into(),
            nonce,
            body: Payload::None,
            expected: Expected::Right(Content::Line),
            by_host: random.percent(20),
            raw: None,
        };
        match kind {
            Kind::Hello if random.percent(5) => {
                ask.method = "HEAD";
                ask.expected = Expected::Right(Content::None);
            }
            Kind::Hello | Kind::Later | Kind::Redeployed => {}
            Kind::Upload => ask.upload(random),
            Kind::Echo => {
                let size = random.below(256 << 10);
                ask.send(random.bytes(size), random);
                ask.expected = Expected::Right(Content::Bytes(ask.body.bytes()));
            }
            Kind::Stream => {
                let size = 4 * random.below(64 << 10);
                let piece = 4 * (256 + random.below(8 << 10));
                let pauses = random.pick(&[0, 1, 8]);
                ask.path = format!("/?size={size}&piece={piece}&pauses={pauses}");
                ask.expected = Expected::Right(Content::Generated(size));
            }
            Kind::Fetch => ask.fetch(random),
            Kind::Hog => {
                ask.path = (*random.pick(&[
                    "/loop",
                    "/allocations",
                    "/natives",
                    "/expression",
                    "/promises",
                    "/after-a-pause",
                    "/ok",
                ]))
                .into();
                if ask.path != "/ok" {
                    ask.expected = Expected::Error(&[(503, "CPULimitExceeded")]);
                }
            }
            Kind::Bomb => {
                ask.path =
                    (*random.pick(&["/arrays", "/objects", "/strings", "/buffers", "/ok"])).into();
                match ask.path.as_str() {
                    "/ok" => {}
                    // The allocation fails with an exception, unless a collection sees the limit passed before.
                    "/buffers" => {
                        ask.expected =
                            Expected::Error(&[(500, "HandlerError"), (503, "MemoryLimitExceeded")]);
                    }
                    _ => ask.expected = Expected::Error(&[(503, "MemoryLimitExceeded")]),
                }
            }
            Kind::Thrower => {
                ask.path =
                    (*random.pick(&["/throw", "/reject", "/nothing", "/breaks-off", "/ok"])).into();
                match ask.path.as_str() {
                    "/ok" => {}
                    "/breaks-off" => ask.expected = Expected::Broken,
                    _ => ask.expected = Expected::Error(&[(500, "HandlerError")]),
                }
            }
            Kind::Sleeper => {
                ask.path = (*random.pick(&["/never", "/begins"])).into();
                ask.expected = match ask.path.as_str() {
                    "/never" => Expected::Error(&[(504, "Timeout")]),
                    _ => Expected::Broken,
                };
            }
            Kind::Nobody => ask.expected = Expected::Error(&[(404, "NotFound")]),
            Kind::Malformed => ask.malformed(random),
        }
        ask
    }

    fn upload(&mut self, random: &mut Random) {
        const TOO_LARGE: Expected = Expected::Error(&[(413, "BodyTooLarge")]);
        self.path = "/sum".into();
        match random.below(10) {
            0 => {
                let size = SMALL_BODY + 1 + random.below(4 * SMALL_BODY);
                self.method = "POST";
                self.body = Payload::Sized(random.bytes(size));
                self.expected = TOO_LARGE;
            }
            1 => {
                let size = SMALL_BODY + 1 + random.below(4 * SMALL_BODY);
                let bytes = random.bytes(size);
                self.method = "POST";
                self.body = Payload::Chunked(bytes.chunks(8 << 10).map(<[u8]>::to_vec).collect());
                self.expected = TOO_LARGE;
            }
            2 => {
                self.path = "/unread".into();
                let size = random.below(SMALL_BODY + 1);
                self.send(random.bytes(size), random);
            }
            _ => {
                let size = random.below(SMALL_BODY + 1);
                self.send(random.bytes(size), random);
                self.expected = self.sum();
            }
        }
    }

    fn fetch(&mut self, random: &mut Random) {
        let size = 4 * random.below(16 << 10);
        self.path = match random.below(10) {
            0 => "/cut".into(),
            1 => "/denied".into(),
            2 => "/given-up".into(),
            3 => "/sent".into(),
            4 => format!("/redirected?size={size}"),
            5 => format!("/tiny?size={}", size / 16 * 4),
            6 => "/unread".into(),
            _ => format!("/bytes?size={size}"),
        };
        self.expected = match self.path.as_str() {
            "/cut" => Expected::Right(Content::LineAnd("TypeError".into())),
            "/denied" => Expected::Right(Content::LineAnd("TypeError true".into())),
            "/unread" => Expected::Right(Content::LineAnd("200,200,200".into())),
            "/given-up" => Expected::Right(Content::LineAnd("true".into())),
            "/sent" => {
                self.send(random.bytes(size), random);
                self.sum()
            }
            path => {
                let size = path
                    .split_once("size=")
                    .and_then(|(_, size)| size.parse().ok());
                let bytes = generated(&self.nonce, size.unwrap_or(0));
                Expected::Right(Content::Bytes(bytes))
            }
        };
    }

    fn malformed(&mut self, random: &mut Random) {
        let many = "x: y\r\n".repeat(200);
        let long = "a".repeat(80 << 10);
        let (status, text) = match random.below(6) {
            0 => (400, "GET\r\n\r\n".into()),
            1 => (
                400,
                "GET / HTTP/1.1\r\nhost: a\r\nbad header: x\r\n\r\n".into(),
            ),
            2 => (
                400,
                "GET / HTTP/1.1\r\nhost: a\r\na: b\r\n folded\r\n\r\n".into(),
            ),
            3 => (
                400,
                "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: x\r\n\r\n".into(),
            ),
            4 => (431, format!("GET / HTTP/1.1\r\nhost: a\r\n{many}\r\n")),
            _ => (
                431,
                format!("GET / HTTP/1.1\r\nhost: a\r\nx: {long}\r\n\r\n"),
            ),
        };
        self.expected = Expected::Refused(status);
        self.raw = Some(text.into_bytes());
    }

    fn send(&mut self, bytes: Vec<u8>, random: &mut Random) {
        self.method = "POST";
        self.body = if random.percent(50) {
            Payload::Sized(bytes)
        } else {
            // HTTP/2 libraries take many tiny pieces that nobody has read yet for an attack.
            let piece = 512 + random.below(16 << 10);
            Payload::Chunked(bytes.chunks(piece).map(<[u8]>::to_vec).collect())
        };
    }

    fn sum(&self) -> Expected {
        let bytes = self.body.bytes();
        Expected::Right(Content::LineAnd(format!("{} {}", bytes.len(), fnv(&bytes))))
    }

    /// Whether the connection can be used again, and further requests sent before the answer.
    pub(crate) fn leaves_connection_open(&self) -> bool {
        let is_body_read = matches!(self.body, Payload::None)
            || (matches!(self.expected, Expected::Right(_)) && self.path != "/unread");
        is_body_read && !matches!(self.expected, Expected::Broken | Expected::Refused(_))
    }

    /// The oldest version that may answer what is asked now.
    pub(crate) fn least_version(&self) -> u32 {
        self.tenant
            .map_or(0, |tenant| tenant.seen.load(Ordering::SeqCst))
    }

    /// Judges an answer; the error says what is wrong with it.
    pub(crate) fn judge(&self, answer: &Answer, least: u32) -> Result<Verdict, String> {
        if let Expected::Refused(status) = self.expected {
            return if answer.status == status {
                Ok(Verdict::ExpectedError)
            } else {
                Err(format!("not the status {status}"))
            };
        }
        if answer.was_reset {
            return match self.expected {
                Expected::Broken => Ok(Verdict::ExpectedError),
                _ => Err("the stream was reset".into()),
            };
        }
        if let Expected::Error(errors) = self.expected {
            return self.judge_error(answer, errors);
        }
        if answer.status != 200 {
            return Err("not the status 200".into());
        }
        let version = self.version(answer, least)?;
        let Some(tenant) = self.tenant else {
            return Err("an answer of nobody".into());
        };
        let line = tenant.line(version, &self.nonce);
        let body = match &self.expected {
            Expected::Broken if answer.is_whole => return Err("the body did not break off".into()),
            Expected::Broken => {
                return if line.as_bytes().starts_with(&answer.body) {
                    Ok(Verdict::ExpectedError)
                } else {
                    Err("the body is another one".into())
                };
            }
            Expected::Right(content) => match content {
                Content::Line => line.into_bytes(),
                Content::LineAnd(text) => (line + text).into_bytes(),
                Content::Generated(size) => {
                    let bytes = generated(&line, *size);
                    [line.into_bytes(), bytes].concat()
                }
                Content::Bytes(bytes) => bytes.clone(),
                Content::None => Vec::new(),
            },
            Expected::Error(_) | Expected::Refused(_) => Vec::new(),
        };
        if !answer.is_whole {
            return Err(format!(
                "the body broke off after {} of {} bytes",
                answer.body.len(),
                body.len()
            ));
        }
        if answer.body != body {
            let same = answer.body.iter().zip(&body).take_while(|(a, b)| a == b);
            return Err(format!(
                "the body has {} bytes, not {}, and differs at byte {}",
                answer.body.len(),
                body.len(),
                same.count()
            ));
        }
        Ok(Verdict::Right)
    }

    fn judge_error(
        &self,
        answer: &Answer,
        errors: &[(u16, &'static str)],
    ) -> Result<Verdict, String> {
        let json: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let reason = json["error"]["reason"].as_str().unwrap_or_default();
        let text = String::from_utf8_lossy(&answer.body);
        if let Some(tenant) = self.tenant
            && text.contains(&tenant.secret(1))
        {
            return Err("the error tells the tenant's secret".into());
        }
        if errors.contains(&(answer.status, reason)) && answer.is_whole {
            return Ok(Verdict::ExpectedError);
        }
        let is_busy = answer.status == 503 && reason == "TooBusy" && answer.retry_after;
        if self.kind == Kind::Hog && is_busy {
            return Ok(Verdict::TooBusy);
        }
        Err(format!("none of {errors:?}"))
    }

    /// The version that answered, if it is one that may and its proof is right.
    fn version(&self, answer: &Answer, least: u32) -> Result<u32, String> {
        let Some(tenant) = self.tenant else {
            return Err("an answer of nobody".into());
        };
        let Some(proof) = &answer.proof else {
            return Err("there is no proof".into());
        };
        let version: u32 = proof
            .split(' ')
            .nth(2)
            .and_then(|version| version.parse().ok())
            .unwrap_or(0);
        let latest = tenant.deployed.load(Ordering::SeqCst);
        if version < least || version > latest {
            return Err(format!(
                "version {version} answered; {least} answered before, {latest} is the latest"
            ));
        }
        let right = tenant.proof(version, &self.nonce);
        if *proof != right {
            return Err(format!("the proof is not {right:?}"));
        }
        tenant.seen.fetch_max(version, Ordering::SeqCst);
        Ok(version)
    }

    /// For a person.
    pub(crate) fn describe(&self) -> String {
        let name = self.tenant.map_or("nobody", |tenant| &tenant.name);
        format!("{} {} of {name}, {}", self.method, self.path, self.nonce)
    }
}

impl Payload {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        match self {
            Self::None => Vec::new(),
            Self::Sized(bytes) => bytes.clone(),
            Self::Chunked(pieces) => pieces.concat(),
        }
    }
}

impl Answer {
    /// For a person.
    pub(crate) fn describe(&self) -> String {
        let start = &self.body[..self.body.len().min(300)];
        format!(
            "status {}, proof {:?}, {} bytes{}: {:?}",
            self.status,
            self.proof.as_deref().unwrap_or("none"),
            self.body.len(),
            if self.is_whole { "" } else { ", broken off" },
            String::from_utf8_lossy(start)
        )
    }
}
