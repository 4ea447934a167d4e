//! The end: what is in flight is finished, what idles does not delay it.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::fixture::http::get;
use crate::fixture::target::serve;
use crate::fixture::{eventually, noise};

#[test]
fn a_push_that_is_half_sent_at_the_signal_is_finished_and_durable() {
    let mut server = serve(&["--stop-timeout", "20"]);
    server.register();
    let state = noise(600_000);
    let (first, second) = state.split_at(250_000);
    let mut idle = server.connect();
    idle.assert_reusable("before");
    let mut client = server.connect();
    client.send(server.push_head(state.len() as u64, ""));
    client.send(first);
    eventually("the upload is under way", || server.uploads() == 1);
    server.terminate();
    idle.assert_closed("idle at the stop");
    eventually("nothing more is accepted", || TcpStream::connect(server.address()).is_err());
    client.send(second);
    let response = client.response();
    assert_eq!(response.status, 201, "{response:?}");
    assert!(response.closes());
    client.assert_closed("the last response");
    assert_eq!(server.wait().code(), Some(0));
    let again = server.again();
    assert_eq!(again.ask(again.pull(true)).body, state);
}

#[test]
fn idle_and_dripping_connections_do_not_delay_the_stop() {
    let mut server =
        serve(&["--stop-timeout", "60", "--head-timeout", "60", "--idle-timeout", "60"]);
    let mut clients: Vec<_> = (0..15).map(|_| server.connect()).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        match n % 3 {
            0 => client.assert_reusable("before"),
            1 => client.send(&get("/healthz")[..20]),
            _ => {}
        }
    }
    // A half head is in the server's hands once a later one was answered; then some.
    server.assert_serves(crate::fixture::ELSEWHERE);
    std::thread::sleep(Duration::from_millis(100));
    server.terminate();
    // The fixture's patience is far below a minute.
    assert_eq!(server.wait().code(), Some(0));
    clients.iter_mut().for_each(|client| client.assert_closed("stopped"));
}

#[test]
fn a_body_that_never_comes_delays_the_stop_only_for_its_timeout() {
    let mut server = serve(&["--stop-timeout", "1", "--body-grace", "60"]);
    server.register();
    let mut client = server.connect();
    client.send(server.push_head(1000, ""));
    eventually("the upload waits for its body", || server.uploads() == 1);
    server.terminate();
    assert_eq!(server.wait().code(), Some(0));
    client.assert_closed("cut off");
    let again = server.again();
    assert_eq!((again.uploads(), again.snapshots()), (0, vec![]));
}

#[test]
fn another_process_that_holds_the_database_does_not_hold_up_the_stop() {
    let mut server = serve(&["--stop-timeout", "1"]);
    // Rows about the stop cannot be written, and that is said.
    server.errors_expected = true;
    server.register();
    let database = server.database();
    database.execute_batch("BEGIN IMMEDIATE").unwrap();
    let begin = Instant::now();
    server.terminate();
    assert_eq!(server.wait().code(), Some(0));
    assert!(begin.elapsed() < Duration::from_secs(4), "{:?}", begin.elapsed());
}
