"""What a policy of linear experts says of itself: each expert as a table, and where the router sends the robot."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mofme.control.environments import Spaces, make, spaces
from mofme.control.evaluation import Act, acting
from mofme.control.policy import SparseLinearPolicy

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Visited:
    """What a policy saw in some episodes, which expert answered, and what it earned in each of them."""

    x_TD: FloatArray
    expert_T: IntArray
    returns: tuple[float, ...]


@dataclass(frozen=True)
class ExpertTable:
    """One expert in numbers that a person can compare.

    `effect_AD`: what one standard deviation of an observation changes at each action, before the squashing by tanh;
    `rest_A`: the action in the middle of its region; `typical_D`: its region's mean, in standard deviations away from
    the mean of all; `share`: of all steps, how many are its own.
    """

    effect_AD: FloatArray
    rest_A: FloatArray
    typical_D: FloatArray
    share: float

    def strongest(self, names: Spaces, most: int = 5) -> list[tuple[str, str, float]]:
        """The largest effects: observation, action, effect."""
        order = np.argsort(-np.abs(self.effect_AD), axis=None)[:most]
        places = (np.unravel_index(place, self.effect_AD.shape) for place in order)
        return [(names.observations[d], names.actions[a], float(self.effect_AD[a, d])) for a, d in places]


def visit(act: Act, environment: str, episodes: int, seed: int, at_least: int = 0) -> Visited:
    """Let a function of the observation act, and remember what it saw: more episodes if they hold too few steps."""
    world = make(environment)
    seen: list[FloatArray] = []
    experts: list[int] = []
    returns: list[float] = []
    while len(returns) < episodes or len(seen) < at_least:
        x_D, _ = world.reset(seed=seed + len(returns))
        earned, over = 0.0, False
        while not over:
            action_A, expert = act(x_D)
            seen.append(np.asarray(x_D, np.float64))
            experts.append(expert)
            x_D, reward, ended, cut, _ = world.step(action_A)
            earned, over = earned + float(reward), ended or cut
        returns.append(earned)
    world.close()
    return Visited(np.stack(seen), np.asarray(experts, np.int64), tuple(returns))


def expert_tables(policy: SparseLinearPolicy, visited: Visited) -> Sequence[ExpertTable | None]:
    """One table an expert; None for one that was never chosen."""
    mean_D, std_D = visited.x_TD.mean(axis=0), visited.x_TD.std(axis=0).clip(min=1e-9)
    actions = policy.experts_EFD.shape[1] // 2
    weights_EAD = policy.experts_EFD.detach().double().numpy()[:, :actions]
    router_ED = policy.router_ED.detach().double().numpy()
    tables: list[ExpertTable | None] = []
    for expert, weights_AD in enumerate(weights_EAD):
        own_TD = visited.x_TD[visited.expert_T == expert]
        if not len(own_TD):
            tables.append(None)
            continue
        # The probability scales what the expert says; in its region's middle it is this much.
        middle_D = np.append(own_TD.mean(axis=0), 1.0)
        logits_E = router_ED @ middle_D
        probability = np.exp(logits_E - logits_E.max()) / np.exp(logits_E - logits_E.max()).sum()
        scaled_AD = probability[expert] * weights_AD
        tables.append(
            ExpertTable(
                effect_AD=scaled_AD[:, :-1] * std_D,
                rest_A=np.tanh(scaled_AD @ middle_D),
                typical_D=(middle_D[:-1] - mean_D) / std_D,
                share=len(own_TD) / len(visited.x_TD),
            )
        )
    return tables


def describe(policy: SparseLinearPolicy, environment: str, episodes: int = 3, seed: int = 0) -> str:
    """The tables in words: for each expert its share, where it is called, and its strongest effects."""
    names = spaces(environment)
    lines = []
    for number, table in enumerate(expert_tables(policy, visit(acting(policy), environment, episodes, seed))):
        if table is None:
            lines.append(f"Expert {number}: never chosen")
            continue
        away = np.argsort(-np.abs(table.typical_D))[:3]
        where = ", ".join(f"{names.observations[d]} {table.typical_D[d]:+.1f}" for d in away)
        what = "; ".join(f"{seen} -> {moved} {effect:+.2f}" for seen, moved, effect in table.strongest(names))
        lines += [
            f"Expert {number}: {table.share:.0%} of the steps, where (in standard deviations) {where}",
            f"  {what}",
        ]
    return "\n".join(lines)
