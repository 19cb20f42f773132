"""Preprocessing: how a file becomes what a backbone is shown, told to programs without gelkit."""

from __future__ import annotations

from typing import Any

from gelkit.features.recipe import Recipe
from gelkit.images.formats import POLARITIES, DecodeOptions
from gelkit.images.luminance import WEIGHTS
from gelkit.images.views import GEOMETRIES, INTERPOLATIONS, WINDOWS

SCHEMA = "gelkit preprocessing 1"
INPUT = "greys"
"""What the model's input is called."""

_PERCENTILES = {"percentile": [0.1, 99.9], "full": None}

_PROGRAM = '''\
"""Classify 8-bit images (PNG, JPEG, TIFF, ...): python classify.py IMAGE...

Prints a line for each image and class: image, class, probability. Images that cannot be classified
are named at the end; the exit status is then 1.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

FOLDER = Path(__file__).parent


def read_grey(path):
    with Image.open(path) as file:
        if getattr(file, "n_frames", 1) > 1:
            raise ValueError(f"expected one picture, received {file.n_frames}")
        image = ImageOps.exif_transpose(file)
    if image.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA"):
        raise ValueError(f"expected 8 bits of grey or colour, received the mode {image.mode}")
    return lay_on_white(image.convert("RGB").convert("L"), image.convert("RGBA").getchannel("A"))


def lay_on_white(grey, alpha):
    opacity = np.asarray(alpha, np.float32) / np.float32(255)
    laid = np.asarray(grey, np.float32) / np.float32(255) * opacity + (1 - opacity)
    return Image.fromarray(np.rint(np.clip(laid, 0, 1) * 255).astype(np.uint8))


def resize(grey, width, height):
    return np.asarray(grey.resize((width, height), Image.Resampling.{filter}))


def render(grey):
    size = {size}
{rendering}

def main(paths):
    if not paths:
        print("usage: python classify.py IMAGE...", file=sys.stderr)
        return 2
    model, providers = FOLDER / "model.onnx", ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(model, providers=providers)
    classes = json.loads((FOLDER / "model.json").read_bytes())["classes"]
    failures = []
    for path in paths:
        try:
            greys = render(read_grey(path))[np.newaxis, np.newaxis]
        except Exception as error:  # Pillow raises of any kind for files that are broken
            failures.append(f"  {path}: {error}")
            continue
        (probabilities,) = session.run(["probabilities"], {"greys": greys})
        for name, probability in zip(classes, probabilities[0]):
            print(f"{path}\\t{ascii(name)}\\t{probability:.6f}")
    if failures:
        failures.insert(0, f"Not classified: {len(failures)} of {len(paths)}")
        print(*failures, sep="\\n", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
'''

_RENDERING = {
    "stretch": """\
    return resize(grey, size, size)
""",
    "pad": """\
    scale = size / max(grey.size)
    width, height = (max(1, round(side * scale)) for side in grey.size)
    inner = resize(grey, width, height)
    border = np.concatenate([inner[0], inner[-1], inner[:, 0], inner[:, -1]])
    view = np.full((size, size), int(np.median(border)), np.uint8)
    top, left = (size - height) // 2, (size - width) // 2
    view[top : top + height, left : left + width] = inner
    return view
""",
}
"""The body of the program's ``render``, by geometry."""


def describe_preprocessing(recipe: Recipe) -> dict[str, Any]:
    """Return, for JSON, how a file becomes a view, and how the model normalises that."""
    red, green, blue = WEIGHTS
    return {
        "schema": SCHEMA,
        "decode_version": recipe.decode_version,
        "view_version": recipe.view_version,
        "decoding": {
            "scale": "linear from 0 (black) to 1 (white): the full range of the file's type, or up "
            "to the maximum that the file states",
            "orientation": "applied once",
            "transparency": "laid on white",
            "luminance": {"red": red, "green": green, "blue": blue, "of": "values as stored"},
            "luminance_of_8_bits": "rounded to whole numbers of 0 to 255 before resizing",
            "page": recipe.page,
            "channel": recipe.channel,
            "polarity": {
                "name": recipe.polarity,
                "meaning": POLARITIES[recipe.polarity],
                "guessed_where_unknown": recipe.guess_polarity,
            },
        },
        "window": {
            "name": recipe.window,
            "meaning": WINDOWS[recipe.window],
            "percentiles": _PERCENTILES[recipe.window],
            "of_more_bits_than": 8,
            "interpolation": "linear between order statistics, as numpy.percentile",
        },
        "geometry": {"name": recipe.geometry, "meaning": GEOMETRIES[recipe.geometry]},
        "resize": {
            "size": recipe.view_size,
            "filter": recipe.interpolation,
            "antialias": recipe.interpolation != "nearest",
            "as": "Pillow's Image.resize",
        },
        "rounding": "clipped to 0 and 1, times 255, to the nearest whole number, halves to even",
        "input": {
            "name": INPUT,
            "dtype": "uint8",
            "layout": "NCHW",
            "shape": ["images", 1, recipe.view_size, recipe.view_size],
            "black": 0,
            "white": 255,
        },
        "normalisation": {
            "inside_the_model": True,
            "of": "grey / 255, copied to red, green and blue",
            "mean": list(recipe.mean),
            "std": list(recipe.std),
        },
    }


def classifying_program(recipe: Recipe) -> str | None:
    """Return a Python program that classifies 8-bit images by ``model.onnx`` and ``model.json``.

    It needs onnxruntime, NumPy and Pillow, and shows images to the model as gelkit does.

    :returns: None if the recipe chooses a page, a channel or a polarity: that takes gelkit.
    """
    if recipe.decoding != DecodeOptions():
        return None
    parts = {
        "{filter}": INTERPOLATIONS[recipe.interpolation].name,
        "{size}": str(recipe.view_size),
        "{rendering}\n": _RENDERING[recipe.geometry],
    }
    program = _PROGRAM
    for place, part in parts.items():
        program = program.replace(place, part)
    return program
