"""What an exception becomes, also one whose text is not fit to be written."""

from __future__ import annotations

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
