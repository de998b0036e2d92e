"""Which options a search varies, checked before any trial: names, and values at all ends."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from cellvae.core.options import check_kwargs, from_kwargs
from cellvae.core.seeds import isolated_rng
from cellvae.errors import CellvaeError, InvalidOptionError
from cellvae.tune.domains import Choice, Interval, domain_of, is_domain

if TYPE_CHECKING:
    from cellvae.estimator.model import Model

MODEL, TRAIN = "model_params", "train_params"


@dataclass(frozen=True)
class SearchSpace:
    """Options of the model and of `train`, each with a value or a domain.

    Parameters
    ----------
    model_params
        Options of the class of the model.
    train_params
        Keyword arguments of `train`.
    """

    model_params: Mapping[str, Any]
    train_params: Mapping[str, Any]

    @classmethod
    def of(cls, given: Any, model_class: type[Model], train_names: Sequence[str]) -> SearchSpace:
        """Space from a dictionary, of two parts or of plain names.

        Parameters
        ----------
        given
            `{"model_params": {...}, "train_params": {...}}`, or names of options of both.
        model_class
            Class of the model.
        train_names
            Keyword arguments of `train`.

        Raises
        ------
        InvalidOptionError
            If it is no dictionary, empty, or a plain name is an option of both.
        UnknownOptionError
            If a plain name is an option of neither.
        """
        if not isinstance(given, Mapping) or not given:
            raise InvalidOptionError(
                "Expected search_space to be a dictionary of options of the model and of train(), "
                f"such as {{'n_latent': tune.choice([10, 20])}}; got {given!r:.100}."
            )
        if {MODEL, TRAIN} & {*given}:
            check_kwargs([*given], (MODEL, TRAIN), "search_space")
            parts = {name: given.get(name) or {} for name in (MODEL, TRAIN)}
            for name, part in parts.items():
                if not isinstance(part, Mapping):
                    raise InvalidOptionError(
                        f"Expected search_space['{name}'] to be a dictionary; got {part!r:.100}."
                    )
            return cls({**parts[MODEL]}, {**parts[TRAIN]})
        of_model = [field.name for field in fields(model_class.Config)]
        check_kwargs([*given], (*of_model, *train_names), "search_space")
        for name in given:
            if name in of_model and name in train_names:
                raise InvalidOptionError(
                    f"'{name}' is an option of {model_class.__name__} and of train(). Say which: "
                    f"search_space={{'{MODEL}': {{...}}, '{TRAIN}': {{...}}}}."
                )
        return cls(
            {name: value for name, value in given.items() if name in of_model},
            {name: value for name, value in given.items() if name not in of_model},
        )

    def checked_model_params(self, model_class: type[Model]) -> dict[str, Any]:
        """Options of the model, each at its first value; all values are checked.

        Parameters
        ----------
        model_class
            Class of the model.

        Raises
        ------
        UnknownOptionError
            If a name is misspelt.
        InvalidOptionError
            If a value does not fit.
        """
        for params in varied_values(self.model_params):
            from_kwargs(model_class.Config, params, f"{model_class.__name__}()")
        return next(varied_values(self.model_params))

    def check(self, model: Model) -> None:
        """Check that a network can be made of every option, and every option of `train`.

        Parameters
        ----------
        model
            Model of the cells of the search.

        Raises
        ------
        UnknownOptionError
            If a name is misspelt, at any depth.
        InvalidOptionError
            If a value does not fit, or values do not fit together.
        """
        name = type(model).__name__
        for params in varied_values(self.model_params):
            config: Any = from_kwargs(type(model).Config, params, f"{name}()")
            try:
                with isolated_rng(0, "search"):
                    type(model).build(model.registration, config)
            except CellvaeError:
                raise
            except Exception as error:
                raise InvalidOptionError(f"{name}(**{params!r}) cannot be made: {error}") from error
        for params in varied_values(self.train_params):
            model.parse_train_kwargs(params)

    def max_epochs(self) -> int | None:
        """Most epochs that a trial may run; None if the search leaves it to the default."""
        found = [values.get("max_epochs") for values in varied_values(self.train_params)]
        return max((int(n) for n in found if n is not None), default=None)


def values_at_ends(value: Any) -> list[Any]:
    """Values of an option to check: all of a list, the ends of a range, one of no list or range."""
    if is_domain(value):
        domain = domain_of(value)
        if isinstance(domain, Choice):
            return [end for choice in domain.values for end in values_at_ends(choice)]
        return domain.ends() if isinstance(domain, Interval) else []
    return [*varied_values(value)] if isinstance(value, Mapping) else [value]


def varied_values(params: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Options with one of them at each of its values, and all others at their first."""
    ends = {name: values_at_ends(value) for name, value in params.items()}
    first = {name: values[0] for name, values in ends.items() if values}
    yield first
    for name, values in ends.items():
        for value in values[1:]:
            yield {**first, name: value}


def split_params(params: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options that have one value, and those that vary, each in dictionaries as they were given."""
    fixed: dict[str, Any] = {}
    varying: dict[str, Any] = {}
    for name, value in params.items():
        if is_domain(value):
            varying[name] = value
        elif isinstance(value, Mapping):
            inner_fixed, inner_varying = split_params(value)
            if inner_varying:
                varying[name] = inner_varying
            if inner_fixed or not inner_varying:
                fixed[name] = inner_fixed
        else:
            fixed[name] = value
    return fixed, varying


def merge_params(fixed: Mapping[str, Any], varying: Mapping[str, Any]) -> dict[str, Any]:
    """Options of both, dictionaries of the same name together."""
    found = {**fixed}
    for name, value in varying.items():
        before = found.get(name)
        if isinstance(before, Mapping) and isinstance(value, Mapping):
            value = merge_params(before, value)
        found[name] = value
    return found


def flat_params(params: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Options by name, those in dictionaries by `outer/inner`."""
    found: dict[str, Any] = {}
    for name, value in params.items():
        if isinstance(value, Mapping) and not is_domain(value):
            found |= flat_params(value, f"{prefix}{name}/")
        else:
            found[f"{prefix}{name}"] = value
    return found


def describe_space(space: SearchSpace) -> dict[str, str]:
    """The space as text, by which a search is recognised when it is resumed."""
    parts = {MODEL: space.model_params, TRAIN: space.train_params}
    return {name: describe_value(value) for name, value in flat_params(parts).items()}


def describe_value(value: Any) -> str:
    """A value or a domain as text that is the same in every process."""
    text = repr(domain_of(value) if is_domain(value) else value)
    return type(value).__name__ if " at 0x" in text else text
