"""A proxy in front of an S3 server with the faults of real stores: 500, 503, truncated bodies, no response, one
key denied.

    python faulty_store.py PORT UPSTREAM SEED SHARE [DENIED]

Fails a SHARE of the requests for objects, drawn at random from SEED, and every GET of a key that ends in DENIED.
"""

from __future__ import annotations

import asyncio
import random
import sys

from aiohttp import ClientSession, web
from yarl import URL

SECONDS_OF_SILENCE = 3
"""Time until a request that gets no response is aborted, seconds."""


def error(status: int, code: str) -> web.Response:
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>by chance</Message></Error>"
    return web.Response(status=status, text=body, content_type="application/xml")


class Proxy:
    """Forwards requests to `upstream`, and fails some of them."""

    def __init__(self, upstream: str, seed: int, share: float, denied: str) -> None:
        self.upstream = upstream
        self.rng = random.Random(seed)
        self.share = share
        self.denied = denied

    async def handle(self, request: web.Request) -> web.StreamResponse:
        is_object = request.path.strip("/").count("/") > 0
        if self.denied and request.method == "GET" and request.path.endswith(self.denied):
            return error(403, "AccessDenied")
        fails = is_object and self.rng.random() < self.share
        kind = self.rng.choice(("500", "503", "cut", "silent")) if fails else ""
        if kind == "500":
            return error(500, "InternalError")
        if kind == "503":
            return error(503, "SlowDown")
        if kind == "silent":
            await asyncio.sleep(SECONDS_OF_SILENCE)
            if request.transport is not None:  # the client may have given up
                request.transport.abort()
            raise asyncio.CancelledError
        body = await request.read()
        async with (
            ClientSession(auto_decompress=False) as session,
            session.request(
                request.method,
                URL(self.upstream + request.raw_path, encoded=True),
                headers=request.headers,
                data=body,
            ) as received,
        ):
            data = await received.read()
            headers = {
                k: v for k, v in received.headers.items() if k.lower() not in ("transfer-encoding", "date")
            }
            if request.method == "HEAD":
                return web.Response(status=received.status, headers=headers)
            response = web.StreamResponse(status=received.status, headers=headers)
            response.content_length = len(data)
            await response.prepare(request)
            if kind == "cut" and request.method == "GET" and len(data) > 1:
                await response.write(data[: len(data) // 2])
                assert request.transport is not None
                request.transport.close()
                return response
            await response.write(data)
            await response.write_eof()
            return response


def main() -> None:
    port, upstream, seed, share, *denied = sys.argv[1:]
    app = web.Application(client_max_size=2**30)
    proxy = Proxy(upstream, int(seed), float(share), *(denied or [""]))
    app.router.add_route("*", "/{path:.*}", proxy.handle)
    web.run_app(app, host="127.0.0.1", port=int(port), print=None)


if __name__ == "__main__":
    main()
