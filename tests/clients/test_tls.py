"""What a scanner of TLS says of the Lab's own port (row 11 of the Lab's issue, promise R20)."""

import re
import subprocess
import sys
from urllib.parse import urlsplit


def scan(run, *words):
    """sslyze against Mozilla's modern profile: exit code 0 means compliant."""
    server = urlsplit(run["lab_url"]).netloc
    # It knows its place by the host name: the Lab's certificate is for that, and the test CA vouches for it.
    command = [sys.executable, "-W", "ignore", "-m", "sslyze", "--mozilla_config=modern", *words, server]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_it_is_compliant_with_mozillas_modern_profile(run):
    answer = scan(run, f"--certinfo_ca_file={run['ca_file']}")
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert re.search(r"OK - Compliant\.", answer.stdout), answer.stdout
    # The scanner looked at all of it: what it cannot connect to, it cannot find fault with.
    assert "TLS 1.2 Cipher Suites:\n     Attempted to connect using 156 cipher suites; the server rejected all" in answer.stdout
    assert "Supported curves:                  X25519, secp256r1, secp384r1" in answer.stdout


def test_the_scanner_looks_at_the_certificates_path(run):
    """The same port to somebody who does not trust the test CA: if this were compliant, the check above would be none."""
    answer = scan(run)
    assert answer.returncode == 1, answer.stdout + answer.stderr
    assert "certificate_path_validation" in answer.stdout
