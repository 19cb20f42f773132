"""Real files: one blot that an imager exported in four ways is one picture.

The folder named by GELKIT_FORMATS holds the four; it comes from the tests of biorad1sc_reader.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from gelkit.images.formats import DecodedImage, DecodeOptions, decode

FOLDER = os.environ.get("GELKIT_FORMATS")

pytestmark = pytest.mark.skipif(FOLDER is None, reason="GELKIT_FORMATS names no folder")

AS_SHOWN = {
    "chemidoc_blackiszero_16bit.tif": ("unknown", True),
    "chemidoc_imagelab_export_16bit.tif": ("light-background", False),
    "chemidoc_inverted_16bit.tif": ("unknown", False),
    "chemidoc_raw.1sc": ("dark-background", True),
}
"""By file: the polarity that it says, and whether it is shown light on dark."""


def _decoded(name: str, options: DecodeOptions | None = None) -> DecodedImage:
    return decode((Path(FOLDER or "") / name).read_bytes(), options or DecodeOptions())


@pytest.mark.parametrize("name", AS_SHOWN)
def test_a_blot_is_the_same_picture_in_every_format(name: str) -> None:
    """One blot would give four embeddings, by the way it was exported."""
    polarity, light_on_dark = AS_SHOWN[name]
    truth = _decoded("chemidoc_blackiszero_16bit.tif").pixels
    decoded = _decoded(name)
    expected = truth if light_on_dark else 1 - truth
    np.testing.assert_allclose(decoded.pixels, expected, atol=1e-6)
    assert decoded.record.polarity == polarity


@pytest.mark.parametrize("name", AS_SHOWN)
def test_a_background_that_is_asked_for_is_had_in_every_format(name: str) -> None:
    """The four exports would not be brought to one polarity."""
    truth = _decoded("chemidoc_blackiszero_16bit.tif").pixels
    options = DecodeOptions(polarity="dark-background", guess_polarity=True)
    np.testing.assert_allclose(_decoded(name, options).pixels, truth, atol=1e-6)
