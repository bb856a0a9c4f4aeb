//! Clients that go on through a cutover, and what must be true of their rows afterwards.
//!
//! Writers keep account of what was acknowledged: every acknowledged insert is there once, every
//! acknowledged delete is gone, every acknowledged increment of a hot row counts, and nothing else is
//! there. Readers ask for rows that exist all the time.

#![allow(dead_code, reason = "each test program uses a part")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mysql::{ConnectParams, Connection};
use tokio::task::JoinHandle;

/// Rows that every writer changes; they exist before the load begins.
pub const HOT: u64 = 4;

/// What a command prints that has to succeed.
pub fn ok(cluster: &testcluster::Cluster, args: &[&str]) -> Result<String> {
    Ok(cluster.vtctlclient(args)?.success()?.stdout)
}

/// Where the binary log of a shard's master is.
pub fn master_position(cluster: &testcluster::Cluster, shard: &str) -> Result<String> {
    let positions = ok(cluster, &["ShardReplicationPositions", shard])?;
    let master = positions.lines().find(|line| line.contains(" master ")).context("a master")?;
    Ok(master.split(' ').rev().nth(1).context("a position")?.to_owned())
}

/// What makes them, in `customer` and `corder`.
pub fn hot_rows() -> Vec<String> {
    (1..=HOT)
        .flat_map(|id| {
            [
                format!("insert into customer(customer_id, email) values({id}, 'hot{id}')"),
                format!("insert into corder(order_id, customer_id, sku, price) values({id}, {id}, 'hot', 0)"),
            ]
        })
        .collect()
}

/// How long one statement or transaction of a client took, and when it began.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// Number of the client.
    pub client: usize,
    pub start: Instant,
    pub took: Duration,
}

#[derive(Default)]
struct Account {
    /// Acknowledged and not deleted.
    customers: BTreeSet<u64>,
    orders: BTreeSet<u64>,
    increments: BTreeMap<u64, u64>,
    unknown: Unknown,
    errors: Vec<String>,
    samples: Vec<Sample>,
}

/// What failed and may all the same have been done: statements that commit, whose answer did not come. All of it is
/// empty where no client saw an error.
#[derive(Default)]
pub struct Unknown {
    customers: BTreeSet<u64>,
    deletes: BTreeSet<u64>,
    orders: BTreeSet<u64>,
    increments: BTreeMap<u64, u64>,
}

/// Running clients.
pub struct Load {
    runtime: tokio::runtime::Runtime,
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Account>>,
}

/// What all clients together did.
pub struct Outcome {
    pub customers: BTreeSet<u64>,
    pub orders: BTreeSet<u64>,
    pub increments: BTreeMap<u64, u64>,
    pub unknown: Unknown,
    pub errors: Vec<String>,
    pub samples: Vec<Sample>,
}

impl Load {
    /// Starts clients of the keyspace `customer` at vtgate's MySQL port.
    pub fn start(port: u16, writers: u64, readers: u64) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let stop = Arc::new(AtomicBool::new(false));
        let done = Arc::new(AtomicU64::new(0));
        let mut clients = Vec::new();
        for number in 0..writers {
            clients.push(runtime.spawn(client(clients.len(), port, stop.clone(), done.clone(), Kind::Writer(number))));
        }
        for _ in 0..readers {
            clients.push(runtime.spawn(client(clients.len(), port, stop.clone(), done.clone(), Kind::Reader)));
        }
        Ok(Self { runtime, stop, done, clients })
    }

    /// Statements and transactions that succeeded so far.
    pub fn count(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Waits until the clients have done some more, so that something happens between two switches.
    pub fn wait_for_more(&self, more: u64) -> Result<()> {
        let goal = self.count() + more;
        testcluster::wait_for("the clients to go on", Duration::from_secs(60), || self.count() >= goal)
    }

    /// As many periods as there were switches, each as long as one of them, in which nothing is switched: how long
    /// clients wait anyway.
    pub fn periods_without(&self, switches: &[(Instant, Instant)]) -> Result<Vec<(Instant, Instant)>> {
        let mut periods = Vec::new();
        for (from, to) in switches {
            let start = Instant::now();
            std::thread::sleep(*to - *from);
            periods.push((start, Instant::now()));
            self.wait_for_more(200)?;
        }
        Ok(periods)
    }

    pub fn finish(self) -> Result<Outcome> {
        self.stop.store(true, Ordering::Relaxed);
        let mut outcome = Outcome {
            customers: (1..=HOT).collect(),
            orders: (1..=HOT).collect(),
            increments: BTreeMap::new(),
            unknown: Unknown::default(),
            errors: Vec::new(),
            samples: Vec::new(),
        };
        for client in self.clients {
            let account = self.runtime.block_on(client).context("a client panicked")?;
            outcome.customers.extend(account.customers);
            outcome.orders.extend(account.orders);
            for (row, count) in account.increments {
                *outcome.increments.entry(row).or_default() += count;
            }
            outcome.unknown.customers.extend(account.unknown.customers);
            outcome.unknown.deletes.extend(account.unknown.deletes);
            outcome.unknown.orders.extend(account.unknown.orders);
            for (row, count) in account.unknown.increments {
                *outcome.unknown.increments.entry(row).or_default() += count;
            }
            outcome.errors.extend(account.errors);
            outcome.samples.extend(account.samples);
        }
        Ok(outcome)
    }
}

impl Outcome {
    /// Fails unless no client saw an error.
    pub fn expect_no_errors(&self) -> Result<()> {
        let first: Vec<&String> = self.errors.iter().take(5).collect();
        ensure!(self.errors.is_empty(), "{} client errors, such as {first:#?}", self.errors.len());
        Ok(())
    }

    /// Compares with the rows of all masters that serve: lines of `id` of customers, and of `id\tprice`
    /// of orders.
    pub fn expect_rows(&self, customers: &str, orders: &str) -> Result<()> {
        let mut seen = BTreeSet::new();
        for line in customers.lines() {
            let id: u64 = line.trim().parse().with_context(|| format!("customer {line:?}"))?;
            ensure!(seen.insert(id), "customer {id} is there twice");
        }
        let lost: Vec<_> =
            self.customers.difference(&seen).filter(|id| !self.unknown.deletes.contains(id)).take(5).collect();
        let extra: Vec<_> =
            seen.difference(&self.customers).filter(|id| !self.unknown.customers.contains(id)).take(5).collect();
        ensure!(lost.is_empty() && extra.is_empty(), "customers lost {lost:?}, too many {extra:?}");
        let mut prices = BTreeMap::new();
        for line in orders.lines() {
            let (id, price) = line.trim().split_once('\t').with_context(|| format!("order {line:?}"))?;
            let (id, price): (u64, u64) = (id.parse()?, price.parse()?);
            ensure!(prices.insert(id, price).is_none(), "order {id} is there twice");
        }
        let seen: BTreeSet<u64> = prices.keys().copied().collect();
        let lost: Vec<_> = self.orders.difference(&seen).take(5).collect();
        let extra: Vec<_> =
            seen.difference(&self.orders).filter(|id| !self.unknown.orders.contains(id)).take(5).collect();
        ensure!(lost.is_empty() && extra.is_empty(), "orders lost {lost:?}, too many {extra:?}");
        for row in 1..=HOT {
            let wanted = self.increments.get(&row).copied().unwrap_or(0);
            let most = wanted + self.unknown.increments.get(&row).copied().unwrap_or(0);
            let shown = prices[&row];
            ensure!(
                (wanted..=most).contains(&shown),
                "hot row {row} was incremented {wanted} times (at most {most}) and shows {shown}"
            );
        }
        Ok(())
    }

    /// Prints how long clients waited, and the stalls: for each switch and client the longest operation that was under way
    /// during the switch.
    pub fn print_stalls(&self, switches: &[(Instant, Instant)]) {
        self.print_longest("switch", switches);
    }

    /// The same of periods of another name.
    pub fn print_longest(&self, name: &str, switches: &[(Instant, Instant)]) {
        let under_way = |sample: &&Sample, (from, to): &(Instant, Instant)| {
            sample.start < *to && sample.start + sample.took > *from
        };
        let (inside, outside): (Vec<&Sample>, Vec<&Sample>) =
            self.samples.iter().partition(|sample| switches.iter().any(|switch| under_way(sample, switch)));
        for (what, samples) in [("operations meanwhile", inside), ("operations otherwise", outside)] {
            print_times(what, samples.iter().map(|sample| sample.took).collect());
        }
        let mut stalls = Vec::new();
        for (number, switch) in switches.iter().enumerate() {
            let mut longest: BTreeMap<usize, Duration> = BTreeMap::new();
            for sample in self.samples.iter().filter(|sample| under_way(sample, switch)) {
                let known = longest.entry(sample.client).or_default();
                *known = sample.took.max(*known);
            }
            let most = longest.values().max().copied().unwrap_or_default();
            println!("  {name} {number}: took {:?}, longest stall {most:?}", switch.1 - switch.0);
            stalls.extend(longest.into_values());
        }
        print_times(&format!("stalls (longest operation of each client in each {name})"), stalls.clone());
        stalls.sort();
        println!("stalls: p99 {:?}, max {:?}", at(&stalls, 0.99), at(&stalls, 1.0));
    }
}

fn at(sorted: &[Duration], share: f64) -> Duration {
    let index = (sorted.len() as f64 * share) as usize;
    sorted.get(index.min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
}

fn print_times(what: &str, mut times: Vec<Duration>) {
    times.sort();
    println!(
        "{what}: {}, p50 {:?} p90 {:?} p99 {:?} max {:?}",
        times.len(),
        at(&times, 0.5),
        at(&times, 0.9),
        at(&times, 0.99),
        at(&times, 1.0)
    );
    let mut from = Duration::ZERO;
    for to in [1, 5, 10, 20, 50, 100, 200, 500, 1000, 5000, 60_000].map(Duration::from_millis) {
        let count = times.iter().filter(|time| **time >= from && **time < to).count();
        if count > 0 {
            println!("  {from:>6?} to {to:>6?}: {count}");
        }
        from = to;
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Writer(u64),
    Reader,
}

async fn client(number: usize, port: u16, stop: Arc<AtomicBool>, done: Arc<AtomicU64>, kind: Kind) -> Account {
    let mut account = Account::default();
    let params = ConnectParams::tcp("127.0.0.1", port, "load").database("customer");
    let mut connection = None;
    let mut step = 0;
    while !stop.load(Ordering::Relaxed) {
        let mut current = match connection.take() {
            Some(connection) => connection,
            None => match Connection::connect(&params).await {
                Ok(connection) => connection,
                Err(error) => {
                    account.errors.push(format!("connect: {error}"));
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        step += 1;
        let start = Instant::now();
        let outcome = match kind {
            Kind::Writer(writer) => write(&mut current, &mut account, writer, step).await,
            Kind::Reader => read(&mut current, step).await,
        };
        account.samples.push(Sample { client: number, start, took: start.elapsed() });
        match outcome {
            Ok(()) => {
                done.fetch_add(1, Ordering::Relaxed);
                connection = Some(current);
            }
            // A new connection: nothing of a failed transaction is left.
            Err(error) => account.errors.push(error),
        }
    }
    account
}

async fn run(connection: &mut Connection, sql: &str) -> Result<vtproto::query::QueryResult, String> {
    connection.execute(sql).await.map_err(|error| format!("{sql}: {error}"))
}

/// One of five things a writer does, on its own rows and on the hot ones.
async fn write(connection: &mut Connection, account: &mut Account, writer: u64, step: u64) -> Result<(), String> {
    let id = (writer + 1) * 1_000_000 + step;
    match step % 5 {
        0 | 1 => {
            let insert = format!("insert into customer(customer_id, email) values({id}, 'w{writer}')");
            run(connection, &insert).await.inspect_err(|_| {
                account.unknown.customers.insert(id);
            })?;
            account.customers.insert(id);
        }
        2 => {
            let hot = 1 + step / 5 % HOT;
            run(connection, "begin").await?;
            let order = format!("insert into corder(order_id, customer_id, sku, price) values({id}, {hot}, 's', 7)");
            run(connection, &order).await?;
            let increment =
                format!("update corder set price = price + 1 where order_id = {hot} and customer_id = {hot}");
            run(connection, &increment).await?;
            run(connection, "commit").await.inspect_err(|_| {
                account.unknown.orders.insert(id);
                *account.unknown.increments.entry(hot).or_default() += 1;
            })?;
            account.orders.insert(id);
            *account.increments.entry(hot).or_default() += 1;
        }
        3 => {
            let Some(own) = account.customers.last().copied() else { return Ok(()) };
            run(connection, &format!("update customer set email = 'u{step}' where customer_id = {own}")).await?;
        }
        _ => {
            let Some(own) = account.customers.difference(&account.unknown.deletes).next().copied() else {
                return Ok(());
            };
            let delete = format!("delete from customer where customer_id = {own}");
            // Whatever comes of it, it is not tried again.
            run(connection, &delete).await.inspect_err(|_| {
                account.unknown.deletes.insert(own);
            })?;
            account.customers.remove(&own);
        }
    }
    Ok(())
}

async fn read(connection: &mut Connection, step: u64) -> Result<(), String> {
    let hot = 1 + step % HOT;
    let result = run(connection, &format!("select email from customer where customer_id = {hot}")).await?;
    match result.rows.len() {
        1 => Ok(()),
        rows => Err(format!("customer {hot} shows {rows} rows")),
    }
}
