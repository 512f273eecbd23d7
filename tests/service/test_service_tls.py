"""TLS by certificate files: an encrypted service with a verified certificate, and nothing in clear text."""

from __future__ import annotations

import socket
import ssl

import httpx
import pytest
import trustme
from service_helpers import NORMAL

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
