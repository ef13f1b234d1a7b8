//! A Function from apply to delete.

use isolet_crds::{FunctionStatus, labels};
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::events::v1::Event;
use kube::api::{DeleteParams, ListParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;

use crate::harness::{World, code, create, eventually, hello, is, message, sequence, status, uid};

#[tokio::test(flavor = "multi_thread")]
async fn applied_function_becomes_ready_on_every_pod() {
    let world = World::new().await;
    let (one, two) = (world.pod(1).await, world.pod(2).await);
    let _operator = world.operator();
    world.apply("hello", hello("first")).await;
    let function = world.until_ready("hello").await;

    let status = status(&function);
    let revision = status.revision.clone().expect("a revision");
    assert_eq!(status.nodes.as_ref().expect("nodes").summary, "2/2");
    let tenant = &world.tenant;
    assert_eq!(
        status.url,
        Some(format!("http://hello.{tenant}.isolet.local"))
    );
    let address = format!(
        "http://isolet.{}.svc.cluster.local/fn/{tenant}/hello/",
        world.system
    );
    assert_eq!(status.address.as_ref().expect("an address").url, address);
    for kind in ["Accepted", "ResolvedRefs", "Programmed", "Ready"] {
        let condition = status
            .conditions
            .iter()
            .find(|c| c.type_ == kind)
            .expect(kind);
        assert_eq!(
            (condition.status.as_str(), condition.observed_generation),
            ("True", Some(1)),
            "{kind}"
        );
    }
    assert!(
        !status
            .conditions
            .iter()
            .any(|c| c.type_ == "Reconciling" || c.type_ == "Stalled")
    );

    let uid = uid(&function);
    let objects = world.config_maps(&uid).await;
    assert_eq!(objects.len(), 1);
    let object = &objects[0];
    assert_eq!(object.name_any(), format!("fn-{}-{revision}", &uid[..8]));
    assert_eq!(object.immutable, Some(true));
    assert_eq!(object.labels()[labels::FUNCTION_NAMESPACE], *tenant);
    assert_eq!(object.labels()[labels::FUNCTION_NAME], "hello");
    assert_eq!(
        status.size,
        Some(object.binary_data.as_ref().expect("data")["bundle"].0.len() as i64)
    );
    for pod in [&one, &two] {
        let (served, main) = pod.main_of(&uid).expect("serves");
        assert_eq!(served, revision);
        assert!(
            main.contains("first") && !main.contains(": Response"),
            "{main}"
        );
    }

    let events: Api<Event> = world.in_tenant();
    eventually("an Event", || async {
        let events = events
            .list(&ListParams::default())
            .await
            .expect("lists")
            .items;
        events.iter().any(|event| {
            event.reason.as_deref() == Some("Programmed")
                && event
                    .note
                    .as_deref()
                    .is_some_and(|note| note.contains(&revision))
        })
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn updates_swap_and_a_revert_ranks_the_old_revision_highest_again() {
    let world = World::new().await;
    let pod = world.pod(1).await;
    let _operator = world.operator();
    let spec = |text: &str| json!({"source": {"inline": code(text)}, "revisionHistoryLimit": 1});
    world.apply("hello", spec("one")).await;
    let first = world.until_ready("hello").await;
    let uid = uid(&first);
    let (one, _) = pod.main_of(&uid).expect("serves");

    world.apply("hello", spec("two")).await;
    let second = world.until_ready("hello").await;
    let (two, main) = pod.main_of(&uid).expect("serves");
    assert_eq!(status(&second).revision.as_ref(), Some(&two));
    assert!(main.contains("two"), "{main}");

    world.apply("hello", spec("one")).await;
    let third = world.until_ready("hello").await;
    assert_eq!(pod.main_of(&uid).expect("serves").0, one);
    assert_eq!(status(&third).revision.as_ref(), Some(&one));
    let of = |revision: &str, objects: &[ConfigMap]| {
        objects
            .iter()
            .find(|object| object.labels()[labels::REVISION] == revision)
            .map(sequence)
    };
    let objects = world.config_maps(&uid).await;
    assert!(
        of(&one, &objects) > of(&two, &objects),
        "{one} does not rank above {two}"
    );

    for text in ["three", "four"] {
        world.apply("hello", spec(text)).await;
        world.until_ready("hello").await;
    }
    eventually("the current and one old revision", || async {
        world.config_maps(&uid).await.len() == 2
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_code_is_told_with_its_place_and_the_old_goes_on() {
    let world = World::new().await;
    let pod = world.pod(1).await;
    let _operator = world.operator();
    let broken = json!({"source": {"inline": "export default {\n  fetch( { return 1 }\n}\n"}});
    world.apply("hello", broken.clone()).await;
    let rejected = |status: &FunctionStatus| is(status, "Accepted", "False", "SyntaxError");
    let function = world.until("rejected", "hello", rejected).await;
    assert!(
        message(&function, "Accepted").contains("main.ts:2:"),
        "{}",
        message(&function, "Accepted")
    );
    assert!(is(status(&function), "Ready", "False", "SyntaxError"));
    assert!(is(status(&function), "Stalled", "True", "SyntaxError"));
    assert!(world.config_maps(&uid(&function)).await.is_empty());

    world.apply("hello", hello("good")).await;
    let good = world.until_ready("hello").await;
    let revision = status(&good).revision.clone().expect("a revision");

    world.apply("hello", broken).await;
    let function = world.until("rejected", "hello", rejected).await;
    assert_eq!(status(&function).revision.as_ref(), Some(&revision));
    assert_eq!(
        status(&function).nodes.as_ref().expect("nodes").summary,
        "1/1"
    );
    let told = message(&function, "Ready");
    assert!(
        told.ends_with(&format!("revision {revision} goes on serving")),
        "{told}"
    );
    assert_eq!(pod.main_of(&uid(&function)).expect("serves").0, revision);

    let refused = json!({"source": {"inline": "/* REFUSE ME */ export default { fetch() {} }"}});
    world.apply("hello", refused).await;
    let function = world
        .until("refused", "hello", |status| {
            is(status, "Programmed", "False", "LoadFailed")
        })
        .await;
    let told = message(&function, "Ready");
    assert!(told.contains("main.ts:1:7: the module throws"), "{told}");
    assert!(told.contains("1 of 1 runtime pods refused"), "{told}");
    assert!(
        told.ends_with(&format!("revision {revision} goes on serving")),
        "{told}"
    );
    assert_eq!(pod.main_of(&uid(&function)).expect("serves").0, revision);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_function_leaves_nothing() {
    let world = World::new().await;
    let pod = world.pod(1).await;
    let _operator = world.operator();
    world.apply("hello", hello("x")).await;
    world.apply("stays", hello("x")).await;
    let function = world.until_ready("hello").await;
    let other = world.until_ready("stays").await;
    assert!(function.finalizers().is_empty());
    world
        .functions()
        .delete("hello", &DeleteParams::default())
        .await
        .expect("deletes");
    world.until_swept(&uid(&function)).await;
    eventually("the pod to forget it", || async {
        pod.main_of(&uid(&function)).is_none()
    })
    .await;
    assert_eq!(world.config_maps(&uid(&other)).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_that_come_and_go_are_counted() {
    let world = World::new().await;
    let _operator = world.operator();
    world.apply("hello", hello("x")).await;
    let waits = |status: &FunctionStatus| is(status, "Ready", "False", "NoRuntime");
    let function = world.until("without a runtime", "hello", waits).await;
    assert!(is(status(&function), "Reconciling", "True", "NoRuntime"));
    let one = world.pod(1).await;
    world.until_ready("hello").await;
    let two = world.pod(2).await;
    let nodes = |wanted: &'static str| {
        move |status: &FunctionStatus| {
            status
                .nodes
                .as_ref()
                .is_some_and(|nodes| nodes.summary == wanted)
                && is(status, "Ready", "True", "Ready")
        }
    };
    world.until("served by two", "hello", nodes("2/2")).await;
    one.delete().await;
    world.until("served by one", "hello", nodes("1/1")).await;
    two.quarantine(&uid(&function));
    let quarantined = |status: &FunctionStatus| is(status, "Ready", "False", "Quarantined");
    world.until("quarantined", "hello", quarantined).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_code_is_split_over_several_objects() {
    let world = World::new().await;
    let pod = world.pod(1).await;
    let _operator = world.operator();
    let modules = |parts: usize| {
        let mut modules = serde_json::Map::from_iter([("main.ts".to_owned(), json!(code("big")))]);
        for part in 0..parts {
            modules.insert(
                format!("noise{part}.txt"),
                json!(noise(300 << 10, part as u64 + 1)),
            );
        }
        json!({"source": {"modules": modules}})
    };
    world.apply("big", modules(4)).await;
    let function = world.until_ready("big").await;
    assert_eq!(world.config_maps(&uid(&function)).await.len(), 2);
    assert!(
        pod.main_of(&uid(&function))
            .expect("serves")
            .1
            .contains("big")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_too_large_is_refused_with_its_size() {
    let world = World::new().await;
    let _operator = world.operator();
    crate::references::grant(&world).await;
    let mut env = Vec::new();
    for part in 0..15 {
        let mut data = serde_json::Map::new();
        for key in 0..14 {
            data.insert(
                format!("v{key}"),
                json!(noise(64_000, part * 100 + key + 1)),
            );
            let from = json!({"configMapKeyRef": {"name": format!("large-{part}"), "key": format!("v{key}")}});
            env.push(json!({"name": format!("V{part}_{key}"), "valueFrom": from}));
        }
        let object = json!({"metadata": {"name": format!("large-{part}")}, "data": data});
        create::<ConfigMap>(world.in_tenant(), object).await;
    }
    world
        .apply(
            "large",
            json!({"source": {"inline": code("x")}, "env": env}),
        )
        .await;
    let refused = |status: &FunctionStatus| is(status, "Accepted", "False", "BundleTooLarge");
    let function = world.until("refused", "large", refused).await;
    let told = message(&function, "Ready");
    assert!(
        told.contains("8388608") && told.contains("make the code smaller"),
        "{told}"
    );
    assert!(world.config_maps(&uid(&function)).await.is_empty());
}

/// Text that does not compress.
fn noise(bytes: usize, mut seed: u64) -> String {
    let mut text = String::with_capacity(bytes);
    while text.len() < bytes {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        text.push(char::from(b' ' + (seed >> 57) as u8 % 95));
    }
    text
}
