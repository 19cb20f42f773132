"""Export: what a program without gelkit computes is what gelkit says."""

from __future__ import annotations

import ast
import io
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tifffile
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from torch import nn
from torchvision.models._api import register_model

import gelkit
from gelkit.analyses import export
from gelkit.analyses.export import Exported, export_model
from gelkit.analyses.preprocessing import classifying_program, describe_preprocessing
from gelkit.errors import GelkitError, UsageError
from gelkit.features.backbones import BACKBONES, Backbone, Preprocessing, get_backbone
from gelkit.features.cache import Cache
from gelkit.features.freezing import freeze
from gelkit.features.recipe import RecipeOptions, make_recipe
from gelkit.features.workers import Rendering, Setup, Task
from gelkit.heads.configurations import choose_configurations
from gelkit.heads.saved import head_path, read_record, write_record
from gelkit.heads.training import Settings, load_head, predict
from gelkit.images.catalog import Catalog
from gelkit.images.formats import decode
from gelkit.images.views import GEOMETRIES, render

RANDOM = RecipeOptions(weights="random")
SETTINGS = Settings(folds=2, repeats=1, epochs=2, learning_rate=0.01)
TINY = "tiny"


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def trained(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Catalog, Path]:
    """Return the sample images, and a folder with a cache and the heads trained on them."""
    return _train(samples, tmp_path_factory.mktemp("trained"), "resnet18")


@pytest.fixture(scope="module")
def exported(trained: tuple[Catalog, Path]) -> Exported:
    """Return what an export of the best head of :func:`trained` gives."""
    return export_model(trained[1], trained[1] / "exported")


@pytest.fixture(scope="module")
def tiny(
    trained: tuple[Catalog, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Catalog, Path]]:
    """Return the same with a backbone of one layer, which is exported in a moment."""

    @register_model("gelkit_test_tiny")
    def build(*, weights: None = None) -> nn.Module:
        return _Tiny()

    row = replace(get_backbone("resnet18"), name=TINY, model="gelkit_test_tiny")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BACKBONES, TINY, replace(row, width=4))
        yield _train(trained[0].images[0].path.parents[1], tmp_path_factory.mktemp(TINY), TINY)


class _Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 32, stride=32)
        self.fc = nn.Linear(4, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        embeddings: torch.Tensor = self.fc(self.conv(images).mean((2, 3)))
        return embeddings


def _train(data: Path, out: Path, backbone: str) -> tuple[Catalog, Path]:
    catalog = gelkit.read_catalog(data)
    setup = Setup(
        backbone=get_backbone(backbone),
        weights="random",
        weights_seed=0,
        weights_dir=None,
        hardware="cpu",
        kernel="torch",
        precision="float32",
        rendering=Rendering(),
        batch_size=4,
        provenance={},
        **_decoders(),
    )
    digests = [sha256(image.path.read_bytes()).hexdigest() for image in catalog.images]
    tasks = [
        Task(image.path, image.name, digest)
        for image, digest in zip(catalog.images, digests, strict=True)
    ]
    rows = setup.open()([setup.prepare(task) for task in tasks]).rows
    assert rows is not None
    Cache(out / "features", make_recipe(backbone, "cpu", RANDOM)).publish(rows)
    gelkit.compare(
        catalog,
        cache=out / "features",
        out=out,
        configurations=choose_configurations(("cpu",), (backbone,), (), ("adam",)),
        options=RANDOM,
        settings=SETTINGS,
    )
    return catalog, out


def _decoders() -> dict[str, Any]:
    """Return how many decode ahead: nobody, whatever the setup calls it."""
    return {
        name: 0 for name in ("decoding_threads", "decoders") if name in Setup.__dataclass_fields__
    }


def _expected(trained: tuple[Catalog, Path], exported: Exported) -> tuple[np.ndarray, np.ndarray]:
    """Return the cached embeddings, and what Keras makes of them."""
    catalog, out = trained
    embeddings = gelkit.load(catalog, cache=out / "features", options=RANDOM).values
    head = load_head(head_path(out, exported.head.configuration))
    return embeddings, predict(head, embeddings)


def _plain(catalog: Catalog) -> list[int]:
    """Return the numbers of the opaque 8-bit images."""
    numbers = []
    for number, image in enumerate(catalog.images):
        with Image.open(image.path) as picture:
            if picture.mode in ("L", "P", "RGB", "RGBA"):
                numbers.append(number)
    return numbers


@pytest.mark.exhaustive("exhaustive grids")
def test_the_program_classifies_as_gelkit_does(
    trained: tuple[Catalog, Path], exported: Exported
) -> None:
    """Outside of gelkit an image would be given other probabilities, without a word."""
    plain = _plain(trained[0])
    paths = [str(trained[0].images[number].path) for number in plain]
    program = exported.folder / "classify.py"
    without_gelkit = (
        "import runpy, sys\n"
        "sys.modules |= dict.fromkeys(('torch', 'torchvision', 'keras', 'gelkit'))\n"
        "sys.argv.pop(0)\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    run = subprocess.run(
        [sys.executable, "-c", without_gelkit, program, *paths],
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [line.split("\t") for line in run.stdout.splitlines()]
    assert [line[:2] for line in lines] == [
        [path, repr(name)] for path in paths for name in exported.head.classes
    ]
    given = np.array([float(line[2]) for line in lines]).reshape(len(paths), -1)
    assert len(paths) > 8
    assert np.abs(given - _expected(trained, exported)[1][plain]).max() < 1e-4


def _classify(exported: Exported, *paths: object) -> subprocess.CompletedProcess[str]:
    program = exported.folder / "classify.py"
    command = [sys.executable, program, *map(str, paths)]
    return subprocess.run(command, capture_output=True, text=True)


def test_the_program_goes_on_after_an_image_that_it_cannot_classify(
    trained: tuple[Catalog, Path], exported: Exported, tmp_path: Path
) -> None:
    """One bad file among hundreds would leave the rest without an answer, or hide itself."""
    (tmp_path / "text.png").write_text("no image")
    bad = [tmp_path / "gone.png", tmp_path, tmp_path / "text.png"]
    good = trained[0].images[_plain(trained[0])[0]].path
    run = _classify(exported, *bad, good)
    assert run.returncode == 1
    lines = [line.split("\t")[0] for line in run.stdout.splitlines()]
    assert lines == [str(good)] * len(exported.head.classes)
    assert run.stderr.startswith("Not classified: 3 of 4\n")
    assert [line.split(": ")[0] for line in run.stderr.splitlines()[1:]] == [f"  {p}" for p in bad]


def test_the_program_says_how_it_is_used(exported: Exported) -> None:
    """Someone who is given the folder would see nothing, and believe that it works."""
    run = _classify(exported)
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.startswith("usage: python classify.py IMAGE")


def test_the_model_takes_any_number_of_images(
    trained: tuple[Catalog, Path], exported: Exported
) -> None:
    """The model would work for one image and not for a folder, or have lost the embeddings."""
    import onnxruntime

    session = onnxruntime.InferenceSession(exported.folder / "model.onnx")
    files = [image.path.read_bytes() for image in trained[0].images[:5]]
    greys = np.stack([render(decode(data)) for data in files])[:, np.newaxis]
    expected = [values[:5] for values in _expected(trained, exported)]
    for count in (1, 2, 5):
        given = session.run(["embeddings", "probabilities"], {"greys": greys[:count]})
        for its, those in zip(given, expected, strict=True):
            assert np.abs(its - those[:count]).max() < 1e-4 * np.abs(those).max()


def test_greys_from_0_to_1_are_refused(exported: Exported) -> None:
    """Who scales images as for other models would get confident nonsense."""
    import onnxruntime
    from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

    session = onnxruntime.InferenceSession(exported.folder / "model.onnx")
    with pytest.raises(InvalidArgument, match="uint8"):
        session.run(None, {"greys": np.zeros((1, 1, 224, 224), np.float32)})


def test_the_head_is_the_one_that_was_chosen(
    trained: tuple[Catalog, Path], exported: Exported
) -> None:
    """Another head than the best, or one that cannot be traced, would be given away."""
    results = gelkit.read_results(trained[1] / "results.csv").set_index("model_id")
    answer = json.loads((trained[1] / "assessment.json").read_text())["answer"]
    assert exported.head.configuration.model_id == answer["winner"]
    description = json.loads((exported.folder / "model.json").read_text())
    row = results.loc[answer["winner"]]
    assert description["classes"] == row["classes"] == ["gel", "not_gel"]
    for name in ("dataset", "splits", "cache"):
        assert description["fingerprints"][name] == row[f"{name}_fingerprint"]
    for file in ("model.onnx", "head.keras"):
        digest = sha256((exported.folder / file).read_bytes()).hexdigest()
        assert description["fingerprints"][file] == digest
    saved = head_path(trained[1], exported.head.configuration)
    assert (exported.folder / "head.keras").read_bytes() == saved.read_bytes()
    agreement = description["agreement"]
    assert agreement["images"] == 10
    assert agreement["of"] == "training images"
    assert agreement["probability_difference"] < agreement["probability_tolerance"] == 1e-4


def test_the_folder_holds_what_its_readme_lists(exported: Exported) -> None:
    """Somebody who is given the folder would not find what is described, or run an old program."""
    readme = (exported.folder / "README.md").read_text()
    files = {path.name for path in exported.folder.iterdir()}
    assert {
        *re.findall(r"^\| `(.+?)` \|", readme, re.MULTILINE),
        "classify.py",
        "README.md",
    } == files
    program = (exported.folder / "classify.py").read_text()
    assert f"```python\n{program}```" in readme
    assert "weights are random" in readme


def test_the_normalisation_is_that_of_the_weights(exported: Exported) -> None:
    """Who rebuilds the model from its description would normalise by other constants."""
    description = json.loads((exported.folder / "preprocessing.json").read_text())
    assert description["normalisation"]["mean"] == [0.485, 0.456, 0.406]
    assert description["normalisation"]["std"] == [0.229, 0.224, 0.225]


@pytest.mark.exhaustive("exhaustive grids")
def test_other_heads_can_be_chosen_and_images_be_gone(
    tiny: tuple[Catalog, Path], tmp_path: Path
) -> None:
    """Only the best could be exported, or nothing any more when the images were moved."""
    (manifest,) = tiny[1].glob("training.csv")
    lines = manifest.read_bytes()
    manifest.write_bytes(lines.replace(b".png", b".gone.png"))
    answer = json.loads((tiny[1] / "assessment.json").read_text())["answer"]
    ids = gelkit.read_results(tiny[1] / "results.csv")["model_id"].tolist()
    (other,) = {*ids} - {answer["winner"]}
    try:
        exported = export_model(tiny[1], tmp_path / "exported", model=other)
        assert exported.head.configuration.model_id == other
        assert exported.agreement.of == "drawn samples"
    finally:
        manifest.write_bytes(lines)


def test_what_disagrees_is_not_left(
    tiny: tuple[Catalog, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that computes something else would be used for years."""

    def broken(self: _Tiny, images: torch.Tensor) -> torch.Tensor:
        pooled = self.conv(images).mean((2, 3))
        return self.fc(pooled * 1.01 if torch.compiler.is_exporting() else pooled)

    monkeypatch.setattr(_Tiny, "forward", broken)
    monkeypatch.setattr("gelkit.features.freezing._traced", lambda model: model)
    with pytest.raises(GelkitError, match=r"Expected ONNX Runtime to agree.*Nothing was left"):
        export_model(tiny[1], tmp_path / "exported")
    assert [*tmp_path.iterdir()] == []


def test_a_folder_that_is_not_empty_is_left_alone(
    trained: tuple[Catalog, Path], tmp_path: Path
) -> None:
    """Somebody's files would be mixed with the export's, or lost."""
    (tmp_path / "mine.txt").touch()
    with pytest.raises(UsageError, match="Expected a folder that is new or empty"):
        export_model(trained[1], tmp_path)
    with pytest.raises(UsageError, match="Expected a folder that is new or empty"):
        export_model(trained[1], tmp_path / "mine.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_disk_that_refuses_is_named(tiny: tuple[Catalog, Path], tmp_path: Path) -> None:
    """The user would see a traceback instead of what to do."""
    (tmp_path / "file").touch()
    with pytest.raises(GelkitError, match=r"Expected to write .*exported.*Make room"):
        export_model(tiny[1], tmp_path / "file" / "exported")


def test_a_model_that_is_not_there_is_refused(
    trained: tuple[Catalog, Path], tmp_path: Path
) -> None:
    """A mistyped id would export another head, or end in a traceback."""
    with pytest.raises(UsageError, match=r"Expected a model_id of results.csv \(1, 3\) or 'best'"):
        export_model(trained[1], tmp_path / "exported", model=99)


@pytest.mark.parametrize("package", ["onnx", "onnxruntime", "onnxscript"])
def test_a_package_that_is_missing_is_named(
    package: str, trained: tuple[Catalog, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user would not know what to install, or learn it after minutes."""
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(GelkitError, match=rf"without {package}\..*gelkit\[onnx\]"):
        export_model(trained[1], tmp_path / "exported")


def test_a_damaged_head_is_refused(tiny: tuple[Catalog, Path], tmp_path: Path) -> None:
    """A file that somebody exchanged would be exported under the old one's name."""
    (path, *_) = sorted((tiny[1] / "heads").glob("*.keras"))
    whole = path.read_bytes()
    model = int(path.name.partition("-")[0])
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    try:
        with pytest.raises(GelkitError, match=r"as it was trained\. Received: a file that is lost"):
            export_model(tiny[1], tmp_path / "exported", model=model)
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"decode_version": 1}, "Expected the recipe.*decode_version: 3 here, 1 there"),
        ({"precision": "bfloat16"}, "Expected a head .* in float32"),
    ],
    ids=["other version", "bfloat16"],
)
def test_a_recipe_that_cannot_be_had_is_refused(
    changed: dict[str, Any], message: str, tiny: tuple[Catalog, Path], tmp_path: Path
) -> None:
    """The model would be shown other pictures, or compute otherwise, than the head was taught."""
    configuration = choose_configurations(("cpu",), (TINY,), (), ("adam",))[0]
    saved = read_record(tiny[1], configuration)
    assert saved is not None
    options = replace(saved.options, precision=changed.get("precision", "float32"))
    write_record(tiny[1], replace(saved, recipe=replace(saved.recipe, **changed), options=options))
    try:
        with pytest.raises(GelkitError, match=message):
            export_model(tiny[1], tmp_path / "exported", model=configuration.model_id)
    finally:
        write_record(tiny[1], saved)


@st.composite
def pictures(draw: st.DrawFn) -> bytes:
    """Draw a small 8-bit picture, in any of the ways files store one, opaque or not."""
    mode = draw(st.sampled_from(["L", "RGB", "RGBA", "P", "1", "LA"]))
    size = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    generator = np.random.default_rng(draw(st.integers(0, 99)))
    noise = Image.fromarray(generator.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    picture = noise.convert("L").convert("LA") if mode == "LA" else noise.convert(mode)
    transparent = draw(st.booleans())
    if transparent and mode in ("LA", "RGBA"):
        alpha = generator.integers(0, 256, (size[1], size[0]), dtype=np.uint8)
        picture.putalpha(Image.fromarray(alpha))
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = draw(st.integers(1, 8))
    value = {"L": 7, "P": 3, "RGB": (1, 2, 3)}.get(mode) if transparent else None
    picture.save(file, "PNG", exif=exif, **({} if value is None else {"transparency": value}))
    return file.getvalue()


def _functions(options: RecipeOptions, backbone: str = "resnet18") -> dict[str, Any]:
    """Return the functions of the program for a recipe; the rest of it needs a model."""
    program = classifying_program(make_recipe(backbone, "cpu", options))
    assert program is not None
    functions = [node for node in ast.parse(program).body if isinstance(node, ast.FunctionDef)]
    names: dict[str, Any] = {"Image": Image, "ImageOps": ImageOps, "np": np, "sys": sys}
    exec(compile(ast.Module(functions, []), "classify.py", "exec"), names)
    return names


@pytest.mark.parametrize("geometry", GEOMETRIES)
@settings(
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(picture=pictures())
def test_the_program_sees_what_the_backbone_was_shown(
    picture: bytes, geometry: str, tmp_path: Path
) -> None:
    """Turned, coloured or transparent images would be shown to the model otherwise than trained."""
    names = _functions(replace(RANDOM, geometry=geometry))
    (tmp_path / "picture.png").write_bytes(picture)
    view = names["render"](names["read_grey"](tmp_path / "picture.png"))
    assert np.array_equal(view, render(decode(picture), geometry))


def test_the_program_shows_the_size_and_sharpness_of_the_recipe(tmp_path: Path) -> None:
    """A network of other pictures than 224 bilinear pixels would be shown those."""
    options = replace(RANDOM, input_size=192)
    recipe = make_recipe("efficientnet-lite0", "cpu", options)
    names = _functions(options, "efficientnet-lite0")
    picture = np.random.default_rng(0).integers(0, 256, (90, 250), np.uint8)
    Image.fromarray(picture).save(tmp_path / "picture.png")
    view = names["render"](names["read_grey"](tmp_path / "picture.png"))
    content = (tmp_path / "picture.png").read_bytes()
    assert np.array_equal(view, render(decode(content), size=192, interpolation="bicubic"))
    described = describe_preprocessing(recipe)
    assert described["resize"]["filter"] == "bicubic"
    assert described["input"]["shape"] == ["images", 1, 192, 192]
    assert described["normalisation"]["std"] == [0.5, 0.5, 0.5]


def test_the_program_sees_inverted_tiffs_as_they_are_meant(tmp_path: Path) -> None:
    """A scanner's file that counts from white would be shown to the model as its negative."""
    ramp = np.arange(4096, dtype=np.uint32).reshape(64, 64).astype(np.uint8)
    tifffile.imwrite(tmp_path / "inverted.tif", ramp, photometric="miniswhite")
    names = _functions(RANDOM)
    view = names["render"](names["read_grey"](tmp_path / "inverted.tif"))
    assert np.array_equal(view, render(decode((tmp_path / "inverted.tif").read_bytes())))


@pytest.mark.parametrize("mode", ["I;16", "two frames"])
def test_the_program_refuses_what_it_would_get_wrong(mode: str, tmp_path: Path) -> None:
    """A 16-bit gel would turn white, and the answer be about nothing."""
    names = _functions(RANDOM)
    picture = Image.new("L" if mode == "two frames" else mode, (8, 8))
    others = [Image.new("L", (8, 8), 9)] if mode == "two frames" else []
    picture.save(tmp_path / "picture.png", save_all=bool(others), append_images=others)
    with pytest.raises(ValueError, match="expected"):
        names["read_grey"](tmp_path / "picture.png")


def test_a_vision_transformer_is_exported_for_any_number_of_images(tmp_path: Path) -> None:
    """Attention asks whether there is one image, and torch refuses to export for any number."""
    from torchvision.models.vision_transformer import VisionTransformer

    torch.manual_seed(0)
    model = VisionTransformer(
        image_size=64, patch_size=32, num_layers=1, num_heads=2, hidden_dim=8, mlp_dim=8
    )
    row = Backbone("tiny", "torchvision", "", "heads.head", 8, 0, 0.0, "")
    frozen = freeze(model, replace(row, preprocessing=Preprocessing(64)))
    head = keras.Sequential([keras.Input((8,)), keras.layers.Dense(2, activation="softmax")])
    export._write_onnx(frozen, head, 64, tmp_path / "model.onnx")
    views = np.random.default_rng(0).integers(0, 256, (5, 64, 64), np.uint8)
    expected = frozen(torch.from_numpy(views)[:, None].float()).numpy()
    alone, others = export._run(tmp_path / "model.onnx", views)
    found = np.concatenate([alone[0], others[0]])
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize(
    "options",
    [{"guess_polarity": True}, {"polarity": "dark-background"}, {"page": 1}, {"channel": 2}],
    ids=lambda options: next(iter(options)),
)
def test_no_program_where_it_could_not_be_right(options: dict[str, Any]) -> None:
    """The program would take another channel or background than the head was trained on."""
    assert classifying_program(make_recipe("resnet18", "cpu", replace(RANDOM, **options))) is None


@pytest.mark.parametrize("window", ["percentile", "full"])
def test_the_description_suffices_for_16_bits(window: str) -> None:
    """Who follows preprocessing.json would show the model another brightness than gelkit does."""
    recipe = make_recipe("resnet18", "cpu", replace(RANDOM, window=window))
    description = describe_preprocessing(recipe)
    stored = np.random.default_rng(0).integers(100, 9000, (50, 60), dtype=np.uint16)
    file = io.BytesIO()
    Image.fromarray(stored).save(file, "PNG")
    pixels = stored / 65535
    if description["window"]["percentiles"]:
        low, high = np.percentile(pixels, description["window"]["percentiles"])
        pixels = np.clip((pixels - low) / (high - low), 0, 1)
    side = description["resize"]["size"]
    picture = Image.fromarray(pixels.astype(np.float32))
    resized = np.asarray(picture.resize((side, side), Image.Resampling.BILINEAR))
    view = np.rint(np.clip(resized, 0, 1) * 255)
    shown = render(decode(file.getvalue()), window=window).astype(float)
    assert np.abs(view - shown).max() <= 1
    assert (view != shown).mean() < 0.001


def test_the_description_names_the_recipe() -> None:
    """A channel or polarity that was chosen would be missing from the description."""
    options = replace(RANDOM, polarity="dark-background", guess_polarity=True, page=2, channel=3)
    decoding = describe_preprocessing(make_recipe("vgg16", "cpu", options))["decoding"]
    assert (decoding["page"], decoding["channel"]) == (2, 3)
    assert decoding["polarity"]["name"] == "dark-background"
    assert decoding["polarity"]["guessed_where_unknown"] is True
