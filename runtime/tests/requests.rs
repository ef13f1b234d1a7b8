//! What a request and its answer look like, through the real worker.
#![allow(clippy::unwrap_used)]

mod harness;

use harness::worker;

#[tokio::test]
async fn hello() {
    let worker = worker()
        .function("hello", "export default { fetch() { return new Response('hello') } }")
        .start()
        .await;
    let answer = worker.get("hello", "/").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers["content-type"], "text/plain;charset=UTF-8");
    assert_eq!(answer.text().await, "hello");
}
