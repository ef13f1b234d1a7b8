//! The operator against a real kube-apiserver, etcd and controller manager, under exactly the RBAC of `RBAC.md`.
//!
//! There is no kubelet, so a runtime pod is a Pod object with the status of a ready one and, at its address, a real HTTP
//! server that reads the bundle objects and speaks the agent's endpoint (`pods`). All else is real.
//!
//! `ISOLET_TEST_KUBECONFIG` names the API server: `tests/cluster/cluster api DIR` starts one.

mod faults;
mod harness;
mod lifecycle;
mod pods;
mod references;
mod routes;
mod scale;
