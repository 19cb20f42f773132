"""Training: repeatable, honest about held-out images, and the same in one process or several."""

from __future__ import annotations

import io
import json
import os
import random
import zipfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight

from gelkit.errors import GelkitError, UsageError
from gelkit.features.embeddings import Embeddings
from gelkit.heads.architectures import HEADS, OPTIMIZERS, build_compiled
from gelkit.heads.fits import Fit, orders
from gelkit.heads.plans import initial_weights, make_plan
from gelkit.heads.splits import derived_seed, make_splits
from gelkit.heads.training import Job, Settings, Trained, load_head, predict, train, train_all

MakeEmbeddings = Callable[..., Embeddings]

QUICK = Settings(folds=2, repeats=2, epochs=2, batch_size=8)
ONE_REPEAT = replace(QUICK, repeats=1)


def _job(
    embeddings: Embeddings,
    settings: Settings = QUICK,
    head: str = "single",
    optimizer: str = "adam",
) -> Job:
    targets = embeddings.targets
    return Job(
        name=f"{head}-{optimizer}",
        head=head,
        optimizer=optimizer,
        values=embeddings.values,
        targets=targets,
        num_classes=len(embeddings.classes),
        splits=make_splits(
            targets,
            np.arange(len(targets)),
            embeddings.classes,
            folds=settings.folds,
            repeats=settings.repeats,
        ),
        settings=settings,
        groups=np.arange(len(targets)),
    )


def _loaded(trained: Trained, folder: Path) -> keras.Model:
    path = folder / "head.keras"
    path.write_bytes(trained.head)
    return load_head(path)


@pytest.fixture(scope="module")
def embeddings(make_embeddings: MakeEmbeddings) -> Embeddings:
    """Return embeddings of 24 images in two classes, somewhat apart."""
    return make_embeddings(["gel", "photo"] * 12, separation=1.0)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("head", ["single", "multi"])
def test_the_same_job_gives_the_same_result(
    head: str, optimizer: str, embeddings: Embeddings, tmp_path: Path
) -> None:
    """Results could not be repeated."""
    job = _job(embeddings, ONE_REPEAT, head, optimizer)
    first, second = train(job), train(job)
    assert first.probabilities.shape == (1, 24, 2)
    np.testing.assert_allclose(first.probabilities.sum(axis=2), 1, rtol=1e-5)
    assert np.array_equal(second.probabilities, first.probabilities)
    heads = [_loaded(trained, tmp_path) for trained in (first, second)]
    assert np.array_equal(*(predict(head, embeddings.values) for head in heads))
    other = train(replace(job, settings=replace(ONE_REPEAT, seed=1)))
    assert not np.array_equal(other.probabilities, first.probabilities)


def test_training_leaves_the_random_state_alone(embeddings: Embeddings) -> None:
    """A user's own random numbers would be the same after each comparison."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    train(_job(embeddings, ONE_REPEAT, "multi"))
    assert random.getstate() == states[0]
    np.testing.assert_equal(np.random.get_state(), states[1])
    assert torch.equal(torch.get_rng_state(), states[2])


def _arithmetic() -> tuple[object, ...]:
    return (
        keras.config.floatx(),
        keras.config.epsilon(),
        keras.config.dtype_policy().name,
        keras.config.max_steps_per_epoch(),
        torch.get_default_dtype(),
        torch.get_float32_matmul_precision(),
    )


SETTINGS_OF_A_NOTEBOOK: dict[str, tuple[Callable[[Any], object], Any, Any]] = {
    "floatx": (keras.config.set_floatx, "float16", "float32"),
    "dtype policy": (keras.config.set_dtype_policy, "float64", "float32"),
    "epsilon": (keras.config.set_epsilon, 0.45, 1e-7),
    "steps": (keras.config.set_max_steps_per_epoch, 1, None),
    "torch's dtype": (torch.set_default_dtype, torch.float64, torch.float32),
    "torch's products": (torch.set_float32_matmul_precision, "medium", "highest"),
}


@pytest.mark.parametrize("case", SETTINGS_OF_A_NOTEBOOK)
def test_what_a_notebook_has_set_decides_nothing_and_stays(
    case: str, embeddings: Embeddings, tmp_path: Path
) -> None:
    """The best would be another, or a training diverge; or the notebook's own models change."""
    job = _job(embeddings, ONE_REPEAT, "multi")
    plain = train(job)
    expected = predict(_loaded(plain, tmp_path), embeddings.values)
    setting, odd, usual = SETTINGS_OF_A_NOTEBOOK[case]
    setting(odd)
    try:
        before = _arithmetic()
        trained = train(job)
        found = predict(_loaded(trained, tmp_path), embeddings.values)
        built = build_compiled("single", "adam", embeddings.values, 2)
        after = _arithmetic()
    finally:
        setting(usual)
    assert np.array_equal(trained.probabilities, plain.probabilities)
    assert np.array_equal(found, expected)
    assert {weight.dtype for weight in built.trainable_weights} == {"float32"}
    assert after == before


TUNED = replace(QUICK, early_stopping=1, learning_rates=(0.1, 0.01))

HONEST = {
    "plain": QUICK,
    "class weights": replace(QUICK, class_weights=True),
    "early stopping": replace(QUICK, early_stopping=1, epochs=4),
    "choice of learning rates": replace(QUICK, learning_rates=(0.1, 0.01)),
    "everything": replace(TUNED, class_weights=True),
}


@pytest.mark.parametrize("case", HONEST)
def test_a_prediction_does_not_depend_on_the_images_own_label(
    case: str, embeddings: Embeddings
) -> None:
    """Accuracy would be that of images a head was trained on."""
    job = _job(embeddings, HONEST[case])
    flipped = job.targets.copy()
    flipped[5] = 1 - flipped[5]
    before = train(job).probabilities
    after = train(replace(job, targets=flipped)).probabilities
    together = job.splits == job.splits[:, [5]]
    assert np.array_equal(after[together], before[together])
    assert (after[~together] != before[~together]).any(axis=1).all()


@pytest.mark.parametrize("case", HONEST)
def test_a_prediction_depends_on_no_other_held_out_image(case: str, embeddings: Embeddings) -> None:
    """The standardisation, or anything else, would have seen the images that are predicted."""
    job = _job(embeddings, HONEST[case])
    changed = job.values.copy()
    changed[5] += 100
    before = train(job).probabilities
    after = train(replace(job, values=changed)).probabilities
    together = job.splits == job.splits[:, [5]]
    together[:, 5] = False
    assert np.array_equal(after[together], before[together])
    assert not np.array_equal(after[:, 5], before[:, 5])


@pytest.mark.exhaustive("exhaustive grids")
def test_several_processes_give_the_same_results(embeddings: Embeddings, tmp_path: Path) -> None:
    """A machine with more cores would give other results."""
    torch.set_num_threads(os.cpu_count() or 1)  # a process of a pool has one thread
    settings = replace(ONE_REPEAT, epochs=1)
    jobs = [
        _job(embeddings, settings, "multi"),
        replace(_job(embeddings, replace(TUNED, repeats=1), "multi", "sgd"), name="tuned"),
        replace(_job(embeddings, settings, "multi", "sgd"), values=embeddings.values[:, :5]),
    ]  # the last has embeddings of its own
    alone = {job.name: trained for job, trained in train_all(jobs, 1)}
    torch.set_num_threads(1)
    together = {job.name: trained for job, trained in train_all(jobs, 2)}
    assert set(together) == set(alone) == {job.name for job in jobs}
    for name, trained in alone.items():
        assert np.array_equal(together[name].probabilities, trained.probabilities)
        heads = [_loaded(one, tmp_path) for one in (trained, together[name])]
        np.testing.assert_equal(*(head.get_weights() for head in heads))


def test_what_is_tuned_is_told(embeddings: Embeddings) -> None:
    """Nobody could train the head that won again."""
    job = _job(embeddings, replace(TUNED, repeats=1, epochs=4, learning_rates=(1e-6, 0.1)))
    trained = train(job)
    assert trained.learning_rate == pytest.approx(0.1)
    assert 1 <= trained.epochs <= 4
    plain = train(replace(job, settings=replace(ONE_REPEAT, epochs=3)))
    assert (plain.learning_rate, plain.epochs) == (1e-3, 3)


def test_tuning_without_groups_is_refused(embeddings: Embeddings) -> None:
    """Pictures of one gel would train a head and choose among heads."""
    with pytest.raises(ValueError, match=r"groups, for inner splits\. Received: None"):
        train(replace(_job(embeddings, TUNED), groups=None))


def test_settings_survive_json() -> None:
    """Heads with a choice of learning rates would be trained again each time."""
    settings = replace(TUNED, learning_rates=(1, 0.1))
    assert Settings(**json.loads(json.dumps(asdict(settings)))) == settings


def test_a_row_of_the_tables_added_by_a_user_is_trained(
    embeddings: Embeddings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Only the heads and optimizers of the study could be compared."""
    monkeypatch.setitem(OPTIMIZERS, "rmsprop", keras.optimizers.RMSprop)
    monkeypatch.setitem(HEADS, "normalised", _normalised)
    settings = replace(ONE_REPEAT, epochs=10, learning_rate=0.05)
    job = _job(embeddings, settings, "normalised", "rmsprop")
    first, second = train(job), train(job)
    assert np.array_equal(first.probabilities, second.probabilities)
    head = _loaded(first, tmp_path)
    assert (predict(head, job.values).argmax(axis=1) == job.targets).mean() > 0.7


def _normalised(width: int, num_classes: int) -> keras.Model:
    layers = [keras.layers.BatchNormalization(), keras.layers.Dense(num_classes, "softmax")]
    return keras.Sequential([keras.Input((width,)), *layers])


def test_a_head_that_its_author_changes_is_trained_as_it_is_now(
    embeddings: Embeddings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In a notebook, the head of before would be trained again."""
    units = 4

    def hidden(width: int, num_classes: int) -> keras.Model:
        layers = [keras.layers.Dense(units), keras.layers.Dense(num_classes, "softmax")]
        return keras.Sequential([keras.Input((width,)), *layers])

    monkeypatch.setitem(HEADS, "hidden", hidden)
    job = _job(embeddings, ONE_REPEAT, "hidden")
    train(job)
    units = 8
    assert any(array.shape == (8, 2) for array in _loaded(train(job), tmp_path).get_weights())


def test_a_final_head_needs_no_cross_validation(embeddings: Embeddings, tmp_path: Path) -> None:
    """A head alone could not be trained."""
    job = _job(embeddings, ONE_REPEAT)
    trained = train(replace(job, splits=job.splits[:0]))
    assert trained.probabilities.shape == (0, 24, 2)
    expected = _loaded(train(job), tmp_path).get_weights()
    np.testing.assert_equal(_loaded(trained, tmp_path).get_weights(), expected)


class _Deadly:
    """Targets that end the process that receives them."""

    def __reduce__(self) -> tuple[object, ...]:
        return os._exit, (1,)


def test_a_process_that_dies_is_an_error_with_a_remedy(embeddings: Embeddings) -> None:
    """Running out of memory would hang, or show a traceback of Python's internals."""
    job = replace(_job(embeddings), targets=_Deadly())  # type: ignore[arg-type]
    with pytest.raises(GelkitError, match="fewer --workers"):
        list(train_all([job, job], 2))


def test_class_weights_are_scikit_learns_balanced_ones(
    make_embeddings: MakeEmbeddings, tmp_path: Path
) -> None:
    """Rare classes would count too little, or too much."""
    embeddings = make_embeddings(["a"] * 12 + ["b"] * 4 + ["c"] * 6, separation=1.0)
    settings = replace(ONE_REPEAT, class_weights=True)
    job = _job(embeddings, settings, optimizer="sgd")  # Adam does not feel the weights' scale
    trained = train(job)
    weights = compute_class_weight("balanced", classes=np.arange(3), y=job.targets)
    np.testing.assert_allclose(weights, [22 / 36, 22 / 12, 22 / 18])
    expected = build_compiled("single", "sgd", job.values, 3)
    fit = Fit(np.arange(22), np.arange(0), derived_seed(settings.seed), 1e-3, epochs=2)
    plan = make_plan("single", "sgd", job.values.shape[1], 3, 1e-3)
    assert plan is not None
    for variable, array in zip(
        expected.trainable_variables, initial_weights(plan, fit.seed)[0], strict=True
    ):
        variable.assign(array)
    for order in orders(fit):
        expected.fit(
            job.values[order],
            job.targets[order],
            batch_size=8,
            class_weight=dict(enumerate(weights)),
            shuffle=False,
            verbose=0,
        )
    predicted = predict(_loaded(trained, tmp_path), job.values)
    np.testing.assert_allclose(predicted, predict(expected, job.values), rtol=1e-5)
    plain = train(replace(job, settings=replace(settings, class_weights=False)))
    assert not np.allclose(predict(_loaded(plain, tmp_path), job.values), predicted, rtol=1e-3)


def _accuracy(job: Job) -> float:
    return float((train(job).probabilities.argmax(axis=2) == job.targets).mean())


LEARNED = {
    "single adam": ("single", "adam", 0.1, 2),
    "single sgd": ("single", "sgd", 0.1, 2),
    "multi adam": ("multi", "adam", 0.01, 2),
    "multi sgd": ("multi", "sgd", 0.01, 2),
    "four classes": ("single", "adam", 0.1, 4),
}


@pytest.mark.parametrize("case", LEARNED)
def test_what_can_be_told_apart_is_learned(case: str, make_embeddings: MakeEmbeddings) -> None:
    """Heads would be trained and know nothing."""
    head, optimizer, learning_rate, num_classes = LEARNED[case]
    embeddings = make_embeddings(list("abcd"[:num_classes]) * 20, separation=8.0)
    settings = Settings(folds=2, repeats=1, epochs=20, batch_size=8, learning_rate=learning_rate)
    assert _accuracy(_job(embeddings, settings, head, optimizer)) > 0.9


def test_shuffled_labels_are_not_learned(make_embeddings: MakeEmbeddings) -> None:
    """Something of the held-out images would leak into training."""
    embeddings = make_embeddings(["gel", "photo"] * 30, separation=8.0)
    settings = Settings(folds=2, repeats=1, epochs=8, batch_size=16, learning_rate=0.1)
    job = _job(embeddings, settings)
    assert _accuracy(job) > 0.9
    shuffled = np.random.default_rng(0).permutation(job.targets)
    assert 0.2 < _accuracy(replace(job, targets=shuffled)) < 0.8


def test_the_final_head_has_seen_all_images(
    make_embeddings: MakeEmbeddings, tmp_path: Path
) -> None:
    """The saved head would be that of one fold."""
    embeddings = make_embeddings(["gel", "photo"] * 10, separation=8.0)
    settings = Settings(folds=2, repeats=1, epochs=8, batch_size=8, learning_rate=0.1)
    head = _loaded(train(_job(embeddings, settings)), tmp_path)
    mean = head.get_layer("standardisation").mean.detach().cpu().numpy()
    np.testing.assert_allclose(mean.ravel(), embeddings.values.mean(axis=0), rtol=1e-4, atol=1e-6)
    predicted = predict(head, embeddings.values)
    assert (predicted.argmax(axis=1) == embeddings.targets).mean() > 0.9


def test_neighbouring_seeds_train_other_heads(embeddings: Embeddings) -> None:
    """Running again with another seed would repeat some of the heads of the first run."""
    job = _job(embeddings, replace(QUICK, repeats=1, epochs=1))
    job = replace(job, splits=np.concatenate([job.splits] * 2))  # the folds of one repeat, twice
    both = [train(replace(job, settings=replace(job.settings, seed=s))) for s in (0, 1, 1000)]
    held_out = [trained.probabilities[r, :3].tobytes() for trained in both for r in (0, 1)]
    assert len(set(held_out)) == 6


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_diverged_training_is_an_error_that_names_configuration_and_remedy(
    optimizer: str, embeddings: Embeddings
) -> None:
    """A user would see a traceback of scikit-learn's about NaN, or a head that answers NaN."""
    job = _job(embeddings, replace(QUICK, learning_rate=1e38), optimizer=optimizer)
    with pytest.raises(UsageError, match=rf"single-{optimizer} .* --learning-rate below 1e\+38"):
        train(job)


@pytest.fixture(scope="module")
def saved_head(embeddings: Embeddings) -> bytes:
    """Return the bytes of a saved head."""
    return train(_job(embeddings, replace(ONE_REPEAT, epochs=1))).head


def _flipped(content: bytes, position: int) -> bytes:
    return content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :]


def _compressed_unknown(content: bytes) -> bytes:
    """Change the method of compression of the last file in the archive's directory."""
    return _flipped(content, content.rindex(b"PK\x01\x02") + 11)


def _other_zip(_: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("config.json", "[]")
    return buffer.getvalue()


DAMAGED: dict[str, Callable[[bytes], bytes | None]] = {
    "absent": lambda _: None,
    "empty": lambda _: b"",
    "no zip": lambda _: b"no head",
    "half": lambda content: content[:2000],
    "without its end": lambda content: content[:-1],
    "a byte of the configuration": lambda content: _flipped(content, 300),
    "a byte of the weights": lambda content: _flipped(content, len(content) // 2),
    "unknown compression": _compressed_unknown,
    "another zip": _other_zip,
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_head_is_named_with_the_remedy(
    damage: str, saved_head: bytes, tmp_path: Path
) -> None:
    """A user would see the traceback of a zip file."""
    path = tmp_path / "01-cpu-resnet18-single-adam.keras"
    content = DAMAGED[damage](saved_head)
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(GelkitError, match=rf"{path.name}.*gelkit heads DATA"):
        load_head(path)


def test_a_head_damaged_anywhere_is_refused_or_the_same(saved_head: bytes, tmp_path: Path) -> None:
    """A worn disk would end in a traceback, or in other predictions."""
    path = tmp_path / "head.keras"
    path.write_bytes(saved_head)
    expected = load_head(path).get_weights()
    refused = 0
    for position in np.random.default_rng(0).integers(len(saved_head), size=20):
        for damaged in (saved_head[:position], _flipped(saved_head, position)):
            path.write_bytes(damaged)
            try:
                np.testing.assert_equal(load_head(path).get_weights(), expected)
            except GelkitError:
                refused += 1
    assert refused >= 35


def test_code_inside_a_head_is_refused(tmp_path: Path) -> None:
    """Opening a head from somebody else would run whatever they put into it."""
    path = tmp_path / "head.keras"
    keras.Sequential([keras.Input((2,)), keras.layers.Lambda(lambda values: values)]).save(path)
    with pytest.raises(GelkitError, match=r"(?s)head\.keras.*lambda.*code execution"):
        load_head(path)
