//! Operators that are away, doubled or killed, and objects that nobody can read.

use isolet_crds::FunctionStatus;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::api::events::v1::Event;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::core::DynamicObject;
use kube::discovery::ApiResource;
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};

use crate::harness::{World, create, eventually, hello, is, namespace, status, uid};

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_deleted_while_no_operator_runs_is_swept_later() {
    let world = World::new().await;
    let _pod = world.pod(1).await;
    let operator = world.operator();
    world.apply("kept", hello("x")).await;
    let kept = world.until_ready("kept").await;
    let doomed = namespace(&world.admin, "doomed-").await;
    let function = world.apply_in(&doomed, "gone", hello("x")).await;
    let uid = uid(&function);
    eventually("a bundle", || async {
        !world.config_maps(&uid).await.is_empty()
    })
    .await;
    operator.stop().await;

    let namespaces: Api<Namespace> = Api::all(world.admin.clone());
    namespaces
        .delete(&doomed, &DeleteParams::default())
        .await
        .expect("deletes");
    eventually("the namespace to end", || async {
        namespaces.get_opt(&doomed).await.expect("reads").is_none()
    })
    .await;
    assert!(
        !world.config_maps(&uid).await.is_empty(),
        "nobody was there to sweep"
    );
    let _operator = world.operator();
    world.until_swept(&uid).await;
    assert_eq!(
        world.config_maps(&crate::harness::uid(&kept)).await.len(),
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn two_operators_at_once_come_to_one_state_and_rest() {
    let world = World::new().await;
    let pod = world.pod(1).await;
    let _both = [world.operator(), world.operator()];
    let mut uids = Vec::new();
    for number in 0..20 {
        let name = format!("f{number}");
        world.apply(&name, hello("first")).await;
        uids.push(uid(&world.apply(&name, hello(&name)).await));
    }
    for (number, uid) in uids.iter().enumerate() {
        let function = world.until_ready(&format!("f{number}")).await;
        let (revision, main) = pod.main_of(uid).expect("serves");
        assert_eq!(status(&function).revision.as_ref(), Some(&revision));
        assert!(main.contains(&format!("\"f{number}\"")), "{main}");
    }
    // Nobody writes any more: several answers in a row with the same versions.
    let versions = || async {
        let functions = world
            .functions()
            .list(&ListParams::default())
            .await
            .expect("lists");
        let bundles = world
            .in_system::<ConfigMap>()
            .list(&ListParams::default())
            .await
            .expect("lists");
        let of = |meta: &kube::core::ObjectMeta| meta.resource_version.clone();
        let functions = functions.iter().map(|f| of(&f.metadata));
        functions
            .chain(bundles.iter().map(|b| of(&b.metadata)))
            .collect::<Vec<_>>()
    };
    let seen = std::sync::Mutex::new((Vec::new(), 0));
    eventually("rest", || async {
        let now = versions().await;
        let mut seen = seen.lock().expect("whole");
        let times = if seen.0 == now { seen.1 + 1 } else { 0 };
        *seen = (now, times);
        times == 20
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lease_goes_on_at_once_after_a_stop() {
    let world = World::new().await;
    let _pod = world.pod(1).await;
    let first = world.operator_with(&["--identity", "first"]);
    let leases = world.in_system::<k8s_openapi::api::coordination::v1::Lease>();
    let holder = |wanted: &'static str| {
        let leases = leases.clone();
        move || {
            let leases = leases.clone();
            async move {
                let lease = leases.get_opt("isolet-operator").await.expect("reads");
                lease
                    .and_then(|lease| lease.spec?.holder_identity)
                    .as_deref()
                    == Some(wanted)
            }
        }
    };
    eventually("the first to lead", holder("first")).await;
    let _second = world.operator_with(&["--identity", "second"]);
    world.apply("hello", hello("one")).await;
    world.until_ready("hello").await;
    first.stop().await;
    eventually("the second to lead", holder("second")).await;
    world.apply("hello", hello("two")).await;
    world.until_ready("hello").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_cannot_be_decoded_stops_nobody() {
    let world = World::new().await;
    let _pod = world.pod(1).await;
    world.apply("odd", hello("odd")).await;
    // The schema's date-time takes any character before a fraction; a parser of timestamps does not.
    let odd = json!({"status": {"conditions": [{
        "type": "Ready", "status": "True", "reason": "X", "message": "", "lastTransitionTime": "2026-01-01T00:00:00x5Z",
    }]}});
    let resource = ApiResource::erase::<isolet_crds::Function>(&());
    let raw: Api<DynamicObject> =
        Api::namespaced_with(world.admin.clone(), &world.tenant, &resource);
    raw.patch_status("odd", &PatchParams::default(), &Patch::Merge(&odd))
        .await
        .expect("the schema takes it");
    world
        .functions()
        .get("odd")
        .await
        .expect_err("no client decodes it");

    let _operator = world.operator();
    world.apply("fine", hello("fine")).await;
    eventually("the other to be ready", || async {
        let fine: FunctionStatus = raw_status(&raw, "fine").await;
        is(&fine, "Ready", "True", "Ready")
    })
    .await;
    let events: Api<Event> = world.in_tenant();
    eventually("an Event on the odd one", || async {
        let events = events
            .list(&ListParams::default())
            .await
            .expect("lists")
            .items;
        events.iter().any(|event| {
            event.reason.as_deref() == Some("Undecodable")
                && event
                    .regarding
                    .as_ref()
                    .and_then(|object| object.name.as_deref())
                    == Some("odd")
        })
    })
    .await;
}

async fn raw_status(raw: &Api<DynamicObject>, name: &str) -> FunctionStatus {
    let object = raw.get(name).await.expect("reads");
    serde_json::from_value(
        object
            .data
            .get("status")
            .cloned()
            .unwrap_or_else(|| json!({})),
    )
    .expect("a status")
}

fn daemon_set() -> Value {
    let labels = json!({"app": "isolet-runtime-owner"});
    json!({
        "metadata": {"name": "isolet-runtime"},
        "spec": {"selector": {"matchLabels": labels}, "template": {
            "metadata": {"labels": labels},
            "spec": {"containers": [{"name": "c", "image": "none"}]},
        }},
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn bundles_go_with_the_runtime_daemon_set() {
    let world = World::new().await;
    let _pod = world.pod(1).await;
    let daemon_sets = world.in_system::<DaemonSet>();
    let owner = create::<DaemonSet>(daemon_sets.clone(), daemon_set()).await;
    let operator = world.operator_with(&[
        "--no-leader-election",
        "--runtime-daemonset",
        "isolet-runtime",
    ]);
    world.apply("hello", hello("x")).await;
    let function = world.until_ready("hello").await;
    let owned_by = |owner: &DaemonSet, objects: &[ConfigMap]| {
        !objects.is_empty()
            && objects.iter().all(|object| {
                object
                    .owner_references()
                    .iter()
                    .map(|o| Some(o.uid.clone()))
                    .eq([owner.metadata.uid.clone()])
            })
    };
    assert!(owned_by(&owner, &world.config_maps(&uid(&function)).await));

    // A new DaemonSet of the same name becomes the owner.
    daemon_sets
        .delete("isolet-runtime", &DeleteParams::default())
        .await
        .expect("deletes");
    eventually("the DaemonSet to go", || async {
        daemon_sets
            .get_opt("isolet-runtime")
            .await
            .expect("reads")
            .is_none()
    })
    .await;
    let owner = create::<DaemonSet>(daemon_sets.clone(), daemon_set()).await;
    eventually("the new owner", || async {
        owned_by(&owner, &world.config_maps(&uid(&function)).await)
    })
    .await;

    // Uninstall: the operator goes, then the DaemonSet, and the garbage collector takes the bundles.
    operator.stop().await;
    daemon_sets
        .delete("isolet-runtime", &DeleteParams::default())
        .await
        .expect("deletes");
    world.until_swept(&uid(&function)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_refuses_the_operator_is_named_until_it_answers() {
    let world = World::new().await;
    let _pod = world.pod(1).await;
    let token = world.files.path().join("token");
    std::fs::write(&token, "of somebody else").expect("writes");
    let _operator = world.operator();
    world.apply("hello", hello("x")).await;
    let silent = |status: &FunctionStatus| {
        is(status, "Programmed", "False", "Programming")
            && status.conditions.iter().any(|c| {
                c.message
                    .contains("isolet-runtime-1 does not answer the operator")
            })
    };
    world.until("without an answer", "hello", silent).await;
    std::fs::write(&token, "operator-token").expect("writes");
    world.until_ready("hello").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_deleted_by_hand_comes_back() {
    let world = World::new().await;
    let pod = world.pod(1).await;
    let _operator = world.operator();
    world.apply("hello", hello("x")).await;
    let uid = uid(&world.until_ready("hello").await);
    let before = world.config_maps(&uid).await.remove(0);
    let config_maps = world.in_system::<ConfigMap>();
    config_maps
        .delete(&before.name_any(), &DeleteParams::default())
        .await
        .expect("deletes");
    eventually("the bundle again", || async {
        let now = world.config_maps(&uid).await;
        now.len() == 1 && now[0].uid() != before.uid() && now[0].binary_data == before.binary_data
    })
    .await;
    eventually("the pod to serve it again", || async {
        pod.main_of(&uid).is_some()
    })
    .await;
    world.until_ready("hello").await;
}
