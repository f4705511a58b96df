"""The place of every tensor of an adapter in its base: names, ranks, shapes and orientations."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace

from paramdelta.adapter_config import CONFIG, MERGE, AdapterConfig, Scales
from paramdelta.adapter_keys import Key, parse_key
from paramdelta.dtypes import ARITHMETIC
from paramdelta.errors import InvalidError
from paramdelta.naming import canonical_name
from paramdelta.problem import Problem
from paramdelta.safetensors_header import TensorInfo
from paramdelta.vocabulary import is_vocabulary_tensor
from paramdelta.weight_files import ADAPTER

HEAD = "lm_head.weight"  # under this name a tied head stands here, though no base holds it
_WRONG_BASE = "give the base that the adapter was trained on"
_RESAVE = "save the adapter again with PEFT"
_ONE = "save one adapter, not several"
_UNTIE = (
    "save the base untied (tie_word_embeddings false, with an lm_head.weight of its own), merge "
    "the adapter there and publish the result with --post"
)

Table = Mapping[str, TensorInfo]


@dataclass(frozen=True, slots=True)
class Product:
    """Δ[target] = scale · L · R, target being a tensor of the base, left and right the adapter's.

    transposed False: L = left (rows, rank), R = right (rank, cols), as for a linear layer.
    transposed True: Δ is the transposed product, of left (cols, rank) and right (rank, rows), as
    for an embedding (Δ[v, e] = s Σ A[k, v]·B[e, k]) or a layer that keeps its weight transposed.
    """

    target: str
    left: str
    right: str
    transposed: bool
    rank: int
    scale: float


@dataclass(frozen=True, slots=True)
class Whole:
    """The adapter's tensor *name* takes the place of the base's tensor *target*.

    Shapes are equal, or differ in the rows of a vocabulary tensor (then a note says so).
    """

    target: str
    name: str


@dataclass(frozen=True, slots=True)
class Copy:
    """The adapter's tensor *name* repeats another: of the base or of the adapter itself.

    Nothing is lost without it if that is true: ``adapter_copies.check_copies`` reads both.
    """

    name: str
    other: str
    in_base: bool
    transposed: bool = False


@dataclass(frozen=True, slots=True)
class Fit:
    """malformed: what is wrong with the adapter; misfits: with the pair of adapter and base."""

    products: tuple[Product, ...]
    whole: tuple[Whole, ...]
    copies: tuple[Copy, ...]
    notes: tuple[Problem, ...]
    malformed: tuple[Problem, ...]
    misfits: tuple[Problem, ...]


def fit_adapter(tensors: Table, base: Table, config: AdapterConfig, tied: bool) -> Fit:
    """Every tensor's place, or the reasons why it has none: all of them."""
    work = _Fitting(tensors, _Base(base, tied), config)
    for name in sorted(tensors):
        work.place(name)
    work.multiply()
    products = _orient(work)
    if tied:
        products = _untangle(work, products)
    if not (products or work.whole or work.malformed or work.misfits):
        work.malformed.append(Problem(ADAPTER, "holds no LoRA tensors", remedy=_RESAVE))
    return Fit(
        tuple(sorted(products, key=lambda product: product.target)),
        tuple(sorted(work.whole, key=lambda whole: whole.target)),
        tuple(sorted(work.copies, key=lambda copy: copy.name)),
        tuple(work.notes),
        tuple(work.malformed),
        tuple(work.misfits),
    )


class _Base:
    """The base's tensors by the names that an adapter may use. A tied head is its embedding."""

    def __init__(self, tensors: Table, tied: bool) -> None:
        self._tensors = tensors
        self._canonical: dict[str, list[str]] = defaultdict(list)
        for name in tensors:
            self._canonical[canonical_name(name)].append(name)
        self.embedding: str | None = None
        if tied:
            rows = [name for name in sorted(tensors) if is_vocabulary_tensor(name)]
            self.embedding = next((n for n in rows if canonical_name(n) != HEAD), None)

    def find(self, names: tuple[str, ...]) -> tuple[str, TensorInfo] | str:
        """(target, the tensor whose shape it has) for the first of *names* that there is; or the
        reason why there is none."""
        if self.embedding and any(canonical_name(name) == HEAD for name in names):
            return HEAD, self._tensors[self.embedding]
        for name in names:
            if name in self._tensors:
                return name, self._tensors[name]
        for name in names:
            found = self._canonical.get(canonical_name(name), [])
            if len(found) == 1:
                return found[0], self._tensors[found[0]]
            if found:
                return f"may be {found[0]!r} or {found[1]!r} of the base"
        return f"the base has no tensor {names[-1]!r}"


@dataclass(frozen=True, slots=True)
class _Candidate:
    """turned: the orientations that the shapes allow. leaf: the module's last name."""

    product: Product
    turned: frozenset[bool]
    leaf: str
    embedding: bool


class _Fitting:
    """The work in progress."""

    def __init__(self, tensors: Table, base: _Base, config: AdapterConfig) -> None:
        self._tensors, self.base, self.config = tensors, base, config
        self._halves: dict[tuple[str, bool], dict[str, str]] = defaultdict(dict)
        self._claims: dict[str, str] = {}  # target → the adapter's tensor that changes it
        self.candidates: list[_Candidate] = []
        self.whole: list[Whole] = []
        self.copies: list[Copy] = []
        self.notes: list[Problem] = []
        self.malformed: list[Problem] = []
        self.misfits: list[Problem] = []

    def place(self, name: str) -> None:
        """One tensor: kept for ``multiply`` if it is half of a product."""
        key, info = parse_key(name), self._tensors[name]
        if isinstance(key, Problem):
            self.malformed.append(key)
        elif info.dtype not in ARITHMETIC:
            reason = f"{info.dtype} values; {', '.join(ARITHMETIC)} are multiplied"
            self.malformed.append(Problem(name, reason, remedy="save the adapter in float32"))
        elif key.kind in ("half", "embedding half"):
            sides = self._halves[key.module, key.kind == "embedding half"]
            if key.side in sides:
                reason = f"a second {key.side} of one module, beside {sides[key.side]!r}"
                self.malformed.append(Problem(name, reason, remedy=_ONE))
            sides[key.side] = name
        elif key.kind == "original":
            self.notes.append(
                Problem(name, "the base's own tensor, before it was replaced", "note")
            )
        else:
            self._full(name, key)

    def multiply(self) -> None:
        """Pairs the halves."""
        try:
            scales = Scales(self.config)
            for (module, embedding), sides in sorted(self._halves.items()):
                if len(sides) == 2:
                    self._product(module, embedding, sides["A"], sides["B"], scales)
                    continue
                missing = "B" if "A" in sides else "A"
                for name in sides.values():
                    reason = f"its other half, {missing}, is missing"
                    self.malformed.append(Problem(name, reason, remedy=_RESAVE))
        except InvalidError as error:  # a pattern
            self.malformed.append(Problem(error.subject or CONFIG, error.reason, remedy=MERGE))

    def _full(self, name: str, key: Key) -> None:
        """A tensor that was trained whole, or repeats the base's."""
        found = self.base.find(key.names)
        if isinstance(found, str):
            self.misfits.append(Problem(name, found, remedy=_WRONG_BASE))
            return
        target, base = found
        shape = self._tensors[name].shape
        sizes = f"{list(base.shape)} in the base, {list(shape)} in the adapter"
        if key.kind == "base copy":
            if base.shape == shape:
                self.copies.append(Copy(name, base.name, in_base=True))
            else:
                reason = f"the base was resized under its adapter: {sizes}"
                self.misfits.append(Problem(name, reason, remedy=MERGE))
            return
        if base.shape != shape:
            if base.shape[1:] != shape[1:] or not base.shape or not is_vocabulary_tensor(base.name):
                problem = Problem(name, f"shape mismatch: {sizes}", remedy=_WRONG_BASE)
                self.misfits.append(problem)
                return
            reason = f"the vocabularies differ in size: {sizes}"
            self.notes.append(Problem(target, reason, "note"))
        if self._takes(name, base) and self._claim(name, target):
            self.whole.append(Whole(target, name))

    def _product(self, module: str, embedding: bool, a: str, b: str, scales: Scales) -> None:
        first, second = self._tensors[a].shape, self._tensors[b].shape
        if len(first) != 2 or len(second) != 2 or 0 in first or 0 in second:
            reason = f"factors of {list(first)} and {list(second)}; two matrices are expected"
            self.malformed.append(Problem(a, reason, remedy=MERGE))
            return
        rank, scale = scales.of(module)
        if not first[0] == second[1] == rank:
            reason = f"the rank is {first[0]} in A, {second[1]} in B and {rank} in {CONFIG}"
            self.malformed.append(Problem(a, reason, remedy=_RESAVE))
            return
        found = self.base.find((f"{module}.weight",))
        if isinstance(found, str):
            self.misfits.append(Problem(a, found, remedy=_WRONG_BASE))
            return
        target, base = found
        made = {False: (second[0], first[1]), True: (first[1], second[0])}
        turned = frozenset(t for t, shape in made.items() if shape == base.shape)
        if embedding:
            turned &= {True}
        if not turned:
            shape = made[embedding]
            reason = f"shape mismatch: {list(base.shape)} in the base, a product of {list(shape)}"
            self.misfits.append(Problem(a, reason, remedy=_WRONG_BASE))
        elif self._takes(a, base) and self._claim(a, target):
            product = Product(target, b, a, True in turned, rank, scale)
            leaf = module.rpartition(".")[2]
            self.candidates.append(_Candidate(product, turned, leaf, embedding))

    def _takes(self, name: str, base: TensorInfo) -> bool:
        """Whether the base's tensor can be added to."""
        if base.dtype in ARITHMETIC:
            return True
        reason = f"the base's {base.name!r} has {base.dtype} values, which nothing is added to"
        remedy = "use the base in bfloat16, float16 or float32"
        self.misfits.append(Problem(name, reason, remedy=remedy))
        return False

    def _claim(self, name: str, target: str) -> bool:
        other = self._claims.setdefault(target, name)
        if other == name:
            return True
        reason = f"changes {target!r}, which {other!r} changes already"
        self.malformed.append(Problem(name, reason, remedy=_ONE))
        return False


def _orient(work: _Fitting) -> list[Product]:
    """The products, those of square weights too, whose shapes do not tell how they are kept.

    PEFT looks at the module's type, which is not in any file; its flag is that of the last module
    that it met. So modules of the same last name decide, then the flag if nothing contradicts it.
    """
    seen: dict[str, set[bool]] = defaultdict(set)
    for one in work.candidates:
        if len(one.turned) == 1 and not one.embedding:
            seen[one.leaf] |= one.turned
    flag = {work.config.fan_in_fan_out}
    everywhere = flag.union(*seen.values())
    products = []
    for one in work.candidates:
        told = one.turned
        if len(told) == 2:
            told = frozenset(seen.get(one.leaf) or everywhere)
        if len(told) == 1:
            products.append(replace(one.product, transposed=True in told))
        else:
            reason = "a square weight, and nothing says whether it is kept transposed"
            work.malformed.append(Problem(one.product.right, reason, remedy=MERGE))
    return products


def _untangle(work: _Fitting, products: list[Product]) -> list[Product]:
    """Head and embedding of a base that ties them: one change for both, or none.

    Left is the embedding's change. That the head's is the same becomes a Copy, to be checked.
    """
    embedding = work.base.embedding
    factors = {product.target: product for product in products}
    whole = {one.target: one for one in work.whole}
    head, body = factors.get(HEAD), factors.get(embedding or "")
    if head and body and work.config.tied and _alike(head, body):
        work.copies.append(Copy(head.left, body.right, in_base=False, transposed=True))
        work.copies.append(Copy(head.right, body.left, in_base=False, transposed=True))
    elif head or (body and not work.config.tied):
        _refuse(work, [one.right for one in (head, body) if one], _UNTIE)
    full_head, full_body = whole.get(HEAD), whole.get(embedding or "")
    if full_head and full_body:
        work.copies.append(Copy(full_head.name, full_body.name, in_base=False))
    elif full_head or (full_body and not work.config.tied):
        _refuse(work, [one.name for one in (full_head, full_body) if one], MERGE)
    work.whole = [one for one in work.whole if one.target != HEAD]
    return [product for product in products if product.target != HEAD]


def _alike(head: Product, body: Product) -> bool:
    return (head.rank, head.scale, head.transposed, body.transposed) == (
        body.rank, body.scale, False, True,
    )  # fmt: skip


def _refuse(work: _Fitting, names: list[str], remedy: str) -> None:
    reason = (
        "the base keeps its output head and its embedding as one tensor, and the adapter changes "
        "only one of them, or each in its own way; an embedding's change is never added to a head"
    )
    work.misfits += [Problem(name, reason, remedy=remedy) for name in names]
