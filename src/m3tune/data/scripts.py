"""Writing systems by Unicode, and Chinese by the characters that only one of its two forms uses.

Languages of one script are not told apart: on short texts a guess would be wrong too often to warn by.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from functools import cache

# Frequent characters that differ, in the same order. Those that Japanese shares with one form do no harm: kana decides.
_SIMPLIFIED = (
    "们这来时会为说国对过还发经现样应见间问长动学开关门两实头东车马语"
    "书无种总万与义业专从产众优传伤体条将属广张归当录战报护择"
)
_TRADITIONAL = (
    "們這來時會為說國對過還發經現樣應見間問長動學開關門兩實頭東車馬語"
    "書無種總萬與義業專從產眾優傳傷體條將屬廣張歸當錄戰報護擇"
)
_ONLY_SIMPLIFIED = re.compile(f"[{''.join(set(_SIMPLIFIED) - set(_TRADITIONAL))}]")
_ONLY_TRADITIONAL = re.compile(f"[{''.join(set(_TRADITIONAL) - set(_SIMPLIFIED))}]")

_NAMES = {"CJK": "Han", "HIRAGANA": "Kana", "KATAKANA": "Kana", "KATAKANA-HIRAGANA": "Kana"}
_DENSE = {"Han": 3, "Kana": 2, "Hangul": 3}  # letters of an alphabet that one such character stands for, about
_LEAST_KANA = 0.1  # share of the letters by which a text with Han characters is Japanese


def script_of(text: str) -> str | None:
    """The script most of a text is written in, None where it has no letter. Han with kana is Japanese.

    >>> script_of("BGE-M3 是什麼模型？"), script_of("これは本です"), script_of("12:30")
    ('Han', 'Japanese', None)
    """
    if text.isascii():
        return "Latin" if any(map(str.isalpha, text)) else None
    letters: Counter[str] = Counter()
    for character, count in Counter(text).items():
        if name := _script_of_character(character):
            letters[name] += count * _DENSE.get(name, 1)
    if letters["Kana"] and letters["Kana"] >= _LEAST_KANA * letters["Han"]:
        letters["Japanese"] = letters.pop("Kana") + letters.pop("Han", 0)
    return max(letters, key=lambda name: letters[name]) if letters.total() else None


def chinese_form_of(text: str) -> str | None:
    """`simplified` or `traditional`, by the characters that only one of them has; None where nothing tells."""
    simplified, traditional = len(_ONLY_SIMPLIFIED.findall(text)), len(_ONLY_TRADITIONAL.findall(text))
    if simplified == traditional:
        return None
    return "simplified" if simplified > traditional else "traditional"


def weight_of(text: str) -> int:
    """Letters and digits of a text, where a Han or Hangul character counts as three.

    >>> weight_of("A-1"), weight_of("蘋果"), weight_of(" … ")
    (2, 6, 0)
    """
    if text.isascii():
        return sum(map(str.isalnum, text))
    return sum(_DENSE.get(_script_of_character(c) or "", 1) for c in text if c.isalnum())


@cache
def _script_of_character(character: str) -> str | None:
    if not character.isalpha():
        return None
    first = unicodedata.name(character, "UNKNOWN").split()[0]
    return _NAMES.get(first, first.title())
