"""A network of derived layers: parameters, and one emitted module that computes with them.

A `Network` is a `Sequential` turned into one module by `codegen`, the arrays of its parameters, and a border that
looks at every argument before the module sees it.  Parameters are named as in torch's ``state_dict`` and updated in
place.  The last layer gives logits, the loss is the softmax cross-entropy, averaged over the batch.

A saved network is one ``.npz`` file: the arrays under their names, and a line of JSON that says which layers they
belong to.  It holds no code and no pickle, and it is written whole or not at all.
"""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from codegen.files import write_atomically
from derive import layers
from derive.layers import Activation, Layer, Sequential
from derive.legality import LayerError
from runtime.arrays import Array, ArrayError, float_dtype
from runtime.border import Border, Gpu, Host
from runtime.cache import PathLike
from runtime.compile import load_module, load_text
from runtime.crew import checked_parts, crew_for
from runtime.device import choose
from runtime.sizes import numbers, numeric_output_shape

if TYPE_CHECKING:
    from runtime.parallel import Steps

_CHUNK = 256  # images at a time where a result needs no whole batch: bounds memory, changes no result's meaning
_WORKSPACES = 4  # batch sizes whose buffers are kept: full, last, chunk, last chunk
_HEADER = "certiconv"  # the entry of the file that describes the layers; no parameter is called so
_FORMAT = 1


class NetworkError(ValueError):
    """A file that does not hold a network, or a network that cannot be used so; the text says what was expected."""


class Network:
    """A `Sequential` with parameters, ready to run and to train.  One thread at a time may use it.

    Args:
        sequential: layers whose last output is (batch, classes).
        seed: of the initial parameters, see `glorot`.
        dtype: float32 or float64, of parameters and images alike.
        backend: "auto", "numpy" or "cupy".
        input_shape: (batch, channels, height, width); the batch size stays free.
        threads: how many a step may use, at least 1; more than one split a batch that is large enough to gain by it
            (`runtime.parallel`), and a step may then differ from that of one thread by rounding.
        processes: the same with processes in place of threads (`runtime.process_crew`), which gain a little more
            where batches are small; they are started by the first step that is split.
        cache_dir: the folder of emitted text; None: the user's cache folder.
        source: the text to run, where it was emitted before for these layers, this shape and this dtype.

    Raises:
        LayerError, BackendError, ArrayError: as `runtime.compile.compile`; or the output is not (batch, classes).
        ValueError: ``threads`` or ``processes`` is less than 1, or both are more.

    Attributes:
        sequential: the layers.
        params: the parameters by name, C-contiguous; a step writes into these very arrays.
        classes: how many logits there are.
        threads, processes: how many a step may use.
        backend: "numpy" or "cupy"; with "cupy" images, labels, parameters and results are arrays on the GPU.
        border: takes arrays to where the network computes and back (`runtime.border`).
        module: the emitted module.
    """

    def __init__(  # noqa: PLR0913 - each an option that a user has
        self,
        sequential: Sequential,
        *,
        seed: int = 0,
        dtype: npt.DTypeLike = "float32",
        backend: str = "auto",
        input_shape: Sequence[int] = (1, 1, 28, 28),
        threads: int = 1,
        processes: int = 1,
        cache_dir: PathLike | None = None,
        source: str | None = None,
    ) -> None:
        output = numeric_output_shape(sequential, input_shape)
        if len(output) != 2:
            raise LayerError(f"{sequential}: its output has shape {output}; a network ends in logits, (batch, classes)")
        self.sequential = sequential
        self.dtype = float_dtype(dtype)
        self.input_shape = tuple(input_shape)
        self.classes = output[1]
        self.backend = choose(backend)
        self.threads, self.processes = threads, processes
        parts = checked_parts(threads, processes, self.backend)
        self.module: ModuleType = (
            load_module(
                sequential, backend=self.backend, input_shape=self.input_shape, dtype=self.dtype, cache_dir=cache_dir
            )
            if source is None
            else load_text(source)
        )
        self.border: Border = (
            Host() if self.backend == "numpy" else Gpu(self.module.cupy, getattr(self.module, "ALIGNED", {}))
        )
        self._shapes = {name: numbers(sequential, shape) for name, shape in sequential.parameter_shapes().items()}
        initial = glorot(sequential, seed=seed, dtype=self.dtype)
        self.params: dict[str, Array] = {name: self.border.place(array) for name, array in initial.items()}
        self._work: dict[int, Any] = {}
        self._steps = self._parallel() if parts > 1 else None

    def __repr__(self) -> str:
        count = sum(array.size for array in self.params.values())
        return f"Network({len(self.sequential.layers)} layers, {count} parameters, {self.dtype})"

    # --- Running --------------------------------------------------------------------------------------------

    def forward(self, x: object) -> Array:
        """Logits, shape (batch, classes).

        Args:
            x: images, shape (batch, channels, height, width) and the dtype of the network; any strides.

        Raises:
            ArrayError: another dtype, shape or device.
        """
        images = self._images(x)
        logits: Array = self.module.forward(images, self._parameters(), self._workspace(len(images)))
        return logits

    def loss(self, x: object, y: object) -> float:
        """Softmax cross-entropy averaged over the batch; 0.0 for an empty batch.

        Args:
            x: as for `forward`.
            y: labels, integers of shape (batch,) in 0..classes-1.

        Raises:
            ArrayError: another dtype, shape or device, or a label out of range.
        """
        images, labels = self._batch(x, y)
        return float(self.module.loss(images, labels, self._parameters(), self._workspace(len(images))))

    def gradients(self, x: object, y: object) -> dict[str, Array]:
        """The gradient of `loss` in every parameter, under the names and in the shapes of ``params``.

        Args and errors as `loss`.
        """
        images, labels = self._batch(x, y)
        found: dict[str, Array] = self.module.gradients(
            images, labels, self._parameters(), self._workspace(len(images))
        )
        return found

    def step(self, x: object, y: object, *, lr: float = 0.5) -> float:
        """One step of gradient descent, in place: every parameter less ``lr`` times its gradient (d2l 12.4).

        On a GPU the labels are checked on the host and the loss is read there, so a CUDA graph cannot capture this
        call; it can capture ``sgd_step`` of the emitted module, which says how.

        Args:
            x, y: as for `loss`.
            lr: the learning rate, finite and at least 0.

        Returns:
            The loss before the step.

        Raises:
            ArrayError: as `loss`, or a parameter can no longer be updated in place.
            ValueError: the learning rate is not legal.
            WorkerError: a process of several ended (`runtime.process_crew`); the parameters are as they were.
        """
        if not (math.isfinite(lr) and lr >= 0):
            raise ValueError(f"lr={lr!r} is not a finite number >= 0; nearest legal: {0.0 if lr < 0 else 0.5}")
        images, labels = self._batch(x, y)
        if self._steps is not None:
            return self._steps.step(images, labels, self._parameters(), lr)
        return float(self.module.sgd_step(images, labels, self._parameters(), lr, self._workspace(len(images))))

    def predict(self, x: object) -> npt.NDArray[np.int64]:
        """The class of each image: that of its largest logit, the first of several.

        Args and errors as `forward`.
        """
        images = self._images(x)
        found = [self.border.fetch(self.forward(chunk)).argmax(axis=1) for chunk in _chunks(images)]
        return np.concatenate([np.zeros(0, np.int64), *found])

    def accuracy(self, x: object, y: object) -> float:
        """The share of images whose label is predicted, in 0..1.

        Args and errors as `loss`; there is at least one image.
        """
        images, labels = self._batch(x, y)
        if not len(images):
            raise ArrayError("x has no image, and a share of none has no value; nearest legal: a batch of 1")
        return float(np.mean(self.predict(images) == self.border.fetch(labels)))

    def assign(self, params: Mapping[str, object]) -> None:
        """Overwrite every parameter with a copy of the array of its name.

        Raises:
            ArrayError: a name is missing or unknown, or an array does not fit; then nothing is changed.
        """
        known = {name: (array, array.shape) for name, array in self.params.items()}
        if set(params) != set(known):
            self.border.parameters(params, self._shapes, dtype=self.dtype.name)  # raises: it names what is missing
        placed = {name: self.border.place(a) if isinstance(a, np.ndarray) else a for name, a in params.items()}
        new = {
            name: self.border.images(f"params[{name!r}]", placed[name], shape=shape, dtype=self.dtype.name)
            for name, (_, shape) in known.items()
        }
        for name, array in new.items():
            self.params[name][...] = array

    # --- Keeping --------------------------------------------------------------------------------------------

    def save(self, path: PathLike) -> None:
        """Write layers and parameters to a ``.npz`` file, whole or not at all.

        Raises:
            OSError: the folder does not exist, or the file cannot be written.
        """
        header = {
            "format": _FORMAT,
            "layers": [_described(layer) for layer in self.sequential.layers],
            "input_shape": self.input_shape,
            "dtype": self.dtype.name,
        }
        stream = io.BytesIO()
        text = np.frombuffer(json.dumps(header).encode(), np.uint8)
        arrays = {name: self.border.fetch(array) for name, array in self._parameters().items()}
        np.savez(stream, allow_pickle=False, **{_HEADER: text}, **arrays)
        write_atomically(path, stream.getvalue())

    @classmethod
    def load(
        cls, path: PathLike, *, backend: str = "auto", threads: int = 1, processes: int = 1,
        cache_dir: PathLike | None = None,
    ) -> Network:  # fmt: skip
        """The network that `save` wrote.

        Raises:
            ValueError: ``threads`` or ``processes`` is less than 1, or both are more.
            NetworkError: the file does not exist, is damaged, or does not hold a network of this version.
        """
        arrays = _read(Path(path))
        try:
            header = json.loads(bytes(arrays.pop(_HEADER, np.zeros(0, np.uint8))))
            if header["format"] != _FORMAT:
                raise NetworkError(f"{path}: expected format {_FORMAT}, found {header['format']}")
            sequential = Sequential(*(_layer(d) for d in header["layers"]))
            dtype, shape = header["dtype"], header["input_shape"]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, NetworkError):
                raise
            raise NetworkError(
                f"{path}: expected a file that Network.save wrote; its description is not one"
            ) from error
        network = cls(
            sequential, dtype=dtype, backend=backend, input_shape=shape, threads=threads, processes=processes,
            cache_dir=cache_dir,
        )  # fmt: skip
        try:
            network.assign(arrays)
        except ArrayError as error:
            raise NetworkError(f"{path}: {error}") from error
        return network

    # --- The border -----------------------------------------------------------------------------------------

    def _images(self, x: object) -> Array:
        return self.border.images("x", x, shape=(None, *self.input_shape[1:]), dtype=self.dtype.name)

    def _batch(self, x: object, y: object) -> tuple[Array, Array]:
        images = self._images(x)
        return images, self.border.labels("y", y, count=len(images), classes=self.classes)

    def _parameters(self) -> dict[str, Array]:
        # ``params`` is open to its user, so it is looked at on every call: 30 us against a step of a millisecond.
        return self.border.parameters(self.params, self._shapes, dtype=self.dtype.name)

    def _parallel(self) -> Steps:
        from runtime.parallel import Steps, step_seconds  # here, since most programs need one thread

        by = crew_for(self.module, self.dtype, self.threads, self.processes)
        return Steps(by, image=step_seconds(self.sequential, self.input_shape))

    def _workspace(self, batch: int) -> Any:
        if batch not in self._work:
            while len(self._work) >= _WORKSPACES:
                del self._work[next(iter(self._work))]  # the one made first
            self._work[batch] = self.module.Workspace(batch, self.dtype)
        return self._work[batch]


# --- Initial parameters -------------------------------------------------------------------------------------


def glorot(sequential: Sequential, *, seed: int = 0, dtype: npt.DTypeLike = "float32") -> dict[str, Array]:
    """Glorot's initial parameters (Glorot and Bengio 2010, equation 16; d2l 5.4.2.2), biases zero.

    A weight is uniform in -b..b with b = gain sqrt(6 / (fan_in + fan_out)), where a fan is the channels or features on
    that side times the cells of the kernel.  The gain is 4 where a sigmoid follows, whose slope at 0 is 1/4, else 1.
    Numbers are drawn in float64, from PCG64 with the seed, layer by layer, and then rounded to the dtype.

    Raises:
        ValueError: the seed is negative.

    >>> params = glorot(layers.lenet(), seed=0)
    >>> list(params)[:2], params["0.weight"].shape, bool(abs(params["0.weight"]).max() <= 4 * (6 / 175) ** 0.5)
    (['0.weight', '0.bias'], (6, 1, 5, 5), True)
    """
    if seed < 0:
        raise ValueError(f"seed={seed} is negative; nearest legal: 0")
    generator = np.random.Generator(np.random.PCG64(seed))
    after = (*sequential.layers[1:], None)
    params: dict[str, Array] = {}
    for name, dims in sequential.parameter_shapes().items():
        shape = numbers(sequential, dims)
        if name.endswith(".bias"):
            params[name] = np.zeros(shape, dtype)
        else:
            fans = (shape[0] + shape[1]) * math.prod(shape[2:])
            gain = 4.0 if isinstance(after[int(name.partition(".")[0])], layers.Sigmoid) else 1.0
            bound = gain * math.sqrt(6 / fans)
            params[name] = generator.uniform(-bound, bound, shape).astype(dtype)
    return params


def _chunks(images: Array) -> Iterator[Array]:
    return (images[at : at + _CHUNK] for at in range(0, len(images), _CHUNK))


# --- The file -----------------------------------------------------------------------------------------------


def _described(layer: Layer) -> dict[str, Any]:
    return {"kind": type(layer).__name__, **{f.name: getattr(layer, f.name) for f in fields(layer)}}


def _layer(description: Mapping[str, Any]) -> Layer:
    """The layer of a description: one of the classes of derive.layers, with arguments of its own."""
    kind = getattr(layers, description["kind"])
    if not (isinstance(kind, type) and issubclass(kind, Layer)) or kind in (Layer, Activation, Sequential):
        raise TypeError(description["kind"])
    arguments = {k: tuple(v) if isinstance(v, list) else v for k, v in description.items() if k != "kind"}
    return kind(**arguments)


def _read(path: Path) -> dict[str, Array]:
    try:
        with path.open("rb") as stream:
            held = np.load(stream, allow_pickle=False)
            if not isinstance(held, np.lib.npyio.NpzFile):
                raise NetworkError(f"{path}: expected a .npz file that Network.save wrote, found a single array")
            return {name: held[name] for name in held.files}
    except FileNotFoundError:
        raise NetworkError(f"{path}: expected a file that Network.save wrote, found nothing there") from None
    except OSError as error:
        raise NetworkError(f"{path}: expected a readable file: {error.strerror or error}") from error
    except (ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        if isinstance(error, NetworkError):
            raise
        raise NetworkError(
            f"{path}: expected a .npz file that Network.save wrote, found one damaged: {error}"
        ) from error
