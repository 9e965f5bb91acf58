"""Servers that speak the OpenAI protocol (vLLM, SGLang, TensorRT-LLM, OpenAI itself): chat completions over HTTP."""

from __future__ import annotations

import os
import queue
import random
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

from skills_pipe.errors import JobFailed, OptionError
from skills_pipe.evaluation.clients.base import CONTEXT_WINDOW_EXCEEDED, Answer, Request, failed
from skills_pipe.evaluation.settings import Inference, Server

_PASSING: Final = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
"""Statuses after which the same request may succeed."""

_CONTEXT_WORDS: Final = ("context length", "context window", "maximum context", "max_seq_len", "too long", "exceeds")
_LONGEST_PAUSE: Final = 30.0


@dataclass(frozen=True, kw_only=True)
class HttpOptions:
    """Which server, and how to talk to it; see :class:`skills_pipe.evaluation.settings.Server`.

    ``address`` is ``http://host:port``, with or without ``/v1``.
    """

    server_type: str
    address: str
    model: str
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    server: Server = field(default_factory=Server)


@dataclass(frozen=True, kw_only=True)
class _Stumble:
    """An attempt without an answer; ``passing`` when another one may have more luck."""

    name: str
    detail: str
    passing: bool
    retry_after: str = ""


class HttpClient:
    """Many requests at once to one server; what cannot be answered becomes an answer with an error.

    Raises:
        OptionError: the address is no URL, or the key is refused or missing.
        JobFailed: nothing answers at the address.
    """

    def __init__(self, options: HttpOptions) -> None:
        self._options = options
        base = options.address.rstrip("/").removesuffix("/v1")
        if not base.startswith(("http://", "https://")):
            raise OptionError(f"{options.address!r} is no URL", where="--server_address", fix="write http://host:port")
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        self._http = httpx.Client(base_url=f"{base}/v1", headers=_headers(options), limits=limits, timeout=30.0)
        self._wait_until_up()

    def generate(self, requests: Sequence[Request], inference: Inference) -> Iterator[Answer]:
        """Answers in the order in which the server gives them."""
        work: queue.SimpleQueue[Request] = queue.SimpleQueue()
        for request in requests:
            work.put(request)
        results: queue.SimpleQueue[Answer | Exception] = queue.SimpleQueue()
        stop = threading.Event()

        def answer_requests() -> None:
            while not stop.is_set():
                try:
                    request = work.get_nowait()
                except queue.Empty:
                    return
                try:
                    results.put(self._ask(request, inference, stop))
                except Exception as error:
                    # Handed to the caller, who raises it: in a thread it would be lost.
                    results.put(error)
                    return

        count = min(self._options.server.max_concurrent_requests, len(requests))
        threads = [threading.Thread(target=answer_requests, daemon=True) for _ in range(count)]
        for thread in threads:
            thread.start()
        try:
            for _ in requests:
                result = results.get()
                if isinstance(result, Exception):
                    raise result
                yield result
        finally:
            stop.set()

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def _wait_until_up(self) -> None:
        """Wait until the server answers anything at all below 500; a server that loads its model takes minutes."""
        deadline = time.monotonic() + self._options.server.startup_timeout
        while True:
            try:
                response = self._http.get("models")
                if response.status_code < 500:
                    self._refuse_bad_key(response)
                    return
                reason = f"status {response.status_code}"
            except httpx.TransportError as error:
                reason = str(error) or type(error).__name__
            if time.monotonic() >= deadline:
                waited = self._options.server.startup_timeout
                raise JobFailed(
                    f"no server answers at {self._options.address} after {waited:g} s: {reason} "
                    "(--server_address, ++server.startup_timeout)"
                )
            time.sleep(min(1.0, self._options.server.startup_timeout / 10))

    def _ask(self, request: Request, inference: Inference, stop: threading.Event) -> Answer:
        """The answer to a request after as many attempts as it needs and may have."""
        started = time.time()
        body = _body(self._options, request, inference)
        for attempt in range(self._options.server.max_retries + 1):
            result = self._attempt(request, body, (started, inference.timeout))
            if isinstance(result, Answer):
                return result
            last_one = attempt == self._options.server.max_retries
            if not result.passing or last_one or stop.wait(_pause(attempt, result.retry_after)):
                break
        return failed(request, error=result.name, detail=result.detail, started=started, ended=time.time())

    def _attempt(self, request: Request, body: dict[str, Any], times: tuple[float, float]) -> Answer | _Stumble:
        started, timeout = times
        try:
            response = self._http.post("chat/completions", json=body, timeout=timeout)
        except httpx.TransportError as error:
            return _Stumble(name=type(error).__name__, detail=str(error) or type(error).__name__, passing=True)
        if response.is_success:
            return _read_answer(request, response, started)
        self._refuse_bad_key(response)
        detail = response.text[:2000]
        too_long = response.status_code == 400 and any(words in detail.lower() for words in _CONTEXT_WORDS)
        return _Stumble(
            name=CONTEXT_WINDOW_EXCEEDED if too_long else f"http_{response.status_code}",
            detail=detail,
            passing=response.status_code in _PASSING,
            retry_after=response.headers.get("Retry-After", ""),
        )

    def _refuse_bad_key(self, response: httpx.Response) -> None:
        if response.status_code in (401, 403):
            name = _key_name(self._options)
            raise OptionError(
                f"the server refuses the key (status {response.status_code})",
                where=f"environment variable {name}" if name else "++server.api_key_env_var",
                fix="set the variable to a valid key" if name else "name the variable that holds the key",
            )


def _key_name(options: HttpOptions) -> str | None:
    return options.server.api_key_env_var or ("OPENAI_API_KEY" if options.server_type == "openai" else None)


def _headers(options: HttpOptions) -> dict[str, str]:
    name = _key_name(options)
    if name is None:
        return {}
    if not os.environ.get(name):
        raise OptionError("the key of the server is missing", where=f"environment variable {name}", fix="set it")
    return {"Authorization": f"Bearer {os.environ[name]}"}


def _body(options: HttpOptions, request: Request, inference: Inference) -> dict[str, Any]:
    """A request. Settings that change nothing are left out: servers differ in how they spell "off"."""
    limit = "max_completion_tokens" if options.server_type == "openai" else "max_tokens"
    body: dict[str, Any] = {
        "model": options.model,
        "messages": list(request.messages),
        "temperature": inference.temperature,
        "seed": inference.random_seed,
        limit: inference.tokens_to_generate,
    }
    if inference.temperature > 0 and inference.top_p < 1:
        body["top_p"] = inference.top_p
    if inference.stop_phrases:
        body["stop"] = list(inference.stop_phrases)
    return body | _beyond_openai(options, inference) | dict(options.server.extra_body)


def _beyond_openai(options: HttpOptions, inference: Inference) -> dict[str, Any]:
    """Fields that vLLM, SGLang and TensorRT-LLM add to the protocol."""
    fields: dict[str, Any] = {}
    if inference.top_k > 0:
        fields["top_k"] = inference.top_k
    if inference.min_p > 0:
        fields["min_p"] = inference.min_p
    if inference.repetition_penalty != 1:
        fields["repetition_penalty"] = inference.repetition_penalty
    if options.chat_template_kwargs:
        fields["chat_template_kwargs"] = dict(options.chat_template_kwargs)
    if fields and options.server_type == "openai":
        raise OptionError(
            f"server type openai has no {', '.join(sorted(fields))}",
            where="++inference.*, ++chat_template_kwargs",
            fix="leave them at their defaults, or pass what the server does know in ++server.extra_body",
        )
    return fields


def _read_answer(request: Request, response: httpx.Response, started: float) -> Answer:
    ended = time.time()
    try:
        content = response.json()
        choice = content["choices"][0]
        text = choice["message"]["content"] or ""
        reason = choice["finish_reason"] or "stop"
        tokens = int(content["usage"]["completion_tokens"])
    except (ValueError, KeyError, IndexError, TypeError) as error:
        detail = f"{type(error).__name__}: {error}; {response.text[:500]}"
        return failed(request, error="malformed_response", detail=detail, started=started, ended=ended)
    return Answer(
        position=request.position,
        text=text,
        num_generated_tokens=tokens,
        finish_reason=reason,
        started=started,
        ended=ended,
    )


def _pause(attempt: int, retry_after: str) -> float:
    """Seconds until the next attempt: what the server asks for, else doubling from half a second, with jitter."""
    if retry_after.isdigit():
        return min(float(retry_after), _LONGEST_PAUSE)
    return min(0.5 * 2.0**attempt, _LONGEST_PAUSE) * (0.75 + random.random() / 2)
