//! `isolet agent`, a real process, against a real API server.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "common/cluster.rs"]
mod cluster;
mod common;

use std::time::{Duration, Instant};

use cluster::{Agent, Cluster, Published};
use isolet_crds::labels;
use isolet_crds::report::{FunctionReport, FunctionsReport};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::core::ObjectMeta;

const ONE: &str = "export default { fetch() { return new Response('one') } }";
const TWO: &str = "export default { fetch() { return new Response('two') } }";
/// It parses, but its module cannot be linked, so that only the worker finds out.
const BROKEN: &str = "import { missing } from './main.ts';\nexport default { fetch() { return new Response(missing) } }";

fn published<'a>(name: &'a str, code: &'a str) -> Published<'a> {
    Published {
        name,
        code,
        secret: None,
    }
}

fn report(agent: &Agent, token: &str, query: &str) -> FunctionsReport {
    let answer = agent
        .own(&format!("/v1/functions?{query}"), Some(token))
        .unwrap();
    assert_eq!(answer.status, 200, "{}", answer.body);
    serde_json::from_str(&answer.body).unwrap()
}

fn of(report: &FunctionsReport, name: &str) -> FunctionReport {
    let uid = format!("00000000-{name}");
    report
        .functions
        .iter()
        .find(|function| function.uid == uid)
        .unwrap()
        .clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn bundles_are_served_updated_reverted_and_removed() {
    let cluster = Cluster::new().await;
    let (proxy, cache) = (cluster.proxy(), tempfile::tempdir().unwrap());
    let secret = Published {
        name: "with-secret",
        code: "export default { fetch(request, env) { return new Response(env.TOKEN) } }",
        secret: Some("s3cret"),
    };
    let one = cluster.publish(&published("hello", ONE), 1, 1 << 20).await;
    cluster.publish(&secret, 1, 60).await;
    let agent = cluster.agent(&proxy, cache.path());
    agent.until("readiness", |agent| {
        agent
            .own("/readyz", None)
            .is_some_and(|answer| answer.status == 200)
    });
    assert_eq!(
        agent.function("hello").unwrap().body,
        "one",
        "ready means served"
    );
    assert_eq!(
        agent.function("with-secret").unwrap().body,
        "s3cret",
        "several chunks and a Secret"
    );
    assert_eq!(agent.own("/healthz", None).unwrap().status, 200);

    let token = cluster.token("operator", "isolet").await;
    let all = report(&agent, &token, "");
    assert!(all.full);
    assert_eq!(of(&all, "hello").serving.unwrap().revision, one);

    let published_at = Instant::now();
    let two = cluster.publish(&published("hello", TWO), 2, 1 << 20).await;
    let news = report(
        &agent,
        &token,
        &format!("since={}&timeoutSeconds=60", all.cursor),
    );
    assert!(
        published_at.elapsed() < Duration::from_secs(60),
        "a long poll ends with the news"
    );
    assert!(!news.full);
    assert_eq!(of(&news, "hello").serving.unwrap().revision, two);
    assert_eq!(agent.function("hello").unwrap().body, "two");

    let broken = cluster
        .publish(&published("hello", BROKEN), 3, 1 << 20)
        .await;
    let news = report(
        &agent,
        &token,
        &format!("since={}&timeoutSeconds=30", news.cursor),
    );
    let hello = of(&news, "hello");
    let refused = hello.refused.unwrap();
    assert_eq!(refused.revision, broken);
    assert!(refused.message.contains("missing"), "{}", refused.message);
    assert_eq!(
        hello.serving.unwrap().revision,
        two,
        "the one before goes on"
    );
    assert_eq!(agent.function("hello").unwrap().body, "two");

    cluster.raise(&published("hello", ONE), 4).await;
    agent.until_body("hello", "one");

    for code in [ONE, TWO, BROKEN] {
        cluster.remove(&published("hello", code)).await;
    }
    agent.until("the removal", |agent| {
        agent.function("hello").unwrap().status == 404
    });
    agent.until("the report of it", |agent| {
        report(agent, &token, &format!("since={}", news.cursor)).removed == ["00000000-hello"]
    });
    let metrics = agent.own("/metrics", None).unwrap().body;
    assert!(
        metrics.contains("isolet_agent_refused_revisions_total 1"),
        "{metrics}"
    );
    assert!(
        metrics.contains("isolet_requests_total"),
        "the worker's metrics are there too: {metrics}"
    );
    assert!(metrics.ends_with("# EOF\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_operator_reads_reports() {
    let cluster = Cluster::new().await;
    let (proxy, cache) = (cluster.proxy(), tempfile::tempdir().unwrap());
    let agent = cluster.agent(&proxy, cache.path());
    let operator = cluster.token("operator", "isolet").await;
    let stranger = cluster.token("stranger", "isolet").await;
    let wrong_audience = cluster
        .token("operator", "https://kubernetes.default.svc")
        .await;
    for (token, status, reason) in [
        (None, 401, "Unauthorized"),
        (Some("nonsense"), 401, "Unauthorized"),
        (Some(wrong_audience.as_str()), 401, "Unauthorized"),
        (Some(stranger.as_str()), 403, "Forbidden"),
        (Some(operator.as_str()), 200, ""),
    ] {
        let answer = agent.own("/v1/functions", token).unwrap();
        assert_eq!(answer.status, status, "{}", answer.body);
        let body: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
        if status != 200 {
            assert_eq!(body["error"]["reason"], reason);
            assert!(body["error"]["message"].as_str().unwrap().len() > 10);
        }
    }
    // What was reviewed is remembered: the API server may be away for a while. What was not is no longer known.
    proxy.cut();
    assert_eq!(
        agent.own("/v1/functions", Some(&operator)).unwrap().status,
        200
    );
    assert_eq!(
        agent.own("/v1/functions", Some("another")).unwrap().status,
        503
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_with_the_api_server_down_serves_from_the_cache_and_catches_up_after() {
    let cluster = Cluster::new().await;
    let (proxy, cache) = (cluster.proxy(), tempfile::tempdir().unwrap());
    let secret = Published {
        name: "keeper",
        code: "export default { fetch(request, env) { return new Response(env.TOKEN) } }",
        secret: Some("kept"),
    };
    cluster.publish(&secret, 1, 1 << 20).await;
    cluster.publish(&published("hello", ONE), 1, 1 << 20).await;
    cluster.publish(&published("goes", ONE), 1, 1 << 20).await;
    let mut agent = cluster.agent(&proxy, cache.path());
    for (name, body) in [("keeper", "kept"), ("hello", "one"), ("goes", "one")] {
        agent.until_body(name, body);
    }
    proxy.cut();
    assert_eq!(
        agent.function("hello").unwrap().body,
        "one",
        "a lost API server changes nothing"
    );
    agent.signal("-TERM");
    assert!(agent.child.wait().unwrap().success());
    drop(agent);

    let agent = cluster.agent(&proxy, cache.path());
    for (name, body) in [("keeper", "kept"), ("hello", "one"), ("goes", "one")] {
        agent.until_body(name, body);
    }
    agent.until("readiness", |agent| {
        agent
            .own("/readyz", None)
            .is_some_and(|answer| answer.status == 200)
    });

    cluster.publish(&published("hello", TWO), 2, 1 << 20).await;
    cluster.remove(&published("goes", ONE)).await;
    proxy.mend();
    agent.until_body("hello", "two");
    agent.until("the removal", |agent| {
        agent.function("goes").unwrap().status == 404
    });
    assert_eq!(agent.function("keeper").unwrap().body, "kept");
    agent.until("the cache to follow", |_| {
        std::fs::read_dir(cache.path())
            .unwrap()
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().ends_with(".bundle"))
            .count()
            == 2
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn without_api_server_and_cache_the_agent_lives_but_is_not_ready() {
    let cluster = Cluster::new().await;
    let (proxy, cache) = (cluster.proxy(), tempfile::tempdir().unwrap());
    cluster.publish(&published("hello", ONE), 1, 1 << 20).await;
    proxy.cut();
    let agent = cluster.agent(&proxy, cache.path());
    agent.output.wait_for("nothing to serve so far");
    assert_eq!(agent.own("/healthz", None).unwrap().status, 200);
    assert_eq!(agent.own("/readyz", None).unwrap().status, 503);
    proxy.mend();
    agent.until_body("hello", "one");
    agent.until("readiness", |agent| {
        agent
            .own("/readyz", None)
            .is_some_and(|answer| answer.status == 200)
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_objects_are_reported_and_harm_nobody() {
    let cluster = Cluster::new().await;
    let (proxy, cache) = (cluster.proxy(), tempfile::tempdir().unwrap());
    let label = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    cluster
        .create(ConfigMap {
            metadata: ObjectMeta {
                name: Some("fn-odd".into()),
                labels: Some(
                    [
                        label(labels::BUNDLE, labels::BUNDLE_FORMAT),
                        label(labels::FUNCTION_UID, "00000000-odd"),
                        label(labels::REVISION, "0123456789ab"),
                    ]
                    .into(),
                ),
                ..Default::default()
            },
            ..Default::default()
        })
        .await;
    cluster.publish(&published("hello", ONE), 1, 1 << 20).await;
    let agent = cluster.agent(&proxy, cache.path());
    agent.until_body("hello", "one");
    let token = cluster.token("operator", "isolet").await;
    let refused = of(&report(&agent, &token, ""), "odd").refused.unwrap();
    assert_eq!(refused.revision, "0123456789ab");
    assert!(
        refused
            .message
            .contains("ConfigMap fn-odd carries no readable bundle"),
        "{}",
        refused.message
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_ends_readiness_and_lets_requests_finish() {
    let cluster = Cluster::new().await;
    let (proxy, cache) = (cluster.proxy(), tempfile::tempdir().unwrap());
    let slow = "export default { async fetch() { console.log('begun'); await new Promise(done => setTimeout(done, 1000)); return new Response('finished') } }";
    cluster.publish(&published("slow", slow), 1, 1 << 20).await;
    let mut agent = cluster.agent(&proxy, cache.path());
    agent.until("readiness", |agent| {
        agent
            .own("/readyz", None)
            .is_some_and(|answer| answer.status == 200)
    });
    let port = agent.http;
    let request = std::thread::spawn(move || common::get(port, "/fn/tenant/slow/"));
    agent.output.wait_for("begun");
    agent.signal("-TERM");
    agent.until("unreadiness", |agent| {
        agent
            .own("/readyz", None)
            .is_none_or(|answer| answer.status == 503)
    });
    assert_eq!(request.join().unwrap().unwrap().body, "finished");
    assert!(agent.child.wait().unwrap().success());
}
