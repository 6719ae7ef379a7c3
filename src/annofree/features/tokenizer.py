"""CLIP's byte-pair tokenizer, complete or reduced to the vocabulary of a small model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor

__all__ = ["Tokenizer", "collect_token_ids"]

_PAD, _UNKNOWN, _FIRST = 0, 1, 2


class Tokenizer:
    """Turns texts into (B, T) int64 token ids, as CLIP's text tower expects them.

    With ``vocabulary`` (ids of the full encoding, sorted) the ids are renumbered: 0 pad, 1 unknown, then the known
    ones in order, then start and end.  End stays the highest id, because CLIP reads its text feature there.
    """

    def __init__(self, context_length: int, vocabulary: Sequence[int] | None = None) -> None:
        self.context_length = context_length
        self.vocabulary = None if vocabulary is None else tuple(vocabulary)
        self._bpe = SimpleTokenizer(context_length=context_length)
        self._ids = None if vocabulary is None else {old: _FIRST + new for new, old in enumerate(vocabulary)}

    @property
    def size(self) -> int:
        """The vocabulary size."""
        return self._bpe.vocab_size if self.vocabulary is None else _FIRST + len(self.vocabulary) + 2

    def is_unknown(self, text: str) -> bool:
        """Whether the text has a token outside the vocabulary."""
        return self._ids is not None and any(t not in self._ids for t in self._bpe.encode(text))

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Token ids (B, T) of B texts, cut or padded to the context length."""
        if self._ids is None:
            full: Tensor = self._bpe(list(texts))
            return full
        out = torch.full((len(texts), self.context_length), _PAD, dtype=torch.long)
        for row, text in enumerate(texts):
            ids = [self._ids.get(t, _UNKNOWN) for t in self._bpe.encode(text)][: self.context_length - 2]
            out[row, : len(ids) + 2] = torch.tensor([self.size - 2, *ids, self.size - 1])
        return out


def collect_token_ids(texts: Iterable[str]) -> list[int]:
    """Return the sorted token ids that some texts use."""
    bpe = SimpleTokenizer()
    return sorted({token for text in texts for token in bpe.encode(text)})
