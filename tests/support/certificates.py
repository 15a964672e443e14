"""Certificates for tests, made by openssl."""

import subprocess
from pathlib import Path

from fabwafer_bridge.certificate import CERTIFICATE, KEY


def make_certificate(folder: Path, name: str) -> Path:
    """Make a folder with a self-signed certificate of 127.0.0.1 and its key, as a Secret is mounted."""
    folder.mkdir(parents=True, exist_ok=True)
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    make += ["-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
    make += ["-keyout", str(folder / KEY), "-out", str(folder / CERTIFICATE)]
    subprocess.run(make, check=True, capture_output=True)
    return folder
