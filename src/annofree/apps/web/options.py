"""What a server is asked for: an address, names and a method, and how much it takes.  Nothing heavy is imported here."""

from __future__ import annotations

import getpass
import ipaddress
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from annofree.errors import InputError
from annofree.methods.registry import locate_detector
from annofree.pipelines.plan import Plan
from annofree.structures import Vocabulary

__all__ = ["PORT", "Address", "ServeOptions", "choose_plan", "find_user", "is_loopback"]

PORT = 8000
"""The port where none is asked for; where it is taken, the next free one."""

_SHORTEST_TOKEN = 16
_USUAL = {"variant": "default", "device": "auto", "precision": "float32"}  # of the command, which name nothing


@dataclass(frozen=True)
class Address:
    """Where a server listens, and who may ask.

    Raises InputError for an address that others can reach without a token, and for a token that is easily guessed.
    """

    # an address of this machine
    host: str = "127.0.0.1"
    # None: the first free one from 8000 on
    port: int | None = None
    # needed from everybody; None for nobody
    token: str | None = None
    # other names that browsers call this server by, such as that of a proxy
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.port is not None and not 0 <= self.port <= 65535:
            raise InputError(f"expected a port from 0 to 65535, got {self.port}")
        if self.token is None and not is_loopback(self.host):
            raise InputError(
                f"expected --token with --host {self.host}, which others can reach, got none; for example "
                f"--token {secrets.token_urlsafe(24)}, or leave --host out to serve this machine alone"
            )
        if self.token is not None and (len(self.token) < _SHORTEST_TOKEN or not self.token.isascii() or " " in self.token):
            raise InputError(f"expected a --token of at least {_SHORTEST_TOKEN} ASCII letters without blanks, got another")


@dataclass(frozen=True)
class ServeOptions:
    """What is asked, and how much may be."""

    # the names; None for those of before, or of the run
    vocabulary: Vocabulary | None = None
    # method, models, policy and the like as ``segment`` has them, in the place of the run's own or the defaults
    method: Mapping[str, Any] = field(default_factory=dict)
    # the workspace folder; None for the run's own, or ``workspace``
    out: Path | None = None
    # whose corrections they are
    who: str = "somebody"
    # MB of one request
    max_upload_mb: float = 256
    # of one image
    max_pixels: int = 50_000_000
    # questions that wait at most
    queue: int = 64
    # s that a question may take
    timeout: float = 120.0
    # MB of encodings in memory
    memory_mb: float = 512


def choose_plan(base: Plan, asked: Mapping[str, Any]) -> Plan:
    """A plan with what a command names in the place of its own, by the names of the fields; raises InputError as it does."""
    named = {key: value for key, value in asked.items() if value is not None and value != _USUAL.get(key)}
    if not named:
        return base
    method, models = locate_detector(named.get("method"), named.get("models", base.models))
    own = {"method": method} if method is not None else {"method": None} if "models" in named else {}
    plan = replace(base, **{**named, **own, "models": models})
    plan.check()
    return plan


def find_user() -> str:
    """The name of who runs this."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # of a container without users
        return "somebody"


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens at an address.

    >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
