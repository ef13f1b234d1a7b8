//! Who may send requests where: the egress rules of what serves, by Function.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use isolet_crds::bundle::FunctionIdentity;
use isolet_crds::egress::EgressRule;
use tokio::sync::Semaphore;

use crate::bundle::Revision;

/// Outbound requests of one Function at once.
pub const MAX_AT_ONCE: usize = 256;

/// The table; the loader writes, each outbound request reads.
#[derive(Default)]
pub struct EgressTable {
    functions: RwLock<HashMap<String, Arc<FunctionEgress>>>,
}

/// One Function's.
#[derive(Debug)]
pub struct FunctionEgress {
    /// Whose.
    pub identity: FunctionIdentity,
    /// `spec.egress.allow`.
    pub rules: Vec<EgressRule>,
    /// Outbound requests that may still begin.
    pub slots: Arc<Semaphore>,
}

impl EgressTable {
    /// A Function may go where any of these revisions may: while one replaces another there are two.
    pub fn set<'a>(
        &self,
        identity: &FunctionIdentity,
        revisions: impl IntoIterator<Item = &'a Arc<Revision>>,
    ) {
        let rules = revisions
            .into_iter()
            .flat_map(|revision| &revision.egress)
            // The operator checked them; what this build cannot read allows nothing.
            .filter_map(|text| EgressRule::parse(text).ok())
            .collect();
        let mut functions = self
            .functions
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let slots = functions.get(&identity.uid).map(|old| old.slots.clone());
        functions.insert(
            identity.uid.clone(),
            Arc::new(FunctionEgress {
                identity: identity.clone(),
                rules,
                slots: slots.unwrap_or_else(|| Arc::new(Semaphore::new(MAX_AT_ONCE))),
            }),
        );
    }

    /// A Function is gone.
    pub fn remove(&self, uid: &str) {
        self.functions
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(uid);
    }

    /// One Function's.
    pub fn get(&self, uid: &str) -> Option<Arc<FunctionEgress>> {
        self.functions
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(uid)
            .cloned()
    }
}
