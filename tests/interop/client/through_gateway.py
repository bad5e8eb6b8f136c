#!/usr/bin/env python3
"""Puts the gateway between the conformance suite's server and drive.py.

    through_gateway.py URL        (run by the suite, as the client under test)

RIG_GATEWAY is the binary, RIG_BESIDE=1 puts another server beside the suite's, RIG_FOLDER is where the gateway's configuration and
log go. What the suite checks is then what the gateway sends to its upstream.
"""

import os
import pathlib
import signal
import subprocess
import sys

here = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(here.parent))
import servers  # noqa: E402  (it is beside this file's folder)

# Told to end, it stops the gateway first.
signal.signal(signal.SIGTERM, lambda *_: sys.exit("told to end"))

upstream = {"url": sys.argv[-1], "transport": "http"}
beside = os.environ["RIG_BESIDE"] == "1"
gateway = servers.Gateway(os.environ["RIG_GATEWAY"], upstream, beside, pathlib.Path(os.environ["RIG_FOLDER"]))
with gateway:
    gateway.wait_answered()
    client = [sys.executable, str(here / "drive.py"), gateway.url]
    # The suite's own time limit ends only the shell that it started, so there is one here.
    code = subprocess.run(client, timeout=20, env=os.environ | {"RIG_PREFIX": gateway.prefix}).returncode
sys.exit(code)
