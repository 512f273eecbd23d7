"""Samples of a model's weights, as one object that is as large as the samples."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from pushforward.errors import ConfigError, InputError, StorageError
from pushforward.io import pack, read, unpack, write
from pushforward.io.container import Path
from pushforward.likelihood import Kind, LogLik
from pushforward.models.base import Model
from pushforward.numerics import logmeanexp
from pushforward.numerics.checks import check_integer
from pushforward.registry import register
from pushforward.training.seeds import mix

__all__ = ["Posterior"]


@register("training")
class Posterior(nn.Module):
    """One model and M samples theta_1, ..., theta_M of those of its tensors that differ between them.

    A sequence of models: ``posterior[i]`` and iteration give models of their own, which read their tensors in the stack, so
    that ``list(posterior)`` takes no memory for weights, and whatever takes several models takes a posterior (for flows also
    ``pf.models.Ensemble(*posterior)``, an exact mixture density). Do not train them. ``posterior.model`` is the model that
    the samples were taken of, with its own weights: the mean of SWAG and of Bayes by Backprop, the last state of a chain,
    the first member of an ensemble.

    Made by :func:`deep_ensemble`, :func:`swag`, :func:`sghmc`, :func:`bayes_by_backprop`, or of stacked tensors by
    :meth:`of`.

    Args:
        model: any model.
        draws: M.
        names: of the parameters and buffers that differ, as the model names them; the samples start as zeros.

    Raises:
        ConfigError: for no sample, or a name that the model does not have.

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

    def __init__(self, model: Model, draws: int, names: tuple[str, ...]) -> None:
        super().__init__()
        if not isinstance(model, Model):
            raise ConfigError(f"a posterior is one of a pushforward model's weights; got {type(model).__name__}.")
        check_integer("draws", draws)
        self.model, self.draws, self.names = model, draws, tuple(names)
        tensors = tensors_of(model)
        if strange := [name for name in self.names if name not in tensors]:
            raise ConfigError(f"{type(model).__name__} has no parameter or buffer {str(strange[0])[:80]!r}.")
        if len(set(self.names)) < len(self.names):
            raise ConfigError("a posterior's names must differ from each other.")
        self.stacks = nn.Module()  # of buffers, whose names may hold no dot
        for name in self.names:
            tensor = tensors[name].detach()
            self.stacks.register_buffer(_key(name), tensor.new_zeros(draws, *tensor.shape))
        self.eval()

    @classmethod
    def of(cls, model: Model, stacks: Mapping[str, Tensor]) -> Posterior:
        """The posterior with these samples: for each name a tensor ``(M, *shape)``, kept as it is.

        Raises:
            ConfigError: if a shape does not fit, or the numbers of samples differ.
        """
        count = len(next(iter(stacks.values()))) if stacks else 1
        posterior = cls(model, min(count, 1), tuple(stacks))  # as small as can be: its own samples are not kept
        posterior.draws = count
        for name, want in posterior.samples().items():
            if stacks[name].shape != (posterior.draws, *want.shape[1:]):
                raise ConfigError(
                    f"the samples of {name!r} have shape {tuple(stacks[name].shape)} and need "
                    f"{(posterior.draws, *want.shape[1:])}."
                )
            setattr(posterior.stacks, _key(name), stacks[name].detach())
        return posterior

    def samples(self) -> dict[str, Tensor]:
        """The stacked tensors, ``(M, *shape)`` by the model's names: not copies."""
        return {name: cast("Tensor", getattr(self.stacks, _key(name))) for name in self.names}

    def __len__(self) -> int:
        return self.draws

    def __getitem__(self, index: int) -> Model:
        index = range(self.draws)[index]  # an IndexError beyond the end, which ends an iteration
        stacks = self.samples()
        shared: dict[int, Any] = {}  # a deep copy takes these for the copies, so that no tensor is copied
        for name, tensor in tensors_of(self.model).items():
            value = stacks[name][index] if name in stacks else tensor
            if name in stacks and isinstance(tensor, nn.Parameter):
                value = nn.Parameter(value, requires_grad=tensor.requires_grad)
            shared[id(tensor)] = value
        return copy.deepcopy(self.model, shared)

    def __iter__(self) -> Iterator[Model]:
        return (self[index] for index in range(self.draws))

    @torch.no_grad()
    def record(self, index: int, model: Model | None = None) -> None:
        """Copy the present tensors of a model, by default this posterior's own, to the sample ``index``."""
        tensors = tensors_of(self.model if model is None else model)
        for name, stack in self.samples().items():
            stack[index].copy_(tensors[name])

    def trimmed(self, draws: int) -> Posterior:
        """The first samples, without the tensors that are equal in all of them and in the model."""
        tensors = tensors_of(self.model)
        kept = {name: stack[:draws] for name, stack in self.samples().items()}
        kept = {name: stack for name, stack in kept.items() if not bool((stack == tensors[name].detach()).all())}
        if draws < self.draws:  # so that the memory of what is left out is given back
            kept = {name: stack.clone() for name, stack in kept.items()}
        return Posterior.of(self.model, kept) if kept else Posterior(self.model, draws, ())

    @torch.no_grad()
    def log_likelihoods(
        self,
        x: Any,
        context: Tensor | None = None,
        *,
        samples: int = 1,
        seed: int = 0,
        common: bool = True,
        batch_size: int = 512,
    ) -> Tensor:
        """l_i(x) = log p(x | theta_i) of each model and row, nats, float64 on the CPU, ``(M, n)``.

        Models whose likelihood is random (VAEs, dequantized flows) share their noise: it belongs to the row and the seed.
        Then the spread over i is that of the weights. With noise of each model's own its variance would be added, and the
        spread would measure ``samples``. (Where encoders differ, the same noise gives other latents, and cancels in part only.)

        Args:
            x: ``(n, *shape)``.
            context: ``(n, width)``, or one for all.
            samples: draws of the models' own noise, as in :meth:`pushforward.models.Model.evaluate`.
            seed: of that noise.
            common: False for noise of each model's own.
            batch_size: rows that are evaluated at once.

        Raises:
            InputError: for data that the model cannot read.
        """
        x = torch.as_tensor(x)
        if tuple(x.shape[1:]) != self.model.shape or x.dim() == 0:
            raise InputError(
                f"log_likelihoods reads data of shape (n, {', '.join(map(str, self.model.shape))}); got {tuple(x.shape)}."
            )
        result = torch.empty(self.draws, len(x), dtype=torch.float64)
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

    def predictive(self, x: Any, context: Tensor | None = None, **options: Any) -> LogLik:
        """log mean_i p(x | theta_i), the likelihood with the weights integrated out, ``value`` of shape ``(n,)``.

        Args:
            x: ``(n, *shape)``.
            context: ``(n, width)``, or one for all.
            options: of :meth:`log_likelihoods`.
        """
        value = logmeanexp(self.log_likelihoods(x, context, **options), 0)
        kept = self.model.kind in (Kind.EXACT, Kind.LOWER_BOUND)
        # An unbiased log-likelihood does not stay one through an exponential.
        unbiased = any(part.kind is not Kind.EXACT for part in self.model.chain.estimators)
        return LogLik(value, self.model.kind if kept and not unbiased else Kind.ESTIMATE, self.model.measure)

    def save(self, path: Path) -> None:
        """Write model and samples to one safetensors file, no code.

        Raises:
            ConfigError: if the model has a part that a file cannot name.
            StorageError: if the file cannot be written.
        """
        description, tensors = pack(self)
        write(path, {"kind": "posterior", "posterior": description}, tensors)

    @staticmethod
    def load(path: Path) -> Posterior:
        """The posterior that :meth:`save` wrote, on the CPU.

        Raises:
            StorageError: if there is no such file, or it is damaged, or does not hold a posterior.
        """
        header, tensors = read(path, "posterior")
        try:
            posterior = unpack(header.get("posterior"), tensors)
            if not isinstance(posterior, Posterior):
                raise StorageError(f"its description is of {type(posterior).__name__}, which is no posterior.")
        except StorageError as error:
            raise StorageError(f"{path} does not hold a posterior that can be built: {error}") from error
        return posterior

    def extra_repr(self) -> str:
        """What stands in ``repr`` before the parts."""
        return f"{self.draws} samples of {len(self.names)} tensors"


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, each once."""
    return dict(itertools.chain(model.named_parameters(), model.named_buffers()))


def _key(name: str) -> str:
    return name.replace(".", "/")
