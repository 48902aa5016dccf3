"""Plain curl: status, content type and every line of the body are Ollama's own."""

import json
import shutil
import subprocess
import time

import pytest
from compare import assert_same
from conftest import QUESTION, SCHEMA, WEATHER

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")


def curl(side, run, path, body=None, key=None, how="Authorization: Bearer {}"):
    """The answer as (status, content type, body). The key goes in by standard input: arguments are public."""
    words = ["curl", "--silent", "--show-error", "--no-buffer", "--noproxy", "*", "--max-time", "60", "--cacert", run["ca_file"]]
    words += ["--config", "-", "--write-out", "\n%{http_code} %{content_type}", side.url + path]
    if body is not None:
        words += ["--header", "Content-Type: application/json", "--data-raw", json.dumps(body, ensure_ascii=False)]
    config = 'header = "' + how.format(key or side.key) + '"\n'
    text = subprocess.run(words, input=config, capture_output=True, text=True, check=True).stdout
    body, _, tail = text.rpartition("\n")
    status, _, kind = tail.partition(" ")
    return int(status), kind, body


def lines(text):
    """The body line by line, with the JSON of each line read; whatever is no JSON stays as it is."""

    def read(line):
        lead, _, rest = line.partition("data: ") if line.startswith("data: ") else ("", "", line)
        try:
            return [lead, json.loads(rest)]
        except ValueError:
            return [lead, rest]

    return [read(line) for line in text.split("\n")]


CASES = {
    "chat": ("/v1/chat/completions", "completion", {"messages": [{"role": "user", "content": QUESTION}], "seed": 7, "temperature": 0, "max_tokens": 32}),
    "chat with tools": (
        "/v1/chat/completions",
        "tools",
        {"messages": [{"role": "user", "content": QUESTION}], "tools": [{"type": "function", "function": WEATHER}], "seed": 7, "temperature": 0, "max_tokens": 32},
    ),
    "completion": ("/v1/completions", "completion", {"prompt": QUESTION, "seed": 7, "temperature": 0, "max_tokens": 32}),
    "responses": ("/v1/responses", "completion", {"input": QUESTION, "temperature": 0, "max_output_tokens": 32}),
    "messages": ("/v1/messages", "completion", {"messages": [{"role": "user", "content": QUESTION}], "temperature": 0, "max_tokens": 32}),
    "ollama chat": ("/api/chat", "completion", {"messages": [{"role": "user", "content": QUESTION}], "options": {"seed": 7, "temperature": 0, "num_predict": 32}}),
    "ollama generate": ("/api/generate", "completion", {"prompt": QUESTION, "options": {"seed": 7, "temperature": 0, "num_predict": 32}}),
    "ollama schema": (
        "/api/chat",
        "completion",
        {"messages": [{"role": "user", "content": QUESTION}], "format": SCHEMA, "options": {"seed": 7, "temperature": 0, "num_predict": 100}},
    ),
}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("case", CASES, ids=[case.replace(" ", "_") for case in CASES])
def test_line_by_line(sides, run, model, case, stream):
    path, capability, body = CASES[case]
    name = model(capability)
    direct, lab = (curl(side, run, path, {"model": side.model(name), "stream": stream, **body}) for side in sides)
    assert lab[0] == direct[0] == 200
    assert lab[1] == direct[1]
    assert_same(lines(direct[2]), lines(lab[2]))


@pytest.mark.parametrize("path", ["/v1/embeddings", "/api/embed"])
def test_embeddings(sides, run, model, path):
    name = model("embedding")
    direct, lab = (curl(side, run, path, {"model": side.model(name), "input": [QUESTION, "deux"]}) for side in sides)
    assert lab[:2] == direct[:2]
    assert_same(lines(direct[2]), lines(lab[2]))


def test_tags_are_ollamas(sides, run):
    direct, lab = (curl(side, run, "/api/tags") for side in sides)
    assert lab[:2] == direct[:2]
    assert json.loads(lab[2]) == json.loads(direct[2])


def test_version_is_ollamas(sides, run):
    direct, lab = (curl(side, run, "/api/version") for side in sides)
    assert json.loads(lab[2]) == json.loads(direct[2])


@pytest.mark.parametrize("how", ["Authorization: Bearer {}", "x-api-key: {}", "api-key: {}"])
def test_spellings_of_the_key(sides, run, how):
    assert curl(sides.lab, run, "/v1/models", how=how)[0] == 200
    assert curl(sides.lab, run, "/v1/models", key="nonsense", how=how)[0] == 401


def test_no_key(sides, run):
    status, kind, body = curl(sides.lab, run, "/v1/models", how="X-Nothing: {}")
    assert (status, kind) == (401, "application/json")
    assert json.loads(body)["error"]["message"]


def test_each_protocol_has_its_own_errors(sides, run):
    def refused(path):
        status, _, body = curl(sides.lab, run, path, {"model": "local/no-such-model", "messages": [{"role": "user", "content": "?"}], "max_tokens": 1})
        return status, json.loads(body)

    status, body = refused("/v1/chat/completions")
    assert status == 404 and set(body["error"]) >= {"message", "type", "param", "code"}
    status, body = refused("/v1/messages")
    assert status == 404 and (body["type"], body["error"]["type"]) == ("error", "not_found_error")
    status, body = refused("/api/chat")
    assert status == 404 and isinstance(body["error"], str)


def test_a_stream_arrives_piece_by_piece(sides, run):
    """Twenty tokens, 50 ms apart: the first is here long before the last is written."""
    if sides.ollama_is_real:
        pytest.skip("only the fake Ollama has a pace")
    body = json.dumps({"model": "paced-n20-d50000", "stream": False})
    # The Lab offers what the bridge has seen, so the fake is given the model first.
    subprocess.run(["curl", "-sf", f"{sides.direct.url}/api/pull", "-d", body], capture_output=True, check=True)
    deadline = time.monotonic() + 20
    while "paced-n20-d50000" not in curl(sides.lab, run, "/api/tags")[2]:
        assert time.monotonic() < deadline, "the Lab never listed the new model"
        time.sleep(0.1)
    config = f'header = "Authorization: Bearer {sides.lab.key}"\n'
    words = ["curl", "--silent", "--no-buffer", "--noproxy", "*", "--cacert", run["ca_file"], "--config", "-"]
    words += [f"{sides.lab.url}/api/chat", "-d", '{"model":"paced-n20-d50000","messages":[{"role":"user","content":"go"}]}']
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        process.stdin.write(config)
        process.stdin.close()
        arrivals = [time.monotonic() for _ in process.stdout]
    assert len(arrivals) == 21
    assert arrivals[-1] - arrivals[0] > 0.7, "the answer was held back and came at once"
