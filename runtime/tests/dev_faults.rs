//! `isolet dev`, a real process: outbound requests, and workers that die.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::io::{Read, Write};
use std::net::TcpListener;

use common::{Dev, answers, function, get};

/// A server on loopback that answers each connection with the request's first line.
fn server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = Vec::new();
            let mut buffer = [0; 1024];
            while !request.windows(4).any(|window| window == b"\r\n\r\n") {
                match stream.read(&mut buffer) {
                    Ok(bytes) if bytes > 0 => request.extend_from_slice(&buffer[..bytes]),
                    _ => break,
                }
            }
            let text = String::from_utf8_lossy(&request);
            let line = text.lines().next().unwrap_or_default();
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{line}",
                line.len()
            );
        }
    });
    port
}

#[test]
fn fetch_reaches_what_the_rules_name_and_nothing_else() {
    let port = server();
    let code = "export default { async fetch(request, env) {\n  try {\n    const answer = await fetch(env.TARGET);\n    return new Response(`${answer.status} ${await answer.text()}`);\n  } catch (error) {\n    return new Response(`${error.name}: ${error.message}`);\n  }\n} }";
    let spec = |target: &str, rule: &str| {
        format!(
            "  env: [{{ name: TARGET, value: '{target}' }}]\n  egress: {{ allow: ['{rule}'] }}\n"
        )
    };
    let target = format!("http://localhost:{port}/asked?q=1");
    let dev = Dev::start(&[
        (
            "a.yaml",
            &function("open", &spec(&target, &format!("localhost:{port}")), code),
        ),
        (
            "b.yaml",
            &function("closed", &spec(&target, "example.com"), code),
        ),
        (
            "c.yaml",
            &function(
                "private",
                &spec("http://169.254.169.254/latest/", "169.254.169.254"),
                code,
            ),
        ),
    ]);
    assert_eq!(
        dev.get("/fn/default/open/").body,
        "200 GET /asked?q=1 HTTP/1.1"
    );
    assert_eq!(
        dev.get("/fn/default/closed/").body,
        format!(
            "TypeError: egress to localhost:{port} is not allowed: add \"localhost:{port}\" to spec.egress.allow"
        )
    );
    let private = dev.get("/fn/default/private/").body;
    assert!(
        private.contains("the cloud's metadata service, which the platform's policy denies"),
        "{private}"
    );
    // A rule that is added while it runs opens the way.
    dev.write(
        "b.yaml",
        &function("closed", &spec(&target, &format!("localhost:{port}")), code),
    );
    dev.until("/fn/default/closed/", "the new rule", |answer| {
        answer.body.starts_with("200 ")
    });
}

#[test]
fn a_killed_worker_is_replaced_and_nobody_is_told_404_meanwhile() {
    let files: Vec<_> = (0..100)
        .map(|number| {
            (
                format!("f{number}.yaml"),
                function(
                    &format!("f{number}"),
                    "",
                    &answers(&format!("'answer {number}'")),
                ),
            )
        })
        .collect();
    let files: Vec<_> = files
        .iter()
        .map(|(name, text)| (name.as_str(), text.as_str()))
        .collect();
    let dev = Dev::start(&files);
    for _ in 0..3 {
        assert_eq!(dev.get("/fn/default/f3/").body, "answer 3");
        let killed = dev.kill_worker();
        for number in (0..100).step_by(11) {
            let path = format!("/fn/default/f{number}/");
            let expected = format!("answer {number}");
            dev.until(&path, "the answer", |answer| {
                // A connection that the dead worker had accepted breaks; any answer is the right one.
                assert_eq!((answer.status, &answer.body), (200, &expected));
                true
            });
        }
        assert_ne!(dev.worker(), Some(killed));
    }
}

#[test]
fn two_crashes_with_one_function_running_quarantine_it_and_spare_the_others() {
    // Its own CPU limit gives the test time to kill the worker while it runs.
    let hog = "export default { fetch() { console.log('running'); for (;;) {} } }";
    let limits = "  limits: { cpu: 60s, timeout: 120s }\n";
    let dev = Dev::start(&[
        ("hog.yaml", &function("hog", limits, hog)),
        ("good.yaml", &function("good", "", &answers("'good'"))),
    ]);
    let port = dev.port;
    for crash in 1..=2 {
        let request = std::thread::spawn(move || get(port, "/fn/default/hog/"));
        dev.output.wait("the hog to run", |text| {
            (text.matches("default/hog | running").count() == crash).then_some(())
        });
        dev.kill_worker();
        request.join().unwrap();
        dev.until("/fn/default/good/", "the neighbour", |answer| {
            answer.body == "good"
        });
    }
    dev.output
        .wait_for("default/hog: the worker crashed twice while it ran");
    let hog = dev.until("/fn/default/hog/", "the quarantine", |answer| {
        answer.status != 404
    });
    assert_eq!(hog.status, 503, "{hog:?}");
    dev.write("hog.yaml", &function("hog", limits, &answers("'mended'")));
    dev.until("/fn/default/hog/", "the mended code", |answer| {
        answer.body == "mended"
    });
}
