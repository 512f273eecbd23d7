"""`Padding`: which positions of sequences count, from a mask, lengths or a padding token among the inputs of a network."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from pushforward.errors import PushforwardError

__all__ = ["Padding", "find_padding", "positional_names"]

_KEEP_MASKS = ("attention_mask",)
_DROP_MASKS = ("src_key_padding_mask", "key_padding_mask", "padding_mask")
_KINDS = ("", "keep", "drop", "lengths", "right", "left")
_MASK_WORDS = ("mask", "pad", "valid")
_SAME, _SAME_16 = 1e-3, 3e-2  # of the spread of the logits; in single and in half precision
_ERRORS = (RuntimeError, TypeError, ValueError, LookupError, AssertionError)


@dataclass(frozen=True)
class Padding:
    """Which input of a network says where its sequences are padded. Inputs called ``attention_mask``, ``src_key_padding_mask``,
    ``key_padding_mask`` or ``padding_mask`` are masks by their names.

    Attributes:
        kind: of a further input: "keep" or "drop", a mask that is true where a position counts, or does not; "lengths"; "right" or "left",
            sequences that are filled up with ``token`` on that side; "" for none.
        part: name of that input.
        of: name of the sequences, for lengths.
        token: the number that fills sequences up.
        names: of the positional inputs.

    Example:
        >>> import torch
        >>> from pushforward.detection.network.padding import Padding
        >>> Padding("lengths", "lengths", "x", names=("x", "lengths")).mask((torch.zeros(2, 3), torch.tensor([1, 3])))
        tensor([[ True, False, False],
                [ True,  True,  True]])
    """

    kind: str = ""
    part: str = ""
    of: str = ""
    token: float = 0.0
    names: tuple[str, ...] = ()

    def mask(self, inputs: Any) -> Tensor | None:
        """Which positions count, ``(n, T)`` bool; None where nothing says so."""
        parts = dict(_parts(inputs, self.names))
        known = _known_mask(parts)
        if known is not None or not self.kind:
            return known
        values, sequences = parts.get(self.part), parts.get(self.of)
        if values is None:
            return None
        if self.kind == "lengths":
            if sequences is None or sequences.dim() < 2 or values.numel() != len(sequences):
                return None
            return _until(values, sequences.shape[1], sequences.device)
        if self.kind in ("keep", "drop"):
            if values.dim() != 2:
                return None
            return values.bool() if self.kind == "keep" else ~values.bool()
        return _without_token(values, self.token, self.kind)

    def to_json(self) -> dict[str, Any]:
        """Its fields."""
        return {**vars(self), "names": list(self.names)}

    @classmethod
    def from_json(cls, fields: Any) -> Padding:
        """From :meth:`to_json`, of an untrusted file; None gives that of files of before.

        Raises:
            ValueError: for something else.
        """
        if fields is None:
            return cls()
        found = cls(**{**fields, "names": tuple(fields["names"])})
        texts = (found.part, found.of, *found.names)
        if found.kind not in _KINDS or not all(isinstance(text, str) for text in texts):
            raise ValueError("the padding of its sequences is of another form.")
        return cls(found.kind, found.part, found.of, float(found.token), found.names)


def positional_names(net: Any) -> tuple[str, ...]:
    """The names of the positional arguments of a network's ``forward``; none where they are not known."""
    if not isinstance(net, nn.Module):
        return ()
    try:
        parameters = inspect.signature(net.forward).parameters.values()
    except (TypeError, ValueError):  # of a module in another language
        return ()
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return tuple(parameter.name for parameter in parameters if parameter.kind in positional)


def find_padding(net: Any, inputs: Any, logits_of: Callable[[Any], Tensor]) -> Padding:
    """Find what says where the sequences of a batch are padded.

    A mask or lengths are what they seem if the logits do not change with the positions that they leave out, and change with the others. A
    token is padding if the logits do not change when one more is put at an end, and change with another token there.

    Args:
        net: the network, in evaluation mode.
        inputs: a batch; of its first 64 rows.
        logits_of: the logits of a batch, one row for each input.
    """
    names = positional_names(net)
    parts = dict(_parts(inputs, names))
    if _known_mask(parts) is not None or not any(part.dim() > 1 for part in parts.values()):
        return Padding(names=names)
    rows = next(len(part) for part in parts.values() if part.dim())
    parts = {name: part[:64] if part.dim() and len(part) == rows else part for name, part in parts.items()}
    trial = _Trial(inputs, parts, names, logits_of)
    for find in (_find_mask, _find_lengths, _find_token):
        found = find(trial)
        if found is not None:
            return replace(found, names=names)
    return Padding(names=names)


class _Trial:
    """A batch whose logits are compared with those of changed batches."""

    def __init__(self, inputs: Any, parts: dict[str, Tensor], names: tuple[str, ...], logits_of: Any) -> None:
        self.inputs, self.parts, self.names, self.logits_of = inputs, parts, names, logits_of
        self._logits: Tensor | None = None

    def same(self, **changed: Tensor) -> bool | None:
        """Whether the logits stay the same with other parts; None if the network does not take them."""
        try:
            before = self._logits
            if before is None:
                before = self._logits = self.logits_of(_with(self.inputs, self.parts, self.names))
            after = self.logits_of(_with(self.inputs, self.parts | changed, self.names))
        except (*_ERRORS, PushforwardError):
            return None
        if after.shape != before.shape:
            return None
        allowed = _SAME_16 if after.dtype in (torch.float16, torch.bfloat16) else _SAME
        before, after = before.detach().double(), after.detach().double()
        spread = float(before.std()) if before.numel() > 1 else 0.0
        return float((after - before).abs().max()) <= allowed * max(spread, 1e-6)

    def sequences(self, shape: tuple[int, int], without: str = "") -> dict[str, Tensor]:
        """The parts ``(n, T, ...)``."""
        return {
            name: part
            for name, part in self.parts.items()
            if name != without and part.dim() >= 2 and tuple(part.shape[:2]) == shape and part.dtype != torch.bool
        }

    def ignores(self, places: Tensor, without: str) -> bool | None:
        """Whether the logits stay the same if all sequences change at some places ``(n, T)``."""
        shape = (places.shape[0], places.shape[1])
        changed = {name: _changed(part, places) for name, part in self.sequences(shape, without).items()}
        moved = any(not torch.equal(value, self.parts[name]) for name, value in changed.items())
        return self.same(**changed) if moved else None


def _find_mask(trial: _Trial) -> Padding | None:
    for name, part in trial.parts.items():
        if part.dim() != 2 or part.shape[1] < 2 or not _flags(part):
            continue
        if not trial.sequences((part.shape[0], part.shape[1]), name):
            continue
        ones = part.bool()
        if bool(ones.all()) or not bool(ones.any()):  # no padding here: a mask does not leave out all positions
            if any(word in name.lower() for word in _MASK_WORDS):
                return Padding("keep" if bool(ones.all()) else "drop", name)
            continue
        zeros_ignored, ones_ignored = trial.ignores(~ones, name), trial.ignores(ones, name)
        if zeros_ignored and ones_ignored is False:
            return Padding("keep", name)
        if ones_ignored and zeros_ignored is False:
            return Padding("drop", name)
    return None


def _find_lengths(trial: _Trial) -> Padding | None:
    for name, part in trial.parts.items():
        whole = not part.is_floating_point() and not part.is_complex() and part.dtype != torch.bool
        if not whole or part.dim() > 2 or part.dim() == 0 or part.numel() != len(part):
            continue
        for of, sequences in trial.parts.items():
            if of == name or sequences.dim() < 2 or len(sequences) != len(part) or sequences.shape[1] < 2:
                continue
            if int(part.min()) < 0 or int(part.max()) > sequences.shape[1]:
                continue
            inside = _until(part, sequences.shape[1], sequences.device)
            if bool(inside.all()):
                if "len" in name.lower():
                    return Padding("lengths", name, of)
                continue
            if trial.ignores(~inside, name) and trial.ignores(inside, name) is False:
                return Padding("lengths", name, of)
    return None


def _find_token(trial: _Trial) -> Padding | None:
    for name, part in trial.parts.items():
        words = part.dim() == 2 and not part.is_floating_point() and part.dtype != torch.bool
        frames = part.dim() == 3 and part.is_floating_point()
        if not (words or frames) or part.shape[1] < 2 or _flags(part):
            continue
        for side, last in (("right", part[:, -1]), ("left", part[:, 0])):
            token = 0 if frames or bool((last == 0).any()) else int(last.mode().values)
            # Two equal ones at an end: one alone may be the last word.
            inner = part[:, -2] if side == "right" else part[:, 1]
            ends = (last == token) & (inner == token)
            if not bool((ends.all(1) if frames else ends).any()):
                continue
            others = part[part != token]
            if not len(others):
                continue
            more, other = (torch.full_like(part[:, :1], value.item()) for value in (torch.tensor(token), others[0]))
            if frames:
                other = more + float(part.float().std()) + 1.0
            longer = [torch.cat((part, end) if side == "right" else (end, part), 1) for end in (more, other)]
            if trial.same(**{name: longer[0]}) and trial.same(**{name: longer[1]}) is False:
                return Padding(side, name, token=float(token))
    return None


def _known_mask(parts: Mapping[str, Tensor]) -> Tensor | None:
    """The mask that the names of the inputs state."""
    for names, keep in ((_KEEP_MASKS, True), (_DROP_MASKS, False)):
        for name in names:
            mask = parts.get(name)
            if mask is not None and mask.dim() == 2:
                return mask.bool() if keep else ~mask.bool()
    return None


def _parts(inputs: Any, names: tuple[str, ...]) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a batch by the names of the arguments, or by their positions."""
    if isinstance(inputs, Mapping):
        found = list(inputs.items())
    else:
        values = inputs if isinstance(inputs, (tuple, list)) else (inputs,)
        found = [(names[i] if i < len(names) else str(i), value) for i, value in enumerate(values)]
    return ((str(name), value) for name, value in found if isinstance(value, Tensor))


def _with(inputs: Any, parts: Mapping[str, Tensor], names: tuple[str, ...]) -> Any:
    """The batch with other tensors."""
    if isinstance(inputs, Mapping):
        return {name: parts.get(str(name), value) for name, value in inputs.items()}
    values = inputs if isinstance(inputs, (tuple, list)) else (inputs,)
    found = [parts.get(names[i] if i < len(names) else str(i), value) for i, value in enumerate(values)]
    return tuple(found) if isinstance(inputs, (tuple, list)) else found[0]


def _flags(part: Tensor) -> bool:
    return part.dtype == torch.bool or bool(((part == 0) | (part == 1)).all())


def _until(lengths: Tensor, steps: int, device: torch.device) -> Tensor:
    return torch.arange(steps, device=device) < lengths.reshape(-1, 1).to(device)


def _without_token(values: Tensor, token: float, side: str) -> Tensor | None:
    if values.dim() not in (2, 3):
        return None
    other = values != token
    other = other if values.dim() == 2 else other.any(2)
    counts = other.long()
    return counts.flip(1).cumsum(1).flip(1) > 0 if side == "right" else counts.cumsum(1) > 0


def _changed(part: Tensor, places: Tensor) -> Tensor:
    """Other values at some places ``(n, T)``: fractions by more than their spread, integers within the range of the batch."""
    if part.is_floating_point():
        spread = part.float().std().item() if part.numel() > 1 else 0.0
        other = part + (spread + 1.0)
    else:
        low, high = int(part.min()), int(part.max())
        other = low + (part - low + 1) % (high - low + 1)
    return torch.where(places.reshape(*places.shape, *[1] * (part.dim() - 2)).to(part.device), other, part)
