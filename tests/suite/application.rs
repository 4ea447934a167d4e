//! tiny_http behind the gate: it serves who has a ticket, each their own, and a server that lost it
//! ends.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::fixture::{HERE, Server, eventually, names, refused, serve, with_machine, with_user};

/// The private socket of a server.
fn private_socket(server: &Server) -> PathBuf {
    let run = server.data().join("run");
    run.join(names(&run).first().unwrap())
}

#[test]
fn a_body_at_the_bound_of_its_route_arrives_whole_and_its_response_too() {
    let (_server, user) = with_user(&[]);
    let (machines, plan) = ("/api/machines", "/api/sync/plan");
    for (path, bytes) in
        [(machines, 1023), (machines, 1024), (machines, 1025), (machines, 65_536), (plan, 1 << 20)]
    {
        let open = r#"{"machine_id": "m", "name": "m", "entities": [], "x": ""#;
        let body = format!("{open}{}\"}}", "x".repeat(bytes - open.len() - 2));
        let response = user.raw("POST", path, "", body.as_bytes());
        assert!([200, 201].contains(&response.status), "{bytes}: {response:?}");
    }
    let value = "A".repeat(1024 * 1024 - 100);
    user.add("project", "p");
    user.put_variable("A", &value).is(200);
    assert_eq!(user.read("/api/projects/1/env")["variables"][0]["encrypted_value"], value);
}

#[test]
fn the_private_socket_serves_nothing_to_who_has_no_ticket() {
    let (server, user) = with_machine(&[]);
    let mut socket = UnixStream::connect(private_socket(&server)).unwrap();
    let id = format!("TE: identity\r\nConnection: close\r\nX-Request-Id: {:032x}\r\n", 7);
    socket.write_all(&user.request("GET", "/api/machines", &id, b"")).unwrap();
    let mut text = String::new();
    socket.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 204 "), "{text}");
}

#[test]
fn a_server_whose_workers_get_no_more_requests_ends_with_exit_code_1() {
    // Where another thread of the server takes the last descriptor, tiny_http panics instead; then
    // once more.
    let code = (0..10).find_map(|_| {
        let mut server = serve(&[]);
        server.errors_expected = true;
        server.assert_serves(HERE);
        server.usage_at_rest();
        let socket = private_socket(&server);
        // tiny_http ends its accept loop for good at the first error, such as no free descriptor.
        // Both listeners hold one for their next connection already; the next is for this one's
        // copy.
        let open = names(server.proc("fd"));
        let mut free = (0..).filter(|fd: &u64| !open.contains(&fd.to_string()));
        let limit = free.nth(2).map(|fd| fd + 1);
        let pid = Pid::from_raw(server.id().cast_signed()).unwrap();
        prlimit(Some(pid), Resource::Nofile, Rlimit { current: limit, maximum: limit }).unwrap();
        // What the server closed meanwhile makes room for a few.
        let _knocks: Vec<_> = (0..16).map(|_| UnixStream::connect(&socket)).collect();
        let mut is_lost = false;
        eventually("tiny_http ends", || {
            let log = server.log_lines().join("\n");
            is_lost = log.contains("tiny_http accepts nothing any more");
            is_lost || log.contains("internal error: panic")
        });
        is_lost.then(|| server.wait().code())
    });
    assert_eq!(code, Some(Some(1)));
}

#[test]
fn thousands_of_requests_over_the_fixed_links_are_each_answered_with_their_own() {
    let server = serve(&[]);
    let users = [server.user("a@example.org"), server.user("b@example.org")];
    std::thread::scope(|scope| {
        for user in &users {
            user.register(&user.email.replace('@', "-"));
            for _ in 0..4 {
                scope.spawn(|| {
                    let nothing = br#"{"environments":[]}"#;
                    let sync = user.request("PUT", "/api/environments/sync", "", nothing);
                    let mut client = server.connect();
                    for n in 0..250 {
                        if n % 5 == 0 {
                            client.send(&sync);
                            client.response().is(200);
                        }
                        let path = format!("/api/machines?n={n}");
                        client.send(user.request("GET", &path, "", b""));
                        let machines = client.response().json();
                        let id = &machines["machines"][0]["machine_id"];
                        assert_eq!(*id, user.email.replace('@', "-"));
                    }
                });
            }
        }
    });
    refused(&server.ask("GET", "/nowhere", "", b""), 404, "not_found");
    eventually("nothing waits", || server.files("tmp") == 0);
}
