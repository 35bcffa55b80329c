"""Objects from class_path and init_args, by nothing but signatures and type hints."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from treadle.config import hints, kinds
from treadle.config.errors import ConfigError, below, listed, short, suggestion
from treadle.config.guard import Guard
from treadle.config.schema import check_specification, is_specification


class Builder:
    """Builds what a configuration describes.

    A class is built with its init_args. A class of optimizers or schedulers becomes a function of what it is
    built from. A function is taken as it is, with its init_args filled in, where a function is wanted; it is
    called, where an object is, if its module was allowed by the user.
    """

    def __init__(self, guard: Guard) -> None:
        self.guard = guard

    def build(self, value: Any, hint: Any, where: str) -> Any:
        """The value as `hint` wants it: objects built, numbers checked. `value` itself is not changed.

        Raises:
            ConfigError: it does not fit, or building failed; the error has the key path.
        """
        parts = hints.members(hint)
        if is_specification(value):
            return self._object(value, parts, where)
        if isinstance(value, Mapping):
            return self._mapping(value, parts, where)
        if isinstance(value, list):
            return self._list(value, parts, where)
        fitting = hints.scalar(value, parts)
        if fitting is not hints.NO_FIT:
            return fitting
        if isinstance(value, str) and "." in value and self._wants_object(parts):
            return self._object({"class_path": value}, parts, where)
        raise self._misfit(value, parts, where)

    def call(self, target: Callable[..., Any], arguments: Mapping[str, Any], where: str, name: str) -> Any:
        """Call a class or function with arguments built from a configuration.

        Raises:
            ConfigError: an argument is unknown, missing or does not fit, or the call failed.
        """
        return self._call(target, {"init_args": arguments}, where, where, name)

    # -- values ------------------------------------------------------------------------------------------

    def _mapping(self, value: Mapping[str, Any], parts: tuple[Any, ...], where: str) -> Any:
        inner = hints.mapping_values(parts)
        if inner is Any and hints.callable_in(parts):
            inner = Callable[..., Any]  # a loss, or several by name
        if inner is not hints.NO_FIT:
            return {key: self.build(item, inner, below(where, key)) for key, item in value.items()}
        classes = hints.classes_in(parts)
        if len(classes) == 1:  # only one thing can be meant, so its arguments are enough
            return self._call(classes[0], {"init_args": value}, where, where, classes[0].__name__)
        raise self._misfit(value, parts, where)

    def _list(self, value: list[Any], parts: tuple[Any, ...], where: str) -> Any:
        found = hints.list_items(parts, len(value))
        if found is None:
            raise self._misfit(value, parts, where)
        container, items = found
        pairs = enumerate(zip(value, items, strict=True))
        return container([self.build(item, hint, below(where, index)) for index, (item, hint) in pairs])

    @staticmethod
    def _wants_object(parts: tuple[Any, ...]) -> bool:
        wanted = hints.callable_in(parts) or hints.class_reference_in(parts) or bool(hints.classes_in(parts))
        return wanted and str not in parts

    @staticmethod
    def _misfit(value: Any, parts: tuple[Any, ...], where: str) -> ConfigError:
        return ConfigError(where, f"{short(value)}; it must be {hints.described(parts)}")

    # -- objects -----------------------------------------------------------------------------------------

    def _object(self, specification: dict[str, Any], parts: tuple[Any, ...], where: str) -> Any:
        check_specification(specification, where)
        path = specification["class_path"]
        target = self.guard.find(path, below(where, "class_path"))
        inside = below(where, "init_args")
        if not isinstance(target, type):
            return self._function(target, specification, parts, where, path)
        bare = not specification.get("init_args") and not specification.get("args")
        if hints.class_reference_in(parts) and bare:
            return target
        if kinds.is_optimizer(target):
            arguments = self._arguments(target, specification, where, inside, path, supplied=1)
            return functools.partial(target, **arguments.kwargs) if arguments.kwargs else target
        classes = hints.classes_in(parts)
        fits = hints.takes_any(parts) or hints.callable_in(parts) or issubclass(target, classes)
        if not fits:
            raise ConfigError(below(where, "class_path"), f"{path!r}; it must be {hints.described(parts)}")
        return self._call(target, specification, where, inside, path)

    def _function(
        self, target: Any, specification: dict[str, Any], parts: tuple[Any, ...], where: str, path: str
    ) -> Any:
        inside = below(where, "init_args")
        if hints.callable_in(parts) or not self.guard.may_call(target, path):
            if not (hints.callable_in(parts) or hints.takes_any(parts)):
                raise ConfigError(
                    below(where, "class_path"), f"{path!r} is a function; it must be {hints.described(parts)}"
                )
            if not specification.get("init_args") and not specification.get("args"):
                return target
            arguments = self._arguments(target, specification, where, inside, path, supplied=None)
            return functools.partial(target, **arguments.kwargs)
        made = self._call(target, specification, where, inside, path)
        classes = hints.classes_in(parts)
        if not hints.takes_any(parts) and not isinstance(made, classes):
            raise ConfigError(where, f"{path} returned {short(made)}; it must be {hints.described(parts)}")
        return made

    def _call(
        self, target: Callable[..., Any], specification: Mapping[str, Any], where: str, inside: str, name: str
    ) -> Any:
        arguments = self._arguments(target, specification, where, inside, name, supplied=0)
        try:
            return target(*arguments.args, **arguments.kwargs)
        except ConfigError:
            raise
        except Exception as error:
            said = str(error) or type(error).__name__
            known = isinstance(error, (TypeError, ValueError, OSError, ImportError))
            problem = said if known else f"{type(error).__name__}: {said}"
            prefix = "" if problem.startswith(name.rpartition(".")[2]) else f"{name}: "
            raise ConfigError(where, f"{prefix}{problem}") from error

    def _arguments(
        self,
        target: Callable[..., Any],
        specification: Mapping[str, Any],
        where: str,
        inside: str,
        name: str,
        supplied: int | None,
    ) -> _Arguments:
        """Arguments checked against the signature.

        `supplied` is how many leading ones somebody else gives later; None where that is not known.
        """
        given = specification.get("init_args") or {}
        positional = specification.get("args") or []
        known = hints.hints_of(target)
        try:
            parameters = inspect.signature(target).parameters
        except ValueError:  # some functions written in C have none; they check their arguments themselves
            parameters = inspect.signature(lambda *args, **kwargs: None).parameters
        kinds_of = {parameter.kind for parameter in parameters.values()}
        later = list(parameters)[: supplied or 0]
        named = [key for key, one in parameters.items() if one.kind in _NAMED and key not in later]
        for key in given:
            if key not in named and (key in parameters or inspect.Parameter.VAR_KEYWORD not in kinds_of):
                problem = (
                    f"{name} takes no argument {key!r}; it takes {listed(named)}.{suggestion(key, named)}"
                )
                raise ConfigError(below(inside, key), problem)
        if positional and inspect.Parameter.VAR_POSITIONAL not in kinds_of:
            raise ConfigError(below(where, "args"), f"{name} takes arguments by name; give them in init_args")
        if supplied is not None:
            missing = [key for key in named if parameters[key].default is _EMPTY and key not in given]
            if missing:
                raise ConfigError(
                    where,
                    f"{name} needs {listed(missing)}, which {'is' if len(missing) == 1 else 'are'} missing",
                )
        star = next(
            (key for key, one in parameters.items() if one.kind is inspect.Parameter.VAR_POSITIONAL), ""
        )
        return _Arguments(
            [
                self.build(item, known.get(star, Any), below(below(where, "args"), i))
                for i, item in enumerate(positional)
            ],
            {key: self.build(item, known.get(key, Any), below(inside, key)) for key, item in given.items()},
        )


class _Arguments(NamedTuple):
    args: list[Any]
    kwargs: dict[str, Any]


_EMPTY = inspect.Parameter.empty
_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
