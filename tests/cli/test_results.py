import dataclasses
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mofme.cli.app import app
from mofme.errors import ResultError
from mofme.measure.pages import as_page, refresh
from mofme.measure.result import Figure, Machine, Result, Row, load_result, save_result

RESULT = Result(
    room="rain",
    paper="a paper",
    claim="a claim",
    verdict="Clearer by 4.6 dB.",
    command="python -m mofme evaluate rain",
    rows=[
        Row("PSNR, dB", "a|b", {"input": Figure(22.886), "gain": Figure(4.63, 3.84, 5.43)}),
        Row("Time", "a|b", {"s": Figure(0.25)}),
    ],
    seeds=[7],
    machine=Machine("A CPU", 2, "Linux", "2.13.0", threads=1),
    date="2026-11-22",
)
SOURCE = "<sub>`python -m mofme evaluate rain`; 2026-11-22; A CPU; 1 of 2 cores; torch 2.13.0; seed 7</sub>"
PSNR = (
    """<!-- result: rain PSNR, dB -->
|  | input | gain |
| --- | ---: | ---: |
| a\\|b | 22.89 | +4.63 (+3.84 to +5.43) |

"""
    + f"{SOURCE}\n<!-- /result -->"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_result(RESULT, tmp_path / "results").parent


def run(folder: Path, *arguments: object) -> tuple[int, str, str]:
    words = ["results", *map(str, arguments), "--folder", str(folder)]
    result = CliRunner().invoke(app, words, env={"COLUMNS": "200"})
    return result.exit_code, result.stdout, result.stderr


def test_a_table_or_all_of_them_are_quoted_with_their_source_and_verdicts_in_a_sentence(folder: Path) -> None:
    page = "Before.\n\n<!-- result: rain PSNR, dB -->\nold\n<!-- /result -->\n\nAfter 1.5 dB.\n"
    assert refresh(page, folder) == f"Before.\n\n{PSNR}\n\nAfter 1.5 dB.\n"
    text = refresh("<!-- result: rain --><!-- /result -->", folder)
    assert text.index("**PSNR, dB**") < text.index("+4.63") < text.index("**Time**") < text.index(SOURCE)
    assert text.count(SOURCE) == 1
    page = "- Rain: <!-- verdict: rain -->?<!-- /verdict --> Snow: <!-- verdict: snow -->9 dB<!-- /verdict -->"
    assert refresh(page, folder) == (
        "- Rain: <!-- verdict: rain -->Clearer by 4.6 dB.<!-- /verdict --> "
        "Snow: <!-- verdict: snow -->Not measured yet.<!-- /verdict -->"
    )
    with pytest.raises(ResultError, match=r"'LPIPS'.*'PSNR, dB'"):
        refresh("<!-- result: rain LPIPS --><!-- /result -->", folder)


def test_a_result_makes_a_page() -> None:
    page = as_page(RESULT)
    assert page.startswith("# Rain\n\na paper. Claim: a claim\n\nClearer by 4.6 dB.\n\n`python -m mofme")
    assert page.endswith("## Time\n\n|  | s |\n| --- | ---: |\n| a\\|b | 0.250 |\n")


def test_the_command_refreshes_every_page_it_is_given(folder: Path, tmp_path: Path) -> None:
    pages = [tmp_path / name for name in ("a.md", "b.md")]
    for page in pages:
        page.write_text("# Ü\n<!-- result: rain PSNR, dB --><!-- /result -->", encoding="utf-8")
    code, _, stderr = run(folder, "--quote", *pages)
    assert code == 0, stderr
    assert [page.read_text(encoding="utf-8") for page in pages] == [f"# Ü\n{PSNR}"] * 2
    assert run(folder, "--quote", *pages)[2].count("up to date") == 2


def test_the_command_lists_rooms_past_a_bad_one_and_prints_the_tables_of_one(folder: Path, tmp_path: Path) -> None:
    (folder / "snow.json").write_text("{}", encoding="utf-8")
    code, stdout, stderr = run(folder)
    assert code == 0 and "Clearer by 4.6 dB." in stdout and "snow.json" in stderr
    code, _, stderr = run(tmp_path / "empty")
    assert code == 0 and "Nothing was measured yet" in stderr
    code, stdout, _ = run(folder, "rain")
    assert code == 0
    for text in ("PSNR, dB", "+4.63 (+3.84 to +5.43)", "Clearer by 4.6 dB.", "python -m mofme evaluate rain", "seed 7"):
        assert text in stdout


def test_a_page_is_left_alone_when_a_result_is_damaged(folder: Path, tmp_path: Path) -> None:
    plain = dataclasses.asdict(RESULT)
    plain["rows"][0]["figures"]["gain"]["value"] = "much"
    (folder / "rain.json").write_text(json.dumps(plain), encoding="utf-8")
    page = tmp_path / "a.md"
    page.write_text("<!-- verdict: rain -->old<!-- /verdict -->", encoding="utf-8")
    code, _, stderr = run(folder, "--quote", page)
    assert code == 2 and "rain.json" in stderr
    assert page.read_text(encoding="utf-8") == "<!-- verdict: rain -->old<!-- /verdict -->"


def test_a_copy_by_another_name_replaces_no_result(tmp_path: Path) -> None:
    old = load_result("bench")
    save_result(dataclasses.replace(old, date="2000-01-01"), tmp_path)
    (tmp_path / "bench.json").rename(tmp_path / "bench-old.json")
    save_result(old, tmp_path)
    code, _, said = run(tmp_path, "--judge")
    assert code == 1 and "bench-old.json is left out" in said
    assert load_result("bench", tmp_path).date == old.date
