"""The official `google-genai` client and Gemini: the answer through the Lab is the answer of the provider.

The provider is a fake one whose bodies are a function of the request, so they are compared as they are, ids and times included.
"""

import base64

import httpx
import pytest
from conftest import QUESTION, SYSTEM, WEATHER
from google import genai
from google.genai import errors, types


@pytest.fixture(params=[None, "v1beta"], ids=["usual", "v1beta"])
def sides(cloud, request):
    """Both ways, with the version of the API that the client takes by itself, and with the one that most programs were written for."""
    return [(side, request.param) for side in cloud("googleapis.com")]


def client(way, key=None):
    side, version = way
    options = types.HttpOptions(base_url=side.url, api_version=version, httpx_client=httpx.Client(verify=side.trust))
    return genai.Client(api_key=key or side.key, http_options=options, vertexai=False)


def plain(answer):
    # The client keeps the answer's headers, which are another test's.
    return answer.model_dump(mode="json", exclude_unset=True, exclude={"sdk_http_response"})


def same(sides, stream=False, model="gemini-fake", contents=QUESTION, **config):
    """Asks both sides, compares, and returns the Lab's answer or events."""
    config = types.GenerateContentConfig(**config)
    both = []
    for side in sides:
        models = client(side).models
        if stream:
            both.append(list(models.generate_content_stream(model=model, contents=contents, config=config)))
        else:
            both.append(models.generate_content(model=model, contents=contents, config=config))
    direct, lab = both
    if stream:
        assert len(lab) > 1
        assert [plain(event) for event in lab] == [plain(event) for event in direct]
    else:
        assert plain(lab) == plain(direct)
    return lab


@pytest.mark.parametrize("stream", [False, True])
def test_generate(sides, stream):
    answer = same(sides, stream, system_instruction=SYSTEM)
    last = answer[-1] if stream else answer
    assert last.usage_metadata.candidates_token_count == 16
    text = "".join(event.text for event in answer) if stream else answer.text
    assert text.startswith("« Où est passée")


@pytest.mark.parametrize("stream", [False, True])
def test_thinking(sides, stream):
    answer = same(sides, stream, thinking_config=types.ThinkingConfig(include_thoughts=True))
    assert (answer[-1] if stream else answer).usage_metadata.thoughts_token_count == 6


@pytest.mark.parametrize("stream", [False, True])
def test_tool_call(sides, stream):
    tool = types.FunctionDeclaration(
        name=WEATHER["name"], description=WEATHER["description"], parameters_json_schema=WEATHER["parameters"]
    )
    more = {"tools": [types.Tool(function_declarations=[tool])]}
    config = types.GenerateContentConfig(**more, automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True))
    both = []
    for side in sides:
        models = client(side).models
        if stream:
            both.append(list(models.generate_content_stream(model="gemini-fake", contents=QUESTION, config=config)))
        else:
            both.append([models.generate_content(model="gemini-fake", contents=QUESTION, config=config)])
    direct, lab = both
    assert [plain(event) for event in lab] == [plain(event) for event in direct]
    assert "town" in lab[0].function_calls[0].args


def test_image(sides, image):
    part = types.Part.from_bytes(data=base64.b64decode(image), mime_type="image/png")
    assert same(sides, contents=[part, QUESTION]).usage_metadata.prompt_token_count > 256


def test_structured_output(sides):
    answer = same(sides, response_mime_type="application/json", response_schema=types.Schema(type="OBJECT", properties={"n": types.Schema(type="INTEGER")}))
    assert isinstance(answer.parsed["n"], int)


def test_cut_short(sides):
    assert same(sides, max_output_tokens=3).candidates[0].finish_reason == types.FinishReason.MAX_TOKENS


def test_count_tokens(sides):
    direct, lab = (client(side).models.count_tokens(model="gemini-fake", contents=QUESTION) for side in sides)
    assert plain(lab) == plain(direct)
    assert lab.total_tokens > 0


@pytest.mark.parametrize(("model", "words", "vectors"), [("gemini", QUESTION, 1), ("gemini", [QUESTION, "deux"], 1), ("text", [QUESTION, "deux", "三"], 3)])
def test_embed(sides, model, words, vectors):
    """The client asks models of the one name for one vector of everything, and the others for one of each text."""
    direct, lab = (client(side).models.embed_content(model=f"{model}-fake-embedding", contents=words) for side in sides)
    assert plain(lab) == plain(direct)
    assert len(lab.embeddings) == vectors


def test_models(sides):
    """The Lab lists its own catalogue and the caller's workstations: what the provider would list is in it."""
    direct, lab = ({entry.name for entry in client(side).models.list()} for side in sides)
    assert {"models/gemini-fake", "models/gemini-fake-embedding", "models/text-fake-embedding"} == direct <= lab


def refusals(sides, **more):
    both = []
    for side in sides:
        with pytest.raises(errors.APIError) as refusal:
            client(side).models.generate_content(**{"model": "gemini-fake", "contents": QUESTION, **more})
        both.append((type(refusal.value), refusal.value.code, refusal.value.status, refusal.value.details))
    return both


def troubled(sides, status):
    """A model that fails so, and that no other test asks: the Lab leaves an account alone that misbehaved."""
    return f"gemini-fake-h{status}-{sides[0][1] or 'usual'}"


@pytest.mark.parametrize("status", [400, 404, 429, 500, 503])
def test_a_refusal(sides, status):
    direct, lab = refusals(sides, model=troubled(sides, status))
    assert lab == direct
    assert lab[1] == status


@pytest.mark.parametrize("status", [401, 403])
def test_a_providers_refusal_of_the_operators_key(sides, status):
    """On purpose not the caller's affair."""
    direct, lab = refusals(sides, model=troubled(sides, status))
    assert (direct[1], lab[1]) == (status, 502)


def test_an_unknown_model(sides):
    """The Lab does not ask anybody: the sentence is its own."""
    direct, lab = refusals(sides, model="no-such-model")
    assert lab[:3] == direct[:3] == (errors.ClientError, 404, "NOT_FOUND")


def test_a_wrong_key(sides):
    """Google calls a wrong key a wrong argument; the Lab says that nobody is known by it."""
    codes = []
    for side in sides:
        with pytest.raises(errors.ClientError) as refusal:
            client(side, key="nonsense").models.generate_content(model="gemini-fake", contents=QUESTION)
        codes.append(refusal.value.code)
    assert codes == [400, 401]


def test_a_stream_without_events(cloud):
    """Without `alt=sse` a stream is one JSON array, and passes as it is."""
    body = {"contents": [{"role": "user", "parts": [{"text": QUESTION}]}]}
    direct, lab = (
        httpx.post(
            f"{side.url}/v1beta/models/gemini-fake:streamGenerateContent", json=body, headers={"x-goog-api-key": side.key}, verify=side.trust
        )
        for side in cloud("googleapis.com")
    )
    assert lab.content == direct.content
    assert lab.headers["content-type"] == direct.headers["content-type"]
    assert len(lab.json()) == 16
