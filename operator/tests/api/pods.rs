//! A runtime pod where there is no kubelet: the Pod object of a ready one, and at its address (127.0.0.N) a server that
//! watches the bundle objects as an agent does, decodes what is complete, and answers the agent's endpoint over real HTTP.
//! Code with the text `REFUSE ME` in it does not load, as code that V8 refuses would not.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt as _, pin_mut};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use isolet_crds::bundle::{Bundle, Digest};
use isolet_crds::labels;
use isolet_crds::report::{FunctionReport, FunctionsReport, Refused, Serving};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, ResourceExt as _};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::harness::{World, create};

pub(crate) struct RuntimePod {
    pods: Api<Pod>,
    name: String,
    state: Arc<State>,
    _tasks: [AbortOnDropHandle<()>; 2],
}

struct State {
    epoch: String,
    /// Bundle objects by UID and name.
    objects: Mutex<BTreeMap<String, BTreeMap<String, ConfigMap>>>,
    /// Number of changes so far, and the report of each UID with the number at which it changed.
    reports: watch::Sender<Reports>,
    quarantined: Mutex<Vec<String>>,
}

#[derive(Clone, Default)]
struct Reports {
    listed: bool,
    now: u64,
    functions: BTreeMap<String, (u64, FunctionReport, BTreeMap<String, String>)>,
    removed: BTreeMap<String, u64>,
}

impl RuntimePod {
    pub(crate) async fn start(world: &World, number: u8) -> Self {
        let address = Ipv4Addr::new(127, 0, 0, number);
        let listener = TcpListener::bind((address, world.port))
            .await
            .expect("binds");
        let state = Arc::new(State {
            epoch: format!("e{}", k8s_openapi::jiff::Timestamp::now().as_nanosecond()),
            objects: Mutex::default(),
            reports: watch::Sender::new(Reports::default()),
            quarantined: Mutex::default(),
        });
        let tasks = [
            AbortOnDropHandle::new(tokio::spawn(follow(world.in_system(), state.clone()))),
            AbortOnDropHandle::new(tokio::spawn(serve(listener, state.clone()))),
        ];
        let pods: Api<Pod> = world.in_system();
        let name = format!("isolet-runtime-{number}");
        let labels =
            json!({"app.kubernetes.io/name": "isolet", "app.kubernetes.io/component": "runtime"});
        create::<Pod>(
            pods.clone(),
            json!({"metadata": {"name": name, "labels": labels}, "spec": {"containers": [{"name": "isolet", "image": "none"}]}}),
        )
        .await;
        let pod = Self {
            pods,
            name,
            state,
            _tasks: tasks,
        };
        pod.status(address, true).await;
        pod
    }

    async fn status(&self, address: Ipv4Addr, ready: bool) {
        let status = json!({"status": {
            "phase": "Running", "podIP": address, "podIPs": [{"ip": address}],
            "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}],
        }});
        self.pods
            .patch_status(&self.name, &PatchParams::default(), &Patch::Merge(&status))
            .await
            .expect("sets the status");
    }

    /// The revision of each UID, and the text of its main module, as this pod serves it.
    pub(crate) fn main_of(&self, uid: &str) -> Option<(String, String)> {
        let reports = self.state.reports.borrow();
        let (_, report, mains) = reports.functions.get(uid)?;
        let revision = &report.serving.as_ref()?.revision;
        Some((revision.clone(), mains.get(revision)?.clone()))
    }

    /// Says that it does not run the Function any more.
    pub(crate) fn quarantine(&self, uid: &str) {
        self.state
            .quarantined
            .lock()
            .expect("whole")
            .push(uid.into());
        self.state.refresh(Some(uid));
    }

    pub(crate) async fn delete(self) {
        let now = DeleteParams {
            grace_period_seconds: Some(0),
            ..DeleteParams::default()
        };
        self.pods.delete(&self.name, &now).await.expect("deletes");
    }
}

impl State {
    /// Works out anew what is served of one UID, or of all, and numbers the change.
    fn refresh(&self, only: Option<&str>) {
        let objects = self.objects.lock().expect("whole");
        let quarantined = self.quarantined.lock().expect("whole");
        self.reports.send_modify(|reports| {
            reports.listed = true;
            reports.now += 1;
            let now = reports.now;
            let uids: BTreeSet<String> = match only {
                Some(uid) => BTreeSet::from([uid.to_owned()]),
                None => objects
                    .keys()
                    .chain(reports.functions.keys())
                    .cloned()
                    .collect(),
            };
            for uid in uids {
                let Some(objects) = objects.get(&uid).filter(|objects| !objects.is_empty()) else {
                    if reports.functions.remove(&uid).is_some() {
                        reports.removed.insert(uid, now);
                    }
                    continue;
                };
                let before = reports.functions.get(&uid);
                let (mut report, mains) = load(&uid, objects, before.map(|(_, report, _)| report));
                report.quarantined = quarantined.contains(&uid);
                if before.is_none_or(|(_, before, _)| *before != report) {
                    reports.removed.remove(&uid);
                    reports.functions.insert(uid, (now, report, mains));
                }
            }
        });
    }

    fn put(&self, object: ConfigMap) -> String {
        let uid = object.labels()[labels::FUNCTION_UID].clone();
        let mut objects = self.objects.lock().expect("whole");
        objects
            .entry(uid.clone())
            .or_default()
            .insert(object.name_any(), object);
        uid
    }
}

/// The complete revision with the highest sequence, or the one before it where that is refused.
fn load(
    uid: &str,
    objects: &BTreeMap<String, ConfigMap>,
    before: Option<&FunctionReport>,
) -> (FunctionReport, BTreeMap<String, String>) {
    let mut revisions: BTreeMap<&str, Vec<&ConfigMap>> = BTreeMap::new();
    for object in objects.values() {
        revisions
            .entry(&object.labels()[labels::REVISION])
            .or_default()
            .push(object);
    }
    let number =
        |object: &ConfigMap, key: &str| object.annotations()[key].parse::<u64>().expect("a number");
    let mut complete: Vec<(u64, &str, Bundle)> = Vec::new();
    for (revision, mut chunks) in revisions {
        chunks.sort_by_key(|chunk| number(chunk, labels::CHUNK));
        if chunks.len() as u64 != number(chunks[0], labels::CHUNKS) {
            continue;
        }
        let bytes: Vec<u8> = chunks
            .iter()
            .flat_map(|chunk| {
                chunk.binary_data.as_ref().expect("data")[labels::DATA_KEY]
                    .0
                    .clone()
            })
            .collect();
        let digest = Digest::parse(&chunks[0].annotations()[labels::DIGEST]).expect("a digest");
        let bundle = Bundle::decode(&bytes, Some(&digest)).expect("a sound bundle");
        assert_eq!(bundle.manifest.function.uid, uid);
        let sequence = chunks
            .iter()
            .map(|chunk| number(chunk, labels::SEQUENCE))
            .max();
        complete.push((sequence.expect("a chunk"), revision, bundle));
    }
    complete.sort_by_key(|(sequence, ..)| std::cmp::Reverse(*sequence));
    let main = |bundle: &Bundle| {
        let found = bundle
            .modules()
            .find(|(module, _)| module.path == bundle.manifest.main);
        String::from_utf8(found.expect("main").1.to_vec()).expect("text")
    };
    let mains = complete
        .iter()
        .map(|(_, revision, bundle)| ((*revision).to_owned(), main(bundle)))
        .collect();
    let mut report = FunctionReport {
        uid: uid.to_owned(),
        serving: before.and_then(|before| before.serving.clone()),
        ..FunctionReport::default()
    };
    if let Some((_, revision, bundle)) = complete.first() {
        if main(bundle).contains("REFUSE ME") {
            report.refused = Some(Refused {
                revision: (*revision).to_owned(),
                message: "the module throws when it is evaluated: ReferenceError: x is not defined"
                    .into(),
                file: Some("main.ts".into()),
                line: Some(1),
                column: Some(7),
            });
        } else {
            report.serving = Some(Serving {
                revision: (*revision).to_owned(),
            });
        }
    }
    (report, mains)
}

async fn follow(api: Api<ConfigMap>, state: Arc<State>) {
    let config = watcher::Config::default().labels(&labels::bundle_selector());
    let events = watcher(api, config).default_backoff();
    pin_mut!(events);
    while let Some(event) = events.next().await {
        match event.expect("watches") {
            watcher::Event::Init => state.objects.lock().expect("whole").clear(),
            watcher::Event::InitApply(object) => drop(state.put(object)),
            watcher::Event::InitDone => state.refresh(None),
            watcher::Event::Apply(object) => {
                let uid = state.put(object);
                state.refresh(Some(&uid));
            }
            watcher::Event::Delete(object) => {
                let uid = &object.labels()[labels::FUNCTION_UID];
                if let Some(objects) = state.objects.lock().expect("whole").get_mut(uid) {
                    objects.remove(&object.name_any());
                }
                state.refresh(Some(uid));
            }
        }
    }
}

async fn serve(listener: TcpListener, state: Arc<State>) {
    loop {
        let (socket, _) = listener.accept().await.expect("accepts");
        let state = state.clone();
        tokio::spawn(async move {
            let service = service_fn(|request| answer(request, state.clone()));
            let _ = http1::Builder::new()
                .serve_connection(TokioIo::new(socket), service)
                .await;
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    state: Arc<State>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let reply = |status: StatusCode, body: String| {
        let mut response = Response::new(Full::new(Bytes::from(body)));
        *response.status_mut() = status;
        Ok(response)
    };
    if request
        .headers()
        .get("authorization")
        .is_none_or(|value| value != "Bearer operator-token")
    {
        return reply(
            StatusCode::UNAUTHORIZED,
            r#"{"error":{"reason":"Unauthorized","message":"no token"}}"#.into(),
        );
    }
    let query = request.uri().query().unwrap_or_default();
    let parameter = |name: &str| {
        url::form_urlencoded::parse(query.as_bytes())
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.into_owned())
    };
    let hold = parameter("timeoutSeconds")
        .and_then(|text| text.parse().ok())
        .unwrap_or(0);
    let since = parameter("since").and_then(|cursor| {
        let (epoch, number) = cursor.rsplit_once('.')?;
        (epoch == state.epoch).then(|| number.parse::<u64>().ok())?
    });
    let mut reports = state.reports.subscribe();
    let news =
        reports.wait_for(|reports| reports.listed && since.is_none_or(|since| reports.now > since));
    let _ = tokio::time::timeout(Duration::from_secs(hold), news).await;
    let reports = state.reports.borrow().clone();
    let new = |number: &u64| since.is_none_or(|since| *number > since);
    let report = FunctionsReport {
        cursor: format!("{}.{}", state.epoch, reports.now),
        full: since.is_none(),
        functions: reports
            .functions
            .values()
            .filter(|(n, ..)| new(n))
            .map(|(_, report, _)| report.clone())
            .collect(),
        removed: reports
            .removed
            .iter()
            .filter(|(_, n)| since.is_some() && new(n))
            .map(|(uid, _)| uid.clone())
            .collect(),
    };
    reply(
        StatusCode::OK,
        serde_json::to_string(&report).expect("JSON"),
    )
}
