"""Which settings of a run may be secrets, which no page shows."""

import os
import re

__all__ = ["is_secret"]

# By name; a token is one where it is the whole last word, no `token_dim`, and many a setting ends in `key`.
_SECRET = re.compile(
    r"(^|[._-])(auth(oriz\w*)?|pass(wd|word|phrase)?|pwd|(\w*[_-])?token|login|bearer|cookie)$|secret|password|credential"
    r"|(api|access|private|account|auth|ssh|service|wandb|openai|anthropic|aws|gcp|azure|hf|huggingface)[._-]?key",
    re.IGNORECASE,
)
# By value: W&B's keys and other long ones, those that say whose they are, passwords in addresses.
_KEY = re.compile(
    r"\b[0-9a-f]{40,}\b|\b(sk|pk|hf|ghp|gho|glpat|xox[abp])[-_]\w{16,}|\bAKIA\w{12,}"
    r"|\bbearer\s\S|://[^/\s:@]+:[^/\s@]+@|-----BEGIN",
    re.IGNORECASE,
)


def is_secret(name: str, value: str) -> bool:
    """Whether a setting looks like a secret, by its name or its value; better one too many than one too few.

    Example:
        >>> is_secret("hf.token", "x"), is_secret("storage", "postgresql://me:pw@host/db"), is_secret("token_dim", "64")
        (True, True, False)
    """
    ours = os.environ.get("WANDB_API_KEY")
    long = name.lower().endswith("key") and len(value) >= 16 and " " not in value
    return bool(long or _SECRET.search(name) or _KEY.search(value) or (ours and ours in value))
