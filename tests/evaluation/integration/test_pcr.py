from __future__ import annotations

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import LinearRegression

from cellvae.errors import InvalidOptionError
from cellvae.evaluation import pcr


def test_it_is_that_of_regressing_each_principal_component() -> None:
    rng = np.random.default_rng(0)
    batch = rng.integers(0, 3, 80)
    latent = rng.normal(size=(80, 4)) @ rng.normal(size=(4, 4)) + rng.normal(size=(3, 4))[batch]
    pca = PCA().fit(latent)
    components, dummies = pca.transform(latent), np.eye(3)[batch]
    r2 = [LinearRegression().fit(dummies, c).score(dummies, c) for c in components.T]
    explained = np.dot(r2, pca.explained_variance_) / pca.explained_variance_.sum()
    assert 0.05 < explained < 0.95
    assert pcr(latent, batch) == pytest.approx(1 - explained, abs=1e-10)


def test_bounds_and_a_closed_form() -> None:
    batch = np.array(["a", "a", "b", "b"])
    assert pcr([[0.0], [0.0], [1.0], [1.0]], batch) == pytest.approx(0)
    assert pcr([[0.0], [1.0], [0.0], [1.0]], batch) == pytest.approx(1)
    # Batches at 0, 2 and 4, 6: means 1 and 5 around 3; between 4 * 4, whole 9 + 1 + 1 + 9.
    assert pcr([[0.0], [2.0], [4.0], [6.0]], batch) == pytest.approx(1 - 16 / 20)
    assert pcr(np.ones((4, 2)), batch) == 1


def test_a_single_batch_is_refused() -> None:
    with pytest.raises(InvalidOptionError, match="two or more values of batch; got 1"):
        pcr(np.eye(3), ["x"] * 3)
