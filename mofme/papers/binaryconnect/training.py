"""Algorithm 1 of BinaryConnect, an epoch at a time: what a killed run loses is the epoch it was in."""

import copy
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from mofme.core.binary import binary_layers, clip_weights, glorot_scale, recalibrate
from mofme.core.training import bf16_pays, fill_moments, moments_of, part_of
from mofme.core.weights import ModelCard, check_replaceable, save_packed
from mofme.errors import ModelError, TableError
from mofme.files import atomic_file
from mofme.papers.binaryconnect.net import ARMS, KIND, DigitNet, Digits, Mnist, folded, squared_hinge

STATE = "state.safetensors"

_RECALIBRATION = 10_000
_PART = 1000


@dataclass(frozen=True)
class Plan:
    """What to train. The learning rate falls exponentially from `learning_rate`, a factor `decay` in all.

    Raises ModelError for an unknown arm.
    """

    arm: str
    seed: int = 0
    epochs: int = 100
    batch: int = 200
    learning_rate: float = 3e-3
    decay: float = 1e-3
    width: int = 1024

    def __post_init__(self) -> None:
        if self.arm not in ARMS:
            raise ModelError(f"no arm is called {self.arm!r}: choose of {', '.join(ARMS)}")

    @property
    def name(self) -> str:
        return f"{self.arm}-{self.seed}"


@dataclass
class Run:
    """How far a plan has come; errors are shares of the validation digits."""

    plan: Plan
    epochs: int = 0
    seconds: float = 0.0
    best_epoch: int = 0
    best_error: float = 1.0
    curve: list[dict[str, float]] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        return self.epochs >= self.plan.epochs


@torch.random.fork_rng(devices=[])  # draws of the caller are left as they would be
def train(plan: Plan, mnist: Mnist, folder: Path, report: Callable[[str], None] = print) -> Run:
    """Train what is missing of a plan; everything goes to `folder/<arm>-<seed>`.

    Kept is the net of the epoch with the lowest validation error, each arm tested as the paper does: the stochastic one
    with its real weights. Raises ModelError if the folder holds a run of another plan, TableError for too few digits.
    """
    if plan.batch > len(mnist.training):
        raise TableError(
            f"{len(mnist.training)} digits to train on do not fill a batch of {plan.batch}: make it smaller"
        )
    path = folder / plan.name / STATE
    torch.manual_seed(plan.seed)
    net = DigitNet(plan.arm, plan.width)
    optimizer = _optimizer(net)
    run, best = Run(plan), dict(net.state_dict())
    if path.exists():
        run, best = _resume(path, plan, net, optimizer)
    clipped = [layer.weight for _, layer in binary_layers(net)]
    while not run.complete:
        start = time.process_time()
        rate = plan.learning_rate * plan.decay ** (run.epochs / max(1, plan.epochs - 1))
        for group in optimizer.param_groups:
            group["lr"] = rate * group["scale"]
        # Seeded by the epoch, so that a resumed run sees what an unbroken one would.
        torch.manual_seed(100_003 * (plan.seed + 1) + run.epochs)
        loss = _epoch(net, optimizer, clipped, mnist.training, plan.batch)
        with _half():
            error = error_of(recalibrated(net, mnist.training), mnist.validation)
        run.epochs += 1
        run.seconds += time.process_time() - start
        run.curve.append({"epoch": run.epochs, "loss": round(loss, 6), "validation_error": error})
        if error <= run.best_error:
            run.best_epoch, run.best_error = run.epochs, error
            best = {name: tensor.clone() for name, tensor in net.state_dict().items()}
        _save(path, run, net, optimizer, best)
        report(
            f"{plan.name}  epoch {run.epochs} of {plan.epochs}  loss {loss:.4f}  validation error {100 * error:.2f} %  "
            f"{run.seconds / run.epochs:.1f} CPU s an epoch"
        )
    return run


def load_run(path: Path) -> tuple[Run, DigitNet]:
    """A run and the net of its best epoch. Raises ModelError if the file is missing or damaged."""
    run, tensors = _read(path)
    net = DigitNet(run.plan.arm, run.plan.width)
    _fill(net, part_of(tensors, "best"), path)
    return run, net.eval()


def recalibrated(net: DigitNet, training: Digits) -> DigitNet:
    """A copy for testing, its batch normalisation measured anew under the weights that are used then."""
    copied = copy.deepcopy(net)
    recalibrate(copied, list(training[:_RECALIBRATION].inputs_ND().split(_PART)))
    return copied.eval()


def error_of(net: nn.Module, digits: Digits) -> float:
    """Share of digits that are taken for another."""
    return (predictions(net, digits) != digits.labels_N).float().mean().item()


def predictions(net: nn.Module, digits: Digits) -> Tensor:
    """The class (N,) of each digit, in full precision."""
    return scores_of(net, digits).argmax(1)


@torch.no_grad()
def scores_of(net: nn.Module, digits: Digits) -> Tensor:
    """Of each digit for each class (N, C)."""
    return torch.cat([net(part) for part in digits.inputs_ND().split(_PART)])


def pack_run(path: Path, mnist: Mnist, folder: Path, licence: str) -> ModelCard:
    """Pack the best net that a run had so far, batch normalisation measured anew, with its errors on the card.

    Raises ModelError if there is no run, or if `folder` holds a model of another kind.
    """
    check_replaceable(folder, KIND)
    run, net = load_run(path / STATE)
    net.use_real_weights(False)
    ready = recalibrated(net, mnist.training)
    parts = {"validation": mnist.validation, "test": mnist.test}
    metrics = {f"{name} error, %": round(100 * error_of(ready, digits), 2) for name, digits in parts.items()}
    return save_digit_net(folder, ready, run, licence, metrics)


def save_digit_net(folder: Path, net: DigitNet, run: Run, licence: str, metrics: dict[str, float]) -> ModelCard:
    """Pack a trained net, its batch normalisation as it shall be used; returns its card."""
    plan = run.plan
    training = {
        "data": "MNIST, the first 50,000 of its 60,000 digits to train on",
        "seed": plan.seed,
        "epochs": run.epochs,
        "planned_epochs": plan.epochs,
        "best_epoch": run.best_epoch,
        "batch": plan.batch,
        "learning_rate": plan.learning_rate,
        "decay": plan.decay,
    }
    arguments = {"arm": plan.arm, "width": plan.width}
    card = ModelCard(folder.resolve().name, KIND, arguments, licence, training, metrics)
    return save_packed(folder, card, folded(net))


def _epoch(net: DigitNet, optimizer: torch.optim.Optimizer, clipped: list[Tensor], digits: Digits, batch: int) -> float:
    net.train()
    losses = []
    for chosen in torch.randperm(len(digits)).split(batch):
        if len(chosen) < batch:
            break  # too few to normalise by
        part = digits[chosen]
        with _half():
            scores_NC = net(part.inputs_ND())
        loss = squared_hinge(scores_NC.float(), part.labels_N)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        clip_weights(clipped)
        losses.append(loss.detach())
    return torch.stack(losses).mean().item()


def _half() -> torch.autocast:
    """Products in bfloat16, where -1 and +1 are exact, if that is faster here."""
    return torch.autocast("cpu", torch.bfloat16, enabled=bf16_pays(torch.device("cpu")), cache_enabled=False)


def _optimizer(net: DigitNet) -> torch.optim.Adam:
    """ADAM, the rate of binary weights times their Glorot coefficient (section 2.6)."""
    scales = {id(layer.weight): glorot_scale(layer.weight) for _, layer in binary_layers(net)}
    groups = [{"params": [weight], "scale": scales.get(id(weight), 1.0)} for weight in net.parameters()]
    return torch.optim.Adam(groups, fused=True)


def _save(path: Path, run: Run, net: DigitNet, optimizer: torch.optim.Optimizer, best: Mapping[str, Tensor]) -> None:
    parts = {"net": net.state_dict(), "best": best, "optimizer": moments_of(optimizer)}
    tensors = {f"{part}.{name}": tensor.clone() for part, state in parts.items() for name, tensor in state.items()}
    state = save(tensors, {"run": json.dumps(asdict(run))})
    with atomic_file(path) as file:
        file.write(state)


def _resume(path: Path, plan: Plan, net: DigitNet, optimizer: torch.optim.Optimizer) -> tuple[Run, dict[str, Tensor]]:
    run, tensors = _read(path)
    if run.plan != plan:
        raise ModelError(f"{path} was trained as {run.plan}, not as {plan}: choose another folder, or the same plan")
    _fill(net, part_of(tensors, "net"), path)
    fill_moments(optimizer, part_of(tensors, "optimizer"))
    return run, part_of(tensors, "best")


def _fill(net: DigitNet, state: dict[str, Tensor], path: Path) -> None:
    try:
        net.load_state_dict(state)
    except RuntimeError as error:
        raise ModelError(f"{path} does not hold the net that it tells of: {error}") from error


def _read(path: Path) -> tuple[Run, dict[str, Tensor]]:
    try:
        tensors = load_file(path)
        with safe_open(path, "pt") as file:
            plain: dict[str, Any] = json.loads(file.metadata()["run"])
        return Run(**{**plain, "plan": Plan(**plain["plan"])}), tensors
    except FileNotFoundError:
        raise ModelError(f"{path} is missing: train that arm first") from None
    except (SafetensorError, ValueError, TypeError, KeyError) as error:
        raise ModelError(f"{path} holds no run: {error}") from error
