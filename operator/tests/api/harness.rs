//! A namespace for the system and one for a tenant, operators to start and kill in them, and conditions to wait for.

use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;

use clap::Parser as _;
use isolet_crds::{Function, FunctionStatus};
use isolet_operator::config::Config;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::NamespaceResourceScope;
use kube::runtime::wait::{await_condition, conditions};
use kube::{Api, Client, CustomResourceExt as _, Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::{Mutex, MutexGuard, oneshot};
use tokio::task::JoinHandle;
use tracing_subscriber::EnvFilter;

use crate::pods::RuntimePod;

/// Longest wait for a condition.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// An operator sees every Function of the API server, so worlds come one after the other.
static ONE_WORLD: Mutex<()> = Mutex::const_new(());

pub(crate) struct World {
    pub(crate) admin: Client,
    pub(crate) system: String,
    pub(crate) tenant: String,
    pub(crate) files: tempfile::TempDir,
    pub(crate) port: u16,
    operator_config: kube::Config,
    _alone: MutexGuard<'static, ()>,
}

/// A running operator; dropped, it is killed without a chance to clean up.
pub(crate) struct Operator {
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<(), isolet_operator::RunError>>,
}

impl Drop for Operator {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Operator {
    /// Ends it as SIGTERM does.
    pub(crate) async fn stop(mut self) {
        self.stop.take().expect("runs").send(()).expect("listens");
        within("the operator's end", &mut self.task)
            .await
            .expect("no panic")
            .expect("no error");
    }

    /// Kills it and waits until nothing of it runs.
    pub(crate) async fn kill(mut self) {
        self.task.abort();
        (&mut self.task).await.expect_err("was cancelled");
    }
}

fn admin_config() -> impl Future<Output = kube::Config> {
    let path = std::env::var("ISOLET_TEST_KUBECONFIG").unwrap_or_else(|_| {
        panic!("set ISOLET_TEST_KUBECONFIG to a kubeconfig of a test API server: tests/cluster/cluster api DIR starts one")
    });
    let config = Kubeconfig::read_from(&path)
        .unwrap_or_else(|error| panic!("ISOLET_TEST_KUBECONFIG={path}: {error}"));
    async {
        kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default())
            .await
            .expect("a kubeconfig")
    }
}

impl World {
    pub(crate) async fn new() -> Self {
        let alone = ONE_WORLD.lock().await;
        let _ = tracing_subscriber::fmt()
            .with_env_filter(EnvFilter::from_default_env())
            .try_init();
        let config = admin_config().await;
        let admin = Client::try_from(config.clone()).expect("a client");
        install_crd(&admin).await;
        remove_functions(&admin).await;
        let system = namespace(&admin, "isolet-system-").await;
        let tenant = namespace(&admin, "tenant-").await;
        let operator_config = restricted(&admin, &config, &system).await;
        let files = tempfile::tempdir().expect("a folder");
        std::fs::write(files.path().join("token"), "operator-token\n").expect("writes");
        Self {
            admin,
            system,
            tenant,
            files,
            port: free_port(),
            operator_config,
            _alone: alone,
        }
    }

    /// An operator without election.
    pub(crate) fn operator(&self) -> Operator {
        self.operator_with(&["--no-leader-election"])
    }

    pub(crate) fn operator_with(&self, flags: &[&str]) -> Operator {
        let file = |name: &str| self.files.path().join(name).display().to_string();
        let port = self.port.to_string();
        let (token, hosts) = (file("token"), file("hosts"));
        let mut args = vec![
            "isolet-operator",
            "--system-namespace",
            &self.system,
            "--token-file",
            &token,
            "--agent-port",
            &port,
            "--metrics-addr",
            "127.0.0.1:0",
            "--reference-refresh-seconds",
            "1",
        ];
        if std::path::Path::new(&hosts).exists() {
            args.extend(["--allowed-hosts-file", &hosts]);
        }
        args.extend(flags);
        let config = Config::try_parse_from(args).expect("flags");
        let client = Client::try_from(self.operator_config.clone()).expect("a client");
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped = async {
            if stopped.await.is_err() {
                std::future::pending().await
            }
        };
        Operator {
            stop: Some(stop),
            task: tokio::spawn(isolet_operator::run(config, client, stopped)),
        }
    }

    pub(crate) async fn pod(&self, number: u8) -> RuntimePod {
        RuntimePod::start(self, number).await
    }

    pub(crate) fn functions(&self) -> Api<Function> {
        Api::namespaced(self.admin.clone(), &self.tenant)
    }

    pub(crate) fn in_tenant<K: Resource<DynamicType = (), Scope = NamespaceResourceScope>>(
        &self,
    ) -> Api<K> {
        Api::namespaced(self.admin.clone(), &self.tenant)
    }

    pub(crate) fn in_system<K: Resource<DynamicType = (), Scope = NamespaceResourceScope>>(
        &self,
    ) -> Api<K> {
        Api::namespaced(self.admin.clone(), &self.system)
    }

    /// `kubectl apply` of a Function with that spec.
    pub(crate) async fn apply(&self, name: &str, spec: Value) -> Function {
        self.apply_in(&self.tenant, name, spec).await
    }

    pub(crate) async fn apply_in(&self, namespace: &str, name: &str, spec: Value) -> Function {
        let object = json!({
            "apiVersion": "isolet.dev/v1alpha1", "kind": "Function",
            "metadata": {"name": name}, "spec": spec,
        });
        Api::<Function>::namespaced(self.admin.clone(), namespace)
            .patch(
                name,
                &PatchParams::apply("kubectl").force(),
                &Patch::Apply(&object),
            )
            .await
            .expect("applies")
    }

    /// Waits until the Function's status, for its newest generation, is as wanted.
    pub(crate) async fn until(
        &self,
        what: &str,
        name: &str,
        wanted: impl Fn(&FunctionStatus) -> bool + Clone,
    ) -> Function {
        let function = self.functions().get(name).await.expect("exists");
        let generation = function.metadata.generation;
        let wanted = move |function: Option<&Function>| {
            function
                .and_then(|function| function.status.as_ref())
                .is_some_and(|status| status.observed_generation >= generation && wanted(status))
        };
        let waiting = await_condition(self.functions(), name, wanted);
        match tokio::time::timeout(PATIENCE, waiting).await {
            Ok(found) => found.expect("watches").expect("exists"),
            Err(_) => {
                let now = self.functions().get(name).await.expect("exists");
                panic!(
                    "{name} never became {what}; its status is {:#?}",
                    now.status
                );
            }
        }
    }

    pub(crate) async fn until_ready(&self, name: &str) -> Function {
        self.until("ready", name, |status| is(status, "Ready", "True", "Ready"))
            .await
    }

    /// Bundle ConfigMaps of a UID, by name.
    pub(crate) async fn config_maps(&self, uid: &str) -> Vec<ConfigMap> {
        self.list(uid).await
    }

    /// Bundle Secrets of a UID, by name.
    pub(crate) async fn secrets(&self, uid: &str) -> Vec<Secret> {
        self.list(uid).await
    }

    async fn list<K>(&self, uid: &str) -> Vec<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + DeserializeOwned
            + Debug,
    {
        let selector = format!("isolet.dev/function-uid={uid}");
        let api: Api<K> = self.in_system();
        api.list(&ListParams::default().labels(&selector))
            .await
            .expect("lists")
            .items
    }

    /// Waits until no bundle object of the UID is left.
    pub(crate) async fn until_swept(&self, uid: &str) {
        eventually("no bundle object", || async {
            self.config_maps(uid).await.is_empty() && self.secrets(uid).await.is_empty()
        })
        .await;
    }
}

/// Whether a condition has that status and reason.
pub(crate) fn is(status: &FunctionStatus, kind: &str, value: &str, reason: &str) -> bool {
    status
        .conditions
        .iter()
        .any(|c| c.type_ == kind && c.status == value && c.reason == reason)
}

pub(crate) fn message(function: &Function, kind: &str) -> String {
    let status = function.status.as_ref().expect("a status");
    let condition = status
        .conditions
        .iter()
        .find(|condition| condition.type_ == kind);
    condition
        .unwrap_or_else(|| panic!("no {kind}"))
        .message
        .clone()
}

pub(crate) fn status(function: &Function) -> &FunctionStatus {
    function.status.as_ref().expect("a status")
}

pub(crate) fn uid(function: &Function) -> String {
    function.uid().expect("a UID")
}

pub(crate) fn sequence(object: &impl Resource) -> u64 {
    object.annotations()["isolet.dev/sequence"]
        .parse()
        .expect("a number")
}

/// A Function's code that answers a text.
pub(crate) fn hello(text: &str) -> Value {
    json!({"source": {"inline": code(text)}})
}

pub(crate) fn code(text: &str) -> String {
    format!("export default {{ fetch(): Response {{ return new Response({text:?}); }} }};\n")
}

/// Asks until the answer is yes.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut ask: impl FnMut() -> F) {
    let asking = async {
        let mut pause = tokio::time::interval(Duration::from_millis(20));
        while !ask().await {
            pause.tick().await;
        }
    };
    within(what, asking).await;
}

pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

async fn install_crd(admin: &Client) {
    let api: Api<CustomResourceDefinition> = Api::all(admin.clone());
    let crd = Function::crd();
    let params = PatchParams::apply("isolet-tests").force();
    api.patch(&crd.name_any(), &params, &Patch::Apply(&crd))
        .await
        .expect("installs the CRD");
    let established = await_condition(
        api,
        "functions.isolet.dev",
        conditions::is_crd_established(),
    );
    within("the CRD", established).await.expect("watches");
}

/// What an earlier test left.
async fn remove_functions(admin: &Client) {
    let all: Api<Function> = Api::all(admin.clone());
    eventually("an API server without Functions", || async {
        let functions = all
            .list_metadata(&ListParams::default())
            .await
            .expect("lists")
            .items;
        for function in &functions {
            let api: Api<Function> =
                Api::namespaced(admin.clone(), &function.namespace().expect("a namespace"));
            let _ = api
                .delete(&function.name_any(), &DeleteParams::default())
                .await;
        }
        functions.is_empty()
    })
    .await;
}

pub(crate) async fn namespace(admin: &Client, prefix: &str) -> String {
    let api: Api<Namespace> = Api::all(admin.clone());
    let mut namespace = Namespace::default();
    namespace.metadata.generate_name = Some(prefix.into());
    let name = api
        .create(&PostParams::default(), &namespace)
        .await
        .expect("creates")
        .name_any();
    // Pods need it.
    let accounts: Api<ServiceAccount> = Api::namespaced(admin.clone(), &name);
    eventually("the default ServiceAccount", || async {
        accounts.get_opt("default").await.expect("reads").is_some()
    })
    .await;
    name
}

/// A ServiceAccount with the rules of RBAC.md and nothing else.
async fn restricted(admin: &Client, config: &kube::Config, system: &str) -> kube::Config {
    let text = include_str!("../../RBAC.md");
    let yaml = text
        .split("```yaml\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next())
        .expect("a YAML block");
    let yaml = yaml.replace("isolet-system", system);
    for document in yaml.split("---\n") {
        if document.contains("kind: ClusterRole\n") {
            put::<ClusterRole>(Api::all(admin.clone()), document).await;
        } else {
            put::<Role>(Api::namespaced(admin.clone(), system), document).await;
        }
    }
    let subject =
        json!([{"kind": "ServiceAccount", "name": "isolet-operator", "namespace": system}]);
    let reference = |kind: &str| json!({"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": "isolet-operator"});
    let binding = |name: &str, kind: &str| json!({"metadata": {"name": name}, "subjects": subject, "roleRef": reference(kind)});
    create::<RoleBinding>(
        Api::namespaced(admin.clone(), system),
        binding("isolet-operator", "Role"),
    )
    .await;
    create::<ClusterRoleBinding>(Api::all(admin.clone()), binding(system, "ClusterRole")).await;
    let accounts: Api<ServiceAccount> = Api::namespaced(admin.clone(), system);
    create::<ServiceAccount>(
        accounts.clone(),
        json!({"metadata": {"name": "isolet-operator"}}),
    )
    .await;
    let request = TokenRequest {
        spec: Some(TokenRequestSpec::default()),
        ..TokenRequest::default()
    };
    let token = accounts
        .create_token_request("isolet-operator", &PostParams::default(), &request)
        .await
        .expect("a token");
    let mut restricted = kube::Config::new(config.cluster_url.clone());
    restricted.root_cert.clone_from(&config.root_cert);
    restricted.auth_info.token = token.status.and_then(|status| status.token).map(Into::into);
    restricted
}

async fn put<K>(api: Api<K>, yaml: &str)
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Serialize + Debug,
{
    let object: Value = serde_saphyr::from_str(yaml).expect("YAML");
    let name = object["metadata"]["name"]
        .as_str()
        .expect("a name")
        .to_owned();
    let params = PatchParams::apply("isolet-tests").force();
    api.patch(&name, &params, &Patch::Apply(&object))
        .await
        .expect("applies");
}

pub(crate) async fn create<K>(api: Api<K>, object: Value) -> K
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Serialize + Debug,
{
    let object: K = serde_json::from_value(object).expect("an object");
    api.create(&PostParams::default(), &object)
        .await
        .expect("creates")
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
    listener.local_addr().expect("an address").port()
}
