//! A wrong clock deletes nothing: neither one that stands in 1970, as on a board without a battery,
//! nor one that is years ahead. The clock is set by a small library that a C compiler makes; where
//! there is none, these tests say so and pass.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::fixture::{BINARY, Mount, NAME, Ran, Server, Setup, User, eventually, fill, run_with};

const DAY_S: i64 = 86_400;

const SHIM: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
static long long off(void) {
  char b[32] = {0};
  int fd = open(getenv("CLOCK_OFFSET_FILE"), O_RDONLY);
  read(fd, b, 31);
  close(fd);
  return atoll(b);
}
int clock_gettime(clockid_t c, struct timespec *t) {
  int r = syscall(SYS_clock_gettime, c, t);
  if (!r && (c == CLOCK_REALTIME || c == CLOCK_REALTIME_COARSE)) t->tv_sec += off();
  return r;
}
"#;

/// A clock that a test sets, and the scratch folder that it lies in.
struct Clock {
    scratch: Arc<tempfile::TempDir>,
    library: PathBuf,
    offset: PathBuf,
}

impl Clock {
    fn new() -> Option<Clock> {
        let scratch = Arc::new(tempfile::tempdir().unwrap());
        let path = |name: &str| scratch.path().join(name);
        let (source, library, offset) = (path("clock.c"), path("clock.so"), path("offset"));
        fs::write(&source, SHIM).unwrap();
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source);
        if !compiler.output().is_ok_and(|done| done.status.success()) {
            println!("skipped: there is no C compiler");
            return None;
        }
        let clock = Clock { scratch, library, offset };
        clock.set_ahead(0);
        Some(clock)
    }

    /// Sets it so many seconds ahead of the true time.
    fn set_ahead(&self, seconds: i64) {
        fs::write(&self.offset, seconds.to_string()).unwrap();
    }

    /// Sets it a minute after the beginning of 1970.
    fn set_to_1970(&self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        self.set_ahead(60 - i64::try_from(now).unwrap());
    }

    fn serve(&self, flags: &[&str]) -> Server {
        Setup::on(Arc::clone(&self.scratch))
            .flags(flags)
            .env("LD_PRELOAD", &self.library)
            .env("CLOCK_OFFSET_FILE", &self.offset)
            .start()
    }

    fn cli(&self, args: &[&str]) -> Ran {
        let mut command = Command::new(BINARY);
        command.args(args).arg("--data").arg(self.scratch.path().join("data"));
        command.env("LD_PRELOAD", &self.library).env("CLOCK_OFFSET_FILE", &self.offset);
        run_with(&mut command, "")
    }

    /// How many rows the audit log has of an event.
    fn events(&self, name: &str) -> usize {
        self.cli(&["audit", "--event", name]).out.lines().count()
    }

    /// Starts a server that could delete by age, and waits until it did what a start does.
    fn start_with_retention(&self) -> Server {
        let before = self.events("server.start");
        let server = self.serve(&["--audit-days", "30"]);
        eventually("its start is noted", || self.events("server.start") > before);
        // Retention is the first thing that its thread does.
        self.cli(&["prune", "--keep", "9"]).ok();
        server
    }
}

/// What age may delete: an audit row, a soft-deleted project, an orphan.
fn furnish(server: &Server) -> User {
    let user = server.user("a@example.org");
    user.register("m");
    user.stored("m", b"one");
    user.add("project", "p");
    user.delete("/api/projects/1").is(200);
    fs::write(server.data().join("orphans").join(NAME), "somebody's").unwrap();
    user
}

fn assert_nothing_lost(clock: &Clock, server: &Server, pushes: usize, when: &str) {
    assert_eq!(clock.events("snapshot.push"), pushes, "{when}");
    assert_eq!(server.files("snapshots"), pushes, "{when}");
    assert_eq!(server.count("SELECT count(*) FROM entities"), 1, "{when}");
    assert_eq!(server.files("orphans"), 1, "{when}");
}

#[test]
fn starts_under_a_wrong_clock_lose_no_row_however_often_they_come() {
    let Some(clock) = Clock::new() else { return };
    for (set, when) in [
        (Clock::set_to_1970 as fn(&Clock), "1970"),
        (|clock| clock.set_ahead(3 * 366 * DAY_S), "three years ahead"),
    ] {
        let _ = fs::remove_dir_all(clock.scratch.path().join("data"));
        clock.set_ahead(0);
        let mut server = clock.serve(&[]);
        furnish(&server);
        server.stop();
        set(&clock);
        // A command comes first, and what it notes must not hide that the clock jumped.
        clock.cli(&["token", "create", "a@example.org", "--name", "wrong clock"]).ok();
        for start in 1..=3 {
            let mut server = clock.start_with_retention();
            assert_nothing_lost(&clock, &server, 1, when);
            if start == 1 {
                server.wait_for_log("the clock");
            }
            server.stop();
        }
        // Right again, the rows of the wrong time are not what makes the others old.
        clock.set_ahead(0);
        let server = clock.serve(&["--audit-days", "30"]);
        assert_nothing_lost(&clock, &server, 1, when);
    }
}

#[test]
fn a_clock_that_jumps_while_the_server_runs_makes_the_next_start_wait() {
    let Some(clock) = Clock::new() else { return };
    let mut server = clock.start_with_retention();
    let user = furnish(&server);
    clock.set_ahead(3 * 366 * DAY_S);
    user.push("m", b"under the wrong clock", "").is(201);
    server.kill();
    for _ in 0..2 {
        let mut server = clock.start_with_retention();
        assert_nothing_lost(&clock, &server, 2, "after the jump");
        server.stop();
    }
}

#[test]
fn where_a_jump_of_the_clock_cannot_be_noted_no_row_hides_it() {
    let Some(clock) = Clock::new() else { return };
    let data = clock.scratch.path().join("data");
    fs::create_dir(&data).unwrap();
    let Some(_mount) = Mount::tmpfs(&data, "12m") else { return };
    let mut server = clock.serve(&["--min-free", "0"]);
    furnish(&server).stored("m", b"two");
    server.stop();
    clock.set_ahead(400 * DAY_S);
    fill(&data.join("filler"));
    // It has a row to write, with room for that once it gave up the reserve.
    clock.cli(&["prune", "--keep", "1"]).ok();
    fs::remove_file(data.join("filler")).unwrap();
    clock.cli(&["prune", "--keep", "1"]).ok();
    assert_eq!(server.count("SELECT count(*) FROM entities"), 1);
    assert_eq!((server.files("snapshots"), server.files("orphans")), (1, 1));
}

#[test]
fn a_snapshot_is_as_young_as_the_youngest_before_it_and_no_clock_makes_all_old() {
    let Some(clock) = Clock::new() else { return };
    let server = clock.serve(&[]);
    let user = server.user("a@example.org");
    user.register("m");
    user.stored("m", b"one");
    clock.set_to_1970();
    user.stored("m", b"two, before the time was known");
    clock.set_ahead(0);
    user.stored("m", b"three");
    clock.cli(&["prune", "--older-than-days", "30"]).ok();
    assert_eq!(user.history(), [3, 2, 1]);
    for ahead in [40 * 365 * DAY_S, -40 * 365 * DAY_S] {
        clock.set_ahead(ahead);
        clock.cli(&["prune", "--older-than-days", "3650"]).ok();
    }
    clock.set_ahead(0);
    assert_eq!(user.history(), [3, 2, 1]);
    // Pushed under a clock that is ahead, one is old only once that time has come.
    let age = "UPDATE state_snapshots SET created_at = created_at - 40 * 86400000 WHERE id < 3";
    server.database().execute(age, []).unwrap();
    let pruned = clock.cli(&["prune", "--older-than-days", "30"]);
    assert!(pruned.out.contains("deleted 2 snapshots"), "{pruned:?}");
}
