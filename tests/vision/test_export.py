import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnx
import openvino
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from typer.testing import CliRunner, Result

from mofme.cli.app import app
from mofme.core.weights import ModelCard, checksum, load_card, save_model
from mofme.errors import ModelError
from mofme.files import ASSETS, WEIGHTS
from mofme.vision import export
from mofme.vision import restorer as module
from mofme.vision.export import export_net
from mofme.vision.models import load_net
from mofme.vision.nets.unet import RestorationNet
from mofme.vision.onnx import OnnxRestorer, load_onnx
from mofme.vision.picture.file import read_picture
from mofme.vision.restorer import Restorer
from mofme.vision.tiling import thumbnail

README = Path(__file__).parents[2] / "README.md"


def run(*words: object) -> Result:
    return CliRunner().invoke(app, ["export", *map(str, words)])


def save_tiny(folder: Path, kind: str) -> Path:
    """A net that changes pictures a lot, and by their thumbnail."""
    torch.manual_seed(0)
    arguments = {"widths": [8, 8, 8], "blocks": [1, 1, 1], "feed_forward": kind, "num_experts": 6}
    net = RestorationNet(**arguments)
    nn.init.normal_(net.head.weight, std=0.3)
    nn.init.normal_(net.context.project.weight)
    save_model(folder, ModelCard("tiny", "restoration", arguments, "CC0"), net.state_dict())
    return folder


@pytest.fixture(scope="module", autouse=True)
def written_once() -> Iterator[None]:
    """The graph of a net is written once for both formats: it takes longer than all else here."""
    kept: dict[str, bytes] = {}
    write = export._whole_net

    def once(net: RestorationNet) -> bytes:
        key = f"{net} {checksum(net.state_dict())}"
        if key not in kept:
            kept[key] = write(net)
        return kept[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "_whole_net", once)
        yield


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped restorer as an ONNX file."""
    path = tmp_path_factory.mktemp("export") / "small.onnx"
    done = run("small", path)
    assert done.exit_code == 0, done.stderr
    assert "differ by at most 0.0" in done.stderr
    return path


@pytest.fixture
def photo() -> Tensor:
    """Real rain, and sides that are no multiples of 8."""
    return read_picture(ASSETS / "before-after.jpg").rgb[:, 20:121, 100:233]


def without_tone(photo: Tensor, name: str, monkeypatch: pytest.MonkeyPatch) -> Tensor:
    monkeypatch.setattr(module, "bf16_pays", lambda device: False)
    return Restorer(load_net(name)[0], name)(photo).image


def test_it_restores_any_size_as_the_restorer_does(small: Path, photo: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    restore = OnnxRestorer(load_onnx(small))
    for picture in (photo, photo[:, :40, :72]):
        expected = without_tone(picture, "small", monkeypatch)
        assert (restore(picture) - expected).abs().max() <= 1 / 255
        assert (picture - expected).abs().max() > 0.1  # it does restore
    model = onnx.load(small)
    shapes = {
        value.name: [one.dim_param or one.dim_value for one in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    anything = [1, 3, "height", "width"]
    assert shapes == {"image": anything, "thumbnail": [1, 3, 64, 64], "restored": anything}
    about = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(about["card"]) == asdict(load_card(WEIGHTS / "small"))
    assert (about["multiple_of"], about["colour_order"], about["range"]) == ("8", "RGB", "0 to 1")


def has_javascript_runtime() -> bool:
    asked = [shutil.which("node") or "", "-e", "require('onnxruntime-node'); require('pngjs')"]
    return bool(asked[0]) and subprocess.run(asked, capture_output=True).returncode == 0


@pytest.mark.parametrize("language", ["python", "js"])
def test_the_readme_restores_a_photo_by_it(
    small: Path, photo: Tensor, monkeypatch: pytest.MonkeyPatch, language: str
) -> None:
    if language == "js" and not has_javascript_runtime():
        pytest.skip("needs node with onnxruntime-node and pngjs in NODE_PATH")
    monkeypatch.chdir(small.parent)
    name = "photo.jpg" if language == "python" else "photo.png"
    Image.fromarray((photo * 255).round().byte().permute(1, 2, 0).numpy()).save(name, quality=95)
    blocks = re.findall(rf"```{language}\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    (example,) = [block for block in blocks if "onnxruntime" in block]
    if language == "python":
        exec(compile(example, "README.md", "exec"), {})
    else:
        subprocess.run(["node", "-e", example], check=True)
    expected = without_tone(read_picture(Path(name)).rgb, "small", monkeypatch)
    found = np.asarray(Image.open("clear.png").convert("RGB")).transpose(2, 0, 1) / 255
    assert np.abs(found - expected.numpy()).max() <= 1.5 / 255  # half a level by rounding to 8 bits


def test_openvino_takes_any_size_and_tells_what_it_takes(
    tmp_path: Path, photo: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "small.xml"
    assert run("small", path, "--format", "openvino").exit_code == 0
    assert sorted(file.name for file in tmp_path.iterdir()) == ["small.bin", "small.xml"]
    net = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    picture = photo[:, :40, :72]
    seen = [picture[None].numpy(), thumbnail(picture, 64)[None].numpy()]
    assert np.abs(net(seen)[0][0] - without_tone(picture, "small", monkeypatch).numpy()).max() <= 1 / 255
    about = openvino.Core().read_model(path).get_rt_info(["mofme"]).value
    assert (about["multiple_of"], about["colour_order"]) == ("8", "RGB")
    path.write_text("earlier")
    again = run("small", path, "--format", "openvino")
    assert again.exit_code == 2 and "exists already" in again.stderr and path.read_text() == "earlier"
    assert run("small", path, "--format", "openvino", "--overwrite").exit_code == 0 and path.read_text() != "earlier"
    assert "name ends in .xml" in " ".join(run("small", tmp_path / "new", "--format", "openvino").stderr.split())


def test_torchscript_for_parts_and_their_whole(tmp_path: Path, photo: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    name, path = str(save_tiny(tmp_path / "tiny", "mofme")), tmp_path / "tiny.pt"
    assert export_net(name, path, "torchscript") <= 1e-4
    about = {"metadata.json": ""}
    with pytest.warns(DeprecationWarning):
        net = torch.jit.load(path, _extra_files=about)
    assert json.loads(json.loads(about["metadata.json"])["card"])["name"] == "tiny"
    part, whole = photo[None, :, :64, :80].contiguous(), thumbnail(photo, 64)[None]
    with torch.no_grad():
        mine = load_net(name)[0](part, load_net(name)[0].encode_context(whole)).image.clamp(0, 1)
        assert (net(part, whole) - mine).abs().max() <= 1 / 255
        assert (net(part, thumbnail(part[0], 64)[None]) - mine).abs().max() > 1 / 255  # the thumbnail counts


@pytest.mark.parametrize(
    ("kind", "format", "why"),
    [("mofme-sampled", "torchscript", "otherwise than the net, by up to"), ("moe", "onnx", "conventional mixture")],
)
def test_what_would_restore_otherwise_is_no_file(tmp_path: Path, kind: str, format: str, why: str) -> None:
    model = save_tiny(tmp_path / "model", kind)
    (tmp_path / "out").write_text("earlier")
    done = run(model, tmp_path / "out", "--format", format, "--overwrite")
    assert done.exit_code == 2
    said = " ".join(done.stderr.split())
    assert f"model cannot be exported as {format}: " in said and why in said
    assert (tmp_path / "out").read_text() == "earlier"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "out"]


def test_wrong_names_and_missing_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match="no model is called 'nowhere'"):
        export_net("nowhere", tmp_path / "out")
    with pytest.raises(ModelError, match="choose one of onnx, openvino, torchscript"):
        export_net("small", tmp_path / "out", "tiff")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ModelError, match="pip install onnx"):
        export_net("small", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
