//! Clients of a bank: transfers between accounts that go on through a reshard, and what must be true of them.
//!
//! A customer has one account in each of two tables, so that a transfer between his own accounts stays in one
//! shard and one to another customer may need two. Money moves only within a branch (a few customers), whose total
//! is therefore constant: a reader that locks its accounts has to see it at any time, whatever the shards are.
//! Locks are always taken in the order of (customer, table), so that nobody has a reason to fail.
//!
//! The book keeps account of what was acknowledged. Every transfer leaves a row in a ledger: each acknowledged one
//! has to be there once, and nothing else.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mysql::{ConnectParams, Connection};
use tokio::sync::{RwLock, RwLockWriteGuard};
use tokio::task::JoinHandle;

pub const SCHEMA: &str = "
create table savings(customer_id bigint not null, balance bigint not null, primary key(customer_id));
create table checking(customer_id bigint not null, balance bigint not null, primary key(customer_id));
create table ledger(transfer_id bigint not null, customer_id bigint not null, payee bigint not null,
    amount bigint not null, primary key(transfer_id))";

pub const VSCHEMA: &str = r#"{"sharded": true, "vindexes": {"hash": {"type": "hash"}}, "tables": {
    "savings": {"column_vindexes": [{"column": "customer_id", "name": "hash"}]},
    "checking": {"column_vindexes": [{"column": "customer_id", "name": "hash"}]},
    "ledger": {"column_vindexes": [{"column": "customer_id", "name": "hash"}]}}}"#;

const TABLES: [&str; 2] = ["savings", "checking"];
const CUSTOMERS: u64 = 500;
const OPENING: i64 = 1000;
/// Customers of a branch.
const BRANCH: u64 = 5;
/// Between two transactions of a client: others need the cores too.
const PAUSE: Duration = Duration::from_millis(10);
/// A client of the bank asks this often for everybody's total.
const AUDIT: Duration = Duration::from_millis(400);

/// An account: the customer, and which of the tables. In this order accounts are locked.
type Account = (u64, usize);

/// What was acknowledged.
#[derive(Default)]
struct Book {
    balances: BTreeMap<Account, i64>,
    /// Payer, payee and amount of each transfer.
    ledger: BTreeMap<u64, (u64, u64, i64)>,
}

struct Shared {
    stop: AtomicBool,
    done: AtomicU64,
    /// Of a transaction since it was last asked for, in microseconds.
    longest: AtomicU64,
    book: Mutex<Book>,
    errors: Mutex<Vec<String>>,
    /// Clients hold it for a transaction; who holds it alone sees a bank in which nothing is under way.
    open: RwLock<()>,
}

/// The clients.
pub struct Tellers {
    runtime: tokio::runtime::Runtime,
    params: ConnectParams,
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<()>>,
}

impl Tellers {
    /// Opens the accounts, and lets clients of the keyspace `customer` work at vtgate's MySQL port.
    pub fn start(port: u16, clients: u64) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let params = ConnectParams::tcp("127.0.0.1", port, "teller").database("customer");
        let accounts = (1..=CUSTOMERS).flat_map(|customer| [(customer, 0), (customer, 1)]);
        let book = Book { balances: accounts.map(|account| (account, OPENING)).collect(), ..Book::default() };
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            done: AtomicU64::new(0),
            longest: AtomicU64::new(0),
            book: Mutex::new(book),
            errors: Mutex::default(),
            open: RwLock::default(),
        });
        runtime.block_on(async {
            let mut connection = Connection::connect(&params).await?;
            let values: Vec<String> = (1..=CUSTOMERS).map(|customer| format!("({customer}, {OPENING})")).collect();
            for table in TABLES {
                let insert = format!("insert into {table}(customer_id, balance) values {}", values.join(", "));
                connection.execute(&insert).await?;
            }
            anyhow::Ok(())
        })?;
        let roles = (0..clients).map(Role::teller).chain([Role::Auditor]);
        let clients = roles.map(|role| runtime.spawn(work(params.clone(), shared.clone(), role))).collect();
        Ok(Self { runtime, params, shared, clients })
    }

    /// Waits until the clients have done some more, so that something happens between two switches.
    pub fn wait_for_more(&self, more: u64) -> Result<()> {
        let goal = self.shared.done.load(Ordering::Relaxed) + more;
        testcluster::wait_for("the tellers to go on", Duration::from_secs(60), || {
            self.shared.done.load(Ordering::Relaxed) >= goal
        })
        .with_context(|| format!("errors so far: {:#?}", self.first_errors()))
    }

    /// How long the longest transaction took since this was asked last.
    pub fn longest(&self) -> Duration {
        Duration::from_micros(self.shared.longest.swap(0, Ordering::Relaxed))
    }

    fn first_errors(&self) -> Vec<String> {
        self.shared.errors.lock().expect("no panic under it").iter().take(5).cloned().collect()
    }

    /// Fails unless no client saw an error.
    pub fn expect_no_errors(&self) -> Result<()> {
        let count = self.shared.errors.lock().expect("no panic under it").len();
        ensure!(count == 0, "{count} client errors, such as {:#?}", self.first_errors());
        Ok(())
    }

    /// Nothing is under way until the guard is dropped.
    pub fn pause(&self) -> RwLockWriteGuard<'_, ()> {
        self.runtime.block_on(self.shared.open.write())
    }

    /// Compares what vtgate shows with the book; the clients are paused. Returns the number of transfers.
    pub fn check_through_vtgate(&self, _paused: &RwLockWriteGuard<'_, ()>) -> Result<usize> {
        self.expect_no_errors()?;
        let (count, sum, balances) = self.runtime.block_on(async {
            let mut connection = Connection::connect(&self.params).await?;
            let ledger = ask(&mut connection, "select count(*), sum(transfer_id) from ledger").await?;
            let [row] = &ledger[..] else { anyhow::bail!("{ledger:?}") };
            let mut balances = BTreeMap::new();
            for (index, table) in TABLES.iter().enumerate() {
                for row in ask(&mut connection, &format!("select customer_id, balance from {table}")).await? {
                    let customer = u64::try_from(row[0])?;
                    ensure!(balances.insert((customer, index), row[1]).is_none(), "{table} {customer} is there twice");
                }
            }
            Ok((row[0], row[1], balances))
        })?;
        let book = self.shared.book.lock().expect("no panic under it");
        let wrong = book.balances.iter().filter(|(account, balance)| balances.get(account) != Some(balance));
        let wrong: Vec<_> = wrong.take(5).map(|(account, want)| (account, want, balances.get(account))).collect();
        ensure!(wrong.is_empty(), "balances that are not what was acknowledged: {wrong:?}");
        ensure!(balances.len() == book.balances.len(), "{} accounts", balances.len());
        let wanted = (book.ledger.len() as i64, book.ledger.keys().sum::<u64>() as i64);
        ensure!((count, sum) == wanted, "the ledger has {:?}, acknowledged were {wanted:?}", (count, sum));
        Ok(book.ledger.len())
    }

    /// Compares the rows of the masters that serve, lines of columns separated by tabs, with the book; the clients
    /// are paused.
    pub fn check_rows(&self, _paused: &RwLockWriteGuard<'_, ()>, rows: impl Fn(&str) -> Result<String>) -> Result<()> {
        let book = self.shared.book.lock().expect("no panic under it");
        let mut ledger = BTreeMap::new();
        for line in rows("select transfer_id, customer_id, payee, amount from vt_customer.ledger")?.lines() {
            let columns: Vec<i64> = line.split('\t').map(str::parse).collect::<Result<_, _>>().context("a row")?;
            let [id, payer, payee, amount] = columns[..] else { anyhow::bail!("{line}") };
            let transfer = (payer.cast_unsigned(), payee.cast_unsigned(), amount);
            ensure!(ledger.insert(id.cast_unsigned(), transfer).is_none(), "transfer {id} is there twice");
        }
        let lost: Vec<_> =
            book.ledger.iter().filter(|(id, transfer)| ledger.get(id) != Some(transfer)).take(5).collect();
        let extra: Vec<_> = ledger.keys().filter(|id| !book.ledger.contains_key(id)).take(5).collect();
        ensure!(lost.is_empty() && extra.is_empty(), "transfers lost or changed {lost:?}, too many {extra:?}");
        Ok(())
    }

    /// Ends the clients.
    pub fn finish(self) -> Result<()> {
        self.shared.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            self.runtime.block_on(client).context("a client panicked")?;
        }
        Ok(())
    }
}

/// What a client does again and again.
enum Role {
    /// Mostly transfers, sometimes a look at a branch.
    Teller { random: Random, number: u64, step: u64 },
    /// Asks for everybody's total when nothing is under way: each acknowledged transfer is there as a whole.
    Auditor,
}

impl Role {
    fn teller(number: u64) -> Self {
        Self::Teller { random: Random(0x9e37_79b9_7f4a_7c15 ^ (number + 1)), number, step: 0 }
    }

    async fn transaction(&mut self, connection: &mut Connection, shared: &Shared) -> Result<()> {
        let Self::Teller { random, number, step } = self else {
            let _alone = shared.open.write().await;
            return audit_bank(connection).await;
        };
        *step += 1;
        let _open = shared.open.read().await;
        let start = Instant::now();
        let outcome = if random.below(8) == 0 {
            audit_branch(connection, random.below(CUSTOMERS / BRANCH)).await
        } else {
            let transfer = Transfer::random(random, (*number + 1) * 100_000_000 + *step);
            transfer.run(connection).await.map(|()| transfer.enter(&mut shared.book.lock().expect("no panic under it")))
        };
        let took = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
        shared.longest.fetch_max(took, Ordering::Relaxed);
        shared.done.fetch_add(1, Ordering::Relaxed);
        outcome
    }

    fn pause(&self) -> Duration {
        match self {
            Self::Teller { .. } => PAUSE,
            Self::Auditor => AUDIT,
        }
    }
}

/// Runs a client's transactions until it is told to stop. After an error it goes on with a new connection, which
/// has nothing left of the failed transaction.
async fn work(params: ConnectParams, shared: Arc<Shared>, mut role: Role) {
    let mut connection = None;
    while !shared.stop.load(Ordering::Relaxed) {
        let outcome = async {
            let mut current = match connection.take() {
                Some(connection) => connection,
                None => Connection::connect(&params).await.context("connect")?,
            };
            role.transaction(&mut current, &shared).await?;
            anyhow::Ok(current)
        };
        match outcome.await {
            Ok(current) => connection = Some(current),
            Err(error) => shared.errors.lock().expect("no panic under it").push(format!("{error:#}")),
        }
        tokio::time::sleep(role.pause()).await;
    }
}

/// The integers of a result.
async fn ask(connection: &mut Connection, sql: &str) -> Result<Vec<Vec<i64>>> {
    let result = connection.execute(sql).await.with_context(|| sql.to_owned())?;
    let row = |row: &vtproto::query::Row| {
        let mut rest = std::str::from_utf8(&row.values)?;
        let mut values = Vec::with_capacity(row.lengths.len());
        for length in &row.lengths {
            let (value, others) = rest.split_at(usize::try_from(*length).context("NULL")?);
            values.push(value.parse().with_context(|| value.to_owned())?);
            rest = others;
        }
        Ok(values)
    };
    result.rows.iter().map(row).collect()
}

/// One transfer of money.
struct Transfer {
    id: u64,
    from: Account,
    to: Account,
    amount: i64,
}

impl Transfer {
    fn random(random: &mut Random, id: u64) -> Self {
        let first = 1 + random.below(CUSTOMERS / BRANCH) * BRANCH;
        let payer = first + random.below(BRANCH);
        let table = random.index(2);
        // Between the accounts of one customer: one shard.
        let to = if random.below(4) == 0 {
            (payer, 1 - table)
        } else {
            (first + (payer - first + 1 + random.below(BRANCH - 1)) % BRANCH, random.index(2))
        };
        Self { id, from: (payer, table), to, amount: 1 + random.below(50).cast_signed() }
    }

    async fn run(&self, connection: &mut Connection) -> Result<()> {
        let (from, to, amount) = (self.from, self.to, self.amount);
        connection.execute("begin").await.context("begin")?;
        for account in [from.min(to), from.max(to)] {
            let (customer, table) = (account.0, TABLES[account.1]);
            let lock = format!("select balance from {table} where customer_id = {customer} for update");
            let rows = ask(connection, &lock).await?;
            ensure!(rows.len() == 1, "{lock}: {} rows", rows.len());
            let change = if account == from { -amount } else { amount };
            let update = format!(
                "update {table} set balance = {} where customer_id = {customer}",
                rows[0][0].checked_add(change).context("a balance")?
            );
            connection.execute(&update).await.with_context(|| update.clone())?;
        }
        let entry = format!(
            "insert into ledger(transfer_id, customer_id, payee, amount) values({}, {}, {}, {amount})",
            self.id, from.0, to.0
        );
        connection.execute(&entry).await.with_context(|| entry.clone())?;
        connection.execute("commit").await.with_context(|| format!("commit of transfer {}", self.id))?;
        Ok(())
    }

    /// It was acknowledged.
    fn enter(&self, book: &mut Book) {
        for (account, change) in [(self.from, -self.amount), (self.to, self.amount)] {
            *book.balances.entry(account).or_default() += change;
        }
        book.ledger.insert(self.id, (self.from.0, self.to.0, self.amount));
    }
}

async fn audit_bank(connection: &mut Connection) -> Result<()> {
    let mut total = 0;
    for table in TABLES {
        let rows = ask(connection, &format!("select count(*), sum(balance) from {table}")).await?;
        ensure!(rows.len() == 1 && rows[0][0] == CUSTOMERS as i64, "{table} shows {rows:?}");
        total += rows[0][1];
    }
    let wanted = 2 * CUSTOMERS as i64 * OPENING;
    ensure!(total == wanted, "the total is {total} instead of {wanted}");
    Ok(())
}

/// A branch's total, read under locks in the midst of transfers.
async fn audit_branch(connection: &mut Connection, branch: u64) -> Result<()> {
    connection.execute("begin").await.context("begin")?;
    let mut total = 0;
    for customer in (1..=BRANCH).map(|number| branch * BRANCH + number) {
        for table in TABLES {
            let lock = format!("select balance from {table} where customer_id = {customer} for update");
            let rows = ask(connection, &lock).await?;
            ensure!(rows.len() == 1, "{lock}: {} rows", rows.len());
            total += rows[0][0];
        }
    }
    connection.execute("commit").await.context("commit of an audit")?;
    let wanted = 2 * BRANCH as i64 * OPENING;
    ensure!(total == wanted, "the total of branch {branch} is {total} instead of {wanted}");
    Ok(())
}

/// xorshift64*: the same choices in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }

    fn index(&mut self, bound: usize) -> usize {
        self.below(bound as u64) as usize
    }
}
