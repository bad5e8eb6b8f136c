#!/usr/bin/env python3
"""An issuer for the benchmark: prints its URL and an access token, and serves its key.

    issuer.py AUDIENCE

The token is a JWT of an hour, signed with Ed25519 by openssl.
"""

import base64
import http.server
import json
import pathlib
import subprocess
import sys
import tempfile
import time


def encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def main() -> None:
    folder = pathlib.Path(tempfile.mkdtemp())
    key, signed = folder / "key.pem", folder / "signed"

    def openssl(*arguments: str) -> bytes:
        return subprocess.run(["openssl", *arguments], check=True, capture_output=True).stdout

    openssl("genpkey", "-algorithm", "ed25519", "-out", str(key))
    # The last 32 bytes of the encoding are the key (RFC 8410, section 4).
    public = openssl("pkey", "-in", str(key), "-pubout", "-outform", "DER")[-32:]
    jwks = {"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "bench", "x": encode(public)}]}
    documents: dict[str, dict] = {"/jwks": jwks}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            document = documents.get(self.path)
            body = json.dumps(document or {}).encode()
            self.send_response(200 if document else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    issuer = f"http://127.0.0.1:{server.server_port}"
    documents["/.well-known/oauth-authorization-server"] = {
        "issuer": issuer,
        "authorization_endpoint": f"{issuer}/authorize",
        "token_endpoint": f"{issuer}/token",
        "jwks_uri": f"{issuer}/jwks",
        "response_types_supported": ["code"],
    }
    now = int(time.time())
    claims = {
        "iss": issuer, "sub": "bench", "aud": sys.argv[1], "iat": now, "exp": now + 3600,
        "client_id": "bench", "scope": "tools:call", "groups": ["ops", "staff", "everybody"],
    }
    header = {"typ": "at+jwt", "alg": "EdDSA", "kid": "bench"}
    text = ".".join(encode(json.dumps(part).encode()) for part in (header, claims))
    signed.write_text(text)
    signature = openssl("pkeyutl", "-sign", "-rawin", "-inkey", str(key), "-in", str(signed))
    print(issuer, f"{text}.{encode(signature)}", flush=True)
    server.serve_forever()


main()
