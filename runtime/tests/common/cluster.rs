//! A namespace of a real API server, bundle objects in it, and a real `isolet agent` that watches them.
#![allow(dead_code, reason = "each test binary uses a part")]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use isolet_bundler::{Sources, build, inline_modules, validate};
use isolet_crds::bundle::Encoded;
use isolet_crds::{Function, labels};
use k8s_openapi::ByteString;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::json;

use super::common::{self, Answer, Output, PATIENCE, request};

pub(crate) struct Cluster {
    pub(crate) client: Client,
    pub(crate) namespace: String,
    kubeconfig: PathBuf,
}

impl Cluster {
    pub(crate) async fn new() -> Self {
        let path = std::env::var_os("ISOLET_TEST_KUBECONFIG").expect(
            "these tests need a real API server: run them by `make test`, or `tests/cluster/cluster api DIR` and set ISOLET_TEST_KUBECONFIG=DIR/kubeconfig",
        );
        let kubeconfig = PathBuf::from(path);
        let read = Kubeconfig::read_from(&kubeconfig).unwrap();
        let config = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default())
            .await
            .unwrap();
        let client = Client::try_from(config).unwrap();
        let namespace = format!("agent-{:08x}", getrandom::u32().unwrap());
        let object = Namespace {
            metadata: ObjectMeta {
                name: Some(namespace.clone()),
                ..Default::default()
            },
            ..Default::default()
        };
        Api::<Namespace>::all(client.clone())
            .create(&PostParams::default(), &object)
            .await
            .unwrap();
        Self {
            client,
            namespace,
            kubeconfig,
        }
    }

    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Writes a revision as the operator does, in chunks of `chunk` bytes. Returns the revision's name.
    pub(crate) async fn publish(
        &self,
        function: &Published<'_>,
        sequence: u64,
        chunk: usize,
    ) -> String {
        let (encoded, secrets) = function.build();
        let pieces: Vec<_> = encoded.bytes.chunks(chunk).collect();
        for (index, piece) in pieces.iter().enumerate() {
            let mut metadata = function.metadata(&encoded, sequence, &format!("-{index}"));
            let annotations = metadata.annotations.get_or_insert_default();
            annotations.insert(labels::CHUNK.into(), index.to_string());
            annotations.insert(labels::CHUNKS.into(), pieces.len().to_string());
            let object = ConfigMap {
                metadata,
                binary_data: Some(BTreeMap::from([(
                    labels::DATA_KEY.into(),
                    ByteString(piece.to_vec()),
                )])),
                immutable: Some(true),
                ..Default::default()
            };
            self.api::<ConfigMap>()
                .create(&PostParams::default(), &object)
                .await
                .unwrap();
        }
        if let Some(secrets) = secrets {
            let object = Secret {
                metadata: function.metadata(&encoded, sequence, "-env"),
                data: Some(BTreeMap::from([(
                    labels::DATA_KEY.into(),
                    ByteString(secrets),
                )])),
                immutable: Some(true),
                ..Default::default()
            };
            self.api::<Secret>()
                .create(&PostParams::default(), &object)
                .await
                .unwrap();
        }
        encoded.digest.revision().to_owned()
    }

    /// Raises the sequence of a revision's objects in place, as a revert does.
    pub(crate) async fn raise(&self, function: &Published<'_>, sequence: u64) {
        let (encoded, _) = function.build();
        let name = function.object_name(&encoded, "-0");
        let patch =
            json!({ "metadata": { "annotations": { labels::SEQUENCE: sequence.to_string() } } });
        let api = self.api::<ConfigMap>();
        api.patch(&name, &PatchParams::default(), &Patch::Merge(&patch))
            .await
            .unwrap();
    }

    pub(crate) async fn remove(&self, function: &Published<'_>) {
        let (encoded, _) = function.build();
        let name = function.object_name(&encoded, "-0");
        self.api::<ConfigMap>()
            .delete(&name, &DeleteParams::default())
            .await
            .unwrap();
    }

    pub(crate) async fn create(&self, object: ConfigMap) {
        self.api::<ConfigMap>()
            .create(&PostParams::default(), &object)
            .await
            .unwrap();
    }

    /// A token of a new ServiceAccount.
    pub(crate) async fn token(&self, account: &str, audience: &str) -> String {
        let accounts = self.api::<ServiceAccount>();
        let object = ServiceAccount {
            metadata: ObjectMeta {
                name: Some(account.into()),
                ..Default::default()
            },
            ..Default::default()
        };
        if accounts.get_opt(account).await.unwrap().is_none() {
            accounts
                .create(&PostParams::default(), &object)
                .await
                .unwrap();
        }
        let wanted = TokenRequest {
            spec: Some(TokenRequestSpec {
                audiences: Some(vec![audience.into()]),
                ..Default::default()
            }),
            ..Default::default()
        };
        let answer = accounts
            .create_token_request(account, &PostParams::default(), &wanted)
            .await
            .unwrap();
        answer.status.unwrap().token.unwrap()
    }

    /// Starts an agent that reaches the API server through `proxy`.
    pub(crate) fn agent(&self, proxy: &Proxy, cache: &Path) -> Agent {
        let folder = tempfile::tempdir().unwrap();
        let kubeconfig = folder.path().join("kubeconfig");
        let text = std::fs::read_to_string(&self.kubeconfig).unwrap();
        let target = server(&text);
        std::fs::write(
            &kubeconfig,
            text.replace(&target, &format!("https://127.0.0.1:{}", proxy.port)),
        )
        .unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_isolet"));
        command
            .arg("agent")
            .args([
                "--listen=127.0.0.1:0",
                "--agent-listen=127.0.0.1:0",
                "--domain=fn.test",
                "--drain-seconds=5",
            ])
            .arg(format!("--namespace={}", self.namespace))
            .arg(format!(
                "--operator-service-account={}:operator",
                self.namespace
            ))
            .arg(format!("--cache-dir={}", cache.display()))
            .env("KUBECONFIG", &kubeconfig);
        let (child, output) = common::follow(command);
        let port = |key: &str| {
            output.wait(key, |text| {
                let rest = text.split(&format!("\"{key}\":\"127.0.0.1:")).nth(1)?;
                rest.split('"').next()?.parse().ok()
            })
        };
        Agent {
            http: port("listen"),
            port: port("agent_listen"),
            output,
            child,
            _folder: folder,
        }
    }

    /// A way to the API server that can be cut.
    pub(crate) fn proxy(&self) -> Proxy {
        let text = std::fs::read_to_string(&self.kubeconfig).unwrap();
        Proxy::start(server(&text).trim_start_matches("https://").to_owned())
    }
}

fn server(kubeconfig: &str) -> String {
    let rest = kubeconfig.split("https://").nth(1).unwrap();
    let end = rest.find(['"', '\n', ',']).unwrap();
    format!("https://{}", &rest[..end])
}

/// A Function as a test writes it.
pub(crate) struct Published<'a> {
    pub(crate) name: &'a str,
    pub(crate) code: &'a str,
    pub(crate) secret: Option<&'a str>,
}

impl Published<'_> {
    fn uid(&self) -> String {
        format!("00000000-{}", self.name)
    }

    fn build(&self) -> (Encoded, Option<Vec<u8>>) {
        let env = match self.secret {
            Some(_) => {
                json!([{ "name": "TOKEN", "valueFrom": { "secretKeyRef": { "name": "s", "key": "k" } } }])
            }
            None => json!([]),
        };
        let function: Function = serde_json::from_value(json!({
            "apiVersion": "isolet.dev/v1alpha1",
            "kind": "Function",
            "metadata": { "name": self.name, "namespace": "tenant", "uid": self.uid() },
            "spec": { "source": { "inline": self.code }, "env": env },
        }))
        .unwrap();
        let mut sources = Sources {
            modules: inline_modules(&function.spec).unwrap(),
            ..Default::default()
        };
        if let Some(secret) = self.secret {
            let value = isolet_bundler::SecretValue {
                value: secret.into(),
                version: format!("v-{secret}"),
            };
            sources.secret_env.insert("TOKEN".into(), value);
        }
        let built = build(&validate(&function, sources).unwrap()).unwrap();
        (
            built.bundle,
            built.secrets.map(|secrets| secrets.encode().unwrap()),
        )
    }

    fn object_name(&self, encoded: &Encoded, suffix: &str) -> String {
        format!("fn-{}-{}{suffix}", self.name, encoded.digest.revision())
    }

    fn metadata(&self, encoded: &Encoded, sequence: u64, suffix: &str) -> ObjectMeta {
        let pairs = |pairs: &[(&str, &str)]| {
            Some(
                pairs
                    .iter()
                    .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                    .collect(),
            )
        };
        ObjectMeta {
            name: Some(self.object_name(encoded, suffix)),
            labels: pairs(&[
                (labels::BUNDLE, labels::BUNDLE_FORMAT),
                (labels::FUNCTION_UID, &self.uid()),
                (labels::FUNCTION_NAMESPACE, "tenant"),
                (labels::FUNCTION_NAME, self.name),
                (labels::REVISION, encoded.digest.revision()),
            ]),
            annotations: pairs(&[
                (labels::DIGEST, encoded.digest.as_str()),
                (labels::SEQUENCE, &sequence.to_string()),
            ]),
            ..Default::default()
        }
    }
}

/// A running agent.
pub(crate) struct Agent {
    /// Port of tenants' requests.
    pub(crate) http: u16,
    /// Port of probes, metrics and reports.
    pub(crate) port: u16,
    pub(crate) output: Arc<Output>,
    pub(crate) child: Child,
    _folder: tempfile::TempDir,
}

impl Agent {
    pub(crate) fn function(&self, name: &str) -> Option<Answer> {
        common::get(self.http, &format!("/fn/tenant/{name}/"))
    }

    pub(crate) fn own(&self, path: &str, token: Option<&str>) -> Option<Answer> {
        let authorization = token
            .map(|token| format!("authorization: Bearer {token}\r\n"))
            .unwrap_or_default();
        request(
            self.port,
            &format!(
                "GET {path} HTTP/1.1\r\nhost: agent\r\n{authorization}connection: close\r\n\r\n"
            ),
        )
    }

    pub(crate) fn until(&self, what: &str, check: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !check(self) {
            assert!(
                Instant::now() < deadline,
                "{what} did not come\n{}",
                self.output.text()
            );
            std::thread::yield_now();
        }
    }

    pub(crate) fn until_body(&self, name: &str, body: &str) {
        self.until(body, |agent| {
            agent
                .function(name)
                .is_some_and(|answer| answer.body == body)
        });
    }

    /// A metric of the agent or of its worker; 0 where there is none.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        let text = self.own("/metrics", None).map(|answer| answer.body);
        let text = text.unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.map_or(0, |value| value.trim().parse().unwrap())
    }

    pub(crate) fn until_metric(&self, name: &str, value: u64) {
        self.until(&format!("{name} {value}"), |agent| {
            agent.metric(name) == value
        });
    }

    /// Has the worker end, and waits until the next one serves.
    pub(crate) fn replace_worker(&self) {
        let starts = self.metric("isolet_agent_worker_starts_total");
        common::kill_worker_of(self.child.id());
        self.until_metric("isolet_agent_worker_starts_total", starts + 1);
    }

    pub(crate) fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args([signal, &pid])
                .status()
                .unwrap()
                .success()
        );
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("isolet agent printed:\n{}", self.output.text());
        }
    }
}

/// Passes bytes on to the API server, until it is cut.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    cut: Arc<AtomicBool>,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Proxy {
    fn start(target: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let cut = Arc::new(AtomicBool::new(false));
        let open: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
        let (is_cut, streams) = (cut.clone(), open.clone());
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if is_cut.load(Ordering::SeqCst) {
                    continue;
                }
                let Ok(server) = TcpStream::connect(&target) else {
                    continue;
                };
                let mut kept = streams.lock().unwrap();
                kept.push(client.try_clone().unwrap());
                kept.push(server.try_clone().unwrap());
                pass(client.try_clone().unwrap(), server.try_clone().unwrap());
                pass(server, client);
            }
        });
        Self { port, cut, open }
    }

    /// As if the API server had died.
    pub(crate) fn cut(&self) {
        self.cut.store(true, Ordering::SeqCst);
        for stream in self.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    pub(crate) fn mend(&self) {
        self.cut.store(false, Ordering::SeqCst);
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream) {
    std::thread::spawn(move || {
        let mut buffer = [0; 16 << 10];
        while let Ok(bytes) = from.read(&mut buffer) {
            if bytes == 0 || to.write_all(&buffer[..bytes]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
    });
}
