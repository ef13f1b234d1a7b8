//! Namespaces declared in several parts that use each other's exports by bare name.
//!
//! TypeScript lets `namespace N { q() }` mean `N.q()` where another part of `N` exports `q`. The transformer prints `q()`,
//! which is another thing or nothing: such a use is an error here, with the remedy.

use std::collections::{BTreeMap, BTreeSet};

use oxc::ast::ast::{
    Declaration, IdentifierReference, Program, Statement, TSModuleBlock, TSNamespaceDeclaration,
};
use oxc::ast_visit::{Visit, walk};
use oxc::semantic::Scoping;
use oxc::span::Span;

/// A bare use of another part's export.
pub(crate) struct BareUse {
    pub(crate) offset: usize,
    pub(crate) namespace: String,
    pub(crate) name: String,
}

/// The first bare use in a tree that has been bound to `scoping`.
pub(crate) fn bare_use(program: &Program<'_>, scoping: &Scoping) -> Option<BareUse> {
    let mut parts = Parts::default();
    parts.visit_program(program);
    let Parts {
        exports, several, ..
    } = parts;
    if !several {
        return None;
    }
    let mut uses = Uses {
        scoping,
        exports,
        open: Vec::new(),
        found: None,
    };
    uses.visit_program(program);
    uses.found
}

/// For each namespace by its full name: the blocks it is made of, each with what it exports.
type Exports = BTreeMap<String, Vec<(Span, BTreeSet<String>)>>;

#[derive(Default)]
struct Parts {
    path: Vec<String>,
    exports: Exports,
    several: bool,
}

impl<'a> Visit<'a> for Parts {
    fn visit_ts_namespace_declaration(&mut self, namespace: &TSNamespaceDeclaration<'a>) {
        self.path.push(namespace.id.name.to_string());
        walk::walk_ts_namespace_declaration(self, namespace);
        self.path.pop();
    }

    fn visit_ts_module_block(&mut self, block: &TSModuleBlock<'a>) {
        let blocks = self.exports.entry(self.path.join(".")).or_default();
        blocks.push((block.span, exported_values(block)));
        self.several |= blocks.len() > 1;
        walk::walk_ts_module_block(self, block);
    }
}

fn exported_values(block: &TSModuleBlock<'_>) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for statement in &block.body {
        let Statement::ExportDeclaration(export) = statement else {
            continue;
        };
        match &export.declaration {
            Declaration::VariableDeclaration(variables) => {
                for variable in &variables.declarations {
                    let bound = variable.id.get_binding_identifiers();
                    names.extend(bound.iter().map(|identifier| identifier.name.to_string()));
                }
            }
            declaration => {
                names.extend(
                    declaration
                        .id()
                        .map(|identifier| identifier.name.to_string()),
                );
            }
        }
    }
    names
}

struct Uses<'s> {
    scoping: &'s Scoping,
    exports: Exports,
    /// Full names of the namespaces around, and the block of each.
    open: Vec<(String, Span)>,
    found: Option<BareUse>,
}

impl<'a> Visit<'a> for Uses<'_> {
    fn visit_ts_namespace_declaration(&mut self, namespace: &TSNamespaceDeclaration<'a>) {
        let path = match self.open.last() {
            Some((outer, _)) => format!("{outer}.{}", namespace.id.name),
            None => namespace.id.name.to_string(),
        };
        self.open.push((path, namespace.span));
        walk::walk_ts_namespace_declaration(self, namespace);
        self.open.pop();
    }

    fn visit_ts_module_block(&mut self, block: &TSModuleBlock<'a>) {
        if let Some((_, span)) = self.open.last_mut() {
            *span = block.span;
        }
        walk::walk_ts_module_block(self, block);
    }

    fn visit_identifier_reference(&mut self, identifier: &IdentifierReference<'a>) {
        if self.found.is_some() || self.open.is_empty() {
            return;
        }
        let Some(reference) = identifier.reference_id.get() else {
            return;
        };
        let reference = self.scoping.get_reference(reference);
        if !reference.is_value() {
            return;
        }
        let declared = reference
            .symbol_id()
            .map(|symbol| self.scoping.symbol_span(symbol));
        let name = identifier.name.as_str();
        for (path, block) in self.open.iter().rev() {
            if declared.is_some_and(|declared| block.contains_inclusive(declared)) {
                return;
            }
            let others = self.exports.get(path).into_iter().flatten();
            if others
                .filter(|(span, _)| span != block)
                .any(|(_, names)| names.contains(name))
            {
                self.found = Some(BareUse {
                    offset: identifier.span.start as usize,
                    namespace: path.clone(),
                    name: name.to_owned(),
                });
                return;
            }
        }
    }
}
