-- Rows of the API and the command line, rendered by SQLite. The views are temporary, on every
-- connection, so that a change here does not change the stored schema. moment() is defined by the
-- program and returns RFC 3339. Each view has the columns that queries filter by, and `row`: a JSON
-- object.

CREATE TEMP VIEW machine_rows AS
  SELECT id, user_id, hidden_at, last_seen_at, json_object(
    'id', id, 'machine_id', machine_id, 'user_id', user_id, 'name', name, 'platform', platform,
    'arch', arch, 'cli_version', cli_version,
    'created_at', moment(created_at),
    'updated_at', moment(updated_at),
    'last_seen_at', moment(last_seen_at),
    'last_push_at', moment(last_push_at),
    'snapshot_count', snapshot_count,
    'latest_snapshot_id',
      (SELECT max(s.id) FROM state_snapshots s WHERE s.machine_ref = machines.id)) AS row
  FROM machines;

CREATE TEMP VIEW snapshot_rows AS
  SELECT s.id, s.user_id, s.machine_ref, m.machine_id, s.file, s.size_bytes, s.sha256, json_object(
    'id', s.id, 'machine_id', m.machine_id, 'machine_name', m.name, 'size_bytes', s.size_bytes,
    'sha256', lower(hex(s.sha256)), 'version', s.version, 'message', s.message,
    'timestamp', s.client_timestamp,
    'created_at', moment(s.created_at)) AS row
  FROM state_snapshots s JOIN machines m ON m.id = s.machine_ref;

-- Live entities; JSON members of other kinds are null.
CREATE TEMP VIEW entity_rows AS
  SELECT id, user_id, kind, git_url, current_version, wrapped_dek, json_object(
    'id', id, 'user_id', user_id, 'slug', slug, 'name', name, 'description', description,
    'current_version', current_version, 'git_url', git_url, 'git_branch', git_branch,
    'env_storage_mode', iif(kind = 'project', 'structured', NULL), 'source_hint', source_hint,
    'module_type', module_type, 'is_default', json(iif(is_default, 'true', 'false')),
    'r2_key_prefix', format('entities/%s/%d/%d/', kind, user_id, id), 'deleted_at', NULL,
    'created_at', moment(created_at),
    'updated_at', moment(updated_at)) AS row
  FROM entities WHERE deleted_at IS NULL;

CREATE TEMP VIEW version_rows AS
  SELECT v.id, v.entity_id, v.version, e.current_version, v.file, v.size_bytes, v.sha256, json_object(
    'id', v.id, 'version', v.version, 'size_bytes', v.size_bytes, 'content_hash', v.content_hash,
    'r2_key', format('entities/%s/%d/%d/v%d.enc', e.kind, v.user_id, e.id, v.version),
    'pushed_by_user_id', v.user_id, 'pushed_from_machine_id', v.pushed_from_machine_id,
    'created_at', moment(v.created_at)) AS row
  FROM entity_versions v JOIN entities e ON e.id = v.entity_id;

-- The owner of a personal variable is the owner of its project.
CREATE TEMP VIEW variable_rows AS
  SELECT v.id, v.project_id, v.environment_tier, v.name, v.visibility, json_object(
    'id', v.id, 'project_id', v.project_id, 'environment_tier', v.environment_tier,
    'name', v.name, 'visibility', v.visibility,
    'owner_user_id', iif(v.visibility = 'personal', e.user_id, NULL),
    'description', v.description, 'required', v.required, 'value_source', v.value_source,
    'encrypted_value', v.encrypted_value, 'vault_secret_id', NULL,
    'encrypted_external_ref', NULL, 'layer_key_id', v.layer_key,
    'current_version', v.current_version) AS row
  FROM variables v JOIN entities e ON e.id = v.project_id;

CREATE TEMP VIEW layer_key_rows AS
  SELECT project_id, layer_id, upload, json_object(
    'id', id, 'layer_id', layer_id, 'wrapped_dek', wrapped_dek,
    'created_at', moment(created_at)) AS row
  FROM layer_keys;

CREATE TEMP VIEW environment_rows AS
  SELECT user_id, name, json_object(
    'id', id, 'name', name, 'tier', tier, 'color', color,
    'protect', json(iif(protect, 'true', 'false'))) AS row
  FROM environments WHERE deleted_at IS NULL;

CREATE TEMP VIEW keypair_rows AS
  SELECT user_id, json_object(
    'public_key', public_key, 'encrypted_private_key', encrypted_private_key,
    'kek_salt', kek_salt, 'kek_iterations', kek_iterations, 'key_algorithm', key_algorithm,
    'key_version', 1,
    'created_at', moment(created_at)) AS row
  FROM keypairs;

CREATE TEMP VIEW audit_rows AS
  SELECT id, created_at, event, user_email, json_object(
    'id', id, 'time', moment(created_at),
    'event', event, 'user', user_email, 'user_id', user_id, 'machine', machine, 'peer', peer,
    'outcome', outcome, 'subject_id', subject_id, 'detail', detail) AS row
  FROM audit_log;

-- The origin of each stored file, for reports of damage.
CREATE TEMP VIEW file_origins AS
  SELECT s.file, concat_ws(', ', u.email, 'machine ' || m.machine_id, moment(s.created_at)) AS origin
    FROM state_snapshots s JOIN machines m ON m.id = s.machine_ref JOIN users u ON u.id = s.user_id
  UNION ALL
  SELECT v.file, concat_ws(', ', u.email, 'machine ' || v.pushed_from_machine_id,
                           moment(v.created_at))
    FROM entity_versions v JOIN users u ON u.id = v.user_id;

-- Lists of the command line. A column name ends with its unit: _bytes, or _at for a time.

CREATE TEMP VIEW user_list AS
  SELECT id, email, iif(disabled_at IS NULL, 'enabled', 'disabled') AS state,
    iif(password_hash IS NULL, 'token only', 'password') AS sign_in, stored_bytes,
    iif(quota_bytes = 0, 'none', coalesce(quota_bytes, 'default')) AS quota_bytes, created_at
  FROM users ORDER BY id;

-- What each user stores, and may store by their own quota or that of the last start; null: no limit.
CREATE TEMP VIEW stored_list AS
  SELECT email, iif(disabled_at IS NULL, 'enabled', 'disabled') AS state, stored_bytes,
    nullif(coalesce(quota_bytes, (SELECT json_extract(value, '$.quota_bytes')
                                     FROM server_state WHERE name = 'last_start')), 0) AS quota_bytes
  FROM users ORDER BY id;

CREATE TEMP VIEW token_list AS
  SELECT t.id, u.email AS user, t.name, t.prefix AS first_characters, t.created_at,
    coalesce(moment(t.last_used_at), 'never used') AS last_used_at,
    CASE WHEN t.revoked_at IS NOT NULL THEN 'revoked'
         WHEN t.expires_at <= unixepoch('subsec') * 1000 THEN 'expired'
         ELSE coalesce(moment(t.expires_at), 'never') END AS expiry
  FROM api_tokens t JOIN users u ON u.id = t.user_id ORDER BY t.id;

CREATE TEMP VIEW machine_list AS
  SELECT u.email AS user, m.machine_id, m.name, m.platform, m.snapshot_count AS snapshots,
    (SELECT coalesce(sum(size_bytes), 0) FROM state_snapshots WHERE machine_ref = m.id)
      AS stored_bytes,
    m.last_push_at, iif(m.hidden_at IS NULL, 'listed', 'hidden') AS state
  FROM machines m JOIN users u ON u.id = m.user_id ORDER BY u.id, m.id;

CREATE TEMP VIEW environment_list AS
  SELECT u.email AS user, e.name, e.tier, e.color,
    iif(e.protect, 'protected', 'open') AS protection,
    coalesce('deleted ' || moment(e.deleted_at), 'live') AS state
  FROM environments e JOIN users u ON u.id = e.user_id ORDER BY e.name;
