"""The settings of the endpoint, and the choice that follows from them."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from mofme.errors import ConfigError
from mofme.papers.carrot.carrot import Estimate, plug_in
from mofme.papers.carrot.serving.config import Rule, ServingConfig, load_config
from mofme.papers.carrot.serving.endpoint import create_app
from mofme.papers.carrot.serving.forwarding import choose
from mofme.papers.carrot.serving.load_test import DrawingRouter
from mofme.papers.carrot.trained_router import Routed

BACKEND = {"name": "weak", "base_url": "http://127.0.0.1:1/v1", "model": "m", "price_in": 1, "price_out": 2}
GOOD = {"backends": [BACKEND], "rule": {"cost_weight": 0.3}}
EXAMPLE = Path(__file__).parents[4] / "assets" / "serve.yaml"


def write(folder: Path, settings: object) -> Path:
    path = folder / "serve.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return path


def test_the_example_is_a_good_one(monkeypatch) -> None:
    for variable in ("OPENAI_API_KEY", "NVIDIA_API_KEY"):
        monkeypatch.setenv(variable, "secret")
    config = load_config(EXAMPLE)
    assert config.backends[0].key == "secret"
    assert "secret" not in repr(config)
    assert config.best_backend is config.backends[0]
    assert config.rule.dial() == {"cost_weight": 0.3}


def test_what_goes_unsaid_and_what_the_command_line_says(tmp_path) -> None:
    config = load_config(write(tmp_path, {**GOOD, "port": 1}), port=2)
    assert (config.host, config.port, config.cache.enabled) == ("127.0.0.1", 2, False)
    both = {**GOOD, "backends": [{**BACKEND, "name": "dear", "price_out": 9}, BACKEND]}
    assert load_config(write(tmp_path, both)).best_backend.name == "dear"
    assert load_config(write(tmp_path, {**both, "best": "weak"})).best_backend.name == "weak"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"backends": []}, "backends"),
        ({"backends": [{**BACKEND, "price_in": -1}]}, r"backends\[0\].price_in: .* greater than or equal to 0, got -1"),
        ({"backends": [{**BACKEND, "price_in": float("nan")}]}, r"price_in"),
        ({"backends": [{k: v for k, v in BACKEND.items() if k != "model"}]}, r"backends\[0\].model is missing"),
        ({"backends": [{**BACKEND, "modle": 1}]}, r"backends\[0\].modle is no setting: check its spelling"),
        ({"backends": [{**BACKEND, "base_url": "api.openai.com"}]}, r"base_url: write a whole address"),
        ({"backends": [{**BACKEND, "base_url": "file:///etc/passwd"}]}, r"base_url: write a whole address"),
        (
            {"backends": [{**BACKEND, "base_url": "http://host/v1/chat/completions"}]},
            r"base_url: leave /chat/completions",
        ),
        ({"backends": [{**BACKEND, "base_url": "http://host:80000/v1"}]}, r"base_url: Port out of range"),
        ({"fallbacks": "weak"}, "fallbacks: input should be a valid list"),
        ({"backends": [BACKEND, BACKEND]}, "two backends are named 'weak'"),
        ({"backends": [{**BACKEND, "name": "modèle"}]}, r"backends\[0\].name: names go into HTTP headers"),
        ({"backends": [{**BACKEND, "name": "auto"}]}, "no backend can be named 'auto'"),
        ({"backends": [{**BACKEND, "key_env": "MOFME_NOT_SET"}]}, "MOFME_NOT_SET, which is not set: export it"),
        ({"token_env": "MOFME_NOT_SET"}, "token_env names the environment variable MOFME_NOT_SET"),
        ({"rule": {}}, "rule: give exactly one of cost_weight, budget and quality"),
        ({"rule": {"budget": 1, "quality": 1}}, "rule: give exactly one"),
        ({"rule": {"budget": 0}}, "rule.budget"),
        ({"rule": {"quality": None}}, "rule: give exactly one"),
        ({"fallbacks": ["storng"]}, "fallbacks names 'storng', which is no backend: choose from weak"),
        ({"best": "storng"}, "best names 'storng'"),
        ({"host": "0.0.0.0"}, "set token_env"),
        ({"host": "example.org"}, "set token_env"),
        ({"port": 70000}, "port"),
        ({"cache": {"similarity": 0.1}}, "cache.similarity"),
        ({"limits": {"seconds": 0}}, "limits.seconds"),
    ],
)
def test_what_is_wrong_is_said_with_file_and_field(tmp_path, changes, words) -> None:
    with pytest.raises(ConfigError, match=words) as raised:
        load_config(write(tmp_path, {**GOOD, **changes}))
    assert "serve.yaml: " in str(raised.value)


@pytest.mark.parametrize(
    "changes", [{"key_env": "sk-secret"}, {"base_url": "https://me:sk-secret@host/v1"}, {"api_key": "sk-secret"}]
)
def test_a_key_in_the_wrong_place_is_not_repeated(tmp_path, changes) -> None:
    with pytest.raises(ConfigError) as raised:
        load_config(write(tmp_path, {**GOOD, "backends": [{**BACKEND, **changes}]}))
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("secret", ["sk-secret\r", "sk-secret\n", "sk secret", "sk-s\u00e9cret"])
@pytest.mark.parametrize("place", [{"token_env": "MOFME_KEY"}, {"backends": [{**BACKEND, "key_env": "MOFME_KEY"}]}])
def test_a_key_that_no_header_can_hold_is_found_before_the_first_request(tmp_path, monkeypatch, secret, place) -> None:
    monkeypatch.setenv("MOFME_KEY", secret)
    with pytest.raises(ConfigError, match="MOFME_KEY holds cannot be sent") as raised:
        load_config(write(tmp_path, {**GOOD, **place}))
    assert secret not in str(raised.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"backends: [a\nkey: sk-secret", "is not YAML in line 2"),
        (b"", "holds no settings"),
        (b"- a", "holds no settings"),
        (b"rule: {budget: 1}\nbackends: []\nrule: {quality: 1}", "in line 3: rule stands there twice"),
        (b"!!python/object/apply:os.system ['true']", "is not YAML"),
        (b"\xff\xfe\x00", "UTF-8"),
        (None, "cannot be read"),
    ],
)
def test_what_is_no_file_of_yaml(tmp_path, content, words) -> None:
    path = tmp_path / "serve.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=words) as raised:
        load_config(path)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("names", "fallbacks", "words"),
    [
        (["weak", "storng"], [], "does not know 'storng'.*one of weak, strong"),
        (["storng"], ["storng"], "knows none of them"),
    ],
)
def test_backends_that_the_router_does_not_know(names, fallbacks, words) -> None:
    backends = [{**BACKEND, "name": name} for name in names]
    config = ServingConfig.model_validate({**GOOD, "backends": backends, "fallbacks": fallbacks})
    with pytest.raises(ConfigError, match=words):
        create_app(config, DrawingRouter(models=("weak", "strong")))


MODELS, QUALITY, COST = ("best", "middle", "cheap"), np.array([0.9, 0.8, 0.3]), np.array([10.0, 4.0, 1.0])


@pytest.mark.parametrize(
    ("rule", "chosen"),
    [
        # (1 - w) quality - w cost / 10: at w = .1 middle .72 - .04 against cheap .27 - .01; at w = .9 .08 - .36 = -.28
        # against .03 - .09 = -.06.
        (Rule(cost_weight=0.1), "middle"),
        (Rule(cost_weight=0.9), "cheap"),
        (Rule(cost_weight=0.0), "middle"),
        (Rule(budget=4.0), "middle"),
        (Rule(budget=2.0), "cheap"),
        (Rule(budget=0.1), "cheap"),  # none is affordable: the cheapest
        (Rule(quality=0.2), "cheap"),
        (Rule(quality=0.5), "middle"),
        (Rule(quality=0.85), "middle"),  # none is good enough: the best there is
    ],
)
def test_the_rule_among_a_part_of_the_models(rule, chosen) -> None:
    utility_NM = plug_in(Estimate(QUALITY[None], COST[None]), rule.cost_weight or 0.0, scale=10.0)
    assert choose(Routed("best", MODELS, QUALITY, COST, (), utility_NM[0]), rule, ["cheap", "middle"]) == chosen
