//! Variables of projects and the keys of their layers.

use serde_json::{Value, json};

use super::support::{HERE, User, refused, serve};
use super::wire::connect;

fn project(user: &User) -> String {
    let made = user.post("/api/projects", &json!({ "slug": "app", "name": "App" }));
    format!("/api/projects/{}/env", made.json()["project"]["id"])
}

fn value(tier: &str, visibility: &str, text: &str) -> Value {
    json!({ "environment_tier": tier, "visibility": visibility, "value_source": "inline",
        "encrypted_value": text })
}

#[test]
fn a_variable_is_written_read_and_deleted_by_tier_name_and_visibility() {
    let server = serve(&[]);
    let user = server.user("a@example.org");
    let env = project(&user);
    let first = user.put(&format!("{env}/DB_URL"), &value("dev", "shared", "AAAA"));
    assert_eq!(first.status, 200);
    let row = first.json()["variable"].clone();
    assert_eq!((&row["name"], &row["current_version"]), (&json!("DB_URL"), &json!(1)));
    assert_eq!((&row["owner_user_id"], &row["required"]), (&Value::Null, &json!(0)));
    let again = user.put(&format!("{env}/DB_URL"), &value("dev", "shared", "BBBB")).json();
    assert_eq!(again["variable"]["id"], row["id"]);
    assert_eq!(again["variable"]["current_version"], 2);
    let mine = user.put(&format!("{env}/DB_URL"), &value("dev", "personal", "CCCC")).json();
    assert_eq!(mine["variable"]["owner_user_id"], 1);
    user.put(&format!("{env}/DB_URL"), &value("prod", "shared", "DDDD"));
    user.put(&format!("{env}/a%20b%2Fc"), &value("dev", "shared", "EEEE"));

    let list = |query: &str| -> Vec<(String, String)> {
        let rows = user.read(&format!("{env}{query}"))["variables"].clone();
        let text = |row: &Value, name: &str| row[name].as_str().unwrap().to_owned();
        rows.as_array()
            .unwrap()
            .iter()
            .map(|r| (text(r, "name"), text(r, "encrypted_value")))
            .collect()
    };
    assert_eq!(list("").len(), 4);
    assert_eq!(list("?env=prod"), [("DB_URL".into(), "DDDD".into())]);
    assert_eq!(list("?env=dev&visibility=personal"), [("DB_URL".into(), "CCCC".into())]);
    assert!(list("?env=dev").contains(&("a b/c".into(), "EEEE".into())));
    assert_eq!(user.delete(&format!("{env}/DB_URL?env=dev&visibility=shared")).status, 200);
    refused(&user.delete(&format!("{env}/DB_URL?env=dev&visibility=shared")), 404, "not_found");
    assert_eq!(list("?env=dev&visibility=personal").len(), 1, "the personal one stays");
}

#[test]
fn a_wrong_variable_is_refused() {
    let server = serve(&[]);
    let user = server.user("a@example.org");
    let env = project(&user);
    for bad in [
        json!({}),
        json!({ "environment_tier": "" }),
        json!({ "environment_tier": "dev", "visibility": "secret" }),
        json!({ "environment_tier": "dev", "encrypted_value": "!" }),
        json!({ "environment_tier": "dev", "encrypted_value": 7 }),
        json!({ "environment_tier": "dev", "required": "yes" }),
    ] {
        refused(&user.put(&format!("{env}/X"), &bad), 400, "bad_request");
    }
    let foreign = json!({ "environment_tier": "dev", "owner_user_id": 99 });
    refused(&user.put(&format!("{env}/X"), &foreign), 403, "not_yours");
    refused(&user.get(&format!("{env}?visibility=x")), 400, "bad_request");
    refused(&user.delete(&format!("{env}/X?visibility=shared")), 400, "bad_request");
    refused(&user.put("/api/projects/99/env/X", &value("dev", "shared", "AAAA")), 404, "not_found");
    assert!(user.read(&env)["variables"].as_array().unwrap().is_empty());
}

#[test]
fn every_distinct_layer_key_is_kept_and_a_variable_remembers_the_one_uploaded_last() {
    let server = serve(&[]);
    let user = server.user("a@example.org");
    let env = project(&user);
    let upload = |layer: &str, key: &str| {
        let body = json!({ "layer_id": layer, "wrapped_dek": key });
        assert_eq!(user.post(&format!("{env}/keys"), &body).json(), json!({ "ok": true }));
    };
    let write = |name: &str, visibility: &str| -> Value {
        let body = value("dev", visibility, "AAAA");
        user.put(&format!("{env}/{name}"), &body).json()["variable"]["layer_key_id"].clone()
    };
    assert!(write("EARLY", "shared").is_null());
    upload("shared:1:dev", "AAAA");
    let first = write("ONE", "shared");
    upload("shared:1:dev", "BBBB");
    let second = write("TWO", "shared");
    upload("shared:1:dev", "AAAA");
    assert_eq!(write("THREE", "shared"), first, "uploaded again, it is the last");
    assert_ne!(first, second);
    upload("personal:1:dev:1", "CCCC");
    let personal = write("ONE", "personal");
    assert!(personal != first && personal != second);

    let keys = user.read(&format!("{env}/keys?layer_id=shared%3A1%3Adev"))["keys"].clone();
    let words: Vec<_> = keys.as_array().unwrap().iter().map(|k| &k["wrapped_dek"]).collect();
    assert_eq!(words, ["AAAA", "BBBB"], "the last upload first");
    assert_eq!(keys[0]["id"], first);
    assert_eq!(user.read(&format!("{env}/keys"))["keys"].as_array().unwrap().len(), 3);
    let bad = json!({ "layer_id": "l", "wrapped_dek": "!" });
    refused(&user.post(&format!("{env}/keys"), &bad), 400, "bad_request");
}

#[test]
fn put_keys_is_a_variable_of_that_name() {
    let server = serve(&[]);
    let user = server.user("a@example.org");
    let env = project(&user);
    let answer = user.put(&format!("{env}/keys"), &value("dev", "shared", "AAAA"));
    assert_eq!(answer.json()["variable"]["name"], "keys");
    assert!(user.read(&format!("{env}/keys"))["keys"].as_array().unwrap().is_empty());
    assert_eq!(user.delete(&format!("{env}/keys?env=dev&visibility=shared")).status, 200);
}

#[test]
fn three_hundred_variables_go_over_one_connection() {
    let server = serve(&[]);
    let user = server.user("a@example.org");
    let env = project(&user);
    let to = std::net::SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, server.port);
    let mut client = connect(HERE, to, None);
    let start = std::time::Instant::now();
    for n in 0..300 {
        let body = value("dev", "shared", "AAAA").to_string();
        client.send(user.request("PUT", &format!("{env}/V{n}"), "", body.as_bytes()));
        assert_eq!(client.answer().status, 200, "{n}");
    }
    println!("300 variables took {:?}", start.elapsed());
    let list = user.read(&env)["variables"].clone();
    assert_eq!(list.as_array().unwrap().len(), 300);
}

#[test]
fn a_long_value_and_a_description_with_lines_are_kept() {
    let server = serve(&[]);
    let user = server.user("a@example.org");
    let project = json!({ "slug": "p", "name": "p", "description": "first\nsecond" });
    assert_eq!(user.post("/api/projects", &project).status, 201);
    let value = "A".repeat(100_000);
    let body = json!({ "environment_tier": "dev", "encrypted_value": value,
                       "description": "one\n\ttwo" });
    assert_eq!(user.put("/api/projects/1/env/BIG", &body).status, 200);
    let row = user.read("/api/projects/1/env")["variables"][0].clone();
    assert!(row["encrypted_value"] == json!(value) && row["description"] == "one\n\ttwo");
    assert_eq!(user.read("/api/projects/1")["project"]["description"], "first\nsecond");
}
