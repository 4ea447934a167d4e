//! What a client sends again: the same push, the creation of an entity whose upload failed.

use serde_json::{Value, json};

use crate::fixture::{ELSEWHERE, HERE, User, eventually, refused, serve, with_machine};

#[test]
fn two_identical_pushes_at_once_are_stored_once_whatever_the_timing() {
    let (server, user) = with_machine(&[]);
    for round in 0..3_u8 {
        let files = server.files("snapshots");
        // The test holds the lock of the database until both have looked at the newest snapshot
        // and lie in their places.
        let database = server.database();
        database.execute_batch("BEGIN IMMEDIATE").unwrap();
        let mut statuses = std::thread::scope(|scope| {
            let pushes = [(); 2].map(|()| scope.spawn(|| user.push("m", &[round; 1000], "")));
            eventually("both wait for the database", || server.files("snapshots") == files + 2);
            database.execute_batch("COMMIT").unwrap();
            pushes.map(|push| push.join().unwrap().status)
        });
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 201]);
        assert_eq!(server.files("snapshots"), files + 1);
    }
    assert_eq!(user.history().len(), 3);
    // The older route stores each push.
    let push = json!({ "encrypted_state": "AAAA" });
    for _ in 0..2 {
        user.post("/api/machines/m/push", &push).is(200);
    }
    assert_eq!(user.history().len(), 5);
}

#[test]
fn a_retry_of_a_push_that_another_one_followed_is_a_new_snapshot() {
    let (_server, user) = with_machine(&[]);
    user.stored("m", b"one");
    user.stored("m", b"two");
    user.stored("m", b"one");
    user.push("m", b"one", "").is(200);
    assert_eq!(user.history().len(), 3);
}

fn create(user: &User, kind: &str, name: &str) -> i64 {
    let body = json!({ "slug": "s", "name": name });
    user.post(&format!("/api/{kind}s"), &body).is(201)[kind]["id"].as_i64().unwrap()
}

#[test]
fn an_entity_whose_first_version_never_came_is_no_dead_end() {
    let server = serve(&[]);
    let (a, b) = (server.user("a@example.org"), server.user("b@example.org"));
    for kind in ["project", "workspace", "config", "module", "profile"] {
        let path = format!("/api/{kind}s");
        let of_b = create(&b, kind, "of b");
        // Without a key it is taken over.
        let first = create(&a, kind, "first");
        assert_eq!(create(&a, kind, "second"), first);
        assert_eq!(a.read(&path)[format!("{kind}s")][0]["name"], "second");
        // With a key it is replaced: who put the key there may still encrypt with it.
        a.post(&format!("{path}/{first}/keys"), &json!({ "wrapped_dek": "AAAA" })).is(201);
        let third = create(&a, kind, "third");
        assert!(third > first);
        refused(&a.get(&format!("{path}/{first}")), 404, "not_found");
        a.post(&format!("{path}/{third}/keys"), &json!({ "wrapped_dek": "BBBB" })).is(201);
        a.push_version(kind, third, b"version");
        // With a version it stays.
        let again = a.post(&path, &json!({ "slug": "s", "name": "fourth" }));
        refused(&again, 409, "conflict");
        assert_eq!(a.read(&path)[format!("{kind}s")].as_array().unwrap().len(), 1);
        assert_eq!(b.read(&format!("{path}/{of_b}"))[kind]["name"], "of b");
    }
}

#[test]
fn a_hundred_garbage_tokens_block_neither_passwords_nor_good_tokens() {
    let server = serve(&[]);
    server.user_with_password("a@example.org", "correct horse");
    let good = server.token("a@example.org");
    let password = json!({ "email": "a@example.org", "password": "correct horse" });
    let token = |n: u32| -> Value { json!({ "token": format!("cs_{n:040}") }) };
    for n in 0..100 {
        server.login_from(HERE, &token(n)).is(401);
    }
    refused(&server.login_from(HERE, &token(100)), 429, "too_many_attempts");
    server.login_from(HERE, &json!({ "token": good })).is(200);
    server.login_from(HERE, &password).is(200);
    server.login_from(ELSEWHERE, &token(100)).is(401);
}
