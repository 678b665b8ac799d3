"""What must not change from one version to the next, recorded: `python tests/golden.py --record` after new weights.

Floating point differs in its last bits between processors. So tensors are compared within a tolerance that tells such
bits from a change of ours, and bit for bit where the processor and torch are those that recorded them.
"""

import argparse
import hashlib
import inspect
import io
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

import numpy as np
import torch
import typer.main
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

import mofme
from mofme import Experts, LoraMixture, Restorer, Router, TrainedRouter, available_models, restore_video, synthesize
from mofme.cli.app import app
from mofme.core.experts import (
    FeatureModulatedExperts,
    FeedForwardExperts,
    GeneratedModulationExperts,
    LinearExperts,
    LowRankExperts,
)
from mofme.core.gated_experts import GatedFeedForwardExperts
from mofme.core.routers import AttentionRouter, LinearRouter, MixtureOfRouters, MLPRouter
from mofme.core.uncertainty import UncertaintyRouter
from mofme.core.weights import load_card, load_state
from mofme.files import CARD_FILE, WEIGHTS
from mofme.language.small_lm import load_lm
from mofme.papers.binaryconnect.net import load_digit_net
from mofme.papers.smose.policy import load_policy
from mofme.vision.models import build_net
from mofme.vision.segmenter import load_segmenter
from mofme.vision.video_file import read_video
from mofme.vision.weather import WEATHERS, random_weathers
from mofme.vision.weather.camera import add_distractors
from tests.films import film

VALUES = Path(__file__).with_suffix(".json")
SAMPLES = Path(__file__).with_suffix(".npz")
MODELS = [card.name for card in available_models()]
# The weather that is restored, the picture's size, and how: each way through the restorer once.
WAYS: dict[str, tuple[str, tuple[int, int], dict[str, Any]]] = {
    "plain": ("rain", (97, 131), {}),
    "tone": ("haze", (120, 101), {}),
    "tiles": ("snow", (151, 163), {"tile": 40}),  # the first tile looks at 136 x 136 of it
    "mirrored": ("raindrop", (96, 121), {"ensemble": True}),
}
# `route prompt` takes any text; the others load transformers, which takes seconds, before they look.
NO_FILES = {"route prompt", "moefy", "distil", "evaluate ablation", "evaluate attention-router"}
NO_FILES |= {"evaluate dense-to-moe", "evaluate distillation", "evaluate rerouting text"}


@contextmanager
def full_precision() -> Iterator[None]:
    """One thread, and no bfloat16 where a processor has it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with patch("torch.cpu.get_capabilities", dict):
            yield
    finally:
        torch.set_num_threads(threads)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def clean(height: int, width: int, batch: int = 1) -> Tensor:
    """Soft colours behind a chequered pattern, (batch, 3, height, width)."""
    colours = F.interpolate(torch.rand(batch, 3, 6, 6, generator=seeded(1)), (height, width), mode="bilinear")
    rows, columns = torch.arange(height)[:, None] // 11, torch.arange(width) // 17
    return 0.7 * colours + 0.2 * ((rows + columns) % 2)


def weathered(way: str) -> Tensor:
    weather, size, _ = WAYS[way]
    return synthesize(clean(*size), [weather], seeded(2)).image[0]


def eight_bits(image: Tensor) -> NDArray[np.uint8]:
    """As files hold it, of the same shape."""
    return image.mul(255).round().byte().numpy()


def restored(model: str) -> dict[str, Tensor]:
    """One picture (3, H, W) for each of WAYS."""
    restorer = Restorer.from_pretrained(model, "cpu")
    return {way: restorer(weathered(way), **options).image for way, (_, _, options) in WAYS.items()}


def film_restored(folder: Path) -> Tensor:
    """Ten frames (10, 3, 48, 64), as they are decoded from the video that was written."""
    source = film(folder / "film.mp4", frames=10)
    for _ in restore_video(Restorer.from_pretrained("small", "cpu"), source, folder / "restored.mp4"):
        pass
    with read_video(folder / "restored.mp4") as video:
        return torch.stack([frame.image for frame in video])


def machine() -> str:
    """Tells processors apart that may round differently."""
    cpu = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
    lines = {line for line in cpu.splitlines() if line.startswith(("model", "flags", "stepping"))}
    return checksum(repr((sorted(lines), torch.backends.cpu.get_cpu_capability(), torch.__version__)).encode())


def checksum(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def pictures() -> dict[str, Tensor]:
    """All that the weights decide of: the restored pictures of every model, and a video."""
    with tempfile.TemporaryDirectory() as folder:
        found = {f"{model} {way}": image for model in MODELS for way, image in restored(model).items()}
        return found | {"video": film_restored(Path(folder))}


def sampled(image: Tensor) -> NDArray[np.uint8]:
    """Every fifth sample, in 8 bits."""
    return eight_bits(image).reshape(-1)[::5]


def bits(image: Tensor) -> str:
    return checksum(image.contiguous().numpy().tobytes())


def weights() -> dict[str, str]:
    """Of every folder with a card: its kind, and a checksum of names, shapes and kinds of its tensors."""
    found = {}
    for path in sorted(WEIGHTS.rglob(CARD_FILE)):
        card = load_card(path.parent)
        tensors = load_state(path.parent, card)
        described = sorted((name, list(tensor.shape), str(tensor.dtype)) for name, tensor in tensors.items())
        found[str(path.parent.relative_to(WEIGHTS))] = f"{card.net} {checksum(repr(described).encode())}"
    return found


def samples(values: Any) -> list[float]:
    """At most 16 numbers of a tensor or array, evenly spaced, and the mean of all."""
    flat = torch.as_tensor(values).detach().double().flatten()
    return [round(value, 7) for value in [*flat[:: max(1, len(flat) // 16)][:16].tolist(), flat.mean().item()]]


def weather() -> dict[str, dict[str, Any]]:
    """What every weather makes of a picture, and the generator's next number, which is exact anywhere."""

    def drawn(make: Callable[[torch.Generator], Tensor]) -> dict[str, Any]:
        generator = seeded(3)
        found = samples(make(generator))
        return {"samples": found, "next": torch.randint(2**31, (1,), generator=generator).item()}

    batch = clean(48, 64, batch=2)
    kinds: dict[str, Any] = {name: [name, name] for name in WEATHERS} | {"all": [frozenset(WEATHERS), frozenset()]}
    found = {kind: drawn(lambda g, names=names: synthesize(batch, names, g).image) for kind, names in kinds.items()}
    found["distractors"] = drawn(lambda g: add_distractors(batch, g))
    found["mixture"] = {"drawn": [sorted(names) for names in random_weathers(24, seeded(3))]}
    return found


def untrained() -> dict[str, dict[str, Any]]:
    """Of routers, experts and nets from a seed: their weights, by name and as drawn, and what they make of an input."""
    x_TD = torch.randn(7, 6, generator=seeded(4))
    routers: dict[str, Callable[[], Router]] = {
        "LinearRouter": lambda: LinearRouter(6, 5, top_k=2),
        "MLPRouter": lambda: MLPRouter(6, 5, top_k=2),
        "AttentionRouter": lambda: AttentionRouter(6, 5, top_k=2),
        "MixtureOfRouters": lambda: MixtureOfRouters(6, 5, top_k=2, num_routers=3),
        "UncertaintyRouter": lambda: UncertaintyRouter(6, 5, top_k=3),
    }
    experts: dict[str, Callable[[], Experts]] = {
        "FeedForwardExperts": lambda: FeedForwardExperts(6, 8, 5),
        "FeatureModulatedExperts": lambda: FeatureModulatedExperts(6, 8, 5),
        "GeneratedModulationExperts": lambda: GeneratedModulationExperts(6, 8, 5),
        "GatedFeedForwardExperts": lambda: GatedFeedForwardExperts(6, 8, 5, shared=3),
        "LowRankExperts": lambda: LowRankExperts(6, 4, 5, rank=2),
        "LinearExperts": lambda: LinearExperts(6, 4, 5),
    }
    found = {}
    for name, build in {**routers, **experts}.items():
        torch.manual_seed(0)
        module = build().eval()
        state = module.state_dict()
        weights_TE = torch.rand(7, 5, generator=seeded(5))
        output = module(x_TD).weights_TE if isinstance(module, Router) else module(x_TD, weights_TE)
        drawn = torch.cat([state[key].double().flatten() for key in sorted(state)])
        found[name] = {"keys": sorted(state), "drawn": samples(drawn), "output": samples(output)}
    torch.manual_seed(0)
    net = build_net("small").state_dict()
    found["small"] = {"drawn": samples(torch.cat([net[key].double().flatten() for key in sorted(net)]))}
    return found


def answers() -> dict[str, list[float]]:
    """What the shipped models other than restorers say."""
    prompt = "Prove that there are infinitely many primes."
    routed = TrainedRouter.from_pretrained().route(prompt, cost_weight=0.5)
    found = {
        "quality": samples(routed.quality_M),
        "dollars": samples(1000 * torch.as_tensor(routed.cost_M)),
        "utility": samples(routed.utility_M),
        "labels": samples(LoraMixture.from_pretrained().classify(prompt)),
        "segmenter": samples(load_segmenter().scores(clean(64, 96))),
    }
    for path in sorted(WEIGHTS.rglob(CARD_FILE)):
        folder, name = path.parent, str(path.parent.relative_to(WEIGHTS))
        match load_card(folder).net:
            case "small-lm":
                found[name] = samples(load_lm(folder)[0](torch.arange(24)[None]))
            case "digits":
                found[name] = samples(load_digit_net(folder)[0](torch.rand(2, 784, generator=seeded(6))))
            case "sparse-linear-policy":
                policy, _ = load_policy(folder)
                seen = policy.moe.router.score.in_features - 1
                found[name] = samples(policy(torch.randn(3, seen, generator=seeded(7))))
    return found


@cache
def command_line() -> Any:
    """The commands as typer builds them, which takes longer than most of what is asked of them here."""
    return typer.main.get_command(app)


def commands() -> dict[str, Any]:
    """Every command by the words that call it."""

    def walk(command: Any, words: tuple[str, ...] = ()) -> dict[str, Any]:
        children = getattr(command, "commands", {})
        below = {k: v for child in children for k, v in walk(children[child], (*words, child)).items()}
        return below if children and not command.invoke_without_command else {" ".join(words): command, **below}

    return walk(command_line())


def parameters_of_commands() -> dict[str, str]:
    """Of every command: its arguments and options, in the order in which help shows them."""
    return {
        name: " ".join(p.opts[-1] if p.param_type_name == "option" else p.name.upper() for p in command.params)
        for name, command in commands().items()
    }


def exit_code(*words: str) -> tuple[int, str]:
    """Of a command, and all that it said."""
    said = io.StringIO()
    # Wide enough that no option is broken off.
    with patch.dict(os.environ, COLUMNS="300", NO_COLOR="1"), redirect_stdout(said), redirect_stderr(said):
        try:
            command_line().main(words, prog_name="mofme")
        except SystemExit as ended:
            return int(ended.code or 0), said.getvalue()
    return 0, said.getvalue()


def missing_input(name: str, command: Any) -> list[str]:
    """The command's words with a place where nothing lies for all that it demands; none if it demands nothing."""
    words: list[str] = []
    for parameter in command.params:
        if parameter.required:
            option = [] if parameter.param_type_name == "argument" else [parameter.opts[-1]]
            words += [*option, f"no/such/{parameter.name}"]
    return [*name.split(), *words] if words and name not in NO_FILES else []


def exit_codes() -> dict[str, int]:
    """Of every command that demands a file, where there is none."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            asked = {name: missing_input(name, command) for name, command in commands().items()}
            return {name: exit_code(*words)[0] for name, words in asked.items() if words}
        finally:
            os.chdir(before)


def api() -> dict[str, Any]:
    """Of every endpoint: its parameters, each with its component and default, and the components that it returns."""
    from mofme.ui.models import Engine, Services
    from mofme.ui.window import build

    window = build(Services(Engine(["small"], Restorer.from_pretrained)))
    endpoints = window.get_api_info()["named_endpoints"]
    return {
        name: {
            "parameters": [
                f"{one['parameter_name']}: {one['component']} = {one['parameter_default']!r}"
                for one in schema["parameters"]
            ],
            "returns": [f"{one['label']}: {one['component']}" for one in schema["returns"]],
        }
        for name, schema in endpoints.items()
    }


def signatures() -> dict[str, str]:
    """Of every name that users import: the parameters of the function, or of the class and its public methods."""

    def parameters(found: Any) -> str:
        return " ".join(inspect.signature(found).parameters)

    described = {}
    for name in mofme.__all__:
        found = getattr(mofme, name)
        if inspect.isclass(found) and issubclass(found, Exception):
            continue
        described[name] = parameters(found)
        members = vars(found) if inspect.isclass(found) and not issubclass(found, torch.nn.Module) else {}
        for member in members:
            if (not member.startswith("_") or member == "__call__") and callable(getattr(found, member)):
                described[f"{name}.{member}"] = parameters(getattr(found, member))
    return described


ENTRIES: dict[str, Callable[[], Any]] = {
    "weights": weights,
    "weather": weather,
    "untrained": untrained,
    "answers": answers,
    "commands": parameters_of_commands,
    "exit codes": exit_codes,
    "api": api,
    "signatures": signatures,
}


def recorded() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(VALUES.read_text(encoding="utf-8"))
    return found


def record(names: list[str]) -> None:
    values = recorded() if VALUES.is_file() else {}
    if "pictures" in names:
        images = pictures()
        np.savez_compressed(SAMPLES, **{name: sampled(image) for name, image in images.items()})
        values["pictures"] = {"machine": machine(), "bits": {name: bits(image) for name, image in images.items()}}
    values |= {name: ENTRIES[name]() for name in names if name in ENTRIES}
    VALUES.write_text(json.dumps(values, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--record",
        nargs="*",
        choices=["pictures", *ENTRIES],
        metavar="ENTRY",
        required=True,
        help="without a name what depends on the restorers' weights: pictures, weights",
    )
    with full_precision():
        record(parser.parse_args().record or ["pictures", "weights"])
