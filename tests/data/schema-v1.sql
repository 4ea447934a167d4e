-- The schema of version 1, frozen: what the first data folders have.

-- People. There is no sign-up: the operator adds them on the command line.
CREATE TABLE users (
  id            INTEGER PRIMARY KEY AUTOINCREMENT,
  email         TEXT    NOT NULL UNIQUE,          -- lower case
  password_hash TEXT,                             -- argon2id PHC string; NULL: signs in by token only
  generation    INTEGER NOT NULL DEFAULT 1,       -- JWTs of an older generation are void
  disabled_at   INTEGER,                          -- not NULL: every token and JWT is refused
  quota_bytes   INTEGER CHECK (quota_bytes >= 0), -- NULL: the default of `serve --quota`
  stored_bytes  INTEGER NOT NULL DEFAULT 0,       -- sum of the sizes of the user's files (triggers)
  created_at    INTEGER NOT NULL,
  updated_at    INTEGER NOT NULL
) STRICT;

-- API tokens (cs_…). Only the SHA-256 digest is kept: 256 random bits need no slow hash.
CREATE TABLE api_tokens (
  id           INTEGER PRIMARY KEY AUTOINCREMENT,
  user_id      INTEGER NOT NULL REFERENCES users (id) ON DELETE CASCADE,
  name         TEXT    NOT NULL,
  prefix       TEXT    NOT NULL,                  -- first characters, to recognise it in a list
  digest       BLOB    NOT NULL UNIQUE CHECK (length(digest) = 32),
  created_at   INTEGER NOT NULL,
  expires_at   INTEGER,                           -- NULL: never
  last_used_at INTEGER,                           -- at most one write a minute
  revoked_at   INTEGER
) STRICT;
CREATE INDEX api_tokens_by_user ON api_tokens (user_id);

-- Machines of a user. Two users may have a machine of the same machine_id; they never meet.
CREATE TABLE machines (
  id             INTEGER PRIMARY KEY AUTOINCREMENT,
  user_id        INTEGER NOT NULL REFERENCES users (id) ON DELETE CASCADE,
  machine_id     TEXT    NOT NULL,                -- the client's name for it
  name           TEXT    NOT NULL,
  platform       TEXT,
  arch           TEXT,
  cli_version    TEXT,
  created_at     INTEGER NOT NULL,
  updated_at     INTEGER NOT NULL,
  last_seen_at   INTEGER NOT NULL,
  last_push_at   INTEGER,
  snapshot_count INTEGER NOT NULL DEFAULT 0,      -- triggers
  hidden_at      INTEGER,                         -- removed from lists; its snapshots stay
  UNIQUE (user_id, machine_id)
) STRICT;

-- Snapshots: one row for one file snapshots/<first two characters of file>/<file>.
-- A row is committed only after its file is durable, and a file is unlinked only after its row is
-- gone: so a row without a file cannot exist.
CREATE TABLE state_snapshots (
  id               INTEGER PRIMARY KEY AUTOINCREMENT, -- "newest" means the highest id, everywhere
  user_id          INTEGER NOT NULL REFERENCES users (id) ON DELETE CASCADE,
  machine_ref      INTEGER NOT NULL REFERENCES machines (id) ON DELETE CASCADE,
  file             TEXT    NOT NULL UNIQUE,           -- 32 random hexadecimal digits
  size_bytes       INTEGER NOT NULL CHECK (size_bytes > 0),
  sha256           BLOB    NOT NULL CHECK (length(sha256) = 32),
  version          TEXT    NOT NULL,                  -- of the client's state format
  message          TEXT,
  client_timestamp TEXT,                              -- as the client wrote it, never interpreted
  created_at       INTEGER NOT NULL
) STRICT;
CREATE INDEX state_snapshots_by_user ON state_snapshots (user_id, id);
CREATE INDEX state_snapshots_by_machine ON state_snapshots (machine_ref, id);

-- Counters that every push and prune would otherwise have to add up.
CREATE TRIGGER state_snapshots_added AFTER INSERT ON state_snapshots BEGIN
  UPDATE users SET stored_bytes = stored_bytes + NEW.size_bytes WHERE id = NEW.user_id;
  UPDATE machines SET snapshot_count = snapshot_count + 1, last_push_at = NEW.created_at,
                      last_seen_at = NEW.created_at
   WHERE id = NEW.machine_ref;
END;
CREATE TRIGGER state_snapshots_removed AFTER DELETE ON state_snapshots BEGIN
  UPDATE users SET stored_bytes = stored_bytes - OLD.size_bytes WHERE id = OLD.user_id;
  UPDATE machines SET snapshot_count = snapshot_count - 1 WHERE id = OLD.machine_ref;
END;
