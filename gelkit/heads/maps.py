"""Maps: embeddings in two dimensions, for the eye."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_DIMENSIONS = 30
_PERPLEXITY = 30
_START_SPREAD = 1e-4


def map_embeddings(values: npt.NDArray[np.floating]) -> Floats:
    """Lay embeddings out in a plane such that neighbours stay neighbours (t-SNE).

    scikit-learn's (van der Maaten and Hinton 2008, https://jmlr.org/papers/v9/vandermaaten08a.html)
    on up to 30 principal components of the standardised values, begun from the first two. In one
    thread, so that the same values give the same map. Takes seconds for a thousand images.

    :param values: (images x width), at least 3 images.
    :returns: (images x 2), in no unit: only who is near whom means something.
    :raises ValueError: fewer than 3 images.
    """
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    if len(values) < 3:
        raise ValueError(f"Expected at least 3 embeddings. Received: {len(values)}. Add images.")
    with threadpool_limits(1):
        components = _principal_components(values.astype(np.float64))
        perplexity = min(_PERPLEXITY, (len(values) - 1) / 3)
        layout = TSNE(2, perplexity=perplexity, init=_start(components), random_state=0)
        return np.asarray(layout.fit_transform(components), dtype=np.float64)


def _principal_components(values: Floats) -> Floats:
    """Return the first components of the standardised values, (images x components)."""
    centered = values - values.mean(axis=0)
    spread = centered.std(axis=0)
    centered /= np.where(spread > 0, spread, 1)
    left, singular, _ = np.linalg.svd(centered, full_matrices=False)
    return np.asarray((left * singular)[:, :_DIMENSIONS], dtype=np.float64)


def _start(components: Floats) -> Floats:
    """Return the first two components, as small as t-SNE wants them to begin with."""
    first = np.zeros((len(components), 2))
    first[:, : components.shape[1]] = components[:, :2]
    spread = first[:, 0].std()
    return first * (_START_SPREAD / spread) if spread > 0 else first
