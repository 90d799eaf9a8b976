"""Encodings: what environments and networks must agree on, computed from observations alone."""

from .custom import CheckedEncoding, Encoding, EncodingConfig
from .spec import ArraySpec, EnvironmentSpec
from .words import LetterKnowledge, letter_knowledge, word_features, word_letters

__all__ = [
    "ArraySpec",
    "CheckedEncoding",
    "Encoding",
    "EncodingConfig",
    "EnvironmentSpec",
    "LetterKnowledge",
    "letter_knowledge",
    "word_features",
    "word_letters",
]
