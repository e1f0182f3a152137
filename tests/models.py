"""Tiny random sentence-transformers models, one of each make: made in well under a second, without any network.

Their weights are random but their vocabulary knows whole words, so texts that share words have vectors that are alike:
enough for training to have something to learn.
"""

from __future__ import annotations

import string
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = """
a about after all also an and any are as at be because been before but by can could day do does each find for from get
has have how if in into is it its just know last like made make many may more most much must new no not now of on only
or other our out over people said see should so some such take than that the their them then there these they this time
to two up use was way we what when where which who why will with work would year you your
apple battery beer bread bridge car cat chapter city coffee cold contract court device dog door driver engine fire fish
garden glass green heart house key lamp law letter light machine market milk money moon mountain music night number oil
page paper party phone plane price product remote report river road rock salt school screen sea ship snow sound star
stone sugar summer sun table tea train tree virus wall water wheel wind window winter wood world
query document search title reset heat brew open close start stop press hold grow drive read write sell buy rain
""".split()


def word_tokenizer(decoder: bool = False) -> PreTrainedTokenizerFast:
    """Whole words where known, else characters; [CLS] … [SEP] around a text, or [SEP] behind it for a decoder."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = sorted(set(string.ascii_lowercase + string.digits + string.punctuation))
    pieces = [*SPECIAL, *letters, *(f"##{letter}" for letter in letters)]
    pieces += [word for word in dict.fromkeys(WORDS) if word not in pieces]
    tokenizer = Tokenizer(models.WordPiece(dict(zip(pieces, range(len(pieces)), strict=True)), unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    template = "$A [SEP]" if decoder else "[CLS] $A [SEP]"
    tokenizer.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[("[CLS]", SPECIAL.index("[CLS]")), ("[SEP]", SPECIAL.index("[SEP]"))]
    )
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        eos_token="[SEP]",
        mask_token="[MASK]",
        padding_side="left" if decoder else "right",
        model_max_length=64,
    )


def save_bert(folder: Path, *, seed: int = 0, hidden: int = 32, layers: int = 2, positions: int = 128) -> Path:
    """A BERT with mean pooling that reads 64 tokens and has a prompt for each role."""
    import torch
    from transformers import BertConfig, BertModel

    tokenizer = word_tokenizer()
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=2 * hidden,
        max_position_embeddings=positions,
        initializer_range=0.2,
    )
    model = BertModel(config)
    with torch.no_grad():  # words must outweigh positions and [CLS], or all texts look alike
        model.embeddings.word_embeddings.weight.mul_(3)
        model.embeddings.position_embeddings.weight.mul_(0.3)
    prompts = {"query": "query: ", "document": "document: "}
    return _save(folder, model, tokenizer, pooling="mean", prompts=prompts)


def save_decoder(folder: Path, *, seed: int = 0, hidden: int = 32) -> Path:
    """A decoder with last-token pooling, padding on the left and an instruction for queries only."""
    import torch
    from transformers import Qwen3Config, Qwen3Model

    tokenizer = word_tokenizer(decoder=True)
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=hidden // 4,
        intermediate_size=2 * hidden,
        max_position_embeddings=128,
        initializer_range=0.2,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    prompts = {"query": "search document that: ", "document": ""}
    return _save(folder, Qwen3Model(config), tokenizer, pooling="lasttoken", prompts=prompts)


def save_cross_encoder(folder: Path, *, seed: int = 0) -> Path:
    """A BERT that gives a pair of texts one score."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    tokenizer = word_tokenizer()
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
    )  # fmt: skip
    config.num_labels = 1
    BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_static(folder: Path, *, seed: int = 0, hidden: int = 32) -> Path:
    """A StaticEmbedding: a bag of word vectors, no transformer."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    torch.manual_seed(seed)
    tokenizer: Tokenizer = word_tokenizer().backend_tokenizer
    tokenizer.no_padding()
    tokenizer.no_truncation()
    model = SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_dim=hidden)], device="cpu")
    model.save_pretrained(str(folder), create_model_card=False)
    return folder


def _save(folder: Path, transformer: Any, tokenizer: Any, *, pooling: str, prompts: dict[str, str]) -> Path:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling

    bare = folder.with_name(f"{folder.name}-bare")  # Transformer loads from a folder only
    transformer.save_pretrained(bare)
    tokenizer.save_pretrained(bare)
    first = Transformer(str(bare), max_seq_length=64)
    modules = [first, Pooling(first.get_embedding_dimension(), pooling_mode=pooling), Normalize()]
    model = SentenceTransformer(modules=modules, prompts=prompts, device="cpu")
    model.save_pretrained(str(folder), create_model_card=False)
    return folder
