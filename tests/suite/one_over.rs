//! Bounds that no other file tries, each one over, and what they must not touch.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddrV4;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};
use std::time::SystemTime;

use rustix::process::{Pid, Signal, kill_process};

use crate::fixture::{
    BINARY, HERE, at_once, connect, eventually, get, noise, refused, request, serve, with_machine,
};

const MIB: usize = 1024 * 1024;

#[test]
fn the_listener_of_metrics_has_few_connections_of_its_own() {
    let server = serve(&["--metrics", "127.0.0.1:0"]);
    let held: Vec<_> = (0..8).map(|_| server.connect_metrics()).collect();
    refused(&server.connect_metrics().response(), 503, "overloaded");
    server.assert_serves(HERE);
    drop(held);
}

#[test]
fn the_unread_body_of_an_unauthenticated_client_is_not_read_for_ever_fast_or_slow() {
    let server = serve(&[]);
    let refused_client = || {
        let mut client = server.connect();
        client.send(request("POST", "/nowhere", "Content-Length: 1000000000000\r\n"));
        refused(&client.response(), 404, "not_found");
        client
    };
    let mut client = refused_client();
    let (piece, mut sent) = (vec![b'x'; 64 * 1024], 0);
    while client.try_send(&piece) {
        sent += piece.len();
        // What both kernels keep for a reader that is gone, and more.
        assert!(sent < 16 * MIB, "{sent} bytes");
    }
    let mut client = refused_client();
    eventually("the connection is closed", || !client.try_send(b"x"));
}

#[test]
fn a_log_that_nobody_reads_delays_no_request_and_is_bounded() {
    let scratch = tempfile::tempdir().unwrap();
    let mut command = Command::new(BINARY);
    command.args(["serve", "--listen", "127.0.0.1:0", "--data"]).arg(scratch.path().join("data"));
    let mut server = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let port = line.trim().rsplit(':').next().unwrap().parse().unwrap();
    let mut client = connect(HERE, SocketAddrV4::new(HERE.into(), port), None);
    let asked = get(&format!("/{}", "a".repeat(255)));
    for _ in 0..3000 {
        client.send(&asked);
        assert_eq!(client.response().status, 404);
    }
    kill_process(Pid::from_child(&server), Signal::TERM).unwrap();
    let mut log = String::new();
    server.stderr.take().unwrap().read_to_string(&mut log).unwrap();
    assert!(server.wait().unwrap().success());
    assert!(log.contains(" log lines dropped"), "{} lines and none dropped", log.lines().count());
}

#[test]
fn while_another_process_holds_the_database_pushes_are_told_to_try_again() {
    let (mut server, user) = with_machine(&[]);
    server.errors_expected = true;
    let other = server.database();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    // More than there are workers, twice: some wait for one in vain.
    let responses = at_once(18, |n| user.push("m", &[b'x'; 100][..=n], ""));
    for response in &responses {
        refused(response, 503, "overloaded");
        assert_eq!(response.field("retry-after"), Some("2"));
    }
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(server.files("snapshots"), 0);
    user.stored("m", b"now");
}

#[test]
fn a_file_changed_after_it_was_verified_is_not_served_whatever_its_dates_say() {
    let (mut server, user) = with_machine(&[]);
    server.errors_expected = true;
    let mut bytes = noise(10_000);
    user.stored("m", &bytes);
    let file = server.snapshot_file(1);
    // Younger files are not remembered as verified.
    eventually("the file is old enough", || {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        now.as_secs() as i64 > file.metadata().unwrap().ctime() + 3
    });
    assert_eq!(user.pull("").body, bytes);
    let dates = file.metadata().unwrap();
    bytes[0] ^= 1;
    fs::write(&file, &bytes).unwrap();
    let opened = File::options().write(true).open(&file).unwrap();
    opened.set_modified(dates.modified().unwrap()).unwrap();
    assert_eq!(file.metadata().unwrap().mtime_nsec(), dates.mtime_nsec());
    refused(&user.pull(""), 500, "snapshot_damaged");
}
