"""The review page: server-rendered, complete without JavaScript, and for nobody but who was given its address.

The address holds a random token. Requests to any other host name are refused, so that no web site can reach the page
under a name of its own, and the page may load, run and send nothing but its own parts.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Collection
from importlib import resources
from typing import Any
from urllib.parse import parse_qs

from fastapi import FastAPI, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response

from m3tune.report.page import environment
from m3tune.review.pair import view
from m3tune.review.sitting import KEYS, UNDO, Progress, Sitting
from m3tune.review.wording import next_commands, rate_in_words

_MOST_BYTES = 4_096  # of a form
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_PARTS = {"review.css": "text/css", "review.js": "text/javascript"}

Handler = Callable[[Request], Awaitable[Response]]


def make_app(sitting: Sitting, token: str, hosts: Collection[str]) -> FastAPI:
    """The page of a sitting below `/TOKEN/`, for requests whose Host header is one of `hosts`."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    template = environment("m3tune.review").get_template("page.html.j2")

    @app.middleware("http")
    async def guard(request: Request, call_next: Handler) -> Response:
        refused = _refusal(request, token, hosts)
        response = refused or await call_next(request)
        response.headers.update(_HEADERS)
        return response

    @app.get("/{token}/", response_class=HTMLResponse)
    def page() -> str:
        place = sitting.next()
        return template.render(_facts(sitting, place, sitting.progress()))

    @app.post("/{token}/verdict")
    async def verdict(request: Request) -> Response:
        form = await _form(request)
        place, word = form.get("place", ""), KEYS.get(form.get("key", ""))
        if word is None or not (place.isdecimal() and int(place) < len(sitting.queue)):
            raise HTTPException(400, "no verdict")
        await run_in_threadpool(sitting.judge, int(place), word)
        return RedirectResponse("./", status_code=303)

    @app.post("/{token}/undo")
    def undo() -> Response:
        sitting.undo()
        return RedirectResponse("./", status_code=303)

    @app.get("/{token}/{part}")
    def part(part: str) -> Response:
        if part not in _PARTS:
            raise HTTPException(404)
        return Response(_part(part), media_type=_PARTS[part])

    return app


def _refusal(request: Request, token: str, hosts: Collection[str]) -> Response | None:
    """Why a request is not answered, None where it is. Of the token not even the time of an answer says anything."""
    if request.headers.get("host") not in hosts:
        return PlainTextResponse("this host name is not served here", status_code=403)
    given = request.url.path.split("/")[1]
    if not secrets.compare_digest(given.encode("utf-8", "surrogatepass"), token.encode()):
        return PlainTextResponse("not found", status_code=404)
    return None


async def _form(request: Request) -> dict[str, str]:
    """The fields of a small form. Raises HTTPException."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MOST_BYTES:
            raise HTTPException(413, "too long")
    try:
        fields = parse_qs(body.decode("utf-8", "replace"), max_num_fields=10)
    except ValueError:
        raise HTTPException(400, "too many fields") from None
    return {name: values[0] for name, values in fields.items()}


def _facts(sitting: Sitting, place: int | None, progress: Progress) -> dict[str, Any]:
    return {
        "reviewer": sitting.reviewer,
        "progress": progress,
        "rate": rate_in_words(progress),
        "place": place,
        "pair": None if place is None else view(sitting.project, sitting.queue[place]),
        "keys": KEYS,
        "undo": UNDO,
        "commands": next_commands(sitting.project),
    }


def _part(name: str) -> str:
    """A file of the page; its style is laid over that of the report."""
    before = resources.files("m3tune.report").joinpath("style.css").read_text("utf-8") if name == "review.css" else ""
    return before + resources.files("m3tune.review").joinpath(name).read_text("utf-8")
