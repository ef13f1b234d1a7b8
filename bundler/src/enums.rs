//! How long the constants of enums would become.
//!
//! The compiler evaluates enum members, and `B = A + A`, `C = B + B` … doubles a text with each line: sixty lines would be
//! 2^60 characters. This bounds the length before anything is evaluated.

use std::collections::HashMap;

use oxc::ast::ast::{
    ComputedMemberExpression, Expression, IdentifierReference, NumericLiteral, Program,
    StaticMemberExpression, StringLiteral, TSEnumMember, TemplateLiteral,
};
use oxc::ast_visit::{Visit, walk};

/// What the author of such an enum reads.
pub(crate) const TOO_LONG: &str =
    "the texts of enum members become longer than 1 MiB: write a constant or a function instead";

const MAX_BYTES: usize = 1 << 20;
/// Longest text of a number.
const NUMBER_BYTES: usize = 24;

/// Offset of the first enum member with which the texts become too long, if there is one.
pub(crate) fn too_long(program: &Program<'_>) -> Option<usize> {
    let mut enums = Enums::default();
    enums.visit_program(program);
    enums.found
}

#[derive(Default)]
struct Enums {
    /// Upper bound of the text of the members so far, by name, whatever their enum; absent where it is a number.
    bytes: HashMap<String, usize>,
    total: usize,
    found: Option<usize>,
}

impl<'a> Visit<'a> for Enums {
    fn visit_ts_enum_member(&mut self, member: &TSEnumMember<'a>) {
        let Some(initializer) = &member.initializer else {
            return;
        };
        let mut length = Length {
            bytes: &self.bytes,
            sum: 0,
            is_text: false,
        };
        length.visit_expression(initializer);
        if !length.is_text {
            return;
        }
        let sum = length.sum;
        let name = member.id.static_name().to_string();
        let longest = self.bytes.entry(name).or_default();
        *longest = sum.max(*longest);
        self.total = self.total.saturating_add(sum);
        if self.total > MAX_BYTES && self.found.is_none() {
            self.found = Some(member.span.start as usize);
        }
    }
}

/// An upper bound of the text that an expression evaluates to: the sum of its parts, whatever the operators.
struct Length<'e> {
    bytes: &'e HashMap<String, usize>,
    sum: usize,
    is_text: bool,
}

impl Length<'_> {
    fn add_text(&mut self, bytes: usize) {
        self.is_text = true;
        self.sum = self.sum.saturating_add(bytes);
    }

    /// A member of an enum, or a number.
    fn add_name(&mut self, name: &str) {
        match self.bytes.get(name) {
            Some(bytes) => self.add_text(*bytes),
            None => self.sum = self.sum.saturating_add(NUMBER_BYTES),
        }
    }
}

impl<'a> Visit<'a> for Length<'_> {
    fn visit_string_literal(&mut self, literal: &StringLiteral<'a>) {
        self.add_text(literal.value.len());
    }

    fn visit_template_literal(&mut self, template: &TemplateLiteral<'a>) {
        self.add_text(
            template
                .quasis
                .iter()
                .map(|part| part.value.raw.len())
                .sum(),
        );
        walk::walk_template_literal(self, template);
    }

    fn visit_numeric_literal(&mut self, _: &NumericLiteral<'a>) {
        self.sum = self.sum.saturating_add(NUMBER_BYTES);
    }

    fn visit_identifier_reference(&mut self, identifier: &IdentifierReference<'a>) {
        self.add_name(identifier.name.as_str());
    }

    fn visit_static_member_expression(&mut self, member: &StaticMemberExpression<'a>) {
        self.add_name(member.property.name.as_str());
        walk::walk_static_member_expression(self, member);
    }

    fn visit_computed_member_expression(&mut self, member: &ComputedMemberExpression<'a>) {
        if let Expression::StringLiteral(name) = &member.expression {
            self.add_name(name.value.as_str());
            self.visit_expression(&member.object);
        } else {
            walk::walk_computed_member_expression(self, member);
        }
    }
}
