//! A keyspace over two shards beside an unsharded one, as clients see it.

use std::time::Duration;

use anyhow::{Result, ensure};
use mysql::{ConnectParams, Connection};
use testcluster::{Cluster, Flavor, Spec, TabletSpec, wait_for};

const COMMERCE: &str = "
create table customer_seq(id int, next_id bigint, cache bigint, primary key(id)) comment 'vitess_sequence';
insert into customer_seq(id, next_id, cache) values(0, 1000, 100);
create table order_seq(id int, next_id bigint, cache bigint, primary key(id)) comment 'vitess_sequence';
insert into order_seq(id, next_id, cache) values(0, 1, 2);
create table product(sku varchar(128), description varchar(128), price bigint, primary key(sku));
create table note_seq(id int, next_id bigint, cache bigint, primary key(id)) comment 'vitess_sequence';
insert into note_seq(id, next_id, cache) values(0, 1, 10);
create table note(id bigint, body varchar(40), primary key(id));
create table email_lookup(email varchar(128), customer_id bigint unsigned, primary key(email));
";

const COMMERCE_VSCHEMA: &str = r#"{"tables": {
    "customer_seq": {"type": "sequence"}, "order_seq": {"type": "sequence"}, "note_seq": {"type": "sequence"},
    "product": {}, "email_lookup": {}, "note": {"auto_increment": {"column": "id", "sequence": "note_seq"}}}}"#;

const CUSTOMER: &str = "
create table customer(customer_id bigint not null, email varchar(128), name varchar(40) collate utf8mb4_general_ci, primary key(customer_id));
create table corder(order_id bigint not null, customer_id bigint, sku varchar(128), price bigint, primary key(order_id));
create table account(customer_id bigint not null, email varchar(128), visits int, primary key(customer_id));
create table nick(nick varchar(40), customer_id bigint not null, v int, primary key(customer_id, nick));
create table once(customer_id bigint not null, tag varchar(40), primary key(customer_id));
create table once_lookup(tag varchar(40), keyspace_id varbinary(128), primary key(tag));
create table nick_lookup(nick varchar(40), keyspace_id varbinary(128), primary key(nick));
create table tag(tag varchar(40), customer_id bigint, primary key(customer_id, tag));
create table tag_lookup(tag varchar(40), keyspace_id varbinary(128), primary key(tag, keyspace_id));
create table country(code char(2), name varchar(40), primary key(code));
";

const CUSTOMER_VSCHEMA: &str = r#"{"sharded": true,
    "vindexes": {
        "hash": {"type": "hash"},
        "email": {"type": "lookup_hash_unique", "owner": "account",
            "params": {"table": "commerce.email_lookup", "from": "email", "to": "customer_id"}},
        "nick": {"type": "consistent_lookup_unique", "owner": "nick",
            "params": {"table": "nick_lookup", "from": "nick", "to": "keyspace_id"}},
        "once": {"type": "consistent_lookup_unique", "owner": "once",
            "params": {"table": "once_lookup", "from": "tag", "to": "keyspace_id"}},
        "tag": {"type": "lookup", "owner": "tag",
            "params": {"table": "tag_lookup", "from": "tag", "to": "keyspace_id"}},
        "loose": {"type": "unicode_loose_md5"}},
    "tables": {
        "customer": {"column_vindexes": [{"column": "customer_id", "name": "hash"}],
            "auto_increment": {"column": "customer_id", "sequence": "customer_seq"}},
        "corder": {"column_vindexes": [{"column": "customer_id", "name": "hash"}],
            "auto_increment": {"column": "order_id", "sequence": "order_seq"}},
        "account": {"column_vindexes": [{"column": "customer_id", "name": "hash"}, {"column": "email", "name": "email"}]},
        "nick": {"column_vindexes": [{"column": "customer_id", "name": "hash"}, {"column": "nick", "name": "nick"}]},
        "nick_lookup": {"column_vindexes": [{"column": "nick", "name": "loose"}]},
        "once": {"column_vindexes": [{"column": "customer_id", "name": "hash"}, {"column": "tag", "name": "once"}]},
        "once_lookup": {"column_vindexes": [{"column": "tag", "name": "loose"}]},
        "tag": {"column_vindexes": [{"column": "customer_id", "name": "hash"}, {"column": "tag", "name": "tag"}]},
        "tag_lookup": {"column_vindexes": [{"column": "tag", "name": "loose"}]},
        "country": {"type": "reference"}}}"#;

fn start() -> Result<Cluster> {
    let tablets = vec![
        TabletSpec::new(100, "commerce", "0", "replica"),
        TabletSpec::new(200, "customer", "-80", "replica"),
        TabletSpec::new(300, "customer", "80-", "replica"),
    ];
    let mut spec = Spec::keyspaces(Flavor::MariaDb, tablets);
    spec.schema = vec![("commerce".into(), COMMERCE.into()), ("customer".into(), CUSTOMER.into())];
    spec.vschema = vec![("commerce".into(), COMMERCE_VSCHEMA.into()), ("customer".into(), CUSTOMER_VSCHEMA.into())];
    Cluster::start(spec)
}

/// What vtgate answers, rows as lines, values separated by blanks; an error's text.
fn ask(cluster: &Cluster, sql: &str) -> Result<String> {
    let finished = cluster.mysql(&["--comments", "--skip-table", "--batch", "--skip-column-names"], sql)?;
    let text = if finished.code == Some(0) { finished.stdout } else { finished.stderr };
    Ok(text.trim_end().replace('\t', " "))
}

/// Each statement with what it answers.
fn check(cluster: &Cluster, steps: &[(&str, &str)]) -> Result<()> {
    for (sql, want) in steps {
        let got = ask(cluster, sql)?;
        // What stands around an error is the same everywhere.
        let matches = got == *want || (want.starts_with('~') && got.contains(&want[1..]));
        assert!(matches, "{sql}\n  got: {got}\n want: {want}");
    }
    Ok(())
}

/// The rows of one shard, on its own mysqld.
fn on_shard(cluster: &Cluster, tablet: usize, sql: &str) -> Result<String> {
    Ok(cluster.mysql_on_tablet(tablet, sql)?.stdout.trim_end().replace('\t', " ").replace('\n', ","))
}

#[test]
fn statements_over_two_shards() -> Result<()> {
    let cluster = start()?;
    rows_and_sequences(&cluster)?;
    gathered(&cluster)?;
    lookups(&cluster)?;
    vindexes_as_tables(&cluster)?;
    transactions(&cluster)?;
    session_limits_and_directives(&cluster)?;
    tokio::runtime::Runtime::new()?.block_on(killed(&cluster))
}

fn rows_and_sequences(cluster: &Cluster) -> Result<()> {
    let database = "vt_customer";
    check(
        cluster,
        &[
            (
                "insert into customer(customer_id, email) values (1,'a@x'),(2,'b@x'),(3,'c@x'),(4,'d@x'),(5,'e@x'); \
                 select last_insert_id()",
                "0",
            ),
            // One value, several, NULL written out; the first of a statement is what last_insert_id() tells.
            ("insert into customer(email) values ('f@x'); select last_insert_id()", "1000"),
            (
                "insert into customer(customer_id, email) values (null,'g@x'),(7,'h@x'),(0,'i@x'); select last_insert_id()",
                "1001",
            ),
            ("select customer_id, email from customer where customer_id = 4", "4 d@x"),
            ("select email from customer where customer_id in (1, 4, 1002) order by customer_id", "a@x\nd@x\ni@x"),
            ("select count(*) from customer where customer_id = 4", "1"),
            ("select count(*) from customer where customer_id = null", "0"),
            ("select email from customer where customer_id = '4'", "d@x"),
            ("select email from customer where customer_id = 4.0", "d@x"),
            (
                "insert into corder(customer_id, sku, price) select customer_id, 'S', 5 from customer where customer_id = 4",
                "",
            ),
            ("select order_id, customer_id from corder where customer_id = 4", "1 4"),
            (
                "insert into note(body) values ('x'), ('y'); select last_insert_id(); select id, body from note",
                "1\n1 x\n2 y",
            ),
            ("insert into note(body) select sku from product", ""),
            ("update customer set name = 'n' where customer_id in (1, 4)", ""),
            ("update customer set customer_id = 9 where customer_id = 1", "~You can't update primary vindex columns"),
            ("update customer set name = 'n' limit 1", "~multi shard update with limit"),
            (
                "select c.customer_id, o.order_id from customer c join corder o on o.customer_id = c.customer_id where c.customer_id = 4",
                "4 1",
            ),
            ("insert into country values ('de', 'Deutschland'); select name from country", "Deutschland"),
            ("select row_count()", "0"),
            ("delete from customer where customer_id in (1000, 1001, 1002, 7)", ""),
        ],
    )?;
    let ids = "select customer_id from customer order by customer_id";
    assert_eq!(on_shard(cluster, 1, &format!("use {database}; {ids}"))?, "1,2,3,5");
    assert_eq!(on_shard(cluster, 2, &format!("use {database}; {ids}"))?, "4");
    for tablet in [1, 2] {
        assert_eq!(on_shard(cluster, tablet, "select code from vt_customer.country")?, "de");
    }
    Ok(())
}

/// Rows of both shards put together.
fn gathered(cluster: &Cluster) -> Result<()> {
    check(
        cluster,
        &[
            ("update customer set name = elt(customer_id, 'b', 'A', 'a', 'B', 'ä') where customer_id < 10", ""),
            ("select count(*) from customer", "5"),
            ("select customer_id from customer order by name, customer_id desc", "5\n3\n2\n4\n1"),
            ("select customer_id from customer order by customer_id desc limit 1, 2", "4\n3"),
            (
                "select name, count(*) c, sum(customer_id), min(email), avg(customer_id) from customer group by name order by c desc, name",
                "A 3 10 b@x 3.3333\nb 2 5 a@x 2.5000",
            ),
            ("select count(*), max(email) from customer where customer_id > 100", "0 NULL"),
            ("select count(distinct name) from customer", "2"),
            ("select distinct name from customer order by 1", "A\nb"),
            ("select 10 - customer_id as x from customer order by x + 1 limit 1, 2", "6\n7"),
            (
                "insert into corder(order_id, customer_id, sku, price) values (101, 1, 'P', 7), (102, 2, 'P', 8), (103, 5, 'Q', 9)",
                "",
            ),
            ("insert into product values ('P', 'Pen', 1), ('Q', 'Quill', 2)", ""),
            (
                "select c.email, p.description from customer c join corder o on o.customer_id = c.customer_id \
              join commerce.product p on p.sku = o.sku order by o.order_id",
                "a@x Pen\nb@x Pen\ne@x Quill",
            ),
            (
                "select a.customer_id, b.customer_id from customer a join customer b on b.customer_id = a.customer_id + 1 order by 1",
                "1 2\n2 3\n3 4\n4 5",
            ),
            (
                "select c.customer_id, o.price from customer c left join corder o on o.sku = 'P' and o.price = c.customer_id + 6 order by 1",
                "1 7\n2 8\n3 NULL\n4 NULL\n5 NULL",
            ),
            (
                "select customer_id from customer where customer_id in (select customer_id + 1 from customer) order by 1",
                "2\n3\n4\n5",
            ),
            (
                "select customer_id from customer where customer_id < 3 union select price from corder where price < 8 order by 1",
                "1\n2\n5\n7",
            ),
            (
                "with recursive n as (select 1 as i union all select i + 1 from n where i < 3) \
              select i, email from n join customer on customer_id = i order by i",
                "1 a@x\n2 b@x\n3 c@x",
            ),
            (
                "select t.n, count(*) from (select name as n from customer limit 4) t group by t.n having count(*) > 9",
                "",
            ),
            (
                "select customer_id, row_number() over (order by customer_id) from customer order by 1 limit 2",
                "1 1\n2 2",
            ),
            (
                "insert into corder(order_id, customer_id, sku) select customer_id + 500, customer_id, 'N' from customer order by 1 limit 2",
                "",
            ),
            ("select order_id from corder where sku = 'N' order by 1", "501\n502"),
            ("delete from corder where order_id > 100", ""),
            ("update customer set name = 'n'", ""),
        ],
    )
}

fn lookups(cluster: &Cluster) -> Result<()> {
    check(
        cluster,
        &[
            ("insert into account(customer_id, email) values (1, 'a@x'), (4, 'd@x')", ""),
            ("select customer_id from account where email = 'd@x'", "4"),
            ("select email, customer_id from commerce.email_lookup order by email", "a@x 1\nd@x 4"),
            ("update account set email = 'D@x.org' where customer_id = 4", ""),
            ("select email from commerce.email_lookup order by email", "a@x\nD@x.org"),
            ("insert into account(customer_id, email) values (5, 'a@x')", "~Duplicate entry"),
            ("select count(*) from account where customer_id = 5", "0"),
            ("delete from account where email = 'a@x'", ""),
            ("select email from commerce.email_lookup", "D@x.org"),
            ("insert ignore into account(customer_id, email) values (6, 'D@x.org'), (8, 'h@x')", ""),
            ("select customer_id from account where customer_id = 6", ""),
            ("select customer_id from account where customer_id = 8", "8"),
            (
                "insert into account(customer_id, email, visits) values (8, 'h@x', 1) on duplicate key update visits = 7; \
                 select visits from account where customer_id = 8",
                "7",
            ),
            (
                "insert into account(customer_id, email, visits) values (6, 'D@x.org', 1) on duplicate key update visits = 9",
                "~belongs to a row with another keyspace id",
            ),
            ("select count(*) from account where customer_id = 6 or visits = 9", "0"),
            // A row that is there already leaves nothing in lookup tables.
            ("insert ignore into account(customer_id, email) values (8, 'other'), (10, 'ten')", ""),
            (
                "insert into account(customer_id, email) values (8, 'another') on duplicate key update visits = 8; \
                 select email from commerce.email_lookup where email like '%other' or email in ('h@x', 'ten') order by 1",
                "h@x\nten",
            ),
            (
                "insert into account(customer_id, email) values (6, 'other'); delete from account where customer_id in (6, 10)",
                "",
            ),
            ("insert into nick(customer_id, nick, v) values (1, 'first', 1)", ""),
            ("insert into nick(customer_id, nick, v) values (1, 'first', 2) on duplicate key update v = 2", ""),
            ("select v from nick where nick = 'first'", "2"),
            (
                "insert into once(customer_id, tag) values (1, 'a'); insert ignore into once(customer_id, tag) values (1, 'b'), (4, 'c')",
                "",
            ),
            ("select tag from once_lookup order by tag", "a\nc"),
            (
                "begin; insert ignore into once(customer_id, tag) values (4, 'b'); commit; select tag from once_lookup order by tag",
                "a\nc",
            ),
            (
                "insert into once(customer_id, tag) values (5, 'b'); delete from once; select count(*) from once_lookup",
                "0",
            ),
            ("delete from nick where nick = 'first'", ""),
            // Consistent: a row left over in the lookup table is taken over, one in use is not.
            ("insert into nick(customer_id, nick) values (1, 'one')", ""),
            ("insert into nick(customer_id, nick) values (4, 'one')", "~duplicate entry"),
            ("select customer_id from nick where nick = 'one'", "1"),
            ("insert into nick_lookup(nick, keyspace_id) values ('stale', 'xxxxxxxx')", ""),
            ("insert into nick(customer_id, nick) values (4, 'stale')", ""),
            ("select customer_id from nick where nick = 'stale'", "4"),
            ("update nick set nick = 'uno' where customer_id = 1", ""),
            ("select customer_id from nick where nick = 'uno'", "1"),
            ("select nick from nick_lookup where nick = 'one'", ""),
            ("delete from nick where customer_id = 1", ""),
            ("select nick from nick_lookup where nick = 'uno'", ""),
            // Twice in one statement is twice, whether the owner has the first one yet or not.
            ("insert into nick(customer_id, nick) values (1, 'twin'), (4, 'twin')", "~duplicate entry"),
            ("insert into nick(customer_id, nick) values (1, 'twin'), (4, 'TWIN')", "~duplicate entry"),
            ("select count(*) from nick where nick = 'twin'", "0"),
            ("insert ignore into nick(customer_id, nick) values (1, 'twin'), (4, 'twin')", ""),
            ("select customer_id from nick where nick = 'twin'", "1"),
            (
                "insert into nick(customer_id, nick) values (4, 'twain'); update nick set nick = 'same' where customer_id in (1, 4) and nick like 'tw%'",
                "~duplicate entry",
            ),
            ("select nick from nick where nick like 'tw%' order by nick", "twain\ntwin"),
            (
                "delete from nick where nick in ('twin', 'twain'); select count(*) from nick_lookup where nick like 'tw%'",
                "0",
            ),
            // Not unique: one value on both shards.
            ("insert into tag(customer_id, tag) values (1, 'x'), (4, 'x'), (4, 'y')", ""),
            ("select customer_id from tag where tag = 'y'", "4"),
            ("delete from tag where tag = 'x'", ""),
            ("select tag from tag_lookup where tag = 'x'", ""),
            // Rows that are found by what the statement changes.
            (
                "update account set email = 'n@x' where email = 'D@x.org'; select customer_id from account where email = 'n@x'",
                "4",
            ),
            ("delete from account where email = 'h@x'; select count(*) from account where customer_id = 8", "0"),
            (
                "update account set email = 'q@x', email = 'n@x' where customer_id = 4; select email from commerce.email_lookup",
                "n@x",
            ),
            // What is left over is no duplicate for IGNORE either; what is in use is one by MySQL's number.
            ("insert into nick_lookup(nick, keyspace_id) values ('left', 'xxxxxxxx')", ""),
            ("insert ignore into nick(customer_id, nick) values (3, 'left'), (5, 'stale')", ""),
            ("select customer_id from nick where nick = 'left'", "3"),
            ("select count(*) from nick where customer_id = 5", "0"),
            ("insert into nick(customer_id, nick) values (4, 'left')", "~ERROR 1062 (23000)"),
            // Another spelling of the same value to the lookup table.
            ("update nick set nick = 'LEFT' where customer_id = 3; select nick from nick where nick = 'Left'", "LEFT"),
            ("delete from nick where customer_id = 3", ""),
            ("select count(*) from nick_lookup where nick = 'left'", "0"),
            // NULL is in no lookup table, and on any shard.
            (
                "insert into account(customer_id, email) values (10, null), (100, null); \
                 select email, count(*) from account where customer_id in (10, 100) group by email",
                "NULL 2",
            ),
            ("select distinct email from account where customer_id in (10, 100)", "NULL"),
            ("delete from account where email is null", ""),
            ("update country set name = 'x' where code in (select name from customer)", "~unsupported: "),
        ],
    )?;
    Ok(())
}

fn vindexes_as_tables(cluster: &Cluster) -> Result<()> {
    check(
        cluster,
        &[
            (
                "select id, hex(keyspace_id), range_start, range_end from hash where id = 1",
                "1 166B40B44ABA4BD6 NULL NULL",
            ),
            ("select hex(keyspace_id) as k from hash h where h.id = 4", "D2FD8867D50D2DFE"),
            ("insert into tag(customer_id, tag) values (1, 'v'), (4, 'v')", ""),
            ("select id, hex(keyspace_id) from tag where id = 'v'", "~Unknown column"),
            ("select hex(keyspace_id) from customer.email where id = 'nobody'", ""),
            (
                "select c.email, hex(h.keyspace_id) from hash h join customer c on c.customer_id = h.id where h.id = 4",
                "d@x D2FD8867D50D2DFE",
            ),
            (
                "select * from hash",
                "~where clause for vindex function must be of the form id = <val> (where clause missing)",
            ),
            ("select * from hash where id in (1, 2)", "~form id = <val> (not a comparison)"),
            ("delete from tag where tag = 'v'", ""),
        ],
    )
}

/// `sql_select_limit` bounds what clients are given, over all shards; directives.
fn session_limits_and_directives(cluster: &Cluster) -> Result<()> {
    check(
        cluster,
        &[
            ("set sql_select_limit = 2; select count(*) from (select customer_id from customer) c", "5"),
            ("set sql_select_limit = 2; select customer_id from customer order by customer_id", "1\n2"),
            (
                "set sql_select_limit = 1; insert into corder(order_id, customer_id) select customer_id + 700, customer_id from customer",
                "",
            ),
            ("select count(*) from corder where order_id > 700", "5"),
            // As in v5.0.1, each shard commits by itself.
            (
                "insert /*vt+ MULTI_SHARD_AUTOCOMMIT=1 */ into corder(order_id, customer_id) values (801, 1), (701, 4), (704, 4)",
                "~execInsertSharded: ",
            ),
            ("select order_id from corder where order_id > 800", "801"),
            ("delete /*vt+ MULTI_SHARD_AUTOCOMMIT=1 */ from corder where order_id > 700", ""),
            // A table's own columns, where the vschema has none.
            ("insert into corder values (900, 4, 'L', 1)", ""),
            ("insert into corder select order_id + 1, customer_id, sku, price from corder where order_id = 900", ""),
            ("select order_id, customer_id, sku from corder where order_id >= 900 order by 1", "900 4 L\n901 4 L"),
            ("insert into corder values (900, 4)", "~column list doesn't match values"),
            ("insert into note values (null, 'own'); select last_insert_id() > 0", "1"),
            ("delete from corder where order_id >= 900", ""),
        ],
    )
}

fn transactions(cluster: &Cluster) -> Result<()> {
    check(
        cluster,
        &[
            (
                "begin; update customer set name = 't1' where customer_id in (1, 4); rollback; \
              select name from customer where customer_id = 4",
                "n",
            ),
            (
                "begin; update customer set name = 't2' where customer_id = 1; update customer set name = 't2' where customer_id = 4; \
              commit; select name from customer where customer_id = 4",
                "t2",
            ),
            (
                "begin; insert into account(customer_id, email) values (2, 'b@x'); rollback; \
              select email from commerce.email_lookup where email = 'b@x'",
                "",
            ),
            (
                "begin; insert into nick(customer_id, nick) values (2, 'two'); select customer_id from nick where nick = 'two'; rollback; \
              select customer_id from nick where nick = 'two'",
                "2",
            ),
        ],
    )?;
    Ok(())
}

/// A statement in a task of its own; its error's number is 0 when it has none.
fn spawn(mut connection: Connection, sql: &'static str) -> tokio::task::JoinHandle<(Connection, u16, String)> {
    tokio::spawn(async move {
        let outcome = connection.execute(sql).await;
        let (errno, text) = outcome.err().map_or((0, String::new()), |error| (error.errno(), error.to_string()));
        (connection, errno, text)
    })
}

/// KILL QUERY of what changes both shards leaves neither a transaction open nor a commit half done.
async fn killed(cluster: &Cluster) -> Result<()> {
    let limit = Duration::from_secs(30);
    let through_vtgate = ConnectParams::tcp("127.0.0.1", cluster.vtgate_mysql_port, "test").database("customer");
    let on_mysqld = |tablet: usize| ConnectParams::unix(cluster.tablet_dir(tablet).join("mysql.sock"), "vt_dba");
    check(cluster, &[("insert into customer(customer_id, name) values (102, 'a'), (101, 'a')", "")])?;
    let mut killer = Connection::connect(&through_vtgate).await?;
    let victim = Connection::connect(&through_vtgate).await?;
    let id = victim.thread_id();
    let shards: Vec<String> = [1, 2]
        .iter()
        .map(|tablet| {
            on_shard(cluster, *tablet, "select customer_id from vt_customer.customer where customer_id in (101, 102)")
        })
        .collect::<Result<_>>()?;
    ensure!(shards == ["102", "101"], "one row a shard: {shards:?}");

    // A write in a transaction of its own, which has changed the first shard and waits for a row of the second.
    let mut holder = Connection::connect(&on_mysqld(2)).await?;
    holder.execute("begin").await?;
    holder.execute("update vt_customer.customer set name = 'held' where customer_id = 101").await?;
    let writing = spawn(victim, "update customer set name = 'b' where customer_id in (101, 102)");
    wait_for("the write to wait for the row", limit, || {
        let waits = on_shard(cluster, 2, "show global status like 'Innodb_row_lock_current_waits'");
        waits.is_ok_and(|status| status.ends_with(" 1"))
    })?;
    killer.execute(&format!("kill query {id}")).await?;
    let (mut victim, errno, text) = writing.await?;
    ensure!(errno == 1317, "{errno} {text}");
    // What its client is told to be stored is stored, also if it leaves right after.
    victim.execute("insert into customer(customer_id, name) values (107, 'c')").await?;
    ensure!(!victim.in_transaction(), "the insert is a transaction of its own");
    drop(victim);
    for (id, name) in [(102, "a"), (101, "a"), (107, "c")] {
        let got = ask(cluster, &format!("select name from customer where customer_id = {id}"))?;
        ensure!(got == name, "{id}: {got}");
    }
    // Nobody holds the row that the killed write had changed already.
    let free = "set innodb_lock_wait_timeout = 1; update vt_customer.customer set name = 'a' where customer_id = 102";
    on_shard(cluster, 1, free)?;
    holder.execute("rollback").await?;

    // A commit that stands still on one shard: it ends as if nobody had tried to end it.
    for (tablet, name) in [(1, "d"), (2, "e")] {
        let mut victim = Connection::connect(&through_vtgate).await?;
        let id = victim.thread_id();
        victim.execute("begin").await?;
        victim.execute(&format!("update customer set name = '{name}' where customer_id in (101, 102)")).await?;
        let mut holder = Connection::connect(&on_mysqld(tablet)).await?;
        holder.execute("flush tables with read lock").await?;
        let committing = spawn(victim, "commit");
        wait_for("the commit to stand still", limit, || {
            let committing = "select count(*) from information_schema.processlist where info like 'commit%'";
            on_shard(cluster, tablet, committing).is_ok_and(|count| count == "1")
        })?;
        killer.execute(&format!("kill query {id}")).await?;
        holder.execute("unlock tables").await?;
        let (mut victim, errno, text) = committing.await?;
        ensure!(errno == 0, "{text}");
        victim.execute("commit").await?;
        for id in [101, 102] {
            let got = ask(cluster, &format!("select name from customer where customer_id = {id}"))?;
            ensure!(got == name, "{id}: {got}");
        }
    }
    check(cluster, &[("delete from customer where customer_id in (101, 102, 107)", "")])
}
