//! Attacks on the gate: raw bytes over real sockets against the real binary. Every test says what
//! is answered, whether the connection lives on, and that nothing was taken for a second request.

mod bodies;
mod connections;
mod floods;
mod heads;
mod mutations;
mod stop;

use crate::fixture::{Client, Server, User, eventually};

/// Must never be served: it stands where a body or garbage stands.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: t\r\n\r\n";

/// Sends this in pieces of so many bytes: it is refused, and the connection is closed.
#[track_caller]
fn assert_refused(server: &Server, about: &str, status: u16, bytes: &[u8], piece: usize) {
    let mut client = server.connect();
    // The server may have closed before the last piece.
    let _ = bytes.chunks(piece).all(|piece| client.try_send(piece));
    let response = client.response();
    assert_eq!(response.status, status, "{about}: {response:?}");
    assert!(response.closes() && response.json()["error"].is_string(), "{about}: {response:?}");
    client.assert_closed(about);
}

/// A push of 100,000 bytes of which half was sent.
fn half_a_push(server: &Server, user: &User) -> Client {
    let mut client = server.connect();
    client.send(user.push_head(100_000, "") + &"x".repeat(50_000));
    eventually("the upload is under way", || server.files("tmp") == 1);
    client
}

/// Asserts that so many requests were seen, and of which status the last one was.
#[track_caller]
fn assert_seen(server: &Server, about: &str, count: usize, status: u16) {
    let logged = server.wait_for_requests(count);
    assert_eq!(logged.len(), count, "{about}: another request was seen");
    assert_eq!(logged[count - 1].status, u64::from(status), "{about}");
    assert!(!logged.iter().any(|request| request.path.contains("smuggled")), "{about}");
}
