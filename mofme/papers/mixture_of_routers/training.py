"""Tasks with a fixed set of classes, and the training of a classifier's banks and head on them.

A task is parted so that near-duplicates are never on both sides. Its texts are once run through the blocks below the
lowest bank and kept: no training changes those.

Axis names: N texts, B texts of a batch, T tokens, D features, C classes, E experts.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from mofme.core.losses import squared_coefficient_of_variation, switch_loss
from mofme.core.moe import ObservedRouting, observe_routing
from mofme.core.routing import RoutingDecision
from mofme.core.training import Run, StepReport, linear
from mofme.errors import TableError
from mofme.language.minilm import MiniLM, read_tokens
from mofme.language.sentence_encoder import IntArray, SentenceEncoder, grouped_splits, groups_of, question_of
from mofme.language.tables.columns import column_names, read_columns, read_json_lines, texts
from mofme.language.tables.formats import load_table
from mofme.language.text import OWN_PROMPTS
from mofme.papers.mixture_of_routers.lora import WINDOW, Classifier, Recipe, features

_AT_ONCE = 64
_SMALL_WEIGHTS = 0.1
_BALANCE = 0.01  # Switch Transformer's weight of its loss of balance


@dataclass(frozen=True)
class Examples:
    """Texts and their classes (N,), counted from 0."""

    texts: tuple[str, ...]
    label_N: IntArray


@dataclass(frozen=True)
class Task:
    """Three parts of the same texts: to learn from, to make choices by, and for the final figures alone."""

    name: str
    labels: tuple[str, ...]
    training: Examples
    validation: Examples
    test: Examples


def make_task(
    name: str, texts: Sequence[str], labels: Sequence[str], encoder: SentenceEncoder, limit: int | None = None
) -> Task:
    """Part labelled texts 3 : 1 : 1, within each class, near-duplicates on one side; always the same way.

    At most `limit` texts are drawn. Raises TableError for less than two classes, or blank texts.
    """
    names = tuple(sorted(set(labels)))
    if len(names) < 2:
        raise TableError(f"{name} needs at least two classes, it has {len(names)}")
    if any(not text.strip() for text in texts):
        raise TableError(f"{name} has blank texts")
    chosen = np.sort(np.random.default_rng(0).permutation(len(texts))[:limit])
    texts, labels = [texts[i] for i in chosen], [labels[i] for i in chosen]
    group_N = groups_of(encoder.queries(texts))
    rest, test = next(grouped_splits(group_N, labels, splits=1, test_share=0.2))
    inner = next(grouped_splits(group_N[rest], [labels[i] for i in rest], splits=1, test_share=0.25))
    label_N = np.array([names.index(label) for label in labels], np.int64)

    def part(index: IntArray) -> Examples:
        return Examples(tuple(texts[i] for i in index), label_N[index])

    return Task(name, names, part(rest[inner[0]]), part(rest[inner[1]]), part(test))


def read_task(path: Path, encoder: SentenceEncoder | None = None, limit: int | None = None) -> Task:
    """A CSV file with the columns `text` and `label`; or any table of models' answers: which task is a prompt from?

    Raises TableError naming the file and what is wrong with it.
    """
    encoder = encoder or SentenceEncoder()
    if path.is_file() and set(column_names(path)) >= {"text", "label"}:
        columns = read_columns(path)
        labels = texts(columns["label"])
        if blank := [row for row, label in enumerate(labels, 1) if not label.strip()]:
            raise TableError(f"{path} has {len(blank)} texts without a label, the first in row {blank[0]}")
        return make_task(path.stem, texts(columns["text"]), labels, encoder, limit)
    try:
        table = load_table(path, repair=True)
    except TableError as error:
        if not path.exists():
            raise
        raise TableError(f"{path} has no columns text and label, and as a table of models' answers: {error}") from error
    return make_task(table.name, [question_of(prompt) for prompt in table.prompts], table.tasks, encoder, limit)


def own_task(encoder: SentenceEncoder) -> Task:
    """What ships with this package, for a try without any data: 196 prompts of 7 categories."""
    rows = read_json_lines(OWN_PROMPTS)
    return make_task("kinds of prompts", [row["prompt"] for row in rows], [row["category"] for row in rows], encoder)


@dataclass(frozen=True)
class EncodedTexts:
    """Texts as hidden states, all tokens of one after those of the other; `label_N` counts classes from 0.

    `features_ND` is what a head sees without any bank.
    """

    x_TD: Tensor
    length_N: IntArray
    label_N: IntArray
    features_ND: Tensor

    def __len__(self) -> int:
        return len(self.length_N)

    def batch(self, index_B: IntArray) -> tuple[Tensor, Tensor, Tensor]:
        """Hidden states (B, T, D), padded to the longest; which are tokens (B, T); classes (B,)."""
        stop_N = self.length_N.cumsum()
        parts = [self.x_TD[stop_N[i] - self.length_N[i] : stop_N[i]] for i in index_B]
        x_BTD = nn.utils.rnn.pad_sequence(parts, batch_first=True)
        length_B = torch.from_numpy(self.length_N[index_B])
        return x_BTD, torch.arange(x_BTD.shape[1]) < length_B[:, None], torch.from_numpy(self.label_N[index_B])


@dataclass(frozen=True)
class PreparedTask:
    """A task made ready for classifiers, and the head that all begin with: the best one for the encoder without banks,
    so that what is learned later is what the banks add.
    """

    name: str
    labels: tuple[str, ...]
    training: EncodedTexts
    validation: EncodedTexts
    test: EncodedTexts
    head: nn.Linear

    def right_without_banks(self, texts: EncodedTexts) -> IntArray:
        """1 for each text (N,) that the encoder with this head classifies correctly, else 0."""
        right_N: IntArray = (self.head(texts.features_ND).argmax(-1).numpy() == texts.label_N).astype(np.int64)
        return right_N


def prepare(task: Task, first: int, report: Callable[[int, int], None] = lambda done, total: None) -> PreparedTask:
    """Run a task's texts through the blocks below `first` and fit the head; what `report` raises stops it."""
    encoder = MiniLM.pretrained()
    parts = (task.training, task.validation, task.test)
    total = sum(len(part.texts) for part in parts)
    encoded: list[EncodedTexts] = []
    for part in parts:
        before = sum(map(len, encoded))
        encoded.append(_encode(encoder, part, first, lambda done: report(before + done, total)))  # noqa: B023
    training, validation, test = encoded
    head = fit_head(training.features_ND, training.label_N, len(task.labels))
    return PreparedTask(task.name, task.labels, training, validation, test, head)


def fit_head(features_ND: Tensor, label_N: IntArray, classes: int) -> nn.Linear:
    """Logistic regression: the linear layer of the least cross-entropy, with a small penalty on large weights."""
    labels_N = torch.from_numpy(label_N)
    head = nn.Linear(features_ND.shape[1], classes)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    optimizer = torch.optim.LBFGS(head.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> float:
        optimizer.zero_grad()
        value = F.cross_entropy(head(features_ND), labels_N) + _SMALL_WEIGHTS / 2 * head.weight.square().sum()
        value.backward()
        return float(value.detach())

    optimizer.step(loss)
    return head.requires_grad_(False)


@torch.no_grad()
def _encode(encoder: MiniLM, examples: Examples, first: int, report: Callable[[int], None]) -> EncodedTexts:
    ids = [read_tokens(text, WINDOW)[0] for text in examples.texts]
    length_N = np.array([len(row) for row in ids], np.int64)
    hidden = [torch.empty(0)] * len(ids)
    seen_first = [torch.empty(0)] * len(ids)
    by_length: Sequence[int] = np.argsort(length_N, kind="stable").tolist()  # a batch is as long as its longest
    for start in range(0, len(ids), _AT_ONCE):
        report(start)
        index = by_length[start : start + _AT_ONCE]
        x_BTD, seen_BT = encoder.embed([ids[i] for i in index])
        x_BTD = encoder.run(x_BTD, seen_BT, stop=first)
        features_BD = features(encoder.run(x_BTD, seen_BT, first), seen_BT)
        for i, x_TD, features_D in zip(index, x_BTD, features_BD, strict=True):
            hidden[i], seen_first[i] = x_TD[: length_N[i]].clone(), features_D
    return EncodedTexts(torch.cat(hidden), length_N, examples.label_N, torch.stack(seen_first))


@dataclass(frozen=True)
class Plan:
    """One training run. What is equal but for the recipe meets the same batches and dropout, and begins with the same
    head and experts: only the routers differ.
    """

    task: PreparedTask
    recipe: Recipe
    steps: int = 200
    batch: int = 16
    learning_rate: float = 3e-4
    seed: int = 0


@dataclass(frozen=True)
class Measured:
    """`right_N`: which texts were classified correctly. `load`: the coefficient of variation of the number of tokens
    that choose each expert, mean over the banks; 0 means that all are used equally.
    """

    right_N: NDArray[np.bool_]
    load: float


def train(plan: Plan, report: Callable[[StepReport], None] = lambda _: None) -> Classifier:
    """Train banks, and the head that the task begins with; the last step's are taken. What `report` raises stops it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.seed)
        classifier = Classifier(MiniLM.pretrained(), plan.recipe, len(plan.task.labels)).train()
        classifier.head.load_state_dict(plan.task.head.state_dict())
        learning = [parameter for parameter in classifier.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(learning, lr=plan.learning_rate)
        run = Run(classifier, optimizer, steps=plan.steps, schedule=linear)
        batches = _batches(len(plan.task.training), plan)
        for _ in run:
            x_BTD, seen_BT, label_B = plan.task.training.batch(next(batches))
            with observe_routing(classifier) as observed:
                scores_BC = classifier(x_BTD, seen_BT)
            loss = F.cross_entropy(scores_BC, label_B)
            balance = torch.stack([switch_loss(_of_tokens(one, seen_BT)) for one in observed]).mean()
            run.learn(loss + _BALANCE * balance)
            report(StepReport(run.steps, plan.steps, float(loss.detach())))
    return classifier.eval()


@torch.no_grad()
def measure(classifier: Classifier, texts: EncodedTexts) -> Measured:
    """How well a classifier does on one part of a task, and how evenly it uses its experts there."""
    right_N = np.zeros(len(texts), bool)
    loads: dict[str, Tensor] = {}
    by_length = np.argsort(texts.length_N, kind="stable")
    for start in range(0, len(texts), _AT_ONCE):
        index_B = by_length[start : start + _AT_ONCE]
        x_BTD, seen_BT, label_B = texts.batch(index_B)
        with observe_routing(classifier) as observed:
            right_N[index_B] = (classifier(x_BTD, seen_BT).argmax(-1) == label_B).numpy()
        for one in observed:
            chosen_E = _of_tokens(one, seen_BT).chosen_TE.double().sum(0)
            loads[one.layer] = loads.get(one.layer, torch.zeros_like(chosen_E)) + chosen_E
    cv = [float(squared_coefficient_of_variation(load_E).sqrt()) for load_E in loads.values()]
    return Measured(right_N, float(np.mean(cv)))


def trained_parameters(classifier: Classifier) -> int:
    """Of all banks and the head."""
    return sum(parameter.numel() for parameter in classifier.parameters() if parameter.requires_grad)


def _batches(count: int, plan: Plan) -> Iterator[IntArray]:
    """All texts in an order drawn anew for every pass, `batch` at a time, without end."""
    generator = np.random.default_rng(plan.seed)
    order = np.empty(0, np.int64)
    while True:
        while len(order) < plan.batch:
            order = np.concatenate([order, generator.permutation(count)])
        yield order[: plan.batch]
        order = order[plan.batch :]


def _of_tokens(one: ObservedRouting, seen_BT: Tensor) -> RoutingDecision:
    """Without what was decided for padding."""
    seen_T = seen_BT.flatten()
    return RoutingDecision(one.decision.weights_TE[seen_T], one.decision.logits_TE[seen_T])
