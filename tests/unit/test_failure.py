"""What an exception becomes, also one whose text is not fit to be written."""

from __future__ import annotations

import ast
import traceback
from collections.abc import Callable
from typing import Any

import pytest

from taskmill.consumer import failure
from taskmill.consumer.failure import describe


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def raised(error: Exception) -> Exception:
    try:
        raise error
    except Exception as caught:
        return caught


def test_bytes_that_were_no_text_are_replaced_in_the_message_and_in_the_stack() -> None:
    error, stack = describe(raised(ValueError("file \udcff")))
    assert error.message == "file ?"
    assert "ValueError: file ?" in stack
    stack.encode()


def test_an_exception_that_cannot_say_what_it_is_is_described_nevertheless() -> None:
    error, stack = describe(raised(Mute()))
    assert error.type.endswith("Mute")
    assert error.message == "<its text cannot be had: RuntimeError>"
    assert "Mute" in stack


def in_words(error: Exception) -> str:
    return "".join(traceback.format_exception(error))


def noted() -> Exception:
    error = raised(ValueError("a"))
    error.add_note("and that")
    return error


def chained() -> Exception:
    try:
        try:
            raise KeyError("first")
        except KeyError as error:
            raise ValueError("second") from error
    except ValueError as error:
        return error


def in_passing() -> Exception:
    try:
        try:
            raise KeyError("first")
        except KeyError:
            raise ValueError("second")  # noqa: B904
    except ValueError as error:
        return error


def unparsed() -> Exception:
    try:
        ast.parse("a b")
    except SyntaxError as error:
        return error
    raise AssertionError


def misspelt() -> Exception:
    try:
        return ast.pars  # type: ignore[attr-defined, no-any-return]
    except AttributeError as error:
        return error


def plain(kind: type[Exception], *arguments: object) -> Callable[[], Exception]:
    return lambda: raised(kind(*arguments))


class Own(Exception):
    pass


PLAIN = [
    plain(ValueError, "words\nin lines"),
    plain(KeyError, "key"),
    plain(ValueError),
    plain(OSError, 2, "none", "file"),
    plain(Own, 3),
]


@pytest.mark.parametrize("make", [noted, chained, in_passing, unparsed, misspelt, *PLAIN])
def test_a_stack_is_what_python_prints_also_the_second_time(make: Callable[[], Exception]) -> None:
    for _ in range(2):
        error = make()
        assert describe(error)[1] == in_words(error)


def test_errors_from_one_place_have_one_fingerprint_and_each_its_own_text() -> None:
    first, second = (raised(ValueError(text)) for text in ("a", "b"))
    (one, stack), (other, another) = describe(first), describe(second)
    assert one.fingerprint == other.fingerprint
    assert (stack, another) == (in_words(first), in_words(second))
    assert describe(raised(KeyError("a")))[0].fingerprint != one.fingerprint


def test_what_is_kept_of_places_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failure, "MAX_PLACES", 3)
    for number in range(10):
        namespace: dict[str, Any] = {}
        exec(f"def fails():\n raise ValueError({number})", namespace)
        with pytest.raises(ValueError, match=str(number)) as caught:
            namespace["fails"]()
        assert f"ValueError: {number}" in describe(caught.value)[1]
    assert len(failure._PLACES) <= 3
