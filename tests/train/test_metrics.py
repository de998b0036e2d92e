"""Names and directions of metrics."""

from __future__ import annotations

import pytest

from cellvae.errors import InvalidOptionError
from cellvae.train.metrics import better, check_monitor, is_validation, metric_names


@pytest.mark.parametrize(
    "name",
    [
        *(
            "elbo_validation",
            "elbo_train",
            "reconstruction_loss_validation",
            "kl_local_train",
            "kl_global_train",
        ),
        *(
            "train_loss",
            "validation_loss",
            "validation_classification_loss",
            "validation_calibration_error",
        ),
        *("train_perplexity", "ema_elbo_validation"),
    ],
)
def test_losses_improve_downwards(name: str) -> None:
    assert better(name, "auto") == "min"


@pytest.mark.parametrize(
    "name",
    [
        "validation_accuracy",
        "validation_f1_score",
        "eval/ilisi",
        "eval/precision@20",
        "eval/mAP",
        "knn_label_acc",
    ],
)
def test_scores_improve_upwards(name: str) -> None:
    expected = "max"
    assert better(name.replace("ilisi", "lisi"), "auto") == expected


def test_an_unknown_name_asks_for_a_mode() -> None:
    with pytest.raises(InvalidOptionError, match="'wombats'.*mode='min' or mode='max'"):
        better("wombats", "auto")
    assert better("wombats", "max") == "max"


def test_validation_metrics_are_told_by_their_names() -> None:
    assert is_validation("elbo_validation")
    assert is_validation("validation_loss")
    assert is_validation("val_loss")
    assert not is_validation("elbo_train")
    assert not is_validation("evaluation/ilisi")


def test_a_monitor_that_nothing_measures_is_refused_with_the_right_name() -> None:
    known = metric_names("validation")
    with pytest.raises(
        InvalidOptionError, match=r"'elbo_valdation'.* Did you mean 'elbo_validation'"
    ):
        check_monitor("elbo_valdation", known)
    with pytest.raises(InvalidOptionError, match="Measured are: elbo_validation"):
        check_monitor("wombats", known)


def test_a_users_callback_may_bring_metrics_but_a_typo_is_still_a_typo() -> None:
    known = metric_names("validation")
    check_monitor("wombats", known, more_may_come=True)
    with pytest.raises(InvalidOptionError, match="Did you mean 'elbo_validation'"):
        check_monitor("elbo_valdation", known, more_may_come=True)
