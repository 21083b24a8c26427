"""Words of Postfix' configuration: separated by blanks and commas, grouped by braces."""

from __future__ import annotations

from typing import Final

BLANKS: Final = ", \t\r\n"


class WordError(ValueError):
    """A brace is missing."""


def words(text: str, separators: str = BLANKS) -> list[str]:
    """Return the words of a text. What is in braces is one word, with its braces.

    :raises WordError: for a brace that is not closed, or opened.
    """
    found, word, depth = [], "", 0
    for letter in text:
        depth += (letter == "{") - (letter == "}")
        if depth < 0:
            raise WordError(f"a }} without its {{ in: {text:.80}")
        if depth or letter not in separators:
            word += letter
        elif word:
            found.append(word)
            word = ""
    if depth:
        raise WordError(f"a {{ without its }} in: {text:.80}")
    return [*found, word] if word else found


def in_braces(word: str) -> str:
    """Return the text inside the braces around a word; a word without braces as it is."""
    return word[1:-1].strip() if word.startswith("{") and word.endswith("}") else word
