//! The public vectors of Vitess's vindexes.

use keyrange::KeyspaceId;
use serde_json::Value as Json;
use vindex::{Destination, Params, Value};
use vtproto::query::Type;

const CASES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/cases/vindex.jsonl");
/// Types of v5.0.1 that map without I/O.
const BUILT: &[&str] = &[
    "binary",
    "binary_md5",
    "hash",
    "null",
    "numeric",
    "numeric_static_map",
    "region_experimental",
    "reverse_bits",
    "unicode_loose_md5",
    "xxhash",
];

fn value(json: &Json) -> Option<Value> {
    let kind = match json["t"].as_str()? {
        "NULL" => Type::NullType,
        name => Type::from_str_name(name)?,
    };
    let text = match &json["v"] {
        Json::Null => String::new(),
        Json::String(text) => text.clone(),
        other => other.to_string(),
    };
    Some(Value::new(kind, text))
}

/// A value, or the values of a row.
fn row(json: &Json) -> Option<Vec<Value>> {
    match json.as_array() {
        Some(values) => values.iter().map(value).collect(),
        None => Some(vec![value(json)?]),
    }
}

fn id(json: &Json) -> KeyspaceId {
    KeyspaceId::new(hex::decode(json.as_str().unwrap_or("")).expect("hex"))
}

fn matches(got: &Destination, want: &Json) -> bool {
    match got {
        Destination::KeyspaceId(got) => want.get("ksid").is_some_and(|want| *got == id(want)),
        Destination::None => want["none"] == true,
        other => panic!("{other:?} from a vindex without a table"),
    }
}

#[test]
fn public_vectors() {
    let Ok(text) = std::fs::read_to_string(CASES) else {
        eprintln!("SKIPPED: {CASES} is not there");
        return;
    };
    let map_file = std::env::temp_dir().join(format!("numeric_static_map_{}.json", std::process::id()));
    std::fs::write(&map_file, r#"{"1":1,"3":2}"#).expect("temporary file");
    let mut run = 0;
    for line in text.lines() {
        let case: Json = serde_json::from_str(line).expect("JSON");
        let Some(kind) = case["vindex"].as_str().filter(|kind| BUILT.contains(kind)) else { continue };
        let mut params: Params = case["params"].as_object().map_or_else(Params::new, |object| {
            object.iter().map(|(k, v)| (k.clone(), v.as_str().unwrap_or_default().to_owned())).collect()
        });
        if kind == "numeric_static_map" {
            // Newer forms of the parameters are not v5.0.1's.
            if !params.contains_key("json_path") {
                continue;
            }
            params.insert("json_path".into(), map_file.to_string_lossy().into_owned());
        }
        let vindex = vindex::create(kind, "v", &params).expect("constructible");
        let inputs = case["in"].as_array().expect("inputs");
        match case["op"].as_str().expect("op") {
            "Map" => {
                let rows: Option<Vec<Vec<Value>>> = inputs.iter().map(row).collect();
                let Some(rows) = rows else { continue };
                let got = vindex.map_rows(&rows).expect("maps");
                if let Some(want) = case["want"].as_array() {
                    for (i, want) in want.iter().enumerate() {
                        // Ranges for the first columns alone are newer than v5.0.1.
                        if kind == "region_experimental" && want.get("range").is_some() {
                            continue;
                        }
                        assert!(matches(&got[i], want), "{}: {i}: {:?} {want}", case["id"], got[i]);
                    }
                }
                for (at, want) in case["want_at"].as_object().into_iter().flatten() {
                    let at: usize = at.parse().expect("index");
                    assert!(matches(&got[at], want), "{}: {at}: {:?} {want}", case["id"], got[at]);
                }
            }
            "Verify" => {
                let rows: Option<Vec<Vec<Value>>> = inputs.iter().map(row).collect();
                let (Some(rows), Some(want)) = (rows, case["want"].as_array()) else { continue };
                let ids: Vec<KeyspaceId> = case["ksids"].as_array().expect("ids").iter().map(id).collect();
                let got = vindex.verify_rows(&rows, &ids).expect("verifies");
                for (i, want) in want.iter().enumerate() {
                    assert_eq!(Some(got[i]), want.as_bool(), "{}: {i}", case["id"]);
                }
            }
            "ReverseMap" => {
                let ids: Vec<KeyspaceId> = inputs.iter().map(id).collect();
                let got = vindex.reverse_map(&ids).expect("reversible").expect("reverses");
                for (got, want) in got.iter().zip(case["want"].as_array().expect("want")) {
                    // Wanted values may be written as the signed number of the same bits.
                    let want = value(want).expect("value");
                    let text = String::from_utf8_lossy(&want.bytes).into_owned();
                    let unsigned = text.parse::<i64>().map_or(text, |n| (n as u64).to_string());
                    if got.kind == Type::Uint64 {
                        assert_eq!(got.bytes, unsigned.as_bytes(), "{}", case["id"]);
                    } else {
                        assert_eq!(*got, want, "{}", case["id"]);
                    }
                }
            }
            _ => continue,
        }
        run += 1;
    }
    let _ = std::fs::remove_file(map_file);
    println!("{run} vindex vectors");
    assert!(run >= 90, "only {run} vectors were run");
}

#[test]
fn texts_of_failed_verification() {
    let hash = vindex::create("hash", "h", &Params::new()).expect("built in");
    let error = hash.verify(&[Value::new(Type::Int64, "-1")], &[KeyspaceId::new([])]).expect_err("negative");
    assert_eq!(error.message(), "hash.Verify: negative number cannot be converted to unsigned: -1");
    let error = hash.verify(&[Value::new(Type::Varbinary, "aa")], &[KeyspaceId::new([])]).expect_err("no number");
    assert_eq!(error.message(), "hash.Verify: could not parse value: 'aa'");
}
