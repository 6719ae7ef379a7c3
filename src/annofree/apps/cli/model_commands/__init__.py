"""``annofree models``: what the weights are, and how they come to this machine and to others."""

from __future__ import annotations

from annofree.apps.cli.model_commands.models import models

__all__ = ["models"]
