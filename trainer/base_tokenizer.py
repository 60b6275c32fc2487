"""The tokenizer of `builtin:small`: a fixed vocabulary, whole words and whole numbers first, single bytes for the rest.

Nothing is learned: a piece of text is one token if it stands in the vocabulary and its UTF-8 bytes otherwise, so every
text round-trips exactly. A word, number or mark takes the one space before it with it, as in GPT-2.
"""

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

PAD, EOS = "<|pad|>", "<|end|>"
LARGEST_NUMBER = 100  # each whole number up to here is one token

_PIECES = r" ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]|\s"
_MARKS = ". , : ; ? ! ( ) [ ] \" ' % $ + - * / = < >"
_WORDS = """
    a about above add after again all also always am among an and another answer any are as ask at away back be because
    before below best better between both but by call came can cause change child city cold come could count data day
    days did different do does done down each early effect eight end enough even every few find first five for four
    from gave get give given go good got great had half has have he help her here high him his home hot hour hours how
    if in into is it its just keep know large last late later least left less let like little long lost low made make
    many may me mean middle might minute money month more most much must my name near need never new next night nine no
    not nothing now number of off old on once one only or other our out over own part pay people percent person place
    plan please point predict price probability put question rate read reason right risk room said same saw second see
    seven she short should show side since six size small so some statistical still stop such sum take ten test text
    than that the their them then there these they thing think this those three time times to today together told too
    total tree true two under until up us use used value very want was water way we week well went were what when where
    whether which while who why will with without word words work would write year years yes yet you your
    Answer Certain Clothing Exercise Hormones Room Smoking Weight Yellow cancer fingers gene
    Adequate Agricultural Air Allergy Anniversary Average Awareness Burning City Coal Complaints Conditions Cream
    Dependency Dispersion Emissions Given Green Ice Index Industrial Internet Level Libraries Mbps Meteorological Number
    Public Quality Renewable Sales Score Speed Stock Subscriptions Transport Urban Vehicle Water AQI conditions diverse
    projected scale th k
"""


def build_tokenizer() -> Tokenizer:
    """The tokenizer, the same object on every machine. Offsets are code points and include the leading space."""
    tokenizer = Tokenizer(models.BPE(vocab=_vocabulary(), merges=[], ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in (PAD, EOS)])
    return tokenizer


def _vocabulary() -> dict[str, int]:
    """Token to id: the two special tokens, the 256 bytes, then every piece without and with its leading space."""
    words = {form for word in _WORDS.split() for form in (word, word.capitalize())}
    pieces = sorted(words) + [str(number) for number in range(LARGEST_NUMBER + 1)] + _MARKS.split()
    spaced = [form for piece in pieces for form in (piece, _SPACE + piece)]
    tokens = [PAD, EOS, *sorted(pre_tokenizers.ByteLevel.alphabet()), *spaced]
    return {token: index for index, token in enumerate(dict.fromkeys(tokens))}


_SPACE = "Ġ"  # how byte-level tokenizers write the byte 0x20
