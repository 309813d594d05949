"""The endpoints of the server: POST /predict, GET /health, /model, /classes and /metrics."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from octvideo.errors import ConfigError, import_optional
from octvideo.serve.limits import RefusedError
from octvideo.serve.service import Service

_DRAIN_SECONDS, _DRAIN_BYTES = 1.0, 2**23
_REMEDY = "pip install 'octvideo[serve]'"
_HERE = "this server has POST /predict, GET /health, /model, /classes and /metrics"


def create_app(service: Service) -> Any:
    """A FastAPI application that closes the service when it ends. Raises OctvideoError without
    FastAPI."""
    import_optional("fastapi", "octvideo serve", _REMEDY)
    from fastapi import FastAPI, Request
    from fastapi.responses import JSONResponse, PlainTextResponse
    from starlette.exceptions import HTTPException
    from starlette.requests import ClientDisconnect

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        service.close()

    app = FastAPI(title="octvideo", lifespan=lifespan, docs_url=None, redoc_url=None)
    drains = asyncio.Semaphore(3 * service.limits.max_waiting)

    @app.exception_handler(Exception)
    async def failed(_: Request, error: Exception) -> JSONResponse:
        """The client's part of a bug; the log has its traceback."""
        detail = f"the server failed ({type(error).__name__}); its log says where"
        return JSONResponse({"detail": detail}, 500, {"Connection": "close"})

    @app.exception_handler(HTTPException)
    async def unknown(_: Request, error: HTTPException) -> JSONResponse:
        """Another path, or another method of a path."""
        return JSONResponse(
            {"detail": f"{error.detail}: {_HERE}"}, error.status_code, error.headers
        )

    @app.post("/predict")
    async def predict(request: Request, views: str = "1x1", top_k: str = "5") -> JSONResponse:
        """The top classes of the video in the body, or at {"address": ...} in a body of JSON."""
        begin = time.monotonic()
        status, content = 200, {}
        try:
            content = await service.predict(request.stream(), request.headers, views, top_k)
        except RefusedError as refused:
            status, content = refused.status, {"detail": str(refused)}
            if not drains.locked():  # else of too many: the answer goes out as it is
                async with drains:
                    await _drain(request.stream())
        except ClientDisconnect:
            status, content = 400, {"detail": "the client has gone"}
        except asyncio.CancelledError:  # uvicorn waits no longer
            status, content = 503, {"detail": "the server has stopped; send the video again"}
        except Exception:
            service.metrics.answered(500, time.monotonic() - begin)
            raise
        service.metrics.answered(status, time.monotonic() - begin)
        # What is left of a refused body must not be taken for the next request.
        headers = {"Retry-After": "1"} if status == 503 else {}
        if status != 200:
            headers["Connection"] = "close"
        return JSONResponse(content, status, headers)

    @app.get("/health")
    async def health() -> JSONResponse:
        """200 while requests are taken."""
        inside = {"inside": service.inside}
        if service.stopping:
            content = {"status": "stopping", "detail": "the server takes no more requests"}
            return JSONResponse(content | inside, 503)
        return JSONResponse({"status": "ok"} | inside)

    @app.get("/model")
    async def model() -> dict[str, Any]:
        """Which network answers."""
        return service.model()

    @app.get("/classes")
    async def classes() -> list[str]:
        """The names that answers choose from."""
        return list(service.recognizer.class_names)

    @app.get("/metrics")
    async def metrics() -> PlainTextResponse:
        """For Prometheus."""
        return PlainTextResponse(service.metrics.text(service.inside))

    return app


async def _drain(body: AsyncIterator[bytes]) -> None:
    """Read on for a moment: a client that is still sending would lose the answer."""
    with suppress(Exception):
        async with asyncio.timeout(_DRAIN_SECONDS):
            left = _DRAIN_BYTES
            async for chunk in body:
                left -= len(chunk)
                if left < 0:
                    break


def require_free(host: str, port: int) -> None:
    """Raise ConfigError if no server can listen there, before anything is loaded for it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as asyncio's servers do
        try:
            probe.bind((host, port))
        except (OSError, OverflowError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise ConfigError(
                f"--host {host} --port {port}: no server can listen there ({reason}); choose others"
            ) from None


def run_server(service: Service, host: str, port: int, *, stop_seconds: int = 30) -> None:
    """Serve until SIGTERM or Ctrl-C; then new requests are refused, and those being served have
    stop_seconds to finish. uvicorn then repeats a SIGTERM."""
    uvicorn = import_optional("uvicorn", "octvideo serve", _REMEDY)
    uvicorn.run(
        create_app(service),
        host=host,
        port=port,
        log_level="info",
        timeout_keep_alive=5,
        timeout_graceful_shutdown=stop_seconds,
    )
