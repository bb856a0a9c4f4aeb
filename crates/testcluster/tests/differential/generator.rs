//! Random statements whose answers are determined: rows in an order only where the statement gives them one, limits
//! only behind an order of all rows.

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Int,
    /// Text that compares without regard to case, accents and trailing blanks.
    Text,
    /// Text that compares by its bytes.
    Binary,
    Decimal,
    Time,
    Double,
}

/// A table, on the shards or beside them.
#[derive(Debug)]
pub struct Table {
    pub name: &'static str,
    pub create: &'static str,
    pub sharded: bool,
    columns: &'static [(&'static str, Kind)],
    /// The primary key's columns.
    key: &'static [&'static str],
    /// Columns that may not be changed.
    fixed: &'static [&'static str],
    /// Columns with lookup vindexes.
    looked_up: &'static [&'static str],
    lookups: Lookups,
}

/// What keeps the lookup tables of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lookups {
    None,
    /// In the client's transaction: what IGNORE leaves out may leave lookup rows behind, which are in the way of others.
    Plain,
    /// Before and after the client's transaction: one that takes a value away and gives it again waits for itself.
    Consistent,
}

impl Table {
    /// Queries at vtgate for what lookup tables hold, and on a plain server for what they should.
    pub fn lookup_rows(&self) -> Vec<(String, String)> {
        let Self { name, lookups: Lookups::Plain, .. } = self else { return Vec::new() };
        let of = |column: &str, rest: &str| {
            let qualifier = if column == "nu" { "main." } else { "" };
            (
                format!("select {column}{rest} from {qualifier}{name}_{column} order by {column}{rest}"),
                format!("select {column}{rest} from {name} where {column} is not null order by {column}{rest}"),
            )
        };
        vec![of("uq", ""), of("nu", ", id")]
    }

    /// Its name in a statement that is sent to vtgate.
    pub fn path(&self) -> String {
        if self.sharded { self.name.to_owned() } else { format!("main.{}", self.name) }
    }
}

pub static TABLES: &[Table] = &[
    Table {
        name: "a",
        create: "create table a(id bigint not null, n int, s varchar(20) collate utf8mb4_general_ci, \
                 b varchar(20) collate utf8mb4_bin, d decimal(10,2), t datetime, f double, primary key(id)) charset utf8mb4",
        sharded: true,
        columns: &[
            ("id", Kind::Int),
            ("n", Kind::Int),
            ("s", Kind::Text),
            ("b", Kind::Binary),
            ("d", Kind::Decimal),
            ("t", Kind::Time),
            ("f", Kind::Double),
        ],
        key: &["id"],
        fixed: &["id"],
        looked_up: &[],
        lookups: Lookups::None,
    },
    Table {
        name: "c",
        create: "create table c(id bigint not null, a_id bigint not null, m int, s varchar(20) collate utf8mb4_general_ci, \
                 e decimal(8,3) not null default 0, primary key(a_id, id)) charset utf8mb4",
        sharded: true,
        columns: &[("id", Kind::Int), ("a_id", Kind::Int), ("m", Kind::Int), ("s", Kind::Text), ("e", Kind::Decimal)],
        key: &["a_id", "id"],
        fixed: &["id", "a_id", "e"],
        looked_up: &[],
        lookups: Lookups::None,
    },
    Table {
        name: "k",
        create: "create table k(code varchar(20) collate utf8mb4_general_ci not null, id bigint not null, n int, \
                 d decimal(10,2), primary key(code, id)) charset utf8mb4",
        sharded: true,
        columns: &[("code", Kind::Text), ("id", Kind::Int), ("n", Kind::Int), ("d", Kind::Decimal)],
        key: &["code", "id"],
        fixed: &["code", "id"],
        looked_up: &[],
        lookups: Lookups::None,
    },
    Table {
        name: "r",
        create: "create table r(id bigint not null, name varchar(20) collate utf8mb4_general_ci, primary key(id)) \
                 charset utf8mb4",
        sharded: true,
        columns: &[("id", Kind::Int), ("name", Kind::Text)],
        key: &["id"],
        fixed: &["id"],
        looked_up: &[],
        lookups: Lookups::None,
    },
    Table {
        name: "l",
        create: "create table l(id bigint not null, uq varchar(20) collate utf8mb4_general_ci, nu int, n int, \
                 primary key(id), unique key(uq)) charset utf8mb4",
        sharded: true,
        columns: &[("id", Kind::Int), ("uq", Kind::Text), ("nu", Kind::Int), ("n", Kind::Int)],
        key: &["id"],
        fixed: &["id"],
        looked_up: &["uq", "nu"],
        lookups: Lookups::Consistent,
    },
    Table {
        name: "p",
        create: "create table p(id bigint not null, uq int, nu varchar(20) collate utf8mb4_general_ci, n int, \
                 primary key(id), unique key(uq)) charset utf8mb4",
        sharded: true,
        columns: &[("id", Kind::Int), ("uq", Kind::Int), ("nu", Kind::Text), ("n", Kind::Int)],
        key: &["id"],
        fixed: &["id"],
        looked_up: &["uq", "nu"],
        lookups: Lookups::Plain,
    },
    Table {
        name: "u",
        create: "create table u(id bigint not null, n int, s varchar(20) collate utf8mb4_general_ci, primary key(id)) \
                 charset utf8mb4",
        sharded: false,
        columns: &[("id", Kind::Int), ("n", Kind::Int), ("s", Kind::Text)],
        key: &["id"],
        fixed: &["id"],
        looked_up: &[],
        lookups: Lookups::None,
    },
];

/// Whether the order of rows is the statement's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    Any,
    Given,
}

#[derive(Debug, Clone)]
pub struct Statement {
    pub sql: String,
    pub shape: &'static str,
    pub order: Order,
    /// Which of several equal texts stands for them is mysqld's choice.
    pub loose: bool,
    pub writes: Option<&'static Table>,
}

impl Statement {
    /// All rows of a table.
    pub fn rows_of(table: &'static Table) -> Self {
        let sql = format!("select * from {} order by {}", table.path(), table.key.join(", "));
        Self { sql, shape: "rows", order: Order::Given, loose: false, writes: None }
    }
}

/// The text for a server without keyspaces.
pub fn plain(sql: &str) -> String {
    sql.replace("main.u", "u")
}

/// A table of a FROM clause.
#[derive(Clone, Copy)]
struct Source {
    table: &'static Table,
    /// `None`: columns are not qualified.
    alias: Option<usize>,
}

impl Source {
    fn column(&self, name: &str) -> String {
        match self.alias {
            Some(alias) => format!("t{alias}.{name}"),
            None => name.to_owned(),
        }
    }

    fn text(&self) -> String {
        let name = self.table.path();
        match self.alias {
            Some(alias) => format!("{name} t{alias}"),
            None => name,
        }
    }
}

pub struct Generator {
    state: u64,
    aliases: usize,
    pub in_transaction: bool,
}

impl Generator {
    pub fn new(seed: u64) -> Self {
        Self { state: seed, aliases: 0, in_transaction: false }
    }

    /// splitmix64: G. L. Steele, D. Lea, C. H. Flood, "Fast splittable pseudorandom number generators".
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap_or_default()
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn pick<'t, T>(&mut self, list: &'t [T]) -> &'t T {
        let at = self.below(list.len());
        &list[at]
    }

    fn table(&mut self) -> &'static Table {
        let at = self.below(TABLES.len());
        &TABLES[at]
    }

    fn literal(&mut self, kind: Kind) -> String {
        if self.chance(8) {
            return "null".to_owned();
        }
        self.value(kind)
    }

    fn value(&mut self, kind: Kind) -> String {
        match kind {
            Kind::Int => self.below(9).to_string(),
            Kind::Text | Kind::Binary => {
                let texts = ["a", "A", "b", "B ", "ä", "", "ab", "o''x", "100", "z%"];
                format!("'{}'", self.pick(&texts))
            }
            Kind::Decimal => self.pick(&["0.00", "1.25", "-1.50", "2.50", "10.10", "3"]).to_string(),
            Kind::Time => self.pick(&["'2020-01-01 00:00:00'", "'2020-02-03 04:05:06'", "'2019-12-31'"]).to_string(),
            Kind::Double => self.pick(&["0", "0.5", "-2.25", "1e3"]).to_string(),
        }
    }

    /// An INSERT that fills an empty table.
    pub fn filling(&mut self, table: &'static Table) -> String {
        let mut seen = Vec::new();
        let mut rows = Vec::new();
        for _ in 0..14 {
            let row: Vec<String> = table
                .columns
                .iter()
                .map(|(name, kind)| if table.fixed.contains(name) { self.value(*kind) } else { self.literal(*kind) })
                .collect();
            let plainly = |name: &str| {
                let cells = table.columns.iter().zip(&row).filter(|((own, _), _)| *own == name);
                cells.map(|(_, value)| value.to_lowercase().replace('ä', "a").replace(' ', "")).collect::<String>()
            };
            let key: Vec<String> = table.key.iter().map(|name| plainly(name)).collect();
            let unique = table.columns.iter().filter(|(name, _)| *name == "uq").map(|(name, _)| plainly(name));
            let unique: Vec<String> = unique.filter(|value| value != "null").collect();
            if !seen.contains(&key) && (unique.is_empty() || !seen.contains(&unique)) {
                seen.extend([key, unique]);
                rows.push(format!("({})", row.join(", ")));
            }
        }
        format!("insert into {}({}) values {}", table.path(), names(table).join(", "), rows.join(", "))
    }

    fn source(&mut self) -> Source {
        let table = self.table();
        self.source_of(table)
    }

    fn source_of(&mut self, table: &'static Table) -> Source {
        self.aliases += 1;
        Source { table, alias: Some(self.aliases) }
    }

    /// A column of a kind, if there is one.
    fn column(&mut self, scope: &[Source], kind: Kind) -> Option<String> {
        let all: Vec<String> = scope
            .iter()
            .flat_map(|source| source.table.columns.iter().map(move |column| (source, column)))
            .filter(|(_, (_, own))| *own == kind)
            .map(|(source, (name, _))| source.column(name))
            .collect();
        (!all.is_empty()).then(|| self.pick(&all).clone())
    }

    fn kind(&mut self) -> Kind {
        *self.pick(&[
            Kind::Int,
            Kind::Int,
            Kind::Int,
            Kind::Text,
            Kind::Text,
            Kind::Binary,
            Kind::Decimal,
            Kind::Time,
            Kind::Double,
        ])
    }

    /// A value of a row.
    fn scalar(&mut self, scope: &[Source], kind: Kind, depth: usize) -> String {
        let column = self.column(scope, kind);
        if let Some(column) = column
            && (depth == 0 || self.chance(60))
        {
            return column;
        }
        if depth == 0 {
            return self.value(kind);
        }
        let depth = depth - 1;
        match kind {
            Kind::Int => match self.below(5) {
                0 => format!("({} + {})", self.scalar(scope, kind, depth), self.scalar(scope, kind, depth)),
                1 => format!("coalesce({}, 0)", self.scalar(scope, kind, depth)),
                2 => format!("char_length({})", self.scalar(scope, Kind::Text, depth)),
                3 => format!(
                    "case when {} then {} else {} end",
                    self.condition(scope, depth),
                    self.scalar(scope, kind, depth),
                    self.value(kind)
                ),
                _ => format!("({} % 3)", self.scalar(scope, kind, depth)),
            },
            Kind::Text | Kind::Binary => match self.below(3) {
                0 => format!("concat({}, {})", self.scalar(scope, kind, depth), self.value(kind)),
                1 => format!("upper({})", self.scalar(scope, kind, depth)),
                _ => format!("coalesce({}, 'a')", self.scalar(scope, kind, depth)),
            },
            Kind::Decimal => match self.below(3) {
                0 => format!("({} + {})", self.scalar(scope, kind, depth), self.scalar(scope, Kind::Int, depth)),
                1 => format!("({} * {})", self.scalar(scope, kind, depth), self.value(kind)),
                _ => format!("round({}, 1)", self.scalar(scope, kind, depth)),
            },
            Kind::Time => format!("date({})", self.scalar(scope, kind, depth)),
            Kind::Double => format!("({} / 2)", self.scalar(scope, kind, depth)),
        }
    }

    fn condition(&mut self, scope: &[Source], depth: usize) -> String {
        if depth > 0 && self.chance(35) {
            let word = *self.pick(&["and", "and", "or"]);
            let (left, right) = (self.condition(scope, depth - 1), self.condition(scope, depth - 1));
            return if self.chance(10) {
                format!("not ({left} {word} {right})")
            } else {
                format!("({left} {word} {right})")
            };
        }
        let kind = self.kind();
        let Some(column) = self.column(scope, kind) else { return format!("1 = {}", self.below(2)) };
        match self.below(14) {
            0 => format!("{column} is null"),
            1 => format!("{column} is not null"),
            2 | 3 => {
                let items: Vec<String> = (0..1 + self.below(3)).map(|_| self.literal(kind)).collect();
                let not = if self.chance(20) { "not " } else { "" };
                format!("{column} {not}in ({})", items.join(", "))
            }
            4 => format!("{column} between {} and {}", self.value(kind), self.value(kind)),
            5 if kind == Kind::Text => format!("{column} like '%{}%'", self.pick(&["a", "B", "0"])),
            6 => format!("{column} <=> {}", self.literal(kind)),
            7 => format!("{column} = {}", self.scalar(scope, kind, 1)),
            8 if depth > 0 => self.subquery_condition(scope, kind, &column),
            // The id of a row, and where it is.
            9..=11 => {
                let source = *self.pick(scope);
                let names = [source.table.key, source.table.looked_up].concat();
                let name = *self.pick(&names);
                let own = source.table.columns.iter().find(|(own, _)| *own == name).map_or(Kind::Int, |c| c.1);
                format!("{} = {}", source.column(name), self.literal(own))
            }
            _ => {
                let operator = *self.pick(&["=", "=", "<", ">", "<=", ">=", "<>"]);
                format!("{column} {operator} {}", self.literal(kind))
            }
        }
    }

    fn subquery_condition(&mut self, scope: &[Source], kind: Kind, column: &str) -> String {
        let inner = self.source();
        let filter = self.condition(&[inner], 0);
        let Some(item) = self.column(&[inner], kind) else { return format!("{column} is not null") };
        match self.below(5) {
            0 => format!("{column} in (select {item} from {} where {filter})", inner.text()),
            1 => format!("{column} not in (select {item} from {} where {filter})", inner.text()),
            2 => format!("exists (select 1 from {} where {item} = {column} and {filter})", inner.text()),
            3 => {
                let outer = self.column(scope, Kind::Int).unwrap_or_else(|| "1".to_owned());
                let id = self.column(&[inner], Kind::Int).unwrap_or_else(|| "1".to_owned());
                format!("not exists (select 1 from {} where {id} = {outer} and {filter})", inner.text())
            }
            _ => format!("{column} >= (select min({item}) from {} where {filter})", inner.text()),
        }
    }

    /// A FROM clause and its tables.
    fn from(&mut self) -> (String, Vec<Source>) {
        let first = self.source();
        if self.chance(45) {
            let first = if self.chance(30) { Source { alias: None, ..first } } else { first };
            return (first.text(), vec![first]);
        }
        let mut scope = vec![first];
        let mut text = first.text();
        for _ in 0..1 + self.below(2) {
            let next = self.source();
            let word = *self.pick(&["join", "join", "left join", "right join"]);
            let on = self.join_condition(&scope, next);
            text = format!("{text} {word} {} on {on}", next.text());
            scope.push(next);
        }
        (text, scope)
    }

    fn join_condition(&mut self, scope: &[Source], next: Source) -> String {
        let first = scope[0];
        // Children beside their parents.
        let on = match (first.table.name, next.table.name) {
            ("a", "c") if self.chance(70) => format!("{} = {}", first.column("id"), next.column("a_id")),
            ("c", "a") if self.chance(70) => format!("{} = {}", first.column("a_id"), next.column("id")),
            _ => {
                let kind = *self.pick(&[Kind::Int, Kind::Int, Kind::Text]);
                match (self.column(scope, kind), self.column(&[next], kind)) {
                    (Some(left), Some(right)) => format!("{left} = {right}"),
                    _ => format!("{} = {}", self.scalar(scope, Kind::Int, 0), self.scalar(&[next], Kind::Int, 0)),
                }
            }
        };
        if self.chance(25) { format!("{on} and {}", self.condition(&[next], 0)) } else { on }
    }

    /// All columns of all keys, which order all rows.
    fn total_order(&mut self, scope: &[Source]) -> String {
        let mut items = Vec::new();
        if self.chance(60) {
            let kind = self.kind();
            items.push(self.scalar(scope, kind, 1));
        }
        for source in scope {
            items.extend(source.table.key.iter().map(|name| source.column(name)));
        }
        let ordered: Vec<String> =
            items.into_iter().map(|item| if self.chance(30) { format!("{item} desc") } else { item }).collect();
        ordered.join(", ")
    }

    fn limit(&mut self) -> String {
        match self.below(3) {
            0 => format!(" limit {}", self.below(6)),
            1 => format!(" limit {}, {}", self.below(4), 1 + self.below(5)),
            _ => format!(" limit {} offset {}", 1 + self.below(5), self.below(4)),
        }
    }

    pub fn statement(&mut self) -> Statement {
        self.aliases = 0;
        match self.below(20) {
            0..=5 => self.rows(),
            6..=9 => self.groups(),
            10 => self.distinct(),
            11 => self.union(),
            12 => self.derived(),
            13..=14 => self.insert(),
            15..=16 => self.update(),
            17 => self.delete(),
            18 => self.insert_select(),
            _ => self.transaction(),
        }
    }

    fn rows(&mut self) -> Statement {
        let (from, scope) = self.from();
        let mut items: Vec<String> = (0..1 + self.below(3))
            .map(|_| {
                let kind = self.kind();
                self.scalar(&scope, kind, 2)
            })
            .collect();
        if self.chance(15) {
            items = vec!["*".to_owned()];
        }
        let mut sql = format!("select {} from {from}", items.join(", "));
        if self.chance(75) {
            sql.push_str(&format!(" where {}", self.condition(&scope, 2)));
        }
        let mut order = Order::Any;
        if self.chance(50) {
            order = Order::Given;
            sql.push_str(&format!(" order by {}", self.total_order(&scope)));
            if self.chance(50) {
                sql.push_str(&self.limit());
            }
        }
        let outer = sql.contains(" left join ") || sql.contains(" right join ");
        // Rows without a partner, several of them, have no order among each other.
        if outer && sql.contains(" limit ") {
            return self.rows();
        }
        Statement { sql, shape: "rows", order: if outer { Order::Any } else { order }, loose: false, writes: None }
    }

    fn aggregate(&mut self, scope: &[Source]) -> String {
        let kind = *self.pick(&[Kind::Int, Kind::Decimal, Kind::Text, Kind::Binary, Kind::Time, Kind::Double]);
        let value = self.scalar(scope, kind, 1);
        match self.below(8) {
            0 | 1 => "count(*)".to_owned(),
            2 => format!("count({value})"),
            3 => format!("count(distinct {value})"),
            4 => format!("min({value})"),
            5 => format!("max({value})"),
            6 => format!("sum({})", self.scalar(scope, Kind::Int, 1)),
            _ => format!("avg({})", self.scalar(scope, Kind::Decimal, 0)),
        }
    }

    fn groups(&mut self) -> Statement {
        let (from, scope) = self.from();
        let groups: Vec<String> = (0..self.below(3))
            .map(|_| {
                let kind = self.kind();
                let depth = self.below(2);
                self.scalar(&scope, kind, depth)
            })
            .filter(|item| item.contains(|c: char| c.is_ascii_alphabetic()) && !item.starts_with('\''))
            .collect();
        let mut items = groups.clone();
        items.extend((0..1 + self.below(3)).map(|_| self.aggregate(&scope)));
        let named: Vec<String> = items.iter().enumerate().map(|(n, item)| format!("{item} as x{n}")).collect();
        let mut sql = format!("select {} from {from}", named.join(", "));
        if self.chance(50) {
            sql.push_str(&format!(" where {}", self.condition(&scope, 1)));
        }
        if !groups.is_empty() {
            sql.push_str(&format!(" group by {}", groups.join(", ")));
        }
        if self.chance(25) {
            sql.push_str(&format!(" having count(*) > {}", self.below(3)));
        }
        if !groups.is_empty() && self.chance(40) {
            let all: Vec<String> = (0..groups.len()).map(|n| format!("x{n}")).collect();
            sql.push_str(&format!(" order by {}", all.join(", ")));
            if self.chance(50) {
                sql.push_str(&self.limit());
            }
        }
        Statement { sql, shape: "groups", order: Order::Any, loose: true, writes: None }
    }

    fn distinct(&mut self) -> Statement {
        let (from, scope) = self.from();
        let items: Vec<String> = (0..1 + self.below(2))
            .map(|n| {
                let kind = self.kind();
                format!("{} as x{n}", self.scalar(&scope, kind, 1))
            })
            .collect();
        let mut sql = format!("select distinct {} from {from} where {}", items.join(", "), self.condition(&scope, 1));
        if self.chance(50) {
            let all: Vec<String> = (0..items.len()).map(|n| format!("x{n}")).collect();
            sql.push_str(&format!(" order by {}{}", all.join(", "), self.limit()));
        }
        Statement { sql, shape: "distinct", order: Order::Any, loose: true, writes: None }
    }

    fn union(&mut self) -> Statement {
        let kind = *self.pick(&[Kind::Int, Kind::Text, Kind::Decimal]);
        let mut branch = || {
            let source = self.source();
            let item = self.scalar(&[source], kind, 1);
            format!("select {item} as x from {} where {}", source.text(), self.condition(&[source], 1))
        };
        let (left, right) = (branch(), branch());
        let word = *self.pick(&["union", "union all"]);
        let mut sql = format!("{left} {word} {right}");
        if self.chance(50) {
            sql.push_str(" order by x");
            if self.chance(50) {
                sql.push_str(&self.limit());
            }
        }
        Statement { sql, shape: "union", order: Order::Any, loose: true, writes: None }
    }

    fn derived(&mut self) -> Statement {
        let inner = self.source();
        let kind = *self.pick(&[Kind::Int, Kind::Text]);
        let key = self.scalar(&[inner], kind, 0);
        let aggregate = *self.pick(&["count(*)", "max(1)", "sum(2)"]);
        let filter = self.condition(&[inner], 1);
        let grouped = format!("select {key} as x, {aggregate} as y from {} where {filter} group by 1", inner.text());
        let sql = match self.below(3) {
            0 => format!("select x, y from ({grouped}) v where y > {}", self.below(3)),
            1 => format!("select count(*), sum(y) from ({grouped}) v"),
            _ => {
                let other = self.source();
                let column = self.scalar(&[other], kind, 0);
                format!("select v.y, {column} from ({grouped}) v join {} on {column} = v.x", other.text())
            }
        };
        Statement { sql, shape: "derived", order: Order::Any, loose: true, writes: None }
    }

    fn writes(sql: String, shape: &'static str, table: &'static Table) -> Statement {
        Statement { sql, shape, order: Order::Any, loose: false, writes: Some(table) }
    }

    fn written(&mut self) -> &'static Table {
        loop {
            let table = self.table();
            if table.sharded && !(self.in_transaction && table.lookups == Lookups::Consistent) {
                return table;
            }
        }
    }

    /// A column that may be changed, and its kind.
    fn changed(&mut self, table: &'static Table) -> (&'static str, Kind) {
        loop {
            let column = *self.pick(table.columns);
            if !table.fixed.contains(&column.0) {
                return column;
            }
        }
    }

    fn insert(&mut self) -> Statement {
        let table = self.written();
        let choice = match table.lookups {
            Lookups::None => self.below(5),
            Lookups::Plain => 3,
            Lookups::Consistent => *self.pick(&[0, 3, 3, 3]),
        };
        // Which row of a statement comes first is the order of their values for lookup tables.
        let most = if choice == 0 && table.lookups != Lookups::None { 1 } else { 4 };
        let rows: Vec<String> = (0..1 + self.below(most))
            .map(|_| {
                let row: Vec<String> = table
                    .columns
                    .iter()
                    .map(|(name, kind)| match kind {
                        _ if !table.fixed.contains(name) => self.literal(*kind),
                        Kind::Int => self.below(14).to_string(),
                        _ => self.value(*kind),
                    })
                    .collect();
                format!("({})", row.join(", "))
            })
            .collect();
        let (verb, tail) = match choice {
            0 => ("insert ignore", String::new()),
            1 => ("replace", String::new()),
            2 => {
                let (name, kind) = self.changed(table);
                let value = if self.chance(50) { format!("values({name})") } else { self.literal(kind) };
                ("insert", format!(" on duplicate key update {name} = {value}"))
            }
            _ => ("insert", String::new()),
        };
        let sql = format!("{verb} into {}({}) values {}{tail}", table.name, names(table).join(", "), rows.join(", "));
        Self::writes(sql, "insert", table)
    }

    fn insert_select(&mut self) -> Statement {
        let source = self.source();
        let filter = self.condition(&[source], 1);
        let id = self.column(&[source], Kind::Int).unwrap_or_else(|| "1".to_owned());
        let table = &TABLES[self.below(2)];
        let sql = match table.name {
            "a" => format!(
                "insert ignore into a(id, n) select distinct {id} + 7, 3 from {} where {id} is not null and {filter}",
                source.text()
            ),
            _ => format!(
                "insert ignore into c(id, a_id, m) select distinct {id} + 20, {id}, 4 from {} where {id} is not null and {filter}",
                source.text()
            ),
        };
        Self::writes(sql, "insert select", table)
    }

    fn update(&mut self) -> Statement {
        let table = self.written();
        let source = Source { table, alias: None };
        let sets: Vec<String> = (0..1 + self.below(2))
            .map(|_| {
                let (name, kind) = self.changed(table);
                let value = match kind {
                    _ if table.looked_up.contains(&name) => self.literal(kind),
                    Kind::Int if self.chance(50) => format!("{name} + 1"),
                    Kind::Text if self.chance(20) => format!("left({name}, 1)"),
                    _ => self.literal(kind),
                };
                format!("{name} = {value}")
            })
            .collect();
        let sql = format!("update {} set {} where {}", table.name, sets.join(", "), self.condition(&[source], 2));
        Self::writes(sql, "update", table)
    }

    fn delete(&mut self) -> Statement {
        let table = self.written();
        let source = Source { table, alias: None };
        let sql = format!("delete from {} where {}", table.name, self.condition(&[source], 1));
        Self::writes(sql, "delete", table)
    }

    fn transaction(&mut self) -> Statement {
        let sql = if self.in_transaction { *self.pick(&["commit", "rollback"]) } else { "begin" };
        self.in_transaction = !self.in_transaction;
        Statement { sql: sql.to_owned(), shape: "transaction", order: Order::Any, loose: false, writes: None }
    }
}

fn names(table: &Table) -> Vec<&'static str> {
    table.columns.iter().map(|(name, _)| *name).collect()
}
