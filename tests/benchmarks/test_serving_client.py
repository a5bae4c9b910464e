"""The serving benchmark's client: its parser, its loads on a real server, its figures."""

import asyncio
import contextlib
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import pytest
from PIL import Image

from tests.benchmarks.serving.figures import Figures, figures, median_ratio, percentile, pooled, server_timing
from tests.benchmarks.serving.http1 import NotHttp, Response, ResponseParser, png_size, request_head
from tests.benchmarks.serving.loads import (
    CUT_OFF,
    GAVE_UP,
    NO_MASK,
    OK,
    RETRY_S,
    Sample,
    Target,
    closed_loop,
    open_loop,
    poisson_times,
)

SIZE = (8, 6)
FILES = (b"first", b"second", b"third")


def png() -> bytes:
    sink = io.BytesIO()
    Image.new("P", SIZE).save(sink, "PNG")
    return sink.getvalue()


ANSWERS = {
    "length": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Much:  a: b \r\n\r\nhello",
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;name=value\r\nlo\r\n0\r\n\r\n",
    "go on": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
@pytest.mark.parametrize("step", [1, 7, 1000])
def test_an_answer_in_pieces_of_any_size(answer: bytes, step: int) -> None:
    parser = ResponseParser()
    for _ in range(2):  # one connection serves several requests
        found = [parser.feed(answer[at : at + step]) for at in range(0, len(answer), step)]
        assert found[:-1] == [None] * (len(found) - 1)
        assert found[-1] is not None
        assert (found[-1].status, found[-1].body) == (200, b"hello")


def test_header_names_are_lower_and_values_bare() -> None:
    response = ResponseParser().feed(ANSWERS["length"])
    assert response is not None
    assert response.headers["x-much"] == "a: b"


def test_an_answer_may_end_with_its_connection() -> None:
    parser = ResponseParser()
    assert parser.feed(b"HTTP/1.0 503 Busy\r\n\r\nbusy") is None
    assert parser.end() == Response(503, {}, b"busy")


def test_half_an_answer_is_none() -> None:
    parser = ResponseParser()
    parser.feed(ANSWERS["length"][:-1])
    assert parser.end() is None


def test_what_is_no_answer_is_told() -> None:
    with pytest.raises(NotHttp, match="begins with 'SSH-2"):
        ResponseParser().feed(b"SSH-2.0-OpenSSH\r\n\r\n")


def test_a_request() -> None:
    head = request_head("/segment", {"Content-Type": "image/jpeg"}, 3)
    assert head == b"POST /segment HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 3\r\nContent-Type: image/jpeg\r\n\r\n"


def test_a_png_has_its_size_and_half_of_one_has_none() -> None:
    assert png_size(png()) == SIZE
    assert png_size(png()[:-4]) is None
    assert png_size(b"GIF89a") is None


def test_what_triton_puts_in_front_of_a_tensor() -> None:
    body = b'{"outputs":[]}' + len(png()).to_bytes(4, "little") + png()
    assert Response(200, {"inference-header-content-length": "14"}, body).png == png()


@pytest.mark.parametrize("percent", [0, 37.5, 50, 95, 99, 100])
def test_percentiles_are_numpys(percent: float) -> None:
    values = list(np.random.default_rng(0).exponential(size=37))
    assert percentile(values, percent) == pytest.approx(np.percentile(values, percent))


def test_arrivals_are_seeded_and_know_nothing_of_each_other() -> None:
    times = poisson_times(50, 100, seed=1)
    assert times == poisson_times(50, 100, seed=1) != poisson_times(50, 100, seed=2)
    gaps = np.diff(times)
    assert times == sorted(times)
    assert times[-1] < 100
    # Exponential: as many a second as asked for, and gaps that spread as far as they are long.
    assert len(times) / 100 == pytest.approx(50, rel=0.05)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.05)


def test_a_window_by_hand() -> None:
    samples = [
        Sample(0.5, 1.2, OK, ""),  # was due before the window, ended in it
        Sample(1.0, 1.1, OK, ""),
        Sample(1.2, 2.2, OK, ""),  # ends after it
        Sample(1.5, 1.51, "503", ""),
        Sample(1.6, 6.6, GAVE_UP, ""),
    ]
    closed, of_open = (figures(samples, 1, 2, closed=closed) for closed in (True, False))
    assert closed.masks_per_s == of_open.masks_per_s == 2
    assert closed.offered_per_s == of_open.offered_per_s == 4
    assert closed.latencies_ms == pytest.approx([100, 700])
    # Refused ones were quick and count for nothing; one that was given up is the slowest of all.
    assert of_open.latencies_ms == pytest.approx([100, 1000, 5000])
    assert of_open.outcomes == {OK: 2, "503": 1, GAVE_UP: 1}


def test_rounds_are_pooled_and_ratios_are_taken_round_by_round() -> None:
    rounds = [Figures(offered_per_s=1, masks_per_s=1, latencies_ms=[v], outcomes={}) for v in (1.0, 2.0, 9.0)]
    assert pooled(rounds)["p50_ms"] == 2
    assert median_ratio([10, 30, 8], [20, 40, 10]) == 0.75


def test_server_timing_by_step() -> None:
    headers = ("decode;dur=1.5, infer;dur=30", "decode;dur=2.5, infer;dur=50", "infer;dur=40", "")
    assert server_timing([Sample(0, 1, OK, header) for header in headers]) == {"decode": 2.0, "infer": 40.0}


@asynccontextmanager
async def server(*answers: bytes | None) -> AsyncIterator[tuple[int, list[bytes]]]:
    """Gives these answers in turn, the last one for ever; None hangs up, nothing says nothing. Its port and bodies."""
    left, bodies = list(answers), list[bytes]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                bodies.append(await reader.readexactly(int(head.split(b"Content-Length: ")[1].split(b"\r\n")[0])))
                answer = left.pop(0) if len(left) > 1 else left[0]
                if answer is None:
                    return
                writer.write(answer)

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listening:
        yield listening.sockets[0].getsockname()[1], bodies


def answer(body: bytes, status: int = 200) -> bytes:
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body)


def target(port: int, patience_s: float = 5.0) -> Target:
    return Target(port, "/", {}, FILES, size=SIZE, patience_s=patience_s)


def test_what_becomes_of_requests() -> None:
    async def ask() -> list[str]:
        async with server(answer(png()), answer(b"", 503), answer(b"no png"), None, b"") as (port, bodies):
            asked = target(port, patience_s=0.3)
            outcomes = [(await asked.ask(asked.now_s)).outcome for _ in range(5)]
            asked.close()
            assert bodies == [*FILES, *FILES[:2]]
        refused = target(port)
        return [*outcomes, (await refused.ask(refused.now_s)).outcome]

    assert asyncio.run(ask()) == [OK, "503", NO_MASK, CUT_OFF, GAVE_UP, CUT_OFF]


@pytest.mark.parametrize(
    ("header", "retry_s"),
    [(b"Retry-After: 3\r\n", 3.0), (b"Retry-After: Fri, 31 Dec 1999 23:59:59 GMT\r\n", RETRY_S), (b"", RETRY_S)],
)
def test_a_client_that_was_refused_comes_back_when_it_was_told(header: bytes, retry_s: float) -> None:
    async def ask() -> Sample:
        async with server(b"HTTP/1.1 503 X\r\n%sContent-Length: 0\r\n\r\n" % header) as (port, _):
            asked = target(port)
            sample = await asked.ask(asked.now_s)
            asked.close()
            return sample

    assert asyncio.run(ask()).retry_s == retry_s


def test_a_closed_loop_keeps_so_many_under_way() -> None:
    async def load() -> list[Sample]:
        async with server(answer(png())) as (port, _):
            asked = target(port)
            samples = await closed_loop(asked, 3, 0.1)
            asked.close()
            return samples

    samples = asyncio.run(load())
    assert {sample.outcome for sample in samples} == {OK}
    at_once = [sum(other.due_s <= sample.due_s < other.done_s for other in samples) for sample in samples]
    assert max(at_once) == 3


def test_a_closed_loop_ends_with_the_first_quick_answer() -> None:
    async def load() -> list[Sample]:
        async with server(answer(b"", 503), answer(png())) as (port, _):
            asked = target(port)
            samples = await closed_loop(asked, 1, 60, stop_below_s=10)
            asked.close()
            return samples

    assert [sample.outcome for sample in asyncio.run(load())] == ["503", OK]


def test_an_open_loop_goes_on_without_answers_and_counts_from_when_each_was_due() -> None:
    async def load() -> list[Sample]:
        async with server(b"") as (port, _):
            return await open_loop(target(port, patience_s=0.5), 100, 0.4, seed=0)

    samples = asyncio.run(load())
    assert [sample.due_s for sample in samples] == poisson_times(100, 0.4, seed=0)
    assert {sample.outcome for sample in samples} == {GAVE_UP}
    assert all(sample.latency_s >= 0.5 for sample in samples)
