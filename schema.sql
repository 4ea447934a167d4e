-- The whole database of configsync-server (PRAGMA user_version 5).
-- A new data folder gets all parts; an older one gets the parts after its version. Each part begins
-- at a line that names its version. The SQL of a released part never changes: a change is a new
-- part.
--
-- Conventions
--   Times are milliseconds since 1970-01-01T00:00:00Z, from the server's clock.
--   AUTOINCREMENT: an id is never reused, even after rows are deleted; clients bind ids into what
--   they encrypt, so an id never changes, not by backup and not by restore either.
--   STRICT tables: SQLite refuses a value of the wrong type.
--   The server holds no key that decrypts user data: neither columns nor files can be read with the
--   contents of this database.

-- version 1 --------------------------------------------------------------------------------

-- Users. There is no sign-up: the operator adds them on the command line.
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

-- API tokens (cs_…). Only the SHA-256 digest is stored: 256 random bits need no slow hash.
CREATE TABLE api_tokens (
  id           INTEGER PRIMARY KEY AUTOINCREMENT,
  user_id      INTEGER NOT NULL REFERENCES users (id) ON DELETE CASCADE,
  name         TEXT    NOT NULL,
  prefix       TEXT    NOT NULL,                  -- first characters, shown in lists
  digest       BLOB    NOT NULL UNIQUE CHECK (length(digest) = 32),
  created_at   INTEGER NOT NULL,
  expires_at   INTEGER,                           -- NULL: never
  last_used_at INTEGER,                           -- written at most once a minute
  revoked_at   INTEGER
) STRICT;
CREATE INDEX api_tokens_by_user ON api_tokens (user_id);

-- Machines of a user. Two users may have machines with the same machine_id, which are unrelated.
CREATE TABLE machines (
  id             INTEGER PRIMARY KEY AUTOINCREMENT,
  user_id        INTEGER NOT NULL REFERENCES users (id) ON DELETE CASCADE,
  machine_id     TEXT    NOT NULL,                -- chosen by the client
  name           TEXT    NOT NULL,
  platform       TEXT,
  arch           TEXT,
  cli_version    TEXT,
  created_at     INTEGER NOT NULL,
  updated_at     INTEGER NOT NULL,
  last_seen_at   INTEGER NOT NULL,
  last_push_at   INTEGER,
  snapshot_count INTEGER NOT NULL DEFAULT 0,      -- maintained by triggers
  hidden_at      INTEGER,                         -- not NULL: hidden from lists; its snapshots stay
  UNIQUE (user_id, machine_id)
) STRICT;

-- Snapshots: one row for one file snapshots/<first two characters of file>/<file>. A row is
-- committed only after its file is durable, and a file is unlinked only after its row is deleted:
-- so a row without a file cannot exist.
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

-- Counters, so that pushes and prunes need not add up rows.
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

-- version 2 --------------------------------------------------------------------------------

-- Audit events, without content. No foreign keys: a row outlives the user it names.
CREATE TABLE audit_log (
  id         INTEGER PRIMARY KEY AUTOINCREMENT,
  created_at INTEGER NOT NULL,
  event      TEXT    NOT NULL,                    -- login.ok, snapshot.push, …
  user_id    INTEGER,
  user_email TEXT,                                -- at the time of the event
  machine    TEXT,                                -- machine_id
  peer       TEXT,                                -- address of the client
  outcome    TEXT    NOT NULL,                    -- ok, failed, throttled, …
  subject_id INTEGER                              -- id of the snapshot or token
) STRICT;
CREATE INDEX audit_log_by_time ON audit_log (created_at);

-- version 3 --------------------------------------------------------------------------------
-- Data that the released ConfigSync command line keeps beside snapshots. Every row belongs to one
-- user, and every query checks which.

-- The keypair of an account. The private key is wrapped with the user's master password, which the
-- server never sees. The first keypair stays: another one would make every wrapped key unreadable.
CREATE TABLE keypairs (
  user_id               INTEGER PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
  public_key            TEXT    NOT NULL,         -- base64, like all keys here
  encrypted_private_key TEXT    NOT NULL,
  kek_salt              TEXT    NOT NULL,
  kek_iterations        INTEGER NOT NULL,
  key_algorithm         TEXT    NOT NULL,
  created_at            INTEGER NOT NULL
) STRICT;

-- Projects, workspaces, configs, modules and profiles: five kinds of one shape. A soft-deleted
-- entity keeps its row and files until they are pruned, and its slug is free at once. Clients bind
-- the id into what they encrypt.
CREATE TABLE entities (
  id              INTEGER PRIMARY KEY AUTOINCREMENT,
  user_id         INTEGER NOT NULL REFERENCES users (id) ON DELETE CASCADE,
  kind            TEXT    NOT NULL,               -- project, workspace, config, module, profile
  slug            TEXT    NOT NULL,
  name            TEXT    NOT NULL,
  description     TEXT,
  git_url         TEXT,                           -- projects
  git_branch      TEXT,                           -- projects
  source_hint     TEXT,                           -- configs
  module_type     TEXT,                           -- modules
  is_default      INTEGER NOT NULL DEFAULT 0,     -- profiles: at most one per user
  current_version INTEGER NOT NULL DEFAULT 0,     -- 0: none yet
  wrapped_dek     TEXT,                           -- the data key, wrapped for the user; stays
  created_at      INTEGER NOT NULL,
  updated_at      INTEGER NOT NULL,
  deleted_at      INTEGER
) STRICT;
CREATE UNIQUE INDEX entities_by_slug ON entities (user_id, kind, slug) WHERE deleted_at IS NULL;
CREATE INDEX entities_by_user ON entities (user_id, kind, id);

-- Versions of entities: one row for one file, as for snapshots.
CREATE TABLE entity_versions (
  id                     INTEGER PRIMARY KEY AUTOINCREMENT,
  entity_id              INTEGER NOT NULL REFERENCES entities (id) ON DELETE CASCADE,
  user_id                INTEGER NOT NULL REFERENCES users (id) ON DELETE CASCADE,
  version                INTEGER NOT NULL,        -- 1, 2, 3, … of its entity
  file                   TEXT    NOT NULL UNIQUE, -- 32 random hexadecimal digits
  size_bytes             INTEGER NOT NULL CHECK (size_bytes > 0),
  sha256                 BLOB    NOT NULL CHECK (length(sha256) = 32),
  content_hash           TEXT,                    -- as the client sent it; identifies nothing
  pushed_from_machine_id TEXT,
  created_at             INTEGER NOT NULL,
  UNIQUE (entity_id, version)
) STRICT;
CREATE INDEX entity_versions_by_user ON entity_versions (user_id);
CREATE TRIGGER entity_versions_added AFTER INSERT ON entity_versions BEGIN
  UPDATE users SET stored_bytes = stored_bytes + NEW.size_bytes WHERE id = NEW.user_id;
  UPDATE entities SET current_version = NEW.version, updated_at = NEW.created_at
   WHERE id = NEW.entity_id;
END;
CREATE TRIGGER entity_versions_removed AFTER DELETE ON entity_versions BEGIN
  UPDATE users SET stored_bytes = stored_bytes - OLD.size_bytes WHERE id = OLD.user_id;
END;

-- Every file that a row names, with its description for reports.
CREATE VIEW stored_files AS
  SELECT user_id, file, size_bytes, sha256, 'snapshot ' || id AS what FROM state_snapshots
  UNION ALL
  SELECT v.user_id, v.file, v.size_bytes, v.sha256,
         e.kind || ' ' || e.id || ' version ' || v.version
    FROM entity_versions v JOIN entities e ON e.id = v.entity_id;

-- Which projects a machine has checked out, where, and which version it last synced.
CREATE TABLE machine_projects (
  machine_ref         INTEGER NOT NULL REFERENCES machines (id) ON DELETE CASCADE,
  project_id          INTEGER NOT NULL REFERENCES entities (id) ON DELETE CASCADE,
  local_path          TEXT,
  last_synced_version INTEGER NOT NULL,
  PRIMARY KEY (machine_ref, project_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX machine_projects_by_project ON machine_projects (project_id);

-- Which profiles are active on a machine.
CREATE TABLE machine_profiles (
  machine_ref INTEGER NOT NULL REFERENCES machines (id) ON DELETE CASCADE,
  profile_id  INTEGER NOT NULL REFERENCES entities (id) ON DELETE CASCADE,
  active      INTEGER NOT NULL,
  PRIMARY KEY (machine_ref, profile_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX machine_profiles_by_profile ON machine_profiles (profile_id);

-- Which workspaces a profile has.
CREATE TABLE profile_workspaces (
  profile_id   INTEGER NOT NULL REFERENCES entities (id) ON DELETE CASCADE,
  workspace_id INTEGER NOT NULL REFERENCES entities (id) ON DELETE CASCADE,
  PRIMARY KEY (profile_id, workspace_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX profile_workspaces_by_workspace ON profile_workspaces (workspace_id);

-- Keys of variable layers. Machines do not read them back and may upload different ones for one
-- layer, so every distinct key is kept.
CREATE TABLE layer_keys (
  id          INTEGER PRIMARY KEY AUTOINCREMENT,
  project_id  INTEGER NOT NULL REFERENCES entities (id) ON DELETE CASCADE,
  layer_id    TEXT    NOT NULL,
  wrapped_dek TEXT    NOT NULL,
  created_at  INTEGER NOT NULL,
  upload      INTEGER NOT NULL,                   -- counts up: highest for the key uploaded last
  UNIQUE (project_id, layer_id, wrapped_dek)
) STRICT;

-- Variables of projects. layer_key is the key uploaded last for the layer before the value was
-- written: the key that decrypts it.
CREATE TABLE variables (
  id               INTEGER PRIMARY KEY AUTOINCREMENT,
  project_id       INTEGER NOT NULL REFERENCES entities (id) ON DELETE CASCADE,
  environment_tier TEXT    NOT NULL,
  name             TEXT    NOT NULL,
  visibility       TEXT    NOT NULL,              -- shared, personal, restricted
  value_source     TEXT    NOT NULL,
  encrypted_value  TEXT,                          -- base64
  description      TEXT,
  required         INTEGER NOT NULL DEFAULT 0,
  layer_key        INTEGER REFERENCES layer_keys (id) ON DELETE SET NULL,
  current_version  INTEGER NOT NULL DEFAULT 1,    -- counts writes
  created_at       INTEGER NOT NULL,
  updated_at       INTEGER NOT NULL,
  UNIQUE (project_id, environment_tier, name, visibility)
) STRICT;
CREATE INDEX variables_by_layer_key ON variables (layer_key);

-- Named environments of a user. A soft-deleted one keeps its row, so that the operator can restore
-- it: clients delete more than their users mean to.
CREATE TABLE environments (
  id         INTEGER PRIMARY KEY AUTOINCREMENT,
  user_id    INTEGER NOT NULL REFERENCES users (id) ON DELETE CASCADE,
  name       TEXT    NOT NULL,
  tier       TEXT    NOT NULL,
  color      TEXT,
  protect    INTEGER NOT NULL DEFAULT 0,
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL,
  deleted_at INTEGER,
  UNIQUE (user_id, name)
) STRICT;

-- Changes queued for a machine, which may not be registered yet. A row is deleted when the machine
-- confirms what it was given.
CREATE TABLE actions (
  id           INTEGER PRIMARY KEY AUTOINCREMENT,
  user_id      INTEGER NOT NULL REFERENCES users (id) ON DELETE CASCADE,
  machine_id   TEXT    NOT NULL,
  action       TEXT    NOT NULL,
  payload      TEXT    NOT NULL,                  -- a JSON object
  created_at   INTEGER NOT NULL,
  delivered_at INTEGER                            -- by the last GET
) STRICT;
CREATE INDEX actions_by_machine ON actions (user_id, machine_id, id);

-- version 4 --------------------------------------------------------------------------------

-- Files whose rows are deleted: listed in the transaction that deletes the row, unlinked after its
-- commit, and removed from here then. The next prune handles what a crash or a running backup
-- leaves.
CREATE TABLE deleted_files (
  file       TEXT    PRIMARY KEY,
  size_bytes INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TRIGGER state_snapshots_file AFTER DELETE ON state_snapshots BEGIN
  INSERT INTO deleted_files VALUES (OLD.file, OLD.size_bytes);
END;
CREATE TRIGGER entity_versions_file AFTER DELETE ON entity_versions BEGIN
  INSERT INTO deleted_files VALUES (OLD.file, OLD.size_bytes);
END;
CREATE INDEX entities_by_deletion ON entities (deleted_at) WHERE deleted_at IS NOT NULL;
CREATE INDEX environments_by_deletion ON environments (deleted_at) WHERE deleted_at IS NOT NULL;

-- version 5 --------------------------------------------------------------------------------

-- This server queues no changes for a machine: the list that clients ask for is always empty.
DROP TABLE actions;

-- Facts that commands and the server record for `status` and `/metrics`, one row per name.
CREATE TABLE server_state (
  name       TEXT    PRIMARY KEY,                 -- last_backup, last_check, …
  value      TEXT    NOT NULL,                    -- JSON
  updated_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Entities that were soft-deleted longest ago are looked up by user.
DROP INDEX entities_by_deletion;
CREATE INDEX entities_by_deletion ON entities (user_id, deleted_at) WHERE deleted_at IS NOT NULL;

-- A count of changed rows, or a reason.
ALTER TABLE audit_log ADD COLUMN detail TEXT;

-- What a row counts towards the limit on text: the bytes of its text, and 1024 for the row itself,
-- which is more than it takes on disk with its indexes, or in a list; 256 for a row with a file,
-- which takes a block of the disk anyway.
ALTER TABLE users ADD COLUMN text_bytes INTEGER NOT NULL DEFAULT 0; -- sum over the rows (triggers)
ALTER TABLE machines ADD COLUMN text_bytes INTEGER AS (1024 + length(CAST(
  machine_id || name || coalesce(platform, '') || coalesce(arch, '') || coalesce(cli_version, '')
  AS BLOB)));
ALTER TABLE state_snapshots ADD COLUMN text_bytes INTEGER AS (256 + length(CAST(
  version || coalesce(message, '') || coalesce(client_timestamp, '') AS BLOB)));
ALTER TABLE keypairs ADD COLUMN text_bytes INTEGER AS (1024 + length(CAST(
  public_key || encrypted_private_key || kek_salt || key_algorithm AS BLOB)));
ALTER TABLE entities ADD COLUMN text_bytes INTEGER AS (1024 + length(CAST(
  slug || name || coalesce(description, '') || coalesce(git_url, '') || coalesce(git_branch, '')
  || coalesce(source_hint, '') || coalesce(module_type, '') || coalesce(wrapped_dek, '')
  AS BLOB)));
ALTER TABLE entity_versions ADD COLUMN text_bytes INTEGER AS (256 + length(CAST(
  coalesce(content_hash, '') || coalesce(pushed_from_machine_id, '') AS BLOB)));
ALTER TABLE machine_projects ADD COLUMN text_bytes INTEGER AS (1024 + length(CAST(
  coalesce(local_path, '') AS BLOB)));
ALTER TABLE machine_profiles ADD COLUMN text_bytes INTEGER AS (1024);
ALTER TABLE profile_workspaces ADD COLUMN text_bytes INTEGER AS (1024);
ALTER TABLE layer_keys ADD COLUMN text_bytes INTEGER AS (1024 + length(CAST(
  layer_id || wrapped_dek AS BLOB)));
ALTER TABLE variables ADD COLUMN text_bytes INTEGER AS (1024 + length(CAST(
  environment_tier || name || visibility || value_source || coalesce(encrypted_value, '')
  || coalesce(description, '') AS BLOB)));
ALTER TABLE environments ADD COLUMN text_bytes INTEGER AS (1024 + length(CAST(
  name || tier || coalesce(color, '') AS BLOB)));

-- The same sum, computed from the rows: used below, and in a test that compares it with what the
-- triggers maintain.
CREATE VIEW counted_texts AS
  SELECT user_id, text_bytes FROM machines
  UNION ALL SELECT user_id, text_bytes FROM state_snapshots
  UNION ALL SELECT user_id, text_bytes FROM keypairs
  UNION ALL SELECT user_id, text_bytes FROM entities
  UNION ALL SELECT user_id, text_bytes FROM entity_versions
  UNION ALL SELECT user_id, text_bytes FROM environments
  UNION ALL SELECT m.user_id, l.text_bytes
    FROM machine_projects l JOIN machines m ON m.id = l.machine_ref
  UNION ALL SELECT m.user_id, l.text_bytes
    FROM machine_profiles l JOIN machines m ON m.id = l.machine_ref
  UNION ALL SELECT e.user_id, w.text_bytes
    FROM profile_workspaces w JOIN entities e ON e.id = w.profile_id
  UNION ALL SELECT e.user_id, k.text_bytes
    FROM layer_keys k JOIN entities e ON e.id = k.project_id
  UNION ALL SELECT e.user_id, v.text_bytes
    FROM variables v JOIN entities e ON e.id = v.project_id;
UPDATE users SET text_bytes =
  (SELECT coalesce(sum(c.text_bytes), 0) FROM counted_texts c WHERE c.user_id = users.id);

-- One trigger adds a row's bytes, one subtracts them and, where a row can change, one adds the
-- difference. Rows without a user_id are deleted before their machine or entity, which still names
-- the user.
CREATE TRIGGER machines_text_added AFTER INSERT ON machines BEGIN
  UPDATE users SET text_bytes = text_bytes + NEW.text_bytes WHERE id = NEW.user_id;
END;
CREATE TRIGGER machines_text_changed AFTER UPDATE ON machines
  WHEN NEW.text_bytes <> OLD.text_bytes BEGIN
  UPDATE users SET text_bytes = text_bytes + NEW.text_bytes - OLD.text_bytes
   WHERE id = NEW.user_id;
END;
CREATE TRIGGER machines_text_removed BEFORE DELETE ON machines BEGIN
  DELETE FROM machine_projects WHERE machine_ref = OLD.id;
  DELETE FROM machine_profiles WHERE machine_ref = OLD.id;
  UPDATE users SET text_bytes = text_bytes - OLD.text_bytes WHERE id = OLD.user_id;
END;

CREATE TRIGGER state_snapshots_text_added AFTER INSERT ON state_snapshots BEGIN
  UPDATE users SET text_bytes = text_bytes + NEW.text_bytes WHERE id = NEW.user_id;
END;
CREATE TRIGGER state_snapshots_text_removed AFTER DELETE ON state_snapshots BEGIN
  UPDATE users SET text_bytes = text_bytes - OLD.text_bytes WHERE id = OLD.user_id;
END;

CREATE TRIGGER keypairs_text_added AFTER INSERT ON keypairs BEGIN
  UPDATE users SET text_bytes = text_bytes + NEW.text_bytes WHERE id = NEW.user_id;
END;

CREATE TRIGGER entities_text_added AFTER INSERT ON entities BEGIN
  UPDATE users SET text_bytes = text_bytes + NEW.text_bytes WHERE id = NEW.user_id;
END;
CREATE TRIGGER entities_text_changed AFTER UPDATE ON entities
  WHEN NEW.text_bytes <> OLD.text_bytes BEGIN
  UPDATE users SET text_bytes = text_bytes + NEW.text_bytes - OLD.text_bytes
   WHERE id = NEW.user_id;
END;
CREATE TRIGGER entities_text_removed BEFORE DELETE ON entities BEGIN
  DELETE FROM machine_projects WHERE project_id = OLD.id;
  DELETE FROM machine_profiles WHERE profile_id = OLD.id;
  DELETE FROM profile_workspaces WHERE profile_id = OLD.id OR workspace_id = OLD.id;
  DELETE FROM variables WHERE project_id = OLD.id;
  DELETE FROM layer_keys WHERE project_id = OLD.id;
  UPDATE users SET text_bytes = text_bytes - OLD.text_bytes WHERE id = OLD.user_id;
END;

CREATE TRIGGER entity_versions_text_added AFTER INSERT ON entity_versions BEGIN
  UPDATE users SET text_bytes = text_bytes + NEW.text_bytes WHERE id = NEW.user_id;
END;
CREATE TRIGGER entity_versions_text_removed AFTER DELETE ON entity_versions BEGIN
  UPDATE users SET text_bytes = text_bytes - OLD.text_bytes WHERE id = OLD.user_id;
END;

CREATE TRIGGER environments_text_added AFTER INSERT ON environments BEGIN
  UPDATE users SET text_bytes = text_bytes + NEW.text_bytes WHERE id = NEW.user_id;
END;
CREATE TRIGGER environments_text_changed AFTER UPDATE ON environments
  WHEN NEW.text_bytes <> OLD.text_bytes BEGIN
  UPDATE users SET text_bytes = text_bytes + NEW.text_bytes - OLD.text_bytes
   WHERE id = NEW.user_id;
END;
CREATE TRIGGER environments_text_removed AFTER DELETE ON environments BEGIN
  UPDATE users SET text_bytes = text_bytes - OLD.text_bytes WHERE id = OLD.user_id;
END;

CREATE TRIGGER machine_projects_text_added AFTER INSERT ON machine_projects BEGIN
  UPDATE users SET text_bytes = text_bytes + NEW.text_bytes
   WHERE id = (SELECT user_id FROM machines WHERE id = NEW.machine_ref);
END;
CREATE TRIGGER machine_projects_text_changed AFTER UPDATE ON machine_projects
  WHEN NEW.text_bytes <> OLD.text_bytes BEGIN
  UPDATE users SET text_bytes = text_bytes + NEW.text_bytes - OLD.text_bytes
   WHERE id = (SELECT user_id FROM machines WHERE id = NEW.machine_ref);
END;
CREATE TRIGGER machine_projects_text_removed AFTER DELETE ON machine_projects BEGIN
  UPDATE users SET text_bytes = text_bytes - OLD.text_bytes
   WHERE id = (SELECT user_id FROM machines WHERE id = OLD.machine_ref);
END;

CREATE TRIGGER machine_profiles_text_added AFTER INSERT ON machine_profiles BEGIN
  UPDATE users SET text_bytes = text_bytes + NEW.text_bytes
   WHERE id = (SELECT user_id FROM machines WHERE id = NEW.machine_ref);
END;
CREATE TRIGGER machine_profiles_text_removed AFTER DELETE ON machine_profiles BEGIN
  UPDATE users SET text_bytes = text_bytes - OLD.text_bytes
   WHERE id = (SELECT user_id FROM machines WHERE id = OLD.machine_ref);
END;

CREATE TRIGGER profile_workspaces_text_added AFTER INSERT ON profile_workspaces BEGIN
  UPDATE users SET text_bytes = text_bytes + NEW.text_bytes
   WHERE id = (SELECT user_id FROM entities WHERE id = NEW.profile_id);
END;
CREATE TRIGGER profile_workspaces_text_removed AFTER DELETE ON profile_workspaces BEGIN
  UPDATE users SET text_bytes = text_bytes - OLD.text_bytes
   WHERE id = (SELECT user_id FROM entities WHERE id = OLD.profile_id);
END;

CREATE TRIGGER layer_keys_text_added AFTER INSERT ON layer_keys BEGIN
  UPDATE users SET text_bytes = text_bytes + NEW.text_bytes
   WHERE id = (SELECT user_id FROM entities WHERE id = NEW.project_id);
END;
CREATE TRIGGER layer_keys_text_removed AFTER DELETE ON layer_keys BEGIN
  UPDATE users SET text_bytes = text_bytes - OLD.text_bytes
   WHERE id = (SELECT user_id FROM entities WHERE id = OLD.project_id);
END;

CREATE TRIGGER variables_text_added AFTER INSERT ON variables BEGIN
  UPDATE users SET text_bytes = text_bytes + NEW.text_bytes
   WHERE id = (SELECT user_id FROM entities WHERE id = NEW.project_id);
END;
CREATE TRIGGER variables_text_changed AFTER UPDATE ON variables
  WHEN NEW.text_bytes <> OLD.text_bytes BEGIN
  UPDATE users SET text_bytes = text_bytes + NEW.text_bytes - OLD.text_bytes
   WHERE id = (SELECT user_id FROM entities WHERE id = NEW.project_id);
END;
CREATE TRIGGER variables_text_removed AFTER DELETE ON variables BEGIN
  UPDATE users SET text_bytes = text_bytes - OLD.text_bytes
   WHERE id = (SELECT user_id FROM entities WHERE id = OLD.project_id);
END;
