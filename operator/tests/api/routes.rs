//! Routes: who may claim a host, and who holds it.

use isolet_crds::FunctionStatus;
use kube::api::DeleteParams;
use serde_json::{Value, json};

use crate::harness::{World, code, eventually, is, message, status};

fn with_route(text: &str, host: &str) -> Value {
    json!({"source": {"inline": code(text)}, "routes": [{"host": host, "path": "/v1"}]})
}

fn conflicts(status: &FunctionStatus) -> bool {
    is(status, "Accepted", "False", "RouteConflict")
}

fn forbidden(status: &FunctionStatus) -> bool {
    is(status, "Accepted", "False", "HostNotAllowed")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_older_function_keeps_a_route_until_it_lets_go() {
    let world = World::new().await;
    let _pod = world.pod(1).await;
    std::fs::write(
        world.files.path().join("hosts"),
        r#"{"*": ["*.example.com"]}"#,
    )
    .expect("writes");
    let _operator = world.operator();
    world
        .apply("old", with_route("old", "api.example.com"))
        .await;
    world.until_ready("old").await;
    // Creation times have whole seconds: make it anew until it is the younger one.
    let created = |function: &isolet_crds::Function| function.metadata.creation_timestamp.clone();
    let old = created(&world.functions().get("old").await.expect("exists"));
    eventually("a younger Function", || async {
        let new = world
            .apply("new", with_route("new", "api.example.com"))
            .await;
        let younger = created(&new) > old;
        if !younger {
            world
                .functions()
                .delete("new", &DeleteParams::default())
                .await
                .expect("deletes");
        }
        younger
    })
    .await;
    let loser = world.until("in conflict", "new", conflicts).await;
    let holder = format!("held by Function {}/old", world.tenant);
    assert!(
        message(&loser, "Ready").contains(&holder),
        "{}",
        message(&loser, "Ready")
    );
    assert!(is(status(&loser), "Ready", "False", "RouteConflict"));

    world
        .apply("old", with_route("old", "other.example.com"))
        .await;
    world.until_ready("new").await;
    world
        .apply("old", with_route("old", "api.example.com"))
        .await;
    world.until_ready("old").await;
    world.until("in conflict", "new", conflicts).await;
    world
        .functions()
        .delete("old", &DeleteParams::default())
        .await
        .expect("deletes");
    world.until_ready("new").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_follow_the_platforms_file() {
    let world = World::new().await;
    let _pod = world.pod(1).await;
    let hosts = world.files.path().join("hosts");
    std::fs::write(&hosts, "{}").expect("writes");
    let _operator = world.operator();
    world
        .apply("shop", with_route("shop", "shop.example.com"))
        .await;
    let function = world.until("forbidden", "shop", forbidden).await;
    let told = message(&function, "Ready");
    assert!(
        told.contains("may not claim host shop.example.com") && told.contains("allowedHosts"),
        "{told}"
    );
    let policy = json!({world.tenant.as_str(): ["shop.example.com"]});
    std::fs::write(&hosts, policy.to_string()).expect("writes");
    world.until_ready("shop").await;
    std::fs::write(&hosts, "{}").expect("writes");
    world.until("forbidden again", "shop", forbidden).await;
}
