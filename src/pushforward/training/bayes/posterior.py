"""`Posterior`: samples of a model's weights that behave as a sequence of models."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Mapping
from typing import Any, cast, overload

import torch
from torch import Tensor, nn

from pushforward.errors import ConfigError, InputError, StorageError
from pushforward.io import pack, read, unpack, write
from pushforward.io.file_format import Path
from pushforward.likelihood import Kind, LogLik
from pushforward.models.base import Model
from pushforward.numerics import logmeanexp
from pushforward.numerics.checks import check_integer
from pushforward.numerics.conversion import as_tensor
from pushforward.registry import register
from pushforward.training.seeds import mix

__all__ = ["Posterior"]


@register("training")
class Posterior(nn.Module):
    """A model and M samples theta_1, ..., theta_M of those of its tensors that differ between the samples.

    It is a sequence of models. ``posterior[i]`` and iteration return models whose tensors are views of the stored
    samples, so ``list(posterior)`` needs no memory for weights, and every function of several models takes a posterior
    (for flows also ``pf.models.Ensemble(*posterior)``, an exact mixture density). Do not train these models.
    ``posterior.model`` is the sampled model with its own weights: the mean of SWAG and of Bayes by Backprop, the last
    state of a chain, or the first member of an ensemble.

    :func:`deep_ensemble`, :func:`swag`, :func:`sghmc` and :func:`bayes_by_backprop` return posteriors; :meth:`of` makes
    one from stacked tensors.

    Args:
        model: any model.
        n_samples: number of samples M. They start as zeros.
        names: names of the model's parameters and buffers that differ between the samples.

    Raises:
        ConfigError: for less than one sample, or a name that the model does not have.

    Example:
        >>> import torch, pushforward as pf
        >>> from pushforward.training.bayes import Posterior
        >>> flow = pf.models.Flow(pf.transforms.ActNorm(1), pf.distributions.Normal(1))
        >>> shifts = torch.tensor([[-1.0], [0.0], [1.0]])
        >>> posterior = Posterior.of(flow, {"chain.transforms.0.shift": shifts})
        >>> posterior.log_likelihoods(torch.zeros(2, 1))
        tensor([[-1.4189, -1.4189],
                [-0.9189, -0.9189],
                [-1.4189, -1.4189]], dtype=torch.float64)
    """

    def __init__(self, model: Model, n_samples: int, names: tuple[str, ...]) -> None:
        super().__init__()
        if not isinstance(model, Model):
            raise ConfigError(f"a posterior needs a pushforward model; got {type(model).__name__}.")
        check_integer("n_samples", n_samples)
        self.model, self.n_samples, self.names = model, n_samples, tuple(names)
        tensors = tensors_of(model)
        if unknown := [name for name in self.names if name not in tensors]:
            raise ConfigError(f"{type(model).__name__} has no parameter or buffer {str(unknown[0])[:80]!r}.")
        if len(set(self.names)) < len(self.names):
            raise ConfigError("the names of a posterior must differ from each other.")
        self.stacks = nn.Module()  # buffers, whose names must not contain a dot
        for name in self.names:
            tensor = tensors[name].detach()
            self.stacks.register_buffer(_key(name), tensor.new_zeros(n_samples, *tensor.shape))
        self.eval()

    @classmethod
    def of(cls, model: Model, stacks: Mapping[str, Tensor]) -> Posterior:
        """The posterior with these samples: for each name a tensor ``(M, *shape)``, which is not copied.

        Raises:
            ConfigError: if a shape or a type does not fit, or the numbers of samples differ.
        """
        for name, given in stacks.items():
            if not isinstance(given, Tensor) or not given.dim():
                raise ConfigError(f"the samples of {name!r} must be a tensor (n_samples, *shape); got {given!r:.80}.")
        count = len(next(iter(stacks.values()))) if stacks else 1
        posterior = cls(model, min(count, 1), tuple(stacks))  # one sample only, because they are replaced
        posterior.n_samples = count
        for name, want in posterior.samples().items():
            shape, given = (count, *want.shape[1:]), tuple(stacks[name].shape)
            if given != shape:
                raise ConfigError(f"the samples of {name!r} must have shape {shape}; got {given}.")
            if stacks[name].dtype != want.dtype:
                raise ConfigError(f"the samples of {name!r} must have the type {want.dtype}; got {stacks[name].dtype}.")
            setattr(posterior.stacks, _key(name), stacks[name].detach())
        return posterior

    def samples(self) -> dict[str, Tensor]:
        """The stacked tensors ``(M, *shape)`` by name, without copying."""
        return {name: cast("Tensor", getattr(self.stacks, _key(name))) for name in self.names}

    def __len__(self) -> int:
        return self.n_samples

    @overload
    def __getitem__(self, index: int) -> Model: ...

    @overload
    def __getitem__(self, index: slice) -> list[Model]: ...

    def __getitem__(self, index: int | slice) -> Model | list[Model]:
        if isinstance(index, slice):
            return [self[k] for k in range(self.n_samples)[index]]
        if not -self.n_samples <= index < self.n_samples:
            raise IndexError(f"this posterior has {self.n_samples} samples; there is no sample {index}.")
        index = range(self.n_samples)[index]
        stacks = self.samples()
        shared: dict[int, Any] = {}  # deepcopy uses these as the copies, so it copies no tensor
        for name, tensor in tensors_of(self.model).items():
            value = stacks[name][index] if name in stacks else tensor
            if name in stacks and isinstance(tensor, nn.Parameter):
                value = nn.Parameter(value, requires_grad=tensor.requires_grad)
            shared[id(tensor)] = value
        return copy.deepcopy(self.model, shared)

    def __iter__(self) -> Iterator[Model]:
        return (self[index] for index in range(self.n_samples))

    @torch.no_grad()
    def record(self, index: int, model: Model | None = None) -> None:
        """Copy the present tensors of a model, by default of ``posterior.model``, to the sample ``index``."""
        tensors = tensors_of(self.model if model is None else model)
        for name, stack in self.samples().items():
            stack[index].copy_(tensors[name])

    def trimmed(self, n_samples: int) -> Posterior:
        """The first ``n_samples`` samples, without the tensors that are equal in all of them and in the model."""
        tensors = tensors_of(self.model)
        kept = {name: stack[:n_samples] for name, stack in self.samples().items()}
        kept = {name: stack for name, stack in kept.items() if not bool((stack == tensors[name].detach()).all())}
        if n_samples < self.n_samples:  # frees the memory of the other samples
            kept = {name: stack.clone() for name, stack in kept.items()}
        return Posterior.of(self.model, kept) if kept else Posterior(self.model, n_samples, ())

    @torch.no_grad()
    def log_likelihoods(
        self,
        x: Any,
        context: Any = None,
        *,
        samples: int = 1,
        seed: int = 0,
        common: bool = True,
        batch_size: int = 512,
    ) -> Tensor:
        """l_i(x) = log p(x | theta_i) of each model and row, nats, float64 on the CPU, ``(M, n)``.

        Models with a random likelihood (VAEs, dequantized flows) share their noise, which depends on the row and the
        seed. So the spread over i is that of the weights. Separate noise for each model would add its own variance to
        the spread, which would then depend on ``samples``. (If encoders differ, equal noise gives different latents and
        cancels only in part.)

        Args:
            x: ``(n, *shape)``.
            context: ``(n, width)``, or one for all.
            samples: draws of the models' own noise, as in :meth:`pushforward.models.Model.evaluate`.
            seed: seed of that noise.
            common: whether all models share their noise.
            batch_size: rows that are evaluated at once.

        Raises:
            InputError: for data that the model cannot read.
            ConfigError: for a ``batch_size`` below 1.
        """
        x, context = as_tensor(x), None if context is None else as_tensor(context)
        check_integer("batch_size", batch_size)
        if tuple(x.shape[1:]) != self.model.shape or x.dim() == 0:
            raise InputError(
                f"log_likelihoods reads data of shape (n, {', '.join(map(str, self.model.shape))}); "
                f"got {tuple(x.shape)}."
            )
        result = torch.empty(self.n_samples, len(x), dtype=torch.float64)
        device = next((t.device for t in self.state_dict().values()), x.device)
        each = context is not None and context.dim() == 2 and len(context) == len(x)
        for index, model in enumerate(self):
            own = seed if common else mix(seed, index)
            for start in range(0, len(x), batch_size):
                part = slice(start, start + batch_size)
                given = None if context is None else (context[part] if each else context).to(device)
                value = model.evaluate(x[part].to(device), given, samples=samples, seed=own).value
                result[index, part] = value.double().cpu()
        return result

    def predictive(self, x: Any, context: Any = None, **options: Any) -> LogLik:
        """log mean_i p(x | theta_i), the likelihood with the weights integrated out, ``value`` of shape ``(n,)``.

        Args:
            x: ``(n, *shape)``.
            context: ``(n, width)``, or one for all.
            options: options of :meth:`log_likelihoods`.
        """
        value = logmeanexp(self.log_likelihoods(x, context, **options), 0)
        keeps_kind = self.model.kind in (Kind.EXACT, Kind.LOWER_BOUND)
        # The exponential of an unbiased log-likelihood is biased.
        unbiased = any(part.kind is not Kind.EXACT for part in self.model.chain.estimators)
        return LogLik(value, self.model.kind if keeps_kind and not unbiased else Kind.ESTIMATE, self.model.measure)

    def save(self, path: Path) -> None:
        """Write model and samples to one safetensors file, without code.

        Raises:
            ConfigError: if the model has a part that is not registered, which a file cannot name.
            StorageError: if the file cannot be written.
        """
        description, tensors = pack(self)
        write(path, {"kind": "posterior", "posterior": description}, tensors)

    @staticmethod
    def load(path: Path, *, public_key: Path | None = None) -> Posterior:
        """Load a posterior that :meth:`save` wrote, to the CPU.

        Args:
            path: the file.
            public_key: file of the key with which the file must be signed, see :func:`~pushforward.io.sign`; None accepts any.

        Raises:
            SignatureError: if a key is given, and the file is not signed with it or was changed since.
            StorageError: if the file does not exist, is damaged, or contains no posterior.
        """
        header, tensors = read(path, "posterior", public_key=public_key)
        try:
            posterior = unpack(header.get("posterior"), tensors)
            if not isinstance(posterior, Posterior):
                raise StorageError(f"it describes a {type(posterior).__name__}.")
        except StorageError as error:
            raise StorageError(f"{path} contains no valid posterior: {error}") from error
        return posterior

    def extra_repr(self) -> str:
        """Summary in ``repr``."""
        return f"{self.n_samples} samples of {len(self.names)} tensors"


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, each once."""
    return dict(itertools.chain(model.named_parameters(), model.named_buffers()))


def _key(name: str) -> str:
    return name.replace(".", "/")
