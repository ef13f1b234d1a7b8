//! Many Functions at once.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures::{StreamExt as _, pin_mut, stream};
use isolet_crds::Function;
use kube::ResourceExt as _;
use kube::api::{DeleteParams, ListParams};
use kube::runtime::{WatchStreamExt as _, watcher};

use crate::harness::{World, eventually, hello, is, uid};

const FUNCTIONS: usize = 500;
/// Far more than it takes, for a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(180);

/// Changes of one Function, one after the other: time until the status says that every pod serves it.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_ready_fast() {
    let world = World::new().await;
    let pod = world.pod(1).await;
    let _operator = world.operator();
    world.apply("hello", hello("warm")).await;
    let function = world.until_ready("hello").await;
    let mut times = Vec::new();
    for number in 0..20 {
        let start = Instant::now();
        world
            .apply("hello", hello(&format!("number {number}")))
            .await;
        world.until_ready("hello").await;
        times.push(start.elapsed());
        let (_, main) = pod.main_of(&uid(&function)).expect("serves");
        assert!(main.contains(&format!("number {number}")), "{main}");
    }
    times.sort_unstable();
    println!(
        "apply to Ready: median {:?}, worst {:?}",
        times[10], times[19]
    );
    assert!(times[10] < Duration::from_millis(500), "{times:?}");
}

async fn apply_all(world: &World) {
    stream::iter(0..FUNCTIONS)
        .for_each_concurrent(16, |number| async move {
            let name = format!("f{number}");
            world.apply(&name, hello(&format!("I am {name}."))).await;
        })
        .await;
}

fn is_ready(function: &Function) -> bool {
    function.status.as_ref().is_some_and(|status| {
        is(status, "Ready", "True", "Ready")
            && status
                .nodes
                .as_ref()
                .is_some_and(|nodes| nodes.summary == "2/2")
    })
}

/// Follows the Functions until so many are ready at once.
async fn until_so_many_are_ready(world: &World, wanted: usize) -> BTreeMap<String, Function> {
    let following = async {
        let events = watcher(world.functions(), watcher::Config::default()).default_backoff();
        pin_mut!(events);
        let mut ready = BTreeMap::new();
        while ready.len() < wanted {
            match events.next().await.expect("no end").expect("watches") {
                watcher::Event::Init => ready.clear(),
                watcher::Event::Apply(function) | watcher::Event::InitApply(function) => {
                    if is_ready(&function) {
                        ready.insert(function.name_any(), function);
                    } else {
                        ready.remove(&function.name_any());
                    }
                }
                watcher::Event::Delete(function) => drop(ready.remove(&function.name_any())),
                watcher::Event::InitDone => {}
            }
        }
        ready
    };
    tokio::time::timeout(PATIENCE, following)
        .await
        .expect("enough become ready in time")
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_functions_become_ready_also_when_the_operator_is_killed() {
    let world = World::new().await;
    let (one, two) = (world.pod(1).await, world.pod(2).await);

    let operator = world.operator();
    let start = Instant::now();
    apply_all(&world).await;
    let applied = start.elapsed();
    let functions = until_so_many_are_ready(&world, FUNCTIONS).await;
    println!(
        "{FUNCTIONS} Functions: applied in {applied:?}, ready in {:?}",
        start.elapsed()
    );
    for function in functions.values() {
        for pod in [&one, &two] {
            let (_, main) = pod.main_of(&uid(function)).expect("serves");
            assert!(
                main.contains(&format!("I am {}.", function.name_any())),
                "mixed up: {main}"
            );
        }
    }

    // All again, new, and this time the operator dies with a part done.
    operator.kill().await;
    let all = DeleteParams::default();
    world
        .functions()
        .delete_collection(&all, &ListParams::default())
        .await
        .expect("deletes");
    let operator = world.operator();
    let killing = async {
        let done = until_so_many_are_ready(&world, FUNCTIONS / 10).await.len();
        operator.kill().await;
        println!("killed with {done} of {FUNCTIONS} ready");
    };
    tokio::join!(apply_all(&world), killing);
    let start = Instant::now();
    let _operator = world.operator();
    until_so_many_are_ready(&world, FUNCTIONS).await;
    println!("the next operator made all ready in {:?}", start.elapsed());
    let bundles = world.in_system::<k8s_openapi::api::core::v1::ConfigMap>();
    eventually(
        "one bundle for each Function, the old ones swept",
        || async {
            let selector = ListParams::default().labels("isolet.dev/bundle");
            bundles
                .list_metadata(&selector)
                .await
                .expect("lists")
                .items
                .len()
                == FUNCTIONS
        },
    )
    .await;
}
