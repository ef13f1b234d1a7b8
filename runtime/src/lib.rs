//! The multi-tenant V8 runtime: `isolet agent`, `isolet worker` and `isolet dev`.
//!
//! ```text
//! agent/      holds the Kubernetes token: watches bundles, supervises the worker, reports what is served
//! bundle/     bundles on this node: assembled from chunks, checked, cached on disk
//! control     what agent and worker say to each other
//! dev/        manifest files as the source of bundles, in place of the API
//! egress/     the agent's outbound requests: policy, addresses, TLS
//! isolate/    V8: platform, snapshot, modules, instances; all unsafe code is in its `ffi` module
//! limits/     one file a limit: CPU, wall time, heap, body
//! router/     from host and path to a Function
//! scheduler/  who runs when: instances, their queues, requests under way
//! server/     HTTP/1.1 and h2c for tenants
//! web/        the Web APIs that JavaScript sees
//! worker/     the sandboxed process: boot order, control server, jail
//! ```
//!
//! `web` never imports `router`; nothing outside `isolate` and `web` names `v8`.

pub mod agent;
pub mod bundle;
pub mod cli;
pub mod control;
pub mod dev;
pub mod egress;
pub mod isolate;
pub mod limits;
pub mod router;
pub mod scheduler;
pub mod server;
pub mod web;
pub mod worker;
