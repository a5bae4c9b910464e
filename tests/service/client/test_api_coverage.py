"""The client against the OpenAPI document: every call, every parameter, every field that it reads."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from service.api.app import create_app
from service.api.v1.images_batch import AddedLine
from service.api.v1.segment_batch import BatchLine
from service.client import answers
from service.client.api import Api, method, pages, stream
from service.client.call import Call, Pages, Request, Stream, Upload
from service.settings import Settings

WITHOUT_METHOD = {
    "GET /livez": "probe of process managers",
    "GET /metrics": "for Prometheus",
    "POST /v1/imports": "for pages in a browser; `maskloop import` and `push` do it in two steps",
    "GET /v1/labels/export": "a ZIP archive to save; `pull` fetches the pool as a data set",
    "GET /v1/runs/{run_id}/events": "server-sent events, for pages in a browser; get_run has the progress",
}
PROTOCOL = "/v2"  # has clients of its own: tritonclient, kserve
SAMPLE: dict[str, Any] = {
    "image": b"",
    "images": [Upload("a.png", b"")],
    "bundle": Upload("bundle.zip", b""),
    "mask": b"",
    "release_id": 1,
    "classes": [],
    "derived_from": 1,
}
SCHEMAS = {
    "ReadyState": "Ready",
    "Segmentation": "Description",
    "PoolImage": "ImageOut",
    "PoolPage": "PageOut",
    "DeletedImage": "DeletedOut",
    "RunPage": "RunsOut",
    "ListedClass": "ClassOut",
    "ServiceClasses": "ClassesOut",
}


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    found: dict[str, Any] = create_app(Settings(data_dir=tmp_path_factory.mktemp("data"))).openapi()
    lines: dict[str, type[BaseModel]] = {"SegmentedLine": BatchLine, "AddedLine": AddedLine}
    for name, model in lines.items():
        found["components"]["schemas"][name] = model.model_json_schema(mode="serialization")
    return found


def requests() -> Iterator[tuple[str, Request]]:
    """The request of every method, with sample arguments for its parameters without default."""
    for name, each in vars(Api).items():
        if isinstance(each, method | stream | pages):
            required = [key for key in each.build.__annotations__ if key != "return"]
            optional = each.build.__kwdefaults__ or {}
            given = [SAMPLE.get(key, key) for key in required if key not in optional and key != "limits"]
            call: Any = each.build(*given)
            if isinstance(call, Pages):
                call = call.page("cursor")
            assert isinstance(call, Call | Stream)
            yield name, call.request


REQUESTS = dict(requests())


def operation_of(request: Request, document: dict[str, Any]) -> str:
    for path in document["paths"]:
        pattern = re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(path))
        # `/v1/models/rollback` is also a `/v1/models/{version}`, and comes before it.
        if re.fullmatch(pattern, request.path) and request.method.lower() in document["paths"][path]:
            return f"{request.method} {path}"
    raise AssertionError(f"{request.method} {request.path} is not in the OpenAPI document")


def test_every_call_has_a_method_or_a_reason(document: dict[str, Any]) -> None:
    documented = {f"{verb.upper()} {path}" for path, verbs in document["paths"].items() for verb in verbs}
    covered = {operation_of(request, document) for request in REQUESTS.values()}
    uncovered = {call for call in documented - covered if not call.split()[1].startswith(PROTOCOL)}
    assert uncovered == set(WITHOUT_METHOD), "give each call a method in service/client/api.py, or a reason here"


@pytest.mark.parametrize("name", REQUESTS)
def test_parameters_are_documented(name: str, document: dict[str, Any]) -> None:
    verb, path = operation_of(REQUESTS[name], document).split()
    parameters = document["paths"][path][verb.lower()].get("parameters", [])
    documented = {each["name"] for each in parameters if each["in"] == "query"}
    assert set(REQUESTS[name].params) <= documented


def models() -> list[type[BaseModel]]:
    found = [each for each in vars(answers).values() if isinstance(each, type) and issubclass(each, answers.Answer)]
    return [each for each in found if each is not answers.Answer]


@pytest.mark.parametrize("model", models(), ids=lambda model: model.__name__)
def test_fields_have_the_documented_types(model: type[BaseModel], document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    name = next(
        name for name in (SCHEMAS.get(model.__name__), model.__name__, f"{model.__name__}Out") if name in schemas
    )
    for field, info in model.model_fields.items():
        documented = schemas[name]["properties"][field]
        assert types(documented, schemas) <= types(model.model_json_schema()["properties"][field], {}), field
        if info.is_required():
            # A field that the service may leave out needs a default here.
            assert field in schemas[name]["required"], field


def types(schema: dict[str, Any], schemas: dict[str, Any]) -> set[str]:
    """JSON types of a field: `string`, `null`, ..., a model counting as `object`."""
    if "anyOf" in schema:
        return {kind for option in schema["anyOf"] for kind in types(option, schemas)}
    return {"object"} if "$ref" in schema else {str(schema["type"])}
