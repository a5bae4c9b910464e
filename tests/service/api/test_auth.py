"""Authentication and authorisation over HTTP."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from fastapi.testclient import TestClient
from structlog.testing import capture_logs

from service.api.app import create_app
from service.api.auth import FREE
from service.scopes import SCOPES, Scope
from service.settings import Settings
from service.state import State
from tests.service.conftest import MakeSettings, encoded, serve
from tests.service.tiny_bundle import picture, write_bundle

ANY = frozenset[str]()

OF_MODEL = ("/v2/models/{model}", "/v2/models/{model}/versions/{version}")
LEFT_OUT = (
    "/v2/systemsharedmemory/{rest:path}",
    "/v2/cudasharedmemory/{rest:path}",
    "/v2/trace/setting",
    "/v2/models/{model}/trace/setting",
    "/v2/logging",
)

# Every call and all scopes that it needs. A new route must be listed here or in FREE.
NEEDED: dict[tuple[str, str], frozenset[str]] = {
    ("POST", "/v1/segment"): frozenset({"predict"}),
    ("POST", "/v1/segment/batch"): frozenset({"predict"}),
    ("POST", "/v1/images"): frozenset({"contribute"}),
    ("POST", "/v1/images/batch"): frozenset({"contribute"}),
    ("GET", "/v1/images"): frozenset({"contribute", "train"}),
    ("GET", "/v1/images/{image_id}"): frozenset({"contribute"}),
    ("DELETE", "/v1/images/{image_id}"): frozenset({"contribute"}),
    ("GET", "/v1/images/{image_id}/content"): frozenset({"contribute"}),
    ("GET", "/v1/images/{image_id}/mask"): frozenset({"contribute"}),
    ("PUT", "/v1/images/{image_id}/mask"): frozenset({"contribute"}),
    ("POST", "/v1/imports"): frozenset({"contribute"}),
    ("GET", "/v1/labels/export"): frozenset({"contribute", "train"}),
    ("GET", "/v1/classes"): ANY,
    ("PUT", "/v1/classes"): frozenset({"admin"}),
    ("POST", "/v1/images/{image_id}/mask:accept"): frozenset({"contribute", "predict"}),
    ("GET", "/v1/drift"): frozenset({"train"}),
    ("GET", "/v1/runs"): frozenset({"train"}),
    ("POST", "/v1/runs"): frozenset({"train"}),
    ("GET", "/v1/runs/{run_id}"): frozenset({"train"}),
    ("GET", "/v1/runs/{run_id}/events"): frozenset({"train"}),
    ("DELETE", "/v1/runs/{run_id}"): frozenset({"admin", "train"}),
    ("POST", "/v1/runs/{run_id}/cancel"): frozenset({"train"}),
    ("POST", "/v1/runs/{run_id}/repeat"): frozenset({"train"}),
    ("GET", "/v1/runs/next"): frozenset({"train"}),
    **{("GET", f"/v1/runs/{{run_id}}/{kept}"): frozenset({"train"}) for kept in ("history", "log", "recipe", "report")},
    ("GET", "/v1/releases"): frozenset({"train"}),
    ("GET", "/v1/releases/{release_id}"): frozenset({"train"}),
    ("POST", "/v1/releases/{release_id}/release"): frozenset({"admin"}),
    ("POST", "/v1/releases/{release_id}/decline"): frozenset({"admin"}),
    ("GET", "/v1/retention"): frozenset({"train"}),
    ("GET", "/v1/models"): ANY,
    ("GET", "/v1/models/{version}"): ANY,
    ("GET", "/v1/models/{version}/provenance"): frozenset({"train"}),
    ("DELETE", "/v1/models/{version}"): frozenset({"admin"}),
    ("POST", "/v1/models"): frozenset({"admin"}),
    ("POST", "/v1/models/rollback"): frozenset({"admin"}),
    ("POST", "/v1/models/{version}/activate"): frozenset({"admin"}),
    ("GET", "/metrics"): ANY,
    ("GET", "/v2"): ANY,
    ("GET", "/v2/models"): ANY,
    ("GET", "/v2/models/stats"): ANY,
    **{("GET", f"{of}{tail}"): ANY for of in OF_MODEL for tail in ("", "/config", "/stats")},
    **{("POST", f"{of}/infer"): frozenset({"predict"}) for of in OF_MODEL},
    ("POST", "/v2/repository/index"): ANY,
    ("POST", "/v2/repository/models/{model}/load"): frozenset({"admin"}),
    ("POST", "/v2/repository/models/{model}/unload"): frozenset({"admin"}),
    # Extensions of other servers, answered with 501.
    **{(method, path): ANY for method in ("GET", "POST") for path in LEFT_OUT},
}


def calls() -> set[tuple[str, str]]:
    """Every method of every route that is not in FREE."""
    found = set()
    for route in iter_route_contexts(create_app(Settings()).routes):
        assert route.path is not None
        if route.path not in FREE:
            found |= {(method, route.path) for method in route.methods or {"GET"}}
    return found


class Keyed:
    """A service without anonymous scopes, and one key per scope."""

    def __init__(self, client: TestClient, state: State) -> None:
        self.client = client
        self.state = state
        self.keys = {scope: self.make(f"{scope}-key", [scope]) for scope in SCOPES}

    def make(self, name: str, scopes: list[Scope], **limits: Any) -> str:
        _, text = self.state.keys._store.create(name, scopes, **limits)
        self.state.keys.refresh()
        return text

    def ask(self, method: str, path: str, key: str | None = None, **more: Any) -> Any:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return self.client.request(method, path, headers=headers | more.pop("headers", {}), **more)


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyed]:
    """One service for all tests here that do not change it."""
    folder = tmp_path_factory.mktemp("keyed")
    settings = Settings(
        data_dir=folder / "data",
        model=str(write_bundle(folder / "bundle")),
        model_poll_s=0.05,
        anonymous_scopes=(),
    )
    with serve(settings) as client:
        # From another machine: local callers need no key for /metrics.
        yield Keyed(from_address(client, "10.0.0.1"), client.app_state["maskloop"])


def test_every_route_is_listed() -> None:
    assert calls() == set(NEEDED), (
        "add new routes to NEEDED and give them `dependencies=[needs(...)]`, or add them to FREE"
    )


@pytest.mark.parametrize(("method", "template"), sorted(NEEDED))
def test_missing_key_gets_401_and_missing_scope_403(keyed: Keyed, method: str, template: str) -> None:
    """Before the parameters are validated."""
    needed = NEEDED[method, template]
    path = re.sub(r"\{(\w+)[^}]*\}", r"\1", template) + "?limit=nonsense&split=nonsense&model=nonsense"
    refused = keyed.ask(method, path)
    assert refused.status_code == 401
    assert refused.headers["WWW-Authenticate"] == 'Bearer realm="maskloop"'
    assert "Authorization: Bearer KEY" in said(refused)
    for scope, key in keyed.keys.items():
        answer = keyed.ask(method, path, key)
        if needed <= {scope}:
            assert answer.status_code not in {401, 403}, (scope, answer.text)
        else:
            assert answer.status_code == 403
            assert f"{scope}-key" in said(answer)
            assert 'error="insufficient_scope"' in answer.headers["WWW-Authenticate"]


def said(answer: httpx.Response) -> str:
    """The message of an error, in either format."""
    body: dict[str, str] = answer.json()
    if answer.request.url.path.startswith("/v2"):
        assert list(body) == ["error"]
        return body["error"]
    assert answer.headers["Content-Type"] == "application/problem+json"
    return body["detail"]


@pytest.mark.parametrize("path", sorted(FREE))
def test_probes_and_documentation_need_no_key(keyed: Keyed, path: str) -> None:
    name = keyed.ask("GET", "/v2/models", keyed.keys["predict"]).json()["models"][0]
    files = {"/docs/page": "/docs/page/docs.js", "/docs/swagger": "/docs/swagger/swagger-ui.css"}
    path = files.get(path, path).format(model=name, version="1")
    assert keyed.client.get(path).status_code == 200


def test_key_is_accepted_in_either_header(keyed: Keyed) -> None:
    key = keyed.keys["predict"]
    image = encoded(picture())
    for headers in (
        {"Authorization": f"Bearer {key}"},
        {"authorization": f"bearer {key}"},
        {"X-API-Key": key},
        {"X-API-Key": key, "Authorization": "Basic eDp5"},
    ):
        assert keyed.client.post("/v1/segment", content=image, headers=headers).status_code == 200
    for headers in ({"Authorization": key}, {"Authorization": f"Basic {key}"}, {"Authorization": "Bearer"}):
        answer = keyed.client.post("/v1/segment", content=image, headers=headers)
        assert (answer.status_code, answer.json()["type"]) == (401, "urn:maskloop:problem:key-missing")


@pytest.mark.parametrize(
    "key", ["x", "maskloop_aaaaaaaa_" + "b" * 43, "é" * 50, "\N{LATIN SMALL LETTER Y WITH DIAERESIS}"]
)
def test_invalid_key_gets_401(keyed: Keyed, key: str) -> None:
    for headers in ({"X-API-Key": key.encode("latin-1")}, {"Authorization": b"Bearer " + key.encode("latin-1")}):
        answer = keyed.client.get("/v1/models", headers=headers)  # type: ignore[arg-type]
        assert (answer.status_code, answer.json()["type"]) == (401, "urn:maskloop:problem:key-invalid")
        assert answer.headers["WWW-Authenticate"] == 'Bearer realm="maskloop", error="invalid_token"'
        assert key not in answer.text


@pytest.mark.parametrize("path", ["/v1/segment", "/v1/segment/batch"])
def test_body_is_not_read_before_authentication(keyed: Keyed, path: str) -> None:
    taken = 0

    def body() -> Iterator[bytes]:
        nonlocal taken
        for _ in range(100):
            taken += 1
            yield bytes(100_000)

    assert keyed.client.post(path, content=body()).status_code == 401
    admitted = keyed.state.metrics.registry.get_sample_value("maskloop_segment_admitted")
    assert admitted == 0


def test_contributing_while_segmenting_needs_the_scope_contribute(keyed: Keyed) -> None:
    image = encoded(picture(seed=70))
    path = "/v1/segment?contribute=true"
    answer = keyed.ask("POST", path, keyed.keys["predict"], content=image)
    assert (answer.status_code, answer.json()["type"]) == (403, "urn:maskloop:problem:scope-missing")
    assert keyed.state.images.counts().unlabelled == 0
    both = keyed.make("both", ["predict", "contribute"])
    assert "X-Image-Id" in keyed.ask("POST", path, both, content=image).headers


def test_log_contains_the_name_of_the_key_and_not_the_key(keyed: Keyed) -> None:
    key = keyed.keys["train"]
    with capture_logs() as lines:
        assert keyed.ask("GET", "/v1/runs", key).status_code == 200
        assert keyed.ask("POST", "/v1/models/rollback", key).status_code == 403
        assert keyed.ask("GET", "/v1/runs", key + "x").status_code == 401
        assert keyed.client.get("/v1/runs", headers={"X-API-Key": key}).status_code == 200
    told = [(line["path"], line.get("key"), line["status"]) for line in lines if line["event"] == "request"]
    assert told == [
        ("/v1/runs", "train-key", 200),
        ("/v1/models/rollback", "train-key", 403),
        ("/v1/runs", None, 401),
        ("/v1/runs", "train-key", 200),
    ]
    assert key.rsplit("_", 1)[1] not in repr(lines)


def test_refusals_are_counted_by_reason(keyed: Keyed) -> None:
    def count(reason: str) -> float:
        labels = {"reason": reason}
        return keyed.state.metrics.registry.get_sample_value("maskloop_callers_refused_total", labels) or 0.0

    before = {reason: count(reason) for reason in ("key-missing", "key-invalid", "scope-missing")}
    keyed.ask("GET", "/v1/models")
    keyed.ask("GET", "/v1/models", "x")
    keyed.ask("GET", "/v1/runs", keyed.keys["predict"])
    assert {reason: count(reason) - before[reason] for reason in before} == dict.fromkeys(before, 1.0)


def test_openapi_document_lists_the_scopes(keyed: Keyed) -> None:
    document = keyed.client.get("/openapi.json").json()
    assert set(document["components"]["securitySchemes"]) == {"bearer", "header", "cookie"}
    for (method, path), scopes in NEEDED.items():
        if path in LEFT_OUT:
            continue
        security = document["paths"][path][method.lower()]["security"]
        assert [{name: set(of) for name, of in entry.items()} for entry in security] == [
            {"bearer": set(scopes)},
            {"header": set(scopes)},
            {"cookie": set(scopes)},
        ]
        answers = document["paths"][path][method.lower()]["responses"]
        assert "default" in answers or {"401", "403", "429"} <= set(answers)
    assert "security" not in document["paths"]["/readyz"]["get"]
    assert "401" not in document["paths"]["/readyz"]["get"]["responses"]


def test_rate_limit_of_a_key(keyed: Keyed) -> None:
    key = keyed.make("slow", ["train"], rate_per_minute=2)
    first, second, third = (keyed.ask("GET", "/v1/runs", key) for _ in range(3))
    assert [first.status_code, second.status_code, third.status_code] == [200, 200, 429]
    assert first.headers["RateLimit-Policy"] == '"minute";q=2;w=60'
    assert first.headers["RateLimit"].startswith('"minute";r=1;t=')
    assert third.headers["RateLimit"].startswith('"minute";r=0;t=')
    assert third.headers["Retry-After"] in {"29", "30"}
    assert third.json()["type"] == "urn:maskloop:problem:rate-limited"
    assert "RateLimit" not in keyed.ask("GET", "/v1/runs", keyed.keys["train"]).headers
    assert keyed.client.get("/readyz").status_code == 200


def test_request_that_needs_two_scopes_counts_once(keyed: Keyed) -> None:
    key = keyed.make("curator", ["contribute", "train"], rate_per_minute=1)
    assert [keyed.ask("GET", "/v1/images", key).status_code for _ in range(2)] == [200, 429]


def test_anonymous_callers_are_limited_by_address(make_settings: MakeSettings) -> None:
    with serve(make_settings(api_key="", anonymous_scopes="predict", anonymous_rate_limit_per_minute=2)) as client:
        app = client.app
        assert isinstance(app, FastAPI)
        for address, other in (("10.0.0.1", "10.0.0.2"), ("2001:db8::1", "2001:db8:0:1::1")):
            codes = [ask(client, host) for host in [address] * 3 + [other]]
            assert codes == [200, 200, 429, 200]
        # The same /64 network.
        assert ask(client, "2001:db8::2") == 429


def test_invalid_keys_are_limited_by_address(make_settings: MakeSettings) -> None:
    good = "k" * 40
    with serve(make_settings(api_key=good, anonymous_scopes="", failed_keys_per_minute=2)) as client:
        codes = [ask(client, "10.0.0.1", f"guess-{number}") for number in range(4)]
        assert codes == [401, 401, 429, 429]
        # Valid keys from the address still work and do not count.
        assert [ask(client, "10.0.0.1", good) for _ in range(5)] == [200] * 5
        assert ask(client, "10.0.0.2", "guess") == 401
        # Requests without a key do not count.
        assert [ask(client, "10.0.0.3") for _ in range(4)] == [401] * 4
        there = from_address(client, "10.0.0.1")
        refused = there.get("/v1/models", headers={"X-API-Key": "guess"})
        assert refused.json()["type"] == "urn:maskloop:problem:rate-limited"
        assert 1 <= int(refused.headers["Retry-After"]) <= 30
        assert refused.headers["RateLimit-Policy"] == '"minute";q=2;w=60'
        in_protocol = there.get("/v2/models", headers={"Authorization": "Bearer guess"})
        assert (in_protocol.status_code, list(in_protocol.json())) == (429, ["error"])


def test_invalid_keys_are_limited_by_default(client: TestClient) -> None:
    codes = [client.get("/v1/models", headers={"X-API-Key": "x"}).status_code for _ in range(40)]
    assert codes[:30] == [401] * 30
    assert codes[-1] == 429


def ask(client: TestClient, address: str, key: str | None = None) -> int:
    """Status of a request from an address."""
    headers = {"X-API-Key": key} if key else {}
    return from_address(client, address).get("/v1/models", headers=headers).status_code


def from_address(client: TestClient, address: str) -> TestClient:
    from_there = TestClient(client.app, client=(address, 1))
    from_there.app_state.update(client.app_state)
    return from_there


def test_anonymous_callers_have_the_configured_scopes(make_settings: MakeSettings) -> None:
    image = encoded(picture())
    with serve(make_settings(anonymous_scopes="predict", api_key="k" * 40)) as client:
        assert client.post("/v1/segment", content=image).status_code == 200
        for answer in (client.post("/v1/images", content=image), client.post("/v1/models/rollback")):
            assert (answer.status_code, answer.json()["type"]) == (401, "urn:maskloop:problem:key-missing")
        assert client.post("/v1/segment?contribute=1", content=image).status_code == 401
        # An invalid key is refused even where no key is needed.
        assert client.post("/v1/segment", content=image, headers={"X-API-Key": "x"}).status_code == 401
        assert client.post("/v1/images", content=image, headers={"X-API-Key": "k" * 40}).status_code == 201


@pytest.mark.parametrize(
    ("changes", "allowed"),
    [
        ({}, {"predict", "contribute"}),
        ({"host": "localhost"}, {"predict", "contribute"}),
        ({"host": "0.0.0.0"}, set()),  # noqa: S104 - not bound
        ({"host": "192.168.1.5"}, set()),
        ({"host": "192.168.1.5", "anonymous_scopes": "predict"}, {"predict"}),
        ({"anonymous_scopes": ""}, set()),
    ],
)
def test_anonymous_callers_never_train_or_administer(
    make_settings: MakeSettings, changes: dict[str, Any], allowed: set[str]
) -> None:
    """Every call, from every address, with the headers that a proxy on the same machine may send."""
    headers = [{}, {"Host": "127.0.0.1:8000"}, {"X-Forwarded-For": "127.0.0.1"}, {"Cookie": "other=1"}]
    with serve(make_settings(api_key="k" * 40, **changes)) as client:
        for (method, template), needed in NEEDED.items():
            if needed <= allowed and (needed or allowed):
                continue
            path = re.sub(r"\{(\w+)[^}]*\}", r"\1", template)
            for address in ("203.0.113.7",) if template == "/metrics" else ("127.0.0.1", "203.0.113.7"):
                there = from_address(client, address)
                codes = {there.request(method, path, headers=each).status_code for each in headers}
                assert codes == {401}, (method, path, codes)
        image = encoded(picture())
        for path, scope in (("/v1/segment", "predict"), ("/v1/images", "contribute")):
            assert (client.post(path, content=image).status_code != 401) is (scope in allowed)


def test_default_scopes_are_for_this_machine_alone(make_settings: MakeSettings) -> None:
    """A reverse proxy that names its clients does not pass them off as this machine's; explicit scopes are for all."""
    image = encoded(picture())
    for changes, proxied, remote in (({}, 401, 401), ({"anonymous_scopes": "predict"}, 200, 200)):
        with serve(make_settings(api_key="k" * 40, **changes)) as client:
            assert from_address(client, "127.0.0.1").post("/v1/segment", content=image).status_code == 200
            forwarded = {"X-Forwarded-For": "203.0.113.7"}
            assert client.post("/v1/segment", content=image, headers=forwarded).status_code == proxied
            assert from_address(client, "203.0.113.7").post("/v1/segment", content=image).status_code == remote


def test_metrics_need_no_key_locally_or_if_open(make_settings: MakeSettings) -> None:
    key = {"X-API-Key": "k" * 40}
    for changes, codes in (({}, (200, 401, 200)), ({"open_metrics": True}, (200, 200, 200))):
        with serve(make_settings(api_key="k" * 40, anonymous_scopes="", **changes)) as client:
            remote = from_address(client, "10.0.0.1")
            answers = (client.get("/metrics"), remote.get("/metrics"), remote.get("/metrics", headers=key))
            assert tuple(answer.status_code for answer in answers) == codes
