//! Secrets and ConfigMaps that a Function refers to.

use isolet_crds::FunctionStatus;
use isolet_crds::bundle::SecretValues;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::ResourceExt as _;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::harness::{World, code, create, eventually, is, message, status, uid};

fn with_secret() -> Value {
    let reference = json!({"secretKeyRef": {"name": "credentials", "key": "token"}});
    json!({"source": {"inline": code("x")}, "env": [{"name": "TOKEN", "valueFrom": reference}]})
}

/// What the command in the condition does.
pub(crate) async fn grant(world: &World) {
    create::<RoleBinding>(
        world.in_tenant(),
        json!({
            "metadata": {"name": "isolet-refs"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "isolet-function-refs"},
            "subjects": [{"kind": "ServiceAccount", "name": "isolet-operator", "namespace": world.system}],
        }),
    )
    .await;
}

fn value(secret: &Secret) -> Option<String> {
    let bytes = &secret.data.as_ref()?.get("bundle")?.0;
    SecretValues::decode(bytes)
        .expect("secret values")
        .values
        .get("TOKEN")
        .cloned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_asked_for_found_and_followed() {
    let world = World::new().await;
    let _pod = world.pod(1).await;
    let _operator = world.operator();
    world.apply("hello", with_secret()).await;
    let not_permitted =
        |status: &FunctionStatus| is(status, "ResolvedRefs", "False", "RefNotPermitted");
    let function = world.until("not permitted", "hello", not_permitted).await;
    let command = format!(
        "kubectl create rolebinding isolet-refs -n {} --clusterrole=isolet-function-refs --serviceaccount={}:isolet-operator",
        world.tenant, world.system
    );
    assert!(
        message(&function, "Ready").contains(&command),
        "{}",
        message(&function, "Ready")
    );
    assert!(is(status(&function), "Accepted", "Unknown", "Pending"));
    assert!(is(
        status(&function),
        "Reconciling",
        "True",
        "RefNotPermitted"
    ));

    grant(&world).await;
    let not_found = |status: &FunctionStatus| is(status, "ResolvedRefs", "False", "RefNotFound");
    let function = world.until("not found", "hello", not_found).await;
    let told = message(&function, "ResolvedRefs");
    assert!(
        told.contains("spec.env[0] TOKEN valueFrom.secretKeyRef"),
        "{told}"
    );
    assert!(
        told.contains(&format!("no Secret {}/credentials", world.tenant)),
        "{told}"
    );

    let secret = json!({"metadata": {"name": "credentials"}, "stringData": {"other": "x"}});
    create::<Secret>(world.in_tenant(), secret).await;
    let no_key = |status: &FunctionStatus| {
        status
            .conditions
            .iter()
            .any(|c| c.type_ == "ResolvedRefs" && c.message.contains("has no key token"))
    };
    world.until("told of the key", "hello", no_key).await;

    let set = async |text: &str| {
        let patch = json!({"stringData": {"token": text}});
        let secrets = world.in_tenant::<Secret>();
        secrets
            .patch(
                "credentials",
                &PatchParams::default(),
                &Patch::Merge(&patch),
            )
            .await
            .expect("patches");
    };
    set("first-value").await;
    let function = world.until_ready("hello").await;
    let uid = uid(&function);
    let first = status(&function).revision.clone();
    let secrets = world.secrets(&uid).await;
    assert_eq!(secrets.len(), 1);
    assert_eq!(
        secrets[0].name_any(),
        format!(
            "fn-{}-{}-env",
            &uid[..8],
            first.clone().expect("a revision")
        )
    );
    assert_eq!(value(&secrets[0]).as_deref(), Some("first-value"));
    for object in world.config_maps(&uid).await {
        let text = format!("{object:?}");
        assert!(
            !text.contains("first-value"),
            "a ConfigMap holds the secret"
        );
    }

    set("second-value").await;
    let moved = move |status: &FunctionStatus| {
        status.revision != first && is(status, "Ready", "True", "Ready")
    };
    world.until("at a new revision", "hello", moved).await;
    eventually("the new value", || async {
        world
            .secrets(&uid)
            .await
            .iter()
            .filter_map(value)
            .any(|value| value == "second-value")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn code_and_values_come_from_config_maps() {
    let world = World::new().await;
    let pod = world.pod(1).await;
    let _operator = world.operator();
    grant(&world).await;
    let reference = |name: &str, optional: bool| json!({"configMapKeyRef": {"name": name, "key": "k", "optional": optional}});
    world
        .apply(
            "hello",
            json!({
                "source": {"configMapRef": {"name": "code"}},
                "env": [
                    {"name": "A", "valueFrom": reference("values", false)},
                    {"name": "B", "valueFrom": reference("nowhere", true)},
                ],
            }),
        )
        .await;
    let not_found = |status: &FunctionStatus| is(status, "ResolvedRefs", "False", "RefNotFound");
    let function = world.until("not found", "hello", not_found).await;
    assert!(
        message(&function, "Ready").contains("spec.source.configMapRef"),
        "{}",
        message(&function, "Ready")
    );
    let values = json!({"metadata": {"name": "values"}, "data": {"k": "v"}});
    create::<ConfigMap>(world.in_tenant(), values).await;
    let sources =
        json!({"metadata": {"name": "code"}, "data": {"main.ts": code("from a ConfigMap")}});
    create::<ConfigMap>(world.in_tenant(), sources).await;
    let function = world.until_ready("hello").await;
    assert!(
        pod.main_of(&uid(&function))
            .expect("serves")
            .1
            .contains("from a ConfigMap")
    );

    let change = json!({"data": {"main.ts": code("changed")}});
    let config_maps = world.in_tenant::<ConfigMap>();
    config_maps
        .patch("code", &PatchParams::default(), &Patch::Merge(&change))
        .await
        .expect("patches");
    eventually("the changed code", || async {
        pod.main_of(&uid(&function))
            .is_some_and(|(_, main)| main.contains("changed"))
    })
    .await;
}
