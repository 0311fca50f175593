"""Make text from files and folders safe to print on a terminal."""

import unicodedata

__all__ = ["printable"]

_ESCAPED = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # controls, formats such as bidi overrides, surrogates, line separators
_JOINERS = "\u200c\u200d"  # of Persian words and of emoji: they move nothing


def printable(text: object) -> str:
    r"""Return the text on one line. Characters that could steer a terminal become escape sequences.

    Args:
        text: A message, or an object whose ``str`` is one, such as a path or an exception.

    Example:
        >>> printable("runs/\x1b[2Jgrid\n")
        'runs/\\x1b[2Jgrid\\n'
    """
    return "".join(_escaped(character) for character in str(text))


def _escaped(character: str) -> str:
    if character.isascii() and character.isprintable():
        return character
    if unicodedata.category(character) in _ESCAPED and character not in _JOINERS:
        return character.encode("unicode_escape").decode()
    return character
