"""Tables in the formats in which others publish them, recognised by what the files look like."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mofme.errors import TableError
from mofme.language.llm_routing.loaders import llmrouter, mmlu_pro, plain, routellm, routerbench, sprout
from mofme.language.llm_routing.loaders.draft import Draft
from mofme.language.llm_routing.prices import Prices
from mofme.language.llm_routing.table import RoutingTable


@dataclass(frozen=True)
class Format:
    """One way of publishing a table: its name, what its files look like, how to tell and how to read them."""

    name: str
    looks_like: str
    matches: Callable[[Path], bool]
    read: Callable[[Path, Prices | None], Draft]
    models: tuple[str, ...] = ()  # those taken where nobody asks for others; empty for all


FORMATS: tuple[Format, ...] = (
    Format("plain", plain.LOOKS_LIKE, plain.matches, plain.read),
    Format("routerbench", routerbench.LOOKS_LIKE, routerbench.matches, routerbench.read),
    Format("llmrouter", llmrouter.LOOKS_LIKE, llmrouter.matches, llmrouter.read),
    Format("mmlu_pro", mmlu_pro.LOOKS_LIKE, mmlu_pro.matches, mmlu_pro.read, mmlu_pro.TEN_MODELS),
    Format("routellm", routellm.LOOKS_LIKE, routellm.matches, routellm.read),
    Format("sprout", sprout.LOOKS_LIKE, sprout.matches, sprout.read),
)


def load_table(
    path: Path, repair: bool = False, models: Sequence[str] | None = None, prices: Prices | None = None
) -> RoutingTable:
    """The table in a file or folder of any of FORMATS.

    `repair` drops or merges what is wrong and says so in `table.repairs`; otherwise any fault is an error. `models`
    takes these only, ["all"] every one; by default all but for MMLU-Pro (mmlu_pro.TEN_MODELS). `prices` stand in
    where costs were not recorded; else those beside the table, else the list prices. Raises TableError, which names
    the file, the rows, the fault and the remedy.
    """
    path = Path(path)
    if not path.exists():
        raise TableError(f"{path} is not there")
    found = next((format for format in FORMATS if format.matches(path)), None)
    if found is None:
        known = "; ".join(f"{format.name}: {format.looks_like}" for format in FORMATS)
        raise TableError(f"{path} is no table of a format known here. Known are {known}")
    draft = found.read(path, prices)
    wanted = list(found.models) if models is None else list(models)
    if wanted and wanted != ["all"]:
        draft = draft.keep_models(wanted)
    return draft.checked(repair)
