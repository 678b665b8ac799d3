import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from mofme.errors import ModelError
from mofme.files import cache_root
from mofme.language.llm_routing import minilm
from mofme.language.llm_routing.embedding_cache import EmbeddingCache
from mofme.language.llm_routing.minilm import MiniLM
from mofme.language.llm_routing.sentence_encoder import SentenceEncoder

PROMPTS = [
    "What is the capital of France?",
    "Name the capital city of France.",
    "Write a function to reverse a linked list.",
    "hi",
    "数学の問題を解いてください。 " * 5,
    "A train leaves at nine and travels at eighty kilometres an hour. " * 30,  # longer than the window
]


@pytest.fixture(scope="module")
def exact() -> MiniLM:
    return MiniLM(torch.float32)


def by_transformers(prompts: list[str]) -> np.ndarray:
    """What sentence-transformers does: mean of the last layer over the tokens that are no padding, length 1."""
    from transformers import AutoTokenizer, BertModel

    tokenizer = AutoTokenizer.from_pretrained(minilm.model_folder())
    net = BertModel.from_pretrained(minilm.model_folder()).eval()
    tokens = tokenizer(prompts, padding=True, truncation=True, max_length=256, return_tensors="pt")
    with torch.no_grad():
        x_BTD = net(**tokens).last_hidden_state
    seen_BT1 = tokens["attention_mask"][:, :, None]
    mean_BD = (x_BTD * seen_BT1).sum(1) / seen_BT1.sum(1)
    return torch.nn.functional.normalize(mean_BD, dim=1).numpy()


def test_it_is_what_transformers_makes_of_it(exact: MiniLM) -> None:
    expected = by_transformers(PROMPTS[:5])
    np.testing.assert_allclose(exact.embed_tokens([exact.tokens(p) for p in PROMPTS[:5]]), expected, atol=2e-6)


def test_the_fast_way_keeps_the_neighbours(exact: MiniLM) -> None:
    fast = MiniLM(torch.bfloat16)
    tokens = [exact.tokens(prompt) for prompt in PROMPTS]
    a_BD, b_BD = exact.embed_tokens(tokens), fast.embed_tokens(tokens)
    assert float((a_BD * b_BD).sum(1).min()) > 0.9995
    assert (a_BD @ a_BD.T).argsort(1).equal((b_BD @ b_BD.T).argsort(1))


def test_of_long_texts_both_ends_are_seen(exact: MiniLM) -> None:
    middle = " and so on" * 300
    tokens = exact.tokens("First this" + middle + " at last that?")
    words = [exact.tokenizer.id_to_token(token) for token in tokens]
    assert len(tokens) == 256
    assert words[:3] == ["[CLS]", "first", "this"] and words[-4:] == ["last", "that", "?", "[SEP]"]


def test_rows_have_length_one_and_keep_their_order(tmp_path: Path) -> None:
    encoder = SentenceEncoder(tmp_path)
    together = encoder.embed([*PROMPTS, PROMPTS[0]])
    assert together.shape == (7, 384) and together.dtype == np.float64
    np.testing.assert_allclose((together**2).sum(1), 1, atol=1e-5)
    np.testing.assert_array_equal(together[0], together[6])
    alone = SentenceEncoder(remember=False).embed([PROMPTS[2]])[0]
    assert alone @ together[2] > 0.9995
    assert together[0] @ together[1] > 0.8 > 0.3 > together[0] @ together[2]
    assert encoder.embed([]).shape == (0, 384)


def test_worked_examples_are_not_embedded() -> None:
    example = "Which is a metal?\nA) iron\nB) oak\nAnswer:\nA\n\n"
    encoder = SentenceEncoder(remember=False)
    with_examples, bare = encoder.embed([example * 30 + "Is a cat a mammal?\nAnswer:", "Is a cat a mammal?\nAnswer:"])
    np.testing.assert_array_equal(with_examples, bare)


def test_what_was_embedded_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, int]] = []
    first = SentenceEncoder(tmp_path).embed(PROMPTS, lambda done, total: told.append((done, total)))
    assert told[-1] == (6, 6)
    monkeypatch.setattr(minilm, "_PACKAGE", "not_installed")
    np.testing.assert_array_equal(SentenceEncoder(tmp_path).embed(PROMPTS), first)
    with pytest.raises(ModelError, match="pip install"):
        SentenceEncoder(tmp_path).embed(["something new"])


def test_no_text_is_written(tmp_path: Path) -> None:
    SentenceEncoder(tmp_path).embed(["a secret sentence"])
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert written and b"secret" not in written


def test_nothing_is_written_where_nothing_is_to_be_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOFME_CACHE", str(tmp_path))
    assert cache_root() == tmp_path
    SentenceEncoder(remember=False).embed(["hi"])
    assert list(tmp_path.iterdir()) == []


VECTORS = {f"text {i}": np.full(3, i, np.float32) for i in range(10)}


def test_vectors_come_back_bit_by_bit(tmp_path: Path) -> None:
    cache = EmbeddingCache(tmp_path / "new" / "file.sqlite", "one")
    cache.put(VECTORS)
    found = cache.get([*VECTORS, "unknown"])
    assert found.keys() == VECTORS.keys()
    assert all((found[text] == VECTORS[text]).all() for text in VECTORS)
    assert EmbeddingCache(cache.path, "two").get(list(VECTORS)) == {}  # another encoder's vectors are others


@pytest.mark.parametrize("damage", [b"not a database, but long enough to be taken for one" * 50, b"short"])
def test_a_damaged_file_is_begun_anew(tmp_path: Path, damage: bytes) -> None:
    cache = EmbeddingCache(tmp_path / "file.sqlite", "one")
    cache.path.write_bytes(damage)
    assert cache.get(["text 1"]) == {}
    cache.put(VECTORS)
    cache.put(VECTORS)
    assert len(cache.get(list(VECTORS))) == 10


def test_a_file_cut_short_is_begun_anew(tmp_path: Path) -> None:
    cache = EmbeddingCache(tmp_path / "file.sqlite", "one")
    cache.put({f"text {i}": np.full(384, i, np.float32) for i in range(50)})
    cache.path.write_bytes(cache.path.read_bytes()[:30_000])
    for _ in range(3):
        cache.put(VECTORS)
    assert len(cache.get(list(VECTORS))) == 10


def test_the_oldest_go_first(tmp_path: Path) -> None:
    cache = EmbeddingCache(tmp_path / "file.sqlite", "one", limit=4)
    cache.put(VECTORS)
    assert cache.get(list(VECTORS)).keys() == {"text 6", "text 7", "text 8", "text 9"}


def test_a_folder_that_cannot_be_written_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    cache = EmbeddingCache(tmp_path / "file" / "cache.sqlite", "one")
    cache.put(VECTORS)
    assert cache.get(list(VECTORS)) == {}


def test_many_may_write_at_once(tmp_path: Path) -> None:
    def put(index: int) -> None:
        EmbeddingCache(tmp_path / "file.sqlite", "one").put({f"{index} {i}": VECTORS["text 1"] for i in range(20)})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(put, range(16)))
    with sqlite3.connect(tmp_path / "file.sqlite") as database:
        assert database.execute("SELECT count(*) FROM embeddings").fetchone() == (320,)
    database.close()


def test_half_a_surrogate_pair_is_read_as_a_question_mark(exact: MiniLM) -> None:
    # What a command line or a JSON file may hold.
    assert exact.tokens("\ud800 hello") == exact.tokens("? hello")
