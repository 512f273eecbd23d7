"""Signatures: OpenSSL agrees, a changed byte is found, and a loaded guard is the one that was signed."""

import shutil
import stat
import subprocess

import numpy as np
import pytest
import torch

import pushforward as pf
from pushforward.cli import main
from pushforward.errors import ConfigError, SignatureError, StorageError
from pushforward.io import new_key, sign, verify

pytest.importorskip("cryptography")


@pytest.fixture
def keys(tmp_path):
    return tmp_path / "key", new_key(tmp_path / "key")


def test_a_signature_belongs_to_the_bytes_and_the_key(tmp_path, keys):
    private, public = keys
    path = tmp_path / "file"
    path.write_bytes(b"content")
    assert sign(path, private) == tmp_path / "file.sig"
    assert (tmp_path / "file.sig").stat().st_size == 64
    verify(path, public)
    for content in (b"Content", b"content ", b"", b"conten"):
        path.write_bytes(content)
        with pytest.raises(SignatureError, match="was changed after it was signed"):
            verify(path, public)
    path.write_bytes(b"content")
    other = new_key(tmp_path / "other")
    with pytest.raises(SignatureError, match=r"another key than that of .*other\.pub"):
        verify(path, other)
    for signature in (b"", b"x" * 64, b"x" * 1000):
        (tmp_path / "file.sig").write_bytes(signature)
        with pytest.raises(SignatureError):
            verify(path, public)
    (tmp_path / "file.sig").unlink()
    with pytest.raises(SignatureError, match=r"is not signed: there is no file\.sig"):
        verify(path, public)


def test_only_the_owner_reads_the_private_key(keys):
    assert stat.S_IMODE(keys[0].stat().st_mode) == 0o600
    with pytest.raises(StorageError, match="exists"):
        new_key(keys[0])


@pytest.mark.skipif(shutil.which("openssl") is None, reason="OpenSSL is not installed")
def test_openssl_verifies_and_signs_the_same(tmp_path, keys):
    private, public = keys
    path = tmp_path / "file"
    path.write_bytes(b"content")
    sign(path, private)
    check = [
        "openssl",
        "pkeyutl",
        "-verify",
        "-pubin",
        "-inkey",
        public,
        "-rawin",
        "-in",
        path,
        "-sigfile",
        f"{path}.sig",
    ]
    assert subprocess.run(check, capture_output=True).returncode == 0
    path.write_bytes(b"Content")
    assert subprocess.run(check, capture_output=True).returncode != 0
    run = {"check": True, "capture_output": True}
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", tmp_path / "theirs"], **run)
    subprocess.run(["openssl", "pkey", "-in", tmp_path / "theirs", "-pubout", "-out", tmp_path / "theirs.pub"], **run)
    subprocess.run(
        ["openssl", "pkeyutl", "-sign", "-inkey", tmp_path / "theirs", "-rawin", "-in", path, "-out", f"{path}.sig"],
        **run,
    )
    verify(path, tmp_path / "theirs.pub")


def test_an_encrypted_key(tmp_path, keys):
    from cryptography.hazmat.primitives import serialization as s

    key = s.load_pem_private_key(keys[0].read_bytes(), None)
    secret = key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.BestAvailableEncryption(b"word"))
    (tmp_path / "secret").write_bytes(secret)
    (tmp_path / "file").write_bytes(b"content")
    for password in (None, "wrong"):
        with pytest.raises(ConfigError, match="is not a private key that can be read"):
            sign(tmp_path / "file", tmp_path / "secret", password=password)
    sign(tmp_path / "file", tmp_path / "secret", password="word")
    verify(tmp_path / "file", keys[1])


def test_a_password_file_of_any_bytes(tmp_path, keys):
    from cryptography.hazmat.primitives import serialization as s

    word = "Paßwort".encode("latin-1")
    key = s.load_pem_private_key(keys[0].read_bytes(), None)
    secret = key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.BestAvailableEncryption(word))
    (tmp_path / "secret").write_bytes(secret)
    (tmp_path / "word").write_bytes(word + b"\r\n")
    (tmp_path / "file").write_bytes(b"content")
    command = ["sign", str(tmp_path / "file"), "--key", str(tmp_path / "secret")]
    assert main([*command, "--password-file", str(tmp_path / "word")]) == 0
    verify(tmp_path / "file", keys[1])


def test_other_files_are_not_keys(tmp_path, keys):
    private, public = keys
    path = tmp_path / "file"
    path.write_bytes(b"content")
    sign(path, private)
    for key in (path, private):
        with pytest.raises(ConfigError, match="is not a public key"):
            verify(path, key)
    with pytest.raises(ConfigError, match="is not a private key"):
        sign(path, public)
    with pytest.raises(StorageError, match="cannot read"):
        sign(path, tmp_path / "none")
    with pytest.raises(StorageError, match="cannot read"):
        verify(tmp_path / "none", public)


def written(kind, path):
    """A file of a kind, and the function that reads it."""
    torch.manual_seed(0)
    x = torch.randn(60, 2)
    if kind == "model":
        pf.save(pf.models.NICE(features=2), path)
        return pf.load
    if kind == "density":
        pf.FlowDensity(max_steps=1, random_state=0).fit(x.numpy()).save(path)
        return pf.FlowDensity.load
    if kind == "posterior of weights":
        model = pf.models.NICE(features=2)
        posterior = pf.training.bayes.Posterior(model, 1, tuple(dict(model.named_parameters())))
        posterior.save(path)
        return pf.training.bayes.Posterior.load
    if kind == "monitor":
        pf.detection.Monitor(alpha=0.01).save(path)
        return pf.detection.Monitor.load
    prior = torch.distributions.Uniform(-torch.ones(1), torch.ones(1))
    posterior = pf.inference.NPE(prior).fit(torch.tanh(x[:, :1]), x, max_steps=1, progress="silent")
    posterior.save(path)
    return pf.inference.load_posterior if kind == "posterior" else type(posterior).load


@pytest.mark.parametrize(
    "kind", ["model", "density", "posterior of weights", "monitor", "posterior", "posterior by class"]
)
def test_every_file_can_be_required_to_be_signed(tmp_path, keys, kind):
    private, public = keys
    path = tmp_path / "file.safetensors"
    load = written(kind, path)
    load(path)
    with pytest.raises(SignatureError, match="is not signed"):
        load(path, public_key=public)
    sign(path, private)
    load(path, public_key=public)
    if kind == "model":
        assert main(["sample", str(path), "-o", str(tmp_path / "s.csv"), "-q", "--public-key", str(public)]) == 0
        assert main(["info", str(path), "--public-key", str(public)]) == 0


def test_a_guard_that_must_be_signed(tmp_path, keys, capsys, monkeypatch):
    private, public = keys
    x = np.random.default_rng(0).normal(size=(200, 2))
    path = tmp_path / "g.safetensors"
    guard = pf.Guard(0.1, n_estimators=1, max_steps=20, random_state=0).fit(x)
    guard.save(path)
    with pytest.raises(SignatureError, match="is not signed"):
        pf.Guard.load(path, public_key=public)
    assert main(["sign", str(path), "--key", str(private)]) == 0
    np.testing.assert_array_equal(pf.Guard.load(path, public_key=public).p_value(x), guard.p_value(x))
    assert main(["verify", str(path), "--key", str(public)]) == 0
    np.savetxt(tmp_path / "x.csv", x, delimiter=",", header="x0,x1", comments="")
    score = [
        "score",
        str(path),
        str(tmp_path / "x.csv"),
        "-o",
        str(tmp_path / "s.csv"),
        "-q",
        "--public-key",
        str(public),
    ]
    assert main(score) == 0
    guard.alpha = 0.2  # another guard, with a checksum that is right
    guard.save(path)
    pf.Guard.load(path)
    with pytest.raises(SignatureError, match="was changed after it was signed"):
        pf.Guard.load(path, public_key=public)
    capsys.readouterr()
    assert main(score) == main(["verify", str(path), "--key", str(public)]) == 1
    assert capsys.readouterr().err.count("was changed after it was signed") == 2
    monkeypatch.setenv("PUSHFORWARD_PUBLIC_KEY", str(public))
    for command in (["info", str(path)], ["sample", str(path), "-n", "2"]):
        assert main(command) == 1
        printed = capsys.readouterr()
        assert "was changed after it was signed" in printed.err
        assert printed.out == ""
    assert main(["sign", str(path), "--key", str(private)]) == 0
    assert main(["info", str(path)]) == 0
    monkeypatch.delenv("PUSHFORWARD_PUBLIC_KEY")
    assert main(["keygen", str(tmp_path / "new")]) == 0
    assert (tmp_path / "new.pub").exists()


def test_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "cryptography.hazmat.primitives", None)
    with pytest.raises(ConfigError, match=r"pushforward\[sign\]"):
        new_key(tmp_path / "key")
