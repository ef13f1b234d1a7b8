//! What a parsed module imports, whether it has a default export, and syntax that V8 does not know.

use oxc::ast::AstKind;
use oxc::ast::ast::{
    AccessorProperty, Decorator, Expression, ImportExpression, ModuleDeclaration, Program,
    Statement,
};
use oxc::ast_visit::{Visit, walk};
use oxc::span::{GetSpan, Span};

/// Deepest syntax tree that is taken: later passes recurse over it.
const MAX_TREE_DEPTH: usize = 6000;

/// An import, static or dynamic with a constant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Import {
    pub(crate) specifier: String,
    /// Offset of the specifier in the source.
    pub(crate) offset: usize,
}

/// What validation wants to know of a module.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    pub(crate) imports: Vec<Import>,
    pub(crate) has_default_export: bool,
    /// The first decorator.
    pub(crate) decorator: Option<usize>,
    /// The first `accessor` field.
    pub(crate) accessor: Option<usize>,
}

impl Facts {
    /// Walks a tree that [`is_too_deep`] has let through.
    pub(crate) fn of(program: &Program<'_>) -> Self {
        let mut facts = Self::default();
        for statement in &program.body {
            if let Some(declaration) = statement.as_module_declaration() {
                facts.add_declaration(declaration);
            }
        }
        facts.visit_program(program);
        facts
    }

    fn add_declaration(&mut self, declaration: &ModuleDeclaration<'_>) {
        match declaration {
            ModuleDeclaration::ExportDefaultDeclaration(_) => self.has_default_export = true,
            ModuleDeclaration::ExportNamedDeclaration(export) => {
                self.has_default_export |= export
                    .specifiers
                    .iter()
                    .any(|s| s.exported.name() == "default");
            }
            ModuleDeclaration::ExportFromDeclaration(export) => {
                self.has_default_export |= export
                    .specifiers
                    .iter()
                    .any(|s| s.exported.name() == "default");
            }
            ModuleDeclaration::ExportAllDeclaration(export) => {
                self.has_default_export |= export
                    .exported
                    .as_ref()
                    .is_some_and(|name| name.name() == "default");
            }
            _ => {}
        }
        if let Some(source) = declaration.source() {
            self.add_import(&source.value, source.span);
        }
    }

    fn add_import(&mut self, specifier: &str, span: Span) {
        self.imports.push(Import {
            specifier: specifier.to_owned(),
            offset: span.start as usize,
        });
    }
}

impl<'a> Visit<'a> for Facts {
    fn visit_import_expression(&mut self, import: &ImportExpression<'a>) {
        match &import.source {
            Expression::StringLiteral(literal) => self.add_import(&literal.value, literal.span),
            Expression::TemplateLiteral(template) => {
                if let Some(text) = template.single_quasi() {
                    self.add_import(&text, template.span);
                }
            }
            _ => {}
        }
        walk::walk_import_expression(self, import);
    }

    fn visit_decorator(&mut self, decorator: &Decorator<'a>) {
        self.decorator
            .get_or_insert(decorator.span().start as usize);
        walk::walk_decorator(self, decorator);
    }

    fn visit_accessor_property(&mut self, property: &AccessorProperty<'a>) {
        self.accessor.get_or_insert(property.span.start as usize);
        walk::walk_accessor_property(self, property);
    }
}

/// Offset of the first node deeper than later passes can take, if there is one.
pub(crate) fn is_too_deep(program: &Program<'_>) -> Option<usize> {
    struct TooDeep(usize);
    struct Depth(usize);
    impl<'a> Visit<'a> for Depth {
        fn enter_node(&mut self, kind: AstKind<'a>) {
            self.0 += 1;
            if self.0 > MAX_TREE_DEPTH {
                // Leaves the recursion at once and without the panic hook's output; caught below.
                std::panic::resume_unwind(Box::new(TooDeep(kind.span().start as usize)));
            }
        }
        fn leave_node(&mut self, _: AstKind<'a>) {
            self.0 -= 1;
        }
    }
    let walked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        Depth(0).visit_program(program);
    }));
    match walked {
        Ok(()) => None,
        Err(payload) => match payload.downcast::<TooDeep>() {
            Ok(deep) => Some(deep.0),
            Err(other) => std::panic::resume_unwind(other),
        },
    }
}

/// Removes the imports whose specifier starts with `prefix` from a module's top level; gives rest of specifier and local
/// name of each.
pub(crate) fn take_imports(program: &mut Program<'_>, prefix: &str) -> Vec<(String, String)> {
    let mut taken = Vec::new();
    program.body.retain(|statement| {
        let Statement::ImportDeclaration(import) = statement else {
            return true;
        };
        let Some(rest) = import.source.value.strip_prefix(prefix) else {
            return true;
        };
        let specifiers = import.specifiers.iter().flatten();
        taken.extend(
            specifiers.map(|specifier| (rest.to_owned(), specifier.local().name.to_string())),
        );
        false
    });
    taken
}
