"""Names and directions of metrics."""

from __future__ import annotations

import pytest

from cellvae.errors import InvalidOptionError
from cellvae.train.options.metric_names import (
    DIRECTIONS,
    HIGHER_IS_BETTER,
    LOWER_IS_BETTER,
    canonical_name,
    check_monitor,
    is_validation,
    metric_mode,
    metric_names,
)


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
    assert metric_mode(name, "auto") == "min"


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
    assert metric_mode(name.replace("ilisi", "lisi"), "auto") == expected


@pytest.mark.parametrize(
    ("name", "direction"),
    [
        *((name, "max") for name in ("eval/graph_connectivity", "eval/mAP", "eval/ndcg@20")),
        *((name, "max") for name in ("eval/knn_label_accuracy", "eval/knn_label_f1")),
        *((name, "max") for name in ("eval/ilisi", "eval/clisi", "eval/asw_batch", "eval/bras")),
        *((name, "max") for name in ("iLISI", "KMeans NMI", "Silhouette label", "Isolated labels")),
        *((name, "max") for name in ("Total", "eval/Total", "Batch correction", "PCR", "BRAS")),
        ("kl_total", "min"),
        *((name, "max") for name in ("eval/asw_label", "eval/pcr", "eval/isolated_f1")),
        *((name, "max") for name in ("eval/nmi", "eval/ari", "eval/recall@5", "eval/hits@10")),
        *((name, "max") for name in ("validation_auroc", "silhouette", "test.mrr", "score")),
        *((name, "min") for name in ("validation_calibration_error", "train_loss", "val_losses")),
        *((name, "min") for name in ("validation_classification_loss", "ema_elbo_validation")),
        *((name, "min") for name in ("mmd", "rmse_validation", "test_perplexity", "kl2")),
        # The last word that is known decides.
        *((name, "min") for name in ("mapping_error", "map_error", "accuracy_loss_train")),
        *((name, "max") for name in ("reconstruction_accuracy", "loss_precision_validation")),
        # What is turned round is turned round.
        ("log_likelihood", "max"),
        ("negative_log_likelihood_validation", "min"),
        ("brier_score", "min"),
    ],
)
def test_every_name_has_the_direction_of_its_words(name: str, direction: str) -> None:
    assert metric_mode(name, "auto") == direction
    assert metric_mode(name.upper(), "auto") == direction


@pytest.mark.parametrize(
    "name",
    [
        *("lr-Adam", "grad_norm_total", "clarity", "mapping", "variance", "factory", "scoreboard"),
        *("accordion", "glossary", "kl_weight", "white", "", "42"),
    ],
)
def test_a_part_of_a_word_decides_nothing(name: str) -> None:
    with pytest.raises(InvalidOptionError, match="mode='min' or mode='max'"):
        metric_mode(name, "auto")
    assert metric_mode(name, "min") == "min"


def test_no_word_has_two_directions() -> None:
    assert len(DIRECTIONS) == len(LOWER_IS_BETTER) + len(HIGHER_IS_BETTER)
    assert {DIRECTIONS[word] for word in LOWER_IS_BETTER} == {"min"}
    assert {DIRECTIONS[word] for word in HIGHER_IS_BETTER} == {"max"}


def test_every_metric_of_a_plan_has_a_direction() -> None:
    for split in ("train", "validation"):
        for name in metric_names(split):  # type: ignore[arg-type]
            assert metric_mode(name, "auto") == "min"


def test_a_mode_that_does_not_exist_is_refused() -> None:
    with pytest.raises(InvalidOptionError, match="'min', 'max' or 'auto'; got 'up'"):
        metric_mode("elbo_train", "up")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("validation_reconstruction_loss", "reconstruction_loss_validation"),
        ("validation_elbo", "elbo_validation"),
        ("elbo_val", "elbo_validation"),
        ("val_elbo_epoch", "elbo_validation"),
        ("train_elbo", "elbo_train"),
        ("training_kl_local", "kl_local_train"),
        ("val_loss", "validation_loss"),
        ("loss_validation", "validation_loss"),
        ("eval_loss_epoch", "validation_loss"),
        ("train_loss_epoch", "train_loss"),
        ("loss_training", "train_loss"),
        # Nothing is guessed.
        ("elbo_validation", "elbo_validation"),
        ("elbo", "elbo"),
        ("test_elbo", "test_elbo"),
        ("validation_", "validation_"),
        ("val_lossy", "val_lossy"),
        ("eval/ilisi", "eval/ilisi"),
    ],
)
def test_the_place_of_the_split_in_a_name_does_not_matter(name: str, found: str) -> None:
    known = [*metric_names("train"), *metric_names("validation")]
    assert canonical_name(name, known) == found
    assert canonical_name(canonical_name(name, known), known) == found


def test_a_name_that_is_known_stays_even_if_another_spelling_is_known_too() -> None:
    known = ["validation_accuracy", "accuracy_validation", "val_f1"]
    for name in known:
        assert canonical_name(name, known) == name
    assert canonical_name("f1_validation", known) == "val_f1"
    assert canonical_name("accuracy_val", known) == "accuracy_validation"


def test_an_unknown_name_asks_for_a_mode() -> None:
    with pytest.raises(InvalidOptionError, match="'wombats'.*mode='min' or mode='max'"):
        metric_mode("wombats", "auto")
    assert metric_mode("wombats", "max") == "max"


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
    with pytest.raises(InvalidOptionError, match=r"'val_elbo'.* Did you mean 'elbo_validation'"):
        check_monitor("val_elbo", known)
    with pytest.raises(InvalidOptionError, match="Measured are: elbo_validation"):
        check_monitor("wombats", known)


def test_a_users_callback_may_bring_metrics_but_a_typo_is_still_a_typo() -> None:
    known = metric_names("validation")
    check_monitor("wombats", known, more_may_come=True)
    with pytest.raises(InvalidOptionError, match="Did you mean 'elbo_validation'"):
        check_monitor("elbo_valdation", known, more_may_come=True)
