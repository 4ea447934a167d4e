//! Long responses wait in files, not in memory, and those of one user are bounded.

use std::io::Read;

use serde_json::json;

use crate::fixture::{
    Client, HERE, Server, User, alone, eventually, refused, request, with_two_users, with_user,
};

const MIB: usize = 1024 * 1024;

/// A project of this user whose list of variables is so many MiB long; the list's path.
pub fn long_list(user: &User, mib: usize) -> String {
    let id = user.add("project", "p");
    let value = "A".repeat(MIB / 2 - 1024);
    for n in 0..mib * 2 {
        let body = json!({ "environment_tier": "dev", "encrypted_value": value });
        user.put(&format!("/api/projects/{id}/env/V{n}"), &body).is(200);
    }
    format!("/api/projects/{id}/env")
}

/// Asks for a path and reads nothing.
pub fn ask(server: &Server, user: &User, path: &str, from: [u8; 4]) -> Client {
    let mut client = server.connect_narrow(from);
    client.send(request("GET", path, &user.auth()));
    client
}

/// So many readers that have the beginning of their response, for which all of it was made.
fn readers(server: &Server, user: &User, path: &str, count: usize) -> Vec<Client> {
    let mut readers: Vec<_> = (0..count).map(|_| ask(server, user, path, HERE)).collect();
    for reader in &mut readers {
        reader.stream.read_exact(&mut [0; 12]).unwrap();
    }
    readers
}

#[test]
fn many_readers_of_a_long_list_that_do_not_read_hold_no_memory() {
    let _alone = alone();
    let (server, user) = with_user(&[]);
    let path = long_list(&user, 3);
    let whole = user.get(&path).body.len();
    assert!(whole > 2 * MIB, "{whole}");
    let before = server.usage_at_rest();
    let readers = readers(&server, &user, &path, 31);
    let grown = server.peak_kib().saturating_sub(before.resident_kib);
    println!("31 readers of {whole} bytes: {grown} KiB");
    assert!(grown < 48 * 1024, "{grown} KiB");
    drop(readers);
    server.assert_settles(before);
    assert_eq!(server.files("tmp"), 0);
}

#[test]
fn the_long_responses_that_wait_for_one_user_are_bounded_and_another_user_is_served() {
    let _alone = alone();
    let flags = ["--max-connections-per-ip", "200", "--body-grace", "60"];
    let (server, user, other) = with_two_users(&flags);
    // More than the kernel buffers for a reader that does not read.
    let (path, of_other) = (long_list(&user, 12), long_list(&other, 1));
    let whole = user.get(&path).body.len();
    let readers = readers(&server, &user, &path, 128 * MIB / whole);
    let refusal = user.get(&path);
    refused(&refusal, 503, "overloaded");
    assert_eq!(refusal.field("retry-after"), Some("2"));
    other.get(&of_other).is(200);
    user.get("/api/machines").is(200);
    drop(readers);
    eventually("the room is given back", || user.get(&path).status == 200);
}

#[test]
fn a_list_of_any_length_is_the_same_as_its_rows() {
    let (_server, user) = with_user(&[]);
    let mut seen = Vec::new();
    for n in 0..400 {
        let name = format!("{n:04}-{}", "n".repeat(240));
        user.post("/api/machines", &json!({ "machine_id": format!("m{n}"), "name": name }));
        seen.push(name);
        // Around the bound of 64 KiB, where a file takes over, and far above it.
        if [1, 120, 125, 130, 135, 140, 145, 150, 399].contains(&n) {
            let list = user.read("/api/machines");
            let machines = list["machines"].as_array().unwrap().iter();
            let mut names: Vec<_> = machines.map(|one| one["name"].as_str().unwrap()).collect();
            names.sort();
            assert_eq!(names, seen, "{n}");
            assert_eq!(list["user"]["email"], "a@example.org");
            let [head, whole] =
                ["HEAD", "GET"].map(|method| user.raw(method, "/api/machines", "", b""));
            assert_eq!(head.field("content-length"), whole.field("content-length"), "{n}");
        }
    }
}
