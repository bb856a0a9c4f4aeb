//! The rows of key range and shard name cases, and properties of partitions.
//!
//! Rows about records (tablets, shard controls, keyspace files) belong to other crates; they are named
//! in `ELSEWHERE`, so that a new kind of row is noticed.

use std::collections::BTreeMap;

use keyrange::{
    KeyRange, KeyRangeError, KeyspaceId, ShardName, combine_key_ranges, compare, even_shards_key_range,
    generate_shard_ranges, is_key_range, is_valid_key_range, normalize, parse_sharding_spec, resolve_exact_range,
    resolve_keyspace_id, resolve_range, validate_for_reshard,
};
use proptest::prelude::*;
use serde_json::Value;

const CASES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/cases/keyrange.jsonl");

/// Tests on records or on the environment of the original, and lists that only hold inputs of other rows.
const ELSEWHERE: &[&str] = &[
    "TestAddCells",
    "TestDeleteOrphanedKeyspaceFiles",
    "TestDestinationAllShardsResolve",
    "TestDestinationAnyShardResolve",
    "TestDestinationKeyspaceIDsResolve",
    "TestDestinationShardResolve",
    "TestDestinationShardsResolve",
    "TestFindOverlappingShardsErrors",
    "TestFindOverlappingShardsNoOverlap",
    "TestFindOverlappingShardsOverlap",
    "TestIsTabletsInList",
    "TestParseDestination",
    "TestRemoveCells",
    "TestRemoveCellsFromList",
    "TestUpdateServedFromMap",
    "TestUpdateSourceDeniedTables",
    "TestUpdateSourcePrimaryDeniedTables",
];
/// Variables of a test that are inputs or wanted values of its other rows.
const INPUT_LISTS: &[&str] = &["parts", "wanted", "want", "allShards", "possibleShards"];

/// An id as a row holds it: text whose characters are bytes, or an object with hexadecimal digits.
fn id(value: &Value) -> Vec<u8> {
    match value {
        Value::String(text) => {
            text.chars().map(|c| u8::try_from(u32::from(c)).expect("a byte per character")).collect()
        }
        value => hex(value["hex"].as_str().expect("hexadecimal digits")).as_bytes().to_vec(),
    }
}

fn hex(text: &str) -> KeyspaceId {
    text.parse().expect("hexadecimal digits")
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("not a text: {value}"))
}

/// A range as a row holds it: a spec where "" and "nil" are no range.
fn range(value: &Value) -> KeyRange {
    match value {
        Value::Null => KeyRange::full(),
        Value::String(text) if text.is_empty() || text == "nil" => KeyRange::full(),
        Value::String(text) => text.parse().expect("a range"),
        value if value.get("spec").is_some() => range(&value["spec"]),
        value => KeyRange::from_hex(text(&value["start"]), text(&value["end"])).expect("hexadecimal digits"),
    }
}

fn bounds(range: &KeyRange) -> String {
    range.to_string()
}

fn ranges(value: &Value) -> Vec<Option<KeyRange>> {
    let names = value.as_array().expect("a list").iter();
    names.map(|name| text(name).parse::<ShardName>().expect("a name").key_range().cloned()).collect()
}

/// The shards of a keyspace in destination rows: a spec, "" (unsharded) or "custom".
fn shards(keyspace: &str) -> Vec<ShardName> {
    let names: Vec<String> = match keyspace {
        "" => vec!["0".into()],
        "custom" => vec!["0".into(), "1".into()],
        spec => parse_sharding_spec(spec).expect("a spec").iter().map(KeyRange::to_string).collect(),
    };
    names.iter().map(|name| name.parse().expect("a name")).collect()
}

fn wanted_shards(case: &Value) -> Vec<String> {
    let list = case["shards"].as_array().map_or(&[][..], Vec::as_slice);
    list.iter().map(|name| text(name).to_owned()).collect()
}

fn check(test: &str, case: &Value) -> Result<(), String> {
    let args = &case["args"];
    let same = |got: String, want: String| if got == want { Ok(()) } else { Err(format!("{got}, wanted {want}")) };
    let flag = |got: bool, want: &Value| same(got.to_string(), want.to_string());
    let error = |got: Option<KeyRangeError>, want: &str| match got {
        None if want.is_empty() => Ok(()),
        Some(got) if !want.is_empty() && got.to_string().contains(want) => Ok(()),
        got => Err(format!("{got:?}, wanted {want:?}")),
    };
    match test {
        "TestNormalize" => same(format!("{:?}", normalize(&id(&args["id"]))), format!("{:?}", id(&case["want"]))),
        "TestCompare" => same((compare(&id(&args["a"]), &id(&args["b"])) as i8).to_string(), case["want"].to_string()),
        "TestLess" => flag(compare(&id(&args["a"]), &id(&args["b"])).is_lt(), &case["want"]),
        "TestEqual" => flag(KeyspaceId::new(id(&args["a"])) == KeyspaceId::new(id(&args["b"])), &case["want"]),
        "TestEmpty" => flag(KeyspaceId::new(id(&args["id"])).is_empty(), &case["want"]),
        "TestEvenShardsKeyRange" | "TestEvenShardsKeyRange_Error" => {
            let got = even_shards_key_range(case["i"].as_i64().expect("i"), case["n"].as_i64().expect("n"));
            match case.get("wantError") {
                Some(want) => error(got.err(), text(want)),
                None => {
                    let got = got.map_err(|error| error.to_string())?;
                    same(bounds(&got), text(&case["wantSpec"]).to_owned())?;
                    same(bounds(&got), bounds(&range(&case["want"])))
                }
            }
        }
        "TestKeyRangeAdd" => {
            let joined = range(&case["first"]).join(&range(&case["second"]));
            flag(joined.is_some(), &case["ok"])?;
            same(joined.as_ref().map(bounds).unwrap_or_default(), text(&case["out"]).to_owned())
        }
        "TestKeyRangeEndEqual" => {
            flag(range(&case["first"]).compare_end(&range(&case["second"])).is_eq(), &case["out"])
        }
        "TestKeyRangeStartEqual" => {
            flag(range(&case["first"]).compare_start(&range(&case["second"])).is_eq(), &case["out"])
        }
        "TestKeyRangeEqual" => flag(range(&case["first"]) == range(&case["second"]), &case["out"]),
        "TestKeyRangeContiguous" => flag(range(&case["first"]).is_followed_by(&range(&case["second"])), &case["out"]),
        "TestParseShardingSpec" => match case {
            Value::String(spec) => {
                let got = parse_sharding_spec(spec).err().ok_or("accepted")?;
                same(got.to_string().starts_with("malformed spec: ").to_string(), "true".into())
            }
            case => {
                let got = parse_sharding_spec(text(&case["key"])).map_err(|error| error.to_string())?;
                let want = case["value"].as_array().expect("a list").iter();
                same(
                    got.iter().map(bounds).collect::<Vec<_>>().join(" "),
                    want.map(|value| bounds(&range(value))).collect::<Vec<_>>().join(" "),
                )
            }
        },
        "TestKeyRangeComparisons" => {
            let (a, b, wants) = (range(&args["a"]), range(&args["b"]), &case["wants"]);
            let order = |order: std::cmp::Ordering| (order as i8).to_string();
            same(order(a.compare_start(&b)), wants["wantStartCompare"].to_string())?;
            same(order(a.compare_end(&b)), wants["wantEndCompare"].to_string())?;
            same(order(a.cmp(&b)), wants["wantCompare"].to_string())?;
            flag(a.compare_start(&b).is_eq(), &wants["wantStartEqual"])?;
            flag(a.compare_end(&b).is_eq(), &wants["wantEndEqual"])?;
            flag(a == b, &wants["wantEqual"])
        }
        "TestKeyRangeContains" | "TestContains" => {
            flag(range(case).contains(hex(text(&case["kid"])).as_bytes()), &case["contained"])
        }
        "TestKeyRangeIntersect" => flag(range(&args["a"]).intersects(&range(&args["b"])), &case["want"]),
        "TestIntersectOverlap" => {
            let side = |start: &str, end: &str| {
                KeyRange::from_hex(text(&case[start]), text(&case[end])).expect("hexadecimal digits")
            };
            let (left, right) = (side("a", "b"), side("c", "d"));
            flag(left.intersects(&right), &case["intersects"])?;
            let want = case.get("overlap").map_or("", text);
            same(left.overlap(&right).as_ref().map(bounds).unwrap_or_default(), want.to_owned())
        }
        "TestKeyRangeContainsKeyRange" => flag(range(&args["a"]).contains_range(&range(&args["b"])), &case["want"]),
        "TestKeyRangeIncludes" => flag(range(&case["big"]).contains_range(&range(&case["small"])), &case["expected"]),
        "TestIsValidKeyRange" => flag(is_valid_key_range(text(&case["arg"])), &case["want"]),
        "TestIsKeyRange" => flag(is_key_range(text(&case["in"])), &case["out"]),
        "TestGenerateShardRanges" => {
            let got = generate_shard_ranges(args["shards"].as_i64().expect("a number"));
            flag(got.is_err(), &case["wantErr"])?;
            let want = case["want"].as_array().map_or(&[][..], Vec::as_slice).iter();
            same(got.unwrap_or_default().join(" "), want.map(text).collect::<Vec<_>>().join(" "))
        }
        "TestKeyRangeIsPartial" => flag(range(&case["keyRange"]).is_partial(), &case["want"]),
        "TestDestinationExactKeyRange" => {
            let held = shards(text(&case["keyspace"]));
            match resolve_exact_range(&range(&case["keyRange"]), &held) {
                Ok(found) => {
                    let names: Vec<String> = found.iter().map(ToString::to_string).collect();
                    same(names.join(" "), wanted_shards(case).join(" "))
                }
                Err(got) => error(Some(got), case.get("err").map_or("", text)),
            }
        }
        "TestDestinationKeyRange" => {
            let held = shards(text(&case["keyspace"]));
            let found = resolve_range(&range(&case["keyRange"]), &held);
            let names: Vec<String> = found.iter().map(ToString::to_string).collect();
            same(names.join(" "), wanted_shards(case).join(" "))
        }
        "TestDestinationKeyspaceIDResolve" => {
            let held: Vec<ShardName> = ["60-80", "80-90"].map(|name| name.parse().expect("a name")).into();
            let got = resolve_keyspace_id(hex(text(&case["keyspaceID"])).as_bytes(), &held);
            same(got.as_ref().map(ToString::to_string).unwrap_or_default(), text(&case["want"]).to_owned())?;
            error(got.err(), text(&case["err"]))
        }
        "TestValidateShardName" => {
            let got = text(&case["name"]).parse::<ShardName>();
            flag(got.is_ok(), &case["valid"])?;
            match (got, case.get("expectedRange")) {
                (Ok(name), Some(want)) => same(
                    name.key_range().map(bounds).unwrap_or_default(),
                    bounds(&KeyRange::from_bounds(
                        // The rows hold the bytes of the bounds as digits.
                        hex(text(&want["start"])).into_bytes(),
                        hex(text(&want["end"])).into_bytes(),
                    )),
                ),
                (Ok(name), None) => same(name.key_range().is_none().to_string(), "true".into()),
                (Err(_), _) => Ok(()),
            }
        }
        "TestValidateForReshard" => {
            error(validate_for_reshard(&ranges(&case["sources"]), &ranges(&case["targets"])).err(), text(&case["out"]))
        }
        test => Err(format!("nobody checks {test}")),
    }
}

#[test]
fn every_row_holds() {
    let Ok(rows) = std::fs::read_to_string(CASES) else {
        eprintln!("SKIPPED: no case files beside the project");
        return;
    };
    let (mut failures, mut checked) = (Vec::new(), BTreeMap::<String, usize>::new());
    for row in rows.lines() {
        let row: Value = serde_json::from_str(row).expect("a row is JSON");
        let (test, variable) = (text(&row["test"]), row["var"].as_str().unwrap_or_default());
        if ELSEWHERE.contains(&test) || INPUT_LISTS.contains(&variable) {
            continue;
        }
        *checked.entry(test.to_owned()).or_default() += 1;
        if let Err(failure) = check(test, &row["case"]) {
            failures.push(format!("{}: {}: {failure}", row["id"], row["case"]));
        }
    }
    assert!(failures.is_empty(), "{} rows fail:\n{}", failures.len(), failures.join("\n"));
    assert!(checked.values().sum::<usize>() > 250, "rows were skipped: {checked:?}");
}

#[test]
fn wrong_names_say_what_is_wrong() {
    let error = |name: &str| name.parse::<ShardName>().expect_err(name).to_string();
    assert_eq!(error("40-80-c0"), "invalid shardId, can only contain one '-': 40-80-c0");
    assert_eq!(error("x0-"), "encoding/hex: invalid byte: U+0078 'x'");
    assert_eq!(error("8-"), "encoding/hex: odd length hex string");
    assert_eq!(error("80-40"), "out of order keys: 80 is not strictly smaller than 40");
    assert_eq!(error("80-80"), "out of order keys: 80 is not strictly smaller than 80");
    let spec = |spec: &str| parse_sharding_spec(spec).expect_err(spec).to_string();
    assert_eq!(spec("40"), "malformed spec: doesn't define a range: \"40\"");
    assert_eq!(spec("40--80"), "malformed spec: MinKey/MaxKey cannot be in the middle of the spec: \"40--80\"");
    assert_eq!(spec("40-30"), "malformed spec: shard limits should be in order: \"40-30\"");
    assert_eq!("-A0".parse::<ShardName>().expect("a name").to_string(), "-a0");
    assert_eq!(combine_key_ranges(&[]).expect_err("none").to_string(), "there are no shards to combine");
}

#[test]
fn names_of_the_same_range() {
    let range = |name: &str| name.parse::<ShardName>().expect("a name").key_range().cloned().expect("a range");
    for same in ["00-80", "0000-8000", "-8000", "-80"] {
        assert_eq!(range(same), range("-80"), "{same}");
    }
    assert_eq!(range("-"), KeyRange::full());
    // The end of the keyspace has no name in digits: ids that begin with ff are in 80- alone.
    assert_ne!(range("80-ff"), range("80-"));
    let highest = [0xff, 0xff];
    assert!(range("80-").contains(&highest) && !range("80-ff").contains(&highest));
    // Bounds of any length.
    assert!(range("8000000000000001-").contains(&hex("800000000000000100").into_bytes()));
    assert!(!range("8000000000000001-").contains(&hex("8000000000000000ff").into_bytes()));
}

/// A keyspace cut at some places, which need not be in order or distinct.
fn partition(cuts: &[Vec<u8>]) -> Vec<KeyRange> {
    let mut cuts: Vec<KeyspaceId> =
        cuts.iter().map(|cut| KeyspaceId::new(cut.clone())).filter(|cut| *cut > KeyspaceId::default()).collect();
    cuts.sort();
    cuts.dedup();
    let starts = std::iter::once(Vec::new()).chain(cuts.iter().map(|cut| cut.as_bytes().to_vec()));
    let ends = cuts.iter().map(|cut| cut.as_bytes().to_vec()).chain([Vec::new()]);
    starts.zip(ends).map(|(start, end)| KeyRange::from_bounds(start, end)).collect()
}

fn ids() -> impl Strategy<Value = Vec<u8>> {
    // Few distinct bytes, so that bounds are hit and zeros are frequent.
    prop::collection::vec(prop::sample::select(vec![0u8, 1, 0x40, 0x80, 0xff]), 0..4)
}

proptest! {
    #[test]
    fn every_id_is_in_exactly_one_part(cuts in prop::collection::vec(ids(), 0..6), id in ids()) {
        let parts = partition(&cuts);
        prop_assert_eq!(parts.iter().filter(|part| part.contains(&id)).count(), 1);
    }

    #[test]
    fn parts_follow_each_other_and_join_to_the_whole(cuts in prop::collection::vec(ids(), 0..6), turn in 0usize..6) {
        let mut parts = partition(&cuts);
        for pair in parts.windows(2) {
            prop_assert!(pair[0].is_followed_by(&pair[1]));
            prop_assert!(!pair[0].intersects(&pair[1]));
        }
        let middle = turn % parts.len();
        parts.rotate_left(middle);
        let parts: Vec<_> = parts.into_iter().map(Some).collect();
        prop_assert_eq!(combine_key_ranges(&parts), Ok(KeyRange::full()));
    }

    #[test]
    fn names_are_read_back(cuts in prop::collection::vec(ids(), 0..6)) {
        for part in partition(&cuts) {
            prop_assert_eq!(part.to_string().parse::<KeyRange>(), Ok(part));
        }
    }

    #[test]
    fn two_ranges_intersect_exactly_where_both_contain(cuts in prop::collection::vec(ids(), 1..5), id in ids()) {
        let parts = partition(&cuts);
        for left in &parts {
            for right in partition(&cuts[1..]) {
                let both = left.contains(&id) && right.contains(&id);
                prop_assert_eq!(left.overlap(&right).is_some_and(|shared| shared.contains(&id)), both);
                prop_assert_eq!(left.intersects(&right), left.overlap(&right).is_some());
            }
        }
    }

    #[test]
    fn equal_parts_are_a_partition(bits in 0u32..10, id in any::<u64>()) {
        let count = 1i64 << bits;
        let parts: Result<Vec<_>, _> = (0..count).map(|index| even_shards_key_range(index, count)).collect();
        let parts = parts.expect("a power of two");
        prop_assert!(parts.windows(2).all(|pair| pair[0].is_followed_by(&pair[1])));
        let id = KeyspaceId::from_u64(id);
        prop_assert_eq!(parts.iter().filter(|part| part.contains(id.as_bytes())).count(), 1);
    }

    #[test]
    fn generated_names_are_a_partition(count in 1i64..=1000, id in ids()) {
        let names = generate_shard_ranges(count).expect("a count");
        prop_assert_eq!(names.len() as i64, count);
        let parts: Vec<KeyRange> = names.iter().map(|name| name.parse().expect("a range")).collect();
        prop_assert_eq!(parts[0].start(), &KeyspaceId::default());
        prop_assert_eq!(parts[parts.len() - 1].end(), None);
        prop_assert!(parts.windows(2).all(|pair| pair[0].is_followed_by(&pair[1])));
        prop_assert_eq!(parts.iter().filter(|part| part.contains(&id)).count(), 1);
    }

    #[test]
    fn an_id_goes_to_the_shard_that_holds_it(cuts in prop::collection::vec(ids(), 0..6), id in ids()) {
        let shards: Vec<ShardName> =
            partition(&cuts).iter().map(|part| part.to_string().parse().expect("a name")).collect();
        let shard = resolve_keyspace_id(&id, &shards).expect("a partition has a shard for every id");
        let range = shard.key_range().expect("a range");
        prop_assert!(range.contains(&id));
        // Without its shard nobody takes it.
        let others: Vec<ShardName> = shards.iter().filter(|other| *other != shard).cloned().collect();
        prop_assert!(resolve_keyspace_id(&id, &others).is_err());
    }

    #[test]
    fn replacing_some_shards_by_others_of_the_same_range_leaves_a_partition(
        cuts in prop::collection::vec(ids(), 0..6), more in prop::collection::vec(ids(), 0..4), id in ids(),
    ) {
        let before = partition(&cuts);
        let after = partition(&[cuts, more].concat());
        for source in &before {
            let targets: Vec<_> = after.iter().filter(|part| source.contains_range(part)).cloned().map(Some).collect();
            let replaced = validate_for_reshard(&[Some(source.clone())], &targets);
            // The same shard is no split.
            prop_assert_eq!(replaced.is_ok(), targets.len() > 1);
            let holders = targets.iter().flatten().filter(|part| part.contains(&id)).count();
            prop_assert_eq!(holders, usize::from(source.contains(&id)));
            // One target short is refused: rows would be lost.
            if targets.len() > 1 {
                prop_assert!(validate_for_reshard(&[Some(source.clone())], &targets[1..]).is_err());
            }
        }
    }
}
