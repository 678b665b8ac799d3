"""The tokens a small language model reads and writes: byte-level BPE, so that every text can be told."""

from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from mofme.errors import ModelError
from mofme.files import atomic_file

VOCABULARY_FILE = "vocabulary.json"


class Vocabulary:
    """Tokens of one to several bytes, learned from a text."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def __len__(self) -> int:
        return int(self._tokenizer.get_vocab_size())

    @classmethod
    def learn(cls, texts: Sequence[str], size: int = 1024) -> "Vocabulary":
        """The 256 bytes, and what they are most often merged to in `texts` until there are `size` tokens.

        Raises ValueError for a size below 256.
        """
        if size < 256:
            raise ValueError(f"a vocabulary holds at least the 256 bytes, not {size} tokens")
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
        tokenizer.train_from_iterator(texts, trainer)
        return cls(tokenizer)

    def encode(self, text: str) -> list[int]:
        """Token ids of a text."""
        ids: list[int] = self._tokenizer.encode(text).ids
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids; bytes that make no character become the sign for it."""
        text: str = self._tokenizer.decode(list(ids))
        return text

    def save(self, folder: Path) -> None:
        with atomic_file(folder / VOCABULARY_FILE, "w") as file:
            file.write(self._tokenizer.to_str())

    @classmethod
    def load(cls, folder: Path) -> "Vocabulary":
        """Raises ModelError naming the file."""
        path = folder / VOCABULARY_FILE
        try:
            return cls(Tokenizer.from_str(path.read_text(encoding="utf-8")))
        except Exception as error:  # tokenizers raises nothing narrower
            raise ModelError(f"{path} is not a vocabulary: {error}") from error
