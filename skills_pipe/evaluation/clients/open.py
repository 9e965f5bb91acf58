"""Which client answers for a server type."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from skills_pipe.evaluation.clients.base import Client
from skills_pipe.evaluation.settings import EvalSettings


def open_client(settings: EvalSettings) -> Client:
    """The client for a server type; torch is only imported for ``hf``."""
    keys: Mapping[str, Any] = settings.keys.chat_template_kwargs
    if settings.server_type == "hf":
        from skills_pipe.evaluation.clients.hf import HfClient, HfOptions

        return HfClient(
            HfOptions(
                model=settings.model,
                device=settings.keys.device,
                dtype=settings.keys.dtype,
                chat_template_kwargs=keys,
            )
        )
    from skills_pipe.evaluation.clients.http import HttpClient, HttpOptions

    return HttpClient(
        HttpOptions(
            server_type=settings.server_type,
            address=settings.server_address or "",
            model=settings.keys.server.model or settings.model,
            chat_template_kwargs=keys,
            server=settings.keys.server,
        )
    )
