//! All limits of the program. The last word of a name is the unit, and the comment gives the
//! reason. Limits that a flag of `serve` changes are defaults here.

// ---- Connections -------------------------------------------------------------------------

/// Open connections (`--max-connections`). A team of 20 with a few clients each stays far below;
/// each idle connection costs about 20 KiB.
pub const CONNECTIONS_MAX: usize = 256;
/// Open connections from one IPv4 address or IPv6 /64 (`--max-connections-per-ip`).
pub const CONNECTIONS_PER_PEER_MAX: usize = 32;
/// Prefix bits of an IPv6 address that identify a peer: a /64 is the smallest block that a provider
/// assigns to a customer (RFC 6177), who can use a new address in it for every connection. Of an
/// IPv4 address all 32 bits count.
pub const PEER_NETWORK_BITS: u32 = 64;
/// Open connections on the `--metrics` listener: for a Prometheus and an operator.
pub const METRICS_CONNECTIONS_MAX: usize = 8;
/// Descriptors that the program needs besides its connections: standard streams, SQLite's database,
/// WAL and shared-memory files for writer and readers, the private sockets of the workers, locks.
pub const DESCRIPTORS_RESERVED: u64 = 64;
/// Descriptors per request in flight: its socket, an upload or a download, a folder that is being
/// synced.
pub const DESCRIPTORS_PER_CONNECTION: u64 = 4;
/// Stack of a connection thread in bytes: its buffers and the memory of a password hash are on the
/// heap, and authentication needs little for SQLite, also where it opens the connection.
pub const CONNECTION_STACK_BYTES: usize = 128 * 1024;
/// Pause of the accept loop after an error such as "too many open files", in milliseconds.
pub const ACCEPT_PAUSE_MS: u64 = 50;
/// `Retry-After` of every 503 with the code `overloaded`, in seconds.
pub const RETRY_AFTER_S: u64 = 2;

// ---- Request heads -----------------------------------------------------------------------

/// Bytes of a request line with all header fields; browsers and proxies stay under 8 KiB.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Header fields of a request.
pub const HEAD_FIELDS_MAX: usize = 64;
/// Characters of a method; the longest registered one has 17 and belongs to WebDAV.
pub const METHOD_CHARS_MAX: usize = 16;
/// Seconds from the first byte of a head to its last (`--head-timeout`).
pub const HEAD_TIMEOUT_S: u64 = 10;
/// Seconds that a connection may wait for its next request (`--idle-timeout`).
pub const IDLE_TIMEOUT_S: u64 = 30;
/// Bytes of a connection's read buffer; most heads fit.
pub const HEAD_READ_BYTES: usize = 1024;

// ---- Bodies ------------------------------------------------------------------------------

/// Bytes of one request body (`--max-body`): a state of almost 48 MiB as base64 in JSON.
pub const BODY_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Bytes of a body that is held in memory, and of a JSON upload besides its state.
pub const SMALL_BODY_BYTES_MAX: usize = 64 * 1024;
/// The same for a signed-in user's JSON with a list or a long value, such as a plan for some 8,000
/// projects. All connections of one address together hold at most 32 MiB of them.
pub const LONG_JSON_BYTES_MAX: usize = 1024 * 1024;
/// Nesting depth of objects and arrays in JSON. serde_json limits only what it keeps: what it
/// ignores may nest to any depth.
pub const JSON_NESTING_MAX: u32 = 128;
/// Bytes received from or sent to a socket in one piece.
pub const PIECE_BYTES: usize = 64 * 1024;
/// Seconds that a body or a response may take before the minimum rate applies (`--body-grace`);
/// also the maximum credit that a fast start can earn.
pub const BODY_GRACE_S: u64 = 10;
/// Bytes per second that a body or a response must move after its grace.
pub const RATE_MIN_BYTES_PER_S: u64 = 1024;
/// Milliseconds that one call may wait for room in a socket before the rate is checked.
pub const SEND_WAIT_MS: u64 = 250;
/// Connections that may wait to be accepted: the kernel must not drop a burst.
pub const BACKLOG: i32 = 1024;
/// Bytes of a file that are encoded as base64 at once: a multiple of three, so that only the last
/// piece is padded.
pub const BASE64_PIECE_BYTES: usize = 48 * 1024;
/// Bytes of a file that one sendfile call may send, so that the rate is checked in between.
pub const SENDFILE_BYTES: usize = 1024 * 1024;
/// Bytes of an unauthenticated client's unread body that are read and dropped before a close, so
/// that the client can read its response (RFC 9112, section 9.6).
pub const LINGER_BYTES: u64 = 256 * 1024;
/// The same for a signed-in user: clients that send everything first would miss the response.
pub const LINGER_USER_BYTES: u64 = 256 * 1024 * 1024;
/// Milliseconds that such a close may take, and that any client may be silent during one.
pub const LINGER_MS: u64 = 1000;
/// Milliseconds that such a close may take for a signed-in user.
pub const LINGER_USER_MS: u64 = 10_000;
/// Bytes of an upload after which the kernel is asked to start writing them to disk.
pub const WRITEBACK_BYTES: u64 = 1024 * 1024;

// ---- Workers -----------------------------------------------------------------------------

/// Worker threads, and private links to tiny_http: a worker waits for the disk and never for the
/// network, so a few serve everybody.
pub const WORKERS: usize = 6;
/// Threads that a start checks for: the workers and a tiny_http thread for each link to them, its
/// accept loop, two gates, two background tasks, one connection on each gate, one spare.
pub const THREADS_AT_START: usize = 2 * WORKERS + 8;
/// Workers that one user's requests may hold: the other half, and a reader of the database, stay
/// free for others whatever that user requests.
pub const WORKERS_PER_USER_MAX: usize = WORKERS / 2;
/// Seconds a request waits for its user's permit, and again for a worker, before it gets 503.
pub const WORKER_WAIT_S: u64 = 10;
/// Seconds a worker may take for one request before the gate gives up on it: longer than SQLite's
/// busy timeout and an fsync on a slow disk.
pub const WORKER_RESPONSE_S: u64 = 60;
/// Milliseconds in which each private link must carry one response at startup.
pub const LINK_START_MS: u64 = 2000;
/// Bytes of the head of an application response.
pub const UPSTREAM_HEAD_BYTES_MAX: u64 = 16 * 1024;
/// Bytes of a refusal's sentence in the status line: clients truncate long ones.
pub const SENTENCE_BYTES_MAX: usize = 200;
/// Bytes of a response that waits for its reader in memory; a longer one waits in a file.
pub const RESPONSE_MEMORY_BYTES_MAX: usize = 64 * 1024;
/// Bytes of one user's responses that wait for their readers in files, over all connections.
pub const RESPONSE_FILE_BYTES_PER_USER_MAX: u64 = 128 * 1024 * 1024;
/// Seconds that `healthcheck` waits to connect, and for a response.
pub const HEALTHCHECK_TIMEOUT_S: u64 = 5;
/// Milliseconds that the last checkpoint gets at least, even if `--stop-timeout` is used up.
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
/// Characters of an email address (RFC 5321; RFC 3696, erratum 1690).
pub const EMAIL_CHARS_MAX: usize = 254;
/// Bytes of a password: longer than any passphrase, short enough to hash.
pub const PASSWORD_BYTES_MAX: usize = 1024;
/// Bytes that all rows of one user may count, of every kind: their text and 1 KiB each, so at most
/// 65,536 rows (a row with a file counts 256 bytes instead). A list of all of them is one response
/// of at most 128 MiB, and takes a fraction of a second to build.
pub const TEXT_BYTES_PER_USER_MAX: u64 = 64 * 1024 * 1024;
/// Soft-deleted entities, and soft-deleted environments, that are kept per user.
pub const DELETED_ROWS_MAX: i64 = 1000;
/// Entries of a list in one request: a plan, a commit, environments. All of them are in memory.
pub const REQUEST_ENTRIES_MAX: usize = 10_000;
/// Characters of a wrapped key; those of released clients have 108.
pub const KEY_CHARS_MAX: usize = 4096;
/// Characters of a path, a URL or a description.
pub const LONG_CHARS_MAX: usize = 4096;
/// Times that a pull selects the newest snapshot, if pushes keep deleting it before it is opened.
pub const PULL_SELECTIONS_MAX: usize = 8;
/// Snapshots on a history page if the request sets no limit.
pub const HISTORY_PAGE_ROWS: usize = 20;
/// Snapshots on a history page at most.
pub const HISTORY_PAGE_ROWS_MAX: usize = 200;

// ---- Accounts ----------------------------------------------------------------------------

/// argon2id memory in KiB (OWASP Password Storage Cheat Sheet: 19 MiB, two passes, one lane).
pub const ARGON2_MEMORY_KIB: u32 = 19_456;
/// argon2id passes.
pub const ARGON2_PASSES: u32 = 2;
/// argon2id lanes.
pub const ARGON2_LANES: u32 = 1;
/// Memory in KiB, and passes, up to which a stored hash is computed, so that a database row cannot
/// stop the server. (Lanes run one after the other and add no cost.)
pub const STORED_HASH_MEMORY_MAX_KIB: u32 = 64 * 1024;
/// As [`STORED_HASH_MEMORY_MAX_KIB`].
pub const STORED_HASH_PASSES_MAX: u32 = 10;
/// Concurrent password hashes: each takes 19 MiB, and a small board keeps one core free.
pub const HASHES_AT_ONCE: usize = 2;
/// Logins that may wait for a hash at once.
pub const HASHES_WAITING_MAX: usize = 64;
/// Seconds a login waits for a hash before it gets 503.
pub const HASH_WAIT_S: u64 = 5;
/// Seconds of the window in which failed logins count.
pub const LOGIN_WINDOW_S: u64 = 15 * 60;
/// Failed logins in that window for one account from one address.
pub const LOGIN_FAILURES_PER_ACCOUNT: usize = 10;
/// Prefix bits of an IPv6 address that count as one address here: providers assign up to a /56.
pub const LOGIN_NETWORK_BITS: u32 = 56;
/// Failed logins in that window from one address.
pub const LOGIN_FAILURES_PER_ADDRESS: usize = 100;
/// Accounts, and addresses, that the login throttle remembers.
pub const THROTTLE_ENTRIES_MAX: usize = 10_000;
/// Random bytes of an API token.
pub const TOKEN_RANDOM_BYTES: usize = 32;
/// Characters of an API token that a listing shows.
pub const TOKEN_PREFIX_CHARS: usize = 9;
/// Bytes above which a JWT is refused unread; the server's own have about 300.
pub const JWT_BYTES_MAX: usize = 4096;
/// Lifetime of a JWT in hours (`--token-hours`).
pub const JWT_HOURS: u64 = 24;
/// Milliseconds between two updates of a token's last use.
pub const TOKEN_USE_INTERVAL_MS: i64 = 60_000;

// ---- Store -------------------------------------------------------------------------------

/// SQLite connections for reads, besides the one writer.
pub const READERS: usize = 4;
/// Page cache of one SQLite connection in KiB.
pub const SQLITE_CACHE_KIB: i64 = 1024;
/// Milliseconds that a statement waits for a lock of another process.
pub const SQLITE_BUSY_MS: u64 = 5000;
/// Bytes to which the WAL is truncated after a checkpoint.
pub const WAL_BYTES_MAX: i64 = 8 * 1024 * 1024;
/// Free bytes, or `--min-free` if lower, that must remain even after an upload that may be a retry
/// and so store nothing: the database needs them.
pub const RETRY_FREE_BYTES_MIN: u64 = 8 * 1024 * 1024;
/// Files that are remembered as verified against their digest.
pub const VERIFIED_FILES_MAX: usize = 1024;
/// Seconds for which such a verification counts.
pub const VERIFIED_S: u64 = 3600;
/// Seconds for which a file must be unchanged before its verification is remembered: longer than
/// the granularity of file times, even with both times truncated to seconds.
pub const VERIFIED_AGE_S: i64 = 3;
/// Free disk bytes below which pushes are refused (`--min-free`).
pub const FREE_BYTES_MIN: u64 = 64 * 1024 * 1024;
/// Rows (token uses, audit rows of reads) that may wait for the next housekeeping batch.
pub const DEFERRED_ROWS_MAX: usize = 4096;
/// Milliseconds between two housekeeping batches.
pub const HOUSEKEEPING_MS: u64 = 500;
/// Age in seconds below which `check` ignores an orphan while a server runs: longer than any push
/// takes from rename to commit.
pub const ORPHAN_AGE_S: i64 = 600;
/// Days that audit rows are kept (`--audit-days`).
pub const AUDIT_DAYS: u32 = 365;
/// Audit rows per user and day for events that change nothing: reads, logins, refused pushes. One
/// for every request would fill the disk.
pub const AUDIT_READS_PER_DAY_MAX: u32 = 10_000;
/// Audit rows per user and day for changes: more than one a second all day.
pub const AUDIT_CHANGES_PER_DAY_MAX: u32 = 100_000;
/// Audit rows per day for failed logins, which need no credentials: for each account, and for all
/// unknown accounts together; this is 55 MB in a year of attack. The log has all of them.
pub const AUDIT_FAILURES_PER_DAY_MAX: u32 = 1000;
/// Days after which a prune deletes what is soft-deleted or set aside in `orphans/`.
pub const DELETED_DAYS: u32 = 30;
/// Rows that one prune transaction deletes, so that pushes run in between and its WAL fits into the
/// freed reserve: a row changes some five pages of 4 KiB, most of them shared.
pub const PRUNE_ROWS: usize = 100;
/// Bytes of the reserve file, which is deleted if a command that frees space finds the disk full.
pub const RESERVE_BYTES: u64 = 1024 * 1024;
/// Milliseconds for which a start retries to lock its data folder: `status` and `check` try that
/// lock too, for a moment.
pub const SERVER_LOCK_WAIT_MS: u64 = 2000;
/// Names that one warning lists.
pub const NAMES_SHOWN_MAX: usize = 10;
/// Files of commits in doubt that are remembered until the next successful commit; at this number,
/// pushes are refused until then.
pub const IN_DOUBT_MAX: usize = 64;
/// Milliseconds between two health checks of the data folder, however many clients ask.
pub const HEALTH_MS: u64 = 1000;
/// Free disk bytes below which not even the smallest push and its row fit, whatever `--min-free`
/// is.
pub const HEALTHY_FREE_BYTES_MIN: u64 = 64 * 1024;
/// Milliseconds between the clock and the newest row above which the clock is not trusted.
pub const CLOCK_LEAD_MS: i64 = 7 * 86_400_000;
/// Milliseconds by which the wall clock and the monotonic clock may diverge between two checks.
pub const CLOCK_JUMP_MS: i64 = 86_400_000;
/// Milliseconds of running time after that in which nothing is deleted by its age.
pub const CLOCK_WAIT_MS: i64 = 86_400_000;
/// Snapshots beyond `--keep` that one push deletes, and files that one request unlinks.
pub const KEEP_ROWS: usize = 50;
/// Milliseconds between two retention runs.
pub const RETENTION_MS: u64 = 3_600_000;

/// Upper bounds of the request duration buckets in `/metrics`, in seconds.
pub const LATENCY_BUCKETS_S: [f64; 10] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0];

// ---- Log ---------------------------------------------------------------------------------

/// Lines that may wait for a slow reader of standard error; further ones are dropped and counted.
pub const LOG_LINES_MAX: usize = 1024;
/// Milliseconds for which lines are collected before one write.
pub const LOG_PAUSE_MS: u64 = 2;
/// Characters of a request's path in the log.
pub const LOG_PATH_CHARS_MAX: usize = 256;
