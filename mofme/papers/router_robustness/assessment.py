"""What probing routers shows: where their calls go by category, and what harmless rewording turns; and what routing
wastes, by recorded answers to held-back prompts: strong calls that the weak model had answered.

A rewording is what a person might have typed instead, meaning the same. Code, quoted text, digits, and words with
digits or symbols in them are never touched: only plain words of prose are.
"""

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mofme.language.tables.table import BoolArray, FloatArray, IntArray
from mofme.measure.result import Figure
from mofme.measure.statistics import bootstrap_percent, percentiles
from mofme.papers.carrot.comparison import auc
from mofme.papers.router_robustness.probes import CATEGORIES, DIFFICULTIES, Probe
from mofme.papers.router_robustness.routers import Embed, Figures, Recorded, Split, TwoModelRouter, answered

DRAWS = 500
# Code in fences, in backticks or by the look of its line; quoted text, which may be what the prompt is about.
_KEPT = re.compile(
    r"```.*?```|`[^`\n]*`|^(?: {4}|\t|def |class |import |from |@|>>>)[^\n]*$|[\"“][^\"“”\n]*[\"”]",
    re.DOTALL | re.MULTILINE,
)
_EDGES = r"(?<![\w'@./:#$\\-]){}(?![\w'@/:#$\\(=-]|\.\w)"  # not a part of an address, a name in code or a formula
_LONG_WORD = re.compile(_EDGES.format("[A-Za-z]{5,}"))
_CAPITALIZED = re.compile(_EDGES.format("[A-Z][a-z]{2,}"))


def reword(prompts: Sequence[str], name: str, seed: int = 0) -> list[str]:
    """Each prompt under one of REWORDINGS; the same seed and prompt give the same text, whatever stands beside it."""
    return [REWORDINGS[name](prompt, random.Random(f"{seed} {name} {prompt}")) for prompt in prompts]


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
    frames = [
        "I would like an answer to the following.\n{}",
        "Here is what I need from you:\n{}",
        "{}\nThat is my request; answer it.",
        "Consider the request below and respond to it.\n{}",
    ]
    return rng.choice(frames).format(prompt)


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


REWORDINGS: dict[str, Callable[[str, random.Random], str]] = {
    "typos": _typos,
    "lower case": _lower_case,
    "politeness": _polite,
    "paraphrase": _paraphrase,
    "padding": _padding,
}


@dataclass(frozen=True)
class Assessment:
    """R routers probed with N prompts.

    `strong_RN`: the share of a router's runs that sent the prompt to the strong model, in [0, 1]. `flips_RWN`: the
    share of its runs in which the reworded prompt went elsewhere, in [0, 1].
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
    ) -> Figure | None:
        """Calls sent to the strong model, in percent; None where nothing was probed."""
        strong_n = self.strong_RN[self.routers.index(router), self._chosen(category, difficulty, source)]
        return bootstrap_percent(strong_n) if len(strong_n) else None

    def flips(self, router: str, rewording: str | None = None, category: str | None = None) -> Figure:
        """Decisions that a rewording turns, in percent; the mean of all rewordings unless one is named."""
        rows = [self.rewordings.index(rewording)] if rewording else slice(None)
        return bootstrap_percent(self.flips_RWN[self.routers.index(router), rows].mean(0)[self._chosen(category)])

    def cost(self, router: str, category: str, weak_over_strong: float) -> Figure:
        """What the calls cost, in percent of always asking the strong model, if cost goes by the length of prompts.
        `weak_over_strong` is what the weak model costs for each dollar of the strong one."""
        chosen = self._chosen(category)
        strong_n = self.strong_RN[self.routers.index(router), chosen]
        length_n = np.array([len(probe.prompt) for probe in self.probes], np.float64)[chosen]
        return bootstrap_percent(length_n * (strong_n + (1 - strong_n) * weak_over_strong), length_n)

    @cached_property
    def explained(self) -> dict[str, tuple[Figure, ...]]:
        """What category explains of the variance of a router's decisions, difficulty beyond it, and the first less the
        second, in percent; intervals by drawing prompts inside each category and difficulty. 0 without variance."""
        chosen = [(name, self._chosen(name, difficulty)) for name in self.categories for difficulty in DIFFICULTIES]
        chosen = [(name, cell_N) for name, cell_N in chosen if cell_N.any()]
        owner_C = np.array([self.categories.index(name) for name, _ in chosen])
        found = {}
        for router, strong_N in zip(self.routers, self.strong_RN, strict=True):
            rng, cells = np.random.default_rng(0), [strong_N[cell_N] for _, cell_N in chosen]
            drawn = [[rng.choice(cell, len(cell)) for cell in cells] for _ in range(DRAWS)]
            parts_B2 = np.array([_variances(one, owner_C) for one in (cells, *drawn)])
            found[router] = tuple(map(_explained, (*parts_B2.T, parts_B2[:, 0] - parts_B2[:, 1])))
        return found

    def _chosen(self, *wanted: str | None) -> BoolArray:
        """The probes (N,) of a category, a difficulty and a source, as far as these are given."""
        kinds = [(probe.category, probe.difficulty, probe.source) for probe in self.probes]
        return np.array([all(want in (None, kind) for want, kind in zip(wanted, of, strict=False)) for of in kinds])


def _explained(part_B: FloatArray) -> Figure:
    """The first, with the interval of the others. Drawn cells differ more than the cells do: all may lie above it."""
    low, high = percentiles(part_B[1:])
    return Figure(float(part_B[0]), min(low, float(part_B[0])), high)


def _variances(cells: Sequence[FloatArray], owner_C: IntArray) -> tuple[float, float]:
    """Shares of the variance over all cells, in percent: between owners, and between the cells of one owner."""
    all_N = np.concatenate(cells)
    total = float(all_N.var())
    if total == 0:
        return 0.0, 0.0
    size_C, mean_C = np.array([len(cell) for cell in cells]), np.array([cell.mean() for cell in cells])
    owner_mean_C = (np.bincount(owner_C, size_C * mean_C) / np.bincount(owner_C, size_C))[owner_C]
    between = float((size_C * (owner_mean_C - all_N.mean()) ** 2).sum()) / len(all_N)
    inside = float((size_C * (mean_C - owner_mean_C) ** 2).sum()) / len(all_N)
    return 100 * between / total, 100 * inside / total


def assess(
    runs: Mapping[str, Sequence[TwoModelRouter]],
    probes: Sequence[Probe],
    embed: Embed,
    rewordings: Sequence[str] = tuple(REWORDINGS),
) -> Assessment:
    """Probe routers, of which each may have several runs: their decisions are averaged."""
    prompts = [probe.prompt for probe in probes]
    plain = embed(prompts)
    changed = [embed(reword(prompts, name)) for name in rewordings]
    strong, flips = [], []
    for of_router in runs.values():
        before_SN = np.array([run.to_strong(plain) for run in of_router])
        after = [np.array([run.to_strong(queries) for run in of_router]) for queries in changed]
        strong.append(before_SN.mean(0))
        flips.append([(before_SN != after_SN).mean(0) for after_SN in after])
    flips_RWN = np.array(flips).reshape(len(runs), len(rewordings), len(probes))
    return Assessment(tuple(runs), tuple(probes), tuple(rewordings), np.array(strong), flips_RWN)


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
    asked = []
    for run, part in zip(runs, splits, strict=True):
        rows = [row for row, task in enumerate(part.test.table.tasks) if not only or task in only]
        if rows:  # a task of few prompts is not in every split's test
            asked.append((run, part.test.rows(rows)))
    if not asked:
        raise ValueError("no test prompt is of these tasks")
    strong_N: BoolArray = np.concatenate([run.to_strong(test.queries) for run, test in asked])
    quality_N2 = np.concatenate([test.table.quality_NM for _, test in asked])
    cost_N2 = np.concatenate([test.table.cost_NM for _, test in asked])
    prompts_N = np.array([prompt for _, test in asked for prompt in test.table.prompts], object)
    good_N2 = quality_N2 >= GOOD

    def share(parts_N: BoolArray | FloatArray, of_N: BoolArray | None = None) -> Figure | None:
        of_N = np.full(len(prompts_N), True) if of_N is None else of_N
        return bootstrap_percent(parts_N[of_N], groups=prompts_N[of_N].tolist()) if of_N.any() else None

    figures = {
        "to the strong model, %": share(strong_N),
        "of these wasted, %": share(good_N2[:, 1], strong_N),
        "of the others missed, %": share(good_N2[:, 0] & ~good_N2[:, 1], ~strong_N),
        "cost, % of always strong": bootstrap_percent(
            answered(cost_N2, strong_N), cost_N2[:, 0].clip(1e-12), prompts_N.tolist()
        ),
        "quality, %": share(answered(quality_N2, strong_N)),
        "AUC": _auc(asked, within=False),
        "AUC inside a task": _auc(asked, within=True),
    }
    return {name: figure for name, figure in figures.items() if figure is not None}


def waste_by_group(runs: Sequence[TwoModelRouter], splits: Sequence[Split]) -> dict[str, Figures]:
    """On all test prompts, then on those groups of tasks that the table has."""
    present = {task for part in splits for task in part.test.table.tasks}
    groups = {group: sorted(filter(belongs, present)) for group, belongs in GROUPS.items()}
    return {ALL: waste(runs, splits)} | {group: waste(runs, splits, only) for group, only in groups.items() if only}


def _auc(asked: Sequence[tuple[TwoModelRouter, Recorded]], within: bool) -> Figure | None:
    """Mean of the runs, with a 95 % bootstrap interval over the prompts of each."""
    auc_TB = []
    for run, test in asked:
        if run.score is None:
            return None
        tasks = test.table.tasks if within else [""] * len(test)
        drawn_BN = np.random.default_rng(0).multinomial(len(test), np.full(len(test), 1 / len(test)), _AUC_DRAWS)
        weight_BN = np.concatenate([np.ones((1, len(test))), drawn_BN])
        auc_TB.append(auc_inside(run.score(test.queries), test.strong_wins_N, tasks, weight_BN))
    mean_B = np.mean(auc_TB, axis=0)
    return Figure(float(mean_B[0]), *percentiles(mean_B[1:])) if np.isfinite(mean_B[0]) else None


def auc_inside(score_N: FloatArray, positive_N: BoolArray, groups: Sequence[str], weight_BN: FloatArray) -> FloatArray:
    """P(a positive scores above a negative of its group), ties half, by every row of weights (B,). NaN where no group
    has both kinds."""
    group_N = np.unique(np.array(groups), return_inverse=True)[1]
    won_B, pairs_B = np.zeros(len(weight_BN)), np.zeros(len(weight_BN))
    for group in range(int(group_N.max(initial=-1)) + 1):
        inside_N = group_N == group
        weight_Bn, positive_n = weight_BN[:, inside_N], positive_N[inside_N]
        pairs_b = (weight_Bn * positive_n).sum(1) * (weight_Bn * ~positive_n).sum(1)
        won_B += pairs_b * np.nan_to_num(auc(score_N[inside_N], positive_n, weight_Bn))
        pairs_B += pairs_b
    return np.divide(won_B, pairs_B, out=np.full(len(pairs_B), np.nan), where=pairs_B > 0)
