"""TLS by certificate files: an encrypted service with a verified certificate, and nothing in clear text."""

from __future__ import annotations

import socket
import ssl

import httpx
import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from service_helpers import NORMAL

from pushforward.cli import main
from pushforward.service.server import _check_tls

READ = "read-token-0123456789"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def secure(start, guard_file, authority, tmp_path):
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    certificate.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    for part in certificate.cert_chain_pems:
        part.write_to_path(str(tmp_path / "cert.pem"), append=True)
    (tmp_path / "tokens").write_text(f"read:{READ}\n")
    files = ("--tls-cert", "cert.pem", "--tls-key", "key.pem", "--token-file", "tokens")
    return start(guard_file, *files, "--durability", "none")


def test_a_client_that_verifies_the_certificate_is_served(secure, authority):
    assert secure.url.startswith("https://")
    context = ssl.create_default_context()
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.get(f"{secure.url}/livez", verify=context)
    authority.configure_trust(context)
    with httpx.Client(base_url=secure.url, verify=context, timeout=60) as client:
        answer = client.post("/score", json=[NORMAL], headers={"authorization": f"Bearer {READ}"})
        assert answer.status_code == 200, answer.text
        assert client.post("/score", json=[NORMAL]).status_code == 401
        # The session cookie of the page must not travel in clear text.
        signed_in = client.post("/login", data={"token": READ}, headers={"origin": secure.url})
        cookie = signed_in.headers["set-cookie"]
        assert all(word in cookie.lower() for word in ("secure", "httponly", "samesite=strict")), cookie
        assert "strict-transport-security" in answer.headers
    with socket.create_connection(("127.0.0.1", secure.port), timeout=10) as clear:
        clear.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"200" not in clear.recv(1000)


def test_a_certificate_that_cannot_be_used_is_named_before_the_start(
    authority, guard_file, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    one, other = authority.issue_cert("localhost"), authority.issue_cert("localhost")
    one.cert_chain_pems[0].write_to_path("cert.pem")
    other.private_key_pem.write_to_path("other.pem")
    (tmp_path / "text.pem").write_text("no key")
    for key, words in (("absent.pem", "cannot read absent.pem"), ("other.pem", "cert.pem and other.pem are not"),
                       ("text.pem", "cert.pem and text.pem are not")):  # fmt: skip
        command = ["serve", str(guard_file), "--port", "0", "--tls-cert", "cert.pem", "--tls-key", key]
        monkeypatch.setattr("uvicorn.Server.run", lambda *_, **__: pytest.fail("it was started"))
        assert main(command) == 1
        printed = capsys.readouterr()
        assert words in printed.err
        assert "serves" not in printed.out
    one.private_key_pem.write_to_path("key.pem")
    _check_tls("cert.pem", "key.pem")
    key = serialization.load_pem_private_key((tmp_path / "key.pem").read_bytes(), None)
    encrypted = serialization.BestAvailableEncryption(b"word")
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encrypted)
    (tmp_path / "encrypted.pem").write_bytes(pem)
    _check_tls("cert.pem", "encrypted.pem")  # the server asks for the password


def test_old_versions_of_tls_are_refused(secure, authority):
    context = ssl.create_default_context()
    authority.configure_trust(context)
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with (
        pytest.raises(ssl.SSLError),
        socket.create_connection(("127.0.0.1", secure.port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="localhost"),
    ):
        pass
