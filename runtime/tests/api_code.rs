//! Compiled code, kept by a real agent from one worker to the next.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "common/cluster.rs"]
mod cluster;
mod common;

use std::path::{Path, PathBuf};

use cluster::{Agent, Cluster, Published};
use sha2::{Digest, Sha256};

const MADE: &str = "isolet_agent_code_caches_made_total";
const FAILED: &str = "isolet_agent_code_caches_failed_total";
const DROPPED: &str = "isolet_agent_code_caches_dropped_total";
const BYTES: &str = "isolet_agent_code_cache_bytes";
const ACCEPTED: &str = "isolet_code_cache_modules_total{outcome=\"accepted\"}";
const REFUSED: &str = "isolet_code_cache_modules_total{outcome=\"refused\"}";
const NAMES: [&str; 6] = [
    "flipped", "foreign", "halved", "emptied", "other-v8", "whole",
];

/// More than 4 KiB of code that answers `body`.
fn large(body: &str) -> String {
    let parts: String = (0..200)
        .map(|index| format!("function part{index}(value) {{ return value + {index}; }}\n"))
        .collect();
    format!("{parts}export default {{ fetch() {{ return new Response(part7('{body} ')) }} }}")
}

fn published<'a>(name: &'a str, code: &'a str) -> Published<'a> {
    Published {
        name,
        code,
        secret: None,
    }
}

fn file(cache: &Path, name: &str) -> PathBuf {
    cache.join(format!("00000000-{name}.code"))
}

fn files(cache: &Path) -> usize {
    let entries = std::fs::read_dir(cache).unwrap().flatten();
    let is_code = |name: &str| name.ends_with(".code");
    entries
        .filter(|entry| is_code(&entry.file_name().to_string_lossy()))
        .count()
}

/// All functions have started, and what there is to make of them is made.
fn all_answer(agent: &Agent, made: u64) {
    for name in NAMES {
        agent.until_body(name, &format!("{name} 7"));
    }
    agent.until_metric(MADE, made);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_worker_starts_with_the_code_that_was_kept_and_does_without_what_is_spoilt() {
    let cluster = Cluster::new().await;
    let (proxy, folder) = (cluster.proxy(), tempfile::tempdir().unwrap());
    let cache = folder.path();
    let sources = NAMES.map(large);
    for (name, source) in NAMES.iter().zip(&sources) {
        cluster.publish(&published(name, source), 1, 1 << 20).await;
    }
    let agent = cluster.agent(&proxy, cache);
    all_answer(&agent, 6);
    assert_eq!(files(cache), 6);

    agent.replace_worker();
    all_answer(&agent, 6);
    agent.until_metric(ACCEPTED, 6);
    assert_eq!(agent.metric(REFUSED), 0);

    // Spoilt in five ways: each function answers and is compiled anew, the sixth goes on with its code.
    let read = |name| std::fs::read(file(cache, name)).unwrap();
    let spoil = |name, bytes: &[u8]| std::fs::write(file(cache, name), bytes).unwrap();
    let mut flipped = read("flipped");
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    spoil("flipped", &flipped);
    spoil("foreign", &read("whole"));
    spoil("halved", &read("halved")[..100]);
    spoil("emptied", &[]);
    spoil("other-v8", &of_another_v8(read("other-v8")));
    agent.replace_worker();
    all_answer(&agent, 11);
    assert_eq!(agent.metric(DROPPED), 5);
    assert_eq!(agent.metric(REFUSED), 1, "of another V8");
    assert_eq!(agent.metric(ACCEPTED), 1);
    agent.replace_worker();
    all_answer(&agent, 11);
    agent.until_metric(ACCEPTED, 6);
    assert_eq!(agent.metric(FAILED), 0);
}

/// The file with another version tag and a checksum that fits: the agent cannot know better, the worker does.
fn of_another_v8(mut whole: Vec<u8>) -> Vec<u8> {
    const REST_AT: usize = 8 + 32;
    let length: [u8; 4] = whole[REST_AT..][..4].try_into().unwrap();
    let tag_at = REST_AT + 4 + u32::from_le_bytes(length) as usize;
    whole[tag_at] ^= 1;
    let sum = Sha256::digest(&whole[REST_AT..]);
    whole[8..REST_AT].copy_from_slice(&sum);
    whole
}

#[tokio::test(flavor = "multi_thread")]
async fn code_outlasts_the_agent_and_goes_with_its_revision() {
    let cluster = Cluster::new().await;
    let (proxy, folder) = (cluster.proxy(), tempfile::tempdir().unwrap());
    let cache = folder.path();
    let (one, two) = (large("one"), large("two"));
    let tiny = "export default { fetch() { return new Response('tiny') } }";
    cluster.publish(&published("hello", &one), 1, 1 << 20).await;
    cluster.publish(&published("tiny", tiny), 1, 1 << 20).await;
    let unused = large("nobody asks for it");
    cluster
        .publish(&published("unused", &unused), 1, 1 << 20)
        .await;
    let mut agent = cluster.agent(&proxy, cache);
    agent.until_body("tiny", "tiny");
    agent.until_body("hello", "one 7");
    agent.until_metric(MADE, 1);
    assert_eq!(files(cache), 1);
    let bytes = file(cache, "hello").metadata().unwrap().len();
    assert_eq!(agent.metric(BYTES), bytes);
    agent.signal("-TERM");
    assert!(agent.child.wait().unwrap().success());
    drop(agent);

    let mut agent = cluster.agent(&proxy, cache);
    agent.until_body("hello", "one 7");
    agent.until("the code to be used", |agent| agent.metric(ACCEPTED) > 0);
    assert_eq!((agent.metric(MADE), agent.metric(REFUSED)), (0, 0));
    agent.signal("-TERM");
    assert!(agent.child.wait().unwrap().success());
    drop(agent);

    // Another seed, as of another build: another snapshot, which this code does not fit.
    std::fs::write(cache.join("seed"), [7; 8]).unwrap();
    let agent = cluster.agent(&proxy, cache);
    agent.until_body("hello", "one 7");
    agent.until_metric(MADE, 1);
    assert_eq!((agent.metric(DROPPED), agent.metric(REFUSED)), (1, 0));

    // The next revision of a function in use is compiled without being asked for.
    cluster.publish(&published("hello", &two), 2, 1 << 20).await;
    agent.until_metric(MADE, 2);
    agent.until_body("hello", "two 7");
    assert_eq!(files(cache), 1);
    agent.replace_worker();
    agent.until_body("hello", "two 7");
    agent.until_metric(ACCEPTED, 1);
    for code in [&one, &two] {
        cluster.remove(&published("hello", code)).await;
    }
    agent.until("the end of the code", |_| files(cache) == 0);
    agent.until_metric(BYTES, 0);
}
