"""Certificates for tests of TLS, made by the openssl program."""

import pathlib
import shutil
import subprocess
from collections.abc import Callable

import pytest


def make_certificate(folder: pathlib.Path) -> None:
    """Writes server.pem, which vouches for itself, and server.key; skips without openssl."""
    openssl = _openssl(folder)
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
            "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
            "-keyout", "server.key", "-out", "server.pem")  # fmt: skip


def _openssl(folder: pathlib.Path) -> Callable[..., object]:
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificates of this test and is not here")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    return openssl


def make_certificates(folder: pathlib.Path) -> None:
    """Writes ca, stranger (another ca), server and client as .pem and .key; skips without openssl."""
    openssl = _openssl(folder)

    for name in ("ca", "stranger"):
        openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
                f"/CN=test {name}", "-keyout", f"{name}.key", "-out", f"{name}.pem")  # fmt: skip
    (folder / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1")
    for name in ("server", "client"):
        openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost",
                "-keyout", f"{name}.key", "-out", f"{name}.csr")  # fmt: skip
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key",
                "-CAcreateserial", "-days", "2", "-extfile", "names", "-out", f"{name}.pem")  # fmt: skip
