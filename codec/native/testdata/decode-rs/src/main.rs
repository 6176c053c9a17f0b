// Decodes golden messages with rmp-serde and compares them with their elements.
// In elements an object stands for what JSON has no word for: {"int": "…"} for
// an integer beyond 2^53, {"bin": "…"} for bytes in hex.
use rmpv::Value;
use serde_json::Value as Json;
use std::{env, fs, process};

fn main() {
    let (mut messages, mut wrong) = (0, 0);
    for path in env::args().skip(1) {
        let golden: Json = serde_json::from_str(&fs::read_to_string(&path).expect("golden file")).expect("JSON");
        for list in golden.as_object().expect("an object of lists").values() {
            for m in list.as_array().expect("a list of messages") {
                messages += 1;
                let got: Result<Value, _> = rmp_serde::from_slice(&unhex(m["msgpack"].as_str().expect("hex")));
                match got {
                    Ok(v) if same(&v, &m["elements"]) => {}
                    got => {
                        wrong += 1;
                        println!("{} decoded to {:?}, want {}", m["name"], got, m["elements"]);
                    }
                }
            }
        }
    }
    println!("{messages} messages, {wrong} wrong");
    process::exit((wrong > 0 || messages == 0) as i32);
}

fn unhex(s: &str) -> Vec<u8> {
    (0..s.len()).step_by(2).map(|i| u8::from_str_radix(&s[i..i + 2], 16).expect("hex")).collect()
}

fn same(v: &Value, want: &Json) -> bool {
    match (v, want) {
        (Value::Nil, Json::Null) => true,
        (Value::Boolean(a), Json::Bool(b)) => a == b,
        (Value::Integer(a), Json::Number(b)) => a.to_string() == b.to_string(),
        (Value::Integer(a), Json::Object(o)) => o.get("int").and_then(Json::as_str) == Some(&a.to_string()),
        (Value::Binary(a), Json::Object(o)) => o.get("bin").and_then(Json::as_str).map(unhex).as_ref() == Some(a),
        (Value::String(a), Json::String(b)) => a.as_str() == Some(b),
        (Value::Array(a), Json::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(x, y)| same(x, y)),
        (Value::Map(a), Json::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(k, x)| k.as_str().and_then(|k| b.get(k)).is_some_and(|y| same(x, y)))
        }
        _ => false,
    }
}
