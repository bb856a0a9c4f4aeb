//! A vindex built outside of this project's crates: the one of `docs/custom-vindex.md`, as it stands there.

mod first_letter;

use planner::{Context, Opcode, Primitive, Target, plan_text};

#[test]
fn the_documented_vindex_routes() {
    let text = include_str!("../../../../docs/custom-vindex.md");
    assert!(text.contains(include_str!("first_letter.rs")), "the document and the test have the same code");
    vindex::register("first_letter", first_letter::first_letter).expect("the name is free");
    let json = r#"{"keyspaces": {"ks": {"sharded": true, "vindexes": {"tenant": {"type": "first_letter"}},
        "tables": {"t": {"column_vindexes": [{"column": "name", "name": "tenant"}]}}}}}"#;
    let vschema = vschema::VSchema::build(&vtjson::from_json(json).expect("a vschema"));
    let target = Target::parse("ks").expect("a target");
    let context = Context { vschema: &vschema, target: &target, in_transaction: false };
    let plan = plan_text("select * from t where name = 'Smith'", &context).expect("a plan");
    let Primitive::Route(route) = plan.primitive else { panic!("{plan:?}") };
    assert_eq!(route.opcode, Opcode::EqualUnique);
    let planner::Destination::Vindex(destination) = route.destination else { panic!("{:?}", route.destination) };
    let value = vindex::Value::new(vtproto::query::Type::Varchar, "Smith");
    let places = destination.vindex.map(&[value]).expect("maps");
    assert_eq!(places, [vindex::Destination::KeyspaceId(keyrange::KeyspaceId::new(*b"s"))]);
}
