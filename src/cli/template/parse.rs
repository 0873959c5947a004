//! Tokens become a tree; every name of a variable or function in it is known, and its depth is bounded.

use super::lex::{Kind, Token, tokens};
use super::{fail, functions};
use crate::error::{Error, Result};

/// Blocks and parentheses, one in another. Far more than a template has, far less than the stack.
const DEPTH: usize = 100;

/// A part of a template.
#[derive(Debug)]
pub(super) enum Node {
    Text(String),
    Action(Pipeline),
    If { condition: Pipeline, then: Vec<Node>, otherwise: Vec<Node> },
    With { value: Pipeline, then: Vec<Node>, otherwise: Vec<Node> },
    Range { over: Pipeline, each: Vec<Node>, otherwise: Vec<Node> },
    Break,
    Continue,
}

/// Commands, each the last argument of the next; its value may get names.
#[derive(Debug)]
pub(super) struct Pipeline {
    pub(super) names: Vec<String>,
    /// The name exists and gets another value.
    pub(super) assigns: bool,
    pub(super) commands: Vec<Vec<Operand>>,
    pub(super) place: Place,
}

/// Where something stands in the template, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) start: usize,
    pub(super) end: usize,
}

#[derive(Debug)]
pub(super) struct Operand {
    pub(super) term: Term,
    /// `.A.B` behind the term.
    pub(super) fields: Vec<String>,
    /// Of the whole.
    pub(super) place: Place,
    /// Where Go says that an error is: at the second name, if there are more.
    pub(super) error_at: usize,
}

#[derive(Debug)]
pub(super) enum Term {
    /// `.`, or the fields of it.
    Dot,
    Nil,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    Variable(String),
    Function(functions::Function),
    Pipeline(Box<Pipeline>),
}

/// Parses a whole template.
pub(super) fn parse(text: &str) -> Result<Vec<Node>> {
    let tokens = tokens(text)?;
    let mut parser = Parser { text, tokens, at: 0, depth: 0, loops: 0, variables: vec![String::new()] };
    let (nodes, end) = parser.list()?;
    match end {
        Ended::Input => Ok(nodes),
        Ended::End => Err(parser.fail("unexpected {{end}}")),
        Ended::Else => Err(parser.fail("unexpected {{else}}")),
    }
}

/// What ended a list of nodes. Behind `else`, the parser stands before the rest of its action.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Ended {
    Input,
    End,
    Else,
}

#[derive(Clone, Copy, PartialEq)]
enum Block {
    If,
    With,
    Range,
}

struct Parser<'a> {
    text: &'a str,
    tokens: Vec<Token>,
    at: usize,
    depth: usize,
    loops: usize,
    /// Those that are visible, `$` among them; a block's own go with it.
    variables: Vec<String>,
}

impl Parser<'_> {
    fn list(&mut self) -> Result<(Vec<Node>, Ended)> {
        let mut nodes = Vec::new();
        while let Some(token) = self.tokens.get(self.at) {
            match &token.kind {
                Kind::Text(text) => {
                    nodes.push(Node::Text(text.clone()));
                    self.at += 1;
                }
                _ => match self.action()? {
                    Ok(node) => nodes.push(node),
                    Err(end) => return Ok((nodes, end)),
                },
            }
        }
        Ok((nodes, Ended::Input))
    }

    /// Parses an action, up to the `{{end}}` of it if it is a block; or finds that it ends the list.
    fn action(&mut self) -> Result<Result<Node, Ended>> {
        self.at += 1;
        self.skip_space();
        let word = match self.peek() {
            Some(Kind::Word(word)) => word.clone(),
            _ => String::new(),
        };
        let block = match word.as_str() {
            "if" => Block::If,
            "with" => Block::With,
            "range" => Block::Range,
            "end" => {
                self.at += 1;
                self.close("end")?;
                return Ok(Err(Ended::End));
            }
            "else" => {
                self.at += 1;
                return Ok(Err(Ended::Else));
            }
            "break" | "continue" => {
                self.at += 1;
                self.close(&word)?;
                if self.loops == 0 {
                    return Err(self.fail(&format!("{{{{{word}}}}} outside {{{{range}}}}")));
                }
                return Ok(Ok(if word == "break" { Node::Break } else { Node::Continue }));
            }
            "define" | "template" | "block" => {
                return Err(self.fail(&format!("{{{{{word}}}}} is not supported")));
            }
            _ => {
                let pipeline = self.pipeline("command", 2)?;
                self.close("command")?;
                return Ok(Ok(Node::Action(pipeline)));
            }
        };
        self.at += 1;
        self.block(block).map(Ok)
    }

    fn block(&mut self, block: Block) -> Result<Node> {
        let name = match block {
            Block::If => "if",
            Block::With => "with",
            Block::Range => "range",
        };
        self.descend()?;
        let mark = self.variables.len();
        let pipeline = self.pipeline(name, if block == Block::Range { 2 } else { 1 })?;
        self.close(name)?;
        self.loops += usize::from(block == Block::Range);
        let (then, end) = self.list()?;
        self.loops -= usize::from(block == Block::Range);
        let otherwise = match end {
            Ended::Input => return Err(self.fail("unexpected EOF")),
            Ended::End => Vec::new(),
            Ended::Else => self.otherwise(block)?,
        };
        self.variables.truncate(mark);
        self.depth -= 1;
        Ok(match block {
            Block::If => Node::If { condition: pipeline, then, otherwise },
            Block::With => Node::With { value: pipeline, then, otherwise },
            Block::Range => Node::Range { over: pipeline, each: then, otherwise },
        })
    }

    /// Parses what follows `{{else`: the end of the action and a list, or `if` and the block that shares our `{{end}}`.
    fn otherwise(&mut self, block: Block) -> Result<Vec<Node>> {
        self.skip_space();
        let next = match self.peek() {
            Some(Kind::Word(word)) if word == "if" => Some(Block::If),
            Some(Kind::Word(word)) if word == "with" => Some(Block::With),
            _ => None,
        };
        match next {
            Some(next) if next == block => {
                self.at += 1;
                Ok(vec![self.block(next)?])
            }
            _ => {
                self.close("else")?;
                match self.list()? {
                    (nodes, Ended::End) => Ok(nodes),
                    (_, Ended::Else) => Err(self.fail("expected end; found {{else}}")),
                    (_, Ended::Input) => Err(self.fail("unexpected EOF")),
                }
            }
        }
    }

    /// Parses up to the `}}` or `)`, which it leaves.
    fn pipeline(&mut self, context: &str, most_names: usize) -> Result<Pipeline> {
        self.skip_space();
        let (names, assigns) = self.names(context, most_names)?;
        self.skip_space();
        let start = self.here();
        let mut commands = Vec::new();
        loop {
            let command = self.command()?;
            if command.is_empty() {
                return Err(self.fail(&match commands.len() {
                    0 => format!("missing value for {context}"),
                    _ => format!("missing value for {context}: nothing behind |"),
                }));
            }
            // A constant takes no argument.
            if !commands.is_empty()
                && matches!(command[0].term, Term::Nil | Term::Bool(_) | Term::Int(_) | Term::Float(_) | Term::Text(_))
            {
                return Err(self.fail(&format!("non executable command in pipeline stage {}", commands.len() + 1)));
            }
            commands.push(command);
            match self.peek() {
                Some(Kind::Pipe) => self.at += 1,
                _ => break,
            }
        }
        // Visible behind the pipeline, and not in it.
        if !assigns {
            self.variables.extend(names.iter().cloned());
        }
        let place = Place { start, end: self.tokens.get(self.at).map_or(self.text.len(), |token| token.start) };
        Ok(Pipeline { names, assigns, commands, place })
    }

    /// Parses `$i, $v :=` or `$v =`, if that is what comes.
    fn names(&mut self, context: &str, most: usize) -> Result<(Vec<String>, bool)> {
        let mark = self.at;
        let mut names = Vec::new();
        while let Some(Kind::Variable(name)) = self.peek() {
            names.push(name.clone());
            self.at += 1;
            self.skip_space();
            let assigns = match self.peek() {
                Some(Kind::Declare) => false,
                Some(Kind::Assign) => true,
                Some(Kind::Comma) => {
                    self.at += 1;
                    self.skip_space();
                    continue;
                }
                _ => break,
            };
            if names.len() > 1 && context != "range" || names.len() > most {
                return Err(self.fail(&format!("too many declarations in {context}")));
            }
            if let Some(unknown) = names.iter().find(|name| assigns && !self.variables.contains(name)) {
                return Err(self.fail(&format!("undefined variable \"${unknown}\"")));
            }
            self.at += 1;
            return Ok((names, assigns));
        }
        self.at = mark;
        Ok((Vec::new(), false))
    }

    /// Parses operands with blanks between them.
    fn command(&mut self) -> Result<Vec<Operand>> {
        let mut operands = Vec::new();
        loop {
            self.skip_space();
            match self.operand()? {
                Some(operand) => operands.push(operand),
                None => return Ok(operands),
            }
            match self.peek() {
                Some(Kind::Space | Kind::Pipe | Kind::Close | Kind::RightParen) => {}
                _ => return Err(self.unexpected("operand")),
            }
        }
    }

    fn operand(&mut self) -> Result<Option<Operand>> {
        let start = self.here();
        let Some(token) = self.tokens.get(self.at) else { return Ok(None) };
        let mut fields = Vec::new();
        let term = match token.kind.clone() {
            Kind::Pipe | Kind::Close | Kind::RightParen => return Ok(None),
            Kind::Dot => Term::Dot,
            Kind::Field(name) => {
                fields.push(name);
                Term::Dot
            }
            Kind::Variable(name) => {
                if !self.variables.contains(&name) {
                    return Err(self.fail(&format!("undefined variable \"${name}\"")));
                }
                Term::Variable(name)
            }
            Kind::Constant(text) => Term::Text(text),
            Kind::Int(number) => Term::Int(number),
            Kind::Float(number) => Term::Float(number),
            Kind::Word(word) => match word.as_str() {
                "nil" => Term::Nil,
                "true" => Term::Bool(true),
                "false" => Term::Bool(false),
                name => match functions::Function::named(name) {
                    Some(function) => Term::Function(function),
                    None => return Err(self.fail(&format!("function {name:?} not defined"))),
                },
            },
            Kind::LeftParen => {
                self.at += 1;
                self.descend()?;
                let pipeline = self.pipeline("parenthesized pipeline", 0)?;
                self.depth -= 1;
                if self.peek() != Some(&Kind::RightParen) {
                    return Err(self.unexpected("parenthesized pipeline"));
                }
                Term::Pipeline(Box::new(pipeline))
            }
            _ => return Err(self.unexpected("command")),
        };
        self.at += 1;
        // `..A` and `. .A` are no way to write `.A`.
        if matches!(term, Term::Dot) && fields.is_empty() && matches!(self.peek(), Some(Kind::Field(_))) {
            return Err(self.fail("unexpected . after term \".\""));
        }
        let mut error_at = start;
        while let Some(Kind::Field(name)) = self.peek() {
            if matches!(term, Term::Nil | Term::Bool(_) | Term::Int(_) | Term::Float(_) | Term::Text(_)) {
                return Err(self.unexpected("operand"));
            }
            if error_at == start {
                error_at = self.here();
            }
            fields.push(name.clone());
            self.at += 1;
        }
        let place = Place { start, end: self.tokens[self.at - 1].end };
        Ok(Some(Operand { term, fields, place, error_at }))
    }

    fn peek(&self) -> Option<&Kind> {
        self.tokens.get(self.at).map(|token| &token.kind)
    }

    /// Where the next token begins.
    fn here(&self) -> usize {
        self.tokens.get(self.at).map_or(self.text.len(), |token| token.start)
    }

    fn skip_space(&mut self) {
        while self.peek() == Some(&Kind::Space) {
            self.at += 1;
        }
    }

    fn close(&mut self, context: &str) -> Result<()> {
        self.skip_space();
        if self.peek() != Some(&Kind::Close) {
            return Err(self.unexpected(context));
        }
        self.at += 1;
        Ok(())
    }

    fn descend(&mut self) -> Result<()> {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err(self.fail(&format!("limit: more than {DEPTH} blocks and parentheses in each other")));
        }
        Ok(())
    }

    fn unexpected(&self, context: &str) -> Error {
        let found = match self.tokens.get(self.at) {
            Some(token) => format!("{:?}", &self.text[token.start..token.end]),
            None => "EOF".to_owned(),
        };
        self.fail(&format!("unexpected {found} in {context}"))
    }

    fn fail(&self, why: &str) -> Error {
        fail(self.text, self.here(), why)
    }
}
