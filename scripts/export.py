#!/usr/bin/env python3
"""Writes everything in a backup as plain files with a JSON index, so that nobody is locked in.

    scripts/export.py BACKUP DEST [EMAIL]      of one user, or of all

DEST/user-1/index.json has the user, machines, environments, snapshots and entities (with versions,
variables and wrapped keys); "file" names the encrypted bytes beside it, or is null where they are
damaged (exit code 1). Keypairs, which allow guessing of master passwords, are in the backup alone.
"""
import datetime, hashlib, json, os, pathlib, sqlite3, sys

VIEWS = pathlib.Path(__file__).resolve().parent.parent / "src" / "store" / "views.sql"
DAMAGED = []

def moment(ms):
    at = ms is not None and datetime.datetime.fromtimestamp(ms // 1000, datetime.timezone.utc)
    return at.strftime(f"%Y-%m-%dT%H:%M:%S.{ms % 1000:03}Z") if at else None

def connect(backup):
    log = backup / "configsync.db-wal"
    if log.exists() and log.stat().st_size > 0:
        sys.exit(f"{backup} is in use: make a copy first, with configsync-server backup DEST")
    uri = (backup / "configsync.db").resolve(strict=True).as_uri() + "?mode=ro&immutable=1"
    db = sqlite3.connect(uri, uri=True)
    db.create_function("moment", 1, moment, deterministic=True)
    db.executescript(VIEWS.read_text())
    return db

def export_user(db, backup, folder, user_id, email):
    def rows(view, where, value):
        return [json.loads(row) for row, in db.execute(f"SELECT row FROM {view} WHERE {where}", (value,))]

    def with_files(view, where, value, name_of):
        for row, file, sha256 in db.execute(f"SELECT row, file, sha256 FROM {view} WHERE {where}", (value,)):
            name = name_of(row := json.loads(row))
            try:
                data = (backup / "snapshots" / file[:2] / file).read_bytes()
            except OSError: data = b""
            if hashlib.sha256(data).digest() == sha256:
                (folder / name).parent.mkdir(exist_ok=True)
                (folder / name).write_bytes(data)
            else:
                DAMAGED.append(f"left out, missing or damaged: {name} of {email}")
                name = None
            yield {**row, "file": name}

    def entity(row, number, kind, dek):
        found = {**json.loads(row), "kind": kind, "wrapped_dek": dek}
        found["versions"] = list(with_files("version_rows", "entity_id = ? ORDER BY version", number,
                                            lambda version: f"{kind}-{number}/v{version['version']}.bin"))
        if kind == "project":
            found["variables"] = rows("variable_rows", "project_id = ?", number)
            found["layer_keys"] = rows("layer_key_rows", "project_id = ?", number)
        return found

    entities = "SELECT row, id, kind, wrapped_dek FROM entity_rows WHERE user_id = ? ORDER BY id"
    index = {
        "user": {"id": user_id, "email": email},
        "machines": rows("machine_rows", "user_id = ? ORDER BY id", user_id),
        "environments": rows("environment_rows", "user_id = ? ORDER BY name", user_id),
        "snapshots": list(with_files("snapshot_rows", "user_id = ? ORDER BY id DESC", user_id,
                                     lambda snapshot: f"snapshots/{snapshot['id']}.bin")),
        "entities": [entity(*row) for row in db.execute(entities, (user_id,)).fetchall()],
    }
    (folder / "index.json").write_text(json.dumps(index, indent=1, ensure_ascii=False) + "\n")

def main(backup, dest, only=None):
    os.umask(0o077)
    db, dest = connect(pathlib.Path(backup)), pathlib.Path(dest)
    sql = "SELECT id, email FROM users WHERE ?1 IS NULL OR email = lower(?1) ORDER BY id"
    users = db.execute(sql, (only,)).fetchall() or sys.exit("no such user, or none at all, in this backup")
    dest.mkdir()  # new, or nothing is written
    for user_id, email in users:
        (folder := dest / f"user-{user_id}").mkdir()
        export_user(db, pathlib.Path(backup), folder, user_id, email)
    sys.exit("\n".join(DAMAGED) or None)

try:
    main(*sys.argv[1:]) if len(sys.argv) in (3, 4) else sys.exit(__doc__)
except (OSError, sqlite3.Error) as error: sys.exit(f"the export failed: {error}")
