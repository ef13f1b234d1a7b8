//! The Functions of this worker: which revision of each serves, how many requests are under way.
//!
//! A revision is replaced in one step: requests that were admitted before finish on the old one, later ones get the new one.
//! A revision that does not load changes nothing.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};
use std::time::Duration;

use hyper::body::{Body, Incoming};
use isolet_crds::bundle::{Bundle, FunctionIdentity, SecretValues};
use tokio::time::Instant;

use super::cell::{Cell, Load};
use super::eviction::{self, Totals};
use super::inbound::Inbound;
use super::revision::Revision;
use super::state::{Answered, Failure};
use super::{Services, lock};
use crate::control::{LoadError, Loaded, SentCode};
use crate::isolate::{Blueprint, ffi_schedule, platform};
use crate::limits::body::BodyLimit;
use crate::limits::heap::HeapBudget;
use crate::limits::memory::Resource;
use crate::limits::{garbage, growth, memory};
use crate::router::Router;
use crate::server::error::RequestError;
use crate::web::RequestHead;
use crate::worker::metrics::FunctionMetrics;

/// What holds no more of V8's cage while it waits is not ended for another that needs room.
const HELD_BYTES: usize = 1 << 20;

/// The Functions of this worker.
#[derive(Debug)]
pub struct Functions {
    services: Arc<Services>,
    by_uid: Mutex<HashMap<String, Arc<Function>>>,
    router: RwLock<Router<Arc<Function>>>,
}

/// One Function.
#[derive(Debug)]
pub struct Function {
    identity: FunctionIdentity,
    metrics: Arc<FunctionMetrics>,
    revision: Mutex<Option<Arc<Revision>>>,
    /// One update at a time.
    update: tokio::sync::Mutex<()>,
    under_way: Arc<AtomicU32>,
}

/// What the agent knows of a revision from earlier workers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Offer<'a> {
    /// It loads: it need not be tried.
    pub checked: bool,
    /// What V8 compiled of it.
    pub code: Option<&'a [u8]>,
}

/// A request's place among those under way of its Function, and the revision that runs it.
#[derive(Debug)]
pub(super) struct Permit(Arc<Revision>);

/// A request that may run.
#[derive(Debug)]
pub struct Admission {
    permit: Permit,
    arrived: Instant,
}

impl Functions {
    /// No Functions yet.
    pub fn new(services: Arc<Services>, domain: Option<&str>, cluster_domain: &str) -> Self {
        Self {
            services,
            by_uid: Mutex::default(),
            router: RwLock::new(Router::new(domain, cluster_domain)),
        }
    }

    /// What all instances share.
    pub fn services(&self) -> &Arc<Services> {
        &self.services
    }

    /// Loads a revision and has it serve.
    pub async fn put(
        &self,
        name: String,
        bundle: Bundle,
        secrets: SecretValues,
        offer: Offer<'_>,
    ) -> Result<Loaded, LoadError> {
        let identity = bundle.manifest.function.clone();
        let function = Arc::clone(
            lock(&self.by_uid)
                .entry(identity.uid.clone())
                .or_insert_with(|| Arc::new(Function::new(identity.clone()))),
        );
        let _update = function.update.lock().await;
        let before = function.revision();
        if before.as_ref().is_some_and(|before| before.name == name) {
            return Ok(Loaded { revision: name });
        }
        let loaded = self.load(&function, name, bundle, secrets, offer).await;
        let revision = match loaded {
            Ok(revision) => revision,
            Err(error) => {
                if before.is_none() {
                    lock(&self.by_uid).remove(&identity.uid);
                }
                return Err(error);
            }
        };
        let loaded = Loaded {
            revision: revision.name.clone(),
        };
        let routes = revision.blueprint.manifest.routes.clone();
        *lock(&function.revision) = Some(revision);
        let mut router = self.router.write().unwrap_or_else(PoisonError::into_inner);
        router.insert(&identity, &routes, Arc::clone(&function));
        drop(router);
        if let Some(before) = before {
            before.close();
        }
        self.count();
        Ok(loaded)
    }

    /// Serves a Function no longer; requests under way finish.
    pub async fn delete(&self, uid: &str) {
        let Some(function) = lock(&self.by_uid).get(uid).cloned() else {
            return;
        };
        let _update = function.update.lock().await;
        let has_namesake = {
            let mut by_uid = lock(&self.by_uid);
            by_uid.remove(uid);
            by_uid.values().any(|other| other.has_name_of(&function))
        };
        if !has_namesake {
            self.services.metrics.forget(&function.metrics);
        }
        self.router
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(uid);
        if let Some(revision) = lock(&function.revision).take() {
            revision.close();
        }
        self.count();
    }

    /// The Function for a host and path, and the path as it sees it.
    pub fn route<'p>(&self, host: &str, path: &'p str) -> Option<(Arc<Function>, &'p str)> {
        let router = self.router.read().unwrap_or_else(PoisonError::into_inner);
        let found = router.find(host, path)?;
        Some((Arc::clone(found.target), found.path))
    }

    /// Checks a revision by making an instance. It is kept if the one before has one, so that a busy Function sees no
    /// cold start; else the first request makes another.
    async fn load(
        &self,
        function: &Function,
        name: String,
        bundle: Bundle,
        secrets: SecretValues,
        offer: Offer<'_>,
    ) -> Result<Arc<Revision>, LoadError> {
        let before = function.revision();
        let mut env = bundle.manifest.env.clone();
        env.extend(secrets.values);
        let is_tried = !bundle.manifest.suspend && !offer.checked;
        let env = env.into_iter().collect();
        let breadcrumb = self.services.breadcrumb.clone();
        let blueprint = Blueprint::new(bundle, env, breadcrumb, offer.code);
        if blueprint.sent_code() == SentCode::Refused {
            self.services.metrics.code_used(blueprint.all_refused());
        }
        let metrics = Arc::clone(&function.metrics);
        let services = Arc::clone(&self.services);
        let under_way = Arc::clone(&function.under_way);
        let revision = Arc::new(Revision::new(name, blueprint, metrics, under_way, services));
        if is_tried {
            let cell = revision.try_out().await?;
            if before.is_some_and(|before| before.running().is_some()) {
                revision.adopt(&cell);
            }
        }
        Ok(revision)
    }

    /// Has cold instances go, for as long as there are Functions to look at. On a thread of its own: the others may all be
    /// busy with what uses up the memory.
    pub fn keep_evicting(self: &Arc<Self>) -> std::io::Result<()> {
        let functions = Arc::downgrade(self);
        std::thread::Builder::new()
            .name("eviction".into())
            .stack_size(platform::STACK_BYTES)
            .spawn(move || {
                let mut leaving = Vec::new();
                loop {
                    memory::wait_until_tight(eviction::tick());
                    let Some(functions) = functions.upgrade() else {
                        return;
                    };
                    functions.evict(&mut leaving);
                    drop(functions);
                    std::thread::sleep(eviction::PAUSE);
                }
            })?;
        Ok(())
    }

    /// `leaving`: instances that were told to go and may not be gone yet.
    fn evict(&self, leaving: &mut Vec<Weak<HeapBudget>>) {
        memory::sample();
        // Those that nobody waits for go first.
        let surplus = self.services.pool.tighten(!memory::has_room_for_more(1));
        let functions: Vec<_> = lock(&self.by_uid).values().cloned().collect();
        for revision in functions.iter().filter_map(|function| function.revision()) {
            revision.tidy();
        }
        let live: Vec<_> = functions
            .iter()
            .filter_map(|function| {
                let revision = function.revision()?;
                let (cell, unused) = revision.unused()?;
                Some((revision, cell, unused))
            })
            .collect();
        let is_collected = self.collect_enough(&live);
        let candidates: Vec<_> = live
            .iter()
            .map(|(_, cell, unused)| eviction::Candidate {
                unused: *unused,
                usage: cell.usage(),
                busy: cell.is_busy(),
            })
            .collect();
        let most = eviction::most(self.services.gate.most_instances());
        let mut now = self.totals(leaving);
        now.usage = now.usage.minus(surplus);
        if is_collected {
            now.usage[Resource::Cage] = 0;
        }
        let victims = eviction::victims(&candidates, now, most);
        if victims.is_empty() && leaving.is_empty() {
            make_room(&functions, leaving);
        }
        for (index, reason) in victims {
            let (revision, cell, _) = &live[index];
            revision.retire(cell);
            leaving.push(cell.budget());
            self.services.metrics.evicted(reason.name());
        }
    }

    /// Collects garbage where much of V8's cage is used. Whether that is enough, so that no instance must go for it.
    fn collect_enough(&self, live: &[(Arc<Revision>, Arc<Cell>, Duration)]) -> bool {
        let makes_room = memory::is_cage_tight() && self.collect_coldest(live);
        garbage::collect(makes_room);
        if makes_room {
            memory::raise_alarm();
        }
        makes_room
            && !memory::is_cage_critical()
            && growth::lacks() == 0
            && self.services.gate.waiting() < eviction::MOST_WAITING
    }

    /// Collects garbage of idle instances, the coldest first: each gives back a page or more of V8's cage. Says whether that makes room
    /// fast enough.
    fn collect_coldest(&self, live: &[(Arc<Revision>, Arc<Cell>, Duration)]) -> bool {
        let until = Instant::now() + eviction::SPELL;
        let mut due: Vec<_> = live
            .iter()
            .filter(|(_, cell, unused)| cell.should_collect(*unused, true) && !cell.is_busy())
            .collect();
        due.sort_by_key(|(_, _, unused)| std::cmp::Reverse(*unused));
        garbage::collect(!due.is_empty());
        let mut collected = 0;
        for (_, cell, _) in due {
            if !memory::is_cage_tight() {
                return true;
            }
            if Instant::now() >= until {
                return collected >= eviction::LEAST_COLLECTED;
            }
            // Somebody may wait for the room.
            cell.compact(false);
            collected += 1;
            garbage::collected();
            self.services.gate.there_is_room();
        }
        collected > 0
    }

    /// Has instances that became idle give back what they do not need, for as long as there are Functions to look at. On a
    /// thread that stands back, since nobody waits for it.
    pub fn keep_compacting(self: &Arc<Self>) -> std::io::Result<()> {
        let functions = Arc::downgrade(self);
        std::thread::Builder::new()
            .name("compact".into())
            .stack_size(platform::STACK_BYTES)
            .spawn(move || {
                ffi_schedule::stand_back();
                loop {
                    std::thread::sleep(eviction::TICK);
                    let Some(functions) = functions.upgrade() else {
                        return;
                    };
                    functions.compact();
                }
            })?;
        Ok(())
    }

    fn compact(&self) {
        let functions: Vec<_> = lock(&self.by_uid).values().cloned().collect();
        for revision in functions.iter().filter_map(|function| function.revision()) {
            let Some((cell, unused)) = revision.unused() else {
                continue;
            };
            if cell.should_collect(unused, false) && !cell.is_busy() {
                cell.compact(true);
            }
        }
    }

    /// What there will be when those are gone that are leaving, and those have started that wait.
    fn totals(&self, leaving: &mut Vec<Weak<HeapBudget>>) -> Totals {
        leaving.retain(|budget| budget.upgrade().is_some_and(|it| !it.is_gone()));
        let gate = &self.services.gate;
        let going = leaving.iter().filter_map(Weak::upgrade);
        let used = memory::used();
        Totals {
            instances: (gate.instances() + gate.waiting()).saturating_sub(leaving.len()),
            usage: going.fold(used, |used, budget| used.minus(budget.usage())),
        }
    }

    fn count(&self) {
        let count = lock(&self.by_uid).len();
        self.services.metrics.functions(count);
    }
}

/// Ends what holds most and waits, where one needs room to grow and nothing is idle.
fn make_room(functions: &[Arc<Function>], leaving: &mut Vec<Weak<HeapBudget>>) {
    let needed = growth::lacks();
    if needed == 0 {
        return;
    }
    let cells: Vec<_> = functions
        .iter()
        .filter_map(|function| function.revision())
        .flat_map(|revision| revision.cells())
        // The others run, and are measured there.
        .filter(|cell| cell.load() == Load::Free)
        .collect();
    let held: Vec<_> = cells
        .iter()
        .map(|cell| cell.usage()[Resource::Cage])
        .collect();
    let least = HELD_BYTES.max(growth::spares());
    for index in eviction::holders(&held, needed, least) {
        let budget = cells[index].budget();
        if cells[index].make_room() {
            leaving.push(budget);
        }
    }
}

impl Function {
    fn new(identity: FunctionIdentity) -> Self {
        Self {
            metrics: Arc::new(FunctionMetrics::of(&identity)),
            identity,
            revision: Mutex::default(),
            update: tokio::sync::Mutex::default(),
            under_way: Arc::default(),
        }
    }

    /// Namespace, name and UID.
    pub fn identity(&self) -> &FunctionIdentity {
        &self.identity
    }

    /// Its counters.
    pub fn metrics(&self) -> &FunctionMetrics {
        &self.metrics
    }

    fn revision(&self) -> Option<Arc<Revision>> {
        lock(&self.revision).clone()
    }

    /// Whether one was deleted and made anew as the other.
    fn has_name_of(&self, other: &Self) -> bool {
        self.identity.namespace == other.identity.namespace
            && self.identity.name == other.identity.name
    }

    /// Lets a request in that arrived then, or says why not.
    pub fn admit(&self, arrived: Instant) -> Result<Admission, RequestError> {
        let revision = self.revision().ok_or(RequestError::NotFound)?;
        if revision.blueprint.manifest.suspend {
            return Err(RequestError::Suspended);
        }
        let permit = Permit::take(revision).ok_or(RequestError::ConcurrencyLimitExceeded)?;
        Ok(Admission { arrived, permit })
    }
}

impl Admission {
    /// Runs the function until there is an answer. Failures are logged here.
    pub async fn handle(
        self,
        head: Box<RequestHead>,
        body: Option<Inbound>,
    ) -> Result<Answered, RequestError> {
        let Self { permit, arrived } = self;
        let report = |revision: &Revision, failure: &Failure| {
            revision.report(failure);
            failure.error
        };
        let revision = permit.revision();
        let deadline = arrived + Duration::from_millis(revision.limits().timeout_ms);
        let cell = match revision.cell(arrived.into_std()).await {
            Ok(cell) => cell,
            Err(failure) => return Err(report(revision, &failure)),
        };
        let answer = cell.dispatch(head, body, permit, deadline).await;
        answer.map_err(|failure| report(cell.revision(), &failure))
    }

    /// The request's body, if it has one; too large a one is logged here.
    pub fn body(
        &self,
        body: Incoming,
        declared_bytes: Option<u64>,
    ) -> Result<Option<Inbound>, RequestError> {
        let revision = self.permit.revision();
        match BodyLimit::new(revision.limits().body_bytes, declared_bytes) {
            Ok(limit) => Ok((!body.is_end_stream()).then(|| Inbound::of_request(body, limit))),
            Err(_) => {
                let error = RequestError::BodyTooLarge;
                revision.report(&error.into());
                Err(error)
            }
        }
    }
}

impl Permit {
    fn take(revision: Arc<Revision>) -> Option<Self> {
        let limit = revision.limits().concurrency;
        revision
            .under_way
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| {
                (count < limit).then_some(count + 1)
            })
            .ok()?;
        Some(Self(revision))
    }

    pub(super) fn revision(&self) -> &Arc<Revision> {
        &self.0
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}
