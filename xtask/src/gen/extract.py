"""Reads two packages of prices and writes down what this project uses of them.

    extract.py LITELLM_WHEEL GENAI_PRICES_WHEEL PRICES_FOLDER DATE

Only Python's own library is used, and none of the packages' code is run: the one set is JSON, the other a Python literal that is
parsed. Figures are written as the packages write them, as text, so that no digit is lost. A price of a kind that is not known
here ends the program: somebody has to say what it is.
"""

import ast
import json
import re
import sys
import zipfile
from pathlib import Path

# LiteLLM's provider -> ours, and the prefix of its names. Text-completion models are OpenAI's too.
LITELLM_PROVIDERS = {
    "openai": ("openai", ""),
    "text-completion-openai": ("openai", ""),
    "anthropic": ("anthropic", ""),
    "gemini": ("google", "gemini/"),
    "xai": ("xai", "xai/"),
}
GENAI_PROVIDERS = {"openai": "openai", "anthropic": "anthropic", "google": "google", "x-ai": "xai"}
# What a model can do, as we call it and as LiteLLM does. Where it says neither yes nor no, nothing is written down.
ABILITIES = {"tools": "supports_function_calling", "vision": "supports_vision", "thinking": "supports_reasoning"}
MODES = {"chat", "completion", "responses", "embedding", "image_generation"}
# Pages of the vendors themselves: a figure that only one set knows counts only with one of them.
VENDORS = re.compile(
    r"https://(developers\.openai\.com|platform\.claude\.com|ai\.google\.dev/gemini-api/docs/pricing|(api|docs)\.x\.ai)"
)

LITELLM_FIGURE = re.compile(
    r"(input_cost_per_token|output_cost_per_token|output_cost_per_reasoning_token|cache_read_input_token_cost"
    r"|cache_creation_input_token_cost(_above_(1hr|12hr))?|(input|output)_cost_per_(audio|image)_token)"
    r"(_above_\d+k_tokens)?(_(flex|priority|batches|ultrafast))?"
)
# Not counted one by one in a usage: prices per image, second, character and place; the caches of sound and pictures, which no
# provider counts apart; video; and `decisions`, a service that is not offered to API callers.
LITELLM_LEFT = re.compile(
    r"(in|out)put_cost_per_(image|second|character|pixel|video_token|video_per_second)(_\w+)?"
    r"|google_maps_grounding_cost_per_query|cache_(read|creation)_input_(audio|image)_token_cost(_\w+)?|\w+_decisions"
    r"|search_context_cost_per_query"
)
GENAI_FIGURES = {
    "input_mtok", "output_mtok", "cache_read_mtok", "cache_write_mtok", "cache_write_1h_mtok", "input_audio_mtok",
    "output_audio_mtok", "input_image_mtok", "output_image_mtok", "web_searches_kcount",
}  # fmt: skip
GENAI_LEFT = {
    "cache_image_read_mtok", "cache_audio_read_mtok", "input_video_mtok", "output_video_mtok", "storage_searches_kcount",
}  # fmt: skip


def main(litellm_wheel, genai_wheel, folder, date):
    folder = Path(folder)
    decisions = json.loads((folder / "decisions.json").read_text())
    left_out = {name for entry in decisions["left_out"] for name in entry["models"]}
    litellm_version, litellm, retired = litellm_models(litellm_wheel, date, left_out, folder / "litellm.LICENSE")
    genai_version, providers = genai_providers(genai_wheel, folder / "genai-prices.LICENSE")
    also = [(entry["provider"], name) for entry in decisions["also"] for name in entry["models"]]
    genai = genai_models(providers, litellm, retired, also)
    known = {(entry["provider"], name) for entry in genai for name in entry["names"]}
    # The mark of a vendor is asked for where the other set does not vouch.
    litellm = [m for m in litellm if (m["provider"], m["name"]) in known or VENDORS.match(m["source"] or "")]
    write(folder / "litellm.json", "litellm", litellm_version, date, litellm)
    write(folder / "genai-prices.json", "genai-prices", genai_version, date, genai)


def litellm_models(wheel, date, left_out, licence):
    with zipfile.ZipFile(wheel) as archive:
        models = json.loads(archive.read("litellm/model_prices_and_context_window_backup.json"), parse_float=str, parse_int=str)
        save_licence(archive, licence)
    found = {}
    retired = set()
    for name, entry in models.items():
        if entry.get("litellm_provider") not in LITELLM_PROVIDERS or entry.get("mode") not in MODES:
            continue
        provider, prefix = LITELLM_PROVIDERS[entry["litellm_provider"]]
        name = name.removeprefix(prefix)
        # Tuned models belong to one account; a name with a slash is a size of picture, not a model.
        if name in left_out or name.startswith("ft:") or "/" in name or "audio" in name:
            continue
        if entry.get("deprecation_date", "9999") <= date:
            retired.add(name)
            continue
        if float(entry.get("input_cost_per_token", 0)) == 0:
            continue
        figures = {}
        for key, value in entry.items():
            if "cost" not in key or LITELLM_LEFT.fullmatch(key):
                continue
            if not LITELLM_FIGURE.fullmatch(key):
                sys.exit(f"LiteLLM's {name} has a price of a kind that is not known here: {key}")
            if float(value) != 0:
                figures[key] = value
        searches = entry.get("search_context_cost_per_query", {})
        if searches:
            figures["search_context_cost_per_query"] = max(searches.values(), key=float)
        multipliers = {key: entry.get("provider_specific_entry", {}).get(key) for key in ("fast", "us")}
        found[provider, name] = {
            "provider": provider,
            "name": name,
            "mode": entry["mode"],
            "max_input": whole(entry.get("max_input_tokens")),
            "max_output": whole(entry.get("max_output_tokens")),
            "can": {ours: entry[theirs] for ours, theirs in ABILITIES.items() if isinstance(entry.get(theirs), bool)},
            "retires": entry.get("deprecation_date"),
            "source": entry.get("source"),
            "figures": figures,
            "multipliers": {key: value for key, value in multipliers.items() if value is not None},
        }
    return version(wheel), [found[key] for key in sorted(found)], retired


def genai_providers(wheel, licence):
    with zipfile.ZipFile(wheel) as archive:
        tree = ast.parse(archive.read("genai_prices/data.py"))
        save_licence(archive, licence)
    (providers,) = [node.value for node in tree.body if isinstance(node, ast.AnnAssign)]
    # Only ours are read on: others have prices by the hour of the day.
    return version(wheel), [literal(provider) for provider in providers.elts if provider_id(provider) in GENAI_PROVIDERS]


def provider_id(call):
    return next(keyword.value.value for keyword in call.keywords if keyword.arg == "id")


def genai_models(providers, litellm, retired, also):
    found = []
    for provider in providers:
        ours = GENAI_PROVIDERS[provider["id"]]
        names = {}
        for entry in litellm:
            if entry["provider"] == ours:
                first = next((m["id"] for m in provider["models"] if is_match(m["match"], entry["name"])), None)
                names.setdefault(first, []).append(entry["name"])
        for model in provider["models"]:
            asked = names.get(model["id"], [])
            if not asked and (ours, model["id"]) not in also:
                continue
            prices = model["prices"] if isinstance(model["prices"], list) else [{"prices": model["prices"]}]
            found.append(
                {
                    "provider": ours,
                    "id": model["id"],
                    "names": asked,
                    "equals": sorted(equals(model["match"]) - retired),
                    # Whether a date behind the name is this model too, for each of the two ways to write one.
                    "dated": [
                        sample
                        for sample in ("-2026-01-01", "-20260101")
                        if any(is_match(clause, model["id"] + sample) for clause in regexes(model["match"]))
                    ],
                    "context_window": model.get("context_window"),
                    "pages": pages(model.get("price_comments") or ""),
                    "prices": [{"from": start(p), "figures": figures(model["id"], p["prices"])} for p in prices],
                    "variants": [
                        {"when": "/".join(v["when"].values()), "from": start(v), "figures": figures(model["id"], v["prices"])}
                        for v in model.get("price_variants") or []
                    ],
                }
            )
    return sorted(found, key=lambda entry: (entry["provider"], entry["id"]))


def literal(node):
    """The value of a literal; a call is a dict of its arguments, and its name under `_`."""
    match node:
        case ast.Constant():
            return node.value
        case ast.List() | ast.Tuple():
            return [literal(item) for item in node.elts]
        case ast.Dict():
            return {literal(key): literal(value) for key, value in zip(node.keys, node.values)}
        case ast.Call(func=ast.Name(id="Decimal")):
            return literal(node.args[0])
        case ast.Call(func=ast.Attribute(attr="date")):
            year, month, day = map(literal, node.args)
            return f"{year:04}-{month:02}-{day:02}"
        case ast.Call(func=ast.Name(id=name), args=[]):
            return {"_": name} | {keyword.arg: literal(keyword.value) for keyword in node.keywords}
    sys.exit(f"genai-prices has something that is not known here: {ast.unparse(node)}")


def is_match(clause, name):
    name = name.lower()
    match clause["_"]:
        case "ClauseStartsWith":
            return name.startswith(clause["starts_with"].lower())
        case "ClauseEndsWith":
            return name.endswith(clause["ends_with"].lower())
        case "ClauseContains":
            return clause["contains"].lower() in name
        case "ClauseEquals":
            return name == clause["equals"].lower()
        case "ClauseRegex":
            return re.search(clause["regex"], name) is not None
        case "ClauseOr":
            return any(is_match(part, name) for part in clause["or_"])
        case "ClauseAnd":
            return all(is_match(part, name) for part in clause["and_"])
    sys.exit(f"genai-prices has a clause that is not known here: {clause['_']}")


def equals(clause):
    """The names that a clause spells out."""
    return {part["equals"] for part in parts(clause) if part["_"] == "ClauseEquals"}


def regexes(clause):
    return [part for part in parts(clause) if part["_"] == "ClauseRegex"]


def parts(clause):
    """The alternatives of a clause."""
    return [leaf for part in clause["or_"] for leaf in parts(part)] if clause["_"] == "ClauseOr" else [clause]


def figures(model, prices):
    found = {}
    for key, value in prices.items():
        if key == "_" or key in GENAI_LEFT:
            continue
        if key not in GENAI_FIGURES:
            sys.exit(f"genai-prices' {model} has a price of a kind that is not known here: {key}")
        if isinstance(value, dict):
            found[key] = {"base": value["base"], "above": [[tier["start"], tier["price"]] for tier in value["tiers"]]}
        elif float(value) != 0:
            found[key] = value
    return found


def start(price):
    constraint = price.get("constraint")
    return constraint and constraint["start_date"]


def pages(comment):
    return sorted({page.rstrip(".") for page in re.findall(r"https://[^\s),;\"]+", comment) if VENDORS.match(page)})


def whole(number):
    return None if number is None else int(float(number))


def version(wheel):
    return Path(wheel).name.split("-")[1]


def save_licence(archive, path):
    (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/licenses/LICENSE")]
    path.write_bytes(archive.read(name))


def write(path, name, number, date, models):
    """One model in one block, a long field in one line."""
    lines = []
    for model in models:
        head = {key: value for key, value in model.items() if key not in ("figures", "prices", "variants")}
        tail = [f'"{key}": {json.dumps(model[key])}' for key in ("figures",) if key in model]
        for key in ("prices", "variants"):
            if key in model:
                items = ",".join(f"\n      {json.dumps(item)}" for item in model[key])
                tail.append(f'"{key}": [{items}]')
        lines.append("    " + json.dumps(head)[:-1] + "".join(f",\n     {field}" for field in tail) + "}")
    head = f'{{\n  "set": "{name}",\n  "version": "{number}",\n  "licence": "MIT",\n  "taken": "{date}",\n  "models": [\n'
    path.write_text(head + ",\n".join(lines) + "\n  ]\n}\n")


main(*sys.argv[1:])
