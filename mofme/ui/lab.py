"""The Lab: a card for each experiment, which opens on a page of its own, so that the app itself opens fast."""

import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mofme.ui.models import Services

_DRAWINGS = Path(__file__).with_name("lab")


@dataclass(frozen=True)
class Experiment:
    """What a card shows: a name, and what it is good for in one plain sentence; its drawing is `lab/<address>.svg`."""

    name: str
    use: str
    build: Callable[[Services], None]

    @property
    def address(self) -> str:
        return address_of(self.name)


def address_of(name: str) -> str:
    """As links write the name of a tab or an experiment."""
    return name.lower().replace(" ", "-")


def cards(groups: Mapping[str, Sequence[Experiment]]) -> str:
    """All cards under their headings (HTML)."""
    return "".join(
        f"<h3>{html.escape(group)}</h3><div class='cards'>{''.join(map(_card, experiments))}</div>"
        for group, experiments in groups.items()
    )


def _card(experiment: Experiment) -> str:
    drawing = (_DRAWINGS / f"{experiment.address}.svg").read_text(encoding="utf-8")
    return (
        f"<a class='card' href='{experiment.address}'>{drawing}<b>{html.escape(experiment.name)}</b>"
        f"<span>{html.escape(experiment.use)}</span></a>"
    )
