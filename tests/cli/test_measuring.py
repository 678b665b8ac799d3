"""What is the same for every command: exit codes, the recorded command line, help texts, a quick start."""

import inspect
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import is_dataclass
from pathlib import Path
from types import FrameType, UnionType
from typing import Any, get_args, get_origin

import pytest
import typer.main
from typer.models import ArgumentInfo, OptionInfo

import mofme
from mofme.cli import bench
from mofme.cli.app import COMMANDS, app
from mofme.errors import Cancelled, ModelError

Parameter = tuple[Any, Any, Any]  # type, typer's info, default

ALL: dict[str, Callable[..., None]] = {**COMMANDS, "bench": bench.feed_forwards}
MEASURING = [
    name
    for name, command in ALL.items()
    if inspect.signature(command.__wrapped__).return_annotation == "Result"  # type: ignore[attr-defined]
]
ROOT = typer.main.get_command(app)

BAD = [
    "app --auth nobody",
    "app --certificate nowhere --key nowhere",
    "restore nowhere out",
    "restore empty out",
    "restore empty out --runtime tiff",
    "stream nowhere",
    "stream ftp://127.0.0.1/film.mp4",
    "stream empty --out empty",
    "stream empty --out http://192.0.2.1",
    "restore empty out --engine cloud",
    "restore file.txt out --engine ray",
    "export nowhere out",
    "export small out --format tiff",
    "synthesize nowhere out --weather rain",
    "synthesize empty out --weather rain",
    "train nowhere --out out",
    "train empty --out out --minutes 0",
    "train-tone empty --out out",
    "train-segmenter nowhere nowhere --out out",
    "train-segmenter empty empty --out out",
    "build-references nowhere --out out",
    "build-references empty --out out",
    "results nowhere --folder empty",
    "results --quote nowhere.md",
    "moefy empty --text file.txt --out out",
    "distil empty empty --text file.txt --out out",
    "bench cluster --pictures 3",
    "evaluate restoration nowhere",
    "evaluate restoration empty",
    "evaluate segmentation nowhere nowhere",
    "evaluate segmentation empty empty",
    "evaluate classification nowhere",
    "evaluate classification empty",
    "evaluate ablation empty --arms arms",
    "evaluate routers empty --arms arms",
    "evaluate dense-to-moe empty --text file.txt --questions file.txt --arms arms",
    "evaluate distillation nowhere --arms arms",
    "evaluate attention-router --text nowhere --arms arms",
    "evaluate mixture-of-routers file.txt --arms arms",
    "evaluate rerouting pictures empty --references nowhere --work work",
    "evaluate rerouting text nowhere --pool file.txt --test file.txt --work work",
    "bench --side 60",
    "bench restorers nowhere",
    "bench restorers empty",
    "bench runtimes nowhere",
    "bench runtimes empty",
    "bench service --address nowhere",
    "bench routing-server --router nowhere",
    "binary train file.txt --runs runs",
    "binary evaluate nowhere --runs empty",
    "binary pack nowhere empty --out out",
    "binary restorer empty",
    "control train Moon --out out",
    "control evaluate empty",
    "control explain nowhere",
    "route prompt text --router nowhere",
    "route train nowhere --out out",
    "route evaluate nowhere",
    "route robustness --queries empty",
    "route simulate --largest 0",
    "route serve nowhere",
]


def parameters_of(command: Callable[..., None]) -> dict[str, Parameter]:
    """Each parameter of the work itself: neither the context, nor `--out` and `--json` where they are added."""
    own = list(inspect.signature(command).parameters.values())[1:]
    work = inspect.signature(command.__wrapped__).parameters  # type: ignore[attr-defined]
    own = own[:-2] if own[-1].name == "as_json" and "as_json" not in work else own
    return {one.name: (*get_args(one.annotation), one.default) for one in own}


def others(name: str, kind: Any, info: Any, default: Any, folder: Path) -> list[str]:
    """What may be typed for a parameter, besides its default: two values where it may be given again."""
    if get_origin(kind) is UnionType:
        (kind,) = [one for one in get_args(kind) if one is not type(None)]
    if get_origin(kind) is list:
        return [word for place in "ab" for word in others(name + place, *get_args(kind), info, None, folder)]
    if kind is Path:
        path = folder / "somewhere" / f"{name} here"
        if info.dir_okay:
            path.mkdir(parents=True, exist_ok=True)
        else:
            path.parent.mkdir(exist_ok=True)
            path.touch()
        return [str(path)]
    if kind is str:
        return [f"another {name}"]
    start = next(value for value in (default, info.min, 0) if isinstance(value, int | float))
    above = start + 1 if info.max is None else (start + info.max) / 2
    return [str(kind(above if above != start else (info.min + start) / 2))]


def words_of(command: Callable[..., None], folder: Path, everything: bool) -> list[str]:
    """A command line with every parameter, none of them at its default, or else with those it cannot do without."""
    arguments, options = [], []
    for name, (kind, info, default) in parameters_of(command).items():
        given = default is not inspect.Parameter.empty
        if given and not everything:
            continue
        flag = (info.param_decls or [f"--{name.replace('_', '-')}"])[0]
        if kind is bool:
            options.append(flag.replace("--", "--no-", 1) if default else flag)
        elif isinstance(info, ArgumentInfo):
            arguments += others(name, kind, info, default if given else None, folder)
        else:
            for value in others(name, kind, info, default if given else None, folder):
                options += [flag, value]
    return [*arguments, *options]


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        ROOT.main(list(words), prog_name="python -m mofme")
    return int(ended.value.code or 0)


def enter(command: Callable[..., None], words: list[str], error: BaseException) -> tuple[int, dict[str, Any]]:
    """How a command ends when `error` befalls its work, and what the work was given."""
    given: dict[str, Any] = {}

    def watch(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code is command.__wrapped__.__code__:  # type: ignore[attr-defined]
            for name, value in frame.f_locals.items():
                given.update(vars(value) if is_dataclass(value) else {name: value})
            raise error

    sys.setprofile(watch)
    try:
        code = run(*words)
    finally:
        sys.setprofile(None)
    assert given, f"{words} ended with {code} before the work"
    return code, given


# All commands by one error, and one that measures and one that does not by others.
BEFALLS = [(name, ModelError("no [net]"), 2) for name in ALL]
OTHERS = ((KeyboardInterrupt(), 130), (Cancelled("stop"), 130), (OSError(28, "full"), 2))
BEFALLS += [(name, *ends) for name in ("bench", "restore") for ends in OTHERS]


@pytest.mark.parametrize(("name", "error", "code"), BEFALLS)
def test_what_befalls_the_work_is_an_exit_code_and_a_line(
    name: str, error: BaseException, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ALL[name]
    ended, _ = enter(command, [*name.split(), *words_of(command, tmp_path, everything=False)], error)
    assert ended == code
    out, err = capsys.readouterr()
    said = "the disk is full." if isinstance(error, OSError) else error
    assert (out, err) == ("", "cancelled\n" if code == 130 else f"error: {said}\n")


@pytest.mark.parametrize("line", BAD)
def test_a_bad_input_begins_nothing(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.txt").write_text("no data", encoding="utf-8")
    monkeypatch.setattr("mofme.vision.metrics.Lpips.__init__", lambda *_: None)  # which would be downloaded
    assert run(*line.split()) == 2
    out, err = capsys.readouterr()
    assert out == "" and err


FOLDERS = [
    (name, option)
    for name, command in ALL.items()
    for option, parameter in inspect.signature(command).parameters.items()
    for info in get_args(parameter.annotation)[1:]
    if isinstance(info, OptionInfo) and info.file_okay is False
]


@pytest.mark.parametrize(("name", "option"), FOLDERS)
def test_a_file_in_place_of_a_folder_is_refused_before_the_work(
    name: str, option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "500")
    (tmp_path / "taken").write_text("mine")
    words = words_of(ALL[name], tmp_path, everything=False)
    assert run(*name.split(), *words, f"--{option}", str(tmp_path / "taken")) == 2
    err = capsys.readouterr().err
    assert f"Invalid value for '--{option}'" in err and "is a file" in err
    assert (tmp_path / "taken").read_text() == "mine"


def test_bad_input_is_tried_on_all_commands() -> None:
    assert len(MEASURING) > 20 and len(FOLDERS) > 40  # or others above were skipped
    assert [name for name in ALL if not any(line.startswith(f"{name} ") for line in BAD)] == ["models"]


@pytest.mark.parametrize("name", MEASURING)
def test_every_option_is_recorded_and_the_line_is_read_back(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command, place = ALL[name], tmp_path / "somewhere"
    words = words_of(command, tmp_path, everything=True)
    _, typed = enter(command, [*name.split(), *words, "--json", "--out", str(tmp_path / "out")], KeyboardInterrupt())
    line = typed.pop("command").line
    assert [option for option, (_, _, default) in parameters_of(command).items() if typed[option] == default] == []
    assert line.startswith(f"python -m mofme {name} ")
    assert str(tmp_path) not in line
    recorded = shlex.split(line.removeprefix("python -m mofme "))
    assert len(recorded) == len(name.split()) + len(words)

    # Where what was recorded without its place lies, the line means the same.
    place.mkdir(exist_ok=True)
    (place / "somewhere").symlink_to(place)
    monkeypatch.chdir(place)
    _, again = enter(command, recorded, KeyboardInterrupt())
    assert again.pop("command").line == line
    assert repr(again).replace("somewhere/", "") == repr(typed).replace(f"{place}/", "")


def test_defaults_that_nobody_typed_are_not_recorded(tmp_path: Path) -> None:
    _, given = enter(ALL["route simulate"], ["route", "simulate"], KeyboardInterrupt())
    assert given["command"].line == "python -m mofme route simulate"
    _, given = enter(ALL["route simulate"], ["route", "simulate", "--largest", "1024000"], KeyboardInterrupt())
    assert given["command"].line == "python -m mofme route simulate --largest 1024000"


@pytest.mark.parametrize("name", ALL)
def test_help_is_a_plain_sentence(name: str) -> None:
    texts = {name: inspect.getdoc(ALL[name]) or ""}
    texts |= {option: info.help or "" for option, (_, info, _) in parameters_of(ALL[name]).items()}
    for what, text in texts.items():
        assert text.endswith("."), what
        assert not re.search(r"[.:!?] ?\n|[.!?:] [A-Z]|\n\n", text), what


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    assert capsys.readouterr().out == f"mofme {mofme.__version__}\n"


def test_help_does_not_wait_for_torch() -> None:
    code = "import sys, mofme.cli.app; sys.exit(bool({'torch', 'numpy', 'gradio'} & set(sys.modules)))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0


@pytest.mark.parametrize("page", ["README.md", "PAPERS.md", "DATA.md", "CONTRIBUTING.md"])
def test_pages_type_options_that_there_are(page: str) -> None:
    text = (Path(__file__).parents[2] / page).read_text(encoding="utf-8").replace("\\\n", " ")
    typed = r"^(?:[A-Z_]+=\S+ )?(?:python -m mofme|torchrun .*? -m mofme|mofme) (.+?)(?:\s+#.*)?$"
    for line in re.findall(typed, text, re.MULTILINE):
        words, command, name = shlex.split(line), ROOT, []
        while words and words[0] in getattr(command, "commands", {}):
            name.append(words[0])
            command = command.commands[words.pop(0)]
        command = command.commands["prompt"] if name == ["route"] else command
        known = {option for one in command.params for option in (*one.opts, *one.secondary_opts)}
        assert {word.partition("=")[0] for word in words if word.startswith("--")} <= known, line
