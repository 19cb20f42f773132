"""Export: a saved head and its backbone as one folder, for programs without gelkit."""

from __future__ import annotations

import json
import logging
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from hashlib import file_digest
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from gelkit.analyses.preprocessing import INPUT, classifying_program, describe_preprocessing
from gelkit.errors import GelkitError, UsageError
from gelkit.features.freezing import freeze
from gelkit.features.hardware import open_device
from gelkit.features.recipe import Recipe
from gelkit.features.weights import load_weights
from gelkit.features.workers import Prepared, Rendering, Task, prepare
from gelkit.files import make_folder, rename, write_atomically
from gelkit.heads.comparison import TRAINING_MANIFEST
from gelkit.heads.reuse import find_model, read_heads
from gelkit.heads.saved import SavedHead, head_path
from gelkit.heads.training import load_head, predict
from gelkit.images.catalog import Catalog, read_catalog
from gelkit.images.samples import draw_samples
from gelkit.progress import Progress, silent

if TYPE_CHECKING:
    import keras

    from gelkit.features.frozen import FrozenBackbone

TOLERANCE = 1e-4
"""Between the probabilities of ONNX Runtime and those of torch and Keras."""

EMBEDDING_TOLERANCE = 1e-3
"""Between their embeddings, relative to the largest value: a head that is always sure would hide
what went wrong before it."""

MODEL_FILE = "model.onnx"
DESCRIPTION_FILE = "model.json"
PREPROCESSING_FILE = "preprocessing.json"
HEAD_FILE = "head.keras"
PROGRAM_FILE = "classify.py"
README_FILE = "README.md"

_SCHEMA = "gelkit model 1"
_NUM_CHECKED = 12
"""Images at most."""
_PACKAGES = ("onnx", "onnxruntime", "onnxscript")
_OUTPUTS = ("embeddings", "probabilities")


@dataclass(frozen=True)
class Agreement:
    """How far ONNX Runtime is from torch and Keras on the same images."""

    images: int
    of: str
    """``training images``, or ``drawn samples`` if those are not where they were."""
    probability_difference: float
    """The largest, absolute."""
    embedding_difference: float
    """The largest, relative to the largest value."""

    def __str__(self) -> str:
        return (
            f"probabilities within {self.probability_difference:.1e} and embeddings within "
            f"{self.embedding_difference:.1e} on {self.images} {self.of}"
        )


@dataclass(frozen=True)
class Exported:
    """What was exported, and where it is."""

    folder: Path
    head: SavedHead
    agreement: Agreement


def export_model(
    out: str | Path,
    destination: str | Path,
    *,
    model: int | Literal["best"] = "best",
    progress: Progress = silent,
) -> Exported:
    """Write a saved head and its backbone into a new folder, for use without gelkit.

    ``model.onnx`` goes from views (images x 1 x height x width), uint8, to embeddings and to
    probabilities, normalisation and standardisation included: one file, so that no program can
    put together parts that do not belong together, and whole numbers, so that greys of 0 to 1 are
    refused instead of taken for black. ``preprocessing.json`` describes how a file becomes a view,
    ``model.json`` names classes, recipe and fingerprints; ``head.keras`` is the head as it was
    saved, ``classify.py`` a small program for 8-bit images.

    ONNX Runtime is compared with torch and Keras on images that the head was trained on; where
    they disagree by more than :data:`TOLERANCE` nothing is left. It takes memory for some copies of
    the weights: 3 GB for vgg16, 1.3 GB for the others.

    :param out: the folder that :func:`gelkit.compare` wrote.
    :param destination: a folder that does not exist, or is empty.
    :param model: an id of results.csv, or the one that cross-validation chose.
    :raises UsageError: no results there, no such model, or a destination that is not empty.
    :raises GelkitError: a package is missing, the head is lost or damaged, the recipe cannot be
        had again or is not in float32, the model cannot be said in ONNX, the two disagree, or the
        disk refused.
    :raises WeightsError: the weights cannot be had, or are not what they are called.
    """
    out, destination = Path(out), Path(destination)
    _require_packages()
    _require_new(destination)
    head = _find_head(out, model)
    what = f"export {head.configuration.name}"
    progress(what, 0, 3)
    with _new_folder(destination) as folder:
        frozen, weights_sha256 = _load_backbone(head)
        keras_head = load_head(head_path(out, head.configuration))
        _write_onnx(frozen, keras_head, head.recipe.view_size, folder / MODEL_FILE)
        progress(what, 1, 3)
        agreement = _checked(folder / MODEL_FILE, frozen, keras_head, out, head.recipe)
        progress(what, 2, 3)
        shutil.copyfile(head_path(out, head.configuration), folder / HEAD_FILE)
        exported = Exported(destination, head, agreement)
        _write_texts(folder, exported, weights_sha256)
    progress(what, 3, 3)
    return exported


def _require_packages() -> None:
    missing = [package for package in _PACKAGES if find_spec(package) is None]
    if missing:
        raise GelkitError(
            f"Expected the packages {', '.join(_PACKAGES)}, to write and check ONNX. Received: an "
            f"environment without {', '.join(missing)}. Install them with pip install "
            '"gelkit[onnx]".'
        )


def _require_new(destination: Path) -> None:
    if destination.exists() and not (destination.is_dir() and not any(destination.iterdir())):
        raise UsageError(
            f"Expected a folder that is new or empty. Received: {str(destination)!r}. Choose "
            "another name, or remove it."
        )


def _find_head(out: Path, model: int | Literal["best"]) -> SavedHead:
    head = find_model(read_heads(out), model, out)
    if head.recipe.precision != "float32":
        raise GelkitError(
            f"Expected a head that was trained on embeddings in float32, in which an exported "
            f"model computes. Received: {head.configuration.name}, in {head.recipe.precision}. "
            "Train it again without --precision."
        )
    return head


@contextmanager
def _new_folder(destination: Path) -> Iterator[Path]:
    """Yield a folder to fill, which takes its name when it is full, and is gone if that fails."""
    destination = destination.absolute()
    folder = destination.with_name(f".{destination.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        make_folder(folder)
        yield folder
        rename(folder, destination)
    except OSError as error:
        raise GelkitError(
            f"Expected to write {destination}. Received: {error.strerror or error}. Make room, or "
            "choose another folder; nothing was left."
        ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _load_backbone(head: SavedHead) -> tuple[FrozenBackbone, str]:
    row, options = head.recipe.network, head.options
    model, sha256 = load_weights(row, options.weights, options.weights_seed, options.weights_dir)
    return freeze(model, row), sha256


def _write_onnx(frozen: FrozenBackbone, head: keras.Model, size: int, path: Path) -> None:
    """Write backbone and head as one graph, for any number of views of a size."""
    import torch

    class Whole(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = frozen
            self.head = head

        def forward(self, greys: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            embeddings = self.backbone(greys.float())
            return embeddings, self.head(embeddings, training=False)

    example = torch.zeros((2, 1, size, size), dtype=torch.uint8)
    try:
        with torch.no_grad(), _quiet("torch.onnx"):
            torch.onnx.export(
                Whole().eval(),
                (example,),
                path,
                dynamo=True,
                external_data=False,
                input_names=[INPUT],
                output_names=_OUTPUTS,
                # attention of torch's own asks whether there is one image; the check tries that
                dynamic_shapes={INPUT: {0: torch.export.Dim("images", min=2)}},
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        raise GelkitError(
            f"Expected a backbone and a head that ONNX can express. Received: {error} Use another "
            "configuration, or the .keras file."
        ) from error


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Keep a logger to errors: torch warns of operators of torchvision that are not used."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _checked(
    path: Path, frozen: FrozenBackbone, head: keras.Model, out: Path, recipe: Recipe
) -> Agreement:
    """Compare ONNX Runtime with torch and Keras, for one image and for several at once.

    :raises GelkitError: they disagree.
    """
    views, of = _views_to_check(out, recipe)
    device = open_device("cpu")
    device.prepare(frozen, len(views))
    embeddings = device.run(views)
    expected = embeddings, predict(head, embeddings)
    given = [np.concatenate(pair) for pair in zip(*_run(path, views), strict=True)]
    differences = [
        float(np.abs(its - those).max()) for its, those in zip(given, expected, strict=True)
    ]
    largest = float(np.abs(embeddings).max()) or 1.0
    agreement = Agreement(len(views), of, differences[1], differences[0] / largest)
    if not (
        agreement.probability_difference <= TOLERANCE
        and agreement.embedding_difference <= EMBEDDING_TOLERANCE
    ):
        raise GelkitError(
            f"Expected ONNX Runtime to agree with torch and Keras (probabilities within "
            f"{TOLERANCE:.0e}, embeddings within {EMBEDDING_TOLERANCE:.0e}). Received: "
            f"{agreement}. Nothing was left; try other versions of torch, onnx and onnxruntime."
        )
    return agreement


def _run(path: Path, views: npt.NDArray[np.uint8]) -> list[list[npt.NDArray[np.float32]]]:
    """Return embeddings and probabilities of the first view alone, then of the others at once."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    batches = (views[:1], views[1:])
    return [session.run(_OUTPUTS, {INPUT: batch[:, np.newaxis]}) for batch in batches]


def _views_to_check(out: Path, recipe: Recipe) -> tuple[npt.NDArray[np.uint8], str]:
    try:
        catalog = read_catalog(out / TRAINING_MANIFEST, allow_outside=True)
    except UsageError:  # the images were moved: others do for a comparison of programs
        catalog = Catalog("", ())
    views = _render(catalog, recipe)
    if len(views) > 1:
        return np.stack(views), "training images"
    with TemporaryDirectory() as folder:
        draw_samples(Path(folder, "samples"), count=_NUM_CHECKED)
        return np.stack(_render(read_catalog(Path(folder, "samples")), recipe)), "drawn samples"


def _render(catalog: Catalog, recipe: Recipe) -> list[npt.NDArray[np.uint8]]:
    """Return the views of some of a catalog's images, evenly spread, that can be read."""
    rendering = Rendering(
        recipe.geometry,
        recipe.window,
        recipe.view_size,
        recipe.interpolation,
        decoding=recipe.decoding,
    )
    chosen = catalog.images[:: max(1, -(-len(catalog) // _NUM_CHECKED))]
    prepared = [
        prepare(
            Task(image.path, image.name, sha256="", page=image.page, channel=image.channel),
            rendering,
        )
        for image in chosen
    ]
    return [image.views[0] for image in prepared if isinstance(image, Prepared)]


def _write_texts(folder: Path, exported: Exported, weights_sha256: str) -> None:
    recipe = exported.head.recipe
    texts = {
        DESCRIPTION_FILE: _json(_describe(folder, exported, weights_sha256)),
        PREPROCESSING_FILE: _json(describe_preprocessing(recipe)),
        README_FILE: _readme(exported),
    }
    program = classifying_program(recipe)
    if program is not None:
        texts[PROGRAM_FILE] = program
    for name, text in texts.items():
        write_atomically(folder / name, text.encode())


def _describe(folder: Path, exported: Exported, weights_sha256: str) -> dict[str, Any]:
    head = exported.head
    return {
        "schema": _SCHEMA,
        "classes": head.classes,
        "outputs": _OUTPUTS,
        "configuration": asdict(head.configuration),
        "recipe": asdict(head.recipe),
        "fingerprints": {
            "recipe": head.recipe.sha256,
            "weights": weights_sha256,
            "head": head.fingerprint,
            **{name: head.row[f"{name}_fingerprint"] for name in ("dataset", "splits", "cache")},
            **{name: _sha256(folder / name) for name in (MODEL_FILE, HEAD_FILE)},
        },
        "agreement": {
            **asdict(exported.agreement),
            "probability_tolerance": TOLERANCE,
            "embedding_tolerance": EMBEDDING_TOLERANCE,
        },
        "versions": {name: version(name) for name in ("gelkit", "torch", "keras", *_PACKAGES)},
    }


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return file_digest(file, "sha256").hexdigest()


def _json(values: dict[str, Any]) -> str:
    return json.dumps(values, indent=1) + "\n"


def _readme(exported: Exported) -> str:
    head = exported.head
    program = classifying_program(head.recipe)
    return _README.format(
        name=head.configuration.name,
        weights=head.recipe.weights,
        size=head.recipe.view_size,
        agreement=exported.agreement,
        run=_NO_PROGRAM if program is None else _RUN.format(program=program),
        random=_RANDOM if head.recipe.weights == "random" else "",
    )


_README = """\
# {name}

A frozen backbone (weights: {weights}) and a trained head as one ONNX model, exported by gelkit.
{random}
| file | what it is |
|---|---|
| `model.onnx` | from `greys`, uint8 (images x 1 x {size} x {size}), to `embeddings` and \
`probabilities`, float32; normalisation and standardisation are inside |
| `preprocessing.json` | how a file becomes such greys, for any depth and format |
| `model.json` | the classes in the order of `probabilities`, the recipe, fingerprints, versions |
| `head.keras` | the head alone, for Keras 3: from `embeddings` to `probabilities` |

ONNX Runtime agreed with torch and Keras: {agreement}.

Probabilities are the head's own, not calibrated, and some class is always the most probable, \
whatever the image shows. `gelkit predict` calibrates, says when it is unsure, and warns of images \
unlike all that the head has seen.

{run}"""

_RUN = """\
## Classify an image

`classify.py` shows 8-bit images to the model as gelkit does, to the last grey:

    pip install onnxruntime numpy pillow
    python classify.py IMAGE...

It prints image, class and probability, a line for each class. Images that it cannot classify are \
named at the end, and the exit status is then 1. It reads:

```python
{program}```

An image of more than 8 bits has to be windowed first, as `preprocessing.json` says: read by Pillow
as it is, it would turn white or black.
"""

_NO_PROGRAM = """\
The head was trained with a chosen page, channel or polarity, which takes gelkit: make the
greys as `preprocessing.json` says, or use `gelkit predict`.
"""

_RANDOM = """
**The backbone's weights are random: this shows how to use a model, and classifies poorly.**
"""
