import pytest
from multidict import CIMultiDict

from tempo_api.http.messages import answer_head, by_name, chunk, forwarded_headers, frame, origin_of, request_head

LENGTH = [(b"content-length", b"4")]


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("http://127.0.0.1:8000", ("127.0.0.1", 8000, "127.0.0.1:8000", "")),
        ("http://engine", ("engine", 80, "engine", "")),
        ("http://user:word@[::1]:8000/base/", ("::1", 8000, "[::1]:8000", "/base")),
    ],
)
def test_a_base_url_says_where_to_connect_and_what_host_to_name(url, origin):
    assert origin_of(url) == origin


@pytest.mark.parametrize("url", ["https://engine", "engine:8000", "http://"])
def test_a_base_url_that_can_not_be_used_is_refused(url):
    with pytest.raises(ValueError, match="is not of the form"):
        origin_of(url)


def test_headers_of_one_connection_go_no_further():
    headers = CIMultiDict([("A", "1"), ("a", "2"), ("Connection", "x-one"), ("connection", "X-Two, close")])
    headers.extend({"X-One": "1", "x-two": "2", "TE": "trailers", "Upgrade": "h2c", "X-Drop": "3"})
    assert list(forwarded_headers(headers, ["x-drop"]).items()) == [("A", "1"), ("a", "2")]
    assert len(headers) == 9


def test_headers_that_the_next_hop_has_anew_go_no_further():
    headers = CIMultiDict({"Host": "client", "Content-Length": "9", "Content-Encoding": "gzip", "X": "1"})
    headers.extend({"Expect": "100-continue", "Accept-Encoding": "br"})
    assert list(forwarded_headers(headers).items()) == [("X", "1")]


def test_the_values_of_a_field_that_is_there_twice_are_taken_in_a_row():
    assert by_name([(b"a", b"1"), (b"b", b"2"), (b"a", b"3")]) == {b"a": b"1,3", b"b": b"2"}


def test_a_request_head_has_what_this_hop_needs():
    head = request_head("POST", "/x?y", "engine:8000", {"X": "ä"}, 0)
    assert head == "POST /x?y HTTP/1.1\r\nHost: engine:8000\r\nX: ä\r\nContent-Length: 0\r\n\r\n".encode()


@pytest.mark.parametrize("value", ["a\r\nEvil: 1", "a\nEvil: 1", "a\rb"])
def test_a_line_break_in_a_header_is_refused(value):
    with pytest.raises(ValueError, match="line break"):
        request_head("GET", "/", "engine", {"X": value}, 0)


@pytest.mark.parametrize(
    ("method", "status", "fields", "version", "streams", "chunked", "kept", "length_told"),
    [
        ("GET", 200, LENGTH, (1, 1), False, False, True, True),
        ("GET", 200, LENGTH, (1, 1), True, True, True, False),
        ("GET", 200, [], (1, 1), False, True, True, False),
        ("GET", 200, LENGTH, (1, 0), False, False, True, True),
        ("GET", 200, [], (1, 0), False, False, False, False),
        ("GET", 200, LENGTH, (1, 0), True, False, False, False),
        ("HEAD", 200, LENGTH, (1, 1), True, False, True, True),
        ("GET", 304, LENGTH, (1, 1), False, False, True, True),
        ("GET", 204, LENGTH, (1, 1), False, False, True, False),
    ],
)
def test_how_an_answers_end_is_told(method, status, fields, version, streams, chunked, kept, length_told):
    framing = frame(method, status, by_name(fields), version, streams=streams, kept=True)
    assert (framing.chunked, framing.keep_alive) == (chunked, kept)
    head = answer_head(status, b"", fields, framing, {})
    assert (b"content-length: 4" in head, b"transfer-encoding: chunked" in head) == (length_told, chunked)
    assert (b"connection: close" in head) is not kept


def test_our_fields_take_the_place_of_the_upstreams():
    fields = [(b"x-a", b"theirs"), (b"x-b", b"theirs"), (b"set-cookie", b"1"), (b"set-cookie", b"2")]
    framing = frame("GET", 204, by_name(fields), (1, 1), streams=False, kept=True)
    head = answer_head(204, b"No Content", fields, framing, {"X-A": "ours"})
    assert head == (b"HTTP/1.1 204 No Content\r\nx-b: theirs\r\nset-cookie: 1\r\nset-cookie: 2\r\nX-A: ours\r\n\r\n")


def test_chunks():
    assert chunk(b"x" * 17, False) == b"11\r\n" + b"x" * 17 + b"\r\n"
    assert chunk(b"", False) == b""
    assert chunk(b"a", True) == b"1\r\na\r\n0\r\n\r\n"
    assert chunk(b"", True) == b"0\r\n\r\n"
