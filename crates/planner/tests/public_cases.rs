//! Public planner cases of Vitess that are about unsharded keyspaces: where they go.

use planner::{Context, Opcode, Primitive, Target, plan_text};
use serde_json::Value as Json;
use vschema::VSchema;

const DIR: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/cases");

/// Vindexes that only Vitess's own tests have; the kind's metadata is what matters here.
fn register_test_vindexes() {
    fn unique(name: &str, params: &vindex::Params) -> Result<std::sync::Arc<dyn vindex::Vindex>, vterrors::VtError> {
        vindex::create("hash", name, params)
    }
    fn lookup(name: &str, params: &vindex::Params) -> Result<std::sync::Arc<dyn vindex::Vindex>, vterrors::VtError> {
        vindex::create("lookup_unique", name, params)
    }
    fn multi(name: &str, params: &vindex::Params) -> Result<std::sync::Arc<dyn vindex::Vindex>, vterrors::VtError> {
        vindex::create("lookup", name, params)
    }
    static ONCE: std::sync::Once = std::sync::Once::new();
    if ONCE.is_completed() {
        return;
    }
    ONCE.call_once(|| register_all(unique, lookup, multi));
}

type Constructor = vindex::registry::Constructor;

fn register_all(unique: Constructor, lookup: Constructor, multi: Constructor) {
    for (kind, constructor) in [("hash_test", unique), ("lookup_test", lookup), ("multi", multi), ("costly", multi)] {
        vindex::register(kind, constructor).expect("a free name");
    }
}

/// Whether a plan tree of a case is one unsharded step.
fn is_single_unsharded(expect: &Json) -> Option<(&str, &str)> {
    let tree = expect.get("tree")?;
    if tree["sharded"] != false || tree.get("in").is_some() {
        return None;
    }
    let op = tree["op"].as_str()?;
    let known = [
        "SelectUnsharded",
        "InsertUnsharded",
        "UpdateUnsharded",
        "DeleteUnsharded",
        "SelectReference",
        "SelectDBA",
        "SelectNext",
    ];
    known.contains(&op).then_some((op, tree["ks"].as_str()?))
}

#[test]
fn unsharded_cases_go_to_their_keyspace() {
    let Ok(cases) = std::fs::read_to_string(format!("{DIR}/planner_2020.jsonl")) else {
        eprintln!("SKIPPED: {DIR}/planner_2020.jsonl is not there");
        return;
    };
    register_test_vindexes();
    let source: Json = serde_json::from_str(
        &std::fs::read_to_string(format!("{DIR}/planner_vschema_2020.json")).expect("the vschema"),
    )
    .expect("JSON");
    let vschema = VSchema::build(&vtjson::from_json(&source.to_string()).expect("a vschema"));
    for keyspace in vschema.keyspaces.values() {
        assert!(keyspace.error.is_none(), "{}: {:?}", keyspace.name, keyspace.error);
    }
    let target = Target::default();
    let context = Context { vschema: &vschema, target: &target, in_transaction: false };
    let (mut planned, mut all) = (0, 0);
    for line in cases.lines() {
        let case: Json = serde_json::from_str(line).expect("JSON");
        let Some((op, keyspace)) = is_single_unsharded(&case["expect"]) else { continue };
        let sql = case["q"].as_str().expect("a query");
        all += 1;
        match plan_text(sql, &context) {
            Ok(plan) => {
                if let Primitive::Insert(insert) = &plan.primitive {
                    assert_eq!(insert.shape.table.keyspace, keyspace, "{sql}");
                    planned += 1;
                    continue;
                }
                let Primitive::Route(route) = &plan.primitive else { panic!("{sql}: {plan:?}") };
                // Which keyspace serves what has no table is a free choice between unsharded ones.
                if matches!(route.opcode, Opcode::Reference | Opcode::Dba) {
                    assert!(matches!(op, "SelectReference" | "SelectDBA"), "{sql}");
                } else {
                    assert_eq!(route.keyspace, keyspace, "{sql}");
                }
                planned += 1;
            }
            Err(error) => println!("{sql}: {error}"),
        }
    }
    println!("{planned} of {all} unsharded cases planned");
    assert!(all >= 30 && planned * 100 >= all * 85, "{planned} of {all}");
}

#[test]
fn faults_of_routing_are_worded_as_in_vitess() {
    let Ok(cases) = std::fs::read_to_string(format!("{DIR}/planner_2020.jsonl")) else {
        eprintln!("SKIPPED: {DIR}/planner_2020.jsonl is not there");
        return;
    };
    let text = std::fs::read_to_string(format!("{DIR}/planner_vschema_2020.json")).expect("the vschema");
    // Types of Vitess's own tests, by the built-in ones like them.
    let text =
        text.replace("hash_test", "hash").replace("lookup_test", "lookup_unique").replace("\"multi\"", "\"lookup\"");
    let vschema = VSchema::build(&vtjson::from_json(&text.replace("\"costly\"", "\"lookup\"")).expect("a vschema"));
    let target = Target::default();
    let context = Context { vschema: &vschema, target: &target, in_transaction: false };
    let about_names =
        ["not found in vschema", "has been disabled", "NEXT used", "table t not found", "noexist not found"];
    let mut checked = 0;
    for line in cases.lines() {
        let case: Json = serde_json::from_str(line).expect("JSON");
        let Some(want) = case["expect"]["error"].as_str() else { continue };
        if !about_names.iter().any(|part| want.contains(part)) {
            continue;
        }
        let sql = case["q"].as_str().expect("a query");
        let error = plan_text(sql, &context).expect_err(sql);
        assert_eq!(error.to_string(), want, "{sql}");
        checked += 1;
    }
    assert!(checked >= 5, "only {checked} cases");
}

/// Statements on sharded tables that Vitess sends to shards whole go to the same shards.
#[test]
fn sharded_cases_go_to_the_same_shards() {
    let Ok(cases) = std::fs::read_to_string(format!("{DIR}/planner_2020.jsonl")) else {
        eprintln!("SKIPPED: {DIR}/planner_2020.jsonl is not there");
        return;
    };
    register_test_vindexes();
    let source = std::fs::read_to_string(format!("{DIR}/planner_vschema_2020.json")).expect("the vschema");
    let source: Json = serde_json::from_str(&source).expect("JSON");
    let vschema = VSchema::build(&vtjson::from_json(&source.to_string()).expect("a vschema"));
    let target = Target::default();
    let context = Context { vschema: &vschema, target: &target, in_transaction: false };
    let (mut same, mut other, mut refused) = (0, 0, 0);
    for line in cases.lines() {
        let case: Json = serde_json::from_str(line).expect("JSON");
        let tree = &case["expect"]["tree"];
        let Some(op) = tree["op"].as_str().filter(|_| tree["sharded"] == true && tree.get("in").is_none()) else {
            continue;
        };
        let want = match op {
            "SelectEqualUnique" | "UpdateEqual" | "DeleteEqual" => Opcode::EqualUnique,
            "SelectEqual" => Opcode::Equal,
            "SelectIN" => Opcode::In,
            "SelectScatter" | "UpdateScatter" | "DeleteScatter" => Opcode::Scatter,
            _ => continue,
        };
        let sql = case["q"].as_str().expect("a query");
        let route = match plan_text(sql, &context).map(|plan| plan.primitive) {
            Ok(Primitive::Route(route)) => route,
            Ok(Primitive::Write(write)) => write.route,
            Ok(_) => {
                println!("gathered: {sql}");
                other += 1;
                continue;
            }
            Err(error) => {
                println!("{error}: {sql}");
                refused += 1;
                continue;
            }
        };
        if route.opcode == want || (op.ends_with("Equal") && route.opcode == Opcode::In) {
            same += 1;
        } else {
            println!("{:?} for {op}: {sql}", route.opcode);
            other += 1;
        }
    }
    println!("{same} alike, {other} otherwise, {refused} refused");
    assert!(same >= 60 && refused * 10 <= same, "{same} alike, {other} otherwise, {refused} refused");
}
