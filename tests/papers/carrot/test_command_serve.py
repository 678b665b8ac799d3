import openai
import pytest
import uvicorn
from typer.testing import CliRunner

from mofme.cli.app import app

CONFIG = """
backends:
  - {name: weak, base_url: "http://127.0.0.1:1/v1", model: m, price_in: 1, price_out: 2}
rule: {cost_weight: 0.3}
"""


class Trained:
    models = ("weak", "strong")

    @classmethod
    def from_pretrained(cls, name: str) -> "Trained":
        return cls()

    def route(self, prompt: str, **dial: float) -> None:
        assert dial == {"cost_weight": 0.3}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """The command with this text as its file; what uvicorn was told, if it was."""
    monkeypatch.setattr("mofme.papers.carrot.trained_router.TrainedRouter", Trained)
    told: dict[str, object] = {}
    monkeypatch.setattr(uvicorn, "run", lambda app, **settings: told.update(settings))

    def run(text: str, *words: str):
        (tmp_path / "serve.yaml").write_text(text)
        return CliRunner().invoke(app, ["route", "serve", str(tmp_path / "serve.yaml"), *words]), told

    return run


def test_check_says_that_all_is_well_and_starts_nothing(run) -> None:
    result, told = run(CONFIG, "--check")
    assert result.exit_code == 0
    assert "is fine: weak" in result.stderr
    assert not told


def test_it_listens_where_it_is_told(run) -> None:
    _, told = run(CONFIG)
    assert (told["host"], told["port"]) == ("127.0.0.1", 8100)
    assert told["timeout_keep_alive"] > openai.DEFAULT_CONNECTION_LIMITS.keepalive_expiry  # else they close as it asks
    _, told = run(CONFIG, "--host", "::1", "--port", "9000")
    assert (told["host"], told["port"]) == ("::1", 9000)


@pytest.mark.parametrize(
    ("text", "words", "complaint"),
    [
        (CONFIG.replace("price_in: 1", "price_in: -1"), [], "backends[0].price_in"),
        (CONFIG.replace("name: weak", "name: waek"), [], "the router does not know 'waek'"),
        (CONFIG, ["--host", "0.0.0.0"], "set token_env"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_starts(run, text, words, complaint) -> None:
    result, told = run(text, *words)
    assert result.exit_code == 2
    assert complaint in result.stderr
    assert not told
