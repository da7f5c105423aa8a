"""Label Studio's ML backend protocol over HTTP: health, setup, predict, webhook, versions."""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import logging
import secrets
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from autolabel.errors import AutolabelError
from autolabel.interactive import Labeler
from autolabel.serving import ServeOptions
from autolabel_connectors.serve.backend import Backend
from autolabel_connectors.serve.pulling import Puller, pull_into

_MAX_BODY = 64 * 2**20
_ANNOTATED = (
    "ANNOTATION_CREATED",
    "ANNOTATIONS_CREATED",
    "ANNOTATION_UPDATED",
    "ANNOTATIONS_DELETED",
    "ANNOTATION_DELETED",
)
_REALM = {"WWW-Authenticate": 'Basic realm="autolabel"'}
log = logging.getLogger(__name__)


class RequestError(AutolabelError):
    """A request that cannot be answered; ``status`` is HTTP's."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Service:
    """The routes, and whether the models are there yet."""

    def __init__(self, labeler: Labeler, options: ServeOptions, puller: Puller | None = None) -> None:
        self.backend = Backend(labeler, options)
        self.failure: Exception | None = None
        self._labeler, self._options, self._puller = labeler, options, puller
        self._ready = threading.Event()

    def load(self, failed: Callable[[], None] = lambda: None) -> None:
        """Load the models; ``failed`` is called if that goes wrong, with the reason in ``failure``."""
        try:
            self._labeler.load()
        except Exception as error:
            self.failure = error
            failed()
            return
        self._ready.set()
        log.info("ready: %s", self._labeler.model_version)

    def close(self) -> None:
        """End what runs beside the requests; corrections that wait are pulled first."""
        if self._puller is not None:
            self._puller.close()
        self.backend.close()

    def app(self) -> Starlette:
        """Return the ASGI application."""

        @contextlib.asynccontextmanager
        async def lifespan(_: Starlette) -> AsyncIterator[None]:
            yield
            await run_in_threadpool(self.close)

        both = ["GET", "POST"]
        routes = [
            Route("/", self._guard(self._health), methods=["GET"]),
            Route("/health", self._guard(self._health), methods=["GET"]),
            Route("/setup", self._guard(self._setup), methods=["POST"]),
            Route("/predict", self._guard(self._predict), methods=["POST"]),
            Route("/webhook", self._guard(self._webhook), methods=["POST"]),
            Route("/versions", self._guard(self._versions), methods=both),
            Route("/train", self._guard(self._train), methods=["POST"]),
        ]
        return Starlette(routes=routes, lifespan=lifespan, exception_handlers={404: _missing, 405: _missing})

    def _guard(self, answer: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        """Check who asks, and turn errors into JSON that says what to do."""

        async def guarded(request: Request) -> Response:
            if not self._allowed(request.headers.get("authorization", "")):
                text = "sign in with the user and password that autolabel serve was started with"
                return JSONResponse({"error": text}, 401, _REALM)
            try:
                return await answer(request)
            except RequestError as error:
                return JSONResponse({"error": str(error)}, error.status)
            except AutolabelError as error:
                log.warning("%s: %s", request.url.path, error)
                return JSONResponse({"error": str(error)}, 422)
            except Exception as error:  # the traceback stays here: it may speak of more than who asks should know
                log.exception("%s", request.url.path)
                text = f"{type(error).__name__} while answering; the log of autolabel serve says more"
                return JSONResponse({"error": text}, 500)

        return guarded

    def _allowed(self, header: str) -> bool:
        if not self._options.password:
            return True
        kind, _, code = header.partition(" ")
        try:
            given = base64.b64decode(code.strip(), validate=True) if kind.lower() == "basic" else b""
        except (binascii.Error, ValueError):
            return False
        return secrets.compare_digest(given, f"{self._options.user}:{self._options.password}".encode())

    async def _health(self, _: Request) -> Response:
        if not self._ready.is_set():
            return JSONResponse({"status": "LOADING", "error": "the models are being loaded; ask again soon"}, 503)
        version = self._labeler.model_version
        return JSONResponse({"status": "UP", "model_class": "autolabel", "model_version": version})

    async def _setup(self, request: Request) -> Response:
        self._need_models()
        body = await _json(request)
        return JSONResponse(await run_in_threadpool(self.backend.setup, body))

    async def _predict(self, request: Request) -> Response:
        self._need_models()
        body = await _json(request)
        return JSONResponse(await run_in_threadpool(self.backend.predict, body))

    async def _versions(self, _: Request) -> Response:
        return JSONResponse({"versions": [self._labeler.model_version]})

    async def _train(self, _: Request) -> Response:
        return JSONResponse({"status": "ok", "detail": "nothing is trained here; corrections come home with a pull"})

    async def _webhook(self, request: Request) -> Response:
        body = await _json(request)
        action, project = str(body.get("action", "")), body.get("project")
        title = project.get("title") if isinstance(project, Mapping) else None
        if action not in _ANNOTATED:
            return JSONResponse({"status": "ignored", "detail": f"nothing is pulled for {action or 'no action'}"})
        if self._puller is None:
            return JSONResponse({"status": "ignored", "detail": "start autolabel serve with --run RUN to pull"})
        if not isinstance(title, str) or not title:
            raise RequestError("the webhook has no project title; switch on 'send payload' in its settings", 400)
        self._puller.ask(title)
        return JSONResponse({"status": "accepted"}, 202)

    def _need_models(self) -> None:
        if not self._ready.is_set():
            raise RequestError("the models are being loaded; ask again soon", 503)


def serve(labeler: Labeler, options: ServeOptions) -> None:
    """Serve until SIGINT or SIGTERM; raises what went wrong with loading the models."""
    puller = None if options.run is None else Puller(pull_into(options.run, options), options.pull_delay_s)
    service = Service(labeler, options, puller)
    config = uvicorn.Config(
        service.app(),
        host=options.host,
        port=options.port,
        access_log=False,
        log_config=None,
        timeout_graceful_shutdown=30,
    )
    server = uvicorn.Server(config)

    def give_up() -> None:
        server.should_exit = True

    threading.Thread(target=service.load, args=(give_up,), name="load", daemon=True).start()
    server.run()
    if service.failure is not None:
        raise service.failure


async def _json(request: Request) -> Mapping[str, Any]:
    """Read a JSON object of bounded size; raises RequestError."""
    data = bytearray()
    async for part in request.stream():
        data += part
        if len(data) > _MAX_BODY:
            raise RequestError(f"the request has more than {_MAX_BODY} bytes; send fewer tasks at once", 413)
    try:
        values = json.loads(bytes(data))
    except ValueError:
        raise RequestError("the request is not JSON; send application/json", 400) from None
    if not isinstance(values, dict):
        raise RequestError("the request must be a JSON object", 400)
    return values


async def _missing(request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 404)
    known = "GET /health, POST /setup, POST /predict, POST /webhook, GET /versions"
    return JSONResponse({"error": f"{request.method} {request.url.path} is not served; there are {known}"}, status)
