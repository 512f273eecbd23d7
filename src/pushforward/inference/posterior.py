"""`SimulationPosterior`: what NPE, NLE and NRE return: draws and densities of parameters given an observation, and files."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self, final

import torch
from torch import Tensor, nn

from pushforward.errors import ConfigError, InputError, StorageError, warn_caller
from pushforward.inference.data_scale import DataScale
from pushforward.inference.maximum import Kernel, highest_density
from pushforward.inference.network_inputs import bounds_for_json
from pushforward.inference.posterior_distribution import PosteriorDistribution
from pushforward.inference.priors import Prior
from pushforward.inference.real_numbers import as_numbers
from pushforward.io import pack, read, unpack, write
from pushforward.io.file_format import Path
from pushforward.models.sampling import seeded_generator
from pushforward.numerics.checks import check_integer
from pushforward.training.result import FitResult

__all__ = ["SimulationPosterior", "check_finite_rows", "check_posterior", "load_posterior"]

_FARTHEST = 100.0
"""Deviations of scaled data from their mean that no simulation has, because heavy tails are scaled to light ones."""
_MAP_DRAWS = 1000
"""Draws from the best of which the search for the maximum starts."""


def shaped(value: Tensor, x_shape: tuple[int, ...]) -> Tensor:
    """An observation of the shape of a simulation, of one that has a further dimension of length 1, or is a single number; else as it is."""
    if value.shape == (1, *x_shape):
        return value[0]
    return value[None] if value.dim() == 0 and x_shape == (1,) else value


class SimulationPosterior(ABC):
    """The posterior p(theta | x) that was learned from simulations, for any observation x.

    Attributes:
        prior: the prior.
        x_shape: shape of one observation.
        training: results of the training runs; empty for a posterior from a file.

    Example:
        >>> import torch, pushforward as pf
        >>> _ = torch.manual_seed(0)
        >>> prior = torch.distributions.Uniform(-torch.ones(1), torch.ones(1))
        >>> theta = prior.sample((200,))
        >>> x = theta + 0.1 * torch.randn(200, 1)
        >>> posterior = pf.inference.NPE(prior).fit(theta, x, max_steps=20, progress="silent")
        >>> posterior.log_prob(theta[:3], x=torch.zeros(1)).shape
        torch.Size([3])
    """

    method: ClassVar[str]
    _has_prior: ClassVar[bool] = True
    """Whether the networks learned the prior too, so that no other can take its place."""
    _has_bumps: ClassVar[bool] = False
    """Whether the density is that of a flow of the parameters, whose bumps :meth:`map` averages out."""
    _methods: ClassVar[dict[str, type[SimulationPosterior]]] = {}

    def __init_subclass__(cls) -> None:
        SimulationPosterior._methods[cls.method] = cls

    def __init__(
        self, prior: Prior, networks: Sequence[nn.Module], scale: DataScale, x_shape: tuple[int, ...],
        training: Sequence[FitResult] = (),
    ) -> None:  # fmt: skip
        self.prior, self.networks, self.scale = prior, list(networks), scale
        self.x_shape, self.training = tuple(x_shape), list(training)
        for network in self.networks:
            network.eval()

    @property
    def features(self) -> int:
        """Number of parameters."""
        return self.prior.features

    @final
    def sample(self, count: int, x: Any, *, seed: int | None = None) -> Tensor:
        """Draws of the posterior, ``(count, D)``, all within the support of the prior. The time is bounded.

        Args:
            count: number of draws.
            x: one observation, with the shape of a simulation.
            seed: makes the draws reproducible.

        Raises:
            InputError: for an observation of another shape, or one that is not finite.
        """
        check_integer("count", count, 0)
        observed = self._observation(x)
        if count == 0:
            return torch.zeros(0, self.features)
        with torch.no_grad():
            return self._draws(count, observed, seeded_generator(seed))

    @final
    def sample_batched(self, count: int, x: Any, *, seed: int | None = None) -> Tensor:
        """Draws for several observations ``(m, *x_shape)``, as ``(m, count, D)``."""
        check_integer("count", count, 0)
        rows = as_numbers(x, "the observations")
        if rows.dim() != len(self.x_shape) + 1:
            raise InputError(
                f"several observations have the shape (m, {_text(self.x_shape)}); got {tuple(rows.shape)}."
            )
        check_finite_rows(rows)
        generator = seeded_generator(seed)
        if count == 0 or len(rows) == 0:
            return torch.zeros(len(rows), count, self.features)
        with torch.no_grad():
            return torch.stack([self._draws(count, self._observation(row), generator) for row in rows])

    def _draws(self, count: int, x: Tensor, generator: torch.Generator) -> Tensor:
        """Draws given one scaled observation, within the prior; float32 whatever the default."""
        return self.prior.clamp(self._sample(count, x, generator).float())

    @final
    def log_prob(self, theta: Any, x: Any) -> Tensor:
        """Log-density of parameters given an observation, nats, ``(n, D)`` to ``(n,)``; -inf outside the prior.

        Gradients reach theta if it requires them. NPE gives a normalized density; where the prior has gaps, it is divided by
        the fraction a of 10,000 draws that lie outside them, whose relative standard error is sqrt((1 - a) / a) percent. NLE and NRE divide by an estimate of the evidence of
        x, by 4,000 draws around tempered ones: with a few parameters its error is below 1 %, with ten or more, or several narrow
        modes, it is a few percent. The factor is the same for all theta.

        Args:
            theta: parameters, ``(n, D)``.
            x: one observation, or ``(n, *x_shape)``, one for each row, for NPE.

        Raises:
            InputError: for a wrong shape.
        """
        rows = self._parameters(theta)
        observed = self._observation(x, rows=len(rows))
        if not len(rows):
            return torch.zeros(0)
        with torch.set_grad_enabled(torch.is_grad_enabled() and isinstance(theta, Tensor) and theta.requires_grad):
            return self._log_prob(rows, observed)

    @final
    def map(self, x: Any, *, starts: int = 10, seed: int = 0) -> Tensor:
        """The parameters of highest posterior density (maximum a posteriori), ``(D,)``.

        L-BFGS climbs from the best of 1,000 draws. The density is that of the parameters as they are: other units leave the
        maximum where it is, and another parametrization, such as logarithms, moves it. The density of NPE is first averaged over
        a normal kernel, a quarter as wide as the posterior there, because flows have narrow bumps, and spikes at the bounds of a
        prior. Means and intervals of draws are more stable than a maximum.

        Args:
            x: one observation, with the shape of a simulation.
            starts: number of draws to climb from; more of them find a higher mode where there are several.
            seed: of the draws.

        Raises:
            InputError: for an observation of another shape, or one that is not finite.

        Example:
            >>> import torch, pushforward as pf
            >>> _ = torch.manual_seed(0)
            >>> prior = torch.distributions.Normal(torch.zeros(1), 1.0)
            >>> theta = prior.sample((1000,))
            >>> posterior = pf.inference.NPE(prior).fit(theta, theta + torch.randn(1000, 1), max_steps=20, progress="silent")
            >>> bool((posterior.map(torch.ones(1)) - 0.5).abs() < 0.2)  # the posterior is normal with mean 0.5
            True
        """
        check_integer("starts", starts)
        with torch.inference_mode(False):  # where the caller is in inference mode: it climbs along gradients
            x = as_numbers(x, "an observation").clone()
            observed = self._observation(x)
            draws = self.sample(_MAP_DRAWS, x, seed=seed)
            kernel = Kernel(self.prior, draws) if self._has_bumps else None
            return highest_density(lambda theta: self._log_prob(theta, observed), self.prior, draws, starts, kernel)

    @final
    def distribution(self, x: Any) -> PosteriorDistribution:
        """p(theta | x) of one observation as a ``torch.distributions`` object.

        It is for code that takes such an object: the prior of a further experiment, ``NPE(posterior.distribution(x))``, KL
        divergences by Monte Carlo, Pyro.

        Args:
            x: one observation, with the shape of a simulation.

        Raises:
            InputError: for an observation of another shape, or one that is not finite.
        """
        return PosteriorDistribution(self, x)

    @final
    def _parameters(self, theta: Any) -> Tensor:
        """Rows of parameters, ``(n, D)``.

        Raises:
            InputError: for a wrong shape.
        """
        rows = (theta if isinstance(theta, Tensor) else as_numbers(theta, "theta")).float()
        if rows.dim() != 2 or rows.shape[1] != self.features:
            raise InputError(f"theta must have the shape (n, {self.features}); got {tuple(rows.shape)}.")
        return rows

    def save(self, path: Path, *, prior: bool = True) -> None:
        """Write everything to one safetensors file, without code.

        Args:
            path: the file.
            prior: whether to store the prior. A prior that a file cannot store must be given again when loading.

        Raises:
            ConfigError: for a prior that a file cannot store.
            StorageError: if the file cannot be written.
        """
        descriptions, tensors = [], {}
        for index, network in enumerate(self._stored_networks()):
            description, own = pack(network, f"network{index}.")
            descriptions.append(description)
            tensors.update(own)
        tensors.update({f"scale.{name}": value for name, value in self.scale.state_dict().items()})
        header = {
            "kind": "simulation-posterior",
            "method": self.method,
            "networks": descriptions,
            "x_shape": list(self.x_shape),
            "prior": self.prior.describe() if prior else None,
            "options": self._options(),
        }
        write(path, header, tensors)

    @classmethod
    def load(cls, path: Path, *, prior: Any = None, public_key: Path | None = None) -> Self:
        """Read a posterior of this class from a file; see :func:`load_posterior`.

        Raises:
            StorageError: also for the posterior of another method.
        """
        found = load_posterior(path, prior=prior, public_key=public_key)
        if not isinstance(found, cls):
            raise StorageError(
                f"{path} contains the posterior of {found.method.upper()}, which {cls.__name__} does not load: call load_posterior(path)."
            )
        return found

    @abstractmethod
    def _sample(self, count: int, x: Tensor, generator: torch.Generator) -> Tensor:
        """Draws given one scaled observation, ``(width,)``."""

    @abstractmethod
    def _log_prob(self, theta: Tensor, x: Tensor) -> Tensor:
        """Log-density given one scaled observation, or one for each row."""

    def _options(self) -> dict[str, Any]:
        """What a file stores besides the networks, in JSON types."""
        return {}

    @classmethod
    def _width_of(cls, network: nn.Module) -> int | None:
        """The number of parameters for which a network was built; None if it does not say."""
        return None

    def _stored_networks(self) -> list[nn.Module]:
        """The networks that a file stores."""
        return self.networks

    @classmethod
    def _restore(
        cls,
        prior: Prior,
        networks: list[nn.Module],
        scale: DataScale,
        x_shape: tuple[int, ...],
        options: Mapping[str, Any],
    ) -> Self:
        """The posterior from what a file stores."""
        return cls(prior, networks, scale, x_shape)

    def _adapted(self, another: bool) -> Self:
        """The posterior without what depends on the prior of the training, if the prior is another one."""
        return self

    def _observation(self, x: Any, rows: int | None = None) -> Tensor:
        """An observation, flat and scaled: ``(width,)``, or ``(rows, width)``."""
        value = as_numbers(x, "an observation").cpu()
        value = shaped(value, self.x_shape)
        many = rows is not None and value.shape == (rows, *self.x_shape)
        if value.shape != self.x_shape and not many:
            several = value.shape[1:] == self.x_shape and rows is None
            hint = ": sample_batched(count, x) takes several observations" if several else ""
            raise InputError(
                f"an observation must have the shape of a simulation, ({_text(self.x_shape)}); got {tuple(value.shape)}{hint}."
            )
        if many:
            check_finite_rows(value)
        if not bool(torch.isfinite(value).all()):
            raise InputError(
                "the observation contains NaN or infinity, which no simulation that was trained on has: give finite numbers."
            )
        flat = value.double().reshape(-1, math.prod(self.x_shape))
        below = self.scale.logarithm & (flat <= 0)
        if bool(below.any()):
            row, column = below.nonzero()[0].tolist()
            warn_caller(
                f"the observation has {float(flat[row, column]):g} at position {column}, where all simulations are positive and "
                "are read as logarithms: no simulation is like it, and the posterior means nothing there."
            )
        unlike = self.scale.unlike(flat)
        if bool(unlike.any()):
            row, column = unlike.nonzero()[0].tolist()
            warn_caller(
                f"the observation has {float(flat[row, column]):g} at position {column}, where all simulations have "
                f"{float(self.scale.mean[column]):g}: no simulation is like it, and the posterior means nothing there."
            )
        scaled = self.scale(flat)
        if not bool(torch.isfinite(scaled).all()):
            raise InputError(
                f"the observation has {_largest(scaled, flat)}, and float32 cannot hold its distance to the simulations: compare the "
                "observation with them."
            )
        far = scaled.abs().masked_fill(below | unlike, 0.0)
        if len(far) and float(far.max()) > _FARTHEST:
            warn_caller(
                f"the observation has {_largest(far, flat)}, {float(far.max()):.2g} standard deviations from the mean of the simulations: "
                "no simulation is like it, and the posterior means nothing there."
            )
        return scaled if many else scaled[0]

    def __repr__(self) -> str:
        counts = [
            f"{count} {noun}{'' if count == 1 else 's'}"
            for count, noun in ((self.features, "parameter"), (len(self.networks), "network"))
        ]
        return f"{type(self).__name__}({counts[0]}, data {self.x_shape}, {counts[1]})"


def check_posterior(value: Any) -> None:
    """A posterior from simulations.

    Raises:
        ConfigError: for anything else.
    """
    if not isinstance(value, SimulationPosterior):
        raise ConfigError(
            "posterior must be a posterior from simulations, such as pf.inference.NPE(prior).fit(theta, x) returns; got "
            f"{type(value).__name__}."
        )


def check_finite_rows(x: Tensor) -> None:
    """Observations without NaN and infinity, ``(n, *shape)``.

    Raises:
        InputError: naming the first row that has one.
    """
    bad = (~torch.isfinite(x.flatten(1)).all(1)).nonzero()[:, 0]
    if len(bad):
        raise InputError(
            f"{len(bad)} of {len(x)} observations contain NaN or infinity, which no simulation that was trained on has; the first is "
            f"row {int(bad[0])}: drop such rows."
        )


def load_posterior(path: Path, *, prior: Any = None, public_key: Path | None = None) -> SimulationPosterior:
    """Read a posterior that ``save`` wrote, to the CPU. Reading runs no code of the file.

    Args:
        path: the file.
        prior: the prior, for a file without one. NLE and NRE use it in place of one in the file, which NPE cannot; where it is wider
            than that of the training, a warning says so.
        public_key: file of the key with which the file must be signed, see :func:`~pushforward.io.sign`; None accepts any.

    Raises:
        SignatureError: if a key is given, and the file is not signed with it or was changed since.
        StorageError: if there is no such file, it is damaged, or it contains no posterior from simulations.
        ConfigError: for a prior that :class:`~pushforward.inference.Prior` refuses.
        InputError: if the file has no prior and none is given, or NPE is given another than that of the file.

    Example:
        >>> import torch, pushforward as pf
        >>> _ = torch.manual_seed(0)
        >>> prior = torch.distributions.Uniform(-torch.ones(1), torch.ones(1))
        >>> theta = prior.sample((200,))
        >>> x = theta + 0.1 * torch.randn(200, 1)
        >>> posterior = pf.inference.NPE(prior).fit(theta, x, max_steps=20, progress="silent")
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp(), "posterior.safetensors")
        >>> posterior.save(path)
        >>> pf.inference.load_posterior(path).sample(3, x=torch.zeros(1)).shape
        torch.Size([3, 1])
    """
    header, tensors = read(path, "simulation-posterior", public_key=public_key)
    given = None if prior is None else Prior(prior)
    try:
        cls = SimulationPosterior._methods[header["method"]]
        x_shape = tuple(int(size) for size in header["x_shape"])
        descriptions = header["networks"]
        if not isinstance(descriptions, list) or not 1 <= len(descriptions) <= 1000 or min(x_shape, default=1) < 1:
            raise StorageError("its header is not valid.")
        networks = []
        for index, description in enumerate(descriptions):
            prefix = f"network{index}."
            networks.append(unpack(description, {k: v for k, v in tensors.items() if k.startswith(prefix)}, prefix))
        width = math.prod(x_shape)
        state = {k.removeprefix("scale."): v for k, v in tensors.items() if k.startswith("scale.")}
        if state["mean"].shape != (width,):
            raise StorageError("the scaling of the data has another width than the data.")
        scale = DataScale(width)
        scale.load_state_dict({"constant": scale.constant} | state)  # earlier files lack it
        stored = header["prior"]
        options = header["options"]
        if not isinstance(options, Mapping):
            raise StorageError("its options are not valid.")
        trained = None if stored is None else Prior.build(stored)
        chosen = trained if given is None else given
        if chosen is None:
            raise InputError(f"{path} has no prior, so it needs one: load_posterior(path, prior=...).")
        width = cls._width_of(networks[0])
        if width is not None and width != chosen.features:
            raise InputError(
                f"the posterior has {width} parameters and the prior {chosen.features}: give the prior of the training."
            )
        another = given is not None and trained is not None and not _same(chosen, trained)
        if another and cls._has_prior:
            raise InputError(
                f"{path} stores the prior of the training, and the posterior of {cls.method.upper()} cannot be given another one: leave "
                "out prior=, or train again with that prior."
            )
        if trained is not None:
            options = {**bounds_for_json(trained.low, trained.high), **options}
        return cls._restore(chosen, networks, scale, x_shape, options)._adapted(another)
    except (KeyError, TypeError, ValueError, RuntimeError, OverflowError) as error:
        if isinstance(error, InputError):
            raise
        raise StorageError(f"{path} contains no valid posterior: {str(error)[:300]}") from error


def _same(one: Prior, other: Prior) -> bool:
    """Whether two priors have the same density at draws of both."""
    draws = torch.cat([prior.sample(100, seed=0) for prior in (one, other)])
    return torch.allclose(one.log_prob(draws), other.log_prob(draws), rtol=1e-4, atol=1e-4)


def _largest(scaled: Tensor, x: Tensor) -> str:
    """The number of the observations whose scaled value is largest, and its position."""
    index = int(scaled.abs().argmax())
    return f"{float(x.flatten()[index]):g} at position {index % x.shape[1]}"


def _text(shape: tuple[int, ...]) -> str:
    return ", ".join(map(str, shape))
