//! MySQL's grammar for the tree parser: its own dialect with MySQL's operator precedences.
//!
//! The stock dialect binds `||`, `^`, `~`, `binary`, `xor`, shifts and LIKE otherwise than MySQL does,
//! which changes results. Literals are never unescaped here: they print as they were written.

use std::any::TypeId;

use sqlparser::ast::{BinaryOperator, Expr, Statement, UnaryOperator};
use sqlparser::dialect::{Dialect, MySqlDialect, Precedence};
use sqlparser::keywords::Keyword;
use sqlparser::parser::{Parser, ParserError, ParserOptions};
use sqlparser::tokenizer::Token;

use crate::error::SyntaxError;
use crate::lexer::{Lexer, TokenKind};
use crate::statement::Tree;

/// Deepest nesting of expressions and queries.
const MAX_NESTING: usize = 200;

/// Begins the name of a variable that stands for a whole list in a tree.
pub(crate) const LIST_MARK: &str = "__vtlist_";

/// Binds a sign or `~` closer than any infix operator.
const SIGN: u8 = 46;
const BANG: u8 = 47;
const BINARY: u8 = 48;

/// Makes the tree of one statement.
pub(crate) fn parse_tree(sql: &str) -> Result<Tree, SyntaxError> {
    let text = rewritten(sql);
    let dialect = Mysql(MySqlDialect {});
    let statements = Parser::new(&dialect)
        .with_options(ParserOptions::new().with_unescape(false))
        .with_recursion_limit(MAX_NESTING)
        .try_with_sql(&text)
        .and_then(|mut parser| parser.parse_statements());
    match statements {
        Ok(mut list) if list.len() == 1 => Ok(Tree(Box::new(list.remove(0)))),
        Ok(_) => Err(SyntaxError { position: sql.len() + 1, near: String::new() }),
        Err(error) => Err(located(&text, &error)),
    }
}

/// Spellings that the tree parser lacks, replaced by equal ones that it has: `::list` by a marked `(:list)`,
/// `lock in share mode` by `for share`, hints and modifiers that say nothing about the result left out.
fn rewritten(sql: &str) -> String {
    let bytes = sql.as_bytes();
    let tokens: Vec<_> = Lexer::new(bytes).collect();
    let mut out = String::with_capacity(sql.len() + 8);
    let mut copied = 0;
    let mut replace = |start: usize, end: usize, by: &str| {
        out.push_str(&sql[copied..start]);
        out.push_str(by);
        copied = end;
    };
    let word = |i: usize, expected: &str| tokens.get(i).is_some_and(|t| t.is_word(bytes, expected));
    let mut i = 0;
    while let Some(token) = tokens.get(i) {
        if token.kind == TokenKind::ListVar {
            replace(token.start, token.end, &format!("(:{LIST_MARK}{})", &sql[token.start + 2..token.end]));
        } else if word(i, "lock") && word(i + 1, "in") && word(i + 2, "share") && word(i + 3, "mode") {
            replace(token.start, tokens[i + 3].end, "for share");
            i += 3;
        } else if i > 0
            && i < 4
            && (word(0, "update") || word(0, "delete"))
            && (word(i, "low_priority") || word(i, "quick") || word(i, "ignore"))
        {
            replace(token.start, token.end, "");
        } else if word(i, "use") && word(i + 1, "vindex") {
            let close = (i..tokens.len()).find(|&at| tokens[at].is_punct(bytes, ")")).unwrap_or(i + 1);
            replace(token.start, tokens[close].end, "");
            i = close;
        }
        i += 1;
    }
    out.push_str(&sql[copied..]);
    out
}

/// Finds the place that a parser error names by line and column.
fn located(sql: &str, error: &ParserError) -> SyntaxError {
    let text = error.to_string();
    let number = |label: &str| -> Option<usize> {
        let rest = &text[text.rfind(label)? + label.len()..];
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        rest[..digits].parse().ok()
    };
    let place = number("Line: ").zip(number("Column: ")).and_then(|(line, column)| {
        let start: usize = sql.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
        let offset: usize = sql[start..].chars().take(column.saturating_sub(1)).map(char::len_utf8).sum();
        Lexer::new(sql.as_bytes()).find(|token| token.end > start + offset)
    });
    match place {
        Some(token) => SyntaxError { position: token.end + 1, near: sql[token.start..token.end].to_owned() },
        None => SyntaxError { position: sql.len() + 1, near: String::new() },
    }
}

#[derive(Debug)]
struct Mysql(MySqlDialect);

/// Delegates the switches of [`MySqlDialect`].
macro_rules! delegate {
    ($($method:ident),* $(,)?) => { $(fn $method(&self) -> bool { self.0.$method() })* };
}

impl Dialect for Mysql {
    /// The parser's own checks for MySQL have to hold.
    fn dialect(&self) -> TypeId {
        TypeId::of::<MySqlDialect>()
    }

    fn is_identifier_start(&self, ch: char) -> bool {
        self.0.is_identifier_start(ch)
    }

    fn is_identifier_part(&self, ch: char) -> bool {
        self.0.is_identifier_part(ch)
    }

    fn is_delimited_identifier_start(&self, ch: char) -> bool {
        self.0.is_delimited_identifier_start(ch)
    }

    fn identifier_quote_style(&self, identifier: &str) -> Option<char> {
        self.0.identifier_quote_style(identifier)
    }

    fn is_table_factor_alias(&self, explicit: bool, kw: &Keyword, parser: &mut Parser) -> bool {
        self.0.is_table_factor_alias(explicit, kw, parser)
    }

    delegate!(
        supports_string_literal_backslash_escape,
        supports_string_literal_concatenation,
        ignores_wildcard_escapes,
        supports_numeric_prefix,
        supports_bitwise_shift_operators,
        supports_multiline_comment_hints,
        require_interval_qualifier,
        supports_limit_comma,
        supports_create_table_select,
        supports_insert_set,
        supports_user_host_grantee,
        supports_table_hints,
        requires_single_line_comment_whitespace,
        supports_match_against,
        supports_select_modifiers,
        supports_set_names,
        supports_comma_separated_set_assignments,
        supports_update_order_by,
        supports_data_type_signed_suffix,
        supports_cross_join_constraint,
        supports_double_ampersand_operator,
        supports_binary_kw_as_cast,
        supports_comment_optimizer_hint,
        supports_constraint_keyword_without_name,
        supports_key_column_option,
        supports_group_by_with_modifier,
        supports_left_associative_joins_without_parens,
    );

    fn parse_statement(&self, parser: &mut Parser) -> Option<Result<Statement, ParserError>> {
        self.0.parse_statement(parser)
    }

    fn parse_prefix(&self, parser: &mut Parser) -> Option<Result<Expr, ParserError>> {
        let (op, precedence) = match parser.peek_token().token {
            Token::Tilde => (UnaryOperator::BitwiseNot, SIGN),
            Token::Minus => (UnaryOperator::Minus, SIGN),
            Token::ExclamationMark => (UnaryOperator::BangNot, BANG),
            Token::Word(word) if word.keyword == Keyword::BINARY && word.quote_style.is_none() => {
                // `binary(x)` parses the same way; as a cast it keeps its place in the tree.
                parser.next_token();
                let operand = match parser.parse_subexpr(BINARY) {
                    Ok(operand) => operand,
                    Err(error) => return Some(Err(error)),
                };
                return Some(Ok(Expr::Prefixed { prefix: "binary".into(), value: Box::new(operand) }));
            }
            _ => return None,
        };
        parser.next_token();
        Some(parser.parse_subexpr(precedence).map(|expr| Expr::UnaryOp { op, expr: Box::new(expr) }))
    }

    fn parse_infix(&self, parser: &mut Parser, expr: &Expr, precedence: u8) -> Option<Result<Expr, ParserError>> {
        if let Token::Word(word) = parser.peek_token().token
            && word.quote_style.is_none()
            && word.value.eq_ignore_ascii_case("mod")
        {
            parser.next_token();
            return Some(parser.parse_subexpr(precedence).map(|right| Expr::BinaryOp {
                left: Box::new(expr.clone()),
                op: BinaryOperator::Modulo,
                right: Box::new(right),
            }));
        }
        self.0.parse_infix(parser, expr, precedence)
    }

    /// MySQL manual, "Operator Precedence".
    fn prec_value(&self, prec: Precedence) -> u8 {
        match prec {
            Precedence::Caret => 45,
            Precedence::MulDivModOp => 40,
            Precedence::PlusMinus => 30,
            Precedence::Ampersand => 26,
            Precedence::Pipe => 24,
            Precedence::Between | Precedence::Like => 22,
            Precedence::Eq | Precedence::Is => 20,
            Precedence::UnaryNot => 15,
            Precedence::And => 10,
            Precedence::Xor => 7,
            Precedence::Or => 5,
            other => self.0.prec_value(other),
        }
    }

    fn get_next_precedence(&self, parser: &Parser) -> Option<Result<u8, ParserError>> {
        let precedence = match parser.peek_token().token {
            Token::ShiftLeft | Token::ShiftRight => 28,
            Token::StringConcat => 5,
            Token::Overlap => 10,
            Token::Assignment => 3,
            Token::Word(word) if word.quote_style.is_none() && word.value.eq_ignore_ascii_case("mod") => 40,
            _ => return None,
        };
        Some(Ok(precedence))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tree printed with every operation in brackets.
    fn brackets(expr: &Expr) -> String {
        match expr {
            Expr::BinaryOp { left, op, right } => format!("({} {op} {})", brackets(left), brackets(right)),
            Expr::UnaryOp { op, expr } => format!("({op}{})", brackets(expr)),
            Expr::Prefixed { prefix, value } => format!("({prefix} {})", brackets(value)),
            Expr::Like { expr, pattern, .. } => format!("({} LIKE {})", brackets(expr), brackets(pattern)),
            other => other.to_string(),
        }
    }

    fn bracketed(expression: &str) -> String {
        let tree = parse_tree(&format!("select {expression}")).unwrap_or_else(|e| panic!("{expression}: {e}"));
        let Statement::Query(query) = *tree.0 else { panic!("a query") };
        let sqlparser::ast::SetExpr::Select(select) = *query.body else { panic!("a select") };
        match &select.projection[0] {
            sqlparser::ast::SelectItem::UnnamedExpr(expr) => brackets(expr),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn operators_bind_as_in_mysql() {
        for (text, want) in [
            ("a or b || c and d", "((a OR b) || (c AND d))"),
            ("a * b ^ c", "(a * (b ^ c))"),
            ("~a + b", "((~a) + b)"),
            ("-a ^ b", "((-a) ^ b)"),
            ("a xor b and c", "(a XOR (b AND c))"),
            ("a | b & c << d + e", "(a | (b & (c << (d + e))))"),
            ("a = b like c", "(a = (b LIKE c))"),
            ("binary a = b", "((binary a) = b)"),
            ("a mod b + c", "((a % b) + c)"),
            ("a && b or c", "((a AND b) OR c)"),
        ] {
            assert_eq!(bracketed(text), want, "{text}");
        }
    }

    #[test]
    fn literals_print_as_written() {
        for literal in [r"'a\\b'", r"'\\'", "'a''''b'", r"'\''", r#""x\"y""#] {
            let tree = parse_tree(&format!("select {literal}")).expect("valid");
            assert_eq!(tree.0.to_string(), format!("SELECT {literal}"));
        }
    }

    #[test]
    fn vitess_forms_parse() {
        for sql in [
            "select * from t where id in ::list and x = :vtg1",
            "select 1 from t lock in share mode",
            "update low_priority ignore t set a = 1",
            "select 1 from t use vindex (v) where a = 1",
        ] {
            assert!(parse_tree(sql).is_ok(), "{sql}: {:?}", parse_tree(sql).map(|_| ()));
        }
        assert_eq!(parse_tree("select a from t where )").map(|_| ()).expect_err("invalid").near, ")");
    }

    #[test]
    fn long_chains_and_deep_nesting_do_not_overflow() {
        let chain = vec!["a = 1"; 20_000].join(" or ");
        assert!(parse_tree(&format!("select 1 from t where {chain}")).is_ok());
        let deep = format!("select {}1{}", "(".repeat(5000), ")".repeat(5000));
        assert!(parse_tree(&deep).is_err());
    }
}
