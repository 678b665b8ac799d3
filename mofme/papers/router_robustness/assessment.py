"""What probing routers shows: where their calls go by category, and what harmless rewording turns; and what routing
wastes, by recorded answers to held-back prompts: strong calls that the weak model had answered.

A rewording is what a person might have typed instead, meaning the same. Code, quoted text, digits, and words with
digits or symbols in them are never touched: only plain words of prose are.
"""

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mofme.language.tables.table import BoolArray, FloatArray
from mofme.measure.result import Figure
from mofme.measure.statistics import bootstrap_percent, percentiles
from mofme.papers.carrot.comparison import auc
from mofme.papers.router_robustness.probes import CATEGORIES, DIFFICULTIES, Probe
from mofme.papers.router_robustness.routers import Calibrated, Embed, Figures, Recorded, Split, TwoModelRouter

DRAWS = 500
# Code in fences, in backticks or by the look of its line; quoted text, which may be what the prompt is about.
_KEPT = re.compile(
    r"```.*?```|`[^`\n]*`|^(?: {4}|\t|def |class |import |from |@|>>>)[^\n]*$|[\"“][^\"“”\n]*[\"”]",
    re.DOTALL | re.MULTILINE,
)
_EDGES = r"(?<![\w'@./:#$\\-]){}(?![\w'@/:#$\\(=-]|\.\w)"  # not a part of an address, a name in code or a formula
_LONG_WORD = re.compile(_EDGES.format("[A-Za-z]{5,}"))
_CAPITALIZED = re.compile(_EDGES.format("[A-Z][a-z]{2,}"))

Change = Callable[[str, random.Random], str]


def reword(prompts: Sequence[str], name: str, seed: int = 0) -> list[str]:
    """Each prompt under one of REWORDINGS; the same seed and prompt give the same text, whatever stands beside it."""
    change = REWORDINGS[name]
    return [change(prompt, random.Random(f"{seed} {name} {prompt}")) for prompt in prompts]


def _in_prose(prompt: str, change: Callable[[str], str]) -> str:
    """Change the prose, and leave code and quoted text as they are."""
    parts, end = [], 0
    for kept in _KEPT.finditer(prompt):
        parts += [change(prompt[end : kept.start()]), kept.group()]
        end = kept.end()
    return "".join([*parts, change(prompt[end:])])


def _typos(prompt: str, rng: random.Random) -> str:
    """Two neighbouring letters inside a word are swapped, in one long word of eight."""

    def swap(match: re.Match[str]) -> str:
        word = match.group()
        if rng.random() > 1 / 8:
            return word
        at = rng.randrange(1, len(word) - 2)
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]

    return _in_prose(prompt, lambda prose: _LONG_WORD.sub(swap, prose))


def _lower_case(prompt: str, _: random.Random) -> str:
    """As typed in a hurry: no capitalized words. Single letters and abbreviations keep their meaning and their case."""
    return _in_prose(prompt, lambda prose: _CAPITALIZED.sub(lambda word: word.group().lower(), prose))


def _polite(prompt: str, rng: random.Random) -> str:
    before = rng.choice(["Hello! ", "Hi, could you please help me with this? ", "Please: ", "Good morning. "])
    after = rng.choice(["Thank you!", "Thanks a lot in advance.", "Thank you very much for your help."])
    return f"{before}{prompt}\n{after}"


def _paraphrase(prompt: str, rng: random.Random) -> str:
    """The request is framed in other words, and stands in full inside the frame."""
    frame = rng.choice(
        [
            "I would like an answer to the following.\n{}",
            "Here is what I need from you:\n{}",
            "{}\nThat is my request; answer it.",
            "Consider the request below and respond to it.\n{}",
        ]
    )
    return frame.format(prompt)


def _padding(prompt: str, rng: random.Random) -> str:
    """Words that carry nothing stand before and after."""
    fillers = [
        "So, well, where do I begin.",
        "I have been meaning to ask about this for some time now.",
        "It is raining here and I am sitting at my desk with a cup of tea.",
        "Anyway, that is not the point.",
        "Take the time that you need.",
    ]
    rng.shuffle(fillers)
    return f"{' '.join(fillers[:2])}\n{prompt}\n{fillers[2]}"


REWORDINGS: dict[str, Change] = {
    "typos": _typos,
    "lower case": _lower_case,
    "politeness": _polite,
    "paraphrase": _paraphrase,
    "padding": _padding,
}


@dataclass(frozen=True)
class Assessment:
    """R routers probed with N prompts.

    `strong_RN`: the share of a router's runs that sent the prompt to the strong model, in [0, 1].
    `flips_RWN`: the share of its runs in which the reworded prompt went elsewhere, in [0, 1].
    """

    routers: tuple[str, ...]
    probes: tuple[Probe, ...]
    rewordings: tuple[str, ...]
    strong_RN: FloatArray
    flips_RWN: FloatArray

    @property
    def categories(self) -> tuple[str, ...]:
        """Those that were probed, in the usual order."""
        present = {probe.category for probe in self.probes}
        return tuple(name for name in CATEGORIES if name in present)

    def share(
        self, router: str, category: str | None = None, difficulty: str | None = None, source: str | None = None
    ) -> Figure:
        """Calls sent to the strong model, in percent. Raises ValueError where nothing was probed."""
        chosen_N = self._chosen(category, difficulty, source)
        return bootstrap_percent(self.strong_RN[self.routers.index(router), chosen_N])

    def flips(self, router: str, rewording: str | None = None, category: str | None = None) -> Figure:
        """Decisions that a rewording turns, in percent; the mean of all rewordings unless one is named."""
        flips_WN = self.flips_RWN[self.routers.index(router)]
        rows = [self.rewordings.index(rewording)] if rewording else list(range(len(self.rewordings)))
        return bootstrap_percent(flips_WN[rows].mean(0)[self._chosen(category)])

    def cost(self, router: str, category: str, weak_over_strong: float) -> Figure:
        """What the calls cost, in percent of always asking the strong model, if cost goes by the length of prompts.

        `weak_over_strong` is what the weak model costs for each dollar of the strong one.
        """
        chosen = self._chosen(category)
        strong_n = self.strong_RN[self.routers.index(router), chosen]
        length_n = np.array([len(probe.prompt) for probe in self.probes], np.float64)[chosen]
        return bootstrap_percent(length_n * (strong_n + (1 - strong_n) * weak_over_strong), length_n)

    def explained(self, router: str) -> tuple[Figure, Figure, Figure]:
        """What category explains of the variance of a router's decisions, difficulty beyond it, and the first less the
        second, in percent.

        Intervals by drawing prompts inside each category and difficulty. 0 where a router always decides the same.
        """
        strong_N = self.strong_RN[self.routers.index(router)]
        chosen = [self._chosen(category, difficulty) for category in self.categories for difficulty in DIFFICULTIES]
        cells = [strong_N[cell_N] for cell_N in chosen if cell_N.any()]
        owner_C = [self.probes[int(cell_N.argmax())].category for cell_N in chosen if cell_N.any()]
        rng = np.random.default_rng(0)
        drawn = [[rng.choice(cell, len(cell)) for cell in cells] for _ in range(DRAWS)]
        parts_B2 = np.array([_variances(cells, owner_C), *(_variances(draw, owner_C) for draw in drawn)])
        category, difficulty = (_explained(part_B) for part_B in parts_B2.T)
        over_B = parts_B2[:, 0] - parts_B2[:, 1]
        return category, difficulty, _explained(over_B)

    def _chosen(self, *wanted: str | None) -> BoolArray:
        """The probes (N,) of a category, a difficulty and a source, as far as these are given."""
        kinds = [(probe.category, probe.difficulty, probe.source) for probe in self.probes]
        return np.array([all(want in (None, kind) for want, kind in zip(wanted, of, strict=False)) for of in kinds])


def _explained(part_B: FloatArray) -> Figure:
    """The first, with the interval of the others. Drawn cells differ more than the cells do: all may lie above it."""
    low, high = percentiles(part_B[1:])
    return Figure(float(part_B[0]), min(low, float(part_B[0])), high)


def _variances(cells: Sequence[FloatArray], owner_C: Sequence[str]) -> tuple[float, float]:
    """Shares of the variance over all cells, in percent: between owners, and between the cells of one owner."""
    all_N = np.concatenate(cells)
    total = float(all_N.var())
    if total == 0:
        return 0.0, 0.0
    size_C, mean_C = np.array([len(cell) for cell in cells]), np.array([cell.mean() for cell in cells])
    owners = np.unique(owner_C, return_inverse=True)[1]
    owner_mean_C = (np.bincount(owners, size_C * mean_C) / np.bincount(owners, size_C))[owners]
    between = float((size_C * (owner_mean_C - all_N.mean()) ** 2).sum()) / len(all_N)
    inside = float((size_C * (mean_C - owner_mean_C) ** 2).sum()) / len(all_N)
    return 100 * between / total, 100 * inside / total


def assess(
    routers: Sequence[TwoModelRouter],
    probes: Sequence[Probe],
    embed: Embed,
    rewordings: Sequence[str] = tuple(REWORDINGS),
    seed: int = 0,
) -> Assessment:
    """Probe routers that are ready to decide; several of one name are runs of one router, and are averaged."""
    names = tuple(dict.fromkeys(router.name for router in routers))
    plain = embed([probe.prompt for probe in probes])
    changed = [embed(reword([probe.prompt for probe in probes], name, seed)) for name in rewordings]
    strong, flips = [], []
    for name in names:
        runs = [router for router in routers if router.name == name]
        before = [run.to_strong(plain) for run in runs]
        strong.append(np.mean(before, axis=0))
        flips.append(
            [
                np.mean([was != run.to_strong(queries) for run, was in zip(runs, before, strict=True)], axis=0)
                for queries in changed
            ]
        )
    shape = (len(names), len(rewordings), len(probes))
    return Assessment(names, tuple(probes), tuple(rewordings), np.array(strong), np.array(flips).reshape(shape))


GOOD = 0.5  # quality from here on is an answer that will do
_AUC_DRAWS = 300
ALL = "all"
# MMLU's subjects say how far a learner must be.
GROUPS: dict[str, Callable[[str], bool]] = {
    "mathematics": lambda task: "mathematics" in task or task in ("abstract_algebra", "high_school_statistics"),
    "computing": lambda task: "computer" in task or task == "machine_learning",
    "school": lambda task: task.startswith(("elementary_", "high_school_")),
    "college and profession": lambda task: task.startswith(("college_", "professional_")),
}


def waste(runs: Sequence[TwoModelRouter], splits: Sequence[Split], only: Sequence[str] = ()) -> Figures:
    """One router, a run for each split, on the splits' test prompts, or on those of the tasks named `only`.

    Of the calls to the strong model those are wasted that the weak model answers well; of the others those are missed
    that it fails and the strong one answers. AUC: P(a prompt that needs the strong model scores higher than one that
    does not), all together, and among prompts of one task, which is what knowing difficulty means. What there is
    nothing to measure on is left out. Raises ValueError if no test prompt is of these tasks.
    """
    # A task of few prompts is not in every split's test.
    asked = [(run, test) for run, part in zip(runs, splits, strict=True) if (test := _of_tasks(part.test, only))]
    if not asked:
        raise ValueError("no test prompt is of these tasks")
    runs, tests = [run for run, _ in asked], [test for _, test in asked]
    strong_N: BoolArray = np.concatenate([run.to_strong(test.queries) for run, test in zip(runs, tests, strict=True)])
    quality_N2 = np.concatenate([test.table.quality_NM for test in tests])
    cost_N2 = np.concatenate([test.table.cost_NM for test in tests])
    prompts = [prompt for test in tests for prompt in test.table.prompts]
    good_N2 = quality_N2 >= GOOD
    needed_N = good_N2[:, 0] & ~good_N2[:, 1]
    rows_N = np.array(prompts, object)

    def among(values_N: BoolArray, chosen_N: BoolArray) -> Figure | None:
        return bootstrap_percent(values_N[chosen_N], groups=rows_N[chosen_N].tolist()) if chosen_N.any() else None

    def chosen_of(values_N2: FloatArray) -> FloatArray:
        return np.where(strong_N, values_N2[:, 0], values_N2[:, 1])

    figures = {
        "to the strong model, %": bootstrap_percent(strong_N, groups=prompts),
        "of these wasted, %": among(good_N2[:, 1], strong_N),
        "of the others missed, %": among(needed_N, ~strong_N),
        "cost, % of always strong": bootstrap_percent(chosen_of(cost_N2), cost_N2[:, 0].clip(1e-12), prompts),
        "quality, %": bootstrap_percent(chosen_of(quality_N2), groups=prompts),
        "AUC": _auc(runs, tests, within=False),
        "AUC inside a task": _auc(runs, tests, within=True),
    }
    return {name: figure for name, figure in figures.items() if figure is not None}


def waste_by_group(runs: Sequence[TwoModelRouter], splits: Sequence[Split]) -> dict[str, Figures]:
    """On all test prompts, then on those groups of tasks that the table has."""
    present = {task for part in splits for task in part.test.table.tasks}
    groups = {group: sorted(filter(belongs, present)) for group, belongs in GROUPS.items()}
    return {ALL: waste(runs, splits)} | {group: waste(runs, splits, only) for group, only in groups.items() if only}


def _of_tasks(test: Recorded, only: Sequence[str]) -> Recorded | None:
    """None where there are none."""
    rows = [row for row, task in enumerate(test.table.tasks) if not only or task in only]
    return test.rows(rows) if rows else None


def _auc(runs: Sequence[TwoModelRouter], tests: Sequence[Recorded], within: bool) -> Figure | None:
    """Mean of the runs, with a 95 % bootstrap interval over the prompts of each."""
    auc_TB = []
    for run, test in zip(runs, tests, strict=True):
        if not isinstance(run, Calibrated):
            return None
        tasks = test.table.tasks if within else [""] * len(test)
        drawn_BN = np.random.default_rng(0).multinomial(len(test), np.full(len(test), 1 / len(test)), _AUC_DRAWS)
        weight_BN = np.concatenate([np.ones((1, len(test))), drawn_BN])
        auc_TB.append(auc_inside(run.score(test.queries), test.strong_wins_N, tasks, weight_BN))
    mean_B = np.mean(auc_TB, axis=0)
    if not np.isfinite(mean_B[0]):
        return None
    return Figure(float(mean_B[0]), *percentiles(mean_B[1:]))


def auc_inside(score_N: FloatArray, positive_N: BoolArray, groups: Sequence[str], weight_BN: FloatArray) -> FloatArray:
    """P(a positive scores above a negative of its group), ties half, by every row of weights (B,).

    NaN where no group has both kinds.
    """
    group_N = np.unique(np.array(groups), return_inverse=True)[1]
    won_B, pairs_B = np.zeros(len(weight_BN)), np.zeros(len(weight_BN))
    for group in range(int(group_N.max(initial=-1)) + 1):
        inside_N = group_N == group
        weight_Bn, positive_n = weight_BN[:, inside_N], positive_N[inside_N]
        pairs_b = (weight_Bn * positive_n).sum(1) * (weight_Bn * ~positive_n).sum(1)
        won_B += pairs_b * np.nan_to_num(auc(score_N[inside_N], positive_n, weight_Bn))
        pairs_B += pairs_b
    return np.divide(won_B, pairs_B, out=np.full(len(pairs_B), np.nan), where=pairs_B > 0)
