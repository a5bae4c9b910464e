"""The methods of both clients, each written once.

A method builds the description of a call. `Client` sends it and returns the answer; `AsyncClient` returns an awaitable
of the same answer, or an asynchronous iterator.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, overload

from service.client.call import Call, Pages, Stream
from service.client.calls import class_calls, image_calls, model_calls, run_calls, segment_calls

if TYPE_CHECKING:
    from service.client.async_client import AsyncClient
    from service.client.sync_client import Client

P = ParamSpec("P")
T = TypeVar("T")


class method(Generic[P, T]):  # noqa: N801 - used as a decorator is
    """A method that returns one answer."""

    def __init__(self, build: Callable[P, Call[T]]) -> None:
        self.build = build

    @overload
    def __get__(self, client: Client, owner: object) -> Callable[P, T]: ...
    @overload
    def __get__(self, client: AsyncClient, owner: object) -> Callable[P, Awaitable[T]]: ...
    @overload
    def __get__(self, client: None, owner: object) -> Callable[P, Call[T]]: ...
    def __get__(self, client: Any, owner: object) -> Any:
        return self.build if client is None else _bound(self.build, client.send)


class stream(Generic[P, T]):  # noqa: N801
    """A method that yields parts of an answer as they arrive."""

    def __init__(self, build: Callable[P, Stream[T]]) -> None:
        self.build = build

    @overload
    def __get__(self, client: Client, owner: object) -> Callable[P, Iterator[T]]: ...
    @overload
    def __get__(self, client: AsyncClient, owner: object) -> Callable[P, AsyncIterator[T]]: ...
    @overload
    def __get__(self, client: None, owner: object) -> Callable[P, Stream[T]]: ...
    def __get__(self, client: Any, owner: object) -> Any:
        return self.build if client is None else _bound(self.build, client.stream)


class pages(Generic[P, T]):  # noqa: N801
    """A method that yields the entries of a list, page by page."""

    def __init__(self, build: Callable[P, Pages[T]]) -> None:
        self.build = build

    @overload
    def __get__(self, client: Client, owner: object) -> Callable[P, Iterator[T]]: ...
    @overload
    def __get__(self, client: AsyncClient, owner: object) -> Callable[P, AsyncIterator[T]]: ...
    @overload
    def __get__(self, client: None, owner: object) -> Callable[P, Pages[T]]: ...
    def __get__(self, client: Any, owner: object) -> Any:
        return self.build if client is None else _bound(self.build, client.entries)


def _bound(build: Callable[..., Any], send: Callable[[Any], Any]) -> Callable[..., Any]:
    @functools.wraps(build)
    def call(*arguments: Any, **options: Any) -> Any:
        return send(build(*arguments, **options))

    return call


class Api:
    """Every call of `/v1`."""

    ready = method(segment_calls.ready)
    segment = method(segment_calls.segment)
    segment_mask = method(segment_calls.segment_mask)
    segment_overlay = method(segment_calls.segment_overlay)
    segment_batch = stream(segment_calls.segment_batch)

    add_image = method(image_calls.add_image)
    add_images = stream(image_calls.add_images)
    list_images = pages(image_calls.list_images)
    pool_page = method(image_calls.pool_page)
    get_image = method(image_calls.get_image)
    image_content = method(image_calls.image_content)
    delete_image = method(image_calls.delete_image)
    put_mask = method(image_calls.put_mask)
    get_mask = method(image_calls.get_mask)
    accept_mask = method(image_calls.accept_mask)

    get_classes = method(class_calls.get_classes)
    put_classes = method(class_calls.put_classes)

    start_run = method(run_calls.start_run)
    repeat_run = method(run_calls.repeat_run)
    list_runs = pages(run_calls.list_runs)
    next_run = method(run_calls.next_run)
    get_run = method(run_calls.get_run)
    cancel_run = method(run_calls.cancel_run)
    delete_run = method(run_calls.delete_run)
    run_history = method(run_calls.run_history)
    run_log = method(run_calls.run_log)
    run_recipe = method(run_calls.run_recipe)
    run_report = method(run_calls.run_report)
    get_drift = method(run_calls.get_drift)

    list_models = method(model_calls.list_models)
    get_model = method(model_calls.get_model)
    model_provenance = method(model_calls.model_provenance)
    upload_model = method(model_calls.upload_model)
    activate_model = method(model_calls.activate_model)
    rollback = method(model_calls.rollback)
    delete_model = method(model_calls.delete_model)
    list_releases = method(model_calls.list_releases)
    get_release = method(model_calls.get_release)
    release_candidate = method(model_calls.release_candidate)
    decline_candidate = method(model_calls.decline_candidate)
    get_retention = method(model_calls.get_retention)
