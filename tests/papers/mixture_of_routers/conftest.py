import copy
from collections.abc import Iterator
from functools import cache

import pytest

from mofme.language.minilm import MiniLM


@pytest.fixture(scope="module", autouse=True)
def read_once() -> Iterator[None]:
    """The encoder is read from its file once, and copied for all who wrap its layers."""
    once = cache(MiniLM.pretrained)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MiniLM, "pretrained", lambda: copy.deepcopy(once()))
        yield
