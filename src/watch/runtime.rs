//! What the service's runtime is documented not to do with code that parses, or not known to do. Pure.
//!
//! It is for warnings, and a false one is worse than none. So it goes by the meaning of names and not by the text, and
//! where code can do something in a way that cannot be seen, such as by a name that is put together while it runs, it
//! is taken to do so.

use oxc_ast::AstKind;
use oxc_ast::ast::{
    Argument, CallExpression, ExportDefaultDeclarationKind, Expression, IdentifierReference,
    ObjectExpression, ObjectPropertyKind,
};
use oxc_semantic::{NodeId, Semantic};
use oxc_span::{GetSpan as _, Span};

use crate::config::Kind;

/// The global function that takes handlers.
const LISTEN: &str = "addEventListener";

/// What the global object is called.
const GLOBALS: [&str; 4] = ["self", "globalThis", "window", "global"];

/// Global functions that can run code which is not there to be seen.
const HIDING: [&str; 4] = ["eval", "Function", "importScripts", "require"];

/// How far outwards it is looked for the function that something stands in.
const MAX_OUTWARDS: usize = 1_000;

/// Something that the runtime may do otherwise than the code expects.
pub(super) struct Doubt {
    pub(super) message: &'static str,
    pub(super) help: &'static str,
    /// The place, in bytes, where it has one.
    pub(super) span: Option<Span>,
}

/// What there is to say of code for this service, in the order of its places; at most one of each kind.
pub(super) fn doubts(semantic: &Semantic<'_>, kind: Kind) -> Vec<Doubt> {
    let mut facts = Facts {
        semantic,
        handler: false,
        open: false,
        module: None,
        address: None,
    };
    for node in semantic.nodes().iter() {
        facts.see(node.id(), node.kind());
    }
    let is_dcdn = kind == Kind::Dcdn;
    let module = is_dcdn && semantic.source_type().is_module();
    let module = module.then_some(Doubt {
        message: "this is an ES module, which DCDN is not documented to run",
        help: "let the bundler write a script (`iife`) that registers its handler with `addEventListener(\"fetch\", ...)`",
        span: facts.module,
    });
    let address = facts.address.filter(|_| is_dcdn).map(|span| Doubt {
        message: "this fetches from an IP address, and DCDN fetches by host name only",
        help: "give the host a name",
        span: Some(span),
    });
    let handler = (!facts.handler && !facts.open).then_some(Doubt {
        message: "no fetch handler was found, so the routine would answer nothing",
        help: match kind {
            Kind::Dcdn => "register one with `addEventListener(\"fetch\", ...)`",
            Kind::Esa => "export one with `export default { fetch(request) { ... } }`",
        },
        span: None,
    });
    let mut doubts: Vec<Doubt> = [module, address].into_iter().flatten().collect();
    doubts.sort_by_key(|doubt| doubt.span.map_or(0, |span| span.start));
    doubts.extend(handler);
    doubts
}

/// What was seen of code.
struct Facts<'s, 'a> {
    semantic: &'s Semantic<'a>,
    /// It has a handler.
    handler: bool,
    /// It may have one in a way that cannot be seen.
    open: bool,
    /// What makes it a module.
    module: Option<Span>,
    /// Where it fetches from an IP address.
    address: Option<Span>,
}

impl<'a> Facts<'_, 'a> {
    fn see(&mut self, id: NodeId, kind: AstKind<'a>) {
        match kind {
            AstKind::CallExpression(call) => self.see_call(call),
            AstKind::IdentifierReference(name) => self.see_name(id, name),
            AstKind::IdentifierName(name) => self.see_mention(id, name.name.as_str()),
            AstKind::BindingIdentifier(name) => self.see_mention(id, name.name.as_str()),
            AstKind::StringLiteral(text) => self.see_text(text.value.as_str()),
            AstKind::TemplateElement(text) => self.see_text(text.value.raw.as_str()),
            // Of the code outside of every function and class it is the global object.
            AstKind::ThisExpression(_) if !self.open => {
                self.open = !self.is_inside(id, true) && !self.is_looked_into(id);
            }
            AstKind::WithStatement(_) | AstKind::ImportExpression(_) => self.open = true,
            AstKind::ImportDeclaration(_)
            | AstKind::ExportAllDeclaration(_)
            | AstKind::ExportFromDeclaration(_) => {
                self.open = true;
                self.see_module(kind.span());
            }
            AstKind::ExportDeclaration(_) => self.see_module(kind.span()),
            AstKind::ExportNamedDeclaration(export) => {
                let mut names = export.specifiers.iter().map(|it| it.exported.name());
                self.open |= names.any(|name| name == "default");
                self.see_module(kind.span());
            }
            AstKind::ExportDefaultDeclaration(export) => {
                self.see_default(&export.declaration);
                self.see_module(kind.span());
            }
            AstKind::ImportMeta(_) => self.see_module(kind.span()),
            AstKind::AwaitExpression(_)
                if self.module.is_none()
                    && self.semantic.source_type().is_module()
                    && !self.is_inside(id, false) =>
            {
                self.see_module(kind.span());
            }
            _ => {}
        }
    }

    /// Takes note of what makes the code a module, which its first word tells: `import`, `export` or `await`.
    fn see_module(&mut self, span: Span) {
        let word = Span::sized(span.start, 6);
        self.module = self.module.or(Some(word));
    }

    fn see_call(&mut self, call: &CallExpression<'a>) {
        let first = call.arguments.first();
        match self.callee(call) {
            Some(LISTEN) => match first.and_then(literal) {
                Some(event) => self.handler |= event == "fetch",
                None => self.open = true,
            },
            Some("fetch") if self.address.is_none() && self.is_global(&call.callee) => {
                self.address = first.filter(|it| is_address(it)).map(|it| it.span());
            }
            _ => {}
        }
    }

    /// The name of what is called, where it is plain to see.
    fn callee(&self, call: &CallExpression<'a>) -> Option<&'a str> {
        match &call.callee {
            Expression::Identifier(name) => Some(name.name.as_str()),
            Expression::StaticMemberExpression(member) => Some(member.property.name.as_str()),
            _ => None,
        }
    }

    /// Whether a plain name, or the object of a member, is one that no part of the code declares.
    fn is_global(&self, callee: &Expression<'a>) -> bool {
        match callee {
            Expression::Identifier(name) => self.semantic.is_reference_to_global_variable(name),
            Expression::StaticMemberExpression(member) => match &member.object {
                Expression::Identifier(name) => {
                    GLOBALS.contains(&name.name.as_str())
                        && self.semantic.is_reference_to_global_variable(name)
                }
                _ => false,
            },
            _ => false,
        }
    }

    fn see_name(&mut self, id: NodeId, name: &IdentifierReference<'a>) {
        let text = name.name.as_str();
        self.see_mention(id, text);
        if self.open || !(GLOBALS.contains(&text) || HIDING.contains(&text)) {
            return;
        }
        if self.semantic.is_reference_to_global_variable(name) {
            self.open = HIDING.contains(&text) || !self.is_looked_into(id);
        }
    }

    /// A name that handlers are registered by, anywhere but in a plain call, may be one that cannot be seen.
    fn see_mention(&mut self, id: NodeId, name: &str) {
        match name {
            "onfetch" => self.open = true,
            LISTEN if !self.is_called(id) => self.open = true,
            _ => {}
        }
    }

    fn see_text(&mut self, text: &str) {
        self.open |= text.contains(LISTEN) || text.contains("onfetch");
    }

    /// Whether a name is what a call calls, by itself or as the member of something.
    fn is_called(&self, id: NodeId) -> bool {
        let nodes = self.semantic.nodes();
        let calls = |id: NodeId, span: Span| match nodes.parent_kind(id) {
            AstKind::CallExpression(call) => call.callee.span() == span,
            _ => false,
        };
        match nodes.parent_node(id).kind() {
            AstKind::StaticMemberExpression(member) => calls(nodes.parent_id(id), member.span),
            _ => calls(id, nodes.kind(id).span()),
        }
    }

    /// Whether something is only asked for its type or for a member that has its name in the code.
    fn is_looked_into(&self, id: NodeId) -> bool {
        let nodes = self.semantic.nodes();
        match nodes.parent_kind(id) {
            AstKind::StaticMemberExpression(_) => true,
            AstKind::UnaryExpression(unary) => unary.operator.is_typeof(),
            _ => false,
        }
    }

    /// Whether something stands in a function, or with `own` in what has a `this` of its own.
    fn is_inside(&self, id: NodeId, own: bool) -> bool {
        let mut outwards = self.semantic.nodes().ancestor_kinds(id).take(MAX_OUTWARDS);
        outwards.any(|kind| match kind {
            AstKind::Function(_) => true,
            AstKind::ArrowFunctionExpression(_) => !own,
            AstKind::Class(_) => own,
            _ => false,
        })
    }

    fn see_default(&mut self, declaration: &ExportDefaultDeclarationKind<'a>) {
        match declaration
            .as_expression()
            .map(Expression::without_parentheses)
        {
            Some(Expression::ObjectExpression(object)) => match has_fetch(object) {
                Some(has) => self.handler |= has,
                None => self.open = true,
            },
            Some(
                Expression::StringLiteral(_)
                | Expression::NumericLiteral(_)
                | Expression::BooleanLiteral(_)
                | Expression::NullLiteral(_)
                | Expression::ArrayExpression(_),
            ) => {}
            _ => self.open = true,
        }
    }
}

/// Whether an object has a member `fetch`; `None` where that cannot be seen.
fn has_fetch(object: &ObjectExpression<'_>) -> Option<bool> {
    let mut has = Some(false);
    for property in &object.properties {
        match property {
            ObjectPropertyKind::ObjectProperty(property) => match property.key.static_name() {
                Some(name) if name == "fetch" => return Some(true),
                Some(_) => {}
                None => has = None,
            },
            ObjectPropertyKind::SpreadProperty(_) => has = None,
        }
    }
    has
}

/// The text of an argument that is nothing but text.
fn literal<'a>(argument: &Argument<'a>) -> Option<&'a str> {
    match argument {
        Argument::StringLiteral(text) => Some(text.value.as_str()),
        Argument::TemplateLiteral(template) if template.expressions.is_empty() => {
            Some(template.quasis.first()?.value.cooked?.as_str())
        }
        _ => None,
    }
}

/// Whether an argument is the address of something that has no name.
fn is_address(argument: &Argument<'_>) -> bool {
    let (text, is_whole) = match argument {
        Argument::StringLiteral(text) => (text.value.as_str(), true),
        Argument::TemplateLiteral(template) => match template.quasis.first() {
            Some(first) => (first.value.raw.as_str(), template.expressions.is_empty()),
            None => return false,
        },
        _ => return false,
    };
    let Some((scheme, rest)) = text.split_once("://") else {
        return false;
    };
    let end = rest.find(['/', '?', '#']);
    if !["http", "https"]
        .iter()
        .any(|it| scheme.eq_ignore_ascii_case(it))
        || !(is_whole || end.is_some())
    {
        return false;
    }
    let authority = &rest[..end.unwrap_or(rest.len())];
    let host = authority.rsplit('@').next().unwrap_or_default();
    if host.starts_with('[') {
        return true;
    }
    let host = host.split(':').next().unwrap_or_default();
    let parts: Vec<&str> = host.split('.').collect();
    parts.len() == 4 && parts.iter().all(|part| part.parse::<u8>().is_ok())
}
