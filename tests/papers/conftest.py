"""The tiny language model that papers' tests share with those of what the papers stand on."""

from tests.language.conftest import tiny_pretrained

__all__ = ["tiny_pretrained"]
