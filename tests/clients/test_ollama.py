"""The official `ollama` client: pointed at the Lab it sees the Ollama of the workstation."""

import json

import ollama
import pytest
from compare import assert_same
from conftest import QUESTION, SCHEMA, SYSTEM, WEATHER

MESSAGES = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": QUESTION}]
TOOLS = [{"type": "function", "function": WEATHER}]
FIXED = {"temperature": 0, "seed": 7, "num_predict": 48}


def client(side, key=None):
    return ollama.Client(host=side.url, headers={"Authorization": f"Bearer {key or side.key}"}, verify=side.trust)


def plain(answer):
    return answer.model_dump(mode="json", exclude_unset=True)


def same(sides, ask, stream=False):
    """Asks both sides, compares, and returns the Lab's answer or chunks."""
    direct, lab = (ask(client(side)) for side in sides)
    if stream:
        direct, lab = list(direct), list(lab)
        assert lab[-1].done
        assert_same([plain(chunk) for chunk in direct], [plain(chunk) for chunk in lab])
    else:
        assert_same(plain(direct), plain(lab))
    return lab


def chat(name, **more):
    fields = {"messages": MESSAGES, "options": FIXED, **more}
    return lambda api: api.chat(model=name, **fields)


@pytest.mark.parametrize("stream", [False, True])
def test_chat(sides, model, stream):
    same(sides, chat(model("completion"), stream=stream), stream)


def test_chat_by_the_labs_name(sides, model):
    """`local/…` means the same as the bare name."""
    name = model("completion")
    bare, named = (chat(asked)(client(sides.lab)) for asked in (name, f"local/{name}"))
    assert_same(plain(bare), plain(named))


@pytest.mark.parametrize("stream", [False, True])
def test_generate(sides, model, stream):
    name = model("completion")
    same(sides, lambda api: api.generate(model=name, prompt=QUESTION, system=SYSTEM, options=FIXED, stream=stream), stream)


@pytest.mark.parametrize("stream", [False, True])
def test_tool_call(sides, model, stream):
    answer = same(sides, chat(model("tools"), tools=TOOLS, stream=stream), stream)
    if not stream and not sides.ollama_is_real:
        assert answer.message.tool_calls[0].function.name == "weather"


def test_tool_result(sides, model):
    call = {"function": {"name": "weather", "arguments": {"town": "Tōkyō"}}}
    messages = [*MESSAGES, {"role": "assistant", "content": "", "tool_calls": [call]}, {"role": "tool", "tool_name": "weather", "content": "雨"}]
    same(sides, chat(model("tools"), messages=messages, tools=TOOLS))


@pytest.mark.parametrize("stream", [False, True])
def test_image(sides, model, image, stream):
    same(sides, chat(model("vision"), messages=[{"role": "user", "content": QUESTION, "images": [image]}], stream=stream), stream)


@pytest.mark.parametrize("form", ["json", SCHEMA], ids=["any", "schema"])
@pytest.mark.parametrize("stream", [False, True])
def test_structured_output(sides, model, form, stream):
    answer = same(sides, chat(model("completion"), format=form, stream=stream, options={**FIXED, "num_predict": 200}), stream)
    if not stream and not sides.ollama_is_real:
        json.loads(answer.message.content)


@pytest.mark.parametrize("think", [True, False, "low"])
@pytest.mark.parametrize("stream", [False, True])
def test_thinking(sides, model, think, stream):
    answer = same(sides, chat(model("thinking"), think=think, stream=stream), stream)
    if not stream and not sides.ollama_is_real:
        assert bool(answer.message.thinking) == bool(think)


@pytest.mark.parametrize("words", [QUESTION, [QUESTION, "deux", "三"]], ids=["one", "three"])
def test_embed(sides, model, words):
    name = model("embedding")
    answer = same(sides, lambda api: api.embed(model=name, input=words))
    assert len(answer.embeddings) == (1 if isinstance(words, str) else 3)


def test_load_and_unload(sides, model):
    name = model("completion")
    loaded = same(sides, lambda api: api.generate(model=name))
    assert loaded.done_reason == "load"
    unloaded = same(sides, lambda api: api.generate(model=name, keep_alive=0))
    assert unloaded.done_reason == "unload"


def test_models_are_listed(sides):
    direct, lab = (client(side).list() for side in sides)
    assert_same(plain(direct), plain(lab))


def test_show_tells_what_clients_use_and_nothing_private(sides, model):
    name = model("completion")
    direct, lab = (client(side).show(name) for side in sides)
    assert lab.capabilities == direct.capabilities
    assert_same(plain(direct)["details"], plain(lab)["details"])
    for private in ("system", "modelfile", "license"):
        assert not plain(lab).get(private), f"the owner's {private} left the machine"


def test_running_models(sides, model):
    name = model("completion")
    chat(name)(client(sides.direct))
    loaded = [entry.model for entry in client(sides.direct).ps().models]
    assert any(entry.removesuffix(":latest") == name for entry in loaded)
    # What the Lab lists is the bridge's last look, and that may be seconds old.
    assert all(entry.model in [tag.model for tag in client(sides.direct).list().models] for entry in client(sides.lab).ps().models)


@pytest.mark.parametrize("stream", [False, True])
def test_unknown_model(sides, stream):
    for side in sides:
        with pytest.raises(ollama.ResponseError) as refusal:
            answer = chat("no-such-model", stream=stream)(client(side))
            list(answer)
        assert refusal.value.status_code == 404
        assert "no-such-model" in refusal.value.error


def test_bad_key(sides, model):
    with pytest.raises(ollama.ResponseError) as refusal:
        chat(model("completion"))(client(sides.lab, "nonsense"))
    assert refusal.value.status_code == 401


def test_a_wrong_option_is_refused_in_ollamas_words(sides, model):
    errors = []
    for side in sides:
        with pytest.raises(ollama.ResponseError) as refusal:
            chat(model("completion"), think="sideways")(client(side))
        errors.append((refusal.value.status_code, refusal.value.error))
    assert errors[0] == errors[1]
