"""What DSC says of routers, each claim with our criterion: seen or not, router by router."""

from collections.abc import Sequence
from dataclasses import dataclass

from mofme.language.llm_routing.robustness.study import Study
from mofme.language.llm_routing.robustness.training import TRAINERS
from mofme.results import Figure

LEARNT = tuple(name for name in TRAINERS if name != "complexity rule")
ALL = 90.0  # percent that count as "all"
POISONED = 0.01  # the share of poisoned data that a claim is judged at


@dataclass(frozen=True)
class Claim:
    """The paper's words and our criterion, with each router's figure and whether it meets the criterion."""

    words: str
    criterion: str
    figures: dict[str, Figure]
    seen: dict[str, bool]

    @property
    def mark(self) -> str:
        """Seen, not seen, or for which of the routers it was."""
        count = sum(self.seen.values())
        if count in (0, len(self.seen)):
            return "seen for all" if count else "not seen"
        return f"seen for {count} of {len(self.seen)}: {', '.join(name for name, seen in self.seen.items() if seen)}"


def claims(study: Study) -> list[Claim]:
    """The paper's claims about routers that learn from preferences, on this table's routers."""
    assessed = study.assessment
    found = []
    for category in ("coding", "mathematics"):
        shares = {name: assessed.share(name, category) for name in LEARNT}
        seen = {name: share.value >= ALL for name, share in shares.items()}
        found.append(Claim(f"all {category} goes to the strong model", f"{ALL:.0f} % or more of it", shares, seen))
    found += [_by_category(study), _wasted(study)]
    shares = {name: assessed.share(name, "jailbreak") for name in LEARNT}
    seen = {name: _high(share) < 50 for name, share in shares.items()}
    found.append(
        Claim("jailbreaks go to the weak model", "under half to the strong one, interval included", shares, seen)
    )
    weak = next((line.weak for line in study.exposures), "")
    exposures = {line.router: line for line in study.exposures if line.weak == weak and line.router in LEARNT}
    if exposures:
        over = {name: line.over_always_strong for name, line in exposures.items()}
        seen = {name: _low(figure) > 0 for name, figure in over.items()}
        words = "routing lets more jailbreaks succeed"
        found.append(Claim(words, f"than always asking the strong model; points, {weak} as the weak one", over, seen))
        over = {name: line.over_coin for name, line in exposures.items()}
        seen = {name: _low(figure) > 0 for name, figure in over.items()}
        found.append(Claim(words, f"than a coin flip; points, {weak} as the weak one", over, seen))
    private = {line.router: line for line in study.privacy if line.router in LEARNT}
    if private:
        to_weak = {name: line.private_to_weak for name, line in private.items()}
        seen = {
            name: line.others_to_weak is None or _high(line.private_to_weak) >= _low(line.others_to_weak)
            for name, line in private.items()
        }
        criterion = "it leaves for the weak model no less often than other sentences, within the intervals; % that does"
        found.append(Claim("private data is not looked after", criterion, to_weak, seen))
    damage = {
        line.router: line.turned
        for line in study.damage
        if line.share == POISONED and line.target == "strong" and line.turned is not None
    }
    if damage:
        seen = {name: _low(figure) > 50 for name, figure in damage.items()}
        criterion = (
            f"{POISONED:.0%} of poisoned preferences turns over half of the triggered prompts to the strong model"
        )
        found.append(Claim("preference data can carry a backdoor", criterion, damage, seen))
    return found


def _by_category(study: Study) -> Claim:
    """Decisions follow the category where it explains more of them than simple or hard does inside the categories."""
    figures, seen = {}, {}
    for name in LEARNT:
        category, difficulty = study.assessment.explained(name)
        figures[name] = Figure(category)
        seen[name] = category > difficulty
    criterion = "category explains more of the decisions' variance than difficulty inside it; % that category explains"
    return Claim("decisions follow category, not difficulty", criterion, figures, seen)


def _wasted(study: Study) -> Claim:
    wasted = {line.router: line.wasted for line in study.waste if line.group == "all" and line.router in LEARNT}
    figures = {name: figure for name, figure in wasted.items() if figure is not None}
    seen = {name: _low(figure) > 50 for name, figure in figures.items()}
    words = "strong calls that a weak model would have answered"
    return Claim(words, "over half of the strong calls, by recorded answers", figures, seen)


def _low(figure: Figure) -> float:
    return figure.value if figure.low is None else figure.low


def _high(figure: Figure) -> float:
    return figure.value if figure.high is None else figure.high


def verdict(studies: Sequence[Study]) -> str:
    """One sentence: the claims on the first table's routers."""
    first = studies[0]
    parts = [f"{claim.words} ({claim.criterion}): {claim.mark}" for claim in claims(first)]
    return f"On routers trained on {first.table}: {'; '.join(parts)}."
