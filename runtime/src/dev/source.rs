//! From the files' objects to revisions: builds what is new, keeps the last good revision of what is broken.

use std::collections::BTreeMap;
use std::sync::Arc;

use isolet_bundler::{Sources, build, validate};
use isolet_crds::Function;

use super::manifest::Located;
use super::project::{Name, Project, uid};
use crate::bundle::{Change, Revision};

/// What a reload came to.
#[derive(Debug, Default)]
pub struct Reload {
    /// For the node.
    pub changes: Vec<Change>,
    /// For the terminal: errors that are new.
    pub errors: Vec<String>,
}

/// The Functions as they were at the last reload.
#[derive(Default)]
pub struct DevSource {
    functions: BTreeMap<Name, State>,
    sequence: u64,
}

#[derive(Default)]
struct State {
    inputs: Option<(Function, Sources)>,
    good: Option<Arc<Revision>>,
    error: Option<String>,
}

impl DevSource {
    /// Builds what changed.
    pub fn reload(&mut self, project: &Project) -> Reload {
        let mut reload = Reload::default();
        let gone: Vec<Name> = self
            .functions
            .keys()
            .filter(|name| !project.functions.contains_key(*name))
            .cloned()
            .collect();
        for name in gone {
            self.functions.remove(&name);
            reload.changes.push(Change {
                uid: uid(&name),
                candidates: Vec::new(),
                broken: None,
            });
        }
        for (name, function) in &project.functions {
            self.sequence += 1;
            let state = self.functions.entry(name.clone()).or_default();
            match state.update(name, function, project, self.sequence) {
                Ok(Some(change)) => reload.changes.push(change),
                Ok(None) => {}
                Err(error) => {
                    let text = state.describe(name, function, &error);
                    if state.error.as_ref() != Some(&text) {
                        reload.errors.push(text.clone());
                        state.error = Some(text);
                    }
                }
            }
        }
        reload
    }

    /// Whether a Function has a revision to serve.
    pub fn has_revision(&self, name: &Name) -> bool {
        self.functions
            .get(name)
            .is_some_and(|state| state.good.is_some())
    }
}

impl State {
    fn update(
        &mut self,
        name: &Name,
        located: &Located<Function>,
        project: &Project,
        sequence: u64,
    ) -> Result<Option<Change>, String> {
        let sources = project.sources(located)?;
        let mut function = located.object.clone();
        function.metadata.uid = Some(uid(name));
        let same = self.error.is_none()
            && self.inputs.as_ref().is_some_and(|(old, old_sources)| {
                *old == function
                    && old_sources.modules == sources.modules
                    && old_sources.env == sources.env
                    && old_sources.secret_env == sources.secret_env
            });
        if same {
            return Ok(None);
        }
        self.inputs = Some((function.clone(), sources.clone()));
        let validated = validate(&function, sources).map_err(|invalid| invalid.report())?;
        let built = build(&validated).map_err(|error| error.to_string())?;
        let secrets = match &built.secrets {
            Some(secrets) => Some(secrets.encode().map_err(|error| error.to_string())?.into()),
            None => None,
        };
        self.error = None;
        if self
            .good
            .as_ref()
            .is_some_and(|good| good.digest == built.bundle.digest)
        {
            return Ok(None);
        }
        let revision = Arc::new(Revision {
            identity: built.manifest.function.clone(),
            digest: built.bundle.digest,
            sequence,
            bundle: built.bundle.bytes.into(),
            secrets,
            egress: built.manifest.egress,
        });
        // Should the worker refuse it, the one before goes on.
        let before = self.good.replace(revision.clone());
        Ok(Some(Change {
            uid: uid(name),
            candidates: [Some(revision), before].into_iter().flatten().collect(),
            broken: None,
        }))
    }

    fn describe(
        &self,
        (namespace, name): &Name,
        function: &Located<Function>,
        error: &str,
    ) -> String {
        let goes_on = match &self.good {
            Some(good) => format!("revision {} goes on serving", good.name()),
            None => "it is not served until this is right".into(),
        };
        format!(
            "{namespace}/{name} ({}:{}): {error}\n  {goes_on}",
            function.file.display(),
            function.line
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dev::manifest::parse;
    use std::path::Path;

    fn project(code: &str) -> Project {
        Project::new(&[parse(Path::new("hello.ts"), code).unwrap()])
    }

    #[test]
    fn only_what_changed_is_built_and_a_broken_change_keeps_the_good_one() {
        let mut source = DevSource::default();
        let name = ("default".to_owned(), "hello".to_owned());
        let good = "export default { fetch() { return new Response('1') } }";
        let first = source.reload(&project(good));
        assert_eq!((first.changes.len(), first.errors.len()), (1, 0));
        let again = source.reload(&project(good));
        assert_eq!((again.changes.len(), again.errors.len()), (0, 0));

        let broken = source.reload(&project("export default {\n  fetch( { return 1 }\n}"));
        assert!(broken.changes.is_empty());
        let error = &broken.errors[0];
        assert!(
            error.starts_with("default/hello (hello.ts:1): hello.ts:2:"),
            "{error}"
        );
        assert!(
            error.contains("fetch( { return 1 }") && error.contains('^'),
            "{error}"
        );
        assert!(error.contains("goes on serving"), "{error}");
        assert!(source.has_revision(&name));
        let told_once = source.reload(&project("export default {\n  fetch( { return 1 }\n}"));
        assert!(told_once.errors.is_empty());

        let back = source.reload(&project(good));
        assert_eq!(
            (back.changes.len(), back.errors.len()),
            (0, 0),
            "the good one serves already"
        );
        let next = source.reload(&project(&good.replace('1', "2")));
        assert_eq!(
            next.changes[0].candidates.len(),
            2,
            "the one before is offered too"
        );

        let none: [crate::dev::manifest::FileContent; 0] = [];
        let gone = source.reload(&Project::new(&none));
        assert!(gone.changes[0].candidates.is_empty());
        assert!(!source.has_revision(&name));
    }
}
