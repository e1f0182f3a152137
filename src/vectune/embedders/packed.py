"""BERT and its kin without padding: a forward and a backward pass written for CPUs.

The tokens of a piece stand one after another, so that matrix products see next to nothing but real tokens. Attention
runs on groups of sequences of about equal length, small enough that a group's scores stay in the processor's cache; its
backward pass computes the probabilities again instead of keeping them. In training, sizes are rounded up to few
different ones: for each shape it has not seen, PyTorch's matrix library (oneDNN) makes a kernel and keeps it, and a
thousand of them take a gigabyte. On CPUs PyTorch's fused attention is the
slowest part of a training step (in bf16 its backward pass takes 2 to 13 times as long as this one, the more the
shorter the texts); docs/performance.md has the figures.

What a layer computes is that of Devlin et al. (arXiv 1810.04805): attention, add and norm, feed-forward, add and norm.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, linear

if TYPE_CHECKING:
    from numpy.typing import NDArray

ARCHITECTURES = ("BertModel", "RobertaModel", "XLMRobertaModel", "CamembertModel")
ROWS = 64  # of a piece of several hundred tokens and more: a multiple of this
SCORES_IN_CACHE = 800_000  # attention scores that a group of sequences may have, over all heads: 1.6 MB in bf16
SAFE_SUM = 1e30  # of exponentials; a hundred-millionth of what bf16 and fp32 can hold
SLACK = 0.12  # share of a group that may be padding where lengths are not rounded; only attention sees it


@dataclass(frozen=True)
class Group:
    """Consecutive sequences that attention takes together.

    Attributes:
        start, stop: their tokens in the piece.
        count: sequences.
        length: tokens of each, padding included.
        source: row of the piece for each padded place, shape (count · length,); None where all have one length.
        places: padded place of each token, shape (stop - start,); None as above.
        padding: True at padded keys, shape (count, 1, length); None as above.
    """

    start: int
    stop: int
    count: int
    length: int
    source: Tensor | None = None
    places: Tensor | None = None
    padding: Tensor | None = None


def rounded(tokens: int) -> int:
    """The next of few sizes that is no smaller; at most an eighth larger (a quarter below 32 tokens)."""
    step = 4
    while step * 8 < tokens:
        step *= 2
    return -(-tokens // step) * step


def group_sequences(lengths: NDArray[np.int64], heads: int, few_sizes: bool = False) -> list[Group]:
    """Cut sequences, longest first, into groups for attention.

    Args:
        lengths: tokens of each sequence, descending.
        heads: attention heads.
        few_sizes: round lengths up, and take a power of two of sequences: a tenth more work, and few shapes.
    """
    padded = np.array([rounded(int(length)) for length in lengths]) if few_sizes else lengths
    groups: list[Group] = []
    first, start = 0, 0
    while first < len(lengths):
        longest = int(padded[first])
        taken = padded[first : first + max(1, SCORES_IN_CACHE // (heads * longest * longest))]
        fits = np.cumsum(longest - taken) <= (0 if few_sizes else SLACK * longest * np.arange(1, len(taken) + 1))
        count = len(taken) if fits.all() else int(np.argmin(fits))
        if few_sizes:
            count = 1 << (count.bit_length() - 1)
        groups.append(_group(start, lengths[first : first + count], longest))
        first, start = first + count, groups[-1].stop
    return groups


def _group(start: int, lengths: NDArray[np.int64], longest: int) -> Group:
    count = len(lengths)
    stop = start + int(lengths.sum())
    if lengths[-1] == longest:
        return Group(start, stop, count, longest)
    real = np.arange(longest) < lengths[:, None]
    places = np.flatnonzero(real)
    source = np.full(count * longest, start)  # padding reads some real row; nothing of it comes out
    source[places] = np.arange(start, stop)
    return Group(
        start, stop, count, longest,
        torch.from_numpy(source), torch.from_numpy(places), torch.from_numpy(~real).unsqueeze(1),
    )  # fmt: skip


def fill(ids: Tensor, places: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    """Token ids and positions with a few more behind them, up to a rounded number; nothing attends to those.

    Args:
        ids: shape (tokens,).
        places: position of each in its sequence, shape (tokens,).
    """
    missing = rounded(len(ids)) - len(ids) if len(ids) < ROWS else -len(ids) % ROWS
    if not missing:
        return ids, torch.from_numpy(places)
    return (
        torch.cat([ids, ids[-1:].expand(missing)]),
        torch.from_numpy(np.concatenate([places, np.repeat(places[-1:], missing)])),
    )


# Attention


def _heads(rows: Tensor, group: Group, parts: int, heads: int) -> tuple[Tensor, ...]:
    """(tokens, parts · hidden) → for each part (count · heads, length, head width), padded, in one block of memory."""
    block = rows[group.start : group.stop] if group.source is None else rows.index_select(0, group.source)
    split = block.view(group.count, group.length, parts, heads, -1).permute(2, 0, 3, 1, 4)
    return tuple(part.reshape(group.count * heads, group.length, -1).contiguous() for part in split)


def _tokens(parts: tuple[Tensor, ...], group: Group, heads: int, found: Tensor) -> None:
    """The way back, without padding, into the group's rows of ``found``, (tokens, parts · hidden)."""
    rows = found[group.start : group.stop]
    whole = rows if group.places is None else found.new_empty(group.count * group.length, found.shape[1])
    table = whole.view(group.count, group.length, len(parts), heads, -1)
    for place, part in enumerate(parts):
        table[:, :, place] = part.view(group.count, heads, group.length, -1).transpose(1, 2)
    if group.places is not None:
        torch.index_select(whole, 0, group.places, out=rows)


def attention_weights(query: Tensor, key: Tensor, padding: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """The exponentials of query · keyᵀ, and what they are to be divided by, (rows, length, 1); None for nothing.

    Who divides the mixed values instead of the weights has fewer numbers to divide. The maximum is not subtracted:
    softmax takes twice as long as this, three times where the length is no multiple of 32. The same in exact
    arithmetic, and about as exact in bf16, whose range is that of fp32. Softmax is taken where a sum comes near the
    ends of that range: the product with the values must not pass them either.

    Args:
        query, key: (count · heads, length, head width).
        padding: True at keys to leave out, shape (count, 1, length); None for none.
    """
    weights = _scores(query, key, padding).exp_()
    sums = weights.sum(-1, keepdim=True)
    if bool(((sums > 1 / SAFE_SUM) & (sums < SAFE_SUM)).all()):
        return weights, sums
    return torch.softmax(_scores(query, key, padding), -1), None


def _scores(query: Tensor, key: Tensor, padding: Tensor | None) -> Tensor:
    if padding is None:
        return torch.bmm(query, key.transpose(1, 2))
    # added by the product itself: filling in what is masked takes longer than the product
    masked = query.new_zeros(padding.shape).masked_fill_(padding, float("-inf"))
    return torch.baddbmm(masked.repeat_interleave(len(query) // len(padding), 0), query, key.transpose(1, 2))


def _probabilities(query: Tensor, key: Tensor, padding: Tensor | None) -> Tensor:
    weights, sums = attention_weights(query, key, padding)
    return weights if sums is None else weights.div_(sums)


def mix(query: Tensor, key: Tensor, value: Tensor, padding: Tensor | None) -> Tensor:
    """softmax(query · keyᵀ) · value; see ``attention_weights``."""
    weights, sums = attention_weights(query, key, padding)
    mixed = torch.bmm(weights, value)
    return mixed if sums is None else mixed.div_(sums)


def attend(qkv: Tensor, groups: list[Group], heads: int, scaled: bool = False) -> Tensor:
    """Attention of every token to those of its own sequence; (tokens, 3 · hidden) → (tokens, hidden).

    ``scaled``: the queries come multiplied by the scale.
    """
    found = qkv.new_empty(len(qkv), qkv.shape[1] // 3)
    scale = (qkv.shape[1] // 3 // heads) ** -0.5
    for group in groups:
        query, key, value = _heads(qkv, group, 3, heads)
        mixed = mix(query if scaled else query * scale, key, value, group.padding)
        _tokens((mixed,), group, heads, found)
    found[groups[-1].stop :] = 0
    return found


def _attend_backward(qkv: Tensor, gradient: Tensor, groups: list[Group], heads: int) -> Tensor:
    """Gradient of ``attend`` for its input."""
    found = torch.empty_like(qkv)
    scale = (qkv.shape[1] // 3 // heads) ** -0.5
    for group in groups:
        query, key, value = _heads(qkv, group, 3, heads)
        query = query * scale  # not in place: of a single token the heads are a view
        probabilities = _probabilities(query, key, group.padding)
        (arriving,) = _heads(_padded(gradient, group), _dense(group), 1, heads)
        to_value = torch.bmm(probabilities.transpose(1, 2), arriving)
        to_probabilities = torch.bmm(arriving, value.transpose(1, 2))
        to_scores = torch._softmax_backward_data(to_probabilities, probabilities, -1, probabilities.dtype)
        to_query = torch.bmm(to_scores, key).mul_(scale)
        to_key = torch.bmm(to_scores.transpose(1, 2), query)
        _tokens((to_query, to_key, to_value), group, heads, found)
    found[groups[-1].stop :] = 0
    return found


def _padded(rows: Tensor, group: Group) -> Tensor:
    """The group's rows with zeros where padding is: no gradient may come from there."""
    if group.places is None:
        return rows[group.start : group.stop]
    table = rows.new_zeros(group.count * group.length, rows.shape[1])
    table.index_copy_(0, group.places, rows[group.start : group.stop])
    return table


def _dense(group: Group) -> Group:
    return Group(0, group.count * group.length, group.count, group.length)


# A layer


@dataclass(frozen=True)
class Shape:
    """What a layer needs besides its weights."""

    groups: list[Group]
    heads: int
    epsilon: float
    dtype: torch.dtype


class Layer(torch.autograd.Function):
    """One layer over the tokens of a piece; keeps six arrays a token and computes the rest again when going back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, shape: Shape, *weights: Tensor) -> Tensor:
        low = [w.to(shape.dtype) if w.ndim > 1 or i in _BIASES else w for i, w in enumerate(weights)]
        w_qkv, b_qkv, w_out, b_out, g1, c1, w_up, b_up, w_down, b_down, g2, c2 = low
        width = (x.shape[1],)
        qkv = linear(x, w_qkv, b_qkv)
        mixed = attend(qkv, shape.groups, shape.heads)
        sum1 = linear(mixed, w_out, b_out).add_(x)
        middle, mean1, rstd1 = torch.native_layer_norm(sum1, width, g1, c1, shape.epsilon)
        up = linear(middle, w_up, b_up)
        sum2 = linear(gelu(up), w_down, b_down).add_(middle)
        y, mean2, rstd2 = torch.native_layer_norm(sum2, width, g2, c2, shape.epsilon)
        ctx.shape = shape
        ctx.save_for_backward(x, qkv, mixed, sum1, mean1, rstd1, up, sum2, mean2, rstd2, *weights)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        x, qkv, mixed, sum1, mean1, rstd1, up, sum2, mean2, rstd2, *weights = ctx.saved_tensors
        shape: Shape = ctx.shape
        w_qkv, _, w_out, _, g1, c1, w_up, _, w_down, _, g2, c2 = weights
        low = [w.to(shape.dtype) for w in (w_qkv, w_out, w_up, w_down)]
        width, all_three = (x.shape[1],), [True, True, True]
        norm_backward = torch.ops.aten.native_layer_norm_backward

        to_sum2, to_g2, to_c2 = norm_backward(gradients[0].contiguous(), sum2, width, mean2, rstd2, g2, c2, all_three)
        to_w_down, to_b_down = _weight_gradients(to_sum2, gelu(up))
        to_up = torch.ops.aten.gelu_backward(to_sum2 @ low[3], up)
        middle = torch.native_layer_norm(sum1, width, g1, c1, shape.epsilon)[0]
        to_w_up, to_b_up = _weight_gradients(to_up, middle)
        to_middle = torch.addmm(to_sum2, to_up, low[2])
        to_sum1, to_g1, to_c1 = norm_backward(to_middle, sum1, width, mean1, rstd1, g1, c1, all_three)
        to_w_out, to_b_out = _weight_gradients(to_sum1, mixed)
        to_qkv = _attend_backward(qkv, to_sum1 @ low[1], shape.groups, shape.heads)
        to_w_qkv, to_b_qkv = _weight_gradients(to_qkv, x)
        to_x = torch.addmm(to_sum1, to_qkv, low[0])
        return (
            to_x, None, to_w_qkv, to_b_qkv, to_w_out, to_b_out, to_g1, to_c1, to_w_up, to_b_up, to_w_down, to_b_down,
            to_g2, to_c2,
        )  # fmt: skip


_BIASES = (1, 3, 7, 9)  # of the matrices; norms stay in float32


def _weight_gradients(arriving: Tensor, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of a linear map's weight and bias, in float32.

    In bf16 the narrower side is laid out anew first: of a transposed view oneDNN's product takes twice as long.
    """
    bias = arriving.sum(0).float()  # bf16 is added up in float32 all the same, without a copy of everything
    if arriving.dtype != torch.bfloat16:
        return (arriving.t() @ inputs).float(), bias
    if arriving.shape[1] <= inputs.shape[1]:
        return (arriving.t().contiguous() @ inputs).float(), bias
    return (inputs.t().contiguous() @ arriving).float().t(), bias


class Rows(torch.autograd.Function):
    """Rows of a table; the gradient is added to the table's own instead of filling an array of the table's size."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, rows: Tensor) -> Tensor:
        ctx.table = table
        ctx.save_for_backward(rows)
        return table.detach().index_select(0, rows)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, None]:
        table, (rows,) = ctx.table, ctx.saved_tensors
        if table.grad is None:
            table.grad = torch.zeros_like(table)
        table.grad.index_add_(0, rows, gradients[0].to(table.dtype))
        return None, None


# The model


class PackedBert:
    """Runs a Hugging Face BERT or RoBERTa on pieces without padding; its parameters stay the model's own.

    Args:
        model: see ``can_pack``.
        dtype: the type of matrix products and activations.
    """

    def __init__(self, model: nn.Module, dtype: torch.dtype) -> None:
        self.model, self.dtype = model, dtype
        config: Any = model.config
        self.heads, self.epsilon = int(config.num_attention_heads), float(config.layer_norm_eps)
        roberta = config.model_type != "bert"
        self.first_position = int(config.pad_token_id) + 1 if roberta else 0

    def __call__(self, ids: Tensor, types: Tensor | None, lengths: NDArray[np.int64]) -> Tensor:
        """Hidden states of the last layer.

        Args:
            ids: token ids of all sequences one after another, longest sequence first; shape (tokens,).
            types: token types, same shape; None for all zero.
            lengths: tokens of each sequence, descending.

        Returns:
            Shape (tokens, hidden), in ``dtype``.
        """
        x = self._embed(ids, types, lengths).to(self.dtype)
        shape = Shape(group_sequences(lengths, self.heads, few_sizes=True), self.heads, self.epsilon, self.dtype)
        model: Any = self.model
        for layer in model.encoder.layer:
            x = Layer.apply(x, shape, *layer_weights(layer))  # type: ignore[no-untyped-call]
        return x[: len(ids)]

    def _embed(self, ids: Tensor, types: Tensor | None, lengths: NDArray[np.int64]) -> Tensor:
        part: Any = self.model.embeddings
        own = np.concatenate([np.arange(length) for length in lengths]) + self.first_position
        filled, places = fill(ids, own)
        kinds = torch.zeros_like(filled)
        if types is not None:
            kinds[: len(types)] = types
        words = _rows_of(part.word_embeddings, filled)
        positions = part.position_embeddings(places)
        kinds = part.token_type_embeddings(kinds)
        normed: Tensor = part.LayerNorm(words + kinds + positions)
        return normed


def _rows_of(embedding: nn.Embedding, ids: Tensor) -> Tensor:
    if type(embedding) is nn.Embedding and embedding.weight.requires_grad and torch.is_grad_enabled():
        # autograd asks for an input that has a gradient; the zero is never seen
        return Rows.apply(embedding.weight, ids)  # type: ignore[no-untyped-call, no-any-return]
    found: Tensor = embedding(ids)
    return found


def layer_weights(layer: Any) -> tuple[Tensor, ...]:
    """A layer's weights in the order of ``Layer``; query, key and value as one matrix."""
    attention = layer.attention
    three = [attention.self.query, attention.self.key, attention.self.value]
    return (
        torch.cat([_matrix(part) for part in three]), torch.cat([part.bias for part in three]),
        _matrix(attention.output.dense), attention.output.dense.bias,
        attention.output.LayerNorm.weight, attention.output.LayerNorm.bias,
        _matrix(layer.intermediate.dense), layer.intermediate.dense.bias,
        _matrix(layer.output.dense), layer.output.dense.bias,
        layer.output.LayerNorm.weight, layer.output.LayerNorm.bias,
    )  # fmt: skip


def _matrix(part: Any) -> Tensor:
    """A linear map's weight, with its low-rank addition where peft has put one."""
    weight: Tensor = part.weight
    for name in getattr(part, "active_adapters", ()):
        if name in getattr(part, "lora_A", {}):
            weight = weight + part.scaling[name] * (part.lora_B[name].weight @ part.lora_A[name].weight)
    return weight


def can_pack(model: Any) -> bool:
    """Whether ``PackedBert`` computes what this model computes (with its dropout at 0)."""
    config = getattr(model, "config", None)
    if type(model).__name__ not in ARCHITECTURES or config is None:
        return False
    return (
        getattr(config, "hidden_act", "") == "gelu"
        and getattr(config, "position_embedding_type", "absolute") in ("absolute", None)
        and not getattr(config, "is_decoder", False)
        and not getattr(config, "add_cross_attention", False)
    )
