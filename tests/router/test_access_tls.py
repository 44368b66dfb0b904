"""TLS with files that change."""

import asyncio
import json
import logging
import ssl
import subprocess

import pytest

from support.access import guarded, write_certificate
from support.fake_engine import MODEL, FakeEngine
from support.processes import until
from tempo_router.access import TLSError, TLSFiles

ASK = {"model": MODEL, "messages": [{"role": "user", "content": "Hello there, engine."}], "stream": True}


def trusting(certificate):
    """A client that knows this certificate and no other."""
    return ssl.create_default_context(cafile=certificate)


async def test_streams_go_over_tls_to_a_client_that_checks_the_certificate(tmp_path):
    files = write_certificate(tmp_path)
    async with guarded(FakeEngine(tokens=50), tmp_path, tls=TLSFiles(*files)) as router:
        assert router.url.startswith("https://")
        status, _, body = await router.ask("/v1/chat/completions", json=ASK, ssl=trusting(files[0]))
        assert status == 200
        events = [event for event in body.split(b"\n\n") if event]
        assert (len(events), events[-1]) == (51, b"data: [DONE]")
        assert all(json.loads(event.removeprefix(b"data: ")) for event in events[:-1])


async def test_a_renewed_certificate_counts_for_new_connections_and_old_ones_go_on(tmp_path):
    files = write_certificate(tmp_path)
    old, tls = trusting(files[0]), TLSFiles(*files)
    async with guarded(FakeEngine(), tmp_path, tls=tls) as router:
        reader, writer = await asyncio.open_connection("127.0.0.1", router.port, ssl=old)
        write_certificate(tmp_path)
        new = trusting(files[0])

        async def renewed():
            try:
                _, probe = await asyncio.open_connection("127.0.0.1", router.port, ssl=new)
            except ssl.SSLCertVerificationError:
                return False
            probe.close()
            return True

        await until(renewed)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 200 OK")
        writer.close()


def test_nothing_older_than_tls_1_2_is_spoken(tmp_path):
    assert TLSFiles(*write_certificate(tmp_path)).context.minimum_version == ssl.TLSVersion.TLSv1_2


def test_a_bad_change_is_logged_once_and_the_certificate_known_goes_on(tmp_path, caplog):
    certificate, key = write_certificate(tmp_path)
    tls = TLSFiles(certificate, key)
    good = key.read_text()
    other = tmp_path / "other"
    other.mkdir()
    key.write_text(write_certificate(other)[1].read_text())
    with caplog.at_level(logging.ERROR):
        assert not tls.poll()
        assert not tls.poll()
    [record] = caplog.records
    assert "no certificate and its key (KEY_VALUES_MISMATCH); give two PEM files" in record.getMessage()
    key.write_text(good)
    assert tls.poll()
    assert not tls.poll()


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda certificate, _: certificate.unlink(), r"tls\.crt: can't be read: No such file"),
        (lambda _, key: key.write_text(""), r"tls\.key: no certificate and its key"),
        (
            lambda certificate, key: certificate.write_bytes(key.read_bytes()),
            "give two PEM files, the key not encrypted",
        ),
    ],
)
def test_files_that_can_t_be_used_are_one_line(tmp_path, damage, problem):
    files = write_certificate(tmp_path)
    damage(*files)
    with pytest.raises(TLSError, match=problem) as caught:
        TLSFiles(*files)
    assert "\n" not in str(caught.value)


def test_an_encrypted_key_is_refused_and_nobody_is_asked_for_its_password(tmp_path):
    certificate, key = write_certificate(tmp_path)
    command = ["openssl", "ec", "-in", key, "-aes128", "-passout", "pass:secret", "-out", key]
    subprocess.run(command, check=True, capture_output=True)
    with pytest.raises(TLSError, match="the key not encrypted"):
        TLSFiles(certificate, key)
