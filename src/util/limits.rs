//! Every bound of the program in one place: its unit is the last word of its name, its reason
//! stands above it. Bounds that a flag of `serve` moves are defaults here.

// ---- Connections -------------------------------------------------------------------------

/// Connections open at once (`--max-connections`). A team of 20 with a few clients each stays
/// far below; each idle one costs about 20 KiB.
pub const CONNECTIONS_MAX: usize = 256;
/// Connections open at once from one IPv4 address or IPv6 /64 (`--max-connections-per-ip`).
pub const CONNECTIONS_PER_PEER_MAX: usize = 32;
/// Bits of an IPv6 address that count as one peer: a /64 is the smallest block that a provider
/// hands to a customer (RFC 6177), who can take a new address in it for every connection. Of an
/// IPv4 address all 32 bits count.
pub const PEER_NETWORK_BITS: u32 = 64;
/// Connections open at once on the listener of `--metrics`: a Prometheus, and somebody who looks.
pub const METRICS_CONNECTIONS_MAX: usize = 8;
/// Descriptors the program needs beside its connections: standard streams, SQLite's database,
/// WAL and shared-memory files for writer and readers, the private sockets of the workers, locks.
pub const DESCRIPTORS_RESERVED: u64 = 64;
/// Descriptors of one request in flight: its socket, an upload or a download, a folder being
/// synced.
pub const DESCRIPTORS_PER_CONNECTION: u64 = 4;
/// Stack of a connection thread in bytes: its buffers and the memory of a password hash live on the
/// heap, and authentication runs one prepared SQLite statement.
pub const CONNECTION_STACK_BYTES: usize = 128 * 1024;
/// Pause of the accept loop after an error such as "too many open files", in milliseconds.
pub const ACCEPT_PAUSE_MS: u64 = 50;
/// `Retry-After` of every 503 and 507, in seconds.
pub const RETRY_AFTER_S: u64 = 2;

// ---- Request heads -----------------------------------------------------------------------

/// Bytes of a request line with all its fields; browsers and proxies stay under 8 KiB.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Header fields of a request.
pub const HEAD_FIELDS_MAX: usize = 64;
/// Characters of a method; the longest registered one has 17 and belongs to WebDAV.
pub const METHOD_CHARS_MAX: usize = 16;
/// Seconds from the first byte of a head to its last (`--head-timeout`).
pub const HEAD_TIMEOUT_S: u64 = 10;
/// Seconds a connection may wait for its next request (`--idle-timeout`).
pub const IDLE_TIMEOUT_S: u64 = 30;
/// Bytes that are read ahead of a request on each connection; most heads fit.
pub const HEAD_READ_BYTES: usize = 1024;

// ---- Bodies ------------------------------------------------------------------------------

/// Bytes of one request body (`--max-body`): a state of 48 MiB as base64 in JSON.
pub const BODY_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Bytes of a body that is held in memory, and of what an upload in JSON holds beside its state.
pub const SMALL_BODY_BYTES_MAX: usize = 64 * 1024;
/// The same where a signed-in user's JSON holds a list or a long value: a plan for some 8,000
/// projects. All connections of one address together hold 32 MiB of them.
pub const LONG_JSON_BYTES_MAX: usize = 1024 * 1024;
/// Objects and arrays of JSON inside each other. serde_json bounds only what it keeps: what it
/// ignores may nest to any depth.
pub const JSON_NESTING_MAX: u32 = 128;
/// Bytes received from or sent to a socket in one piece.
pub const PIECE_BYTES: usize = 64 * 1024;
/// Seconds a body or a response may take before the minimum rate counts (`--body-grace`); also
/// the most credit that a fast start can earn.
pub const BODY_GRACE_S: u64 = 10;
/// Bytes a second that a body or a response must move once its grace is over.
pub const RATE_MIN_BYTES_PER_S: u64 = 1024;
/// Milliseconds that one call may wait for room in a socket before the rate is looked at.
pub const SEND_WAIT_MS: u64 = 250;
/// Connections that wait to be accepted: a burst must not be lost in the kernel.
pub const BACKLOG: i32 = 1024;
/// Bytes of file that one sendfile call may send, so that the rate is looked at in between.
pub const SENDFILE_BYTES: usize = 1024 * 1024;
/// Bytes of an unauthenticated client's unread body that are read and dropped before a close, so
/// that the client can read its response (RFC 9112, section 9.6).
pub const LINGER_BYTES: u64 = 256 * 1024;
/// The same for a signed-in user: clients that send all before they read would see no response.
pub const LINGER_USER_BYTES: u64 = 256 * 1024 * 1024;
/// Milliseconds that such a close may take, and how long nothing may arrive.
pub const LINGER_MS: u64 = 1000;
/// Milliseconds that it may take for a signed-in user.
pub const LINGER_USER_MS: u64 = 10_000;
/// Bytes of an upload after which the kernel is told to start writing them back.
pub const WRITEBACK_BYTES: u64 = 1024 * 1024;

// ---- Workers -----------------------------------------------------------------------------

/// Worker threads, and private connections to tiny_http: a worker waits for the disk and never
/// for the network, so a few serve everybody.
pub const WORKERS: usize = 6;
/// Threads that a start makes sure of: the workers and a thread of tiny_http for each link to them,
/// its accept loop, two gates, two tasks in the background, one connection on each gate, one spare.
pub const THREADS_AT_START: usize = 2 * WORKERS + 8;
/// Workers that one user's requests may have: the other half, and a reader of the database, are
/// free for others whatever that user asks for.
pub const WORKERS_PER_USER_MAX: usize = WORKERS / 2;
/// Seconds a request waits for a free worker before it gets 503.
pub const WORKER_WAIT_S: u64 = 10;
/// Seconds a worker may take for one request before the gate gives up on it: above SQLite's
/// busy timeout and a slow disk's fsync.
pub const WORKER_RESPONSE_S: u64 = 60;
/// Milliseconds in which each private link must carry one response at a start.
pub const LINK_START_MS: u64 = 2000;
/// Bytes of the head of the application's response.
pub const UPSTREAM_HEAD_BYTES_MAX: u64 = 16 * 1024;
/// Bytes of a refusal's sentence in the status line: clients cut long ones off.
pub const SENTENCE_BYTES_MAX: usize = 200;
/// Bytes of a response that wait in memory for their reader; above that they wait in a file.
pub const RESPONSE_MEMORY_BYTES_MAX: usize = 64 * 1024;
/// Bytes of responses that wait in files for the readers of one user, over all connections.
pub const RESPONSE_FILE_BYTES_PER_USER_MAX: u64 = 128 * 1024 * 1024;
/// Seconds that `healthcheck` waits to connect, and for a response.
pub const HEALTHCHECK_TIMEOUT_S: u64 = 5;
/// Milliseconds in which the database may be settled at a stop, when no more of its time is left.
pub const STOP_CHECKPOINT_MS: u64 = 1000;
/// Seconds that requests in flight get after SIGTERM (`--stop-timeout`).
pub const STOP_TIMEOUT_S: u64 = 10;

// ---- Fields ------------------------------------------------------------------------------

/// Characters of a machine id.
pub const MACHINE_ID_CHARS_MAX: usize = 128;
/// Characters of a machine's or token's name.
pub const NAME_CHARS_MAX: usize = 255;
/// Characters of a snapshot's message.
pub const MESSAGE_CHARS_MAX: usize = 4096;
/// Characters of `platform`, `arch`, `cli_version`, `version` and `timestamp`.
pub const SHORT_CHARS_MAX: usize = 128;
/// Characters of an email address (RFC 5321 with its erratum 1690).
pub const EMAIL_CHARS_MAX: usize = 254;
/// Bytes of a password: beyond any passphrase, small enough to hash.
pub const PASSWORD_BYTES_MAX: usize = 1024;
/// Bytes that all rows of one user count, whatever they are of: their text and 1 KiB each, so at
/// most 65,536 rows (a row beside a file counts 256 bytes). A list of all of them is one response
/// of at most 128 MiB, and takes a fraction of a second to make.
pub const TEXT_BYTES_PER_USER_MAX: u64 = 64 * 1024 * 1024;
/// Entities, and environments, of one user that are kept after they were deleted.
pub const DELETED_ROWS_MAX: i64 = 1000;
/// Entries of a list in one request: a plan, a commit, environments. All of them are in memory.
pub const REQUEST_ENTRIES_MAX: usize = 10_000;
/// Characters of a wrapped key; the clients' have 108.
pub const KEY_CHARS_MAX: usize = 4096;
/// Characters of a path, a URL or a description.
pub const LONG_CHARS_MAX: usize = 4096;
/// Snapshots of a history page when the request names no limit.
pub const HISTORY_PAGE_ROWS: usize = 20;
/// Snapshots of a history page at most.
pub const HISTORY_PAGE_ROWS_MAX: usize = 200;

// ---- Accounts ----------------------------------------------------------------------------

/// argon2id memory in KiB (OWASP Password Storage Cheat Sheet: 19 MiB, two passes, one lane).
pub const ARGON2_MEMORY_KIB: u32 = 19_456;
/// argon2id passes.
pub const ARGON2_PASSES: u32 = 2;
/// argon2id lanes.
pub const ARGON2_LANES: u32 = 1;
/// KiB of memory, and passes, of a stored hash that are still worked through, so that a row of the
/// database cannot stop the server. (Lanes run one after the other and cost nothing more.)
pub const STORED_HASH_MEMORY_MAX_KIB: u32 = 64 * 1024;
/// As [`STORED_HASH_MEMORY_MAX_KIB`].
pub const STORED_HASH_PASSES_MAX: u32 = 10;
/// Password hashes that run at once: 19 MiB each, and one core stays free on a small board.
pub const HASHES_AT_ONCE: usize = 2;
/// Logins that wait for a hash at once.
pub const HASHES_WAITING_MAX: usize = 64;
/// Seconds a login waits for a hash before it gets 503.
pub const HASH_WAIT_S: u64 = 5;
/// Seconds of the window in which failed logins count.
pub const LOGIN_WINDOW_S: u64 = 15 * 60;
/// Failed logins in that window for one account from one address.
pub const LOGIN_FAILURES_PER_ACCOUNT: usize = 10;
/// Bits of an IPv6 address that count as one address there: providers hand out up to a /56.
pub const LOGIN_NETWORK_BITS: u32 = 56;
/// Failed logins in that window from one address.
pub const LOGIN_FAILURES_PER_ADDRESS: usize = 100;
/// Accounts, and addresses, that the throttle remembers.
pub const THROTTLE_ENTRIES_MAX: usize = 10_000;
/// Random bytes of an API token.
pub const TOKEN_RANDOM_BYTES: usize = 32;
/// Characters of an API token that a list shows.
pub const TOKEN_PREFIX_CHARS: usize = 9;
/// Bytes of a JWT that are looked at; ours have about 300.
pub const JWT_BYTES_MAX: usize = 4096;
/// Hours that a JWT lives (`--token-hours`).
pub const JWT_HOURS: u64 = 24;
/// Milliseconds between two writes of one token's last use.
pub const TOKEN_USE_INTERVAL_MS: i64 = 60_000;

// ---- Store -------------------------------------------------------------------------------

/// Reader connections beside the one writer.
pub const READERS: usize = 4;
/// Page cache of one SQLite connection in KiB.
pub const SQLITE_CACHE_KIB: i64 = 1024;
/// Milliseconds that a statement waits for another process's lock.
pub const SQLITE_BUSY_MS: u64 = 5000;
/// Bytes to which the WAL is cut back after a checkpoint.
pub const WAL_BYTES_MAX: i64 = 8 * 1024 * 1024;
/// Free bytes that even an upload leaves which may turn out to be a retry, and so store nothing:
/// the database needs them.
pub const RETRY_FREE_BYTES_MIN: u64 = 8 * 1024 * 1024;
/// Files whose digest is remembered as verified.
pub const VERIFIED_FILES_MAX: usize = 1024;
/// Seconds such a verification counts.
pub const VERIFIED_S: u64 = 3600;
/// Seconds that a file must have been unchanged before its verification may be remembered: above
/// the granularity of file times, also where begun seconds are counted.
pub const VERIFIED_AGE_S: i64 = 3;
/// Free bytes of the disk below which pushes are refused (`--min-free`).
pub const FREE_BYTES_MIN: u64 = 64 * 1024 * 1024;
/// Rows (token uses, audit rows of reads) that wait for the next batch of the housekeeper.
pub const DEFERRED_ROWS_MAX: usize = 4096;
/// Milliseconds between two batches of the housekeeper.
pub const HOUSEKEEPING_MS: u64 = 500;
/// Seconds below which `check` passes over a file without a row while a server runs: longer
/// than any push takes from rename to commit.
pub const ORPHAN_AGE_S: i64 = 600;
/// Days that audit rows are kept (`--audit-days`).
pub const AUDIT_DAYS: u32 = 365;
/// Audit rows of one user and day about what changes nothing: reads, logins, refused pushes. Such
/// a row for every request would fill the disk.
pub const AUDIT_READS_PER_DAY_MAX: u32 = 10_000;
/// Audit rows of one user and day about changes: more than one a second all day.
pub const AUDIT_CHANGES_PER_DAY_MAX: u32 = 100_000;
/// Audit rows of one day about failed logins, which need no credentials: so many at each account,
/// and at all made-up ones together, which is 55 MB in a year of attack. The log has all of them.
pub const AUDIT_FAILURES_PER_DAY_MAX: u32 = 1000;
/// Days after which a prune deletes what was soft-deleted, or set aside in `orphans/`.
pub const DELETED_DAYS: u32 = 30;
/// Rows that one transaction of a prune deletes, so that pushes come in between, and that its log
/// fits into what the reserve frees: a row changes some five pages of 4 KiB, most of them shared.
pub const PRUNE_ROWS: usize = 100;
/// Bytes of the file that is given up for a command that frees room on a full disk.
pub const RESERVE_BYTES: u64 = 1024 * 1024;
/// Milliseconds that a start tries to get the lock of its data folder: `status` and `check` ask for
/// it too, for a moment.
pub const SERVER_LOCK_WAIT_MS: u64 = 2000;
/// Names that one warning shows.
pub const NAMES_SHOWN_MAX: usize = 10;
/// Files of commits in doubt that are remembered until the next good commit; then no more pushes
/// are taken before there is one.
pub const IN_DOUBT_MAX: usize = 64;
/// Milliseconds between two looks at how the data folder is, whoever asks.
pub const HEALTH_MS: u64 = 1000;
/// Free bytes of the disk below which not even the smallest push has room beside its row, whatever
/// `--min-free` says.
pub const HEALTHY_FREE_BYTES_MIN: u64 = 64 * 1024;
/// Milliseconds between the clock and the newest row above which the clock is not trusted.
pub const CLOCK_LEAD_MS: i64 = 7 * 86_400_000;
/// Milliseconds by which wall clock and monotonic clock may part between two looks.
pub const CLOCK_JUMP_MS: i64 = 86_400_000;
/// Milliseconds of running for which nothing is deleted by its age then.
pub const CLOCK_WAIT_MS: i64 = 86_400_000;
/// Snapshots beyond `--keep` that one push deletes.
pub const KEEP_ROWS: usize = 50;
/// Milliseconds between two rounds of retention.
pub const RETENTION_MS: u64 = 3_600_000;

/// Upper bounds of the buckets of the request durations in `/metrics`, in seconds.
pub const LATENCY_BUCKETS_S: [f64; 10] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0];

// ---- Log ---------------------------------------------------------------------------------

/// Lines that wait for a slow reader of standard error before new ones are dropped and counted.
pub const LOG_LINES_MAX: usize = 1024;
/// Milliseconds in which lines are collected before they are written in one piece.
pub const LOG_PAUSE_MS: u64 = 2;
/// Characters of a request's path in the log.
pub const LOG_PATH_CHARS_MAX: usize = 256;
