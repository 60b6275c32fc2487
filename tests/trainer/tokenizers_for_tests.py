"""Fast tokenizers of several kinds, trained on a few words: what a span's tokens are must not depend on the kind."""

from functools import cache

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

_CORPUS = [
    "The harbour has 20 gulls, 15 terns and 30 herons. How many birds are there? 65 birds in all.",
    "High tide at 7:45; low tide at 13:58. Crème brûlée costs 58 kr, tea costs 5 kr. Answer: cheap",
] * 20
_SPECIAL = ["<pad>", "<s>", "</s>", "<unk>"]
_CHAT = "{% for m in messages %}<s>{{ m.role }}\n{{ m.content | trim }}</s>\n{% endfor %}"

KINDS = (
    "byte_level",
    "byte_level_prefix_space",
    "byte_level_trimmed",
    "whole_words",
    "metaspace_with_bos",
    "characters",
)


@cache
def tokenizer_of(kind: str) -> PreTrainedTokenizerFast:
    tokenizer = {
        "byte_level": lambda: _byte_level(prefix_space=False),
        "byte_level_prefix_space": lambda: _byte_level(prefix_space=True),
        "byte_level_trimmed": lambda: _byte_level(prefix_space=True, trim=True),
        "whole_words": _whole_words,
        "metaspace_with_bos": _metaspace,
        "characters": _characters,
    }[kind]()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        bos_token="<s>" if kind == "metaspace_with_bos" else None,
        chat_template=_CHAT,
    )


def _byte_level(*, prefix_space: bool, trim: bool = False) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    tokenizer.decoder = decoders.ByteLevel()
    if trim:
        tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    return _train_bpe(tokenizer, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())


def _metaspace() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer = _train_bpe(tokenizer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer


def _whole_words() -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()])
    tokenizer.train_from_iterator(_CORPUS, trainers.WordLevelTrainer(special_tokens=_SPECIAL, show_progress=False))
    return tokenizer


def _characters() -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.train_from_iterator(_CORPUS, trainers.WordLevelTrainer(special_tokens=_SPECIAL, show_progress=False))
    return tokenizer


def _train_bpe(tokenizer: Tokenizer, **options) -> Tokenizer:
    trainer = trainers.BpeTrainer(vocab_size=420, special_tokens=_SPECIAL, show_progress=False, **options)
    tokenizer.train_from_iterator(_CORPUS, trainer)
    return tokenizer
