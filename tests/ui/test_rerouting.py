from pathlib import Path

import pytest
import torch

from mofme.core.weights import checksum
from mofme.errors import ModelError
from mofme.ui.jobs import Engine, Job
from mofme.ui.one_photo import Settings, restore_photo
from mofme.ui.tabs.restore import _report, _show
from mofme.vision.rerouting import References


def test_a_photo_is_re_routed_when_asked_for(engine: Engine, photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = engine.restorer("small").net
    layers = sum(name.endswith(".router") for name, _ in net.named_modules())
    made = References(
        model="small",
        model_sha256=checksum(net.state_dict()),
        embedding_ND=torch.randn(6, 2 * 96),
        routing_NR=torch.randn(6, 16 * layers),
        step_NR=torch.randn(6, 16 * layers),
        kind_N=torch.zeros(6, dtype=torch.long),
        gain_N=torch.ones(6),
    )
    monkeypatch.setattr(References, "load", lambda: made)
    result = restore_photo(engine, Job(60), photo, Settings("small", reroute=True), megapixels=1)
    assert result.rerouted is not None and result.rerouted.moved > 0
    assert result.rerouted.restoration is result.restoration
    assert _report(result)["moved"] == round(result.rerouted.moved, 4)
    assert "Re-routed" in _show(result)[1]
    plain = restore_photo(engine, Job(60), photo, Settings("small"), megapixels=1)
    assert plain.rerouted is None and "Re-routed" not in _show(plain)[1]


def test_weights_without_references_say_what_to_type(engine: Engine, photo: Path) -> None:
    with pytest.raises(ModelError, match="build-references"):
        restore_photo(engine, Job(60), photo, Settings("small", reroute=True), megapixels=1)
