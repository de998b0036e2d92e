"""Volcano plot, by what is on the axes."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from cellvae.errors import InvalidDataError
from cellvae.plotting import volcano


@pytest.fixture(autouse=True)
def no_window() -> Iterator[None]:
    mpl.use("agg")
    yield
    mpl.pyplot.close("all")


def table() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "lfc_mean": [2.0, -3.0, 0.1, 0.5],
            "proba_de": [0.99, 0.98, 0.2, 0.5],
            "is_de_fdr_0.05": [True, True, False, False],
            "comparison": "a vs Rest",
        },
        index=["CD3D", "LYZ", "ACTB", "B2M"],
    )


def test_genes_are_where_they_belong() -> None:
    ax = volcano(table(), n_labels=1)
    grey, red = (dots.get_offsets().data for dots in ax.collections)
    np.testing.assert_allclose(red, [[2.0, 0.99], [-3.0, 0.98]])
    np.testing.assert_allclose(grey, [[0.1, 0.2], [0.5, 0.5]])
    assert [text.get_text() for text in ax.texts] == ["LYZ"]
    assert ax.get_title(loc="left") == "a vs Rest"
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["Not called", "Called (2)"]


def test_it_draws_where_it_is_told() -> None:
    _, ax = mpl.pyplot.subplots()
    assert volcano(table().drop(columns=["comparison", "is_de_fdr_0.05"]), ax, title="T") is ax
    assert ax.get_title(loc="left") == "T"
    assert not ax.texts


def test_other_tables_are_refused() -> None:
    with pytest.raises(InvalidDataError, match="without proba_de"):
        volcano(table().drop(columns="proba_de"))
    several = pd.concat([table(), table().assign(comparison="b vs Rest")])
    with pytest.raises(InvalidDataError, match="one comparison; got 2"):
        volcano(several)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_names_do_not_lie_on_each_other(sign: float) -> None:
    many = pd.DataFrame(
        {
            "lfc_mean": sign * np.linspace(1, 1.2, 10),
            "proba_de": np.linspace(0.999, 1.0, 10),
            "is_de_fdr_0.05": True,
        },
        index=[f"GENE{i}" for i in range(10)],
    )
    ax = volcano(many)
    ax.figure.draw_without_rendering()
    boxes = sorted((text.get_window_extent() for text in ax.texts), key=lambda box: box.y0)
    assert len(boxes) == 10
    assert all(low.y1 <= high.y0 + 0.5 for low, high in zip(boxes, boxes[1:], strict=False))
    inside = ax.get_window_extent()
    assert all(inside.y0 <= box.y0 and box.y1 <= inside.y1 + 8 for box in boxes)
