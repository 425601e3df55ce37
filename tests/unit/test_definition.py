from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, Json, SecretStr, computed_field

from taskmill.app import App
from taskmill.producer.context import Context
from taskmill.producer.definition import TaskDefinition
from taskmill.runtime.errors import ConfigError, InvalidArguments, InvalidResult, UnknownTask


class Colour(Enum):
    RED = "red"


class Customer(BaseModel):
    name: str
    born: date


@dataclass
class Point:
    x: float
    y: float


def define(fn: Any, **options: Any) -> TaskDefinition:
    return TaskDefinition(fn, **options)


def send_receipt(order_id: int, email: str = "nobody@example.com") -> None: ...


receipt = define(send_receipt)


# ---- arguments ---------------------------------------------------------------------------------


def test_arguments_are_stored_by_name_as_compact_json() -> None:
    assert receipt.dump_arguments((7,), {"email": "ä@b"}) == '{"order_id":7,"email":"ä@b"}'.encode()


def test_an_argument_left_out_stays_out_so_that_the_workers_default_applies() -> None:
    payload = receipt.dump_arguments((), {"order_id": 7})
    assert payload == b'{"order_id":7}'
    assert receipt.load(payload) == {"order_id": 7}


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((), {}, "argument 'order_id' is missing; it takes order_id, email"),
        ((), {"order_id": "x"}, "argument 'order_id': Input should be a valid integer"),
        ((), {"order_id": 1, "emial": "x"}, "unknown argument 'emial'; did you mean 'email'"),
        ((), {"order_id": 1, "zzz": "x"}, "unknown argument 'zzz'; it takes order_id, email"),
        ((1, "a", "b"), {}, r"3 positional arguments given; it takes 2 \(order_id, email\)"),
        ((1,), {"order_id": 1}, "argument 'order_id' given twice"),
        ((None,), {"email": 3}, r"argument 'order_id'.*\(and 1 more error\)"),
        ((1, "\ud800"), {}, "argument 'email'"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_in_one_line(
    args: tuple[Any, ...], kwargs: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidArguments, match=message) as caught:
        receipt.dump_arguments(args, kwargs)
    assert "task 'send_receipt'" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_refused_value_is_not_told_because_it_may_be_secret() -> None:
    with pytest.raises(InvalidArguments) as caught:
        receipt.dump_arguments((), {"order_id": "hunter2"})
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "payload",
    [b"", b"[]", b"{", b"null", b'{"order_id":"x"}', b"\xff", b'{"order_id":' + b"[" * 9999],
)
def test_a_payload_that_does_not_fit_is_refused_at_the_worker(payload: bytes) -> None:
    with pytest.raises(InvalidArguments) as caught:
        receipt.load(payload)
    assert "\n" not in str(caught.value)


@given(st.binary(max_size=200))
def test_no_payload_raises_anything_else(payload: bytes) -> None:
    try:
        receipt.load(payload)
    except InvalidArguments:
        pass


def rich(
    when: datetime,
    price: Decimal,
    uid: UUID,
    colour: Colour,
    customer: Customer,
    point: Point,
    pair: tuple[int, str],
    tags: set[str],
    count: Annotated[int, Field(gt=0)],
    maybe: int | None = None,
    self: int = 0,
    _private: str = "",
) -> None: ...


def test_typed_values_come_out_at_the_worker_as_they_went_in() -> None:
    definition = define(rich)
    given_values = {
        "when": datetime(2026, 1, 2, 3, 4, 5, 678000, UTC),
        "price": Decimal("1.10"),
        "uid": UUID(int=7),
        "colour": Colour.RED,
        "customer": Customer(name="Ada", born=date(1815, 12, 10)),
        "point": Point(1.5, -2),
        "pair": (1, "a"),
        "tags": {"x"},
        "count": 3,
        "maybe": None,
        "self": 4,
        "_private": "p",
    }
    assert definition.load(definition.dump_arguments((), given_values)) == given_values


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4
    ),
    max_leaves=12,
)  # fmt: skip


def untyped(value) -> None: ...  # type: ignore[no-untyped-def]


@given(json_values)
def test_an_argument_without_annotation_takes_whatever_json_holds(value: Any) -> None:
    definition = define(untyped)
    payload = definition.dump_arguments((value,), {})
    assert definition.load(payload) == {"value": value}
    assert json.loads(payload) == {"value": value}


def loose(first: Any, second: Any = None, ratio: float = 0.0) -> None: ...


_CYCLE: list[Any] = []
_CYCLE.append(_CYCLE)


@pytest.mark.parametrize(
    "value", [object(), {"deep": [object()]}, b"\xff", "\ud800", _CYCLE, float("nan"), [1e999]]
)
def test_what_has_no_json_form_is_refused_and_the_argument_named(value: Any) -> None:
    with pytest.raises(InvalidArguments, match="argument 'second' cannot be serialised"):
        define(loose).dump_arguments((1, value), {})


def test_nan_is_refused_where_a_float_is_declared_but_not_in_a_string() -> None:
    with pytest.raises(InvalidArguments, match=r"argument 'ratio'.*finite"):
        define(loose).dump_arguments((1,), {"ratio": float("nan")})
    assert define(loose).dump_arguments(("NaN Infinity",), {}) == b'{"first":"NaN Infinity"}'


def with_context(ctx: Context, order_id: int) -> None: ...


def test_the_context_is_no_argument() -> None:
    definition = define(with_context)
    assert definition.context_parameter == "ctx"
    assert definition.argument_names == ("order_id",)
    assert definition.dump_arguments((7,), {}) == b'{"order_id":7}'
    with pytest.raises(InvalidArguments, match="unknown argument 'ctx'"):
        definition.dump_arguments((), {"order_id": 7, "ctx": 1})


# ---- declarations ------------------------------------------------------------------------------


def positional_only(a: int, /) -> None: ...
def star(*values: int) -> None: ...
def double_star(**values: int) -> None: ...
def two_contexts(a: Context, b: Context) -> None: ...
def generator() -> Any:
    yield 1


class NoSchema: ...


def strange_argument(a: int, thing: NoSchema) -> None: ...
def strange_result() -> NoSchema: ...


def unresolved(a: "Missing") -> None: ...  # type: ignore[name-defined]  # noqa: F821, UP037


@pytest.mark.parametrize(
    ("fn", "message"),
    [
        (positional_only, "'a'.*positional-only"),
        (star, "'values'.*take a list"),
        (double_star, "'values'.*take a dict"),
        (two_contexts, "'a' and 'b' both take the Context"),
        (generator, "a function that yields"),
        (strange_argument, "parameter 'thing'.*NoSchema"),
        (strange_result, "return type.*NoSchema"),
        (unresolved, "'Missing' is not defined"),
        (NoSchema, "a task is a function"),
        (3, "has no name of its own"),
        (lambda: None, "has no name of its own"),
    ],
)
def test_a_function_that_cannot_be_a_task_is_refused_at_its_declaration(
    fn: Any, message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        define(fn)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": ""}, "task name ''"),
        ({"name": "x" * 256}, "1 to 255 bytes"),
        ({"name": "a\nb"}, "printable"),
        ({"queue": "no good"}, "queue 'no good'"),
        ({"isolate": "thread"}, "isolate='thread'; allowed"),
        ({"aliases": "receipt"}, "aliases is a tuple"),
        ({"store_result": "no"}, "store_result='no'; allowed: True, False"),
        ({"result_ttl": "1 day"}, "result_ttl: duration '1 day': expected a number and one of"),
        ({"result_ttl": 60}, "result_ttl=60: expected a number and one of ms, s, m, h, d"),
        ({"result_ttl": "0s"}, "result_ttl='0s' keeps nothing; store_result=False"),
        ({"result_ttl": "1d", "store_result": False}, "with store_result=False: give one"),
    ],
)
def test_a_wrong_option_is_refused_at_the_declaration(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        define(send_receipt, **options)


def test_a_result_is_kept_as_long_as_its_state_unless_declared_otherwise() -> None:
    assert define(send_receipt).result_ttl_ms is None
    assert define(send_receipt, result_ttl="1d").result_ttl_ms == 86_400_000
    assert define(send_receipt, result_ttl="1.5s").result_ttl_ms == 1_500


def test_a_result_that_is_not_stored_needs_no_json_form() -> None:
    task = define(strange_result, store_result=False)
    assert task.dump_result(object()) is None


def test_a_task_is_found_by_name_and_alias_and_names_are_unique() -> None:
    app = App("shop")

    @app.task(aliases=("receipt",))
    def send(order_id: int) -> None: ...

    assert app.tasks["receipt"] is app.tasks["send"] is send
    assert len(app.tasks) == 1
    with pytest.raises(ConfigError, match=r"the name 'receipt' is taken by .*send"):
        app.task(name="receipt")(send_receipt)
    with pytest.raises(UnknownTask, match="no task 'snd' is declared; did you mean 'send'"):
        app.tasks["snd"]
    with pytest.raises(UnknownTask, match="declared: send"):
        app.tasks["zzzzz"]


def test_a_task_stays_callable_as_the_function_it_was() -> None:
    app = App("shop")

    @app.task
    def add(a: int, b: int = 2) -> int:
        """Adds."""
        return a + b

    assert add(1) == 3
    assert (add.__name__, add.__doc__) == ("add", "Adds.")


def test_annotations_may_name_what_only_the_enclosing_function_knows() -> None:
    class Local(BaseModel):
        n: int

    app = App("shop")

    @app.task
    def use(local: Local) -> None: ...

    assert use.load(b'{"local":{"n":1}}') == {"local": Local(n=1)}


# ---- results -----------------------------------------------------------------------------------


def returns_customer() -> Customer: ...  # type: ignore[empty-body]
def returns_pairs() -> list[tuple[int, str]]: ...  # type: ignore[empty-body]
def returns_whatever() -> Any: ...


@pytest.mark.parametrize(
    ("fn", "value"),
    [
        (returns_customer, Customer(name="Ada", born=date(1815, 12, 10))),
        (returns_pairs, [(1, "a"), (2, "b")]),
        (returns_whatever, {"a": [1, 2.5, None]}),
        (send_receipt, None),
        (returns_customer, None),
    ],
)
def test_a_result_is_read_back_as_its_declared_type(fn: Any, value: Any) -> None:
    definition = define(fn)
    document = definition.dump_result(value)
    json.loads(document)
    if value is not None or fn is send_receipt:
        assert definition.load_result(document) == value


def test_a_result_of_another_type_is_kept_and_told_by_whoever_reads_it() -> None:
    definition = define(returns_customer)
    document = definition.dump_result({"name": "Ada"})
    assert document == b'{"name":"Ada"}'
    with pytest.raises(InvalidResult, match="not of the declared type at 'born'"):
        definition.load_result(document)


class Order(BaseModel):
    """By alias, closed, and with a field that is only computed."""

    model_config = ConfigDict(extra="forbid")
    user_id: int = Field(alias="userId")

    @computed_field  # type: ignore[prop-decorator]
    @property
    def shown(self) -> str:
        return f"user {self.user_id}"


def takes_order(order: Order, raw: Json[list[int]]) -> Order: ...  # type: ignore[empty-body]


def test_models_with_aliases_and_computed_fields_come_out_as_they_went_in() -> None:
    definition = define(takes_order)
    order = Order(userId=7)
    payload = definition.dump_arguments((), {"order": order, "raw": "[1, 2]"})
    assert definition.load(payload) == {"order": order, "raw": [1, 2]}
    assert definition.load_result(definition.dump_result(order)) == order


class Account(BaseModel):
    token: SecretStr


def takes_secret(account: Account) -> None: ...
def returns_secret() -> list[SecretStr]: ...  # type: ignore[empty-body]


@pytest.mark.parametrize("fn", [takes_secret, returns_secret])
def test_what_pydantic_writes_as_asterisks_is_refused_at_the_declaration(fn: Any) -> None:
    with pytest.raises(ConfigError, match="as asterisks"):
        define(fn)


def test_options_given_with_the_function_and_one_after_the_other_all_hold() -> None:
    app = App("shop")
    one = app.task(send_receipt, name="one", queue="mail")  # type: ignore[call-overload]
    two = app.task(queue="mail")(name="two", delivery="at_most_once")(send_receipt)  # type: ignore[call-overload]
    assert (one.name, one.queue) == ("one", "mail")
    assert (two.name, two.queue, two.delivery) == ("two", "mail", "at_most_once")


@pytest.mark.parametrize("value", [object(), _CYCLE, float("nan"), "\ud800", [b"\xff"]])
@pytest.mark.parametrize("fn", [returns_whatever, returns_pairs])
def test_a_result_without_json_form_is_an_invalid_result(fn: Any, value: Any) -> None:
    with pytest.raises(InvalidResult, match="cannot be serialised as JSON") as caught:
        define(fn).dump_result(value)
    assert "\n" not in str(caught.value)
