"""Hide secrets in text that goes to W&B or onto a page."""

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, Literal

__all__ = ["hide", "hide_settings"]

_Kind = Literal["", "text", "number"]
_HIDDEN = "***"
_LONG = 16  # characters; a shorter secret could be guessed from its hash

# All patterns take time linear in the text. Each starts at a fixed prefix or at the border of a word, and a part that
# must follow an unbounded part never fails.
_PREFIXED = re.compile(
    r"""(?<![A-Za-z0-9])(?:
    sk-(?:proj|ant|or|svcacct|admin)-[\w-]{16,} | (?:sk|gsk|xai|pplx)[-_](?=[A-Za-z]{0,99}\d)[A-Za-z0-9]{20,}
  | (?:[spr]k_(?:live|test)|whsec)_\w{10,}
  | gh[a-z]_\w{16,} | github_pat_\w{16,} | gl(?:pat|dt|rt|rtr|cbt|ptt|ft|imt|agent|oas|soat|ffct|wt)-[\w-]{16,}
  | (?:hf|npm|r8|shpat|figd|rpa|ntn)_(?=[A-Za-z]{0,99}\d)[A-Za-z0-9]{20,}
  | (?:wandb_v1|dckr_pat|dop_v1|lin_api|sntry[su])_[\w-]{16,}
  | A(?:KI|SI|GP|ID|RO|NP)A[A-Z0-9]{16}(?![A-Za-z0-9]) | AIza[\w-]{30,} | ya29\.[\w-]{16,}
  | xox[a-z]-[\w-]{10,} | xapp-[\w-]{16,} | hvs\.[\w-]{20,} | (?:dapi|key-|local-)[0-9a-f]{32,}
  | pypi-[\w-]{40,} | nvapi-[\w-]{20,} | ATATT[\w-]{20,} | SG\.[\w-]{16,32}\.[\w-]{16,}
  | \d{8,10}:[\w-]{35}(?![\w-])
  | eyJ[\w-]{16,}(?:\.[\w-]*)*
  )
  | -----BEGIN[A-Z ]{0,40}\ PRIVATE\ KEY.*?(?:-----END[A-Z ]{0,40}-----|\Z)
  | (?<=/services/)T\w{6,20}/B\w{6,20}/\w+ | (?<=/webhooks/)\d{6,24}/[\w-]{20,}
  | (?<=://)[\w~%+=.-]{16,256}(?=@)""",
    re.VERBOSE | re.DOTALL,
)
_ADDRESS = re.compile(r"(?<=://)([^\s/:@]{0,256}):([^\s/]{1,1024})(?=@)")  # USER:PASSWORD@
_HEADER = re.compile(
    r"\b(bearer|basic|token)(\s{1,3})(?=\S{0,256}?(?:\d|(?-i:[a-z][A-Z])))([\w+/=]{20,}(?![.~-])|(?<=er\s)[\w.~+/=-]{6,})",
    re.IGNORECASE,
)
_NAME = re.compile(
    r"""(?<![\w.-])(?:
    (?P<flag>--?[A-Za-z][\w.-]*)\s{1,3}(?!-)
  | -{0,2}(?P<name>[A-Za-z_][\w.-]*)[\\"']{0,3}\s{0,3}[=:]\s{0,3}
  )(?=\S)""",
    re.VERBOSE,
)
_SCHEME = r"(?:(?:bearer|basic|token|digest)\s{1,3})?"
_VALUE = re.compile(_SCHEME + r"""(\\?"[^"]*|\\?'[^']*|[\[{(].*|[^\s"']+)""", re.IGNORECASE | re.DOTALL)
_QUERY_VALUE = re.compile(r"""([^\s"'&#]+)""")
_QUERY_NAME = re.compile(r"(?:^|[-_])(?:sig|signature|key|code)$", re.IGNORECASE)

# Names are read as words: `accessToken`, `ACCESS_TOKEN` and `access-token` are "access token". A token of a text, such
# as `pad_token`, is no secret. A setting that ends in `key` is one if its other words say what the key opens.
_BORDER = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_NUMBER_NAME = re.compile(r"\b(?:pass(?:word|wd|code|phrase)s?|pwd|t?otp)\b")
_TEXT_NAME = re.compile(
    r"""\b(?:secrets?|cred(?:ential)?s?|jwt|bearer|authorization|dsn)\b
  | \b(?:(?:api|access|private|secret|ssh|auth|account)keys?|(?:access|auth|refresh|api|session)tokens?|sessionid)\b
  | (?:^|\b(?!(?:low|high|band|all|one|two|multi|single|first|second|forward|backward|full|per)\ )\w+\ )pass$
  | (?:^|\b(?!(?:pad|eos|bos|cls|class|mask|unk|sep|start|end|stop|special|image|img|text|audio|video|visual|prefix
      |suffix|register|dist|distillation|patch|next|first|last|num|n|max|min|per|total|new|vocab|word|sub|query|prompt|input
      |output|target|source|think|tool|pool|mean|avg
      |train|val|test|context|summary|global|time|action|state|memory)\ )\w+\ )tokens?(?:\ value|\ string)?$
  | \b(?:auth|cookies?|pat|login|session\ id|webhooks?(?:\ ur[li])?|conn(?:ection)?\ str(?:ing)?)$
  | \b(?:database|db|redis|mongo(?:db)?|postgres(?:ql)?|mysql|sqlalchemy|amqp|broker)\ ur[li]$
  | (?:^|\b(?:http|request|extra|default)\ )headers$
  | \b(?:api|access|private|account|auth|ssh|service|secret|session|encryption|decryption|signing|license|subscription
      |shared|master|admin|deploy|rsa|gpg|pgp|hmac|fernet|sas|storage|wandb|comet|neptune|clearml|openai|anthropic|aws|s3
      |gcp|google|azure|hf|huggingface|github|gitlab|slack|kaggle)\ keys?$""",
    re.VERBOSE | re.MULTILINE,
)
_RANDOM = re.compile(r"(?=.*\d)(?=.*[A-Za-z])(?!.*_.*_)[\w+/=-]{16,}")  # what a key of any other name must look like
_PLAIN = re.compile(
    r"|none|null|true|false|yes|no|on|off|auto|\d+(?:\.\d+)?[KMBT]|<[^<>]*>|\[[A-Z]{2,12}\]|\*{3}[0-9a-f]{0,4}",
    re.IGNORECASE,
)


def hide(text: str) -> str:
    """Replace each secret by ``***``, followed by four hex digits of its hash if the secret is long.

    Equal secrets become equal texts. A secret is recognised by one of these:

    - **Prefix or form**: ``hf_...``, a JWT, a private key.
    - **Place**: the password in an address, or in a header.
    - **Name before it**: ``--password X``, ``?token=X``.

    Example:
        >>> hide("postgresql://me:pw@host/db?token=abc --lr 0.1"), hide("epoch=3")
        ('postgresql://me:***@host/db?token=*** --lr 0.1', 'epoch=3')
    """
    own = os.environ.get("WANDB_API_KEY")
    if own and own in text:
        text = text.replace(own, _mask(own))
    return _hidden_soon(text) if len(text) < 256 else _hidden(text)


def hide_settings(settings: Mapping[Any, Any]) -> dict[Any, Any]:
    """Copy nested or flattened settings, and hide secrets in them.

    Secrets in keys and texts are hidden, and each text below a name that announces a secret.

    Example:
        >>> hide_settings({"hf_token": "abc", "token_dim": 64, "headers": {"X": "abc"}, "argv": ["--token", "abc"]})
        {'hf_token': '***', 'token_dim': 64, 'headers': {'X': '***'}, 'argv': ['--token', '***']}
    """
    return {hide(key) if isinstance(key, str) else key: value for key, value in _items(settings.items(), "")}


def _items(items: Iterable[tuple[Any, Any]], above: _Kind) -> Iterator[tuple[Any, Any]]:
    before = None
    for key, value in items:
        name = str(key)
        kind = above or _kind(name)
        # In a list, flattened or not, a flag says whether the next value is a secret.
        if not kind and isinstance(before, str) and before[:1] == "-" and name.rpartition(".")[2].isdigit():
            kind = _kind(before) if not isinstance(value, str) or value[:1] != "-" else ""
        yield key, _value(name, value, kind)
        before = value


def _value(name: str, value: Any, kind: _Kind) -> Any:
    if isinstance(value, Mapping):
        return {hide(key) if isinstance(key, str) else key: each for key, each in _items(value.items(), kind)}
    if isinstance(value, list | tuple):
        return [each for _, each in _items(enumerate(value), kind)]
    if isinstance(value, str):
        if kind or (name.lower().endswith("key") and _RANDOM.fullmatch(value)):
            return _mask(value, kind)
        return hide(value)
    return _mask(str(value)) if kind == "number" and isinstance(value, int) and not isinstance(value, bool) else value


@lru_cache(4096)
def _kind(name: str) -> _Kind:
    """Say whether a setting's name announces a secret: ``"text"``, ``"number"`` for numbers too, or ``""`` for none."""
    words = _BORDER.sub(" ", name).lower()
    lines = (re.sub(r"[\W_]+", " ", line) for line in re.split(r"[./]", words))
    words = "\n".join(line.strip().rstrip("0123456789").strip() for line in lines)
    return "number" if _NUMBER_NAME.search(words) else "text" if _TEXT_NAME.search(words) else ""


def _mask(secret: str, kind: _Kind = "number") -> str:
    if _PLAIN.fullmatch(secret) or (kind == "text" and secret.isdigit() and len(secret) < 10):
        return secret
    digest = hashlib.sha256(secret.encode("utf-8", "backslashreplace")).hexdigest()
    return _HIDDEN + (digest[:4] if len(secret) >= _LONG else "")


def _masked_address(found: re.Match[str]) -> str:
    user = _mask(found[1]) if len(found[1]) >= _LONG else found[1]
    return f"{user}:{_mask(found[2])}"


def _hidden(text: str) -> str:
    text = _PREFIXED.sub(lambda found: _mask(found[0]), text)
    text = _ADDRESS.sub(_masked_address, text)
    text = _HEADER.sub(lambda found: found[1] + found[2] + _mask(found[3]), text)
    parts, end = [], 0
    for found in _NAME.finditer(text):
        if found.start() < end:
            continue
        name, query = found["name"] or found["flag"], text[max(0, found.start() - 1) : found.start()] in ("?", "&")
        kind = _kind(name) or ("text" if query and _QUERY_NAME.search(name) else "")
        value = (_QUERY_VALUE if query else _VALUE).match(text, found.end()) if kind else None
        if value is not None:
            bare = value[1].lstrip("\\\"'")
            parts += [text[end : value.end() - len(bare)], _mask(bare, kind)]
            end = value.end()
    return "".join((*parts, text[end:]))


_hidden_soon = lru_cache(4096)(_hidden)
