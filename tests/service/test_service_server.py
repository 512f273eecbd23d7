"""A real server on a real port: what a client gets, and what a hostile one does not get."""

from __future__ import annotations

import errno
import gzip
import io
import json
import re
import socket
import time
import uuid

import numpy as np
import pyarrow as pa
import pytest
from service_helpers import NORMAL, STRANGE, Server, rows_like_training

from pushforward import Guard


def raw(server: Server, data: bytes, *, seconds: float = 15, close_sending: bool = False) -> bytes:
    """What the server sends until it closes the connection, or for some seconds."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=seconds) as connection:
        connection.sendall(data)
        if close_sending:
            try:
                connection.shutdown(socket.SHUT_WR)
            except OSError as error:
                if error.errno != errno.ENOTCONN:  # the server has answered and closed it already
                    raise
        found = b""
        try:
            while part := connection.recv(65536):
                found += part
                if b"\r\n\r\n" in found and b"content-length" in found.lower():
                    length = int(re.search(rb"content-length: (\d+)", found, re.I).group(1))
                    if len(found.split(b"\r\n\r\n", 1)[1]) >= length:
                        break
        except TimeoutError:
            pass
        return found


def test_a_curl_that_alarms(server, guard_file):
    normal, strange = server.score(NORMAL, STRANGE, reasons=True)
    assert not normal["alarm"]
    assert strange["alarm"]
    assert strange["reasons"][0]["column"] == "ratio"
    want = Guard.load(guard_file).assess(pa.Table.from_pylist([NORMAL, STRANGE]))
    assert [normal["p_value"], strange["p_value"]] == want["p_value"].tolist()


def test_what_was_answered_is_in_the_store_with_inputs_and_feedback(server):
    row = server.score(STRANGE, request="order 17")[0]
    event = server.client.get(f"/events/{row['id']}").json()
    assert (event["p_value"], event["alarm"], event["request"]) == (row["p_value"], True, "order 17")
    assert event["inputs"] == STRANGE | {"age": 40.0}
    answer = server.client.post("/feedback", json={"id": row["id"], "label": "anomaly", "note": "stolen card"})
    assert answer.status_code == 201
    found = server.client.get("/events", params={"text": "order 17", "label": "anomaly", "alarm": True}).json()[
        "events"
    ]
    assert [e["id"] for e in found] == [row["id"]]
    assert server.client.post("/feedback", json={"id": "0" * 32, "label": "normal"}).status_code == 404
    assert server.client.post("/feedback", json={"id": row["id"], "label": "bad"}).status_code == 422


def test_pages_of_events_do_not_overlap(server):
    server.score(*[NORMAL] * 7)
    seen: list[int] = []
    before = None
    for _ in range(3):
        page = server.client.get("/events", params={"limit": 2} | ({"before": before} if before else {})).json()
        seen += [event["seq"] for event in page["events"]]
        before = page["next"]
    assert seen == sorted(set(seen), reverse=True)
    assert len(seen) == 6


def test_csv_arrow_and_gzip(server):
    table = rows_like_training(30)
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    csv = table.to_pandas().to_csv(index=False).encode()
    bodies = [
        ({"content-type": "text/csv"}, csv),
        ({"content-type": "text/csv; charset=utf-8", "content-encoding": "gzip"}, gzip.compress(csv)),
        ({"content-type": "application/vnd.apache.arrow.stream"}, sink.getvalue()),
    ]
    found = []
    for headers, body in bodies:
        answer = server.client.post("/score", params={"model": "orders"}, headers=headers, content=body)
        assert answer.status_code == 200, answer.text
        found.append([row["p_value"] for row in answer.json()["rows"]])
    assert found[0] == found[1] == found[2]
    assert len(found[0]) == 30


def test_a_gzip_body_of_several_members_has_all_rows(server):
    """As `cat a.gz b.gz` makes it; padding after the end is no row."""
    lines = rows_like_training(30).to_pandas().to_csv(index=False).encode().splitlines(keepends=True)
    body = b"".join(map(gzip.compress, (b"".join(lines[:11]), b"".join(lines[11:]))))
    headers = {"content-type": "text/csv", "content-encoding": "gzip"}

    def ask(content):
        return server.client.post("/score", params={"model": "orders"}, headers=headers, content=content)

    for content in (body, body + bytes(100), iter([body[:50], body[50:200], body[200:]])):
        assert len(ask(content).json()["rows"]) == 30
    for content in (body + b"more", body[:-1], gzip.compress(b"") * 1500):
        assert ask(content).status_code == 400
    assert ask(iter([body, *[bytes(50_000)] * 10])).status_code == 413  # what is received counts too


def test_open_inference_protocol(server):
    client = server.client
    assert client.get("/v2").json()["name"] == "pushforward"
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    assert client.get("/v2/models/numbers/ready").json() == {"name": "numbers", "ready": True}
    about = client.get("/v2/models/numbers/versions/1").json()
    assert about["versions"] == ["1"]
    assert [tensor["datatype"] for tensor in about["inputs"]] == ["FP64"] * 3
    assert {tensor["name"] for tensor in about["outputs"]} == {"p_value", "alarm", "anomaly_score", "id"}
    assert {m["name"] for m in client.post("/v2/repository/index").json()} == {"orders", "numbers"}
    x = [[0.0, 0.0, 0.0], [50.0, 0.0, 0.0]]
    body = {"id": "a1", "inputs": [{"name": "x", "shape": [2, 3], "datatype": "FP32", "data": x}]}
    for path in ("/v2/models/numbers/infer", "/v2/models/numbers/versions/1/infer"):
        answer = client.post(path, json=body).json()
        assert (answer["id"], answer["model_name"], answer["model_version"]) == ("a1", "numbers", "1")
        outputs = {output["name"]: output for output in answer["outputs"]}
        assert outputs["alarm"] == {"name": "alarm", "shape": [2], "datatype": "BOOL", "data": [False, True]}
        assert 0 < outputs["p_value"]["data"][1] < outputs["p_value"]["data"][0] <= 1
    only = client.post(path, json=body | {"outputs": [{"name": "p_value"}]}).json()["outputs"]
    assert [output["name"] for output in only] == ["p_value"]
    for path, status in (
        ("/v2/models/none", 404),
        ("/v2/models/numbers/versions/9", 404),
        ("/v2/models/none/ready", 404),
    ):
        answer = client.get(path)
        assert answer.status_code == status
        assert isinstance(answer.json()["error"], str)
    assert client.post("/v2/models/numbers/infer", json={"inputs": []}).status_code == 400


def test_mlflow(server):
    table = rows_like_training(3)
    split = table.to_pandas().astype(object).where(table.to_pandas().notna(), None).to_dict(orient="split")
    body = {"dataframe_split": {"columns": split["columns"], "data": split["data"]}}
    found = server.client.post("/invocations", json=body).json()["predictions"]
    assert len(found) == 3
    assert set(found[0]) == {"id", "p_value", "alarm", "anomaly_score"}
    assert server.client.get("/ping").status_code == 200


def test_metrics(server):
    server.score(NORMAL, STRANGE)
    text = server.client.get("/metrics").text
    for name in ("requests_total", "request_duration_seconds_bucket", "requests_in_progress", "batch_size_bucket",
                 "queue_length", "rows_scored_total", "alarms_total", "p_value_bucket", "model_info"):  # fmt: skip
        assert f"pushforward_{name}" in text, name
    labels = {label for match in re.findall(r"\{(.*?)\}", text) for label in re.findall(r"(\w+)=", match)}
    assert labels <= {"model_name", "model_version", "code", "le", "digest"}


@pytest.mark.parametrize(
    ("method", "path", "options", "status"),
    [
        ("GET", "/nothing", {}, 404),
        ("GET", "/score", {}, 405),
        ("POST", "/score", {"json": {"rows": [NORMAL]}, "params": {"model": "absent"}}, 404),
        ("POST", "/score", {"json": {"rows": [NORMAL]}, "params": {"version": "77"}}, 404),
        ("POST", "/score", {"content": b"<x/>", "headers": {"content-type": "application/xml"}}, 415),
        ("POST", "/score", {"content": b"x", "headers": {"content-encoding": "br"}}, 415),
        ("POST", "/score", {"content": b"{", "headers": {"content-type": "application/json"}}, 400),
        ("POST", "/score", {"json": {"rows": [{"amount": 1}]}}, 422),
        ("POST", "/score", {"content": b" " * 300_000, "headers": {"content-type": "application/json"}}, 413),
        ("POST", "/score", {"json": {"rows": [[1, 2, 3, "NO"]] * 1001}}, 413),
        ("POST", "/v2/models/..%2f..%2fetc/load", {}, 404),
        ("GET", "/v2/models/..%2f..%2fetc%2fpasswd", {}, 404),
        ("GET", "/static/..%2f..%2fsettings.py", {}, 404),
        ("GET", "/static/../../settings.py", {}, 404),
        ("GET", "/static//etc/passwd", {}, 404),
        ("GET", "/events", {"params": {"limit": 10**9}}, 422),
        ("GET", "/events", {"params": {"since": "nan"}}, 422),
        ("GET", "/events/xyz", {}, 422),
        ("GET", "/events", {"params": {"text": "a\0b"}}, 400),
        ("GET", "/v2/models/a%00b", {}, 400),
        ("POST", "/feedback", {"json": {"id": "0" * 32, "label": "normal", "note": "a\0b"}}, 422),
    ],
)
def test_refusals_are_one_sentence(server, method, path, options, status):
    answer = server.client.request(method, path, **options)
    assert answer.status_code == status, answer.text
    assert isinstance(answer.json()["error"], str)
    assert len(answer.text) < 600


@pytest.mark.parametrize(
    ("body", "headers", "words"),
    [
        (b'{"id": ', {"content-type": "application/json"}, "is not JSON"),
        (b'{"note": "\xff"}', {"content-type": "application/json"}, "is not JSON in UTF-8"),
        (
            gzip.compress(b"{}", mtime=0),
            {"content-type": "application/json", "content-encoding": "gzip"},
            "and not compressed",
        ),
        (b'{"id": "0"}', {"content-type": "application/x-www-form-urlencoded"}, "content type application/json"),
        (b"[]", {"content-type": "application/json"}, "must be a JSON object"),
        (b"", {}, "must be a JSON object"),
        (b"[" * 10_000, {"content-type": "application/json"}, "nested too deeply"),
    ],
)
def test_a_label_that_is_no_json_is_told_so(server, body, headers, words):
    answer = server.client.post("/feedback", content=body, headers=headers)
    assert answer.status_code in (400, 422)
    assert words in answer.json()["error"]


def test_a_gzip_bomb_is_refused(server):
    bomb = gzip.compress(bytes(200_000_000))
    assert len(bomb) < 200_000
    headers = {"content-encoding": "gzip", "content-type": "text/csv"}
    answer = server.client.post("/score", content=bomb, headers=headers)
    assert answer.status_code == 413


def test_every_answer_has_the_security_headers(server):
    for path in ("/livez", "/nothing", "/events", "/metrics"):
        headers = server.client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert "access-control-allow-origin" not in headers
        assert "server" not in headers


def test_hosts_and_sites(server):
    client = server.client
    assert client.get("/events", headers={"host": "evil.example"}).status_code == 403  # DNS rebinding
    assert client.get("/events", headers={"host": f"localhost:{server.port}"}).status_code == 200
    for headers in ({"origin": "http://evil.example"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"}):
        assert client.post("/score", json=[NORMAL], headers=headers).status_code == 403
    assert client.options("/score", headers={"origin": "http://evil.example"}).status_code in (405, 403)
    assert client.post("/score", json=[NORMAL], headers={"origin": server.url}).status_code == 200


def test_no_line_of_a_client_becomes_a_header(server):
    name = "x\r\nset-cookie: a=b"
    for answer in (
        server.client.get("/score", params={"model": name}),
        server.client.post("/score", json=[NORMAL], params={"model": name}),
        server.client.get("/events", params={"text": name}),
        server.client.post("/score", json={"rows": [NORMAL], "request": name}),
    ):
        assert "set-cookie" not in answer.headers
    answer = raw(server, b"GET /livez HTTP/1.1\r\nhost: localhost\r\nx: a\nb: c\r\n\x00: d\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400")


PATHS = ["../../../../etc/passwd", "..%2f..%2f..%2fetc%2fpasswd", "%2e%2e/%2e%2e/pyproject.toml", "..%5c..%5cx", "/etc/passwd",
         "page.js%00.css", "....//page.js", "../templates/page.html"]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_no_path_leads_out_of_the_static_files(server, path):
    for prefix in ("/static/", "/v2/models/", "/event/", "/events/", "/"):
        request = f"GET {prefix}{path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
        answer = raw(server, request.encode())
        assert answer.startswith((b"HTTP/1.1 4", b"HTTP/1.1 307")), (prefix, answer[:100])
        assert b"root:" not in answer
        assert b"[project]" not in answer
    for route in ("load", "unload"):
        assert server.client.post(f"/v2/repository/models/{path}/{route}").status_code in (400, 403, 404, 405, 422)


def test_malformed_requests_are_refused_and_the_server_goes_on(server):
    for data in (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET\r\n\r\n", b"POST /score HTTP/1.1\r\n\r\n", b"\x00" * 500,
                 b"POST /score HTTP/1.1\r\nhost: localhost\r\ncontent-length: -5\r\n\r\n",
                 b"POST /score HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
                 b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nhost: localhost\r\n\r\n"):  # fmt: skip
        answer = raw(server, data, seconds=5, close_sending=True)
        assert not answer.startswith(b"HTTP/1.1 5"), (data[:40], answer[:60])
    assert server.client.get("/livez").status_code == 200


def test_a_client_that_closes_its_side_still_gets_or_loses_only_its_own_answer(server):
    body = json.dumps([NORMAL]).encode()
    head = (
        b"POST /score HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        % len(body)
    )
    assert raw(server, head + body, seconds=5, close_sending=True)[:12] in (b"HTTP/1.1 200", b"")
    assert raw(server, head + body[:10], seconds=5, close_sending=True)[:10] in (b"HTTP/1.1 4", b"")
    [normal] = server.score(NORMAL)
    assert not normal["alarm"]


def test_connections_that_open_and_drop(server):
    for _ in range(300):
        socket.create_connection(("127.0.0.1", server.port)).close()
    held = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(200)]
    [normal] = server.score(NORMAL)
    assert not normal["alarm"]
    for connection in held:
        connection.close()


@pytest.mark.slow
def test_ten_thousand_connections_that_open_and_drop(server):
    for k in range(10_000):
        connection = socket.create_connection(("127.0.0.1", server.port))
        if k % 3 == 0:
            connection.sendall(b"POST /score HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{")
        connection.close()
    [normal] = server.score(NORMAL)
    assert not normal["alarm"]


def test_connections_without_a_request_are_closed(server):
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nx: ")  # headers that never end
        start = time.monotonic()
        assert connection.recv(100) == b""
        assert time.monotonic() - start < 15


def test_random_bodies_never_give_5xx(server):
    rng = np.random.default_rng(0)
    seeds = [json.dumps({"rows": [NORMAL]}).encode(), b"amount,age,ratio,country\n1,2,3,NO\n"]
    kinds = [
        "application/json",
        "text/csv",
        "application/vnd.apache.arrow.stream",
        "application/x-npy",
        "image/png",
        "",
    ]
    for k in range(200):
        body = bytearray(seeds[k % 2])
        for _ in range(int(rng.integers(1, 6))):
            body[int(rng.integers(len(body)))] = int(rng.integers(256))
        for path in ("/score", "/invocations", "/v2/models/orders/infer"):
            answer = server.client.post(path, content=bytes(body), headers={"content-type": kinds[k % len(kinds)]})
            assert answer.status_code < 500, (path, bytes(body), answer.text)


def test_openapi_names_every_route(server):
    schema = server.client.get("/openapi.json").json()
    assert {"/score", "/feedback", "/events", "/v2/models/{name}/infer", "/invocations", "/metrics"} <= set(
        schema["paths"]
    )


def test_request_identifiers_are_checked(server):
    for bad in ("", "x" * 65, "a\nb", 3, {}):
        assert server.client.post("/score", json={"rows": [NORMAL], "request": bad}).status_code == 422
    assert server.client.post("/score", json={"rows": [NORMAL], "request": str(uuid.uuid4())}).status_code == 200


def test_an_open_page_does_not_delay_scores(start, number_guard_file):
    running = start(number_guard_file, "--max-wait", "3")
    with running.client.stream("GET", "/api/stream") as page:
        next(page.iter_raw())  # the stream has begun, and stays open
        began = time.monotonic()
        assert running.client.post("/score", json={"rows": [[0.0, 0.0, 0.0]]}).status_code == 200
        assert time.monotonic() - began < 2.5


def test_a_quiet_service_gives_reasons_for_each_alarm_and_no_columns_without_a_part(server):
    ids = []
    for _ in range(5):
        ids.append(server.score(STRANGE)[0]["id"])
        time.sleep(0.3)
    for each in ids:
        reasons = server.client.get(f"/events/{each}").json()["reasons"]
        assert reasons[0][0] == "ratio"
        assert all(nats >= 0.05 for _, nats in reasons)


def test_a_body_that_is_not_scored_is_short(server):
    def parts():
        for _ in range(2000):
            yield b"x" * 1000

    for path in ("/feedback", "/login"):
        for content in (b"x" * 100_000, parts()):
            answer = server.client.post(path, content=content, headers={"content-type": "application/json"})
            assert (answer.status_code, "65536 bytes" in answer.text) == (413, True), answer.text
