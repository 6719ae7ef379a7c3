"""What can go wrong between here and a hub, each in one line: what happened, and what helps."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from annofree.errors import AnnofreeError, MissingError
from annofree.hub.cards import Card, format_size
from annofree.hub.transfer import StrangeAnswerError, find_cache_folder, find_commit, measure_partial

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError

__all__ = ["UnreachableError", "explain_refusals"]

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


class UnreachableError(Exception):
    """The hub gave nothing, for a reason that has nothing to do with the model; ``then`` is what helps, if it is known."""

    def __init__(self, why: str, then: str = "") -> None:
        super().__init__(why)
        self.then = then


@contextmanager
def explain_refusals(card: Card, revision: str) -> Iterator[None]:
    """Turn errors of a download into MissingError, of one line, or UnreachableError, whose line the caller ends."""
    from huggingface_hub import constants, errors

    hub, page = constants.ENDPOINT, f"{constants.ENDPOINT}/{card.hub}"
    try:
        yield
    except StrangeAnswerError:
        raise _explain_portal(hub) from None
    except (errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError):
        why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else f"{hub} cannot be reached"
        raise UnreachableError(why) from None
    except errors.HfHubHTTPError as problem:
        raise _explain_answer(card, revision, page, problem) from None
    except (errors.HTTPError, ConnectionError, TimeoutError) as problem:  # type: ignore[attr-defined]  # the HTTP client's
        raise _explain_break(card, hub, problem) from None
    except OSError as problem:
        raise _explain_disk(card, problem) from None


def _explain_portal(hub: str) -> UnreachableError:
    return UnreachableError(
        f"what answers as {hub} is not a hub, but a login page of this network or a proxy",
        "open any page in a browser and log in there, or set HTTPS_PROXY or HF_ENDPOINT",
    )


def _explain_break(card: Card, hub: str, problem: Exception) -> UnreachableError:
    kind = type(problem).__name__
    if "CERTIFICATE_VERIFY" in str(problem):
        return UnreachableError(
            f"what answers as {hub} cannot prove that it is: a login page of this network, or a proxy",
            "open any page in a browser and log in there, or name the proxy's certificates by SSL_CERT_FILE",
        )
    who = _name_host(problem, hub)
    if kind in ("ConnectError", "ConnectTimeout"):
        return UnreachableError(f"{who} cannot be reached")
    held = measure_partial(card.hub)
    kept = f", {format_size(held)} of it are kept" if held else ""
    return UnreachableError(f"{who} broke off ({kind}){kept}", "try again when the network is better")


def _name_host(problem: Exception, hub: str) -> str:
    """Name the hub, or the other host that a request of it was sent on to."""
    url = getattr(getattr(problem, "_request", None), "url", None)
    other = url is not None and str(url.netloc, "ascii") != hub.split("://")[-1].rstrip("/")
    return f"{hub} answers, but {url.host}, which has the files," if other and url is not None else hub


def _explain_answer(card: Card, revision: str, page: str, problem: HfHubHTTPError) -> Exception:
    """Explain an answer of the hub that is an error."""
    from huggingface_hub import errors, get_token

    if isinstance(problem, errors.RevisionNotFoundError):
        return MissingError(
            f"{page} has no revision {revision} any more; `annofree models pull --renew {card.name}` takes what it has now"
        )
    if isinstance(problem, errors.EntryNotFoundError):
        wanted = ", ".join(card.files)
        return MissingError(f"{page} lacks one of the files that {card.name} needs as safetensors: {wanted}")
    token = get_token()
    if isinstance(problem, errors.GatedRepoError):
        do = f"its terms to be accepted: do so at {page}, then `hf auth login` or set HF_TOKEN"
        if token:
            do = f"its terms to be accepted by the account of {_name_token()}: do so at {page}, and try again"
        return MissingError(f"the model {card.name} asks for {do}")
    status = problem.response.status_code
    if token and status == 401:
        return _explain_token(card, revision, page)
    if isinstance(problem, errors.RepositoryNotFoundError):
        return MissingError(f"the hub shows no {page}; it may be gone, or private and HF_TOKEN missing or wrong")
    return _explain_status(status, problem.response.headers.get("Retry-After", ""))


def _explain_status(status: int, after: str) -> UnreachableError:
    from huggingface_hub import constants

    said = f"{constants.ENDPOINT} answered {status}"
    if status == 429:
        wait = f"{after} seconds" if after.isdigit() else "some minutes"
        return UnreachableError(f"{said}, too many requests", f"wait {wait}; with a token (`hf auth login`) more are allowed")
    if status == 511:  # log in first
        return _explain_portal(constants.ENDPOINT)
    if status >= 500:
        return UnreachableError(f"{said}, it is down or busy", "nothing is wrong here, try again later")
    return UnreachableError(said)


def _name_token() -> str:
    return next((name for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN") if os.environ.get(name)), "`hf auth login`")


def _explain_token(card: Card, revision: str, page: str) -> MissingError:
    """Say of a token that is refused whether the model needs one at all."""
    try:
        find_commit(card.hub, next(iter(card.files)), revision, token=False)
    except Exception:  # whatever it is, the token is the first thing to mend
        public = ""
    else:
        public = f", though {page} is public and needs none"
    name = _name_token()
    without = "`hf auth logout`" if name.startswith("`") else f"unset {name}"
    return MissingError(
        f"the hub refuses the token of {name} (401){public}: it has expired or is wrong; renew it by `hf auth login`, "
        f"or go without: {without}"
    )


def _explain_disk(card: Card, problem: OSError) -> AnnofreeError:
    place = find_cache_folder()
    if problem.errno not in _NO_ROOM:
        return MissingError(f"cannot keep {card.name} in {place}: {problem.strerror or problem}; set HF_HOME to another place")
    existing = next(p for p in (place, *place.parents) if p.exists())
    free = format_size(shutil.disk_usage(existing).free)
    return MissingError(
        f"no room for {card.name} (about {format_size(card.size)}) in {place}, which has {free} left; free some, or set HF_HOME"
    )
