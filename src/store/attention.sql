-- Findings that need the operator's attention, one sentence each (`status`). ?1: now; ?2: free
-- bytes; ?3: free bytes below which pushes are refused; ?4: the time after which a
-- machine is silent, 0: never; ?5: the last off-site copy, NULL if there is none.

SELECT format('the disk is short: %d MiB free, pushes are refused below %d MiB: free some, or run ' ||
              '`configsync-server prune --keep N`', ?2 / 1048576, ?3 / 1048576)
 WHERE ?2 < 2 * ?3

UNION ALL
SELECT 'no users: make one with `configsync-server user add EMAIL`, then `token create`'
 WHERE NOT EXISTS (SELECT 1 FROM users)

UNION ALL
SELECT format('%s uses %d %% of the quota: raise it with `configsync-server user quota`, or run ' ||
              '`configsync-server prune --keep N`', email, stored_bytes * 100 / quota_bytes)
  FROM stored_list WHERE stored_bytes * 100 > quota_bytes * 90

UNION ALL
SELECT format('machine %s of %s is silent, last push %s: see whether its client still runs',
              m.machine_id, u.email,
              coalesce(((?1 - m.last_push_at) / 86400000) || ' days ago', 'never'))
  FROM machines m JOIN users u ON u.id = m.user_id
 WHERE ?4 > 0 AND m.hidden_at IS NULL AND coalesce(?1 - m.last_push_at > ?4, 1)

UNION ALL
SELECT format('last good backup %s: make one with `configsync-server backup DEST`',
              coalesce(((?1 - at) / 86400000) || ' days ago', 'never'))
  FROM (SELECT (SELECT updated_at FROM server_state WHERE name = 'last_backup') AS at)
 WHERE coalesce(?1 - at > 8 * 86400000, 1)

UNION ALL
SELECT format('the last check found damage (%d snapshots, %d orphans, %d in the database): run ' ||
              '`configsync-server check`, which says what mends it', damaged, orphans, corrupt)
  FROM (SELECT value ->> 'damaged' AS damaged, value ->> 'orphans' AS orphans,
               value ->> 'database' AS corrupt FROM server_state WHERE name = 'last_check')
 WHERE damaged + orphans + corrupt > 0

UNION ALL
SELECT format('last off-site copy %d days ago: look at its log', (?1 - ?5) / 86400000)
 WHERE ?1 - ?5 > 2 * 86400000
