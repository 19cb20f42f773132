"""Stacked training: what comes out is what Keras would have trained, one head at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twin import Change, Twin

from gelkit.heads.architectures import HEADS, OPTIMIZERS, build_compiled
from gelkit.heads.fits import Fit, Fitted, Task, batches, fit_alone, loss_weights, orders, predict
from gelkit.heads.plans import Plan, initial_weights, make_plan
from gelkit.heads.stacking import fit_all, stack_width

CLASSES = 3
WIDTHS = (1, 2, 5, 25)
BATCH_SIZE = 8
UNIT = 2.0**-24
"""What rounding to float32 changes a number by at most, relative to it."""


def _dense(units: int, activation: Any = "relu", **options: Any) -> keras.Layer:
    return keras.layers.Dense(units, activation=activation, **options)


def _chain(*hidden: Callable[[], keras.Layer], **options: Any) -> Callable[[int, int], keras.Model]:
    """Return a function that builds hidden layers, then a linear one with softmax."""

    def build(width: int, num_classes: int) -> keras.Model:
        last = _dense(num_classes, "softmax", **options)
        return keras.Sequential([keras.Input((width,)), *(make() for make in hidden), last])

    return build


ALL_FITS = range(25)


@dataclass(frozen=True)
class Case:
    """Something that a stack trains."""

    head: Callable[[int, int], keras.Model]
    optimizer: Callable[[float], keras.Optimizer]
    width: int = 40
    learning_rate: float = 0.01
    class_weights: bool = False
    numbers: range = range(2)
    """Of the fits compared with Keras."""


ADAM: Callable[[float], keras.Optimizer] = keras.optimizers.Adam
SINGLE = _chain()
MULTI = _chain(lambda: _dense(12), lambda: _dense(8))


def _sgd(learning_rate: float, **options: Any) -> keras.Optimizer:
    return keras.optimizers.SGD(learning_rate, momentum=0.9, **options)


CASES = {
    "single, Adam": Case(SINGLE, ADAM, numbers=ALL_FITS),
    "single, SGD": Case(SINGLE, _sgd, numbers=ALL_FITS),
    "single, SGD, more images than dimensions": Case(SINGLE, _sgd, width=7),
    "multi, Adam, class weights": Case(MULTI, ADAM, class_weights=True, numbers=ALL_FITS),
    "multi, SGD, class weights": Case(MULTI, _sgd, class_weights=True, numbers=ALL_FITS),
    "multi, SGD, more images than dimensions": Case(MULTI, _sgd, width=7),
    "one dimension": Case(MULTI, ADAM, width=1),
    "single, Adam, large steps": Case(SINGLE, ADAM, learning_rate=1.0),
    "saturated": Case(SINGLE, _sgd, learning_rate=30.0),
    "no bias, SGD": Case(_chain(lambda: _dense(8, use_bias=False), use_bias=False), _sgd),
    "no bias, Adam": Case(_chain(lambda: _dense(8, use_bias=False), use_bias=False), ADAM),
    "linear hidden layer": Case(_chain(lambda: _dense(8, None)), ADAM),
    "other initializers": Case(
        _chain(lambda: _dense(8, kernel_initializer="he_normal", bias_initializer="ones")), _sgd
    ),
    "no momentum": Case(MULTI, keras.optimizers.SGD),
    "other Adam": Case(MULTI, lambda rate: keras.optimizers.Adam(rate, 0.8, 0.9, 1e-3)),
}


@pytest.fixture
def tables() -> Iterator[None]:
    """Let a test add rows to the tables of heads and optimizers."""
    yield
    HEADS.pop("a head", None)
    OPTIMIZERS.pop("an optimizer", None)


def _task(case: Case, *, batch_size: int = BATCH_SIZE) -> Task:
    """Make 30 images of classes that are somewhat apart, and enter the case in the tables."""
    HEADS["a head"], OPTIMIZERS["an optimizer"] = case.head, case.optimizer
    generator = np.random.default_rng(0)
    targets = np.arange(30) % CLASSES
    values = generator.normal(size=(30, case.width)).astype(np.float32) * 3 + 1
    values[:, 0] += targets * 4
    return Task("a head", "an optimizer", values, targets, CLASSES, batch_size, case.class_weights)


def _fits(case: Case, numbers: range, *, epochs: int = 2) -> list[Fit]:
    """Make fits whose last batches differ in size, some of which have a batch fewer."""
    images = np.random.default_rng(1).permuted(np.tile(np.arange(30), (25, 1)), axis=1)
    counts = [25 - number % 4 for number in numbers]
    return [
        Fit(
            train=images[number, :count],
            held_out=images[number, count:],
            seed=number,
            learning_rate=case.learning_rate,
            epochs=epochs,
            followed=True,
            kept=True,
        )
        for number, count in zip(numbers, counts, strict=True)
    ]


@dataclass(frozen=True)
class Outcome:
    """What comes out of one training."""

    probabilities: npt.NDArray[np.floating]
    """After each epoch, of the held-out images."""
    losses: npt.NDArray[np.floating]
    """After each epoch, on the held-out images."""
    trained: list[npt.NDArray[np.floating]]
    """The head's weights, and the optimizer's variables of each."""
    fixed: list[npt.NDArray[np.floating]]
    """All other variables: the standardisation, the number of steps, the rate."""


def _fit_by_keras(task: Task, fit: Fit, plan: Plan) -> Outcome:
    """Train one head through ``fit``, from the same weights and on the same batches."""
    values = task.values[fit.train]
    head = build_compiled(task.head, task.optimizer, values, CLASSES, fit.learning_rate)
    weights = [array for layer in initial_weights(plan, fit.seed) for array in layer]
    for variable, array in zip(head.trainable_variables, weights, strict=True):
        variable.assign(array)
    held_out = task.values[fit.held_out], task.targets[fit.held_out]
    probabilities, losses = [], []
    for order in orders(fit):
        index = fit.train[order]
        history = head.fit(
            task.values[index],
            task.targets[index],
            sample_weight=loss_weights(task, fit)[order],
            batch_size=task.batch_size,
            shuffle=False,
            validation_data=held_out,
            verbose=0,
        )
        losses += history.history["val_loss"]
        probabilities.append(predict(head, held_out[0]))
    return Outcome(np.stack(probabilities), np.array(losses), *_split_variables(head))


def _split_variables(head: keras.Model) -> tuple[list[npt.NDArray], list[npt.NDArray]]:
    """Return what training has computed in a head and its optimizer, and all else."""
    trained = [*head.trainable_variables, *head.optimizer.variables[2:]]
    fixed = [*head.non_trainable_variables, *head.optimizer.variables[:2]]
    return _arrays(trained), _arrays(fixed)


def _arrays(variables: Sequence[keras.Variable]) -> list[npt.NDArray[np.float32]]:
    return [keras.ops.convert_to_numpy(variable) for variable in variables]


@cache
def _by_keras(name: str) -> list[Outcome]:
    case = CASES[name]
    task, plan = _task(case), _plan(case)
    return [_fit_by_keras(task, fit, plan) for fit in _fits(case, case.numbers)]


def _plan(case: Case) -> Plan:
    plan = make_plan("a head", "an optimizer", case.width, CLASSES, case.learning_rate)
    assert plan is not None
    return plan


def _fit_twin(task: Task, fit: Fit, plan: Plan, change: Change) -> Outcome:
    """Train one head in double precision on the same batches."""
    twin = Twin(task, fit, plan, change)
    probabilities, losses = [], []
    for order in orders(fit):
        for batch in batches(order, task.batch_size):
            twin.learn(fit.train[batch], loss_weights(task, fit)[batch])
        probabilities.append(twin.predict(fit.held_out))
        losses.append(twin.loss(fit.held_out))
    return Outcome(np.stack(probabilities), np.array(losses), twin.trained(), [])


def _by_twins(name: str, change: Change) -> list[Outcome]:
    case = CASES[name]
    task, plan = _task(case), _plan(case)
    return [_fit_twin(task, fit, plan, change) for fit in _fits(case, case.numbers)]


Distances = npt.NDArray[np.float64]


def _distances(ours: Sequence[Outcome], theirs: Sequence[Outcome]) -> Distances:
    """Return the largest difference in the probabilities, the losses, and each variable."""
    found: Distances = np.max(list(map(_distance, ours, theirs)), axis=0)
    return found


def _distance(one: Outcome, other: Outcome) -> list[float]:
    pairs = [(one.probabilities, other.probabilities), (one.losses, other.losses)]
    pairs += zip(one.trained, other.trained, strict=True)
    return [float(np.abs(ours - theirs).max()) for ours, theirs in pairs]


@cache
def _sensitivity(name: str) -> Distances:
    """Return how far exact results move when the embeddings, the weights or they are rounded."""
    exact = _by_twins(name, np.array)
    moved = [_distances(exact, _by_twins(name, _rounding(seed))) for seed in range(3)]
    return np.max(moved, axis=0) + UNIT * _sizes(exact)


def _sizes(outcomes: Sequence[Outcome]) -> Distances:
    """Return the largest size of the probabilities and the losses, and of each variable.

    A loss is the logarithm of a probability, which may be near to 1.
    """
    found: Distances = np.max(
        [
            [1, max(1, its.losses.max()), *(np.abs(v).max() for v in its.trained)]
            for its in outcomes
        ],
        axis=0,
    )
    return found


def _rounding(seed: int) -> Change:
    generator = np.random.default_rng(seed)
    return lambda array: array * (1 + UNIT * generator.choice([-1, 1], array.shape))


def _num_roundings(case: Case) -> int:
    """Return how often a value is rounded at most: in the sums of all steps of two trainings."""
    fit = _fits(case, case.numbers)[0]
    steps = sum(len(batches(order, BATCH_SIZE)) for order in orders(fit))
    return 2 * steps * (case.width + BATCH_SIZE)


@pytest.mark.usefixtures("tables")
@pytest.mark.parametrize(
    ("name", "width"),
    [(n, w) for n, case in CASES.items() for w in WIDTHS if w <= len(case.numbers)],
)
def test_a_stack_trains_what_keras_trains_one_by_one(name: str, width: int) -> None:
    """Heads would not be the Keras models that the documentation says they are.

    Both round, each in its own order. They may differ by the number of roundings behind a value,
    times what one rounding of the inputs moves it in exact arithmetic.
    """
    case = CASES[name]
    fits = _fits(case, case.numbers)
    fitted = fit_all(_task(case), fits, width)
    stacked = [_stacked(case, fit, its) for fit, its in zip(fits, fitted, strict=True)]
    bounds = _num_roundings(case) * _sensitivity(name)
    assert (_distances(stacked, _by_keras(name)) <= bounds).all()
    for ours, theirs in zip(stacked, _by_keras(name), strict=True):
        assert all(map(np.array_equal, ours.fixed, theirs.fixed))


@pytest.mark.usefixtures("tables")
@pytest.mark.parametrize("name", CASES)
def test_the_twin_trains_what_keras_trains(name: str) -> None:
    """The bounds of the test above would be those of another training.

    A thousandth: Keras corrects Adam's rate in single precision, which costs 2**-24 / (1 - beta_2).
    """
    exact = _by_twins(name, np.array)
    assert (_distances(exact, _by_keras(name)) <= 1e-3 * _sizes(exact)).all()


def _stacked(case: Case, fit: Fit, fitted: Fitted) -> Outcome:
    losses = _losses(case, fit, fitted)
    return Outcome(fitted.probabilities, losses, *_split_variables(fitted.head))


def _losses(case: Case, fit: Fit, fitted: Fitted) -> npt.NDArray[np.float32]:
    targets = _task(case).targets[fit.held_out]
    picked = fitted.probabilities[:, np.arange(len(targets)), targets]
    losses: npt.NDArray[np.float32] = -np.log(np.clip(picked, 1e-7, 1 - 1e-7)).mean(axis=1)
    return losses


@pytest.mark.exhaustive("exhaustive grids")
@pytest.mark.usefixtures("tables")
@pytest.mark.parametrize(
    ("optimizer", "width"), [(ADAM, 7), (_sgd, 40)], ids=["adam", "sgd, few images"]
)
def test_with_dropout_heads_are_distributed_as_those_of_keras(
    optimizer: Callable[[float], keras.Optimizer], width: int
) -> None:
    """Dropout would be stronger or weaker than asked for, or scale what is left wrongly."""
    from scipy.stats import ks_2samp

    case = Case(_chain(_first_hidden, lambda: keras.layers.Dropout(0.5)), optimizer, width, 0.1)
    task = _task(case)
    images = np.arange(30)
    fits = [Fit(images[:25], images[25:], number, 0.1, 3) for number in range(400)]
    stacked = np.stack([its.probabilities[0] for its in fit_all(task, fits)])
    alone = np.stack([fit_alone(task, fit).probabilities[0] for fit in fits[:40]])
    for image in range(5):
        for number in range(CLASSES):
            ours, theirs = stacked[:, image, number], alone[:, image, number]
            assert ks_2samp(ours, theirs).pvalue > 0.001
            assert len(set(ours)) > 350


def _first_hidden() -> keras.Layer:
    return _dense(16, kernel_initializer=keras.initializers.GlorotUniform(seed=1))


def _trained_on_two(head: Callable[[int, int], keras.Model]) -> list[tuple[Any, Any]]:
    """Take a step with two opposite images; return each fit's first kernel and last start."""
    task = replace(_task(Case(head, keras.optimizers.SGD, width=400)), num_classes=2)
    task = replace(task, values=np.repeat(np.array([[1], [-1]], np.float32), 400, axis=1))
    fits = [Fit(np.arange(2), np.arange(0), n, 1.0, 1, kept=True) for n in range(60)]
    plan = make_plan("a head", "an optimizer", 400, 2, 1.0)
    assert plan is not None
    starts = [initial_weights(plan, fit.seed)[-1][0] for fit in fits]
    kernels = [_kernel(its) for its in fit_all(task, fits)]
    return list(zip(kernels, starts, strict=True))


def _kernel(fitted: Fitted) -> npt.NDArray[np.float32]:
    assert fitted.head is not None
    kernel: npt.NDArray[np.float32] = fitted.head.get_weights()[3]
    return kernel


def _updates_of_inputs(rate: float) -> npt.NDArray[np.float32]:
    """Return how often each input of each fit was kept, 0 to 2 times, by what was learnt."""
    head = _chain(lambda: keras.layers.Dropout(rate), kernel_initializer="zeros")
    return np.array([kernel[:, 0] * 4 for kernel, _ in _trained_on_two(head)])


def _updates_below(rate: float) -> npt.NDArray[np.float32]:
    """Do the same for a hidden layer's outputs, by what the layer learnt through them."""
    zeros = keras.initializers.Zeros()
    hidden = (
        lambda: _dense(300, None, kernel_initializer=zeros),
        lambda: keras.layers.Dropout(rate),
    )
    pairs = _trained_on_two(_chain(*hidden))
    return np.array([kernel[0] * 4 / (start[:, 0] - start[:, 1]) for kernel, start in pairs])


@pytest.mark.usefixtures("tables")
@pytest.mark.parametrize("rate", [0.1, 0.25, 0.5])
@pytest.mark.parametrize("updates", [_updates_of_inputs, _updates_below])
def test_dropout_keeps_each_value_by_chance_and_scales_it_up(
    updates: Callable[[float], npt.NDArray[np.float32]], rate: float
) -> None:
    """The regularisation would not be the one that the head's layers say."""
    from scipy.stats import binomtest

    kept = updates(rate) * (1 - rate)
    np.testing.assert_allclose(kept, np.round(kept), atol=2e-3)
    assert binomtest(int(kept.sum().round()), 2 * kept.size, 1 - rate).pvalue > 0.01
    for axis in (0, 1):
        spread = kept.mean(axis=axis).var() * kept.shape[axis]
        assert spread == pytest.approx(2 * rate * (1 - rate), rel=0.6)


OPTIONS_OF_THE_HEAD: dict[str, Callable[[int, int], keras.Model]] = {
    "regularizer": _chain(lambda: _dense(8, kernel_regularizer="l2")),
    "activity regularizer": _chain(lambda: _dense(8, activity_regularizer="l2")),
    "constraint": _chain(lambda: _dense(8, bias_constraint="non_neg")),
    "other activation": _chain(lambda: _dense(8, "gelu")),
    "hidden softmax": _chain(lambda: _dense(8, "softmax")),
    "float16": _chain(lambda: _dense(8, dtype="mixed_float16")),
    "frozen layer": _chain(lambda: _dense(8, trainable=False)),
    "low rank": _chain(lambda: _dense(8, lora_rank=2)),
    "other layer": _chain(keras.layers.BatchNormalization),
    "seeded dropout": _chain(lambda: keras.layers.Dropout(0.5, seed=1)),
    "shared noise": _chain(lambda: keras.layers.Dropout(0.5, noise_shape=(1, 40))),
    "dropout twice": _chain(*[lambda: keras.layers.Dropout(0.5)] * 2),
    "all dropped": _chain(lambda: keras.layers.Dropout(1.0)),
}


def _functional(width: int, num_classes: int) -> keras.Model:
    inputs = keras.Input((width,))
    return keras.Model(inputs, _dense(num_classes, "softmax")(inputs))


def _given_weights(width: int, num_classes: int) -> keras.Model:
    head = SINGLE(width, num_classes)
    head.set_weights([array + 1 for array in head.get_weights()])
    return head


def _sigmoid(width: int, num_classes: int) -> keras.Model:
    return keras.Sequential([keras.Input((width,)), _dense(num_classes, "sigmoid")])


def _dropped_output(width: int, num_classes: int) -> keras.Model:
    return keras.Sequential([SINGLE(width, num_classes), keras.layers.Dropout(0.5)])


class _OwnDense(keras.layers.Dense):  # type: ignore[misc]
    def call(self, inputs: Any, training: bool | None = None) -> Any:
        return super().call(2 * inputs, training=training)


def _frozen(width: int, num_classes: int) -> keras.Model:
    head = MULTI(width, num_classes)
    head.trainable = False
    return head


OTHER_HEADS = OPTIONS_OF_THE_HEAD | {
    "functional": _functional,
    "given weights": _given_weights,
    "sigmoid": _sigmoid,
    "dropped output": _dropped_output,
    "own layer": _chain(lambda: _OwnDense(8)),
    "frozen head": _frozen,
}

OTHER_OPTIMIZERS: dict[str, Callable[[float], keras.Optimizer]] = {
    "RMSprop": keras.optimizers.RMSprop,
    "AdamW": keras.optimizers.AdamW,
    "AMSGrad": lambda rate: keras.optimizers.Adam(rate, amsgrad=True),
    "clipped": lambda rate: keras.optimizers.Adam(rate, clipnorm=1.0),
    "decayed": lambda rate: keras.optimizers.Adam(rate, weight_decay=0.1),
    "averaged": lambda rate: keras.optimizers.Adam(rate, use_ema=True),
    "accumulated": lambda rate: keras.optimizers.Adam(rate, gradient_accumulation_steps=2),
    "Nesterov": lambda rate: _sgd(rate, nesterov=True),
    "clipped SGD": lambda rate: _sgd(rate, clipvalue=0.1),
    "schedule": lambda rate: _sgd(keras.optimizers.schedules.CosineDecay(rate, 9)),
    "scaled loss": lambda rate: keras.optimizers.LossScaleOptimizer(_sgd(rate)),
}


@pytest.mark.usefixtures("tables")
@pytest.mark.parametrize("name", OTHER_HEADS)
def test_a_head_that_is_not_understood_is_left_to_keras(name: str) -> None:
    """A user's own head would be trained as another one, and nobody would know."""
    HEADS["a head"] = OTHER_HEADS[name]
    assert make_plan("a head", "adam", 40, CLASSES, 0.01) is None


@pytest.mark.usefixtures("tables")
@pytest.mark.parametrize("name", OTHER_OPTIMIZERS)
def test_an_optimizer_that_is_not_understood_is_left_to_keras(name: str) -> None:
    """A user's own optimizer would be another one, and nobody would know."""
    OPTIMIZERS["an optimizer"] = OTHER_OPTIMIZERS[name]
    assert make_plan("single", "an optimizer", 40, CLASSES, 0.01) is None


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_heads_and_optimizers_of_the_study_are_stacked(head: str, optimizer: str) -> None:
    """The comparison would take minutes."""
    assert make_plan(head, optimizer, 40, CLASSES, 0.01) is not None


@pytest.mark.usefixtures("tables")
@pytest.mark.parametrize(
    ("head", "optimizer"),
    [(OTHER_HEADS["other layer"], ADAM), (SINGLE, OTHER_OPTIMIZERS["RMSprop"])],
    ids=["batch normalisation", "RMSprop"],
)
def test_what_is_left_to_keras_is_trained_by_it(
    head: Callable[[int, int], keras.Model], optimizer: Callable[[float], keras.Optimizer]
) -> None:
    """Heads of a user's own would not be trained, or not on the images that were asked for."""
    case = Case(head, optimizer, class_weights=True)
    task = _task(case)
    for fit, its in zip(_fits(case, range(2)), fit_all(task, _fits(case, range(2))), strict=True):
        keras.utils.set_random_seed(fit.seed)
        values, targets = task.values[fit.train], task.targets[fit.train]
        expected = build_compiled("a head", "an optimizer", values, CLASSES, fit.learning_rate)
        for order in orders(fit):
            expected.fit(
                values[order],
                targets[order],
                sample_weight=loss_weights(task, fit)[order],
                batch_size=task.batch_size,
                shuffle=False,
                verbose=0,
            )
        for variable, wanted in zip(
            _split_variables(its.head)[0], _split_variables(expected)[0], strict=True
        ):
            np.testing.assert_allclose(variable, wanted, rtol=1e-4, atol=1e-6)
        predicted = predict(expected, task.values[fit.held_out])
        np.testing.assert_allclose(its.probabilities[-1], predicted, atol=1e-6)
        assert len(its.probabilities) == fit.epochs


def test_each_fit_starts_from_weights_of_its_own_by_the_layers_law() -> None:
    """All heads of a cross-validation would share the luck of one start."""
    plan = make_plan("multi", "adam", 40, CLASSES, 0.01)
    assert plan is not None
    starts = [initial_weights(plan, seed) for seed in (0, 0, 1)]
    kernels = [[kernel for kernel, _ in layers] for layers in starts]
    for ours, again, others in zip(*kernels, strict=True):
        assert np.array_equal(ours, again)
        assert not np.isin(ours, others).all()
        bound = (6 / sum(ours.shape)) ** 0.5  # Glorot and Bengio 2010
        assert 0.9 * bound < np.abs(ours).max() <= bound
    assert not np.array_equal(kernels[0][0][0, :3], kernels[0][1][0, :3])
    assert all((bias == 0).all() for _, bias in starts[0])


PLAN_WIDTHS = {
    "single": ("single", "adam", 4096, 74, 25, 10_000),
    "Adam of 400,000 weights": ("multi", "adam", 512, 74, 3, 8),
    "Adam of 2 million weights": ("multi", "adam", 4096, 74, 1, 1),
    "SGD in the span of few images": ("multi", "sgd", 4096, 74, 10, 40),
    "SGD with more images": ("multi", "sgd", 4096, 5000, 1, 2),
}


@pytest.mark.parametrize("name", PLAN_WIDTHS)
def test_stacks_are_as_wide_as_the_cache_allows(name: str) -> None:
    """Wide heads would train three times slower, small ones ten times."""
    head, optimizer, width, num_images, least, most = PLAN_WIDTHS[name]
    plan = make_plan(head, optimizer, width, CLASSES, 0.01)
    assert plan is not None
    assert least <= stack_width(plan, num_images) <= most


@settings(max_examples=50, deadline=None)
@given(count=st.integers(1, 90), size=st.integers(1, 40), seed=st.integers(0, 2**32 - 1))
def test_every_epoch_shows_every_image_once(count: int, size: int, seed: int) -> None:
    """Some images would not be trained on, or count twice."""
    fit = Fit(np.arange(count), np.arange(0), seed, 0.01, 3)
    for order in orders(fit):
        cut = batches(order, size)
        assert sorted(np.concatenate(cut)) == list(range(count))
        assert [len(batch) for batch in cut[:-1]] == [size] * (len(cut) - 1)
    assert count < 9 or len({order.tobytes() for order in orders(fit)}) == 3
