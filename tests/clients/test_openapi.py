"""schemathesis over the Lab's own description of its API, as several callers (row 10 of the Lab's issue).

What is asked is what the description allows, and what it forbids. Whatever comes back must be what it announces: no error of the
server's, no status, content type or body that it does not name, no acceptance of what it forbids, no method that it does not know,
nothing for whoever shows no credential. Half of the requests that may be are about something that the caller has.
"""

import itertools
import json
import os
import re
from pathlib import Path

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from own_lab import OwnLab
from schemathesis.core.parameters import ParameterLocation

ROOT = Path(__file__).parents[2]
DESCRIPTION = ROOT / "lab-server" / "openapi.json"
# Random cases for each operation and caller, beside those at the edges of each field.
EXAMPLES = 200 if os.environ.get("ONEK4_FULL") else 5
ROLES = ("nobody", "manager", "person")

# Whoever shows an address gets an account, and letters lie in a folder.
OPEN = """
[sign_in]
registration = "open"

[mail]
outbox = "outbox"
"""

# Bytes of a body that are under way while the answer comes.
LONG = 8 * 1024

schema = schemathesis.openapi.from_path(str(DESCRIPTION))
# The credentials are the callers' own; what is answered without them, and with others, is the matrix's matter (tests/journeys/bola.rs).
schema.config.generation.update(modes=list(schemathesis.GenerationMode), with_security_parameters=False)
# A day, a name, a path in a project: what a text may be is more than a schema says, and 400 says the rest. What the schema forbids
# must be refused, though, and that is checked.
schema.config.checks.positive_data_acceptance.enabled = False
schema.config.checks.ignored_auth.enabled = False
# What is over is refused as well as what is forbidden: a link that was used, an upload that is too large.
schema.config.checks.negative_data_rejection.expected_statuses += ["410", "413"]


class Caller:
    """Somebody who asks: the headers that make a request theirs, and what they have, by the word before its place in a path."""

    def __init__(self, headers, things, cookies=None):
        self.headers = headers
        self.cookies = cookies
        self.things = things

    def own(self, case, parameters):
        """The same parameters with the caller's things in them."""
        own = dict(parameters)
        for word, name in re.findall(r"/([a-z-]+)/{([a-z_]+)}", case.path):
            own[name] = self.things.get(word, own.get(name))
        return own


@pytest.fixture(scope="module")
def own(run):
    if run["ollama_is_real"]:
        pytest.skip("no model is asked here; this was done beside the fake Ollama")
    lab = OwnLab(run["lab_program"], OPEN)
    yield lab
    code, said = lab.end()
    assert code == 0, said
    assert "panicked" not in said, said


@pytest.fixture(scope="module")
def callers(own):
    """`callers("manager", operation)`. Each operation has a caller of its own: one of them may be to delete the account."""
    number, known = itertools.count(), {}

    def choose(role, operation):
        if (role, operation) not in known:
            known[role, operation] = {"nobody": nobody, "manager": manager, "person": person}[role](own, f"{role}-{next(number)}")
        return known[role, operation]

    return choose


def nobody(_own, _name):
    return Caller({}, {})


def manager(own, name):
    headers = {"Authorization": f"Bearer {own.key(name, 'manage', 'usage')}"}
    ask = own.fresh()
    project = ask.get(f"{own.url}/api/projects", headers=headers, timeout=30).json()["data"][0]["id"]
    keys = ask.get(f"{own.url}/api/projects/{project}/keys", headers=headers, timeout=30).json()["data"]
    return Caller(headers, {"projects": project, "keys": keys[0]["kid"]})


def person(own, name):
    cookie = own.sign_in(f"{name}@example.com")
    headers, cookies = {"Sec-Fetch-Site": "same-origin"}, {"__Host-1k4s": cookie}
    ask = own.fresh()
    ask.cookies.update(cookies)
    things = {}

    def have(path, body):
        made = ask.post(f"{own.url}{path}", headers=headers, json=body, timeout=30)
        assert made.ok, f"{path}: {made.status_code} {made.text}"
        return made.json()

    things["projects"] = have("/api/projects", {"name": "of the person"})["id"]
    things["keys"] = have(f"/api/projects/{things['projects']}/keys", {"name": "of the person"})["kid"]
    for word in ("sessions", "identities"):
        things[word] = ask.get(f"{own.url}/api/{word}", headers=headers, timeout=30).json()["data"][0]["id"]
    return Caller(headers, things, cookies)


def test_the_description_is_the_live_one(own):
    live = own.session().get(f"{own.url}/api/openapi.json", timeout=30)
    assert live.json() == json.loads(DESCRIPTION.read_text(encoding="utf-8"))


@pytest.mark.parametrize("role", ROLES)
@schema.parametrize()
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_it_answers_as_it_is_described(case, role, own, callers):
    caller = callers(role, case.operation.label)
    is_valid = case.meta is None or not case.meta.is_negative_at(ParameterLocation.PATH)
    if is_valid and case.path_parameters and own.asked % 2:
        case.path_parameters = caller.own(case, case.path_parameters)
    how = {"headers": caller.headers, "cookies": caller.cookies, "verify": own.ca_file, "timeout": 30}
    try:
        case.call_and_validate(base_url=own.url, session=own.session(), **how)
    except requests.exceptions.ConnectionError:
        # Who is refused while a long body is still being sent may find the connection closed before the answer is read. Whoever
        # comes again with a connection of their own is answered, unless the body is in the way again.
        is_long = isinstance(case.body, (dict, list)) and len(json.dumps(case.body)) > LONG
        if not is_long and len(case.body or "" if isinstance(case.body, (str, bytes)) else "") <= LONG:
            case.call_and_validate(base_url=own.url, session=own.fresh(), **how)
