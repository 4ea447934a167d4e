#!/usr/bin/env python3
"""What test.sh needs beside curl: a client that pushes and keeps the acknowledgements, a check of them,
and a relay in front of the object store that can refuse, hang, deny or be slow."""
import hashlib, json, os, socket, sys, threading, time
import urllib.error, urllib.request


def call(url, token, path, data=None, kind="application/octet-stream"):
    headers = {"Authorization": "Bearer " + token, "Accept": "application/octet-stream", "Content-Type": kind}
    request = urllib.request.Request(url + path, data, headers)
    with urllib.request.urlopen(request, timeout=20) as response:
        return response.read()


def now():
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()) + ".%03dZ" % (time.time() % 1 * 1000)


def write(url, token, acks, count="0", size="20000", pause="0.02"):
    """Pushes from four machines, `count` times or until the server or the file `acks`.stop ends it.
    One line an acknowledgement: time, id, machine, SHA-256."""
    machines = ["machine-%d" % n for n in range(4)]
    for name in machines:
        body = json.dumps({"machine_id": name, "name": name}).encode()
        call(url, token, "/api/machines", body, "application/json")
    done = 0
    with open(acks, "a", buffering=1) as out:
        while not os.path.exists(acks + ".stop") and (count == "0" or done < int(count)):
            name, state = machines[done % 4], os.urandom(int(size))
            try:
                reply = json.loads(call(url, token, "/api/machines/snapshot?machine_id=" + name, state))
            except urllib.error.HTTPError as error:
                # A refusal acknowledges nothing; it is shown, and the client goes on.
                print("a push was refused: %s" % error, file=sys.stderr)
                time.sleep(0.2)
                continue
            except (OSError, ValueError):
                return
            out.write("%s %d %s %s\n" % (now(), reply["snapshot"]["id"], name, hashlib.sha256(state).hexdigest()))
            done += 1
            time.sleep(float(pause))


def verify(url, token, acks, before, pruned=""):
    """Every acknowledgement before that time comes back byte for byte. Where the server was pruned, one
    may be gone if the machine has a newer snapshot; none may differ."""
    rows = [line.split() for line in open(acks)]
    rows = [row for row in rows if len(row) == 4 and row[0] < before]
    newest = {}
    for machine in {row[2] for row in rows}:
        reply = json.loads(call(url, token, "/api/machines/history?limit=1&machine_id=" + machine))
        newest[machine] = reply["snapshots"][0]["id"]
    same = gone = 0
    for _, number, machine, digest in rows:
        try:
            found = hashlib.sha256(call(url, token, "/api/machines/snapshot?id=" + number)).hexdigest()
        except urllib.error.HTTPError as error:
            if error.code != 404 or not pruned or newest[machine] <= int(number):
                sys.exit("snapshot %s of %s: %s" % (number, machine, error))
            gone += 1
            continue
        if found != digest:
            sys.exit("snapshot %s of %s differs" % (number, machine))
        same += 1
    if not same:
        sys.exit("nothing was older than the copy")
    pruned = ", %d pruned" % gone if gone else ""
    print("%d of %d acknowledgements before %s identical%s" % (same, len(rows), before, pruned))


DENIED = (b'<?xml version="1.0"?><Error><Code>InvalidAccessKeyId</Code>'
          b"<Message>The AWS Access Key Id you provided does not exist in our records.</Message></Error>")


def relay(target, mode_file):
    """Prints its port, then relays to the port `target` as `mode_file` says: ok, refuse, hang, deny,
    or slow (100 kB a second)."""
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    mode = lambda: open(mode_file).read().strip()

    def pump(source, sink):
        try:
            while piece := source.recv(16384):
                while mode() == "hang":
                    time.sleep(0.2)
                if mode() == "slow":
                    time.sleep(len(piece) / 100e3)
                sink.sendall(piece)
        except OSError:
            pass
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def serve(client):
        if mode() == "refuse":
            return client.close()
        if mode() == "deny":
            client.recv(65536)
            client.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Type: application/xml\r\nConnection: close\r\n"
                           b"Content-Length: %d\r\n\r\n%s" % (len(DENIED), DENIED))
            return client.close()
        server = socket.create_connection(("127.0.0.1", int(target)))
        threading.Thread(target=pump, args=(client, server), daemon=True).start()
        pump(server, client)

    while True:
        threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()


if __name__ == "__main__":
    {"write": write, "verify": verify, "relay": relay}[sys.argv[1]](*sys.argv[2:])
