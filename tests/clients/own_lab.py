"""A Lab for one suite alone, which may spoil it: people, keys and browsers of its own, and requests from many addresses.

The Lab rations tries by network address. Every address of 127.0.0.0/8 is this machine's where the system lets it be, so a suite
that asks thousands of things comes from many addresses, as the many people would whom it stands for; the ration stays as it is.
"""

import itertools
import json
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import requests
from requests.adapters import HTTPAdapter

# A Lab that was built for development starts slowly on a machine that compiles.
START_S = 60
# Requests from one address: the Lab lets 300 of them through at once, and more as time passes.
PER_ADDRESS = 250


class OwnLab:
    """`1k4-lab serve` in a folder that goes with it."""

    def __init__(self, program, config=""):
        self.program = program
        self.folder = tempfile.TemporaryDirectory(prefix="1k4")
        self.dir = Path(self.folder.name)
        (self.dir / "lab.toml").write_text(config, encoding="utf-8")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"https://localhost:{port}"
        self.log = open(self.dir / "log", "w+", encoding="utf-8")
        words = [program, "serve", "--listen", f"127.0.0.1:{port}", "--public-url", self.url, *self._where()]
        self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        self.ca_file = str(self.dir / "data" / "ca.pem")
        self._addresses = itertools.count(1)
        self._session = None
        # Requests so far.
        self.asked = 0
        self._wait()

    def _where(self):
        return ["--config", str(self.dir / "lab.toml"), "--data-dir", str(self.dir / "data")]

    def _wait(self):
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            if "listens on" in (self.dir / "log").read_text(encoding="utf-8"):
                return
            assert self.process.poll() is None, self.said()
            time.sleep(0.05)
        raise AssertionError("the Lab does not listen: " + self.said())

    def said(self):
        """What it has printed."""
        return (self.dir / "log").read_text(encoding="utf-8")

    def admin(self, *words):
        """What `1k4-lab admin … --json` prints."""
        command = [self.program, "admin", *words, "--json", *self._where()]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=START_S, check=False)
        assert answer.returncode == 0, answer.stderr
        return json.loads(answer.stdout) if answer.stdout.strip() else None

    def key(self, name, *scopes):
        """A key with these scopes, of a new person of this name and their only project."""
        self.admin("users", "add", name)
        self.admin("projects", "add", "work", "--user", name)
        words = [word for scope in scopes for word in ("--scope", scope)]
        return self.admin("keys", "create", "--user", name, *words)["key"]

    def sign_in(self, address):
        """The session's cookie of whoever reads the mail of this address."""
        browser = self.fresh()
        here = {"Sec-Fetch-Site": "same-origin"}
        asked = browser.post(f"{self.url}/api/sign-in/mail", json={"address": address}, headers=here, timeout=30)
        assert asked.status_code == 202, asked.text
        token = self._link(address)
        opened = browser.post(f"{self.url}/api/sign-in/mail/confirm", json={"token": token}, headers=here, timeout=30)
        assert opened.ok, opened.text
        return opened.cookies["__Host-1k4s"]

    def _link(self, address):
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            for letter in (self.dir / "outbox").glob("*"):
                text = letter.read_text(encoding="utf-8")
                if address in text and "#link=" in text:
                    return text.split("#link=")[1].split()[0]
            time.sleep(0.02)
        raise AssertionError(f"no letter: {self.said()}")

    def session(self):
        """A client that trusts this Lab and keeps no cookies; its address changes before the ration of one is used up."""
        if self.asked % PER_ADDRESS == 0:
            self._session = self.fresh()
        self.asked += 1
        return self._session

    def fresh(self):
        """A client at an address from which nobody has asked yet, with cookies of its own."""
        number = next(self._addresses)
        session = requests.Session()
        session.trust_env = False
        session.verify = self.ca_file
        session.mount("https://", From(f"127.{number >> 16 & 127}.{number >> 8 & 255}.{number & 255}"))
        return session

    def end(self):
        """Ends it as its owner would."""
        self.process.terminate()
        code = self.process.wait(timeout=START_S)
        said = self.said()
        self.log.close()
        self.folder.cleanup()
        return code, said


class From(HTTPAdapter):
    """Connections from one address of this machine."""

    def __init__(self, address):
        self.address = address if can_bind(address) else "127.0.0.1"
        super().__init__()

    def init_poolmanager(self, *args, **kwargs):
        super().init_poolmanager(*args, source_address=(self.address, 0), **kwargs)


def can_bind(address):
    """Whether the system takes it for this machine's; Linux takes all of 127.0.0.0/8."""
    with socket.socket() as trial:
        try:
            trial.bind((address, 0))
        except OSError:
            return False
        return True
