"""How fast a large file comes from a server on loopback, beside curl.

    python -m benchmarks.downloads

The server is the one of the tests, in a process of its own. Both clients write the file to the same
disk and take turns; a file that the Hub announces a SHA-256 for is also hashed by ours.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TESTS = Path(__file__).parent.parent / "tests"
NAME = "org/model"
SERVER = f"""
import sys
from hub_server import Hub
hub, data = Hub(), bytes(int(sys.argv[1]))
hub.add({NAME!r}, {{"plain.bin": data, "large.bin": data}}, large={{"large.bin"}})
print(hub.url, flush=True)
sys.stdin.read()
"""


def with_curl(url: str, path: str, folder: Path) -> float:
    command = ["curl", "-s", "-L", "--fail", "-H", "Accept-Encoding: identity"]
    start = time.perf_counter()
    subprocess.run(
        [*command, "-o", str(folder / "file"), f"{url}/{NAME}/resolve/main/{path}"], check=True
    )
    return time.perf_counter() - start


def with_ours(url: str, path: str, folder: Path) -> float:
    from curated_transformers.repository import HfHubRepository

    os.environ |= {
        "HF_ENDPOINT": url,
        "HF_HUB_CACHE": str(folder),
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    start = time.perf_counter()
    HfHubRepository(NAME).file(path).open().close()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=1 << 30, help="bytes")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if shutil.which("curl") is None:
        sys.exit("curl is not installed")
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(options.size)],
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    url = server.stdout.readline().strip()
    try:
        for path, what in (("plain.bin", "not hashed"), ("large.bin", "hashed")):
            seconds: dict[str, list[float]] = {"curl": [], "ours": []}
            for _ in range(options.rounds):
                for name, client in (("curl", with_curl), ("ours", with_ours)):
                    with tempfile.TemporaryDirectory() as folder:
                        seconds[name].append(client(url, path, Path(folder)))
            curl, ours = (statistics.median(seconds[name]) for name in ("curl", "ours"))
            print(
                f"{options.size} bytes, {what}: curl {curl:.2f} s, ours {ours:.2f} s, "
                f"{curl / ours:.2f} of curl's speed"
            )
    finally:
        server.kill()


if __name__ == "__main__":
    main()
