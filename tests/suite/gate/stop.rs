//! The end: what is in flight is finished, what idles does not delay it.

use std::fs;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::half_a_push;
use crate::fixture::{ELSEWHERE, eventually, get, with_machine};

#[test]
fn each_stopping_signal_lets_an_upload_in_flight_end_and_nothing_else_delay_it() {
    // Where the tests run under nohup, so does the server.
    let hangup = (!hangup_is_ignored()).then_some(Signal::HUP);
    for signal in [Signal::TERM, Signal::INT].into_iter().chain(hangup) {
        // The fixture's patience is far below a minute.
        let minute = ["--stop-timeout", "60", "--head-timeout", "60", "--idle-timeout", "60"];
        let (mut server, user) = with_machine(&minute);
        let mut clients: Vec<_> = (0..15).map(|_| server.connect()).collect();
        for (n, client) in clients.iter_mut().enumerate() {
            match n % 3 {
                0 => client.assert_reusable("before"),
                1 => client.send(&get("/healthz")[..20]),
                _ => {}
            }
        }
        let mut client = half_a_push(&server, &user);
        // A half head is in the server's hands once a later one was answered; then some.
        server.assert_serves(ELSEWHERE);
        std::thread::sleep(Duration::from_millis(100));
        server.signal(signal);
        clients.iter_mut().for_each(|client| client.assert_closed("idle or dripping"));
        eventually("nothing more is accepted", || TcpStream::connect(server.address()).is_err());
        client.send([b'x'; 50_000]);
        let response = client.response();
        assert!(response.status == 201 && response.closes(), "{signal:?}: {response:?}");
        client.assert_closed("the last response");
        assert_eq!(server.wait().code(), Some(0), "{signal:?}");
        for event in ["server.start", "server.stop"] {
            assert_eq!(server.ok(&["audit", "--event", event]).lines().count(), 1, "{event}");
        }
        assert_eq!(server.files("run"), 0);
        let _server = server.restarted(&[]);
        assert_eq!(user.pull("").body, [b'x'; 100_000]);
    }
}

fn hangup_is_ignored() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    u64::from_str_radix(ignored.trim(), 16).unwrap() & 1 == 1
}

#[test]
fn a_body_that_never_comes_delays_the_stop_only_for_its_timeout_or_until_a_second_signal() {
    for (timeout, second, code) in [("1", None, 0), ("3600", Some(Signal::INT), 1)] {
        let (mut server, user) = with_machine(&["--stop-timeout", timeout, "--body-grace", "3600"]);
        let mut client = half_a_push(&server, &user);
        server.signal(Signal::TERM);
        server.wait_for_log("stopping");
        second.into_iter().for_each(|signal| server.signal(signal));
        assert_eq!(server.wait().code(), Some(code), "{second:?}");
        client.assert_closed("cut off");
        let server = server.restarted(&[]);
        assert_eq!((server.files("tmp"), user.history().len()), (0, 0));
    }
}

#[test]
fn another_process_that_holds_the_database_does_not_hold_up_the_stop() {
    let (mut server, _) = with_machine(&["--stop-timeout", "1"]);
    // Rows about the stop cannot be written, and that is said.
    server.errors_expected = true;
    let database = server.database();
    database.execute_batch("BEGIN IMMEDIATE").unwrap();
    let begin = Instant::now();
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0));
    assert!(begin.elapsed() < Duration::from_secs(4), "{:?}", begin.elapsed());
}
