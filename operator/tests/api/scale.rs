//! Many Functions at once.

use std::time::{Duration, Instant};

use futures::{StreamExt as _, stream};
use isolet_crds::Function;
use kube::ResourceExt as _;
use kube::api::{DeleteParams, ListParams};

use crate::harness::{World, eventually, hello, is, uid};

const FUNCTIONS: usize = 500;
const GOAL: Duration = Duration::from_secs(25);

async fn apply_all(world: &World) {
    stream::iter(0..FUNCTIONS)
        .for_each_concurrent(16, |number| async move {
            let name = format!("f{number}");
            world.apply(&name, hello(&format!("I am {name}."))).await;
        })
        .await;
}

async fn ready(world: &World) -> Vec<Function> {
    let functions = world.functions().list(&ListParams::default()).await.expect("lists").items;
    let ready = |function: &Function| {
        function.status.as_ref().is_some_and(|status| {
            is(status, "Ready", "True", "Ready") && status.nodes.as_ref().is_some_and(|nodes| nodes.summary == "2/2")
        })
    };
    functions.into_iter().filter(ready).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_functions_become_ready_also_when_the_operator_is_killed() {
    let world = World::new().await;
    let (one, two) = (world.pod(1).await, world.pod(2).await);

    let operator = world.operator();
    let start = Instant::now();
    apply_all(&world).await;
    let applied = start.elapsed();
    eventually("all to be ready", || async { ready(&world).await.len() == FUNCTIONS }).await;
    let took = start.elapsed();
    println!("{FUNCTIONS} Functions: applied in {applied:?}, ready in {took:?}");
    assert!(took < GOAL, "{took:?}");
    for function in ready(&world).await {
        for pod in [&one, &two] {
            let (_, main) = pod.main_of(&uid(&function)).expect("serves");
            assert!(main.contains(&format!("I am {}.", function.name_any())), "mixed up: {main}");
        }
    }

    // All again, new, and this time the operator dies with a part done.
    operator.kill().await;
    let all = DeleteParams::default();
    world.functions().delete_collection(&all, &ListParams::default()).await.expect("deletes");
    let operator = world.operator();
    let killing = async {
        eventually("a part to be ready", || async { ready(&world).await.len() > FUNCTIONS / 10 }).await;
        operator.kill().await;
    };
    tokio::join!(apply_all(&world), killing);
    let done = ready(&world).await.len();
    println!("killed with {done} of {FUNCTIONS} ready");
    let start = Instant::now();
    let _operator = world.operator();
    eventually("all to be ready", || async { ready(&world).await.len() == FUNCTIONS }).await;
    println!("the next operator made all ready in {:?}", start.elapsed());
    let bundles = world.in_system::<k8s_openapi::api::core::v1::ConfigMap>();
    eventually("one bundle for each Function, the old ones swept", || async {
        let selector = ListParams::default().labels("isolet.dev/bundle");
        bundles.list_metadata(&selector).await.expect("lists").items.len() == FUNCTIONS
    })
    .await;
}
