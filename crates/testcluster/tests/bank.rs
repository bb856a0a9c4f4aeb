//! A bank whose keyspace is split and merged while it works: 0 to {-80, 80-} to four shards (on MariaDB) and all the way back.
//!
//! `VT_TEST_BANK_ROUNDS` is how often (1). A round goes both ways that there are: copying by SplitClone, and
//! along the streams that a switch with `-reverse_replication` leaves behind.

mod tellers;

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use tellers::Tellers;
use testcluster::{Cluster, Flavor, Spec, TabletSpec};

/// Every shard that there is at some time, with the uid of its first tablet.
const SHARDS: [(&str, u32); 7] =
    [("0", 200), ("-80", 300), ("80-", 400), ("-40", 500), ("40-80", 600), ("80-c0", 700), ("c0-", 800)];
const WHOLE: &[&str] = &["0"];
const HALVES: &[&str] = &["-80", "80-"];
const QUARTERS: &[&str] = &["-40", "40-80", "80-c0", "c0-"];
const CLIENTS: u64 = 8;

/// How far the bank is split. To four shards it takes 21 mysqlds, and what is done with them is the same as with two.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Depth {
    Halves,
    Quarters,
}

struct Bank {
    cluster: Cluster,
    tellers: Option<Tellers>,
    started: Instant,
}

impl Bank {
    fn open(flavor: Flavor) -> Result<Self> {
        let mut spec = Spec::keyspaces(flavor, tablets("0"));
        spec.semi_sync = true;
        spec.schema = vec![("customer".into(), tellers::SCHEMA.into())];
        spec.vschema = vec![("customer".into(), tellers::VSCHEMA.into())];
        let spec = spec
            .vtctld_flag("-wait_for_drain_sleep_rdonly=0s")
            .vtctld_flag("-wait_for_drain_sleep_replica=0s")
            .vtgate_flag("-transaction_mode=TWOPC")
            .vttablet_flag("-twopc_enable")
            // What is left of a transaction is a fault, not to be covered up.
            .vttablet_flag("-twopc_abandon_age=3600");
        let cluster = Cluster::start_with(spec, |cluster| {
            let coordinator = format!("-twopc_coordinator_address=127.0.0.1:{}", cluster.vtgate_grpc_port);
            cluster.spec.vttablet_flags.push(coordinator);
        })?;
        let tellers = Tellers::start(cluster.vtgate_mysql_port, CLIENTS)?;
        Ok(Self { cluster, tellers: Some(tellers), started: Instant::now() })
    }

    fn tellers(&self) -> &Tellers {
        self.tellers.as_ref().expect("the bank is open")
    }

    fn say(&self, text: &str) {
        println!("{:6.1} s: {text}", self.started.elapsed().as_secs_f64());
    }

    fn vtctl(&self, words: &[&str]) -> Result<String> {
        Ok(self.cluster.vtctlclient(words)?.success()?.stdout)
    }

    /// Indices of the tablets of a shard; the first is its master.
    fn tablets_of(&self, shard: &str) -> Vec<usize> {
        let tablets = self.cluster.tablets.iter().enumerate();
        tablets.filter(|(_, tablet)| tablet.spec.shard == shard).map(|(index, _)| index).collect()
    }

    /// Gives shards tablets: new ones, or those that it had before, with the rows of then.
    fn bring_up(&mut self, shards: &[&str]) -> Result<()> {
        let new: Vec<TabletSpec> =
            shards.iter().filter(|shard| self.tablets_of(shard).is_empty()).flat_map(|shard| tablets(shard)).collect();
        if !new.is_empty() {
            self.cluster.add_tablets(new)?;
        }
        for shard in shards {
            let tablets = self.tablets_of(shard);
            if self.cluster.tablets[tablets[0]].vttablet.is_some() {
                continue;
            }
            for index in &tablets {
                self.cluster.start_vttablet(*index)?;
            }
            let alias = self.cluster.tablets[tablets[0]].spec.alias();
            self.vtctl(&["InitShardMaster", "-force", &format!("customer/{shard}"), &alias])?;
        }
        self.say(&format!("{shards:?} are up"));
        Ok(())
    }

    /// Ends shards that do not serve any more, as an operator does.
    fn retire(&mut self, shards: &[&str]) -> Result<()> {
        self.vtctl(&["CancelResharding", &format!("customer/{}", shards[0])])?;
        for shard in shards {
            for index in self.tablets_of(shard) {
                self.cluster.kill_vttablet(index);
            }
            self.vtctl(&["DeleteShard", "-recursive", &format!("customer/{shard}")])?;
        }
        self.say(&format!("{shards:?} are gone"));
        Ok(())
    }

    /// Copies what `sources` hold into `targets`, by a clone of each group of shards.
    fn copy(&self, sources: &[&str], targets: &[&str]) -> Result<()> {
        for target in targets {
            self.vtctl(&["CopySchemaShard", &format!("customer/{}", sources[0]), &format!("customer/{target}")])?;
        }
        for group in groups(sources, targets) {
            let clone = ["SplitClone", "-min_healthy_rdonly_tablets=1", &format!("customer/{}", group[0])];
            self.cluster.vtworker(&clone)?.success()?;
        }
        for target in targets {
            self.vtctl(&["WaitForFilteredReplication", &format!("customer/{target}")])?;
        }
        self.say(&format!("{sources:?} are copied to {targets:?}"));
        Ok(())
    }

    /// Compares shards with everything that they are fed by.
    fn compare(&self, targets: &[&str]) -> Result<()> {
        for target in targets {
            let shard = format!("customer/{target}");
            let record: serde_json::Value = serde_json::from_str(&self.vtctl(&["GetShard", &shard])?)?;
            let sources = record["source_shards"].as_array().context("source_shards")?;
            ensure!(!sources.is_empty(), "{shard} is not fed");
            for source in sources {
                let uid = format!("-source_uid={}", source["uid"]);
                self.cluster.vtworker(&["SplitDiff", "-min_healthy_rdonly_tablets=1", &uid, &shard])?.success()?;
            }
        }
        self.say(&format!("{targets:?} hold the same as what they are fed by"));
        Ok(())
    }

    /// Lets `targets` serve instead of `sources`, and checks everything.
    fn switch(&self, sources: &[&str], targets: &[&str]) -> Result<()> {
        self.tellers().wait_for_more(100)?;
        for served_type in ["rdonly", "replica"] {
            for group in groups(sources, targets) {
                self.vtctl(&["MigrateServedTypes", &format!("customer/{}", group[0]), served_type])?;
            }
        }
        self.tellers().longest();
        let start = Instant::now();
        for group in groups(sources, targets) {
            let shard = format!("customer/{}", group[0]);
            self.vtctl(&["MigrateServedTypes", "-reverse_replication", &shard, "master"])?;
        }
        let took = start.elapsed();
        self.tellers().wait_for_more(100)?;
        let longest = self.tellers().longest();
        self.say(&format!("{targets:?} serve: took {took:.0?}, longest transaction {longest:.0?}"));
        self.check(targets)
    }

    /// Nothing is lost, nothing is there twice, and nothing of a transaction is left, with these shards serving.
    fn check(&self, serving: &[&str]) -> Result<()> {
        let paused = self.tellers().pause();
        let masters: Vec<usize> = serving.iter().map(|shard| self.tablets_of(shard)[0]).collect();
        let all = |sql: &str| -> Result<String> {
            masters.iter().map(|index| Ok(self.cluster.mysql_on_tablet(*index, sql)?.stdout)).collect()
        };
        let transfers = self.tellers().check_through_vtgate(&paused)?;
        self.tellers().check_rows(&paused, all)?;
        for table in ["dt_state", "dt_participant", "redo_state", "redo_statement"] {
            let left = all(&format!("select * from _vt.{table}"))?;
            ensure!(left.is_empty(), "{table}: {left}");
        }
        self.say(&format!("{transfers} transfers are all there once, the total is right"));
        Ok(())
    }

    fn close(mut self) -> Result<()> {
        let tellers = self.tellers.take().expect("the bank is open");
        tellers.expect_no_errors()?;
        tellers.finish()
    }
}

/// A master, a replica and an rdonly.
fn tablets(shard: &str) -> Vec<TabletSpec> {
    let (_, base) = SHARDS.into_iter().find(|(name, _)| *name == shard).expect("a shard of the bank");
    [(0, "replica"), (1, "replica"), (2, "rdonly")]
        .map(|(number, tablet_type)| TabletSpec::new(base + number, "customer", shard, tablet_type))
        .to_vec()
}

/// Shards that share rows are moved together; these are named by a source of each group.
fn groups<'a>(sources: &[&'a str], targets: &[&'a str]) -> Vec<Vec<&'a str>> {
    let halves = sources.len().min(targets.len());
    sources.chunks(sources.len() / halves).map(<[_]>::to_vec).collect()
}

/// Two shards to four, and back.
fn halves_to_quarters_and_back(bank: &mut Bank, round: u64) -> Result<()> {
    bank.bring_up(QUARTERS)?;
    bank.copy(HALVES, QUARTERS)?;
    bank.compare(QUARTERS)?;
    bank.switch(HALVES, QUARTERS)?;
    if round % 2 == 1 {
        // A merge by copying, over the rows of before.
        for half in HALVES {
            bank.retire(&[half])?;
        }
        bank.bring_up(HALVES)?;
        bank.copy(QUARTERS, HALVES)?;
    }
    bank.compare(HALVES)?;
    bank.switch(QUARTERS, HALVES)?;
    for half in [&QUARTERS[..2], &QUARTERS[2..]] {
        bank.retire(half)?;
    }
    Ok(())
}

fn rounds(flavor: Flavor, depth: Depth) -> Result<()> {
    let rounds = std::env::var("VT_TEST_BANK_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    let mut bank = Bank::open(flavor)?;
    for round in 0..rounds {
        bank.say(&format!("round {round}"));
        bank.bring_up(HALVES)?;
        bank.copy(WHOLE, HALVES)?;
        bank.compare(HALVES)?;
        bank.switch(WHOLE, HALVES)?;
        bank.compare(WHOLE)?;
        // Back and forth along the streams.
        bank.switch(HALVES, WHOLE)?;
        bank.switch(WHOLE, HALVES)?;
        bank.retire(WHOLE)?;

        if depth == Depth::Quarters {
            halves_to_quarters_and_back(&mut bank, round)?;
        }

        bank.bring_up(WHOLE)?;
        bank.copy(HALVES, WHOLE)?;
        bank.compare(WHOLE)?;
        bank.switch(HALVES, WHOLE)?;
        bank.retire(HALVES)?;
    }
    bank.close()
}

#[test]
fn the_total_is_constant_while_shards_are_split_and_merged() -> Result<()> {
    rounds(Flavor::MariaDb, Depth::Quarters)
}

#[test]
fn the_total_is_constant_while_shards_are_split_and_merged_on_mysql9() -> Result<()> {
    match Flavor::mysql9() {
        Some(flavor) => rounds(flavor, Depth::Halves),
        None => Ok(()),
    }
}
