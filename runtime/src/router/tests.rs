//! Tables of hosts and paths.

use super::*;

fn identity(namespace: &str, name: &str, uid: &str) -> FunctionIdentity {
    FunctionIdentity {
        namespace: namespace.into(),
        name: name.into(),
        uid: uid.into(),
    }
}

fn route(host: &str, path: &str) -> Route {
    Route {
        host: host.into(),
        path: path.into(),
    }
}

fn router() -> Router<&'static str> {
    let mut router = Router::new(Some("fn.example.com"), "cluster.local");
    router.insert(&identity("default", "hello", "1"), &[], "hello");
    router.insert(&identity("team", "a.b", "2"), &[], "dotted");
    router.insert(
        &identity("default", "api", "3"),
        &[route("api.example.com", "/v1"), route("*.example.com", "/")],
        "api",
    );
    router.insert(
        &identity("default", "deep", "4"),
        &[route("api.example.com", "/v1/users/")],
        "deep",
    );
    router
}

fn found(router: &Router<&'static str>, host: &str, path: &str) -> Option<(&'static str, String)> {
    router
        .find(host, path)
        .map(|found| (*found.target, found.path.to_owned()))
}

#[test]
fn hosts_and_paths_find_their_function() {
    let router = router();
    for (host, path, expected) in [
        ("hello.default", "/x", Some(("hello", "/x"))),
        ("hello.default:8080", "/", Some(("hello", "/"))),
        ("HELLO.Default.", "/", Some(("hello", "/"))),
        ("hello.default.svc", "/", Some(("hello", "/"))),
        ("hello.default.svc.cluster.local", "/", Some(("hello", "/"))),
        (
            "hello.default.svc.cluster.local.:80",
            "/",
            Some(("hello", "/")),
        ),
        ("hello.default.fn.example.com", "/", Some(("hello", "/"))),
        ("a.b.team", "/", Some(("dotted", "/"))),
        ("hello.other", "/", None),
        ("hello", "/", None),
        ("hello.default.svc.other", "/", None),
        ("10.0.0.1", "/fn/default/hello", Some(("hello", ""))),
        ("10.0.0.1", "/fn/default/hello/", Some(("hello", "/"))),
        ("[::1]:80", "/fn/default/hello/a/b", Some(("hello", "/a/b"))),
        ("", "/fn/team/a.b/x", Some(("dotted", "/x"))),
        ("x", "/fn/default/hello2", None),
        ("x", "/fn/default", None),
        ("x", "/FN/default/hello", None),
        ("api.example.com", "/v1", Some(("api", "/v1"))),
        ("api.example.com", "/v1/x", Some(("api", "/v1/x"))),
        ("api.example.com", "/v1/users", Some(("deep", "/v1/users"))),
        (
            "api.example.com",
            "/v1/users/7",
            Some(("deep", "/v1/users/7")),
        ),
        ("api.example.com", "/v1/usersx", Some(("api", "/v1/usersx"))),
        // No exact route has this path: the wildcard does.
        ("api.example.com", "/v10", Some(("api", "/v10"))),
        ("www.example.com:443", "/", Some(("api", "/"))),
        ("a.www.example.com", "/", None),
        ("example.com", "/", None),
    ] {
        assert_eq!(
            found(&router, host, path),
            expected.map(|(name, path)| (name, path.to_owned())),
            "{host} {path}"
        );
    }
}

#[test]
fn a_name_belongs_to_the_function_that_came_last() {
    let mut router = router();
    router.insert(&identity("default", "hello", "9"), &[], "newer");
    assert_eq!(
        found(&router, "hello.default", "/").map(|f| f.0),
        Some("newer")
    );
    router.remove("1");
    assert_eq!(
        found(&router, "hello.default", "/").map(|f| f.0),
        Some("newer")
    );
    router.remove("9");
    assert_eq!(found(&router, "hello.default", "/"), None);
}

#[test]
fn a_route_belongs_to_the_function_that_came_first() {
    let mut router = router();
    router.insert(
        &identity("default", "late", "8"),
        &[route("api.example.com", "/v1")],
        "late",
    );
    assert_eq!(
        found(&router, "api.example.com", "/v1").map(|f| f.0),
        Some("api")
    );
    router.remove("3");
    assert_eq!(
        found(&router, "api.example.com", "/v1").map(|f| f.0),
        Some("late")
    );
}

#[test]
fn inserting_again_replaces_routes() {
    let mut router = router();
    router.insert(
        &identity("default", "deep", "4"),
        &[route("deep.example.org", "/")],
        "deep2",
    );
    assert_eq!(
        found(&router, "api.example.com", "/v1/users").map(|f| f.0),
        Some("api")
    );
    assert_eq!(
        found(&router, "deep.example.org", "/x").map(|f| f.0),
        Some("deep2")
    );
}

#[test]
fn a_function_that_was_removed_leaves_nothing() {
    let mut router = router();
    // Twice on one host, and moved to another name.
    let twice = [
        route("api.example.com", "/v1"),
        route("api.example.com", "/v2"),
    ];
    router.insert(&identity("default", "api", "3"), &twice, "api");
    router.insert(&identity("other", "hello2", "1"), &[], "hello2");
    assert_eq!(found(&router, "hello.default", "/"), None);
    for uid in ["1", "2", "3", "4", "never"] {
        router.remove(uid);
    }
    assert!(router.names.is_empty() && router.routes.is_empty() && router.places.is_empty());
}
