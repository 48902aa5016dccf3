"""Both ends of every comparison: Ollama itself, and the Lab of `cargo xtask run --json`.

`ONEK4_RUN` names a file with the line that `cargo xtask run --json` printed. The models are chosen by what they can do;
`ONEK4_MODEL_COMPLETION`, `_TOOLS`, `_VISION`, `_THINKING` and `_EMBEDDING` choose otherwise.
"""

import base64
import json
import os
import ssl
import struct
import zlib
from dataclasses import dataclass

import httpx
import pytest


def pytest_sessionfinish(session, exitstatus):
    """pytest calls it an error when `-k` leaves nothing; a filter that is meant for another suite may."""
    if exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED and session.config.option.keyword:
        session.exitstatus = pytest.ExitCode.OK


@dataclass(frozen=True)
class Side:
    """One way to the same models."""

    name: str
    url: str
    key: str
    prefix: str
    trust: ssl.SSLContext

    def model(self, name):
        """The model's name as this side's `/v1` knows it."""
        return self.prefix + name


@dataclass(frozen=True)
class Sides:
    """Ollama directly, and through the Lab."""

    direct: Side
    lab: Side
    ollama_is_real: bool

    def __iter__(self):
        return iter((self.direct, self.lab))


@pytest.fixture(scope="session")
def run():
    path = os.environ.get("ONEK4_RUN")
    if not path:
        pytest.exit("set ONEK4_RUN to a file with the line of `cargo xtask run --json`; `cargo xtask test` does", returncode=2)
    with open(path, encoding="utf-8") as file:
        return json.load(file)


@pytest.fixture(scope="session")
def sides(run):
    trust = ssl.create_default_context(cafile=run["ca_file"])
    direct = Side("direct", run["ollama_url"], "unused", "", trust)
    lab = Side("lab", run["lab_url"], run["api_key"], "local/", trust)
    return Sides(direct, lab, run["ollama_is_real"])


@dataclass(frozen=True)
class Cloud:
    """A provider directly, and through the Lab: the same models under the same names, with each side's own key."""

    direct: Side
    lab: Side

    def __iter__(self):
        return iter((self.direct, self.lab))


@pytest.fixture(scope="session")
def cloud(run):
    """`cloud("anthropic.com")`: both ways to that provider, which is a fake one; without fakes the test is skipped."""

    trust = ssl.create_default_context(cafile=run["ca_file"])

    def choose(provider):
        if provider not in run.get("providers", {}):
            pytest.skip("this run has no fake providers")
        there = run["providers"][provider]
        return Cloud(Side("direct", there["url"], there["key"], "", trust), Side("lab", run["lab_url"], run["api_key"], "", trust))

    return choose


@pytest.fixture(scope="session")
def models(sides):
    """The name of a local model for each capability that the machine has one for."""
    tags = httpx.get(f"{sides.direct.url}/api/tags").json()["models"]
    chosen = {}
    for capability in ("completion", "tools", "vision", "thinking", "embedding"):
        named = os.environ.get(f"ONEK4_MODEL_{capability.upper()}")
        found = [tag["name"] for tag in tags if capability in tag.get("capabilities", []) and "remote_host" not in tag]
        name = named or (found[0] if found else None)
        if name:
            # Without the default tag, as people write it.
            chosen[capability] = name.removesuffix(":latest")
    return chosen


@pytest.fixture(scope="session")
def model(models):
    """`model("tools")`: a model that can do that, or the test is skipped."""

    def choose(capability):
        if capability not in models:
            pytest.skip(f"no local model has the capability {capability}")
        return models[capability]

    return choose


@pytest.fixture(scope="session")
def image():
    """A small picture, base64 of a PNG: 32 by 32, a red square on white."""

    def row(y):
        return b"\x00" + b"".join(b"\xff\x00\x00" if 8 <= x < 24 and 8 <= y < 24 else b"\xff\xff\xff" for x in range(32))

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 32, 32, 8, 2, 0, 0, 0)
    data = zlib.compress(b"".join(row(y) for y in range(32)))
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    return base64.b64encode(png).decode()


# What is asked of every client, so that the suites differ in their clients only.
QUESTION = "Où est passée l'été ? <answer> & “quote” it: 東京 🦀"
SYSTEM = "Answer in one sentence."
WEATHER = {
    "name": "weather",
    "description": "The weather of a town",
    "parameters": {
        "type": "object",
        # Neither sorted nor grouped: the order is part of the prompt.
        "properties": {"town": {"type": "string"}, "days": {"type": "integer"}, "celsius": {"type": "boolean"}},
        "required": ["town"],
    },
}
SCHEMA = {
    "type": "object",
    "properties": {"colour": {"type": "string", "enum": ["rouge", "bleu"]}, "count": {"type": "integer"}},
    "required": ["colour", "count"],
    "additionalProperties": False,
}
