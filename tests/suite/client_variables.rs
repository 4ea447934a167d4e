//! Variables of projects and the keys of their layers.

use serde_json::{Value, json};

use crate::fixture::{Server, User, assert_has, refused, with_user};

const ENV: &str = "/api/projects/1/env";

fn with_project() -> (Server, User) {
    let (server, user) = with_user(&[]);
    user.add("project", "app");
    (server, user)
}

fn value(tier: &str, visibility: &str, text: &str) -> Value {
    json!({ "environment_tier": tier, "visibility": visibility, "value_source": "inline",
        "encrypted_value": text })
}

/// Writes a variable; its row.
fn write(user: &User, name: &str, value: &Value) -> Value {
    user.put(&format!("{ENV}/{name}"), value).is(200)["variable"].clone()
}

#[test]
fn a_variable_is_written_read_and_deleted_by_tier_name_and_visibility() {
    let (_server, user) = with_project();
    let row = write(&user, "DB_URL", &value("dev", "shared", "AAAA"));
    let expected =
        json!({ "name": "DB_URL", "current_version": 1, "owner_user_id": null, "required": 0 });
    assert_has(&row, expected);
    let again = write(&user, "DB_URL", &value("dev", "shared", "BBBB"));
    assert_has(&again, json!({ "id": row["id"], "current_version": 2 }));
    let mine = write(&user, "DB_URL", &value("dev", "personal", "CCCC"));
    assert_eq!(mine["owner_user_id"], 1);
    write(&user, "DB_URL", &value("prod", "shared", "DDDD"));
    write(&user, "a%20b%2Fc", &value("dev", "shared", "EEEE"));

    let list = |query: &str| -> Vec<(String, String)> {
        let rows = user.read(&format!("{ENV}{query}"))["variables"].as_array().unwrap().clone();
        let text = |row: &Value, name: &str| row[name].as_str().unwrap().to_owned();
        rows.iter().map(|row| (text(row, "name"), text(row, "encrypted_value"))).collect()
    };
    assert_eq!(list("").len(), 4);
    assert_eq!(list("?env=prod"), [("DB_URL".into(), "DDDD".into())]);
    assert_eq!(list("?env=dev&visibility=personal"), [("DB_URL".into(), "CCCC".into())]);
    assert!(list("?env=dev").contains(&("a b/c".into(), "EEEE".into())));
    let long = json!({ "environment_tier": "long", "encrypted_value": "A".repeat(100_000),
        "description": "one\n\ttwo" });
    write(&user, "BIG", &long);
    assert_has(&user.read(&format!("{ENV}?env=long"))["variables"][0], long);
    let shared = format!("{ENV}/DB_URL?env=dev&visibility=shared");
    user.delete(&shared).is(200);
    refused(&user.delete(&shared), 404, "not_found");
    assert_eq!(list("?env=dev&visibility=personal").len(), 1, "the personal one stays");
    refused(&user.get(&format!("{ENV}?visibility=x")), 400, "bad_request");
    refused(&user.delete(&format!("{ENV}/BIG?visibility=shared")), 400, "bad_request");
    let foreign = json!({ "environment_tier": "dev", "owner_user_id": 99 });
    refused(&user.put(&format!("{ENV}/X"), &foreign), 403, "not_yours");
    assert_eq!(list("").len(), 4);
}

#[test]
fn every_distinct_layer_key_is_kept_and_a_variable_remembers_the_one_uploaded_last() {
    let (_server, user) = with_project();
    let keys = "/api/projects/1/env/keys";
    // Where keys are written, `keys` is also the name of a variable.
    assert_eq!(write(&user, "keys", &value("dev", "shared", "AAAA"))["name"], "keys");
    assert_eq!(user.read(keys), json!({ "keys": [] }));
    user.delete(&format!("{keys}?env=dev&visibility=shared")).is(200);
    let upload = |layer: &str, key: &str| {
        let body = json!({ "layer_id": layer, "wrapped_dek": key });
        assert_eq!(user.post(keys, &body).json(), json!({ "ok": true }));
    };
    let key_of_new = |name: &str, visibility: &str| -> Value {
        write(&user, name, &value("dev", visibility, "AAAA"))["layer_key_id"].clone()
    };
    assert!(key_of_new("EARLY", "shared").is_null());
    upload("shared:1:dev", "AAAA");
    let first = key_of_new("ONE", "shared");
    upload("shared:1:dev", "BBBB");
    let second = key_of_new("TWO", "shared");
    upload("shared:1:dev", "AAAA");
    assert_eq!(key_of_new("THREE", "shared"), first, "uploaded again, it is the last");
    assert_ne!(first, second);
    upload("personal:1:dev:1", "CCCC");
    let personal = key_of_new("ONE", "personal");
    assert!(personal != first && personal != second);

    let listed = user.read(&format!("{keys}?layer_id=shared%3A1%3Adev"))["keys"].clone();
    assert_has(&listed[0], json!({ "id": first, "wrapped_dek": "AAAA" }));
    assert_eq!(listed[1]["wrapped_dek"], "BBBB", "the last upload first");
    assert_eq!(user.read(keys)["keys"].as_array().unwrap().len(), 3);
}
