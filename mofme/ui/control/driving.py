"""One episode for a visitor: who drives, the film, and what there is to say about it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mofme.control.environments import Spaces, spaces
from mofme.control.episode import Episode, film
from mofme.control.evaluation import acting
from mofme.control.explanation import ExpertTable, expert_tables, visit
from mofme.control.storage import load_policy
from mofme.control.trees import distil, tree_acting
from mofme.ui.control.choices import TREE
from mofme.ui.jobs import Job


@dataclass(frozen=True)
class Driven:
    """What is shown: the film, who drove at which step, each expert's table; the tree (words, SVG) where one drove."""

    environment: str
    path: Path
    episode: Episode
    names: Spaces
    tables: tuple[ExpertTable | None, ...]
    tree: str = ""
    tree_svg: str = ""
    fidelity: float = 1.0


def drive(
    folder: Path, chooser: str, depth: int, seed: int, path: Path, job: Job, report: Callable[[float, str], None]
) -> Driven:
    """Let a policy drive for an episode. Raises Cancelled, or MofmeError once the job's time is up."""
    report(0, "Reading the policy")
    policy, environment = load_policy(folder)
    act, words, picture, fidelity = acting(policy), "", "", 1.0
    if chooser == TREE:

        def grown(number: int, rounds: int) -> None:
            job.check()
            report(0.5 * number / (rounds + 1), f"Growing a tree from what the router chooses: {number} of {rounds}")

        tree = distil(policy, environment, depth, seed=1, episodes=1, report=grown)
        act, fidelity = tree_acting(tree.tree, tree.weight_E, policy), tree.fidelity
        words, picture = tree.text(environment), tree.picture(environment)
    job.check()

    def told(step: int, steps: int) -> None:
        job.check()
        report(0.5 + 0.4 * step / steps, "Driving")

    episode = film(act, environment, path, seed, report=told)
    report(0.9, "Reading the experts")
    tables = expert_tables(policy, visit(act, environment, episodes=1, seed=seed))
    return Driven(environment, path, episode, spaces(environment), tuple(tables), words, picture, fidelity)
