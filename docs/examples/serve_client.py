"""Ask a running `octvideo serve` about a video, with nothing but the standard library.

python docs/examples/serve_client.py clip.mp4 [--server http://127.0.0.1:8000] [--views 1x1]
[--top-k 5]
"""

import argparse
import http.client
import json
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

TRIES = 5


def ask(server: str, video: bytes, views: str, top_k: int) -> dict[str, Any]:
    """The server's answer; a busy server (503, or one that lets go of the connection) is asked
    again after the time that it names."""
    address = f"{server}/predict?views={views}&top_k={top_k}"
    headers = {"Content-Type": "application/octet-stream"}
    for left in reversed(range(TRIES)):
        request = urllib.request.Request(address, data=video, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code != 503 or not left:
                sys.exit(f"error {error.code}: {_detail(error.read())}")
            time.sleep(float(error.headers.get("Retry-After", "1")))
        except (urllib.error.URLError, ConnectionError, http.client.HTTPException) as error:
            if not left:
                sys.exit(f"error: {server} gives no answer ({error})")
            time.sleep(1)
    raise AssertionError("not reached")


def _detail(body: bytes) -> str:
    """Why there is no answer. From a proxy it is not JSON."""
    try:
        return json.loads(body)["detail"]
    except (ValueError, KeyError, TypeError):
        return body[:200].decode(errors="replace").strip()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("video", type=Path)
    parser.add_argument("--server", default="http://127.0.0.1:8000")
    parser.add_argument("--views", default="1x1")
    parser.add_argument("--top-k", type=int, default=5)
    args = parser.parse_args()
    answer = ask(args.server, args.video.read_bytes(), args.views, args.top_k)
    for prediction in answer["predictions"]:
        print(f"{prediction['probability']:6.1%}  {prediction['name']}")


if __name__ == "__main__":
    main()
