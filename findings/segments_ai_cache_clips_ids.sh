#!/usr/bin/env bash
# One would guess: the PNG that the Segments.ai SDK keeps beside an image has the segment ids of the PNG that it downloaded.
# True: the download has 24 bits for an id, the kept file 16: higher ids all become 65535. The first load returns the right ids, later ones do not.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet segments-ai==1.33.0 numpy==2.3.5 pillow==12.3.0
"$work/venv/bin/python" - "$work" <<'PYTHON'
import importlib.metadata
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
from PIL import Image
from segments.utils import bitmap2file, load_label_bitmap_from_url

IDS = np.array([[0, 1, 300, 65535, 65536, 70000]], np.uint32)
uploaded = bitmap2file(IDS).getvalue()


class Download(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(uploaded)

    def log_message(self, *_):
        pass


server = HTTPServer(("127.0.0.1", 0), Download)
threading.Thread(target=server.serve_forever, daemon=True).start()
kept = f"{sys.argv[1]}/kept.png"
first = load_label_bitmap_from_url(f"http://127.0.0.1:{server.server_port}/label.png", kept)
with Image.open(kept) as file:
    mode, later = file.mode, np.array(file)
print("segments-ai", importlib.metadata.version("segments-ai"))
print("  uploaded:  ", IDS.tolist())
print("  first load:", first.tolist())
print("  kept file: ", later.tolist(), "mode", mode)
if not np.array_equal(first, IDS) or later.tolist() != [[0, 1, 300, 65535, 65535, 65535]]:
    raise SystemExit("the behaviour has changed")
PYTHON
