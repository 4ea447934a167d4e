"""What the page at / promises, tried in a real browser. Called by test.sh."""

import json
import os
import pathlib
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import urllib.request

from webdriver import Browser, eventually

EMAIL, PASSWORD = "you@example.com", "correct horse battery"
SCRIPT_LIKE = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
TAB, ENTER = "\ue004", "\ue007"


class Server:
    """The real binary on a scratch folder."""

    def __init__(self, binary, scratch, *flags):
        self.binary, self.data = binary, scratch / "data"
        log = open(scratch / "server.log", "w")
        self.process = subprocess.Popen(
            [binary, "serve", "--data", self.data, "--listen", "127.0.0.1:0", *flags],
            stdout=subprocess.PIPE, stderr=log, text=True)
        ready = self.process.stdout.readline().strip()
        self.url = ready.removeprefix("configsync-server listening on ")
        assert self.url.startswith("http://"), f"the server did not start: {ready}"

    def cli(self, *arguments, stdin=""):
        done = subprocess.run([self.binary, *arguments, "--data", self.data], input=stdin,
                              capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def user(self, email):
        self.cli("user", "add", email, "--password-stdin", stdin=PASSWORD)
        return self.cli("token", "create", email, "--name", "test")

    def post(self, token, path, body, kind="application/json"):
        request = urllib.request.Request(self.url + path, body)
        request.add_header("Authorization", f"Bearer {token}")
        request.add_header("Content-Type", kind)
        with urllib.request.urlopen(request) as response:
            return json.load(response)

    def machine(self, token, machine_id, name, platform="linux"):
        body = {"machine_id": machine_id, "name": name, "platform": platform, "arch": "arm64"}
        self.post(token, "/api/machines", json.dumps(body).encode())

    def push(self, token, machine_id, state, message=""):
        path = f"/api/machines/snapshot?machine_id={machine_id}&message={message}"
        return self.post(token, path, state, "application/octet-stream")["snapshot"]

    def age(self, sql):
        """Moves times into the past, which no request can do."""
        database = sqlite3.connect(self.data / "configsync.db")
        with database:
            database.executescript(sql)
        database.close()

    def stop(self):
        self.process.terminate()
        self.process.wait()


def fill(server, token):
    """Two machines, one of them silent and with a name like a script; 45 pushes in 80 days."""
    server.machine(token, "laptop", "laptop")
    server.machine(token, "pi", SCRIPT_LIKE)
    for n in range(45):
        machine = "pi" if n < 5 else "laptop"
        # Sizes that look like those of real states; each has its own bytes.
        state = os.urandom(40_000 + n * 1_000 + (n * 7919 % 13) * 2_000)
        server.push(token, machine, state, "before+the+upgrade" if n % 9 == 4 else "")
    server.age(f"""
        UPDATE state_snapshots SET created_at = created_at
            - ((45 - id) / 3 * 5 + (45 - id) % 3 * (id / 3 % 3)) * 86400000 - id * 60000 WHERE id < 45;
        UPDATE machines SET last_push_at = last_push_at - 70 * 86400000 WHERE machine_id = 'pi';
    """)


class Page:
    """The page in a browser, with what it must never do watched all the time."""

    def __init__(self, browser, url):
        self.browser, self.url = browser, url
        # Before any script of the page: each violation of the policy is remembered.
        browser.cdp("Page.addScriptToEvaluateOnNewDocument", source="""
            window.violations = [];
            addEventListener('securitypolicyviolation',
                (event) => violations.push(`${event.violatedDirective} ${event.blockedURI}`));
        """)

    def open(self):
        self.browser.open(self.url + "/")

    def sign_in(self, **fields):
        for name, value in fields.items():
            self.browser.type(f"#{name}", value)
        self.browser.press(ENTER)

    def status(self, text):
        eventually(f"status {text}", lambda: text in self.browser.text("#status"))

    def signed_in(self):
        self.status("Loaded at")

    def error(self, text):
        eventually(f"error {text}", lambda: text in self.browser.text("#error"))

    def rows(self, table):
        return self.browser.run(
            "return [...document.querySelectorAll(`#${arguments[0]} tr`)].map((row) => row.innerText)", table)

    def visible(self, selector):
        return self.browser.run("return document.querySelector(arguments[0]).checkVisibility()", selector)

    def focused(self):
        return self.browser.run("return document.activeElement.id || document.activeElement.tagName")

    def check_clean(self):
        """No violation, no error on the console, nothing stored anywhere."""
        assert self.browser.run("return violations") == []
        # A refused login is on the console as a failed request; nothing else may be.
        logs = [entry["message"] for entry in self.browser.logs()
                if "status of 401 (" not in entry["message"] and "ERR_CONNECTION" not in entry["message"]]
        assert logs == [], logs
        stored = self.browser.run("""
            return Promise.all([indexedDB.databases(), caches.keys(), navigator.serviceWorker.getRegistrations()])
                .then((lists) => [document.cookie.length, localStorage.length, sessionStorage.length,
                    ...lists.map((list) => list.length)])""")
        assert stored == [0] * 6, stored
        assert self.browser.run("return document.title") == "ConfigSync server"


def outside(page):
    page.open()
    assert page.visible("#forms") and not page.visible("#inside")
    text = page.browser.text("#outside")
    assert f"configsync login --api-url {page.url} --token TOKEN" in text, text
    page.sign_in(token="cs_" + "x" * 43)
    page.error("do not match.")
    assert not page.visible("#inside")


def inside(page, server, token):
    page.open()
    page.sign_in(token=f"  {token} ")
    page.signed_in()
    assert page.focused() == "overview-title"
    laptop, pi = page.rows("machines")
    assert "laptop" in laptop and "40" in laptop and "silent" not in laptop, laptop
    assert SCRIPT_LIKE in pi and "2 months ago" in pi and "silent" in pi, pi
    assert page.browser.run("return document.querySelectorAll('table img, table script').length") == 0
    assert "1 silent" in page.browser.text("#overview")
    bars = page.browser.run("return document.querySelectorAll('#plot rect').length")
    tall = page.browser.run("return [...document.querySelectorAll('#plot rect')].filter((r) => +r.getAttribute('height')).length")
    assert bars == 180 and 20 < tall < 90, (bars, tall)
    assert page.browser.text("#plot-summary").startswith("45 pushes and "), page.browser.text("#plot-summary")


def quota(page, server):
    server.cli("user", "quota", EMAIL, "5000000")
    page.browser.click("#refresh")
    eventually("a quota", lambda: "quota 4.8 MiB" in page.browser.text("#overview"))
    assert page.browser.run("return document.querySelector('meter').max") == 5000000
    page.signed_in()


def history(page):
    first = page.rows("history")
    assert len(first) == 20 and first[0].startswith("45 "), first
    page.browser.click("#newer")
    for click, status, newest, rows in [
        ("#older", "Page 2: 20", "25 ", 20), ("#older", "Page 3: 5", "5 ", 5), ("#older", "Page 3: 5", "5 ", 5),
        ("#newer", "Page 2: 20", "25 ", 20),
    ]:
        page.browser.click(click)
        page.status(status)
        shown = page.rows("history")
        assert len(shown) == rows and shown[0].startswith(newest), shown
        assert page.focused() == click[1:], "who turns pages by keyboard keeps the place"
    page.browser.run("""const filter = document.querySelector('#filter'); filter.value = 'pi';
        filter.dispatchEvent(new Event('change'));""")
    page.status("Page 1: 5")
    assert all(SCRIPT_LIKE in row for row in page.rows("history"))


def download(page, downloads, state):
    page.browser.click("[aria-label='Download snapshot 5']")
    page.status("Snapshot 5 was downloaded")
    file = downloads / "configsync-snapshot-5.enc"
    eventually("the file", file.exists)
    eventually("its bytes", lambda: file.read_bytes() == state)


def sign_out(page):
    page.browser.click("#sign-out")
    page.status("You are signed out.")
    assert page.visible("#forms") and not page.visible("#inside") and page.focused() == "token"
    left = page.browser.run("return document.body.innerText + [...document.querySelectorAll('input')].map((i) => i.value)")
    for secret in [EMAIL, "laptop —", "onerror", "cs_"]:
        assert secret not in left, secret


def by_password(page, server):
    page.sign_in(login=EMAIL, password="wrong")
    page.error("do not match.")
    page.open()
    page.sign_in(login=EMAIL, password=PASSWORD)
    page.signed_in()
    assert len(page.rows("machines")) == 2
    # What ends a session on the server ends it here too.
    server.cli("user", "passwd", EMAIL, "--password-stdin", stdin="another password")
    page.browser.click("#refresh")
    page.error("Your session has ended; sign in again.")
    assert page.visible("#forms") and page.rows("machines") == []


def way_back(page, token):
    """Leaving the page ends the session, also where the browser keeps the page for the way back."""
    page.open()
    page.sign_in(token=token)
    page.signed_in()
    # Which browser keeps which page differs; each says so with this event before it does.
    page.browser.run("dispatchEvent(new PageTransitionEvent('pagehide', { persisted: true }))")
    assert page.visible("#forms") and page.rows("machines") == []


def empty(page, token):
    page.open()
    page.sign_in(token=token)
    page.signed_in()
    text = page.browser.text("#first-steps")
    assert "configsync-server token create 'o'\\''brien@example.com' --name laptop" in text, text
    assert f"configsync login --api-url {page.url} --token TOKEN" in text, text
    assert not page.visible("#history")


def keyboard(page):
    """Each thing to use is reached by Tab, in the order in which it stands, and has a name."""
    page.browser.run("document.querySelector('#refresh').focus()")
    reached = []
    for _ in range(4):
        page.browser.press(TAB)
        reached.append(page.focused())
    assert reached == ["sign-out", "filter", "BUTTON", "BUTTON"], reached
    unnamed = page.browser.run("""
        return [...document.querySelectorAll('input, select')].filter((field) => field.labels.length !== 1).length
            + document.querySelectorAll('[tabindex]:not([tabindex="-1"])').length
            + [...document.querySelectorAll('th')].filter((cell) => !cell.scope).length""")
    assert unnamed == 0


def unreachable(page, server):
    server.stop()
    page.browser.click("#refresh")
    page.error("The server cannot be reached; check that it runs")


def fits(page, widths=(320, 375, 768, 1280)):
    """No width makes the page scroll sideways."""
    for width in widths:
        page.browser.cdp("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=False)
        page.browser.run("dispatchEvent(new Event('resize'))")
        wide = page.browser.run("return document.documentElement.scrollWidth")
        assert wide <= width, f"{wide} pixels wide in a window of {width}"
    page.browser.cdp("Emulation.clearDeviceMetricsOverride")


def picture(page, folder, name):
    """Screenshots of a phone's and a desk's width, light and dark, for a person to look at."""
    if not folder:
        return
    folder.mkdir(parents=True, exist_ok=True)
    for scheme in ["light", "dark"]:
        page.browser.cdp("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        for width in [375, 1280]:
            size = {"width": width, "deviceScaleFactor": 1, "mobile": False}
            page.browser.cdp("Emulation.setDeviceMetricsOverride", height=800, **size)
            height = page.browser.run("dispatchEvent(new Event('resize')); return document.documentElement.scrollHeight")
            page.browser.cdp("Emulation.setDeviceMetricsOverride", height=min(height, 2400), **size)
            page.browser.screenshot(folder / f"{name}-{width}-{scheme}.png")
    page.browser.cdp("Emulation.clearDeviceMetricsOverride")
    page.browser.cdp("Emulation.setEmulatedMedia", features=[])


def without_scripts(scratch, url):
    preferences = {"profile.managed_default_content_settings.javascript": 2}
    (scratch / "plain").mkdir()
    browser = Browser(scratch / "plain", scratch, preferences=preferences)
    try:
        browser.open(url + "/")
        text = browser.text("body")
        assert "Without JavaScript this page shows no more." in text and "configsync login --api-url" in text, text
        assert "Password" not in text
    finally:
        browser.close()


def main():
    binary = str(pathlib.Path(sys.argv[1]).resolve())
    pictures = pathlib.Path(sys.argv[2]) if len(sys.argv) > 2 else None
    scratch = pathlib.Path(tempfile.mkdtemp())
    downloads = scratch / "downloads"
    downloads.mkdir()
    server = Server(binary, scratch)
    browser = None
    try:
        token, other = server.user(EMAIL), server.user("o'brien@example.com")
        fill(server, token)
        state = urllib.request.Request(server.url + "/api/machines/snapshot?id=5")
        state.add_header("Authorization", f"Bearer {token}")
        state.add_header("Accept", "application/octet-stream")
        state = urllib.request.urlopen(state).read()
        browser = Browser(scratch, downloads)
        page = Page(browser, server.url)

        def step(name, work, *arguments):
            print(f"== {name}", flush=True)
            work(page, *arguments)
            page.check_clean()

        step("a wrong token shows a sentence", outside)
        step("as a picture", picture, pictures, "outside")
        step("sign in by token: machines, names as text, plot", inside, server, token)
        step("stored bytes against quota", quota, server)
        step("as a picture", picture, pictures, "full")
        step("every width", fits)
        step("keyboard and names", keyboard)
        step("history by pages and by machine", history)
        step("download of encrypted bytes", download, downloads, state)
        step("sign out leaves nothing", sign_out)
        step("sign in by password; a session that ended", by_password, server)
        step("the way back", way_back, token)
        step("an empty account's next step", empty, other)
        step("as a picture", picture, pictures, "empty")
        step("every width, without machines", fits)
        print("== without scripts", flush=True)
        without_scripts(scratch, server.url)
        step("a server that is gone", unreachable, server)
        print("== page test passed")
    finally:
        if browser:
            browser.close()
        server.stop()
        shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    main()
